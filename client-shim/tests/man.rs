//! The manual pages: one for each command, and the shim's, which is written by hand, true to its `--help`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const SHIM_PAGE: &str = include_str!("../../.packaging/conductor-shim.1");

/// The output of a program that must succeed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The words of `text` that are long options, or variables of conductor's.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .filter(|word| word.starts_with("--") || word.starts_with("CONDUCTOR_"))
        .collect()
}

#[test]
fn every_command_has_a_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().to_str().expect("text");
    output(env!("CARGO_BIN_EXE_conductorctl"), &["man", at]);

    let help = output(env!("CARGO_BIN_EXE_conductorctl"), &["--help"]);
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let (commands, _) = commands.split_once("\n\n").expect("an end of it");
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"status"), "{commands:?}");
    for command in commands {
        let page = fs::read_to_string(directory.path().join(format!("conductorctl-{command}.1")));
        assert!(page.is_ok_and(|page| page.contains(".SH DESCRIPTION")), "no page for {command}");
    }
}

#[test]
fn the_page_of_the_shim_tells_what_its_help_tells() {
    let page = ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(SHIM_PAGE.replace("\\-", "-"), |page, font| page.replace(font, " "));
    let help = output(env!("CARGO_BIN_EXE_conductor-shim"), &["--help"]);
    assert!(!names(&help).is_empty(), "{help}");
    assert!(names(&help).is_subset(&names(&page)), "{:?} against {:?}", names(&help), names(&page));
}
