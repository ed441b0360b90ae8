//! The limits of a profile: each ends or delays what goes beyond it, says its own name, and leaves the others alone.

use conductor_tests::{Daemon, Home, Shim};
use serde_json::{Value, json};

fn daemon(config: &str) -> Daemon {
    let home = Home::new();
    home.configure(config);
    Daemon::start(&home)
}

fn of_profile(daemon: &Daemon, profile: &str) -> Shim {
    Shim::session_with(daemon.home(), |command| {
        command.env("MCP_CONDUCTOR_PROFILE", profile);
    })
}

#[test]
fn each_limit_has_an_error_of_its_own_that_names_it() {
    let daemon = daemon(
        "[profiles.computing]\nmax-compute = \"300ms\"\n[profiles.default]\nheap-mib = 32\nmax-output-bytes = 2000\nmax-result-bytes = 2000\n\
         max-upstream-calls = 2\n",
    );
    let shim = Shim::session(daemon.home());
    for (code, kind, limit) in [
        (
            "const all = []; for (;;) all.push(new Array(1000).fill({}))",
            "memory",
            "32 MiB of memory (`heap-mib`)",
        ),
        ("for (;;) console.log('x')", "output_limit", "2000 bytes (`max-output-bytes`)"),
        ("'x'.repeat(2000)", "output_limit", "2000 bytes (`max-result-bytes`)"),
        ("Array(1000).fill(1)", "output_limit", "2000 bytes (`max-result-bytes`)"),
        ("new Blob(['x'.repeat(2000)], { type: 'image/png' })", "output_limit", "`max-result-bytes`"),
        (
            "for (let n = 0; n < 3; n++) await conductor.result('x').catch((error) => { if (n === 2) throw error })",
            "call_limit",
            "2 calls (`max-upstream-calls`)",
        ),
    ] {
        let answer = shim.call(code);
        assert_eq!(answer.error_type(), kind, "{code}: {}", answer.error());
        assert!(answer.error_message().contains(limit), "{code}: {}", answer.error());
        assert!(answer.error()["hint"].is_string(), "{code}: {}", answer.error());
    }
    assert_eq!(shim.call("'x'.repeat(1900).length").value(), 1900);
    assert_eq!(shim.call("'x'.repeat(1900)").structured()["returnValueFormat"], "json");
    // What cannot be JSON is cut to fit instead.
    let shown = shim.call("[Symbol('x'.repeat(9000))]");
    assert!(shown.value().as_str().is_some_and(|text| text.contains("more characters")), "{}", shown.value());
    let timeout = shim
        .call_with(json!({ "deno_code": "await new Promise((f) => setTimeout(f, 9e5))", "timeout": 100 }));
    assert_eq!(timeout.error_type(), "timeout");
    let computing = of_profile(&daemon, "computing").call("for (;;);");
    assert_eq!(computing.error_type(), "compute_limit");
    assert!(computing.error_message().contains("300 ms (`max-compute`)"), "{}", computing.error());
}

/// Milliseconds that a call waited for a worker.
fn queued(answer: &conductor_tests::Answer) -> f64 {
    answer.structured()["timings"]["queue"].as_f64().expect("a number")
}

const SLOW: &str =
    "const start = Date.now(); await new Promise((f) => setTimeout(f, 400)); [start, Date.now()]";

fn span(value: &Value) -> [i64; 2] {
    [0, 1].map(|n| value[n].as_i64().expect("a time"))
}

fn overlap(a: &Value, b: &Value) -> bool {
    let ([a_start, a_end], [b_start, b_end]) = (span(a), span(b));
    a_start < b_end && b_start < a_end
}

#[test]
fn a_session_with_all_its_workers_busy_waits_and_others_do_not() {
    let daemon = daemon("[profiles.default]\nmax-workers-per-session = 1\n");
    let (shim, other) = (Shim::session(daemon.home()), Shim::session(daemon.home()));
    let [first, second] = [(), ()].map(|()| shim.start_call(json!({ "deno_code": SLOW })));
    daemon.wait_for_status("both are there", |status| {
        status.sessions.iter().any(|session| session.executions == 2)
    });
    assert_eq!(other.call("1").value(), 1);
    let [first, second] = [first, second].map(|id| shim.answer(id));
    assert!(!overlap(first.value(), second.value()), "{} {}", first.value(), second.value());
    assert!(queued(&first).max(queued(&second)) >= 300.0, "{} {}", queued(&first), queued(&second));
    // One that is cancelled while it waits leaves, and takes no place with it.
    let endless = shim.start_call(json!({ "deno_code": "for (;;);" }));
    daemon.wait_for_status("it runs", |status| status.pool.profiles.iter().any(|profile| profile.busy == 1));
    let waiting = shim.start_call(json!({ "deno_code": "2" }));
    for id in [waiting, endless] {
        shim.notify("notifications/cancelled", json!({ "requestId": id }));
    }
    assert_eq!(shim.call("3").value(), 3);
}

#[test]
fn sessions_of_one_profile_share_its_workers() {
    let daemon = daemon("[profiles.small]\nmax-workers = 1\n[profiles.large]\n");
    let (one, two, large) =
        (of_profile(&daemon, "small"), of_profile(&daemon, "small"), of_profile(&daemon, "large"));
    let ids = [&one, &two].map(|shim| shim.start_call(json!({ "deno_code": SLOW })));
    assert_eq!(large.call("1").value(), 1);
    let (first, second) = (one.answer(ids[0]), two.answer(ids[1]));
    assert!(!overlap(first.value(), second.value()), "{} {}", first.value(), second.value());
}

#[test]
fn status_shows_the_limits_of_each_session() {
    let daemon = daemon(
        "[profiles.default]\nmax-timeout = \"7s\"\nmax-compute = \"3s\"\nheap-mib = 64\nmax-output-bytes = 4000\n\
         max-result-bytes = 5000\nmax-upstream-calls = 8\nmax-upstream-calls-in-flight = 4\nmax-calls-in-flight = 6\n\
         max-calls-per-minute = 100\nmax-workers = 3\nmax-workers-per-session = 2\n",
    );
    let shim = Shim::session(daemon.home());
    assert_eq!(shim.call("1").value(), 1);
    let limits = daemon.status().sessions[0].limits.clone().expect("the profile is known");
    let shown = json!({
        "timeout_ms": 7000, "compute_ms": 3000, "heap_mib": 64, "output_bytes": 4000, "result_bytes": 5000,
        "upstream_calls": 8, "upstream_calls_in_flight": 4, "calls_in_flight": 6, "calls_per_minute": 100,
        "workers": 3, "workers_per_session": 2,
    });
    assert_eq!(json!(limits), shown);
}
