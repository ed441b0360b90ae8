//! `conductorctl config edit` with a user at a terminal who made a mistake: he is asked, and may put it right.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Stdio};

use conductor_tests::binaries::write_program;
use conductor_tests::{DEADLINE, Home, binaries};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;

const RIGHT: &str = "[pool]\nmax-idle = 3\n";

/// A run of `conductorctl config edit` on a terminal of its own.
struct Terminal {
    user: File,
    child: Child,
    said: String,
}

impl Terminal {
    /// The editor does one of `edits` each time that it is started, with the file in `$1`; what it found there is kept.
    fn edit(home: &Home, edits: &[&str]) -> Self {
        let (editor, seen) = (home.path("editor"), home.path("seen"));
        fs::create_dir_all(&seen).expect("makes the directory");
        let cases: String = edits.iter().enumerate().map(|(n, edit)| format!("{n}) {edit} ;;\n")).collect();
        let count = format!("n=$(ls {0} | wc -l | tr -d ' ')\ncp \"$1\" {0}/$n\n", seen.display());
        write_program(&editor, &format!("#!/bin/sh\n{count}case $n in\n{cases}*) exit 9 ;;\nesac\n"));
        let pty = openpty(None, None).expect("a terminal");
        let mut command = home.command(&binaries::conductorctl());
        command.env("CONDUCTOR_DAEMON", binaries::conductord()).env("CONDUCTOR_SOCKET", home.socket());
        command.env("EDITOR", editor).args(["--no-start", "config", "edit"]);
        let program = File::from(pty.slave);
        command.stdin(program.try_clone().expect("clones")).stderr(program).stdout(Stdio::piped());
        let child = command.spawn().expect("starts");
        // Its copies of the terminal would keep the terminal open.
        drop(command);
        Self { user: File::from(pty.master), child, said: String::new() }
    }

    /// Reads what is said up to a question, and answers it.
    fn answer(&mut self, question: &str, answer: &str) -> String {
        let mut buffer = [0; 1024];
        while !self.said.ends_with(question) {
            let mut ready = [PollFd::new(self.user.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(DEADLINE).expect("fits");
            assert_eq!(
                poll(&mut ready, timeout),
                Ok(1),
                "something within {DEADLINE:?} after: {}",
                self.said
            );
            // A terminal without programs cannot be read from.
            let n_bytes = self.user.read(&mut buffer).expect("it asks before it ends");
            self.said.push_str(&String::from_utf8_lossy(&buffer[..n_bytes]));
        }
        self.user.write_all(answer.as_bytes()).expect("types");
        std::mem::take(&mut self.said)
    }

    /// The exit code, and what was written to stdout and is left on the terminal.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut stdout = String::new();
        self.child.stdout.take().expect("is piped").read_to_string(&mut stdout).expect("is read");
        let code = self.child.wait().expect("ends").code();
        let mut rest = Vec::new();
        // The end of a terminal is an error.
        let _end = self.user.read_to_end(&mut rest);
        (code, stdout, String::from_utf8_lossy(&rest).into_owned())
    }
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.config_file()).expect("is there")
}

fn seen(home: &Home, n: usize) -> String {
    fs::read_to_string(home.path(&format!("seen/{n}"))).expect("the editor was started so often")
}

#[test]
fn a_mistake_can_be_put_right_and_what_was_written_is_not_lost() {
    let home = Home::new();
    home.configure(RIGHT);
    let wrong = "sed -i s/max-idle/max-idel/ \"$1\"";
    let worse = "sed -i 's/= 3/= x/' \"$1\"";
    let repair = "printf '[pool]\\nmax-idle = 5\\n' > \"$1\"";
    let mut terminal = Terminal::edit(&home, &[wrong, worse, repair]);
    let said = terminal.answer("Edit again? [Y/n] ", "\n");
    assert!(said.contains(&format!("{}:2:1: pool: unknown key", home.config_file().display())), "{said}");
    assert_eq!(text(&home), RIGHT, "not before it is right");
    let said = terminal.answer("Edit again? [Y/n] ", "yes\n");
    assert!(said.contains("config.toml:2:"), "{said}");
    let (code, stdout, _) = terminal.end();
    assert_eq!((code, text(&home).as_str()), (Some(0), "[pool]\nmax-idle = 5\n"), "{stdout}");
    assert!(stdout.contains("no daemon runs; the next one uses it"), "{stdout}");
    assert_eq!(seen(&home, 1), "[pool]\nmax-idel = 3\n", "the editor shows what was written");
    assert_eq!(seen(&home, 2), "[pool]\nmax-idel = x\n");
}

#[test]
fn whoever_gives_up_keeps_what_he_wrote_and_the_file_as_it_was() {
    // No, and the end of input.
    for answer in ["n\n", "No\n", "\u{4}"] {
        let home = Home::new();
        home.configure(RIGHT);
        let mut terminal = Terminal::edit(&home, &["sed -i s/max-idle/max-idel/ \"$1\""]);
        terminal.answer("Edit again? [Y/n] ", answer);
        let (code, _, said) = terminal.end();
        assert_eq!((code, text(&home).as_str()), (Some(1), RIGHT), "{answer:?}: {said}");
        let kept = said.split("what you wrote is kept in ").nth(1).and_then(|rest| rest.lines().next());
        let kept = kept.unwrap_or_else(|| panic!("{said}")).trim_end();
        assert_eq!(fs::read_to_string(kept).expect("is kept"), "[pool]\nmax-idel = 3\n");
    }
}

#[test]
fn a_change_that_is_taken_back_is_none() {
    let home = Home::new();
    home.configure(RIGHT);
    let (wrong, back) = ("sed -i s/idle/idel/ \"$1\"", "sed -i s/idel/idle/ \"$1\"");
    let mut terminal = Terminal::edit(&home, &[wrong, back]);
    terminal.answer("Edit again? [Y/n] ", "y\n");
    let (code, stdout, _) = terminal.end();
    assert_eq!((code, stdout.as_str()), (Some(0), "nothing was changed\n"));
    assert_eq!(text(&home), RIGHT);
    let directory = home.config_file().parent().expect("has one").to_owned();
    let left = fs::read_dir(directory)
        .expect("lists")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(".config-"));
    assert_eq!(left.count(), 0, "nothing is left behind");
}
