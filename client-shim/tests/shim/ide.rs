//! The IDE's side, played by the test: starts the shim, writes its input, reads its output only when asked.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use serde_json::Value;

use crate::PATIENCE;

pub(crate) struct Ide {
    shim: Child,
    input: Option<PipeWriter>,
    output: Option<PipeReader>,
    unread: Vec<u8>,
    words: Option<JoinHandle<String>>,
}

impl Ide {
    /// A shim that starts no daemon.
    pub(crate) fn start(socket: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Self::command();
        command.arg("--socket").arg(socket).env("CONDUCTOR_NO_AUTOSTART", "1").envs(env.iter().copied());
        Self::run(command)
    }

    /// The shim in an empty environment.
    pub(crate) fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conductor-shim"));
        command.env_clear();
        command
    }

    pub(crate) fn run(command: Command) -> Self {
        Self::run_on(command, |_| {})
    }

    /// Runs the shim on pipes whose ends for the shim are prepared first.
    pub(crate) fn run_on(mut command: Command, prepare: impl Fn(BorrowedFd<'_>)) -> Self {
        let (stdin, input) = std::io::pipe().expect("a pipe");
        let (output, stdout) = std::io::pipe().expect("a pipe");
        prepare(stdin.as_fd());
        prepare(stdout.as_fd());
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut shim = command.spawn().expect("the shim starts");
        let words = shim.stderr.take().map(|stderr| std::thread::spawn(move || read_all(stderr)));
        Self { input: Some(input), output: Some(output), shim, unread: Vec::new(), words }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.shim.id()
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("input is open").write_all(bytes).expect("the shim reads");
    }

    /// Gives the input to another thread.
    pub(crate) fn take_input(&mut self) -> PipeWriter {
        self.input.take().expect("input is open")
    }

    pub(crate) fn receive(&mut self) -> Value {
        let line = self.receive_line().expect("the shim goes on");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next line; `None` at the end of the output.
    pub(crate) fn receive_line(&mut self) -> Option<String> {
        let mut chunk = [0; 65536];
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("UTF-8"));
            }
            let output = self.output.as_mut().expect("output is open");
            let timeout = PollTimeout::try_from(PATIENCE).expect("fits");
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut fds, timeout), Ok(1), "the shim answers");
            match output.read(&mut chunk).expect("a pipe") {
                0 => {
                    assert!(self.unread.is_empty(), "the last line is whole");
                    return None;
                }
                n => self.unread.extend_from_slice(&chunk[..n]),
            }
        }
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn close_output(&mut self) {
        self.output = None;
    }

    /// Waits for the shim's end; its output must be read to the end already. Gives what it said on stderr, too.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let words = self.words.take().expect("waited for once").join().expect("stderr is read");
        (self.shim.wait().expect("a child"), words)
    }

    /// The most memory the shim has held so far, KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live shim");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }
}

fn read_all(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    stderr.read_to_end(&mut bytes).expect("a pipe");
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Ide {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.shim.kill().ok();
        self.shim.wait().ok();
    }
}
