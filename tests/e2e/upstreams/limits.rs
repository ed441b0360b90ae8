//! How many calls of servers one run may make, and how many at one time.

use conductor_tests::{Daemon, Home, Shim};
use serde_json::json;

use super::fixtures::{default_place, recorded, recorder, write};

fn session(config: &str) -> (Daemon, Shim) {
    let home = Home::new();
    home.configure(&format!("[profiles.default]\n{config}"));
    write(&default_place(&home), &json!({ "slow": recorder(&home, "slow") }));
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    (daemon, shim)
}

#[test]
fn a_call_over_the_limit_fails_and_never_reaches_the_server() {
    let (daemon, shim) = session("max-upstream-calls = 3");
    let answer = shim.call("for (let n = 1; n <= 4; n++) await mcp.slow.echo({ message: `call ${n}` })");
    assert_eq!(answer.error_type(), "call_limit", "{}", answer.error());
    let message = answer.error_message();
    assert!(message.contains("a run may make 3 calls (`max-upstream-calls`)"), "{message}");
    assert!(
        answer.error()["hint"].as_str().is_some_and(|hint| hint.contains("several runs")),
        "{}",
        answer.error()
    );
    let reached = recorded(daemon.home(), "slow");
    assert!(reached.contains("call 3") && !reached.contains("call 4"), "{reached}");

    // Code that expects it goes on, and the next run begins anew.
    let code = "let made = 0; try { for (;;) { await mcp.slow.echo({ message: 'x' }); made++ } } catch (error) { [made, error.name] }";
    for _ in 0..2 {
        assert_eq!(shim.call(code).value(), &json!([3, "CallLimitError"]));
    }
}

#[test]
fn calls_over_the_limit_at_one_time_wait() {
    let (_daemon, shim) = session("max-upstream-calls-in-flight = 2");
    let code = "await mcp.slow.pid({}); const start = Date.now();\n\
                await Promise.all(Array.from({ length: 6 }, () => mcp.slow.wait({ ms: 150 }))); Date.now() - start";
    let took = shim.call(code).value().as_i64().expect("milliseconds");
    // Three rounds of two; all at once would be one.
    assert!(took >= 440, "{took} ms");
}

#[test]
fn too_much_for_one_call_is_told_before_it_is_sent() {
    let (daemon, shim) = session("");
    let answer = shim.call("await mcp.slow.echo({ message: 'é'.repeat(3e6) })");
    assert_eq!(answer.error_type(), "call_limit", "{}", answer.error());
    assert!(answer.error_message().contains("may have 4194304 bytes"), "{}", answer.error_message());
    assert_eq!(recorded(daemon.home(), "slow"), "");
}
