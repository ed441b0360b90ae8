use std::fs;

use super::*;

fn upstream_of(entry: Option<&Value>, variable: Option<&str>) -> Result<UpstreamFile, TakeoverError> {
    UpstreamFile::of(entry, variable.map(OsString::from), Path::new("/h"))
}

#[test]
fn the_upstream_file_is_the_one_that_sessions_read() {
    let file = |path: &str, is_named| UpstreamFile { path: path.into(), is_named };
    let of = |entry, variable| upstream_of(entry, variable).expect("is clear");
    assert_eq!(of(None, None), file("/h/.mcp-conductor/mcp-config.json", false));
    assert_eq!(of(None, Some("")), file("/h/.mcp-conductor/mcp-config.json", false));
    assert_eq!(of(None, Some("~/x.json")), file("/h/x.json", true));
    assert_eq!(of(None, Some("/x.json")), file("/x.json", true));
    let entry = json!({ "env": { VARIABLE: "${userHome}/y.json" } });
    assert_eq!(of(Some(&entry), Some("/x.json")), file("/h/y.json", false));
    for unclear in ["x.json", "${workspaceFolder}/x.json", "/a/${env:B}"] {
        assert!(matches!(upstream_of(None, Some(unclear)), Err(TakeoverError::Unclear { .. })), "{unclear}");
    }
}

#[test]
fn a_clash_stops_everything_and_an_equal_server_does_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("mcp-config.json");
    fs::write(&path, r#"{"servers": {"a": {"command": "x"}, "b": {"command": "y"}}}"#).expect("writes");
    let upstream = UpstreamFile { path: path.clone(), is_named: false };
    let plan = |text: &str| {
        let document = Document::parse(Client::Cursor.format(), text.as_bytes()).expect("it can be read");
        plan(Client::Cursor, &document, "conductor", &upstream)
    };
    let clash =
        plan(r#"{"mcpServers": {"a": {"command": "x"}, "b": {"command": "z"}, "c": {"command": "c"}}}"#);
    assert!(matches!(clash, Err(TakeoverError::Clash { names, .. }) if names == ["b"]));
    let equal =
        plan(r#"{"mcpServers": {"a": {"command": "x"}, "c": {"command": "c"}}}"#).expect("can be moved");
    assert_eq!(equal.moved, ["a", "c"]);
    assert_eq!(equal.client.servers(), []);
    let names: Vec<_> = equal.upstream.new.servers().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(!equal.upstream.new.has("mcpServers"), "the daemon would no longer read `servers`");
}

#[test]
fn our_entry_is_told_what_the_moved_servers_need() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("up.json");
    let upstream = UpstreamFile { path: path.clone(), is_named: true };
    let text = "[mcp_servers.conductor]\ncommand = '/conductor-shim'\nenv_vars = ['A']\n\n\
                [mcp_servers.x]\nurl = 'https://x.example'\nbearer_token_env_var = 'TOKEN'\n";
    let document = Document::parse(Client::Codex.format(), text.as_bytes()).expect("it can be read");
    let planned = plan(Client::Codex, &document, "conductor", &upstream).expect("can be moved");
    let ours = planned.client.server("conductor").expect("is there");
    assert_eq!(ours["env_vars"], json!(["A", "TOKEN"]));
    assert_eq!(ours["env"][VARIABLE], path.to_str().expect("text"));
    assert_eq!(planned.client.servers().len(), 1);
}
