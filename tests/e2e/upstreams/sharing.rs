//! Who shares which processes, and what is left of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use conductor_tests::{DEADLINE, Daemon, Home, Shim, wait_for};
use serde_json::{Value, json};

use super::fixtures::{Bed, default_place, node, pids, python, recorder, tool, write};

/// Three real servers.
fn three() -> Option<Value> {
    let everything = node("mcp-server-everything", &["stdio"])?;
    let thinking = node("mcp-server-sequential-thinking", &[])?;
    let time = python("mcp_server_time", &["--local-timezone", "UTC"])?;
    Some(json!({ "everything": everything, "thinking": thinking, "time": time }))
}

const USE_ALL: &str = "const thought = { thought: 'x', thoughtNumber: 1, totalThoughts: 1, nextThoughtNeeded: false };\n\
    const [echo] = await Promise.all([mcp.everything.echo({ message: 'hi' }),\n\
      mcp.thinking.sequentialthinking(thought), mcp.time.get_current_time({ timezone: 'UTC' })]);\n\
    echo";

fn sessions(home: &Arc<Home>, n: usize) -> Vec<Shim> {
    (0..n).map(|_| Shim::session(home)).collect()
}

#[track_caller]
fn none_left(home: &Home) {
    wait_for("no server is left", DEADLINE, || match pids(home) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn five_sessions_with_three_servers_are_three_processes_and_none_outlives_the_daemon() {
    let Some(three) = three() else { return };
    let home = Home::new();
    write(&default_place(&home), &three);
    let mut daemon = Daemon::start(&home);
    let shims = sessions(&home, 5);
    let ids: Vec<_> = shims.iter().map(|shim| shim.start_call(json!({ "deno_code": USE_ALL }))).collect();
    for (shim, id) in shims.iter().zip(ids) {
        assert_eq!(shim.answer(id).value(), "Echo: hi");
    }
    assert_eq!(pids(&home).len(), 3, "{:#?}", super::fixtures::servers(&home));
    let status = daemon.status();
    assert_eq!(
        status.upstreams.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["everything", "thinking", "time"]
    );
    for server in &status.upstreams {
        assert_eq!(
            (server.sessions.len(), server.starts, server.state.as_str()),
            (5, 1, "ready"),
            "{server:?}"
        );
    }
    let told: BTreeSet<i32> =
        status.upstreams.iter().flat_map(|it| &it.pids).map(|pid| pid.cast_signed()).collect();
    assert_eq!(told, pids(&home));
    drop(shims);
    daemon.stop();
    assert!(pids(&home).is_empty(), "{:#?}", super::fixtures::servers(&home));

    let mut daemon = Daemon::start(&home);
    let shims = sessions(&home, 2);
    assert_eq!(shims[0].call(USE_ALL).value(), "Echo: hi");
    assert_eq!(pids(&home).len(), 3);
    daemon.kill9();
    none_left(&home);
}

#[test]
fn code_reaches_no_server_of_another_profile() {
    let home = Home::new();
    for name in ["a", "b"] {
        write(
            &home.path(&format!("{name}.json")),
            &json!({ (format!("only-{name}")): recorder(&home, name) }),
        );
    }
    let place = |name: &str| home.path(&format!("{name}.json")).display().to_string();
    home.configure(&format!(
        "[profiles.a]\nmcp-config = \"{}\"\n[profiles.b]\nmcp-config = \"{}\"\n[policy]\nsession-mcp-config = false\n",
        place("a"),
        place("b")
    ));
    let daemon = Daemon::start(&home);
    let with = |profile: &str, file: Option<&str>| {
        Shim::session_with(&home, |command| {
            command.env("MCP_CONDUCTOR_PROFILE", profile);
            if let Some(file) = file {
                command.env("MCP_CONDUCTOR_MCP_CONFIG", place(file));
            }
        })
    };
    let (a, b) = (with("a", None), with("b", None));
    assert_eq!(a.call("await mcp.only_a.echo({ message: 'a' })").value(), "a");
    assert_eq!(b.call("await mcp.only_b.echo({ message: 'b' })").value(), "b");
    let code = "const tried = [];\n\
                const tell = (error) => tried.push(error.code ?? error.name);\n\
                for (const name of ['only-a', 'only_a', 'a', '../a', '']) {\n\
                  await mcpFactory.load(name).then(() => tried.push('loaded'), tell);\n\
                  await mcp[name].pid().then(() => tried.push('called'), tell);\n\
                }\n\
                try { mcpFactory.servers.push('only-a') } catch { }\n\
                [await mcpFactory.listServers(), Object.keys(mcp), [...new Set(tried)]]";
    assert_eq!(b.call(code).value(), &json!([["only-b"], ["only-b"], ["unknown_server"]]));
    for name in ["get_tool_details", "list_mcp_servers", "search_tools"] {
        let arguments = json!({ "server": "only-a", "query": "echo" });
        assert!(!tool(&b, name, arguments).text().contains("only-a\n"), "{name}");
        assert!(!tool(&b, name, json!({ "query": "echo" })).text().contains("only_a"), "{name}");
    }
    let refused = with("b", Some("a"));
    let answer = refused.call("1");
    assert_eq!(answer.error_type(), "configuration");
    assert!(answer.error_message().contains("MCP_CONDUCTOR_MCP_CONFIG"), "{}", answer.error());
    let sessions_of = |name: &str| {
        let upstreams = daemon.status().upstreams;
        upstreams.iter().find(|it| it.name == name).expect("is there").sessions.len()
    };
    assert_eq!((sessions_of("only-a"), sessions_of("only-b")), (1, 1));
}

#[test]
fn a_file_that_code_may_write_to_is_refused() {
    let bed = Bed::new(|_| json!({}));
    let own = bed.home.workspace().join("servers.json");
    write(&own, &json!({ "mine": { "command": "sh" } }));
    let shim = Shim::session_with(&bed.home, |command| {
        command.env("MCP_CONDUCTOR_MCP_CONFIG", &own);
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={}", bed.workspace()));
    });
    let answer = tool(&shim, "list_mcp_servers", json!({}));
    assert!(answer.text().contains("can be changed by code"), "{}", answer.text());
    let answer = shim.call("await mcp.mine.anything()");
    assert!(answer.error_message().contains("can be changed by code"), "{}", answer.error());
}

#[test]
fn a_server_for_each_session_ends_with_it() {
    let bed = Bed::new(|home| {
        let mut own = recorder(home, "own");
        own["scope"] = json!("session");
        json!({ "own": own, "all": recorder(home, "all") })
    });
    let (one, two) = (bed.session(), bed.session());
    let pid = |shim: &Shim, server: &str| shim.call(&format!("await mcp.{server}.pid()")).value().clone();
    assert_ne!(pid(&one, "own"), pid(&two, "own"));
    assert_eq!(pid(&one, "own"), pid(&one, "own"));
    assert_eq!(pid(&one, "all"), pid(&two, "all"));
    assert_eq!(pids(&bed.home).len(), 3);
    drop(one);
    wait_for("the server of the session that ended to end", DEADLINE, || match pids(&bed.home).len() {
        2 => Ok(()),
        n => Err(n.to_string()),
    });
    bed.daemon.wait_for_status("it is no longer counted", |status| {
        status.upstreams.iter().map(|it| it.connections).sum::<u64>() == 2
    });
}
