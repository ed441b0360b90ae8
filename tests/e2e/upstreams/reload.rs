//! A configuration that is edited while it is in use.

use std::fs;

use conductor_tests::{DEADLINE, Daemon, Home, Process, Shim, wait_for};
use serde_json::{Value, json};

use super::fixtures::{Bed, default_place, pids, recorded, recorder, tool, tool_names, write_text};

const CHANGED: &str = "notifications/tools/list_changed";

/// The process of a server, as the server says.
fn pid(shim: &Shim, server: &str) -> i32 {
    let pid = shim.call(&format!("Number(await mcp.{server}.pid())")).value().clone();
    i32::try_from(pid.as_i64().expect("a number")).expect("a pid")
}

/// Changes something, waits until the clients are told that their tools are others, and gives the first one's new list.
#[track_caller]
fn changes(shims: &[&Shim], change: impl FnOnce()) -> Vec<String> {
    let heard = |shim: &Shim| shim.notifications(CHANGED).len();
    let before: Vec<_> = shims.iter().map(|shim| heard(shim)).collect();
    change();
    for (shim, before) in shims.iter().zip(before) {
        wait_for(
            "the client is told",
            DEADLINE,
            || if heard(shim) > before { Ok(()) } else { Err("not yet") },
        );
    }
    shims.iter().map(|shim| tool_names(shim)).next().unwrap_or_default()
}

#[test]
fn only_what_was_changed_restarts_and_calls_in_flight_finish() {
    let bed = Bed::new(|home| json!({ "kept": recorder(home, "kept"), "edited": recorder(home, "edited") }));
    let (one, two) = (bed.session(), bed.session());
    let (kept, edited) = (pid(&one, "kept"), pid(&one, "edited"));
    let code = "const both = await Promise.all([mcp.edited.wait({ ms: 3000 }), mcp.kept.wait({ ms: 3000 })]);\n\
                [both, Number(await mcp.edited.pid())]";
    let in_flight = two.start_call(json!({ "deno_code": code }));
    wait_for("the calls to be in flight", DEADLINE, || {
        let n = recorded(&bed.home, "edited").matches("3000").count();
        if n > 0 { Ok(()) } else { Err("not yet") }
    });
    let mut entry = recorder(&bed.home, "edited");
    entry["env"]["EDITED"] = json!("yes");
    let servers = json!({ "kept": recorder(&bed.home, "kept"), "edited": entry, "added": recorder(&bed.home, "added") });
    changes(&[&one, &two], || bed.configure(&servers));
    let fresh = pid(&one, "edited");
    assert_ne!(fresh, edited, "its entry changed");
    assert_eq!(pid(&one, "kept"), kept, "its entry did not");
    assert_eq!(one.call("await mcp.added.echo({ message: 'new' })").value(), "new");
    assert_eq!(
        two.answer(in_flight).value(),
        &json!([["waited", "waited"], edited]),
        "a run keeps what it began with"
    );
    assert_eq!(pid(&two, "edited"), fresh);
    wait_for("the old process to end with its last call", DEADLINE, || {
        Process::get(edited).map_or(Ok(()), |process| Err(format!("{process:?}")))
    });
    assert_eq!(pids(&bed.home).len(), 3);
    bed.daemon.wait_for_status("old ones are forgotten", |status| {
        let starts = status.upstreams.iter().map(|it| (it.name.as_str(), it.starts));
        starts.eq([("added", 1), ("edited", 1), ("kept", 1)])
    });
}

#[test]
fn servers_come_and_go_and_the_client_is_told() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let shim = Shim::spawn(&home);
    let capabilities = shim.initialize()["capabilities"].clone();
    assert_eq!(capabilities["tools"]["listChanged"], true, "{capabilities}");
    assert_eq!(tool_names(&shim), ["run_deno_code"]);
    // Nothing is there yet, not even the directory.
    fs::remove_dir_all(home.home().join(".mcp-conductor")).expect("the default workspace was made");
    let servers = json!({ "mcpServers": { "mine": recorder(&home, "mine") } }).to_string();
    let tools = changes(&[&shim], || write_text(&default_place(&home), &servers));
    assert_eq!(tools.len(), 4);
    assert_eq!(shim.call("await mcp.mine.echo({ message: 'hello' })").value(), "hello");
    let tools = changes(&[&shim], || write_text(&default_place(&home), r#"{ "mcpServers": {} }"#));
    assert_eq!(tools, ["run_deno_code"]);
    wait_for("its process to end", DEADLINE, || match pids(&home) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_broken_file_says_where_and_keeps_what_runs_until_it_is_mended() {
    let bed = Bed::new(|home| json!({ "mine": recorder(home, "mine") }));
    let shim = bed.session();
    let before = pid(&shim, "mine");
    let text = fs::read_to_string(default_place(&bed.home)).expect("is there");
    let broken = text.replacen('{', "{\n  \"oops\"", 1);
    changes(&[&shim], || write_text(&default_place(&bed.home), &broken));
    let answer = tool(&shim, "list_mcp_servers", json!({}));
    for says in ["mcp-config.json", "line 3, column 3"] {
        assert!(answer.text().contains(says), "{says} is not in: {}", answer.text());
    }
    assert_eq!(answer.result()["isError"], true);
    let warnings = bed.daemon.status().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("line 3, column 3")), "{warnings:?}");
    let failed = shim.call("await mcp.mine.pid()");
    assert_eq!(failed.error_type(), "runtime");
    assert!(failed.error_message().contains("line 3, column 3"), "the model is told why: {}", failed.error());
    assert_eq!(shim.call("1 + 1").value(), 2);
    assert!(Process::get(before).is_some(), "what runs is kept for a while");
    changes(&[&shim], || write_text(&default_place(&bed.home), &text));
    assert_eq!(pid(&shim, "mine"), before);
}

#[test]
fn one_bad_entry_disables_itself_alone() {
    let bed = Bed::new(|home| {
        json!({
            "good": recorder(home, "good"),
            "neither": { "args": [] },
            "unset": { "command": "sh", "env": { "TOKEN": "${env:NO_SUCH_VARIABLE_HERE}" } },
            "typo": { "command": "sh", "timeout": "soon" },
        })
    });
    let shim = bed.session();
    assert_eq!(shim.call("await mcp.good.echo({ message: 'fine' })").value(), "fine");
    let list = tool(&shim, "list_mcp_servers", json!({})).text().to_owned();
    for says in
        ["good (running)", "neither (disabled: it has neither", "NO_SUCH_VARIABLE_HERE is not set", "soon"]
    {
        assert!(list.contains(says), "{says} is not in:\n{list}");
    }
    let code = "const why = {};\n\
                for (const name of ['neither', 'unset', 'typo']) await mcp[name].x().catch((error) => why[name] = error.code);\n\
                why";
    let expected: Value = json!({ "neither": "disabled", "unset": "disabled", "typo": "disabled" });
    assert_eq!(shim.call(code).value(), &expected);
    let rows = bed.daemon.status().upstreams;
    let disabled = rows.iter().filter(|row| row.state == "disabled" && row.reason.is_some()).count();
    assert_eq!(disabled, 3, "{rows:#?}");
}

#[test]
fn tools_that_a_server_adds_are_known_at_once() {
    let bed = Bed::new(|home| json!({ "mine": recorder(home, "mine") }));
    let shim = bed.session();
    assert_eq!(shim.call("await mcp.mine.grow()").value(), "it grows");
    wait_for("the new tool", DEADLINE, || {
        let found = tool(&shim, "search_tools", json!({ "query": "grown" })).text().to_owned();
        if found.starts_with("mcp.mine.grown(") { Ok(()) } else { Err(found) }
    });
    assert_eq!(shim.call("await mcp.mine.grown()").value(), "grown");
}
