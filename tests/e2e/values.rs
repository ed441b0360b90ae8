//! Values that are more than JSON in an answer: stored, linked, read again; images, sounds, files; what code is told.

use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::{Daemon, Operator, Shim};
use serde_json::{Value, json};

const RUN_ARGS: &str = "MCP_CONDUCTOR_RUN_ARGS";

#[test]
fn a_large_value_is_linked_and_can_be_read_by_everyone_it_belongs_to() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.tools();
    let answer = shim.call("Array.from({ length: 60_000 }, (_, n) => `row ${n}`)");
    let structured = answer.structured();
    assert_eq!(structured["returnValueFormat"], "preview");
    let link = &structured["resources"][0];
    let (uri, id) = (link["uri"].as_str().expect("a uri"), link["id"].as_str().expect("an id"));
    assert_eq!(structured["truncated"]["returnValue"]["totalBytes"], link["bytes"]);
    assert!(answer.text().contains(uri) && answer.text().contains("left out"), "the text says how to get it");

    // The client.
    let read = shim.ask("resources/read", json!({ "uri": uri }));
    let text = read.result()["contents"][0]["text"].as_str().expect("a text");
    let whole: Vec<String> = serde_json::from_str(text).expect("is JSON");
    assert_eq!((whole.len(), whole[59_999].as_str()), (60_000, "row 59999"));
    // The next run.
    let again =
        shim.call(&format!("const rows = await conductor.result('{id}'); [rows.length, rows.at(-1)]"));
    assert_eq!(again.value(), &json!([60_000, "row 59999"]));
    // The operator.
    let reply = Operator::ask_once(&daemon.home().socket(), &AdminRequest::Result { id: id.to_owned() });
    assert!(matches!(reply.expect("is answered"), AdminReply::Text { text: told } if told == text));
    // Not another profile, and not under another name.
    let other = Shim::session_with(daemon.home(), |command| {
        command.env(RUN_ARGS, "allow-net=localhost");
    });
    assert!(other.ask("resources/read", json!({ "uri": uri })).is_rpc_error());
    let denied = other.call(&format!("await conductor.result('{id}')"));
    assert!(denied.error_message().contains("there is no result"), "{}", denied.error_message());
    assert!(shim.call("await conductor.result('nope')").error_message().contains("`nope`"));
}

#[test]
fn long_output_is_shown_with_both_ends_and_kept_whole() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.tools();
    let answer = shim.call("for (let n = 0; n < 60_000; n++) console.log('line ' + n);");
    let cut = &answer.structured()["truncated"]["stdout"];
    assert!(answer.stdout().starts_with("line 0\n") && answer.stdout().ends_with("line 59999\n"));
    let shown = answer.stdout().lines().filter(|line| line.starts_with("line ")).count();
    assert_eq!(shown as u64 + cut["omittedLines"].as_u64().expect("a count"), 60_000);
    let id = answer.structured()["resources"][0]["id"].as_str().expect("an id").to_owned();
    let lines = shim.call(&format!("(await conductor.result('{id}')).split('\\n').length"));
    assert_eq!(lines.value(), 60_001);
    let plain = shim.call("console.log('\\x1b[31mred\\x1b[0m')");
    assert_eq!(plain.stdout(), "red\n");
}

#[test]
fn images_sounds_and_files_are_content() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.tools();
    let png = "Uint8Array.from([137, 80, 78, 71, 13, 10, 26, 10, 1, 2])";
    let content = |code: &str| -> (Value, Value) {
        let answer = shim.call(code);
        assert_eq!(answer.structured()["returnValueFormat"], "media", "{code}");
        (answer.result()["content"][1].clone(), answer.structured()["media"].clone())
    };
    let (block, media) = content(png);
    assert_eq!((&block["type"], &block["mimeType"]), (&json!("image"), &json!("image/png")));
    assert_eq!(block["data"], "iVBORw0KGgoBAg==");
    assert_eq!(media, json!([{ "kind": "image", "mimeType": "image/png", "bytes": 10 }]));
    let (block, _) = content("conductor.audio(new Uint8Array([1, 2, 3]), { mimeType: 'audio/wav' })");
    assert_eq!((&block["type"], &block["data"]), (&json!("audio"), &json!("AQID")));
    let (block, media) =
        content("conductor.file('a,b\\n1,2\\n', { name: 'table.csv', mimeType: 'text/csv' })");
    assert_eq!(block["type"], "resource");
    assert_eq!(
        (&block["resource"]["uri"], &block["resource"]["mimeType"]),
        (&json!("conductor://file/table.csv"), &json!("text/csv"))
    );
    assert_eq!((&media[0]["name"], &media[0]["bytes"]), (&json!("table.csv"), &json!(8)));
    let (block, media) = content("conductor.file('x', { name: '../größe 1.csv?' })");
    assert_eq!(block["resource"]["uri"], "conductor://file/..%2Fgr%C3%B6%C3%9Fe%201.csv%3F");
    assert_eq!(media[0]["name"], "../größe 1.csv?");
    let (_, media) =
        content(&format!("[conductor.image({png}), new Blob(['<svg/>'], {{ type: 'image/svg+xml' }})]"));
    assert_eq!(media.as_array().expect("a list").len(), 2);
    let large = shim.call("conductor.file(new Uint8Array(9 << 20))");
    assert_eq!(large.error_type(), "output_limit");
    assert_eq!(shim.call("new Uint8Array([1, 2])").structured()["returnValueFormat"], "inspect");
}

#[test]
fn code_is_told_what_it_may_do_and_cannot_change_it() {
    let daemon = Daemon::new();
    let shim = Shim::session_with(daemon.home(), |command| {
        command.env(RUN_ARGS, "allow-read=/tmp/x,allow-net");
    });
    let answer = shim.call("try { PERMISSIONS.write = true } catch {} PERMISSIONS");
    let permissions = answer.value();
    assert_eq!((&permissions["read"], &permissions["net"]), (&json!(["/tmp/x"]), &json!(true)));
    assert_eq!((&permissions["write"], &permissions["all"]), (&json!(false), &json!(false)));
}

#[test]
fn an_error_after_the_value_still_carries_the_value() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.tools();
    let answer = shim.call("setTimeout(() => { throw new RangeError('late') }, 10); 42");
    assert_eq!((answer.error_type(), answer.structured()["returnValue"].as_u64()), ("runtime", Some(42)));
    assert!(answer.error_message().contains("RangeError: late (thrown after"), "{}", answer.error_message());
}

#[test]
fn output_comes_as_log_messages_to_who_asked_for_them() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.ask("logging/setLevel", json!({ "level": "info" })).result();
    shim.call("console.log('out'); console.error('err')");
    let mut told: Vec<(String, String)> = shim
        .notifications("notifications/message")
        .iter()
        .map(|message| (message["level"].to_string(), message["data"].to_string()))
        .collect();
    told.sort();
    let message = |level: &str, data: &str| (format!("\"{level}\""), format!("\"{data}\""));
    assert_eq!(told, [message("info", "out"), message("warning", "err")]);
}

#[test]
fn one_session_cannot_take_more_than_its_share() {
    let daemon = Daemon::new();
    daemon.home().configure("[profiles.default]\nmax-calls-in-flight = 1\nmax-calls-per-minute = 3\n");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let shim = Shim::session(daemon.home());
    daemon.wait_for_status("the new configuration", |status| status.daemon.config.is_some());
    let endless = shim.start_call(json!({ "deno_code": "for (;;);" }));
    let status = daemon.wait_for_status("a running call", |status| {
        status.sessions.iter().any(|session| !session.running.is_empty())
    });
    let refused = shim.call("1");
    assert_eq!(refused.error_type(), "busy");
    assert!(refused.error_message().contains("1 calls in flight"), "{}", refused.error_message());

    // An operator ends a call by its id.
    let execution = status
        .sessions
        .iter()
        .flat_map(|session| &session.running)
        .next()
        .expect("one runs")
        .execution
        .clone();
    let cancel = AdminRequest::Cancel { execution };
    let reply = Operator::ask_once(&daemon.home().socket(), &cancel).expect("is answered");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    assert_eq!(shim.answer(endless).error_type(), "cancelled");
    let reply = Operator::ask_once(&daemon.home().socket(), &cancel).expect("is answered");
    assert!(matches!(reply, AdminReply::Failed { .. }), "it is over: {reply:?}");

    assert_eq!([shim.call("1").value(), shim.call("2").value()], [&json!(1), &json!(2)]);
    let refused = shim.call("3");
    assert_eq!(refused.error_type(), "busy");
    assert!(refused.error_message().contains("3 calls in a minute"), "{}", refused.error_message());
}
