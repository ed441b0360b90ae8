//! What an operator sees of servers and does to them, with `conductorctl`.

use std::process::Output;

use conductor_tests::{DEADLINE, Home, binaries, wait_for};
use serde_json::{Value, json};

use super::fixtures::{Bed, pids, recorder};

fn ctl(home: &Home, args: &[&str]) -> Output {
    let mut command = home.command(&binaries::conductorctl());
    command.env("CONDUCTOR_SOCKET", home.socket()).args(args);
    command.output().expect("conductorctl runs")
}

#[track_caller]
fn told(home: &Home, args: &[&str]) -> String {
    let output = ctl(home, args);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn document(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&told(home, args)).expect("a document")
}

#[test]
fn servers_are_listed_logged_restarted_and_stopped() {
    let bed = Bed::new(|home| {
        let gone = json!({ "command": "no-such-program-here" });
        json!({ "recorder": recorder(home, "recorder"), "gone": gone, "typo": { "urk": "x" } })
    });
    let home = &bed.home;
    let before = document(home, &["servers", "list", "--json"]);
    let row = |document: &Value, name: &str| {
        let rows = document["servers"].as_array().expect("a list").clone();
        rows.into_iter().find(|row| row["name"] == name).expect("a row")
    };
    assert_eq!(row(&before, "recorder")["state"], "idle");
    assert!(
        row(&before, "gone")["reason"].as_str().expect("a reason").contains("was not found in"),
        "{before:#}"
    );
    assert_eq!(row(&before, "typo")["state"], "disabled");
    assert!(pids(home).is_empty(), "a list starts nothing");

    let shim = bed.session();
    let pid = || shim.call("Number(await mcp.recorder.pid())").value().as_i64().expect("a number");
    let first = pid();
    shim.call("await mcp.recorder.reveal({ variable: 'HOME' })");
    let list = told(home, &["servers", "list"]);
    for says in ["mcp-config.json", "recorder", "ready", &first.to_string(), "typo: it has neither"] {
        assert!(list.contains(says), "{says} is not in:\n{list}");
    }
    let status = told(home, &["status"]);
    for says in ["Servers: 3", "recorder", &first.to_string()] {
        assert!(status.contains(says), "{says} is not in:\n{status}");
    }
    let said = |line: &Value| line["source"] == "stderr" && line["text"].to_string().contains("stderr tells");
    wait_for("what the server said beside its answer", DEADLINE, || {
        let logs = document(home, &["servers", "logs", "recorder", "--json"]);
        let lines = logs["servers"][0]["lines"].as_array().expect("lines");
        if lines.iter().any(said) { Ok(()) } else { Err(format!("{logs:#}")) }
    });
    assert!(told(home, &["servers", "logs", "recorder"]).contains("stderr tells"));

    assert!(told(home, &["servers", "restart", "recorder"]).contains("fresh"));
    let second = pid();
    assert_ne!(first, second);
    assert!(told(home, &["servers", "stop", "recorder"]).contains("starts again"));
    wait_for("the server to end", DEADLINE, || match pids(home) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_ne!(pid(), second, "it starts again when it is used");

    let unknown = ctl(home, &["servers", "restart", "recoder"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{error}");
    assert!(error.contains("did you mean recorder"), "{error}");
    let disabled = ctl(home, &["servers", "logs", "typo"]);
    assert!(
        String::from_utf8_lossy(&disabled.stderr).contains("neither `command` nor `url`"),
        "{disabled:?}"
    );
}

#[test]
fn the_doctor_tells_where_commands_are_found_or_how_to_get_them() {
    let bed = Bed::new(
        |home| json!({ "here": { "command": "sh" }, "gone": { "command": "no-such-program-here" }, "full": recorder(home, "full") }),
    );
    let output = ctl(&bed.home, &["doctor", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let checks: Vec<_> = document["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|it| it["name"] == "mcp server")
        .collect();
    let of = |name: &str| {
        let begins = |check: &&&Value| {
            check["text"].as_str().is_some_and(|text| text.starts_with(&format!("{name}: ")))
        };
        *checks.iter().find(begins).unwrap_or_else(|| panic!("no check of {name}: {document:#}"))
    };
    assert_eq!(of("here")["verdict"], "ok");
    assert!(of("here")["text"].to_string().contains("/sh (from the session's PATH)"), "{}", of("here"));
    assert!(of("full")["text"].to_string().contains("(from the path that is configured)"), "{}", of("full"));
    assert_eq!(of("gone")["verdict"], "warn");
    assert!(of("gone")["text"].to_string().contains("the session's PATH (3 directories)"), "{}", of("gone"));
    assert!(of("gone")["fix"].to_string().contains("install it"), "{}", of("gone"));
}
