//! The Python SDK of MCP. What it does is in `python/client.py`; what must come of it is here.

use std::process::Command;

use conductor_tests::clients::PythonSdk;
use conductor_tests::{Daemon, binaries};
use serde_json::{Value, json};

#[test]
fn a_session_in_each_era() {
    let Some(sdk) = PythonSdk::fetch() else { return };
    let daemon = Daemon::new();
    let home = daemon.home();
    let mut command = sdk.command(home, include_str!("python/client.py"));
    command.env("CONDUCTOR_SOCKET", home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    check_eras(command.arg(binaries::shim()));
}

/// Runs the program, which has a place to connect to already, in each era.
pub(crate) fn check_eras(command: &mut Command) {
    let output = command.args(["legacy", "auto"]).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sessions: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    for (mode, version) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        let session = &sessions[mode];
        assert_eq!((&session["version"], &session["server"]), (&json!(version), &json!("conductor")));
        check(session);
    }
}

fn check(session: &Value) {
    let tools = session["tools"].as_array().expect("a list of tools");
    assert_eq!(tools.len(), 1);
    assert_eq!(tools[0]["name"], "run_deno_code");
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["deno_code"]));
    assert!(tools[0]["outputSchema"]["properties"]["returnValue"].is_object());

    let structured = |name: &str| session[name]["structuredContent"].clone();
    let value = json!({ "answer": 42, "text": "ü" });
    assert_eq!(structured("value")["returnValue"], value);
    let text = session["value"]["content"][0]["text"].as_str().expect("a text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("the text is the value as JSON"), value);
    assert_eq!(structured("nothing")["returnValueFormat"], "none");
    assert_eq!(structured("nothing").get("returnValue"), None);

    let errors = ["thrown", "syntax"].map(|name| (session[name]["isError"].clone(), structured(name)));
    let [(thrown_is_error, thrown), (syntax_is_error, syntax)] = &errors;
    assert_eq!((thrown_is_error, syntax_is_error), (&json!(true), &json!(true)));
    assert_eq!((&thrown["error"]["type"], &thrown["error"]["line"]), (&json!("runtime"), &json!(2)));
    assert_eq!(thrown["error"]["message"], "RangeError: no 1");
    assert_eq!((&syntax["error"]["type"], &syntax["error"]["line"]), (&json!("syntax"), &json!(1)));

    assert_eq!(structured("printed")["stdout"], "line 1\nline 2\nline 3\n");
    let told = session["told"].as_array().expect("a list of notifications");
    let progress: Vec<f64> = told.iter().filter_map(|one| one[0].as_f64()).collect();
    assert!(progress.is_sorted_by(|a, b| a < b), "progress only grows: {progress:?}");
    // How output is cut into notifications is the daemon's choice.
    let lines: Vec<&str> = told.iter().filter_map(|one| one[1].as_str()).flat_map(str::lines).collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);

    let products: Vec<u64> = (0..20).map(|n| n * 1000).collect();
    assert_eq!(session["concurrent"], json!(products));
}
