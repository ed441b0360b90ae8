//! The MCP Inspector's command line: the official TypeScript SDK, in each era of the protocol.

use std::process::Output;

use conductor_tests::Daemon;
use conductor_tests::binaries;
use conductor_tests::clients::Inspector;
use serde_json::{Value, json};

/// Its exit code when a tool answers with `isError`.
const TOOL_ERROR: i32 = 5;

#[test]
fn initialize_era() {
    check_era("legacy");
}

#[test]
fn discover_era() {
    check_era("modern");
}

#[test]
fn era_that_the_client_finds_out() {
    check_era("auto");
}

/// Lists the tools strictly, then makes a call that succeeds and one that fails.
fn check_era(era: &str) {
    let Some(inspector) = Inspector::fetch() else { return };
    let daemon = Daemon::new();
    check(era, |args| run(&inspector, &daemon, args));
}

/// The same by any way; `run` adds arguments to those that lead there.
pub(crate) fn check(era: &str, run: impl Fn(&[&str]) -> Output) {
    let run = |args: &[&str]| run(&[&["--protocol-era", era], args].concat());
    let listed = run(&["--method", "tools/list", "--strict"]);
    assert!(stderr(&listed).contains("0 errors"), "{}", stderr(&listed));
    let tools = result(&listed, 0)["tools"].clone();
    assert_eq!(tools.as_array().map(Vec::len), Some(1), "{tools:#}");
    assert_eq!(tools[0]["name"], "run_deno_code");
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["deno_code"]));
    assert_eq!(tools[0]["outputSchema"]["type"], "object");

    let arguments =
        json!({ "deno_code": "console.log(name); ({ era: name.length })", "globals": { "name": era } });
    let called = result(&run(&call(&arguments.to_string())), 0);
    let structured = &called["structuredContent"];
    assert_eq!(structured["returnValue"], json!({ "era": era.len() }));
    assert_eq!(structured["stdout"], format!("{era}\n"));
    assert_eq!(called["isError"], json!(false));
    assert!(called["content"][0]["text"].as_str().is_some_and(|text| text.contains(era)), "{called:#}");

    let failing = json!({ "deno_code": "const n: number = 1;\nmissing(n)" }).to_string();
    let failed = result(&run(&call(&failing)), TOOL_ERROR);
    let error = &failed["structuredContent"]["error"];
    assert_eq!((&error["type"], &error["line"]), (&json!("runtime"), &json!(2)), "{failed:#}");
    assert_eq!(failed["isError"], json!(true));
}

#[test]
fn a_hundred_calls_eight_at_a_time_in_each_era() {
    let Some(inspector) = Inspector::fetch() else { return };
    let daemon = Daemon::new();
    let arguments = json!({ "deno_code": "2 ** 10" }).to_string();
    for era in ["legacy", "auto", "modern"] {
        let load = ["--protocol-era", era, "--load", "--load-concurrency", "8", "--load-requests", "100"];
        let report = result(&run(&inspector, &daemon, &[&call(&arguments), &load[..]].concat()), 0);
        let counts = ["requests", "ok", "toolErrors", "errors"].map(|name| report[name].as_u64());
        assert_eq!(counts, [Some(100), Some(100), Some(0), Some(0)], "{era}: {report:#}");
    }
}

fn call(arguments: &str) -> [&str; 6] {
    ["--method", "tools/call", "--tool-name", "run_deno_code", "--tool-args-json", arguments]
}

fn run(inspector: &Inspector, daemon: &Daemon, args: &[&str]) -> Output {
    let home = daemon.home();
    let mut command = inspector.command(home);
    // Its SDK hands a server nothing but HOME, PATH and the like, and what -e names.
    let socket = format!("CONDUCTOR_SOCKET={}", home.socket().display());
    command.arg("--cli").arg(binaries::shim()).args(["-e", &socket, "-e", "CONDUCTOR_NO_AUTOSTART=1"]);
    command.args(["--format", "json", "-q"]).args(args);
    command.output().expect("the Inspector starts")
}

/// The one JSON document that it printed.
#[track_caller]
fn result(output: &Output, code: i32) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{stdout}\n{}", stderr(output));
    let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    document["result"].clone()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
