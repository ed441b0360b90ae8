//! Workers that are forked from a template, and what becomes of them and of it. That they are workers like others, the
//! other modules show: `CONDUCTOR_TEST_WORKER=fork` runs them all with forks.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::spawn::Layer;
use conductor_pool::{
    DenoSpawn, Grant, Grants, Job, SpawnConfig, Verdict, Worker, WorkerChoice, WorkerKind, WorkerSource as _,
    WorkerSpec,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, Forks, config, job, json, unending};

/// A source with a template that is ready.
struct Ready {
    bench: Bench,
    forks: Forks,
    spec: Arc<WorkerSpec>,
}

impl Ready {
    async fn new() -> Self {
        let bench = Bench::new();
        let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..bench.spec() });
        let forks = Forks::new(bench.source.clone());
        forks.source.ready(&spec).await.unwrap();
        Self { bench, forks, spec }
    }

    async fn fork(&self) -> Box<dyn Worker> {
        let worker = self.forks.source.boot(Arc::clone(&self.spec)).await.unwrap();
        assert_eq!(worker.kind(), WorkerKind::Fork, "{:?}", self.forks.source.fallback(&self.spec));
        worker
    }

    async fn json(&self, code: &str) -> Value {
        self.json_of(job(code)).await
    }

    async fn json_of(&self, job: Job) -> Value {
        let (report, reaped) = self.fork().await.run(job, None, CancellationToken::new()).await;
        reaped.await;
        assert_eq!(report.kind, WorkerKind::Fork);
        json(report)
    }
}

pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn parent(pid: i32) -> i32 {
    stat(pid).unwrap()[1].parse().unwrap()
}

/// Nothing, or a zombie.
pub(crate) fn is_dead(pid: i32) -> bool {
    stat(pid).is_none_or(|stat| stat[0] == "Z" || stat[0] == "X")
}

/// Longer than a template takes on a machine with ten times as much to do as it can.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn forks_share_nothing_that_must_differ() {
    let ready = Ready::new().await;
    // A generator of our own stands for V8's: it must be uniform, and look like what it replaces.
    let random = "
        const buckets = new Array(16).fill(0);
        for (let i = 0; i < 160_000; i++) {
            const x = Math.random();
            if (!(x >= 0 && x < 1)) return x;
            buckets[Math.floor(x * 16)]++;
        }
        return [Math.max(...buckets) < 10_600 && Math.min(...buckets) > 9_400, Math.random.name, Math.random.length,
            Object.keys(Math).length];";
    assert_eq!(ready.json(random).await, json!([true, "random", 0, 0]));

    // What one leaves behind, the next does not find.
    let leave =
        "globalThis.left = 1; Array.prototype.left = 2; setInterval(() => {}, 1); process.env.LEFT = '3';
        Deno.openSync; return typeof before;";
    ready.json_of(unending(leave)).await;
    let find =
        "return [typeof left, [].left ?? null, Deno.pid === (await import('node:process')).default.pid];";
    assert_eq!(ready.json(find).await, json!(["undefined", null, true]));

    // The library is not among what code can name, and its permission is gone.
    let library = "
        const open = Object.values(Deno[Deno.internal].core.resources()).join();
        let error = '';
        try { Deno.dlopen('/lib/x86_64-linux-gnu/libc.so.6', {}); } catch (e) { error = e.name; }
        return [open.includes('ibrary'), error, (await Deno.permissions.query({ name: 'ffi' })).state];";
    assert_eq!(ready.json(library).await, json!([false, "NotCapable", "prompt"]));
}

#[tokio::test]
async fn a_fork_ends_like_a_spawned_worker_and_its_template_lives_on() {
    let ready = Ready::new().await;
    let first = ready.fork().await;
    let template = parent(first.identity().pid);
    // Until it is collected, the template may have descriptors of it.
    first.retire().await;
    let open = || fs::read_dir(format!("/proc/{template}/fd")).unwrap().count();
    let before = open();

    let run = async |code: &str| {
        let (report, reaped) = ready.fork().await.run(job(code), None, CancellationToken::new()).await;
        reaped.await;
        assert!(stat(report.worker.pid).is_none(), "collected");
        report
    };
    for (code, expected) in [
        ("process.reallyExit(7);", (Some(7), None)),
        ("process.kill(process.pid, 'SIGKILL');", (None, Some(9))),
        ("process.kill(process.pid, 'SIGTERM');", (None, Some(15))),
    ] {
        match run(code).await.verdict {
            Verdict::Exited { code, signal, .. } => assert_eq!((code, signal), expected),
            Verdict::Settled { .. } => assert_eq!(expected, (Some(7), None), "an exit that was announced"),
            other => panic!("{code}: {other:?}"),
        }
    }
    let report = run("let x = 0; for (let i = 0; i < 2e7; i++) x += i; return 1;").await;
    assert!(report.cpu > Duration::from_millis(5), "{:?}", report.cpu);

    // Many at once, idle and busy, and the ways in which they end.
    let mut all = Vec::new();
    for _ in 0..24 {
        all.push(ready.fork().await);
    }
    let pids: Vec<i32> = all.iter().map(|worker| worker.identity().pid).collect();
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), all.len());
    drop(all.split_off(16));
    for worker in all.split_off(8) {
        worker.retire().await;
    }
    let runs =
        all.into_iter().map(|worker| worker.run(job("return Deno.pid;"), None, CancellationToken::new()));
    let runs = futures_util::future::join_all(runs).await;
    for (report, reaped) in runs {
        let pid = report.worker.pid;
        reaped.await;
        assert_eq!(json(report), pid);
    }
    until("dead forks are not collected", || pids.iter().all(|pid| stat(*pid).is_none())).await;
    assert_eq!(open(), before, "the template keeps descriptors");

    // The template goes with the source and the last of its children.
    let last = ready.fork().await;
    let Ready { bench, forks, spec: _ } = ready;
    drop(forks);
    assert_eq!(json(last.run(job("return 1;"), None, CancellationToken::new()).await.0), 1);
    until("the template outlives its use", || is_dead(template)).await;
    drop(bench);
}

#[tokio::test]
async fn a_template_that_dies_takes_its_forks_along_and_costs_no_call() {
    let ready = Ready::new().await;
    let (mut idle, busy) = (ready.fork().await, ready.fork().await);
    let template = parent(idle.identity().pid);
    let running = tokio::spawn(busy.run(
        job("await new Promise(() => setInterval(() => {}, 1e6));"),
        None,
        CancellationToken::new(),
    ));
    kill_process(Pid::from_raw(template).unwrap(), Signal::KILL).unwrap();
    idle.died().await;
    let (report, reaped) = running.await.unwrap();
    assert!(matches!(report.verdict, Verdict::Exited { .. }), "{:?}", report.verdict);
    reaped.await;
    idle.retire().await;

    let next = ready.forks.source.boot(Arc::clone(&ready.spec)).await.unwrap();
    assert_eq!(next.kind(), WorkerKind::Spawn, "until there is another template");
    assert!(ready.forks.source.fallback(&ready.spec).is_some());
    assert_eq!(json(next.run(job("return 1;"), None, CancellationToken::new()).await.0), 1);
    ready.forks.source.ready(&ready.spec).await.unwrap();
    assert_ne!(parent(ready.fork().await.identity().pid), template);
}

#[tokio::test]
async fn forks_that_keep_crashing_are_spawned_instead() {
    let ready = Ready::new().await;
    // The first only takes away the handler that Deno has for it.
    let crash = "for (;;) process.kill(process.pid, 'SIGSEGV');";
    for _ in 0..5 {
        let (report, reaped) = ready.fork().await.run(job(crash), None, CancellationToken::new()).await;
        assert!(matches!(report.verdict, Verdict::Exited { signal: Some(11), .. }), "{:?}", report.verdict);
        reaped.await;
    }
    let next = ready.forks.source.boot(Arc::clone(&ready.spec)).await.unwrap();
    assert_eq!(next.kind(), WorkerKind::Spawn);
    let why = ready.forks.source.fallback(&ready.spec).unwrap();
    assert!(why.contains("keep crashing (signal 11)"), "{why}");
}

#[tokio::test]
async fn a_template_that_hangs_costs_no_call() {
    let ready = Ready::new().await;
    let template = parent(ready.fork().await.identity().pid);
    kill_process(Pid::from_raw(template).unwrap(), Signal::STOP).unwrap();
    let next = ready.forks.source.boot(Arc::clone(&ready.spec)).await.unwrap();
    assert_eq!(next.kind(), WorkerKind::Spawn);
    let why = ready.forks.source.fallback(&ready.spec).unwrap();
    assert!(why.contains("has not answered"), "{why}");
    until("a template that is given up ends", || is_dead(template)).await;
}

/// Every limit and layer of the one, as the kernel tells it, the other has too.
#[tokio::test]
async fn a_fork_is_jailed_like_a_spawned_worker() {
    let ready = Ready::new().await;
    let (fork, spawned) =
        (ready.fork().await, ready.bench.source.boot(Arc::new(ready.bench.spec())).await.unwrap());
    let [fork, spawned] = [fork.identity().pid, spawned.identity().pid].map(|pid| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let status: Vec<String> = read("status")
            .lines()
            .filter(|line| {
                ["Cap", "NoNewPrivs", "Seccomp:", "Umask", "Uid", "Gid", "Groups"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .map(str::to_owned)
            .collect();
        let environment = read("environ");
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        (
            read("limits"),
            read("oom_score_adj"),
            status,
            environment,
            directory,
            stat(pid).unwrap()[16].clone(),
        )
    });
    assert_eq!(fork, spawned);
}

#[tokio::test]
async fn what_cannot_be_forked_safely_is_spawned_and_says_why() {
    let bench = Bench::new();
    let unjailed = |layers: &[Layer]| {
        let config = config(bench.dir.path());
        DenoSpawn::new(SpawnConfig { layers: layers.iter().copied().collect(), ..config })
    };
    let grants = |grants| WorkerSpec { grants, ..bench.spec() };
    let table = [
        (bench.source.clone(), grants(Grants { all: true, ..Grants::default() }), "grants `run`, `ffi`"),
        (
            bench.source.clone(),
            grants(Grants { run: Grant::All, ..Grants::default() }),
            "grants `run`, `ffi`",
        ),
        (unjailed(&[Layer::Seccomp]), bench.spec(), "layer limits"),
        (unjailed(&[Layer::Limits, Layer::Capabilities, Layer::Landlock]), bench.spec(), "layer seccomp"),
        (unjailed(&Layer::ALL), bench.spec(), "`hardened`"),
        (bench.source.clone(), WorkerSpec { deno: "/bin/false".into(), ..bench.spec() }, "did not start"),
    ];
    for (spawn, spec, reason) in table {
        let forks = Forks::new(spawn);
        let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..spec });
        let why = forks.source.ready(&spec).await.unwrap_err();
        assert!(why.contains(reason), "{why}");
        assert_eq!(forks.source.fallback(&spec), Some(why));
        if spec.deno == bench.spec().deno {
            let worker = forks.source.boot(spec).await.unwrap();
            assert_eq!(worker.kind(), WorkerKind::Spawn, "{reason}");
        }
    }
    let spec = Arc::new(bench.spec());
    let forks = Forks::new(bench.source.clone());
    assert_eq!(forks.source.boot(Arc::clone(&spec)).await.unwrap().kind(), WorkerKind::Spawn);
    assert_eq!(forks.source.fallback(&spec), None, "nobody asked for forks");
}

#[tokio::test]
async fn a_spec_that_chooses_by_itself_is_forked_once_that_pays() {
    let bench = Bench::new();
    let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Auto, ..bench.spec() });
    let forks = Forks::new(bench.source.clone());
    for _ in 0..16 {
        let worker = forks.source.boot(Arc::clone(&spec)).await.unwrap();
        assert_eq!(worker.kind(), WorkerKind::Spawn);
        let why = forks.source.fallback(&spec).unwrap();
        assert!(why.contains("more than 16"), "{why}");
        worker.retire().await;
    }
    forks.source.boot(Arc::clone(&spec)).await.unwrap().retire().await;
    assert_eq!(forks.source.fallback(&spec).as_deref(), Some("the template is being built"));
    forks.source.ready(&spec).await.unwrap();
    assert_eq!(forks.source.boot(spec).await.unwrap().kind(), WorkerKind::Fork);
}
