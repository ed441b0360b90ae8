//! The kernel has no memory for a process that the daemon, or a template, wants to start: whoever needed it is told so, and as
//! soon as there is memory again the same daemon starts it. Workers are among the rows of [`crate::shortage`].

use std::sync::Arc;
use std::time::Duration;

use conductor_tests::kernel::{Asked, By, Denial};
use conductor_tests::{Answer, Daemon, Home, Kernel, Shim, wait_for};
use nix::libc;

use crate::bed;

/// How soon calls succeed again: a server that failed is left alone for some seconds, packages are fetched from a registry.
const RECOVERY: Duration = Duration::from_secs(60);

/// Time for a template: ten seconds until its idle threads have ended, and what a busy machine adds.
const TEMPLATE: Duration = Duration::from_secs(90);

fn below_a_kernel(home: &Arc<Home>) -> (Kernel, Daemon) {
    Kernel::around(|| Daemon::start(home))
}

fn no_process(by: By) -> Denial {
    Denial { asked: Asked::Fork, by, errno: libc::ENOMEM }
}

/// `code` fails with the kernel's words and a hint while the daemon can start nothing, and succeeds afterwards.
fn is_told_and_recovers(kernel: &Kernel, daemon: &Daemon, shim: &Shim, code: &str, value: &str) {
    // A worker waits for it.
    daemon.wait_for_status("an idle worker", |status| status.pool.profiles.iter().any(|it| it.idle > 0));
    kernel.deny(no_process(By::Process(daemon.pid())));
    let answer = shim.call(code);
    kernel.allow();
    let error = answer.error().to_string();
    assert!(error.contains("Cannot allocate memory") && error.contains("hint"), "{error}");
    let is_right = |answer: &Answer| answer.structured()["status"] == "success" && *answer.value() == value;
    wait_for("what could not be started is", RECOVERY, || {
        let answer = shim.call(code);
        if is_right(&answer) { Ok(()) } else { Err(answer.structured().to_string()) }
    });
}

#[test]
fn a_server_that_there_is_no_memory_for_is_started_later() {
    let home = bed::home(2);
    let (kernel, daemon) = below_a_kernel(&home);
    let shim = bed::session(&home, |_| {});
    assert_eq!(shim.call("1").value(), 1);
    is_told_and_recovers(&kernel, &daemon, &shim, "await mcp.calm.echo({ message: 'served' })", "served");
}

#[test]
fn packages_that_there_is_no_memory_to_fetch_are_fetched_later() {
    let home = Home::new();
    let (kernel, daemon) = below_a_kernel(&home);
    let shim = Shim::session_with(&home, |command| {
        // Nothing is fetched before a call asks.
        command.env("MCP_CONDUCTOR_ALLOWED_PACKAGES", "all");
    });
    assert_eq!(shim.call("1").value(), 1);
    is_told_and_recovers(&kernel, &daemon, &shim, "import ms from 'npm:ms@2.1.3'; ms(1000)", "1s");
}

/// The template cannot fork; the daemon can spawn, so nobody notices.
#[test]
fn a_template_that_there_is_no_memory_to_fork_costs_no_call() {
    let home = Home::new();
    home.configure("[pool]\nidle-per-profile = 1\n[profiles.default]\nworker = \"fork\"\n");
    let (kernel, daemon) = below_a_kernel(&home);
    let shim = Shim::session(&home);
    let profile = || daemon.status().pool.profiles.into_iter().next().expect("there is one");
    wait_for("workers are forked", TEMPLATE, || {
        let seen = profile();
        if seen.fallback.is_none() {
            // Idle workers that were spawned are used up first.
            assert_eq!(shim.call("1").value(), 1);
        }
        if seen.forked >= 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    kernel.deny(no_process(By::AnyBut(daemon.pid())));
    for n in 0..4 {
        assert_eq!(shim.call(&format!("{n}")).value(), n);
    }
    assert!(kernel.denied() > 0, "the template was not asked to fork");
    let fallback = profile().fallback.expect("workers are spawned for now");
    kernel.allow();
    assert!(fallback.contains("Cannot allocate memory"), "{fallback}");
    assert_eq!(shim.call("7").value(), 7);
}
