//! What code does with servers: `mcp`, `mcpFactory` and `McpToolError`.

use std::fs;
use std::process::Command;

use conductor_tests::{DEADLINE, Home, Shim, wait_for};
use serde_json::{Value, json};

use super::fixtures::{Bed, node, python, recorded, recorder, write};

#[test]
fn tools_resources_and_prompts_of_real_servers() {
    let Some(everything) = node("mcp-server-everything", &["stdio"]) else { return };
    let Some(time) = python("mcp_server_time", &["--local-timezone", "UTC"]) else { return };
    let Some(git) = python("mcp_server_git", &[]) else { return };
    let bed = Bed::new(|home| {
        let made = Command::new("git").args(["init", "--quiet"]).arg(home.path("repository")).status();
        assert!(made.expect("git runs").success());
        json!({ "everything": everything, "time": time, "git": git })
    });
    let shim = bed.session();
    let code = "const all = await mcpFactory.listServers();\n\
                const everything = await mcpFactory.load('everything');\n\
                const [echo, sum, tokyo] = await Promise.all([\n\
                  everything.callTool('echo', { message: 'héllo' }),\n\
                  mcp.everything.get_sum({ a: 2, b: 40 }),\n\
                  mcp.time.convert_time({ source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo' }),\n\
                ]);\n\
                const raw = await everything.callToolRaw('echo', { message: 'raw' });\n\
                const weather = await mcp.everything['get-structured-content']({ location: 'New York' });\n\
                const tools = await everything.listTools();\n\
                const resources = await everything.listResources();\n\
                const resource = await everything.readResource(resources[0].uri);\n\
                const prompts = await everything.listPrompts();\n\
                const prompt = await everything.getPrompt('simple-prompt');\n\
                const status = await mcp.git.git_status({ repo_path: repository });\n\
                ({ all, name: everything.name, echo, sum, tokyo: tokyo.target.datetime, raw, weather, tools: tools.length,\n\
                   uri: resource.contents[0].uri === resources[0].uri, prompts: prompts.map((it) => it.name),\n\
                   prompt: typeof prompt.messages[0].content.text, status })";
    let repository = bed.home.path("repository");
    let answer = shim.call_with(json!({ "deno_code": code, "globals": { "repository": repository } }));
    let value = answer.value();
    assert_eq!(value["all"], json!(["everything", "git", "time"]));
    assert_eq!(value["name"], "everything");
    assert_eq!(value["echo"], "Echo: héllo");
    assert!(value["sum"].to_string().contains("42"), "{value:#}");
    assert!(value["tokyo"].as_str().expect("a time").contains("T21:00"), "{value:#}");
    assert_eq!(value["raw"]["content"], json!([{ "type": "text", "text": "Echo: raw" }]));
    assert!(value["weather"]["temperature"].is_number(), "structured content is the value: {value:#}");
    assert!(value["tools"].as_u64().expect("a count") >= 10, "{value:#}");
    assert_eq!((&value["uri"], &value["prompt"]), (&json!(true), &json!("string")));
    assert!(value["prompts"].as_array().expect("a list").contains(&json!("simple-prompt")), "{value:#}");
    assert!(value["status"].to_string().contains("No commits yet"), "{value:#}");
    let waiting = answer.structured()["timings"]["waiting"].as_f64().expect("a time");
    assert!(waiting > 0.0, "the code waited for servers: {}", answer.structured());
}

#[test]
fn one_call_reads_with_one_server_computes_and_writes_with_another() {
    let bed = Bed::new(|_| json!({}));
    let files = bed.workspace();
    let Some(filesystem) = node("mcp-server-filesystem", &[&files]) else { return };
    let Some(mut memory) = node("mcp-server-memory", &[]) else { return };
    memory["env"]["MEMORY_FILE_PATH"] = json!(format!("{files}/memory.jsonl"));
    fs::write(format!("{files}/sales.csv"), "north,3\nsouth,4\nnorth,5\n").expect("writes");
    bed.configure(&json!({ "filesystem": filesystem, "memory": memory }));
    let shim = bed.session();
    let code = "const { content } = await mcp.filesystem.read_text_file({ path: `${files}/sales.csv` });\n\
                const totals = new Map<string, number>();\n\
                for (const [region, n] of content.trim().split('\\n').map((line) => line.split(','))) {\n\
                  totals.set(region, (totals.get(region) ?? 0) + Number(n));\n\
                }\n\
                const entities = [...totals].map(([name, total]) => ({ name, entityType: 'region', observations: [`sold ${total}`] }));\n\
                await mcp.memory.create_entities({ entities });\n\
                const graph = await mcp.memory.read_graph();\n\
                await mcp.filesystem.write_file({ path: `${files}/totals.json`, content: JSON.stringify(Object.fromEntries(totals)) });\n\
                graph.entities.map((it) => `${it.name} ${it.observations[0]}`).toSorted()";
    let answer = shim.call_with(json!({ "deno_code": code, "globals": { "files": files } }));
    assert_eq!(answer.value(), &json!(["north sold 8", "south sold 4"]));
    let totals = fs::read_to_string(format!("{files}/totals.json")).expect("it was written");
    assert_eq!(totals, r#"{"north":8,"south":4}"#);
    let outside = shim.call("await mcp.filesystem.read_text_file({ path: '/etc/hostname' })");
    assert!(outside.error_message().contains("Access denied"), "{}", outside.error());
}

#[test]
fn every_failure_can_be_caught_and_told_apart() {
    let bed = Bed::new(|home| {
        let missing = json!({ "command": "no-such-program-here" });
        let mut picky = recorder(home, "picky");
        picky["denyTools"] = json!(["pid"]);
        json!({ "recorder": recorder(home, "recorder"), "missing": missing, "picky": picky })
    });
    let shim = bed.session();
    let code = "const told = async (what) => {\n\
                  try { return ['no error', await what()]; } catch (error) {\n\
                    return [error instanceof McpToolError && error.name, error.code, error.message, error.server, error.tool ?? null, error.content ?? null];\n\
                  }\n\
                };\n\
                const recorder = await mcpFactory.load('recorder');\n\
                [await told(() => mcp.recorder.fail()),\n\
                 await told(() => mcp.recorder.echo({ mesage: 'typo' })),\n\
                 await told(() => mcp.recorder.echo([1])),\n\
                 await told(() => mcp.recorder.ecko({ message: 'x' })),\n\
                 await told(() => mcpFactory.load('recoder')),\n\
                 await told(() => mcp.recoder.echo({ message: 'x' })),\n\
                 await told(() => recorder.callTool('wait', { ms: 60000 }, { timeout: 200 })),\n\
                 await told(() => mcp.missing.anything()),\n\
                 await told(() => mcp.picky.pid())]";
    let answer = shim.call(code);
    let told = answer.value().as_array().expect("a list").clone();
    let kinds: Vec<_> = told.iter().map(|it| it[1].as_str().unwrap_or_default()).collect();
    let expected = [
        "tool_error",
        "invalid_arguments",
        "invalid_arguments",
        "unknown_tool",
        "unknown_server",
        "unknown_server",
        "timeout",
        "start",
        "denied",
    ];
    assert_eq!(kinds, expected, "{told:#?}");
    assert!(told.iter().all(|it| it[0] == "McpToolError"), "{told:#?}");
    let says = |n: usize, text: &str| assert!(told[n][2].to_string().contains(text), "{text}: {:#}", told[n]);
    says(0, "it failed on purpose");
    assert_eq!(told[0][5], json!([{ "type": "text", "text": "it failed on purpose" }]));
    assert_eq!((&told[0][3], &told[0][4]), (&json!("recorder"), &json!("fail")));
    says(1, "message");
    says(1, "echo(args: { message: string })");
    says(2, "an array");
    says(3, "did you mean echo");
    says(4, "did you mean recorder");
    says(6, "did not answer tools/call within ");
    // The time is told as it was: 201 ms, too.
    assert!(!told[6][2].to_string().contains("within 1m"), "its own limit, not the server's: {:#}", told[6]);
    says(7, "no-such-program-here");
    says(8, "deny_tools");
    let heard = wait_for("a call that timed out to be cancelled there", DEADLINE, || {
        let heard = recorded(&bed.home, "recorder");
        if heard.contains("notifications/cancelled") { Ok(heard) } else { Err(heard) }
    });
    assert!(!heard.contains("mesage") && !heard.contains("ecko"), "it was sent all the same: {heard}");

    let uncaught = shim.call("const x = 1;\nawait mcp.recorder.fail()");
    assert_eq!(uncaught.error_type(), "runtime", "{}", uncaught.error());
    assert!(uncaught.error_message().contains("it failed on purpose"), "{}", uncaught.error());
    assert_eq!(uncaught.error()["line"], 2, "{}", uncaught.error());
}

#[test]
fn a_run_that_ends_early_cancels_what_it_asked_of_servers() {
    let bed = Bed::new(|home| json!({ "recorder": recorder(home, "recorder") }));
    let shim = bed.session();
    assert_eq!(shim.call("await mcp.recorder.echo({ message: 'up' })").value(), "up");
    // Each call waits for a time of its own, so that it can be found in what reached the server.
    let start = |shim: &Shim, code: &str, ms: u32| {
        let code = format!("const waiting = mcp.recorder.wait({{ ms: {ms} }}){code}");
        let id = shim.start_call(json!({ "deno_code": code, "timeout": 3000 }));
        wait_for("the call to reach the server", DEADLINE, || request_of(&bed.home, ms).ok_or("not yet"));
        id
    };
    let cancelled = |ms: u32| {
        wait_for("the server to hear of the end", DEADLINE, || {
            let id = request_of(&bed.home, ms).expect("it was there");
            if cancels(&bed.home).contains(&id) { Ok(()) } else { Err(format!("{:?}", cancels(&bed.home))) }
        });
    };
    let id = start(&shim, "; await waiting", 60_001);
    shim.notify("notifications/cancelled", json!({ "requestId": id, "reason": "not needed" }));
    cancelled(60_001);

    let id = start(&shim, "; await waiting", 60_002);
    assert_eq!(shim.answer(id).error_type(), "timeout");
    cancelled(60_002);

    start(&shim, ".catch(() => {}); await mcp.recorder.wait({ ms: 100 }); Deno.exit(0)", 60_003);
    cancelled(60_003);

    let leaving = bed.session();
    start(&leaving, "; await waiting", 60_004);
    drop(leaving);
    cancelled(60_004);
}

/// The id that the daemon gave to the request to wait for `ms`.
fn request_of(home: &Home, ms: u32) -> Option<Value> {
    let waits = |message: &Value| message["params"]["arguments"]["ms"] == ms;
    messages(home).into_iter().find(waits).map(|message| message["id"].clone())
}

fn cancels(home: &Home) -> Vec<Value> {
    let cancels = messages(home).into_iter().filter(|it| it["method"] == "notifications/cancelled");
    cancels.map(|message| message["params"]["requestId"].clone()).collect()
}

fn messages(home: &Home) -> Vec<Value> {
    recorded(home, "recorder").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn values_are_as_the_server_meant_them() {
    let bed = Bed::new(|home| json!({ "my-server": recorder(home, "recorder") }));
    let shim = bed.session();
    let code = "const echo = (message: string) => mcp.my_server.echo({ message });\n\
                const same = await mcp['my-server'].echo({ message: 'same' });\n\
                [await echo('text'), await echo('{\"a\":[1]}'), await echo('[1,2]'), same, Object.keys(mcp), mcpFactory.servers]";
    let expected: Value = json!(["text", { "a": [1] }, [1, 2], "same", ["my-server"], ["my-server"]]);
    assert_eq!(shim.call(code).value(), &expected);
    let silent = bed.home.path("none.json");
    write(&silent, &json!({}));
    let without = Shim::session_with(&bed.home, |command| {
        command.env("MCP_CONDUCTOR_MCP_CONFIG", &silent);
    });
    assert_eq!(without.call("[typeof mcp, typeof mcpFactory]").value(), &json!(["undefined", "undefined"]));
}
