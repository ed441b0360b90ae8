//! `client add --import`: servers move behind conductor, whole or not at all.

use serde_json::{Value, json};

use crate::home::{Home, Outcome};

const UPSTREAM: &str = ".mcp-conductor/mcp-config.json";

const VSCODE: &str = ".config/Code/User/mcp.json";

fn json_of(home: &Home, file: &str) -> Value {
    serde_json::from_str(&home.read(file)).expect("JSON")
}

#[test]
fn servers_move_with_their_secrets_into_a_private_file() {
    let home = Home::new();
    let github = json!({ "type": "stdio", "command": "gh-mcp", "env": { "TOKEN": "hush" } });
    let docs = json!({ "type": "http", "url": "https://docs.example/mcp" });
    let asks = json!({ "type": "stdio", "command": "x", "args": ["${input:key}"] });
    let before = json!({ "servers": { "github": github, "asks": asks, "docs": docs }, "inputs": [] });
    home.write(VSCODE, &format!("{before:#}\n"));

    let dry = home.run(&["client", "add", "vscode", "--import", "--dry-run"]);
    dry.succeeds("nothing was written");
    assert!(dry.stdout.contains("moves   github\n") && dry.stdout.contains("stays   asks: "), "{dry:?}");
    let (first, second) = (dry.stdout.find(UPSTREAM), dry.stdout.find(VSCODE));
    assert!(first.is_some() && first < second, "both are shown: {dry:?}");
    assert!(!dry.stdout.contains("hush"), "{dry:?}");
    assert!(!home.path(UPSTREAM).exists());

    home.run(&["client", "add", "vscode", "--import", "--yes"]).succeeds("wrote   ");
    assert_eq!(json_of(&home, UPSTREAM), json!({ "mcpServers": { "github": github, "docs": docs } }));
    assert_eq!(home.mode(UPSTREAM), 0o600);
    let left = json_of(&home, VSCODE);
    let servers = left["servers"].as_object().expect("an object");
    assert_eq!(servers.keys().collect::<Vec<_>>(), ["asks", "conductor"]);
    assert_eq!(left["inputs"], json!([]));
    home.run(&["client", "add", "vscode", "--import"]).succeeds("nothing to do");
}

#[test]
fn what_conductor_has_already_stays_as_it_is() {
    let home = Home::new();
    let original = "// mine\n{\n\t\"mcpServers\": {\n\t\t\"a\": { \"command\": \"a\" }, // first\n\t},\n}\n";
    home.write(UPSTREAM, original);
    home.write(".cursor/mcp.json", r#"{"mcpServers": {"a": {"command": "a"}, "b": {"command": "b"}}}"#);
    home.run(&["client", "add", "cursor", "--import", "--yes"]).succeeds("moves   b");
    let added = "// first\n\t\t\"b\": {\n\t\t\t\"command\": \"b\"\n\t\t},";
    assert_eq!(home.read(UPSTREAM), original.replace("// first", added));
    assert_eq!(home.mode(UPSTREAM), 0o600, "it may hold secrets now");
}

#[test]
fn a_name_with_two_meanings_stops_the_whole_import() {
    let home = Home::new();
    let (upstream, client) = (
        r#"{"mcpServers": {"a": {"command": "x"}}}"#,
        r#"{"mcpServers": {"a": {"command": "y"}, "b": {"command": "b"}}}"#,
    );
    home.write(UPSTREAM, upstream);
    home.write(".cursor/mcp.json", client);
    let outcome = home.run(&["client", "add", "cursor", "--import", "--yes"]);
    outcome.fails(&["names other servers already as a", "nothing was changed"]);
    assert_eq!((home.read(UPSTREAM), home.read(".cursor/mcp.json")), (upstream.into(), client.into()));
}

#[test]
fn a_malformed_upstream_file_stops_the_whole_import() {
    let home = Home::new();
    let client = r#"{"mcpServers": {"a": {"command": "y"}}}"#;
    home.write(UPSTREAM, "{\n  \"mcpServers\": [\n}");
    home.write(".cursor/mcp.json", client);
    home.run(&["client", "add", "cursor", "--import", "--yes"])
        .fails(&["mcp-config.json", "line 3, column 1"]);
    assert_eq!(home.read(".cursor/mcp.json"), client);
}

#[test]
fn a_named_upstream_file_is_named_to_the_client_too() {
    let home = Home::new();
    let codex = "[mcp_servers.x]\nurl = 'https://x.example'\nbearer_token_env_var = 'X_TOKEN'\n";
    home.write(".codex/config.toml", codex);
    let mut command = home.command(&["client", "add", "codex", "--import", "--yes"]);
    let outcome: Outcome =
        command.env("MCP_CONDUCTOR_MCP_CONFIG", "~/up.json").output().expect("runs").into();
    outcome.succeeds("moves   x");
    let headers = json!({ "Authorization": "Bearer ${env:X_TOKEN}" });
    let expected = json!({ "mcpServers": { "x": { "url": "https://x.example", "headers": headers } } });
    assert_eq!(json_of(&home, "up.json"), expected);
    let text = home.read(".codex/config.toml");
    let named = format!("env = {{ MCP_CONDUCTOR_MCP_CONFIG = \"{}\" }}\n", home.path("up.json").display());
    assert!(text.contains(&named), "{text}");
    assert!(text.contains("\"X_TOKEN\"") && !text.contains("mcp_servers.x]"), "{text}");
    home.run(&["client", "add", "codex", "--import"]).succeeds("nothing to do");
}
