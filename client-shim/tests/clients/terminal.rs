//! The question on a terminal, asked and answered on a real one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use nix::pty::openpty;

use crate::home::Home;

/// Runs `conductorctl` on a terminal whose user types `answer` once asked. Gives the exit code.
fn answered(home: &Home, arguments: &[&str], answer: &str) -> Option<i32> {
    let pty = openpty(None, None).expect("a terminal");
    let (mut user, program) = (File::from(pty.master), File::from(pty.slave));
    let mut command = home.command(arguments);
    command.stdin(program.try_clone().expect("clones")).stderr(program).stdout(Stdio::null());
    let mut child = command.spawn().expect("runs");
    // Its copies of the terminal would keep the terminal open.
    drop(command);
    let mut said = String::new();
    let mut buffer = [0; 256];
    while !said.ends_with("[y/N] ") {
        // A terminal without programs cannot be read from.
        let n_bytes = user.read(&mut buffer).expect("it asks before it ends");
        said.push_str(&String::from_utf8_lossy(&buffer[..n_bytes]));
    }
    assert!(said.contains("Write "), "{said}");
    user.write_all(answer.as_bytes()).expect("types");
    child.wait().expect("ends").code()
}

#[test]
fn only_a_yes_is_a_yes() {
    let home = Home::new();
    home.write(".cursor/mcp.json", "{}");
    for no in ["\n", "n\n", "yep\n", "\u{4}"] {
        assert_eq!(answered(&home, &["client", "add", "cursor"], no), Some(1), "{no:?}");
        assert_eq!(home.read(".cursor/mcp.json"), "{}");
    }
    assert_eq!(answered(&home, &["client", "add", "cursor"], "y\n"), Some(0));
    assert!(home.read(".cursor/mcp.json").contains("conductor-shim"));
    assert_eq!(answered(&home, &["client", "remove", "cursor"], "YES\n"), Some(0));
    assert_eq!(home.read(".cursor/mcp.json"), "{}");
}
