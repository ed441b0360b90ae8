//! What is not done, and what its user is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::home::{Home, Outcome};

#[test]
fn without_a_terminal_nothing_is_written_unasked() {
    let home = Home::new();
    home.write(".cursor/mcp.json", "{}");
    let outcome = home.run(&["client", "add", "cursor"]);
    outcome.fails(&["nothing was written", "--yes", "--dry-run"]);
    assert!(
        outcome.stdout.contains("+    \"conductor\": {"),
        "the change is shown all the same: {outcome:?}"
    );
    assert_eq!(home.read(".cursor/mcp.json"), "{}");
}

#[test]
fn files_that_mean_something_else_are_left_alone() {
    for (text, says) in [
        ("null", "line 1, column 1: the document is null"),
        ("[]", "the document is a list"),
        ("{\"mcpServers\": null}", "line 1, column 16: mcpServers is null"),
        (
            "{\"mcpServers\": {},\n \"mcpServers\": {}}",
            "line 2, column 2: mcpServers is written a second time",
        ),
        ("{\"mcpServers\": {\"conductor\": {\"command\": \"npx\"}}}", "not conductor's: it runs npx"),
        ("{\"mcpServers\": {\"conductor\": 7}}", "not conductor's"),
        ("\u{fffd}", "line 1, column 1"),
    ] {
        let home = Home::new();
        home.write(".cursor/mcp.json", text);
        home.run(&["client", "add", "cursor", "--yes"]).fails(&["cannot edit", says]);
        assert_eq!(home.read(".cursor/mcp.json"), text);
    }
    let home = Home::new();
    home.write(".cursor/mcp.json", "{\"mcpServers\": {\"conductor\": {\"command\": \"npx\"}}}");
    home.run(&["client", "remove", "cursor", "--yes"]).fails(&["is not conductor's: it runs npx"]);
    home.run(&["client", "add", "cursor", "--yes", "--name", "sandbox"]).succeeds("wrote   ");
}

#[test]
fn what_is_no_file_of_text_is_refused() {
    let home = Home::new();
    fs::create_dir_all(home.path(".cursor/mcp.json")).expect("makes");
    home.run(&["client", "add", "cursor", "--yes"]).fails(&["is a directory, not a file"]);
    fs::create_dir(home.path(".codex")).expect("makes");
    symlink("nowhere", home.path(".codex/config.toml")).expect("links");
    home.run(&["client", "add", "codex", "--yes"]).fails(&["leads nowhere"]);
    fs::create_dir(home.path(".gemini")).expect("makes");
    fs::write(home.path(".gemini/settings.json"), b"{\"a\": \"\xff\"}").expect("writes");
    home.run(&["client", "add", "gemini", "--yes"]).fails(&["not UTF-8 text: byte 7"]);
    let huge = fs::File::create(home.path(".claude.json")).expect("makes");
    huge.set_len((16 << 20) + 1).expect("grows");
    home.run(&["client", "add", "claude-code", "--yes"]).fails(&["larger than 16 MiB"]);
}

#[test]
fn a_large_file_that_is_right_is_edited() {
    let home = Home::new();
    let history = vec!["\"x\""; 50_000].join(",\n    ");
    let text = format!(
        "{{\n  \"history\": [\n    {history}\n  ],\n  \"mcpServers\": {{\n    \"a\": {{}}\n  }}\n}}\n"
    );
    home.write(".claude.json", &text);
    home.run(&["client", "add", "claude-code", "--yes"]).succeeds("backup  ");
    home.run(&["client", "remove", "claude-code", "--yes"]).succeeds("wrote   ");
    assert!(home.read(".claude.json") == text, "the bytes are the same");
}

#[test]
fn without_a_shim_there_is_nothing_to_register() {
    let home = Home::new();
    let alone = home.path("conductorctl");
    // By a process of its own: what another test starts just then would hold the copy open for writing, and Linux executes no
    // such file.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_conductorctl")).arg(&alone).status();
    assert!(copied.expect("cp starts").success());
    let outcome: Outcome =
        home.command_of(&alone, &["client", "add", "cursor", "--yes"]).output().expect("runs").into();
    outcome.fails(&["conductor-shim", "install conductor-shim into the directory of conductorctl"]);
    assert!(!home.path(".cursor").exists());
}

#[test]
fn places_that_do_not_exist_are_named() {
    let home = Home::new();
    let no_scope = home.run(&["client", "add", "windsurf", "--scope", "project", "--yes"]);
    no_scope.fails(&["Windsurf has no configuration of its own for a project"]);
    home.run(&["client", "add", "cursor", "--project", "nowhere", "--yes"])
        .fails(&["nowhere is not a directory"]);
    let unknown = home.run(&["client", "add", "emacs"]);
    assert_eq!(unknown.code, Some(64), "{unknown:?}");
    assert!(unknown.stderr.contains("claude-code, claude-desktop, cursor, vscode"), "{unknown:?}");
}
