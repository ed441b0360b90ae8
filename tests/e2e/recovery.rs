//! The daemon dies: nothing of it is left, and the IDE's session goes on.

use std::fs;
use std::time::{Duration, Instant};

use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::{DEADLINE, Daemon, Home, Operator, Shim, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

/// JSON-RPC error of the shim: the request may have run, its answer is lost.
const LOST: i64 = -32001;

/// How long the kernel may take to end the workers of a daemon that was killed.
const WORKERS_END: Duration = Duration::from_secs(5);

/// Stops a daemon that a shim has started.
fn stop(home: &Home) {
    let reply = Operator::ask_once(&home.socket(), &AdminRequest::Stop).expect("is answered");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    wait_for("the daemon ends", DEADLINE, || match home.daemons() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_shim_starts_the_daemon_and_goes_on_after_it_was_killed() {
    let home = Home::new();
    let marks = home.workspace().join("marks");
    let shim = Shim::session_with(&home, |command| {
        Shim::with_autostart(command);
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={}", home.workspace().display()));
    });
    assert_eq!(shim.call("'first daemon'").value(), "first daemon");
    let [first] = &home.daemons()[..] else { panic!("one daemon runs: {:?}", home.daemons()) };

    let code = "Deno.writeTextFileSync(file, 'ran\\n', { append: true }); await new Promise((done) => setTimeout(done, 60_000))";
    let lost = shim.start_call(json!({ "deno_code": code, "globals": { "file": marks } }));
    wait_for("the call runs", DEADLINE, || match fs::read_to_string(&marks) {
        Ok(text) if text == "ran\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let workers = home.workers();
    assert!(!workers.is_empty());
    first.signal(Signal::SIGKILL);
    wait_for("no worker of the killed daemon is left", WORKERS_END, || {
        let left: Vec<_> = workers.iter().filter(|worker| worker.exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let answer = shim.answer_within(lost, DEADLINE);
    assert_eq!(answer.rpc_error().0, LOST, "{}", answer.message);

    let started = Instant::now();
    assert_eq!(shim.call("'second daemon'").value(), "second daemon");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let [second] = &home.daemons()[..] else { panic!("one daemon runs: {:?}", home.daemons()) };
    assert_ne!((first.pid, first.start_ticks), (second.pid, second.start_ticks));
    assert_eq!(fs::read_to_string(&marks).expect("is there"), "ran\n", "the lost call did not run again");
    assert_eq!(shim.answers(lost), 1);
    let status = Operator::status(&home.socket()).expect("is answered");
    assert_eq!(
        status.sessions[0].client.as_deref(),
        Some("conductor-tests 1"),
        "the session was introduced again"
    );
    drop(shim);
    stop(&home);
}

#[test]
fn many_shims_start_one_daemon_and_each_goes_on_after_it_was_killed() {
    let home = Home::new();
    let shims: Vec<Shim> = (0..8).map(|_| Shim::spawn_with(&home, Shim::with_autostart)).collect();
    std::thread::scope(|scope| {
        for shim in &shims {
            scope.spawn(|| shim.initialize());
        }
    });
    assert_eq!(home.daemons().len(), 1, "{:?}", home.daemons());
    let first = home.daemons().swap_remove(0);
    first.signal(Signal::SIGKILL);
    // What is sent while it dies may be lost, as the other test shows.
    wait_for("the daemon is gone", DEADLINE, || if first.exists() { Err("not yet") } else { Ok(()) });
    std::thread::scope(|scope| {
        for (n, shim) in shims.iter().enumerate() {
            scope.spawn(move || assert_eq!(shim.call(&format!("{n}")).value(), n));
        }
    });
    assert_eq!(home.daemons().len(), 1, "{:?}", home.daemons());
    drop(shims);
    stop(&home);
}

#[test]
fn a_killed_daemon_leaves_no_deno_even_if_its_workers_are_busy_or_stopped() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    shim.start_call(json!({ "deno_code": "while (true) {}" }));
    shim.start_call(json!({ "deno_code": "await new Promise((done) => setTimeout(done, 60_000))" }));
    daemon.wait_for_status("both run", |status| {
        status.pool.profiles.iter().map(|profile| profile.busy).sum::<u64>() == 2
    });
    let workers = home.workers();
    workers[0].signal(Signal::SIGSTOP);
    daemon.kill9();
    wait_for("no worker is left", WORKERS_END, || match home.workers() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(home.socket().exists(), "a killed daemon cannot tidy up");
    let second = Daemon::start(&home);
    assert_eq!(
        shim.call("'the next daemon took the stale socket over'").value(),
        "the next daemon took the stale socket over"
    );
    drop(second);
}

#[test]
fn without_a_daemon_each_request_is_answered_with_the_reason() {
    let home = Home::new();
    let shim = Shim::spawn(&home);
    let client = json!({ "name": "t", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let answer = shim.ask("initialize", params);
    let (code, message) = answer.rpc_error();
    assert_eq!(code, -32000);
    assert!(message.contains("CONDUCTOR_NO_AUTOSTART") && message.contains("hint:"), "{message}");
    let daemon = Daemon::start(&home);
    shim.initialize();
    assert_eq!(shim.call("'later'").value(), "later");
    drop(daemon);
}

#[test]
fn a_shim_ends_with_its_client_and_answers_what_was_asked_before() {
    let daemon = Daemon::new();
    let mut shim = Shim::session(daemon.home());
    let id = shim.start_call(
        json!({ "deno_code": "await new Promise((done) => setTimeout(done, 300)); 'the last words'" }),
    );
    let status = shim.end();
    assert!(status.success(), "{status}");
    assert_eq!(shim.answer(id).value(), "the last words");
    daemon.wait_for_status("the session is gone", |status| status.sessions.is_empty());
}
