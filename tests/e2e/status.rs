//! The status document says what was done.

use conductor_tests::{DEADLINE, Daemon, Home, Shim, binaries, wait_for};
use serde_json::json;

#[test]
fn counts_match_what_was_done() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let fresh = daemon.status();
    assert_eq!((fresh.executions.started, fresh.sessions.len()), (0, 0));
    assert_eq!(fresh.daemon.phase, "running");

    let shim = Shim::session(&home);
    let other = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", "allow-net=127.0.0.1");
    });
    for n in 0..3 {
        assert_eq!(shim.call(&n.to_string()).value(), n);
    }
    assert_eq!(shim.call("throw new Error('on purpose')").error_type(), "runtime");
    assert_eq!(
        shim.call_with(json!({ "deno_code": "while (true) {}", "timeout": 100 })).error_type(),
        "timeout"
    );
    assert_eq!(shim.call_with(json!({ "deno_code": "" })).error_type(), "invalid_arguments");
    assert_eq!(other.call("1").value(), 1);

    let status = daemon.wait_until_quiet(2);
    let executions = &status.executions;
    assert_eq!((executions.started, executions.succeeded, executions.failed), (7, 4, 3));
    let by_error: Vec<_> = executions.by_error.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(by_error, [("invalid_arguments", 1), ("runtime", 1), ("timeout", 1)]);
    assert_eq!(executions.by_worker, [("spawn".to_owned(), 6)].into(), "one had no worker");
    for latency in &status.latency {
        assert_eq!(latency.count, 7, "{latency:?}");
        assert!(latency.p50_ms <= latency.p90_ms && latency.p90_ms <= latency.p99_ms, "{latency:?}");
    }
    let total = status.latency.iter().find(|latency| latency.name == "total").expect("is measured");
    assert!(total.max_ms >= 100.0, "one call took 100 ms: {total:?}");
    assert!(
        status.last_errors.iter().any(|error| error.text.contains("on purpose")),
        "{:?}",
        status.last_errors
    );

    assert_eq!(status.sessions.iter().map(|session| session.executions).collect::<Vec<_>>(), [6, 1]);
    for (session, shim) in status.sessions.iter().zip([&shim, &other]) {
        assert_eq!(i64::from(session.client_pid), i64::from(shim.pid()));
        assert_eq!(session.client.as_deref(), Some("conductor-tests 1"));
        assert_eq!((session.kind.as_str(), session.in_flight), ("shim", 0));
        assert_eq!((session.profile.as_deref(), &session.error), (Some("default"), &None));
    }
    assert_eq!(status.pool.profiles.len(), 2, "two sets of grants, two profiles");
    for profile in &status.pool.profiles {
        assert_eq!(
            (profile.sessions, profile.breaker.as_str(), profile.source.as_str()),
            (1, "closed", "spawn")
        );
        assert!(profile.idle > 0 && profile.boot_failures == 0, "{profile:?}");
        assert!(profile.booted > profile.idle, "used workers were replaced: {profile:?}");
    }
    let mut grants: Vec<_> = status.pool.profiles.iter().map(|profile| profile.grants.as_str()).collect();
    grants.sort_unstable();
    assert_eq!(grants, ["net 127.0.0.1", "nothing"]);
    // One may be in the place of a used one by now.
    wait_for("each worker is counted, and no other process is left", DEADLINE, || {
        let idle: u64 = daemon.wait_until_quiet(2).pool.profiles.iter().map(|profile| profile.idle).sum();
        let children = daemon.children();
        if children.len() as u64 == idle { Ok(()) } else { Err(format!("{idle} idle, {children:#?}")) }
    });

    assert_eq!(i64::from(status.daemon.pid), i64::from(daemon.pid()));
    assert_eq!(status.daemon.socket, home.socket().display().to_string());
    assert!(status.daemon.rss_bytes > 1 << 20 && status.daemon.uptime_ms > 0, "{:?}", status.daemon);
    assert!(status.daemon.descriptors > 10, "as many at least as it takes to serve: {:?}", status.daemon);
    assert_eq!(status.deno.state, "ready");
    assert_eq!(status.deno.path.as_deref(), binaries::deno().to_str());
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
}
