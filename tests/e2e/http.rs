//! Agents that come over HTTP have what those on stdio have, in both eras, and nothing of each other.

mod certificate;
mod guard;
mod operators;
mod resumption;
mod sharing;

use conductor_tests::http::{HttpBed, Reply, borrowed, newer, request, wait_until_busy};
use conductor_tests::{DEADLINE, Home, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::servers::{configure, mirror};

const ENDLESS: &str = "for (;;) {}";

fn code(code: &str) -> Value {
    json!({ "name": "run_deno_code", "arguments": { "deno_code": code, "timeout": 120_000 } })
}

#[test]
fn both_eras_list_and_run() {
    let bed = HttpBed::new("");
    let client = &bed.client;
    let session = client.initialize(json!({}));
    let listed = client.ask_in(&session, "tools/list", json!({}));
    assert_eq!(listed["result"]["tools"][0]["name"], "run_deno_code", "{listed:#}");
    let older = client.ask_in(&session, "tools/call", code("6 * 7"));
    assert_eq!(older["result"]["structuredContent"]["returnValue"], 42, "{older:#}");
    assert_eq!(older["result"].get("resultType"), None);

    let discovered = client.ask("server/discover", json!({}));
    assert!(discovered["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{discovered:#}");
    let newer = client.ask("tools/call", code("6 * 7"));
    assert_eq!(newer["result"]["structuredContent"]["returnValue"], 42, "{newer:#}");
    assert_eq!(newer["result"]["resultType"], "complete");

    let status = bed.daemon.status();
    let kinds: Vec<_> = status.sessions.iter().map(|it| (it.kind.as_str(), it.token.as_deref())).collect();
    assert_eq!(kinds, [("http", Some("first")), ("http", Some("first"))]);
    assert!(status.http.requests >= 6 && status.http.tokens[0].sessions == 2, "{:#?}", status.http);
    assert!(
        !serde_json::to_string(&status).expect("encodes").contains(&client.token[8..]),
        "no value is told"
    );

    let ended = client.send("DELETE", &[("Mcp-Session-Id", &session)], "");
    assert_eq!(ended.status, 204);
    assert_eq!(client.ask_in(&session, "ping", json!({}))["error"]["code"], -32000);
    bed.daemon.wait_for_status("the session is over", |status| status.sessions.len() == 1);
}

#[test]
fn every_revision_that_has_this_transport_is_spoken() {
    let bed = HttpBed::new("");
    let client = json!({ "name": "old", "version": "1" });
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
        let reply = bed.client.post(&[], &request(1, "initialize", params));
        assert_eq!(reply.answer()["result"]["protocolVersion"], version);
        let session = reply.headers["mcp-session-id"].clone();
        let headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", version)];
        let answer = bed.client.post(&headers, &request(2, "tools/call", code("2 * 21"))).answer();
        assert_eq!(answer["result"]["structuredContent"]["returnValue"], 42, "{version}");
    }
    let headers = [("MCP-Protocol-Version", "1999-01-01")];
    let unknown = bed.client.post(&headers, &request(3, "tools/list", json!({})));
    assert_eq!(unknown.status, 400, "{unknown:?}");
}

#[test]
fn progress_comes_in_order_before_the_answer() {
    let bed = HttpBed::new("");
    let mut params =
        code("for (const n of [1, 2, 3]) { console.log(n); await new Promise((r) => setTimeout(r, 30)) } 4");
    params["_meta"] = json!({ "progressToken": "p" });
    let session = bed.client.initialize(json!({}));
    let (headers, message) = newer(5, "tools/call", params.clone());
    let newer = bed.client.post(&borrowed(&headers), &message);
    let older = bed.client.post(&[("Mcp-Session-Id", &session)], &request(5, "tools/call", params));
    for reply in [newer, older] {
        assert_eq!(reply.headers["content-type"], "text/event-stream");
        let mut messages = reply.messages();
        let answer = messages.pop().expect("an answer");
        assert_eq!(
            (&answer["id"], &answer["result"]["structuredContent"]["returnValue"]),
            (&json!(5), &json!(4))
        );
        let progress: Vec<f64> = messages.iter().filter_map(|it| it["params"]["progress"].as_f64()).collect();
        assert!(progress.is_sorted_by(|a, b| a < b), "{messages:#?}");
        // How much is told at a time depends on what else the machine does.
        let told = messages.iter().filter_map(|it| it["params"]["message"].as_str());
        let lines: Vec<&str> = told.flat_map(str::lines).collect();
        assert_eq!(lines, ["1", "2", "3"], "{messages:#?}");
    }
}

#[test]
fn nothing_comes_after_an_answer_however_much_comes_before_it() {
    let bed = HttpBed::new("");
    let session = bed.client.initialize(json!({}));
    let mut params =
        code("for (let n = 0; n < 40; n++) { console.log(n); if (n % 8 === 0) await null } 'done'");
    let check = |reply: Reply, id: i64| {
        let mut messages = reply.messages();
        let answer = messages.pop().expect("an answer");
        assert_eq!(
            (&answer["id"], &answer["result"]["structuredContent"]["returnValue"]),
            (&json!(id), &json!("done")),
            "the last is the answer: {reply:?}"
        );
        let progress: Vec<f64> = messages.iter().filter_map(|it| it["params"]["progress"].as_f64()).collect();
        assert_eq!(progress.len(), messages.len(), "and it is the only one: {messages:#?}");
        assert!(progress.is_sorted_by(|a, b| a < b), "{progress:?}");
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            params["_meta"] = json!({ "progressToken": thread });
            let (params, session, client) = (params.clone(), session.as_str(), &bed.client);
            scope.spawn(move || {
                for round in 0..5 {
                    let id = 100 * thread + round;
                    let (headers, message) = newer(id, "tools/call", params.clone());
                    check(client.post(&borrowed(&headers), &message), id);
                    let in_session = [("Mcp-Session-Id", session)];
                    check(client.post(&in_session, &request(id, "tools/call", params.clone())), id);
                }
            });
        }
    });
}

#[test]
fn what_is_known_is_answered_while_servers_hang() {
    let home = Home::new();
    let hang =
        json!({ "command": "/bin/sleep", "args": ["1000"], "expose": ["tools", "resources", "prompts"] });
    configure(
        &home,
        &json!({ "hang": hang, "m": mirror(&home, json!({ "expose": ["tools"], "exposePrefix": "" })) }),
    );
    let bed = HttpBed::in_home(&home, "");
    for _ in 0..3 {
        let session = bed.client.initialize(json!({}));
        assert!(bed.client.ask("server/discover", json!({})).get("result").is_some());
        for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
            assert!(bed.client.ask(method, json!({})).get("result").is_some(), "{method}");
            assert!(bed.client.ask_in(&session, method, json!({})).get("result").is_some(), "{method}");
        }
    }
    let status = bed.daemon.status();
    let hangs = status.upstreams.iter().find(|server| server.name == "hang").expect("is configured");
    assert_ne!(hangs.state, "ready", "and it still hangs");
    let listed = || bed.client.ask("tools/list", json!({})).to_string();
    wait_for("the other server's tools are listed", DEADLINE, || {
        if listed().contains("\"count\"") { Ok(()) } else { Err(listed()) }
    });
}

#[test]
fn a_call_ends_when_its_client_does_not_want_it() {
    let bed = HttpBed::new("");
    let (headers, message) = newer(5, "tools/call", code(ENDLESS));
    let stream = bed.client.stream("POST", &borrowed(&headers), Some(&message));
    wait_until_busy(&bed.daemon, 1);
    drop(stream);
    wait_until_busy(&bed.daemon, 0);

    let session = bed.client.initialize(json!({}));
    let in_session = [("Mcp-Session-Id", session.as_str())];
    let stream = bed.client.stream("POST", &in_session, Some(&request(6, "tools/call", code(ENDLESS))));
    wait_until_busy(&bed.daemon, 1);
    // In the older era a connection that breaks cancels nothing.
    drop(stream);
    let again = bed.client.post(&in_session, &request(6, "tools/list", json!({})));
    assert_eq!((again.status, &again.answer()["error"]["code"]), (400, &json!(-32600)), "its id is in use");
    let cancelled =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 6 } });
    assert_eq!(bed.client.post(&in_session, &cancelled).status, 202);
    wait_until_busy(&bed.daemon, 0);
}

#[test]
fn large_results_are_resources() {
    let bed = HttpBed::new("");
    let result = bed.client.run("'x'.repeat(1 << 20)");
    let uri =
        result["resources"][0]["uri"].as_str().unwrap_or_else(|| panic!("a resource: {result:#}")).to_owned();
    let read = bed.client.ask("resources/read", json!({ "uri": uri }));
    let text = read["result"]["contents"][0]["text"].as_str().expect("a text");
    assert!(text.len() >= 1 << 20, "{} bytes", text.len());
}

fn exposing() -> HttpBed {
    let home = Home::new();
    configure(&home, &json!({ "m": mirror(&home, json!({ "expose": ["tools"], "exposePrefix": "" })) }));
    HttpBed::in_home(&home, "")
}

#[test]
fn servers_ask_the_client_in_each_era() {
    let bed = exposing();
    let schema = json!({ "type": "object", "properties": {} });
    let arguments =
        json!({ "method": "elicitation/create", "params": { "message": "?", "requestedSchema": schema } });
    let params = json!({ "name": "ask", "arguments": arguments });
    let accepted = json!({ "action": "accept", "content": { "n": 1 } });

    let session = bed.client.initialize(json!({ "elicitation": {} }));
    bed.client.ask_in(&session, "tools/list", json!({}));
    let in_session = [("Mcp-Session-Id", session.as_str())];
    let mut stream = bed.client.stream("POST", &in_session, Some(&request(7, "tools/call", params.clone())));
    let question = stream.until("elicitation/create");
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": accepted });
    assert_eq!(bed.client.post(&in_session, &reply).status, 202);
    let answer = stream.message().expect("an answer");
    assert!(
        answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("accept")),
        "{answer:#}"
    );

    let asked = bed.client.ask("tools/call", params.clone())["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked:#}");
    let key =
        asked["inputRequests"].as_object().and_then(|asked| asked.keys().next()).expect("a question").clone();
    let mut retry = params;
    retry["requestState"] = asked["requestState"].clone();
    retry["inputResponses"] = json!({ key: accepted });
    // Whoever else gets hold of the state has nothing in hand.
    let other = bed.another("second", "default").ask("tools/call", retry.clone());
    assert_eq!(other["error"]["code"], -32602, "{other:#}");
    let answer = bed.client.ask("tools/call", retry.clone());
    assert!(
        answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("accept")),
        "{answer:#}"
    );
    assert_eq!(bed.client.ask("tools/call", retry)["error"]["code"], -32602, "it is good once");
}

#[test]
fn lists_that_change_are_told_in_each_era() {
    let bed = exposing();
    let session = bed.client.initialize(json!({}));
    bed.client.ask_in(&session, "tools/list", json!({}));
    let mut unasked = bed.client.stream("GET", &[("Mcp-Session-Id", &session)], None);
    let (headers, message) =
        newer(8, "subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut listening = bed.client.stream("POST", &borrowed(&headers), Some(&message));
    listening.until("notifications/subscriptions/acknowledged");
    bed.client.ask("tools/list", json!({}));
    let grown = bed.client.ask("tools/call", json!({ "name": "grow", "arguments": { "name": "late" } }));
    assert_eq!(grown["result"]["content"][0]["text"], "grown", "{grown:#}");
    // The lists may have changed before, when the server had started.
    for stream in [&mut unasked, &mut listening] {
        let is_listed = |listed: Value| listed.to_string().contains("\"late\"");
        while {
            stream.until("notifications/tools/list_changed");
            !is_listed(bed.client.ask_in(&session, "tools/list", json!({})))
        } {}
    }
}

#[test]
fn the_daemon_goes_down_after_its_answers() {
    let mut bed = HttpBed::new("");
    let session = bed.client.initialize(json!({}));
    let slow = code("await new Promise((r) => setTimeout(r, 1500)); 'done'");
    let (headers, message) = newer(9, "tools/call", slow.clone());
    let mut newer = bed.client.stream("POST", &borrowed(&headers), Some(&message));
    let in_session = [("Mcp-Session-Id", session.as_str())];
    let mut older = bed.client.stream("POST", &in_session, Some(&request(9, "tools/call", slow)));
    let mut unasked = bed.client.stream("GET", &in_session, None);
    wait_until_busy(&bed.daemon, 2);
    bed.daemon.signal(Signal::SIGTERM);
    assert_eq!(unasked.message(), None, "nothing is said unasked any more");
    for stream in [&mut newer, &mut older] {
        let answer = stream.message().expect("an answer");
        assert_eq!(answer["result"]["structuredContent"]["returnValue"], "done", "{answer:#}");
    }
    assert!(bed.daemon.wait().success());
    assert!(std::net::TcpStream::connect(bed.client.address).is_err(), "nobody listens");
}

#[test]
fn a_session_that_nobody_uses_ends() {
    // Longer than a machine stands still between two requests of one session.
    let bed = HttpBed::new("session-idle = \"2s\"\nmax-sessions = 2");
    let session = bed.client.initialize(json!({}));
    bed.daemon.wait_for_status("the session is over", |status| status.sessions.is_empty());
    assert_eq!(bed.client.post(&[("Mcp-Session-Id", &session)], &request(1, "ping", json!({}))).status, 404);
    // One that listens is used, and gives way last.
    let listens = bed.client.initialize(json!({}));
    let _stream = bed.client.stream("GET", &[("Mcp-Session-Id", &listens)], None);
    for _ in 0..3 {
        bed.client.initialize(json!({}));
    }
    bed.daemon.wait_for_status("the others are over", |status| status.sessions.len() == 1);
    assert_eq!(bed.client.ask_in(&listens, "ping", json!({}))["result"], json!({}));
}
