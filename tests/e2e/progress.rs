//! Output while the code runs, for clients that ask for it.

use std::fs;

use conductor_tests::{DEADLINE, Daemon, Shim};
use serde_json::json;

const LINES: usize = 20;

#[test]
fn output_arrives_in_order_and_none_after_the_result() {
    let daemon = Daemon::new();
    let home = daemon.home();
    let shim = Shim::session_with(home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-read={}", home.workspace().display()));
    });
    // After each line it waits until the client has been told.
    let code = "const is_told = (n) => { try { return Deno.statSync(`${told}${n}`).isFile } catch { return false } };\n\
                for (let n = 0; n < count; n++) {\n\
                  console.log(`line ${n}`);\n\
                  while (!is_told(n)) await new Promise((done) => setTimeout(done, 5));\n\
                }\n'done'";
    let told = home.workspace().join("told-").display().to_string();
    let id = shim.request(
        "tools/call",
        json!({
            "name": "run_deno_code",
            "arguments": { "deno_code": code, "globals": { "count": LINES, "told": told } },
            "_meta": { "progressToken": "mine" },
        }),
    );
    for n in 0..LINES {
        shim.wait_for_message("the next line", DEADLINE, |message| {
            message["params"]["message"].as_str().is_some_and(|text| text.lines().eq([format!("line {n}")]))
        });
        fs::write(format!("{told}{n}"), "").expect("writes");
    }
    let answer = shim.answer(id);
    assert_eq!(answer.value(), "done");
    // Whatever would come late has come when a later request is answered.
    assert_eq!(shim.call("1").value(), 1);

    let expected: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
    assert_eq!(answer.stdout().lines().collect::<Vec<_>>(), expected);
    let notifications = shim.notifications("notifications/progress");
    assert!(notifications.iter().all(|params| params["progressToken"] == "mine"), "{notifications:?}");
    let told = notifications.iter().flat_map(|params| params["message"].as_str().expect("a text").lines());
    let told: Vec<_> = told.collect();
    assert_eq!(told, expected, "every line, in order");
    let progress: Vec<f64> =
        notifications.iter().map(|params| params["progress"].as_f64().expect("a number")).collect();
    assert!(progress.is_sorted_by(|a, b| a < b), "{progress:?}");

    let messages = shim.messages();
    let result_at = messages.iter().position(|message| message["id"] == id).expect("the result");
    let last =
        messages.iter().rposition(|message| message["method"] == "notifications/progress").expect("progress");
    assert!(last < result_at, "progress came after the result");
}

#[test]
fn who_does_not_ask_is_told_nothing() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let answer =
        shim.call("console.log('a'); await new Promise((done) => setTimeout(done, 50)); console.log('b')");
    assert_eq!(answer.stdout(), "a\nb\n");
    assert_eq!(shim.ask("ping", json!({})).result(), &json!({}));
    assert!(shim.notifications("notifications/progress").is_empty());
}

#[test]
fn a_flood_of_output_does_not_hold_up_the_result() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let code = "for (let n = 0; n < 20_000; n++) console.log(`line ${n} ${'x'.repeat(80)}`);\n'done'";
    let id = shim.request(
        "tools/call",
        json!({ "name": "run_deno_code", "arguments": { "deno_code": code }, "_meta": { "progressToken": 7 } }),
    );
    assert_eq!(shim.answer(id).value(), "done");
    let notifications = shim.notifications("notifications/progress");
    assert!(!notifications.is_empty());
    assert!(
        notifications.iter().all(|params| params["message"].as_str().is_some_and(|text| text.len() < 4200))
    );
}
