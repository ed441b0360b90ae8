//! Many forks through a pool while everything fails that can: runs of every kind, callers that go away, workers and templates
//! that are killed and stopped. Each call gets one answer, its own, and in the end nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoWorkers, LeaseError, PoolConfig, PoolHandle, Verdict, WorkerChoice, WorkerKind, WorkerSource as _,
    WorkerSpec, pool,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, Forks, job, json};

const CALLERS: u64 = 6;
/// Between two kills of the template: rarer than what makes workers spawned for a while.
const TEMPLATE_DIES: Duration = Duration::from_secs(180);
/// Between two workers that are struck from outside.
const WORKER_DIES: Duration = Duration::from_millis(400);
/// Forks that one template may have at the most: ten thousand, and those until its successor is ready.
const ROTATION: u64 = 20_000;
/// Bytes that this process may have grown by after its first thousand forks.
const GROWTH: u64 = 24 << 20;

/// Between two lines that say how far it is.
const TOLD: Duration = Duration::from_secs(30);

/// A small generator: what is drawn follows from its seed alone (SplitMix64 by S. Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    forked: AtomicU64,
    /// By what they came to.
    right: AtomicU64,
    failed: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; see docs/TESTING.md"]
async fn many_forks_under_faults_leave_nothing_behind() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (target, seed) = (number("CONDUCTOR_FORK_SOAK", 20_000), number("CONDUCTOR_FORK_SEED", 1));
    println!("{target} forks, CONDUCTOR_FORK_SEED={seed}");
    let bench = Bench::new();
    let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..bench.spec() });
    let forks = Forks::new(bench.source.clone());
    let descriptors = open_descriptors("self");
    forks.source.ready(&spec).await.unwrap();
    let config = PoolConfig { boot_timeout: Duration::from_secs(60), ..PoolConfig::for_cpus(2) };
    let (handle, task) = pool(config, Arc::new(forks.source.clone())).unwrap();
    let pool = tokio::spawn(task.run());

    let counts = Arc::new(Counts::default());
    let templates = Arc::new(Mutex::new(BTreeSet::new()));
    let faults =
        tokio::spawn(strike(Random(seed), forks.source.clone(), Arc::clone(&spec), Arc::clone(&templates)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (handle, spec, counts) = (handle.clone(), Arc::clone(&spec), Arc::clone(&counts));
        callers.spawn(async move {
            let mut random = Random(seed ^ (caller + 1) << 32);
            while counts.forked.load(Ordering::Relaxed) < target {
                call(&handle, &spec, caller, &counts, &mut random).await;
            }
        });
    }
    let started = Instant::now();
    let progress = tokio::spawn(tell_progress(Arc::clone(&counts), forks.source.clone(), Arc::clone(&spec)));
    let early = tokio::time::timeout(Duration::from_secs(3600), async {
        while counts.forked.load(Ordering::Relaxed) < target.min(1000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        own_memory()
    });
    let early = early.await.unwrap();
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    faults.abort();
    progress.abort();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (calls, forked) = (of(&counts.calls), of(&counts.forked));
    let (right, failed) = (of(&counts.right), of(&counts.failed));
    let late = own_memory();
    println!(
        "{calls} calls in {:.0?}: {right} right, {failed} failed as they had to or were struck, {forked} forked; \
         memory {} then {} KiB",
        started.elapsed(),
        early >> 10,
        late >> 10
    );
    assert_eq!(calls, right + failed, "every call has one answer");
    assert!(right > calls / 3 && forked >= target, "{calls} calls, {right} right, {forked} forked");
    let templates = templates.lock().unwrap().len() as u64;
    assert!(templates > forked / ROTATION, "{templates} templates for {forked} forks");
    assert!(late < early + GROWTH, "memory has grown from {early} to {late}");

    assert!(children().len() <= 1 + PoolConfig::for_cpus(2).max_workers);
    handle.drain(Duration::from_secs(10)).await.unwrap();
    drop(handle);
    pool.await.unwrap();
    drop(forks);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !(children().is_empty() && open_descriptors("self") <= descriptors) {
        let open = open_descriptors("self");
        assert!(
            Instant::now() < deadline,
            "left: {:?}, {open} descriptors, before {descriptors}",
            children()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::print_stdout, reason = "whoever starts a long test wants to see how far it is")]
async fn tell_progress(counts: Arc<Counts>, source: DenoWorkers, spec: Arc<WorkerSpec>) {
    loop {
        tokio::time::sleep(TOLD).await;
        let forked = counts.forked.load(Ordering::Relaxed);
        let why = source.fallback(&spec).map(|why| format!("; not now: {why}")).unwrap_or_default();
        println!("{forked} forked, memory {} KiB{why}", own_memory() >> 10);
    }
}

/// One call of a random kind, and what must come of it.
async fn call(pool: &PoolHandle, spec: &Arc<WorkerSpec>, caller: u64, counts: &Counts, random: &mut Random) {
    counts.calls.fetch_add(1, Ordering::Relaxed);
    let failed = || counts.failed.fetch_add(1, Ordering::Relaxed);
    let lease = match pool.lease(Arc::clone(spec), caller, None).await {
        Ok(lease) => lease,
        Err(LeaseError::Busy { .. } | LeaseError::Broken { .. }) => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            failed();
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let nonce = random.below(1 << 40);
    let kind = random.below(100);
    let code = match kind {
        0..60 => format!("return {nonce};"),
        60..70 => format!("await new Promise((f) => setTimeout(f, 3)); return {nonce};"),
        70..76 => format!(
            "const a = []; for (let i = 0; i < 1e5; i++) a.push({{ i }}); return {nonce} + 0 * a.length;"
        ),
        76..82 => "throw new Error('x');".to_owned(),
        82..88 => "process.reallyExit(3);".to_owned(),
        88..92 => "process.kill(process.pid, 'SIGKILL'); for (;;);".to_owned(),
        92..94 => {
            drop(lease);
            failed();
            return;
        }
        _ => "for (;;);".to_owned(),
    };
    let mut job = job(&code);
    job.limits.wall = if kind < 94 { Duration::from_secs(5) } else { Duration::from_millis(20) };
    let cancel = CancellationToken::new();
    let run = lease.run(job, None, cancel.clone());
    if kind >= 98 {
        // The caller goes away.
        tokio::time::timeout(Duration::from_millis(5), run).await.err();
        failed();
        return;
    }
    if kind == 97 {
        cancel.cancel();
    }
    let report = run.await;
    counts.forked.fetch_add(u64::from(report.kind == WorkerKind::Fork), Ordering::Relaxed);
    match &report.verdict {
        Verdict::Settled { .. } if kind < 76 => {
            assert_eq!(json(report), json!(nonce), "another call's answer");
            counts.right.fetch_add(1, Ordering::Relaxed);
        }
        // What was struck ends in any of these ways, and so do the runs that end themselves.
        Verdict::Settled { .. } | Verdict::Exited { .. } | Verdict::Timeout | Verdict::Cancelled => {
            failed();
        }
        other => panic!("{code}: {other:?}"),
    }
}

/// Kills and stops workers at random, and now and then their template.
async fn strike(
    mut random: Random,
    source: DenoWorkers,
    spec: Arc<WorkerSpec>,
    templates: Arc<Mutex<BTreeSet<i32>>>,
) {
    let mut template_dies = Instant::now() + TEMPLATE_DIES;
    loop {
        tokio::time::sleep(WORKER_DIES).await;
        // Not one that is being tried: it would never pass.
        let Some(serving) = source.templates(&spec).and_then(|status| status.serving) else { continue };
        let (template, forks) = (serving.pid, children_of(serving.pid));
        if forks.is_empty() {
            continue;
        }
        templates.lock().unwrap().insert(template);
        let signal = |pid: i32, signal| {
            // It may have ended in between.
            Pid::from_raw(pid).map(|pid| kill_process(pid, signal).ok());
        };
        if Instant::now() > template_dies {
            template_dies = Instant::now() + TEMPLATE_DIES;
            signal(template, Signal::KILL);
            continue;
        }
        let index = usize::try_from(random.below(forks.len() as u64)).expect("few");
        let signals = [Signal::KILL, Signal::KILL, Signal::TERM, Signal::STOP];
        signal(forks[index], signals[usize::try_from(random.below(4)).expect("few")]);
    }
}

fn open_descriptors(process: &str) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Memory of this process that it shares with no file, in bytes.
fn own_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn children() -> Vec<i32> {
    children_of(i32::try_from(std::process::id()).unwrap())
}

fn children_of(parent: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}
