//! `conductorctl client` as its user meets it: the real program on files in a home of its own.

mod golden;
mod home;
mod import;
mod refusals;
mod terminal;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use home::{Home, Outcome};
use serde_json::{Value, json};

#[test]
fn a_client_without_a_file_gets_one() {
    let home = Home::new();
    let outcome = home.run(&["client", "add", "cursor", "--yes"]);
    outcome.succeeds("wrote   ");
    assert!(outcome.stdout.contains("has not run here yet"), "{outcome:?}");
    let written: Value = serde_json::from_str(&home.read(".cursor/mcp.json")).expect("JSON");
    let expected = json!({ "type": "stdio", "command": home.shim(), "args": [] });
    assert_eq!(written["mcpServers"]["conductor"], expected);
    assert_eq!(home.mode(".cursor/mcp.json"), 0o600);

    home.run(&["client", "add", "cursor"]).succeeds("nothing to do: conductor is registered in ");
    assert_eq!(home.names(".cursor"), ["mcp.json"], "nothing existed, so there is no backup");
    home.run(&["client", "remove", "cursor", "--yes"]).succeeds("wrote   ");
    let left: Value = serde_json::from_str(&home.read(".cursor/mcp.json")).expect("JSON");
    assert_eq!(left, json!({ "mcpServers": {} }));
    home.run(&["client", "remove", "cursor"]).succeeds("nothing to do: ");
}

#[test]
fn a_dry_run_shows_the_change_and_makes_none() {
    let home = Home::new();
    let server = r#"{ "command": "a", "env": { "K": "hush" } }"#;
    let original = format!("{{\n  \"mcpServers\": {{\n    \"a\": {server}\n  }}\n}}\n");
    home.write(".cursor/mcp.json", &original);
    let outcome = home.run(&["client", "add", "cursor", "--dry-run"]);
    outcome.succeeds("nothing was written");
    let path = home.path(".cursor/mcp.json");
    let header = format!("--- {0}\n+++ {0}\n@@ -1,5 +1,10 @@\n", path.display());
    for part in [header.as_str(), "+    \"conductor\": {\n", "{ \"K\": \"***\" }"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
    assert!(!outcome.stdout.contains("hush"), "{outcome:?}");
    assert_eq!(home.read(".cursor/mcp.json"), original);
    assert_eq!(home.names(".cursor"), ["mcp.json"]);
}

#[test]
fn a_link_stays_a_link_and_its_target_keeps_its_mode() {
    let home = Home::new();
    home.write("dotfiles/gemini.json", "{}\n");
    fs::create_dir(home.path(".gemini")).expect("makes");
    symlink("../dotfiles/gemini.json", home.path(".gemini/settings.json")).expect("links");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(home.path("dotfiles/gemini.json"), mode).expect("is ours");
    home.run(&["client", "add", "gemini", "--yes"]).succeeds("backup  ");
    assert!(home.path(".gemini/settings.json").is_symlink());
    assert!(home.read("dotfiles/gemini.json").contains("conductor-shim"));
    assert_eq!(home.mode("dotfiles/gemini.json"), 0o640);
    home.run(&["client", "remove", "gemini", "--yes"]).succeeds("wrote   ");
    assert_eq!(home.read("dotfiles/gemini.json"), "{}\n");
}

#[test]
fn a_project_has_a_file_of_its_own() {
    let home = Home::new();
    fs::create_dir(home.path("p")).expect("makes");
    let project = home.path("p");
    let project = project.to_str().expect("text");
    home.run(&["client", "add", "vscode", "--project", project, "--yes"]).succeeds("wrote   ");
    let written: Value = serde_json::from_str(&home.read("p/.vscode/mcp.json")).expect("JSON");
    assert_eq!(written["servers"]["conductor"]["type"], "stdio");
    assert!(!home.path(".config").exists(), "the user's own is not touched");
    let mut here = home.command(&["client", "add", "claude-code", "--scope", "project", "--yes"]);
    Outcome::from(here.current_dir(project).output().expect("runs")).succeeds(".mcp.json");
    assert!(home.path("p/.mcp.json").exists());
}

#[test]
fn a_socket_that_was_named_goes_into_the_entry() {
    let home = Home::new();
    home.run(&["--socket", "/run/x.sock", "client", "add", "codex", "--yes"]).succeeds("wrote   ");
    let text = home.read(".codex/config.toml");
    assert!(text.contains("args = [\"--socket\", \"/run/x.sock\"]"), "{text}");
    assert!(text.contains("env_vars = [\"CONDUCTOR_DAEMON\""), "{text}");
}

#[test]
fn the_list_shows_what_is_there_and_what_is_broken() {
    let home = Home::new();
    home.write(".cursor/mcp.json", "{}");
    home.write(".gemini/settings.json", "{");
    home.write(".codex/config.toml", "[mcp_servers.mine]\ncommand = '/gone/conductor-shim'\n");
    home.run(&["client", "add", "zed", "--yes"]).succeeds("wrote   ");
    let outcome = home.run(&["client", "list", "--json"]);
    outcome.succeeds("{");
    let document: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let findings = document["clients"].as_array().expect("a list");
    assert_eq!(findings.len(), 8);
    let of = |client: &str| findings.iter().find(|finding| finding["client"] == client).expect("is listed");
    assert_eq!((&of("cursor")["found"], &of("cursor")["registered"]), (&json!(true), &json!([])));
    assert_eq!(of("windsurf")["found"], false);
    assert!(of("gemini")["problem"].as_str().expect("a text").starts_with("line 1, column 1: "));
    let broken = json!([{ "name": "mine", "command": "/gone/conductor-shim", "commandExists": false }]);
    assert_eq!(of("codex")["registered"], broken);
    let good = json!([{ "name": "conductor", "command": home.shim(), "commandExists": true }]);
    assert_eq!(of("zed")["registered"], good);

    let text = home.run(&["client", "list"]).stdout;
    for part in [
        "Windsurf        not found\n",
        "to add it: conductorctl client add cursor\n",
        "unreadable: ",
        "broken: mine runs /gone/conductor-shim, which is not there",
        &format!("registered: conductor runs {}", home.shim()),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
