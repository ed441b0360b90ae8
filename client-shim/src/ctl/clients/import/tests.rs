use super::*;

fn entry(client: Client, given: Value) -> Value {
    imported(client, &given).expect("can be taken over").entry
}

fn refusal(client: Client, given: Value) -> String {
    imported(client, &given).expect_err("stays")
}

#[test]
fn what_conductor_writes_alike_is_taken_as_it_is() {
    for given in [
        json!({ "command": "npx", "args": ["-y", "x"], "env": { "TOKEN": "s" } }),
        json!({ "type": "http", "url": "https://x.example/mcp", "headers": { "Authorization": "Bearer s" } }),
        json!({ "type": "stdio", "command": "${workspaceFolder}/x", "args": ["~/y", "${userHome}/z"] }),
    ] {
        for client in [Client::ClaudeCode, Client::Cursor, Client::VsCode, Client::Windsurf] {
            assert_eq!(entry(client, given.clone()), given);
        }
    }
}

#[test]
fn variables_that_an_entry_refers_to_are_known() {
    let given = json!({ "command": "x", "env": { "A": "${env:ONE}", "B": "${TWO:-b}", "C": "${HOME}" }, "cwd": "${THREE}" });
    let found = imported(Client::ClaudeCode, &given).expect("can be taken over");
    assert_eq!(found.variables, ["ONE", "TWO", "THREE"]);
}

#[test]
fn what_would_mean_something_else_stays() {
    let with = |text: &str| json!({ "command": "x", "args": [text] });
    for (client, given, says) in [
        (Client::VsCode, with("${input:key}"), "${input:key}"),
        (Client::VsCode, json!({ "command": "x", "envFile": ".env" }), "envFile"),
        (Client::Cursor, with("${workspaceFolderBasename}"), "${workspaceFolderBasename}"),
        (Client::ClaudeDesktop, with("${HOME}"), "does not"),
        (Client::Codex, with("${HOME}"), "does not"),
        (Client::Zed, json!({ "source": "extension", "settings": {} }), "extension"),
        (Client::Zed, json!({ "settings": { "a": 1 } }), "extension"),
        (Client::ClaudeCode, json!({}), "neither"),
        (Client::ClaudeCode, json!({ "command": "x", "url": "y" }), "neither"),
        (Client::ClaudeCode, json!(7), "no group"),
    ] {
        let reason = refusal(client, given);
        assert!(reason.contains(says), "{client:?}: {reason}");
    }
}

#[test]
fn gemini_is_translated() {
    let given = json!({
        "command": "x", "env": { "A": "$TOKEN", "B": "${B}-$", "C": "5$" },
        "includeTools": ["a"], "excludeTools": ["b"], "timeout": 5000, "trust": true
    });
    let expected = json!({
        "command": "x", "env": { "A": "${TOKEN:-}", "B": "${B:-}-$", "C": "5$" },
        "allow_tools": ["a"], "deny_tools": ["b"], "timeout": 5000, "trust": true
    });
    assert_eq!(entry(Client::Gemini, given), expected);
    let http = entry(Client::Gemini, json!({ "httpUrl": "https://x.example" }));
    assert_eq!(http, json!({ "url": "https://x.example", "type": "http" }));
    let sse = entry(Client::Gemini, json!({ "url": "https://x.example" }));
    assert_eq!(sse, json!({ "url": "https://x.example", "type": "sse" }));
}

#[test]
fn zed_is_translated() {
    let new = json!({ "source": "custom", "command": "x", "args": [], "timeout": 90, "enabled": false });
    assert_eq!(
        entry(Client::Zed, new),
        json!({ "command": "x", "args": [], "timeout": "90000ms", "enabled": false })
    );
    let old = json!({ "command": { "path": "x", "args": ["a"], "env": { "K": "v" } } });
    assert_eq!(entry(Client::Zed, old), json!({ "args": ["a"], "env": { "K": "v" }, "command": "x" }));
}

#[test]
fn codex_is_translated() {
    let stdio = json!({
        "command": "x", "args": ["a"], "env": { "A": "1" }, "env_vars": ["A", "TOKEN", { "name": "OTHER" }],
        "startup_timeout_sec": 20, "tool_timeout_sec": 2.5, "enabled_tools": ["t"], "required": true
    });
    let found = imported(Client::Codex, &stdio).expect("can be taken over");
    let expected = json!({
        "command": "x", "args": ["a"], "env": { "A": "1", "TOKEN": "${TOKEN:-}", "OTHER": "${OTHER:-}" },
        "allow_tools": ["t"], "timeout": "2500ms"
    });
    assert_eq!(found.entry, expected);
    assert_eq!(found.variables, ["TOKEN", "OTHER"]);
    let http = json!({
        "url": "https://x.example", "bearer_token_env_var": "TOKEN", "http_headers": { "X": "y" },
        "env_http_headers": { "Z": "ZV" }
    });
    let headers = json!({ "X": "y", "Z": "${env:ZV}", "Authorization": "Bearer ${env:TOKEN}" });
    assert_eq!(entry(Client::Codex, http), json!({ "url": "https://x.example", "headers": headers }));
}

#[test]
fn windsurf_is_translated() {
    let given = json!({ "serverUrl": "https://x.example", "disabledTools": ["a"], "disabled": true });
    let expected = json!({ "disabled": true, "url": "https://x.example", "deny_tools": ["a"] });
    assert_eq!(entry(Client::Windsurf, given), expected);
}
