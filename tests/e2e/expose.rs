//! Servers that the client sees as its own: their tools, resources and prompts beside conductor's.

use conductor_tests::clients::Inspector;
use conductor_tests::{Answer, DEADLINE, Shim, binaries, wait_for};
use serde_json::{Value, json};

use crate::servers::{Bed, configure, everything, mirror, newer, session_that_offers};

const OWN: [&str; 4] = ["get_tool_details", "list_mcp_servers", "run_deno_code", "search_tools"];

fn exposing(more: Value) -> Value {
    let mut entry = json!({ "expose": ["tools", "resources", "prompts"] });
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

fn bed() -> Bed {
    Bed::new(|home| json!({ "mirror": mirror(home, exposing(json!({}))) }))
}

/// Each listing and each call through the TypeScript SDK, which holds every answer against its schemas.
#[test]
fn the_reference_server_through_the_inspector_in_each_era() {
    let (Some(inspector), Some(server)) = (Inspector::fetch(), everything(exposing(json!({})))) else {
        return;
    };
    let bed = Bed::new(|_| json!({ "everything": server }));
    lists(&Shim::session(&bed.home), "echo");
    let mut names = Vec::new();
    for era in ["legacy", "auto"] {
        let run = |args: &[&str]| {
            let mut command = inspector.command(&bed.home);
            let socket = format!("CONDUCTOR_SOCKET={}", bed.home.socket().display());
            command.arg("--cli").arg(binaries::shim()).args([
                "-e",
                &socket,
                "-e",
                "CONDUCTOR_NO_AUTOSTART=1",
            ]);
            command.args(["--format", "json", "-q", "--protocol-era", era]).args(args);
            let output = command.output().expect("the Inspector starts");
            let stdout = String::from_utf8_lossy(&output.stdout);
            let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| {
                panic!("{error}: {stdout}{}", String::from_utf8_lossy(&output.stderr))
            });
            document["result"].clone()
        };
        let listed = run(&["--method", "tools/list"]);
        let tools: Vec<String> = strings(&listed["tools"], "name");
        assert!(
            OWN.iter().chain(&["echo", "get-sum"]).all(|name| tools.contains(&(*name).to_owned())),
            "{tools:?}"
        );
        assert!(tools.is_sorted(), "{tools:?}");
        names.push(tools);

        let call = ["--method", "tools/call", "--tool-name"];
        let weather =
            run(&[&call[..], &["get-structured-content", "--tool-arg", "location=New York"]].concat());
        assert!(weather["structuredContent"]["temperature"].is_number(), "{era}: {weather:#}");

        let resources = run(&["--method", "resources/list"])["resources"].clone();
        let uri = resources[0]["uri"].as_str().expect("a URI").to_owned();
        let read = run(&["--method", "resources/read", "--uri", &uri]);
        assert_eq!(read["contents"][0]["uri"], uri, "{era}: {read:#}");
        let prompt = run(&["--method", "prompts/get", "--prompt-name", "simple-prompt"]);
        assert_eq!(prompt["messages"][0]["role"], "user", "{era}: {prompt:#}");
    }
    assert!(names.windows(2).all(|two| two[0] == two[1]), "names are the same each time: {names:?}");
}

#[test]
fn results_and_lists_keep_what_nobody_here_knows() {
    let bed = bed();
    for is_newer in [false, true] {
        let shim = if is_newer { Shim::spawn(&bed.home) } else { session_that_offers(&bed, json!({})) };
        let ask = |method: &str, mut params: Value| {
            if is_newer {
                params["_meta"] = newer();
            }
            shim.ask(method, params).result().clone()
        };
        let strange = ask("tools/call", json!({ "name": "strange" }));
        assert_eq!(strange["content"][0], json!({ "type": "hologram", "depth": 3 }));
        assert_eq!(strange["content"][1]["shade"], "blue");
        assert_eq!(
            strange["structuredContent"].to_string(),
            r#"{"z":1,"a":12345678901234567000}"#,
            "in its order"
        );
        assert_eq!(strange["tomorrow"], json!({ "is": "here" }));
        let kind = is_newer.then(|| json!("complete"));
        assert_eq!(strange.get("resultType"), kind.as_ref(), "{strange:#}");

        let tools = ask("tools/list", json!({}));
        assert_eq!(tools.get("ttlMs").is_some(), is_newer, "{tools:#}");
        let names = strings(&tools["tools"], "name");
        assert!(names.is_sorted(), "{names:?}");
        let hinted =
            tools["tools"].as_array().and_then(|all| all.iter().find(|tool| tool["name"] == "hinted"));
        let hinted = hinted.expect("the tool");
        assert_eq!(
            (&hinted["hint"]["of"], &hinted["execution"]["taskSupport"]),
            (&json!("tomorrow"), &json!("forbidden"))
        );

        assert_eq!(ask("resources/list", json!({}))["resources"][0]["colour"], "red");
        let templates = ask("resources/templates/list", json!({}))["resourceTemplates"].clone();
        assert_eq!(strings(&templates, "uriTemplate"), ["conductor://result/{id}", "mirror://any/{name}"]);
        let read = ask("resources/read", json!({ "uri": "mirror://any/thing" }));
        assert_eq!(
            read["contents"][0],
            json!({ "uri": "mirror://any/thing", "text": "read mirror://any/thing", "origin": "mirror" })
        );
        assert_eq!(ask("prompts/list", json!({}))["prompts"][0]["mood"], "good");
        let prompt = ask("prompts/get", json!({ "name": "greet", "arguments": { "who": "Ada" } }));
        assert_eq!(prompt["messages"][0]["content"]["text"], "Greet Ada.");
        assert_eq!(prompt["tone"], "warm");
    }
}

#[test]
fn progress_comes_in_order_and_before_the_result() {
    let bed = bed();
    let shim = Shim::session(&bed.home);
    let meta = json!({ "progressToken": "mine", "trace": "t-1" });
    let params = json!({ "name": "count", "arguments": { "to": 100 }, "_meta": meta });
    let id = shim.request("tools/call", params);
    assert_eq!(shim.answer(id).text(), "counted");
    let messages = shim.messages();
    let end = messages.iter().position(|message| message["id"] == id).expect("the answer");
    let told: Vec<_> =
        messages[..end].iter().filter(|one| one["method"] == "notifications/progress").collect();
    let steps: Vec<_> = told.iter().filter_map(|one| one["params"]["progress"].as_f64()).collect();
    assert_eq!(steps, (1..=100).map(f64::from).collect::<Vec<_>>());
    assert!(told.iter().all(|one| one["params"]["progressToken"] == "mine"));
    shim.call("1 + 1");
    assert_eq!(shim.notifications("notifications/progress").len(), 100, "none after the result");
}

#[test]
fn metadata_errors_and_cancellation_are_passed_on() {
    let bed = bed();
    let shim = Shim::session(&bed.home);
    let call = |name: &str, meta: Value| shim.request("tools/call", json!({ "name": name, "_meta": meta }));
    let meta = shim.answer(call("meta", json!({ "progressToken": 7, "example.org/trace": "t-1" })));
    let sent: Value = serde_json::from_str(meta.text()).expect("JSON");
    assert_eq!(sent["example.org/trace"], "t-1");
    assert_ne!(sent["progressToken"], 7, "tokens belong to a connection");

    let failed = shim.answer(call("fail", json!({})));
    assert_eq!(
        failed.message["error"],
        json!({ "code": -32042, "message": "as told", "data": { "why": "told" } })
    );

    let endless = call("endless", json!({}));
    wait_for("the call has arrived", DEADLINE, || {
        if bed.notes().contains("endless") { Ok(()) } else { Err(bed.notes()) }
    });
    shim.notify("notifications/cancelled", json!({ "requestId": endless }));
    wait_for("so has its cancellation", DEADLINE, || {
        if bed.notes().contains("cancelled") { Ok(()) } else { Err(bed.notes()) }
    });
    bed.daemon.wait_for_status("the call is over", |status| status.sessions[0].in_flight == 0);
    assert!(shim.ask("tools/call", json!({ "name": "no-such-tool" })).is_rpc_error());
    assert!(shim.ask("prompts/get", json!({ "name": "no-such-prompt" })).is_rpc_error());
}

#[test]
fn a_call_of_a_tool_asks_the_client_in_each_era() {
    let bed = bed();
    let question = json!({ "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
    let arguments = json!({ "method": "elicitation/create", "params": question });
    let reply = json!({ "action": "accept", "content": { "name": "Ada" } });
    let check = |answer: &Answer| assert!(answer.text().contains("Ada"), "{answer:?}");

    let older = session_that_offers(&bed, json!({ "elicitation": {} }));
    let id = older.request("tools/call", json!({ "name": "ask", "arguments": arguments }));
    let asked =
        older.wait_for_message("the question", DEADLINE, |message| message["method"] == "elicitation/create");
    older.send(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": reply }));
    check(&older.answer(id));

    let newer_client = Shim::spawn(&bed.home);
    let mut params = json!({ "name": "ask", "arguments": arguments, "_meta": newer() });
    let first = newer_client.ask("tools/call", params.clone());
    assert_eq!(first.result()["resultType"], "input_required", "{first:?}");
    params["inputResponses"] = json!({ "elicitation-1": reply });
    params["requestState"] = first.result()["requestState"].clone();
    check(&newer_client.ask("tools/call", params));
}

#[test]
fn names_have_a_prefix_where_several_servers_are_exposed() {
    let bed = Bed::new(|home| {
        json!({
            "alpha": mirror(home, exposing(json!({}))),
            "beta": mirror(home, exposing(json!({ "exposePrefix": "b" }))),
            "hidden": mirror(home, json!({})),
        })
    });
    let shim = Shim::session(&bed.home);
    lists(&shim, "alpha_log");
    let names = lists(&shim, "b_log");
    assert!(names.iter().all(|name| name.len() <= 46), "{names:?}");
    let with = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!((with("alpha_"), with("b_"), names.len()), (11, 11, 22 + OWN.len()), "{names:?}");
    for name in ["alpha_log", "b_log"] {
        let logged =
            shim.ask("tools/call", json!({ "name": name, "arguments": { "level": "info", "data": 1 } }));
        assert_eq!(logged.text(), "logged");
    }
    assert_eq!(
        strings(&shim.ask("prompts/list", json!({})).result()["prompts"], "name"),
        ["alpha_greet", "b_greet"]
    );
    let resources = shim.ask("resources/list", json!({})).result()["resources"].clone();
    assert_eq!(strings(&resources, "uri"), ["mirror://one"], "the first has it");
}

#[test]
fn changes_of_lists_are_told_to_those_who_have_them() {
    let bed = bed();
    let older = Shim::session(&bed.home);
    lists(&older, "grow");
    let newer_client = Shim::spawn(&bed.home);
    newer_client.ask("tools/list", json!({ "_meta": newer() }));
    let filter = json!({ "notifications": { "toolsListChanged": true }, "_meta": newer() });
    let stream = newer_client.request("subscriptions/listen", filter);
    newer_client.wait_for_message("the acknowledgement", DEADLINE, |message| {
        message["method"] == "notifications/subscriptions/acknowledged"
    });
    older.ask("tools/call", json!({ "name": "grow", "arguments": { "name": "late" } }));
    for shim in [&older, &newer_client] {
        shim.wait_for_message("the news", DEADLINE, |message| {
            message["method"] == "notifications/tools/list_changed"
        });
    }
    lists(&older, "late");
    assert_eq!(older.notifications("notifications/prompts/list_changed").len(), 0);
    assert_eq!(newer_client.answers(stream), 0, "the stream goes on");

    configure(&bed.home, &json!({}));
    wait_for("the tools are gone", DEADLINE, || {
        let names = strings(&json!(older.tools()), "name");
        if names == ["run_deno_code"] { Ok(()) } else { Err(names.join(" ")) }
    });
}

#[test]
fn the_daemon_goes_down_at_once_although_a_client_listens() {
    let mut bed = bed();
    let shim = Shim::spawn(&bed.home);
    let stream = shim.request(
        "subscriptions/listen",
        json!({ "notifications": { "toolsListChanged": true }, "_meta": newer() }),
    );
    shim.wait_for_message("the acknowledgement", DEADLINE, |message| {
        message["method"] == "notifications/subscriptions/acknowledged"
    });
    bed.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    shim.answer(stream).result();
    assert!(bed.daemon.wait().success());
}

/// The names of all tools, once this one is among them: lists do not wait for a server that never ran.
fn lists(shim: &Shim, tool: &str) -> Vec<String> {
    wait_for(&format!("{tool} is listed"), DEADLINE, || {
        let names = strings(&json!(shim.tools()), "name");
        if names.iter().any(|name| name == tool) { Ok(names) } else { Err(names.join(" ")) }
    })
}

fn strings(list: &Value, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|one| one[key].as_str().unwrap_or_else(|| panic!("no {key}: {one}")).to_owned()).collect()
}
