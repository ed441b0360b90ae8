//! What a model learns of servers: the tools `list_mcp_servers`, `get_tool_details` and `search_tools`.

use conductor_tests::{Daemon, Home, Shim};
use serde_json::json;

use super::fixtures::{Bed, node, pids, recorder, servers, tool, tool_names, write, write_text};

const ALL: [&str; 4] = ["get_tool_details", "list_mcp_servers", "run_deno_code", "search_tools"];

#[test]
fn the_tools_are_there_when_servers_are_configured_wherever_the_file_is() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let none = Shim::session(&home);
    assert_eq!(tool_names(&none), ["run_deno_code"]);
    let answer = none.ask("tools/call", json!({ "name": "list_mcp_servers", "arguments": {} }));
    assert!(answer.is_rpc_error() || answer.text().contains("No MCP servers"), "{answer:?}");

    let elsewhere = home.path("servers.json");
    write(&elsewhere, &json!({ "mine": recorder(&home, "mine") }));
    let named = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_MCP_CONFIG", &elsewhere);
    });
    assert_eq!(tool_names(&named), ALL);
    assert!(tool(&named, "list_mcp_servers", json!({})).text().contains("mine"));

    let missing = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_MCP_CONFIG", "${userHome}/no-such-file.json");
    });
    assert_eq!(tool_names(&missing), ALL, "a file that was named has to be there");
    let why = tool(&missing, "list_mcp_servers", json!({}));
    assert!(why.text().contains("no-such-file.json") && why.result()["isError"] == true, "{}", why.text());
    assert_eq!(missing.call("1 + 1").value(), 2, "code without servers runs all the same");
    assert!(pids(&home).is_empty(), "nothing was used, so nothing runs");
}

#[test]
fn a_model_finds_tools_their_types_and_how_servers_do() {
    let Some(everything) = node("mcp-server-everything", &["stdio"]) else { return };
    let Some(filesystem) = node("mcp-server-filesystem", &["/tmp"]) else { return };
    let bed = Bed::new(|home| {
        json!({
            "everything": everything,
            "files": filesystem,
            "recorder": recorder(home, "recorder"),
            "off": { "command": "x", "disabled": true },
            "broken": { "comand": "x" },
        })
    });
    let shim = bed.session();
    let text = |name, arguments| tool(&shim, name, arguments).text().to_owned();
    let before = text("list_mcp_servers", json!({}));
    for says in ["everything (starts when it is used)", "off (disabled)", "broken (disabled: ", "`comand`"] {
        assert!(before.contains(says), "{says} is not in:\n{before}");
    }
    assert!(pids(&bed.home).is_empty(), "a list starts nothing");
    let unknown = text("search_tools", json!({ "query": "read a file" }));
    assert!(unknown.contains("everything, files, recorder"), "{unknown}");

    let details = text("get_tool_details", json!({ "server": "files", "tools": ["read_text_file"] }));
    for says in ["read_text_file(", "path: string", "head?: number", "Promise<"] {
        assert!(details.contains(says), "{says} is not in:\n{details}");
    }
    assert!(!details.contains("write_file"), "{details}");
    assert_eq!(servers(&bed.home).len(), 1, "only the server that was asked for runs");
    let full = text("get_tool_details", json!({ "server": "files", "tools": ["write_file"], "full": true }));
    assert!(full.contains(r#""required""#), "{full}");
    let whole = text("get_tool_details", json!({ "server": "everything" }));
    assert!(whole.contains("echo(") && whole.contains("get_sum") || whole.contains("get-sum"), "{whole}");

    let found = text("search_tools", json!({ "query": "read several files", "limit": 2 }));
    assert!(found.starts_with("mcp.files.read_multiple_files("), "{found}");
    assert_eq!(found.lines().filter(|line| line.starts_with("mcp.")).count(), 2, "{found}");
    assert!(found.contains("not run yet: recorder"), "{found}");

    for (name, arguments, says) in [
        ("get_tool_details", json!({ "server": "fles" }), "did you mean files"),
        (
            "get_tool_details",
            json!({ "server": "files", "tools": ["read_txt_file"] }),
            "did you mean read_text_file",
        ),
        ("get_tool_details", json!({ "server": "off" }), "disabled"),
        ("get_tool_details", json!({ "server": "broken" }), "neither `command` nor `url`"),
        ("get_tool_details", json!({}), "`server` is missing"),
        ("search_tools", json!({ "query": "  " }), "`query` is missing"),
    ] {
        let answer = tool(&shim, name, arguments);
        assert_eq!(answer.result()["isError"], true, "{answer:?}");
        assert!(answer.text().contains(says), "{says} is not in: {}", answer.text());
    }
    let running = text("list_mcp_servers", json!({}));
    assert!(running.contains("files (running): "), "{running}");
}

#[test]
fn types_of_answers_are_learnt_and_instructions_passed_on() {
    let bed = Bed::new(|home| json!({ "recorder": recorder(home, "recorder") }));
    let shim = bed.session();
    let details = || tool(&shim, "get_tool_details", json!({ "server": "recorder", "tools": ["echo"] }));
    assert!(!details().text().contains("celsius"), "{}", details().text());
    let code = "await mcp.recorder.echo({ message: JSON.stringify({ celsius: 21 }) })";
    assert_eq!(shim.call(code).value(), &json!({ "celsius": 21 }));
    let learnt = details().text().to_owned();
    assert!(learnt.contains("celsius: number"), "{learnt}");
    assert!(learnt.to_lowercase().contains("observed"), "what was observed is told apart: {learnt}");
    let list = tool(&shim, "list_mcp_servers", json!({})).text().to_owned();
    assert!(list.contains("Ask recorder to echo."), "{list}");
}

#[test]
fn what_is_known_of_servers_outlives_the_daemon() {
    let home = Home::new();
    write(&super::fixtures::default_place(&home), &json!({ "recorder": recorder(&home, "recorder") }));
    let mut daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("await mcp.recorder.echo({ message: 'hi' })").value(), "hi");
    drop(shim);
    daemon.stop();
    let _daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let found = tool(&shim, "search_tools", json!({ "query": "echo" }));
    assert!(found.text().starts_with("mcp.recorder.echo(args: { message: string })"), "{}", found.text());
    let details = tool(&shim, "get_tool_details", json!({ "server": "recorder" }));
    assert!(details.text().contains("reveal"), "{}", details.text());
    let list = tool(&shim, "list_mcp_servers", json!({}));
    assert!(list.text().contains("recorder (starts when it is used): 6 tools"), "{}", list.text());
    assert!(pids(&home).is_empty(), "nothing was started for all this");
}

#[test]
fn a_file_that_is_no_json_says_where() {
    let home = Home::new();
    let place = super::fixtures::default_place(&home);
    write_text(&place, "{\n  \"mcpServers\": {\n    \"a\": { \"command\": \"x\" \"args\": [] }\n  }\n}\n");
    let _daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let answer = tool(&shim, "list_mcp_servers", json!({}));
    assert_eq!(answer.result()["isError"], true);
    for says in ["mcp-config.json", "line 3", "column 27"] {
        assert!(answer.text().contains(says), "{says} is not in: {}", answer.text());
    }
}
