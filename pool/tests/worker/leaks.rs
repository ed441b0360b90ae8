//! Whatever happens to a worker, no process and no descriptor is left of it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conductor_pool::{Grants, WorkerSource as _, WorkerSpec};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, job, unending};

/// Set for the process that [`a_dead_daemon_leaves_no_worker`] starts; holds its cache directory.
const HELPER: &str = "CONDUCTOR_TEST_DAEMON";

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn is_alive(pid: i32) -> bool {
    // A zombie is not alive: nobody has collected it yet, but it does nothing any more.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

fn exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Descriptors of this process that belong to workers: pipes and pidfds. Other tests of this binary have some, too, so
/// the count is taken in a process of its own.
fn worker_descriptors() -> BTreeSet<String> {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| target.starts_with("pipe:") || target.contains("pidfd"))
        .collect()
}

fn children() -> usize {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("stat")).ok())
        .filter(|stat| stat.rsplit_once(") ").unwrap().1.split(' ').nth(1) == Some(&me))
        .count()
}

/// Runs one test of this binary alone in a process, so that it can count what belongs to the process.
fn alone(test: &str, variable: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_kind_of_end_gives_back_processes_and_descriptors() {
    const ALONE: &str = "CONDUCTOR_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        return alone("leaks::every_kind_of_end_gives_back_processes_and_descriptors", ALONE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new();
    // The first boot starts the threads and opens what stays open.
    runtime.block_on(bench.json("return 1;"));
    let before = worker_descriptors();
    // A template, if workers are forked.
    let of_source = children();
    assert!(of_source <= 1);
    runtime.block_on(async {
        for code in [
            "return 1;",
            "throw 1;",
            "Deno.exit(3);",
            "process.kill(process.pid, 'SIGKILL');",
            "await new Promise(() => {});",
            "for (;;) console.log('x'.repeat(1000));",
            "return 'x'.repeat(1e7);",
        ] {
            bench.run(code).await;
        }
        bench.run_job(&bench.spec(), unending("setInterval(() => {}, 1000); return 1;")).await;
        // Retired unused, dropped unused, dropped while it runs, dropped while it boots.
        bench.boot(&bench.spec()).await.unwrap().retire().await;
        drop(bench.boot(&bench.spec()).await.unwrap());
        let worker = bench.boot(&bench.spec()).await.unwrap();
        let running = worker.run(job("for (;;);"), None, CancellationToken::new());
        tokio::time::timeout(Duration::from_millis(100), running).await.err().unwrap();
        // On a machine that stands still for a moment it has booted by then.
        let boot = || bench.source.boot(std::sync::Arc::new(bench.spec()));
        while tokio::time::timeout(Duration::from_millis(5), boot()).await.is_ok() {}
    });
    wait_until("children are left", || children() == of_source);
    // Those of a worker that nobody waits for are closed a moment after it is collected.
    wait_until("descriptors are left", || worker_descriptors().is_subset(&before));
}

#[tokio::test]
async fn an_idle_worker_that_dies_is_noticed() {
    let bench = Bench::new();
    let mut worker = bench.boot(&bench.spec()).await.unwrap();
    let identity = worker.identity();
    assert!(identity.pid > 0 && identity.start_ticks > 0);
    let pid = rustix::process::Pid::from_raw(identity.pid).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), worker.died()).await.is_err());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tokio::time::timeout(Duration::from_secs(5), worker.died()).await.unwrap();
    let (report, reaped) = worker.run(job("return 1;"), None, CancellationToken::new()).await;
    reaped.await;
    assert!(matches!(report.verdict, conductor_pool::Verdict::Exited { .. }), "{:?}", report.verdict);
    assert!(!exists(identity.pid));
}

#[tokio::test]
async fn an_idle_worker_uses_no_cpu() {
    let bench = Bench::new();
    let worker = bench.boot(&bench.spec()).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(worker.identity().pid);
    let clock = nix::time::clock_getcpuclockid(pid).unwrap();
    let cpu = || Duration::from(clock.now().unwrap());
    // Right after the boot V8's helper threads finish what they have begun, for as long as the machine lets them wait.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = cpu();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let used = cpu() - before;
        if used < Duration::from_millis(5) {
            break;
        }
        assert!(Instant::now() < deadline, "{used:?} in half a second");
    }
    worker.retire().await;
}

#[tokio::test]
async fn programs_that_code_started_die_with_the_worker() {
    let bench = Bench::new();
    let spec = WorkerSpec { grants: Grants { all: true, ..Grants::default() }, ..bench.spec() };
    let code = "const child = new Deno.Command('/bin/sleep', { args: ['1000'], stdin: 'null' }).spawn(); child.unref(); return child.pid;";
    let report = bench.run_job(&spec, job(code)).await;
    let pid = i32::try_from(crate::support::json(report).as_i64().unwrap()).unwrap();
    wait_until("the program lives on", || !is_alive(pid));
}

#[test]
fn a_dead_daemon_leaves_no_worker() {
    if std::env::var_os(HELPER).is_some() {
        return be_a_daemon();
    }
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leaks::a_dead_daemon_leaves_no_worker", "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find_map(|line| line.split_once("daemon ").map(|(_, rest)| rest.to_owned())).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let [idle, busy, dir] = words[..] else { panic!("{line}") };
    let pids: [i32; 2] = [idle.parse().unwrap(), busy.parse().unwrap()];
    for pid in &pids {
        assert!(is_alive(*pid), "{pid}");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    for pid in pids {
        wait_until("a worker outlives its daemon", || !is_alive(pid));
    }
    // Its drop did not run.
    crate::support::remove(std::path::Path::new(dir));
}

/// Boots an idle worker and a busy one, prints their pids, and waits to be killed.
#[expect(clippy::print_stdout, reason = "how it talks to the test that started it")]
fn be_a_daemon() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new();
    runtime.block_on(async {
        let idle_worker = bench.boot(&bench.spec()).await.unwrap();
        let busy = bench.boot(&bench.spec()).await.unwrap();
        let (idle, busy_pid) = (idle_worker.identity().pid, busy.identity().pid);
        let (events, mut received) = tokio::sync::mpsc::channel(1);
        let code = "console.log('busy'); for (;;);";
        let running = tokio::spawn(busy.run(job(code), Some(events), CancellationToken::new()));
        // Only code that runs tells the kernel's signal from the end of the command pipe, at which an idle worker ends.
        received.recv().await.unwrap();
        println!("daemon {idle} {busy_pid} {}", bench.dir.path().display());
        let (_, reaped) = running.await.unwrap();
        reaped.await;
    });
}
