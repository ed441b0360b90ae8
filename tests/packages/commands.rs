//! The examples of `conductorctl packages` in the document: each is run, in their order, and prints what stands there.

use std::process::Command;
use std::time::Duration;

use conductor_tests::{Daemon, Home, Shim, binaries, wait_for};

use crate::document;

const START: &str = "```console\n$ conductorctl ";
const END: &str = "```\n";

/// What the examples are about; the document shows the same lines.
const CONFIGURATION: &str =
    "[profiles.default]\npackages = [\"npm:zod@^4\", \"npm:axios@^1\", \"npm:bcrypt@^6\"]\n";

#[test]
fn commands_print_what_the_document_shows() {
    let home = Home::new();
    home.configure(CONFIGURATION);
    let _daemon = Daemon::start(&home);
    assert!(document::read().contains(CONFIGURATION), "the document shows the configuration");
    let _session = Shim::session_with(&home, |command| {
        command.env_remove("MCP_CONDUCTOR_ALLOWED_PACKAGES");
    });
    wait_for("the layer of the examples", Duration::from_secs(240), || {
        let list = conductorctl(&home, "packages list");
        if list.starts_with("Packages: layer") { Ok(()) } else { Err(list) }
    });
    document::edit(|document| run_examples(&home, document));
}

/// The document with what its examples print now.
fn run_examples(home: &Home, document: &str) -> String {
    let (mut written, mut rest, mut count) = (String::new(), document, 0);
    while let Some(at) = rest.find(START) {
        let (arguments, shown) = rest[at + START.len()..].split_once('\n').expect("a command ends its line");
        let (shown, after) = shown.split_once(END).expect("an example ends");
        let printed = conductorctl(home, arguments);
        assert!(
            document::is_updating() || without_numbers(shown) == without_numbers(&printed),
            "`conductorctl {arguments}` is shown as\n{shown}\nand prints\n{printed}"
        );
        written.push_str(&format!("{}{START}{arguments}\n{printed}{END}", &rest[..at]));
        (rest, count) = (after, count + 1);
    }
    assert!(count >= 6, "the document shows the commands");
    written + rest
}

fn conductorctl(home: &Home, arguments: &str) -> String {
    let mut command: Command = home.command(&binaries::conductorctl());
    command.args(arguments.split(' ')).env("CONDUCTOR_SOCKET", home.socket());
    command.env("CONDUCTOR_NO_AUTOSTART", "1").env_remove("MCP_CONDUCTOR_ALLOWED_PACKAGES");
    let output = command.output().expect("conductorctl starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("its output is text");
    text.replace(&*home.home().to_string_lossy(), "~")
}

/// The words, with every number, version and hash as `#`: they change with releases and machines.
fn without_numbers(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let is_number = word.contains(|c: char| c.is_ascii_digit()) && !word.starts_with("npm:");
        if is_number { "#".to_owned() } else { word.to_owned() }
    };
    text.split_whitespace().map(word).collect()
}
