use serde_json::json;

use super::*;

fn document(client: Client, text: &str) -> Document {
    Document::parse(client.format(), text.as_bytes()).expect("it can be read")
}

fn program(args: Option<&[&str]>) -> Program {
    let args = args.map(|args| args.iter().map(|&arg| arg.to_owned()).collect());
    Program { command: "/new/conductor-shim".into(), args }
}

#[test]
fn an_entry_is_ours_by_the_program_it_runs() {
    for ours in ["/a b/conductor-shim", "conductor-shim", r"C:\x\conductor-shim.exe"] {
        assert!(is_ours(&json!({ "command": ours })), "{ours}");
    }
    assert!(is_ours(&json!({ "command": { "path": "/conductor-shim" } })));
    for other in [json!({ "command": "/conductor-shim/x" }), json!({ "url": "conductor-shim" }), json!(null)]
    {
        assert!(!is_ours(&other), "{other}");
    }
}

#[test]
fn adding_again_changes_nothing_and_a_moved_program_only_the_command() {
    let before = document(Client::Cursor, "{}");
    let added = super::added(Client::Cursor, &before, "c", &program(None)).expect("is added");
    assert_eq!(super::added(Client::Cursor, &added, "c", &program(None)), Ok(added));

    let mine = r#"{"mcpServers": {"c": {"command": "/old/conductor-shim", "args": ["--socket", "/s"], "env": {"A": "b"}}}}"#;
    let moved =
        super::added(Client::Cursor, &document(Client::Cursor, mine), "c", &program(None)).expect("is added");
    assert_eq!(moved, document(Client::Cursor, &mine.replace("/old", "/new")));
    let named = program(Some(&["--socket", "/t"]));
    let moved = super::added(Client::Cursor, &document(Client::Cursor, mine), "c", &named).expect("is added");
    let expected =
        json!({ "command": "/new/conductor-shim", "args": ["--socket", "/t"], "env": { "A": "b" } });
    assert_eq!(moved.server("c"), Some(&expected));
}

#[test]
fn a_server_of_somebody_else_is_neither_replaced_nor_removed() {
    let other = document(Client::Codex, "[mcp_servers.c]\ncommand = 'npx'\n");
    let command = Some("npx".to_owned());
    let taken = RegistrationError::Taken { name: "c".into(), command: command.clone() };
    assert_eq!(added(Client::Codex, &other, "c", &program(None)), Err(taken));
    let not_ours = RegistrationError::NotOurs { name: "c".into(), command };
    assert_eq!(removed(&other, "c", std::iter::empty()), Err(not_ours));
}

#[test]
fn a_backup_that_differs_by_our_entry_alone_is_what_is_left() {
    for original in ["", "{ }", "{\n\n}\n", "{\"mcpServers\":\n{ }\n}", "{\"a\":1}"] {
        let before = document(Client::Cursor, original);
        let added = added(Client::Cursor, &before, "c", &program(None)).expect("is added");
        let unrelated = document(Client::Cursor, "{\"b\":2}");
        let earlier = [unrelated.clone(), added.clone(), before.clone()];
        assert_eq!(removed(&added, "c", earlier.into_iter()), Ok(before.clone()), "{original:?}");
        // Since then something else was changed.
        let changed = added.with("later", &json!({ "command": "x" })).expect("is added");
        let left = removed(&changed, "c", [before].into_iter()).expect("is removed");
        assert_eq!(left.servers(), [("later".to_owned(), json!({ "command": "x" }))]);
    }
}
