//! Many sessions at once: every call gets its own answer, from a process that nobody used before.

use std::collections::HashSet;

use conductor_tests::{Daemon, Home, Shim};
use serde_json::{Value, json};

const SESSIONS: usize = 20;
const CALLS: usize = 10;

#[test]
fn two_hundred_calls_of_twenty_sessions_get_two_hundred_right_answers() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let sessions: Vec<Shim> = (0..SESSIONS).map(|_| Shim::session(&home)).collect();
    let mut calls = Vec::new();
    for call in 0..CALLS {
        for (session, shim) in sessions.iter().enumerate() {
            let nonce = format!("nonce-{session}-{call}");
            let code = "await new Promise((done) => setTimeout(done, 20));\nconsole.log(nonce);\n({ nonce, pid: Deno.pid })";
            let id = shim.start_call(json!({ "deno_code": code, "globals": { "nonce": nonce } }));
            calls.push((shim, id, nonce));
        }
    }
    let mut pids = Vec::new();
    for (shim, id, nonce) in &calls {
        let answer = shim.answer(*id);
        assert_eq!(answer.value()["nonce"], **nonce);
        assert_eq!(answer.stdout(), format!("{nonce}\n"));
        pids.push(answer.value()["pid"].as_i64().expect("a pid"));
    }
    for (shim, id, nonce) in &calls {
        assert_eq!(shim.answers(*id), 1, "answers to {nonce}");
    }
    let status = daemon.wait_until_quiet(SESSIONS);
    assert_eq!((status.executions.started, status.executions.succeeded), (200, 200));

    let ended = home.logged("execution ended");
    assert_eq!(ended.len(), SESSIONS * CALLS, "each execution is logged once");
    let number = |line: &Value, name: &str| line[name].as_i64().expect("a number");
    let workers: HashSet<_> =
        ended.iter().map(|line| (number(line, "pid"), number(line, "start_ticks"))).collect();
    assert_eq!(workers.len(), SESSIONS * CALLS, "no worker was used twice");
    let logged: HashSet<_> = workers.iter().map(|(pid, _)| *pid).collect();
    assert_eq!(
        logged,
        pids.into_iter().collect::<HashSet<_>>(),
        "the log names the processes that ran the code"
    );
}
