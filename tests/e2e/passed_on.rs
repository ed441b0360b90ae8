//! What passes between a client and an exposed server besides calls: completions, watched resources, log levels, and, where
//! both are of the newer era, questions and tasks.

use conductor_tests::{DEADLINE, Shim, binaries, wait_for};
use serde_json::{Value, json};

use crate::servers::{Bed, mirror, newer, session_that_offers};

const ALL: [&str; 3] = ["tools", "resources", "prompts"];

const UPDATED: &str = "notifications/resources/updated";

/// A server of the older era.
fn older_server(more: Value) -> Bed {
    let mut entry = json!({ "expose": ALL });
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    Bed::new(|home| json!({ "mirror": mirror(home, entry) }))
}

/// The suite's server, which speaks both eras.
fn newer_server(more: Value) -> Bed {
    let mut entry = json!({ "command": binaries::conformance_server(), "args": ["stdio"], "expose": ALL });
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    Bed::new(|_| json!({ "conformance": entry }))
}

/// Parameters of a request of the newer era, whose client declared these capabilities.
fn with(mut params: Value, capabilities: Value) -> Value {
    params["_meta"] = newer();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    params
}

fn noted(bed: &Bed, line: &str, times: usize) {
    wait_for(&format!("{line} is noted {times} times"), DEADLINE, || {
        let notes = bed.notes();
        if notes.lines().filter(|note| *note == line).count() == times { Ok(()) } else { Err(notes) }
    });
}

#[test]
fn arguments_are_completed_by_the_server_that_has_them() {
    let bed = older_server(json!({}));
    for is_newer in [false, true] {
        let shim = if is_newer { Shim::spawn(&bed.home) } else { session_that_offers(&bed, json!({})) };
        let complete = |reference: Value| {
            let params = json!({ "ref": reference, "argument": { "name": "who", "value": "A" } });
            shim.ask("completion/complete", if is_newer { with(params, json!({})) } else { params })
        };
        let prompt = complete(json!({ "type": "ref/prompt", "name": "greet" }));
        let completion = &prompt.result()["completion"];
        assert_eq!((&completion["values"], &completion["mood"]), (&json!(["greet who=A"]), &json!("good")));
        let template = complete(json!({ "type": "ref/resource", "uri": "mirror://any/{name}" }));
        assert_eq!(template.result()["completion"]["values"], json!(["mirror://any/{name} who=A"]));
        let own = complete(json!({ "type": "ref/resource", "uri": "conductor://result/{id}" }));
        assert_eq!(own.result()["completion"]["values"], json!([]));
        assert!(complete(json!({ "type": "ref/prompt", "name": "none" })).is_rpc_error());
    }
}

#[test]
fn a_watched_resource_is_told_of_until_it_is_no_longer_watched() {
    let bed = older_server(json!({}));
    let (watching, other) = (Shim::session(&bed.home), Shim::session(&bed.home));
    let uri = json!({ "uri": "mirror://one" });
    assert!(watching.ask("resources/subscribe", json!({ "uri": "mirror://one" })).result().is_object());
    noted(&bed, "watch mirror://one", 1);
    let touch = || other.ask("tools/call", json!({ "name": "touch", "arguments": uri })).text().to_owned();
    assert_eq!(touch(), "told");
    watching.wait_for_message("the news", DEADLINE, |message| message["method"] == UPDATED);
    assert_eq!(watching.notifications(UPDATED), std::slice::from_ref(&uri));

    other.ask("resources/subscribe", uri.clone()).result();
    watching.ask("resources/unsubscribe", uri.clone()).result();
    assert_eq!(touch(), "told", "the other one watches still");
    other.wait_for_message("the news", DEADLINE, |message| message["method"] == UPDATED);
    drop(other);
    noted(&bed, "unwatch mirror://one", 1);
    assert_eq!(watching.notifications(UPDATED).len(), 1);
    assert_eq!(bed.notes().matches("unwatch").count(), 1);
}

#[test]
fn a_stream_of_the_newer_era_watches_a_server_of_the_older() {
    let bed = older_server(json!({}));
    let client = Shim::spawn(&bed.home);
    client.ask("resources/list", with(json!({}), json!({})));
    let filter = json!({ "notifications": { "resourceSubscriptions": ["mirror://one"] } });
    let stream = client.request("subscriptions/listen", with(filter, json!({})));
    let told = client.wait_for_message("the acknowledgement", DEADLINE, |message| {
        message["method"] == "notifications/subscriptions/acknowledged"
    });
    assert_eq!(told["params"]["notifications"]["resourceSubscriptions"], json!(["mirror://one"]));
    noted(&bed, "watch mirror://one", 1);
    client.ask(
        "tools/call",
        with(json!({ "name": "touch", "arguments": { "uri": "mirror://one" } }), json!({})),
    );
    let news = client.wait_for_message("the news", DEADLINE, |message| message["method"] == UPDATED);
    assert_eq!(news["params"]["uri"], "mirror://one");
    assert_eq!(news["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], json!(stream));
    client.notify("notifications/cancelled", json!({ "requestId": stream }));
    noted(&bed, "unwatch mirror://one", 1);
}

#[test]
fn a_server_that_is_started_anew_is_watched_again() {
    let bed = older_server(json!({}));
    let shim = Shim::session(&bed.home);
    shim.ask("resources/subscribe", json!({ "uri": "mirror://one" })).result();
    shim.ask("tools/call", json!({ "name": "crash" }));
    noted(&bed, "watch mirror://one", 2);
    shim.wait_for_message("it may have changed meanwhile", DEADLINE, |message| message["method"] == UPDATED);
}

#[test]
fn the_log_level_reaches_servers_of_the_session_alone() {
    let bed = older_server(json!({ "scope": "session" }));
    let shim = Shim::session(&bed.home);
    shim.ask("logging/setLevel", json!({ "level": "error" }));
    shim.ask("tools/call", json!({ "name": "log", "arguments": { "level": "error", "data": 1 } }));
    noted(&bed, "level error", 1);
    shim.ask("logging/setLevel", json!({ "level": "debug" }));
    noted(&bed, "level debug", 1);

    let bed = older_server(json!({}));
    let shim = Shim::session(&bed.home);
    shim.ask("logging/setLevel", json!({ "level": "debug" }));
    let call = json!({ "name": "log", "arguments": { "level": "error", "data": 1 } });
    assert_eq!(shim.ask("tools/call", call).text(), "logged");
    assert!(!bed.notes().contains("level"), "it is not one client's to decide: {}", bed.notes());
}

#[test]
fn a_newer_server_asks_a_newer_client_in_its_own_words() {
    let bed = newer_server(json!({}));
    let shim = Shim::spawn(&bed.home);
    let call = |name: &str, more: Value, capabilities: Value| {
        let mut params = json!({ "name": name });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        shim.ask("tools/call", with(params, capabilities))
    };
    let elicits = || json!({ "elicitation": {} });
    let tool = "test_input_required_result_multi_round";
    let first = call(tool, json!({}), elicits());
    let asked = first.result();
    assert_eq!(asked["inputRequests"]["step1"]["method"], "elicitation/create", "{asked:#}");
    let answer = |field: &str| json!({ "action": "accept", "content": { field: "x" } });
    let more =
        json!({ "inputResponses": { "step1": answer("name") }, "requestState": asked["requestState"] });
    let second = call(tool, more, elicits());
    let asked = second.result();
    assert!(asked["inputRequests"]["step2"].is_object(), "{asked:#}");
    let more =
        json!({ "inputResponses": { "step2": answer("color") }, "requestState": asked["requestState"] });
    assert_eq!(call(tool, more, elicits()).text(), "x likes x");

    // The server sees what the client can do, not what conductor can.
    let refused = call("test_missing_capability", json!({}), elicits());
    assert_eq!(refused.message["error"]["code"], -32021, "{refused:?}");
    assert_eq!(refused.message["error"]["data"]["requiredCapabilities"], json!({ "sampling": {} }));
    let capable = call("test_missing_capability", json!({}), json!({ "sampling": {} }));
    assert_eq!(capable.text(), "The client can sample.");
}

#[test]
fn a_newer_server_asks_an_older_client_by_requests() {
    let bed = newer_server(json!({}));
    let shim = session_that_offers(&bed, json!({ "elicitation": {} }));
    let id = shim.request("tools/call", json!({ "name": "test_input_required_result_elicitation" }));
    let asked =
        shim.wait_for_message("the question", DEADLINE, |message| message["method"] == "elicitation/create");
    let reply = json!({ "action": "accept", "content": { "name": "Ada" } });
    shim.send(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": reply }));
    assert_eq!(shim.answer(id).text(), "Hello, Ada!");
}

#[test]
fn a_newer_servers_resource_is_watched_by_clients_of_both_eras() {
    let bed = newer_server(json!({}));
    let (older, newer_client) = (Shim::session(&bed.home), Shim::spawn(&bed.home));
    let uri = "test://watched-resource";
    older.ask("resources/subscribe", json!({ "uri": uri })).result();
    newer_client.ask("resources/list", with(json!({}), json!({})));
    let filter = json!({ "notifications": { "resourceSubscriptions": [uri, "none://such"] } });
    newer_client.request("subscriptions/listen", with(filter, json!({})));
    newer_client.wait_for_message("the acknowledgement", DEADLINE, |message| {
        message["method"] == "notifications/subscriptions/acknowledged"
    });
    // Which of the two is told first, and whether the stream is open at the server yet, is not decided.
    wait_for("both are told", DEADLINE, || {
        older.ask("tools/call", json!({ "name": "touch_watched_resource" }));
        let told = [&older, &newer_client].map(|shim| shim.notifications(UPDATED).len());
        if told.iter().all(|told| *told > 0) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert!(older.notifications(UPDATED).iter().all(|news| news["uri"] == uri));
}

#[test]
fn a_call_becomes_a_task_that_its_client_looks_after() {
    let bed = newer_server(json!({}));
    let shim = Shim::spawn(&bed.home);
    let tasks = || json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let ask = |method: &str, params: Value| shim.ask(method, with(params, tasks()));
    let made = ask("tools/call", json!({ "name": "confirm_delete" })).result().clone();
    assert_eq!(
        (&made["resultType"], &made["status"]),
        (&json!("task"), &json!("input_required")),
        "{made:#}"
    );
    let id = made["taskId"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("conformance/"), "{id}");
    let task = || ask("tasks/get", json!({ "taskId": id })).result().clone();
    let waiting = task();
    assert_eq!(waiting["taskId"], *id);
    assert_eq!(waiting["inputRequests"]["confirm"]["method"], "elicitation/create", "{waiting:#}");
    let answer = json!({ "confirm": { "action": "accept", "content": { "ok": true } } });
    let updated = ask("tasks/update", json!({ "taskId": id, "inputResponses": answer }));
    assert_eq!(*updated.result(), json!({ "resultType": "complete" }));
    let done = task();
    assert_eq!(done["status"], "completed", "{done:#}");
    assert!(done["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("accept")));

    let slow = ask("tools/call", json!({ "name": "slow_compute", "arguments": { "seconds": 60 } }));
    let id = slow.result()["taskId"].clone();
    ask("tasks/cancel", json!({ "taskId": id })).result();
    assert_eq!(ask("tasks/get", json!({ "taskId": id })).result()["status"], "cancelled");
    assert_eq!(ask("tasks/get", json!({ "taskId": "conformance/none" })).message["error"]["code"], -32602);
    assert_eq!(ask("tasks/get", json!({ "taskId": "none" })).message["error"]["code"], -32602);
    let without = shim.ask("tools/call", with(json!({ "name": "failing_job" }), json!({})));
    assert_eq!(without.message["error"]["code"], -32021, "{without:?}");
}
