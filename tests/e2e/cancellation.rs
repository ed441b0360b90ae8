//! A call that nobody wants any more: its process ends and its place is free.

use std::sync::Arc;
use std::time::Duration;

use conductor_tests::{DEADLINE, Daemon, Home, Process, Shim, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How soon the process of a cancelled call is gone.
const END_TIME: Duration = Duration::from_secs(2);

/// A daemon with a single place for workers.
fn one_place() -> (Arc<Home>, Daemon) {
    let home = Home::new();
    home.configure("[pool]\nmax-workers = 1\nidle-per-profile = 1\n");
    let daemon = Daemon::start(&home);
    (home, daemon)
}

/// Starts a call that tells its pid and then runs for ever; gives its id and its process.
fn start_endless(shim: &Shim) -> (u64, Process) {
    let token = format!("token-{}", shim.messages().len());
    let id = shim.request(
        "tools/call",
        json!({
            "name": "run_deno_code",
            "arguments": { "deno_code": "console.log(Deno.pid); setInterval(() => {}, 1000); await new Promise(() => {})" },
            "_meta": { "progressToken": token },
        }),
    );
    let told =
        shim.wait_for_message("the pid", DEADLINE, |message| message["params"]["progressToken"] == token);
    let pid = told["params"]["message"].as_str().expect("a text").trim().parse().expect("a pid");
    (id, Process::get(pid).expect("the worker runs"))
}

#[track_caller]
fn is_gone(process: &Process) {
    wait_for("the worker is gone", END_TIME, || match Process::get(process.pid) {
        Some(now) if now.start_ticks == process.start_ticks => Err(format!("{now:?}")),
        _ => Ok(()),
    });
}

fn cancel(shim: &Shim, id: u64) {
    shim.notify("notifications/cancelled", json!({ "requestId": id, "reason": "not needed" }));
}

#[test]
fn a_cancelled_call_is_killed_and_frees_its_place() {
    let (_home, daemon) = one_place();
    let shim = Shim::session(daemon.home());
    let (id, worker) = start_endless(&shim);
    cancel(&shim, id);
    is_gone(&worker);
    assert_eq!(shim.call("'the place is free'").value(), "the place is free");
    assert!(shim.answers(id) <= 1);
    daemon.wait_for_status("it is counted, and over", |status| {
        status.executions.by_error.get("cancelled") == Some(&1) && status.sessions[0].in_flight == 0
    });
    daemon.wait_until_quiet(1);
}

#[test]
fn a_cancelled_call_that_still_waits_never_runs() {
    let (home, daemon) = one_place();
    let mark = home.workspace().join("mark");
    let shim = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={}", home.workspace().display()));
    });
    let (running, worker) = start_endless(&shim);
    let waiting = shim
        .start_call(json!({ "deno_code": "Deno.writeTextFileSync(file, '')", "globals": { "file": mark } }));
    let queued = |status: &conductor_protocol::status::StatusReport| {
        status.pool.profiles.iter().map(|profile| profile.queued).sum::<u64>()
    };
    daemon.wait_for_status("the second call waits", |status| queued(status) == 1);
    cancel(&shim, waiting);
    daemon.wait_for_status("nobody waits", |status| queued(status) == 0);
    cancel(&shim, running);
    is_gone(&worker);
    assert_eq!(shim.call("'next'").value(), "next");
    assert!(!mark.exists(), "the cancelled call ran");
}

#[test]
fn a_client_that_goes_away_takes_its_runs_with_it() {
    let (home, daemon) = one_place();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let shim = Shim::session(&home);
        let (_, worker) = start_endless(&shim);
        shim.signal(signal);
        is_gone(&worker);
        daemon.wait_for_status("the session is gone", |status| status.sessions.is_empty());
    }
    let shim = Shim::session(&home);
    assert_eq!(shim.call("'the place is free'").value(), "the place is free");
}

#[test]
fn cancelling_what_is_unknown_or_answered_does_nothing() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let id = shim.start_call(json!({ "deno_code": "1" }));
    assert_eq!(shim.answer(id).value(), 1);
    for unknown in [json!(id), json!(123_456), json!("no such"), Value::Null] {
        shim.notify("notifications/cancelled", json!({ "requestId": unknown }));
    }
    assert_eq!(shim.call("2").value(), 2);
}
