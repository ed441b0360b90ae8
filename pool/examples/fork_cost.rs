//! Measures forked workers against spawned ones and against a bare `deno run`, in turn, in one run: time, calls per second
//! and CPU time of all processes for one trivial call in a fresh worker each.
//!
//! `cargo run --release -p conductor-pool --example fork_cost -- /path/to/deno [SECONDS]`

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoSpawn, DenoWorkers, Grants, Job, RunLimits, SpawnConfig, WorkerChoice, WorkerKind, WorkerSource as _,
    WorkerSpec,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What each call of a round does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Worker(WorkerKind),
    /// `deno run` of a file with a worker's flags.
    Bare,
}

const WAYS: [(&str, Way); 3] = [
    ("fork", Way::Worker(WorkerKind::Fork)),
    ("spawn", Way::Worker(WorkerKind::Spawn)),
    ("deno run", Way::Bare),
];
const CALLERS: [usize; 3] = [1, 4, 16];

/// Flags of a worker that a bare run needs as well, to do the same work.
const BARE: [&str; 10] = [
    "run",
    "--no-prompt",
    "--no-config",
    "--no-lock",
    "--no-remote",
    "--no-npm",
    "--cached-only",
    "--node-modules-dir=none",
    "--no-check",
    "--v8-flags=--max-old-space-size=256",
];

fn main() -> Result<(), Box<dyn Error>> {
    conductor_pool::launcher::run_if_asked();
    let mut args = std::env::args().skip(1);
    let deno = PathBuf::from(args.next().ok_or("usage: fork_cost DENO [SECONDS]")?).canonicalize()?;
    let seconds = args.next().map_or(Ok(3), |seconds| seconds.parse())?;
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&deno, Duration::from_secs(seconds), dir.path()))
}

async fn measure(deno: &Path, time: Duration, dir: &Path) -> Result<(), Box<dyn Error>> {
    let (source, templates) = DenoWorkers::new(DenoSpawn::new(SpawnConfig::new(dir.join("cache"))));
    let templates = tokio::spawn(templates.run());
    let script = dir.join("trivial.js");
    std::fs::write(&script, "const x = 41; console.log(x + 1);")?;
    let bench = Arc::new(Bench { source, deno: deno.to_owned(), script, dir: dir.to_owned() });
    bench.source.ready(&bench.spec(WorkerKind::Fork)).await?;
    println!(
        "| callers | way | p50 ms | p90 ms | p99 ms | calls/s | CPU ms per call |\n|---|---|---|---|---|---|---|"
    );
    for callers in CALLERS {
        for (name, way) in WAYS {
            let before = all_cpu()?;
            let started = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..callers {
                tasks.spawn(Arc::clone(&bench).call_until(way, started + time));
            }
            let mut times: Vec<f64> = Vec::new();
            while let Some(done) = tasks.join_next().await {
                times.extend(done?);
            }
            let (elapsed, cpu) = (started.elapsed(), all_cpu()?.saturating_sub(before));
            times.sort_by(f64::total_cmp);
            let at = |share: usize| times[(times.len() - 1) * share / 100];
            let calls = times.len() as f64;
            println!(
                "| {callers} | {name} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} |",
                at(50),
                at(90),
                at(99),
                calls / elapsed.as_secs_f64(),
                cpu.as_secs_f64() * 1e3 / calls
            );
        }
    }
    templates.abort();
    Ok(())
}

struct Bench {
    source: DenoWorkers,
    deno: PathBuf,
    script: PathBuf,
    dir: PathBuf,
}

impl Bench {
    fn spec(&self, kind: WorkerKind) -> Arc<WorkerSpec> {
        Arc::new(WorkerSpec {
            deno: self.deno.clone(),
            workspace: self.dir.clone(),
            grants: Grants::default(),
            protected: BTreeSet::new(),
            heap_mib: 256,
            max_memory_mib: 704,
            max_wall: Duration::from_secs(3600),
            env: BTreeMap::new(),
            worker: match kind {
                WorkerKind::Fork => WorkerChoice::Fork,
                WorkerKind::Spawn => WorkerChoice::Spawn,
            },
            packages: None,
        })
    }

    /// Milliseconds of each call.
    async fn call_until(self: Arc<Self>, way: Way, end: Instant) -> Vec<f64> {
        let mut times = Vec::new();
        while Instant::now() < end {
            let started = Instant::now();
            match way {
                Way::Worker(kind) => self.run(kind).await,
                Way::Bare => self.run_bare().await,
            }
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times
    }

    /// From nothing to nothing: made, used, reaped.
    async fn run(&self, kind: WorkerKind) {
        let worker = self.source.boot(self.spec(kind)).await.expect("a worker boots");
        assert_eq!(worker.kind(), kind, "{:?}", self.source.fallback(&self.spec(kind)));
        let (_, reaped) = worker.run(trivial(), None, CancellationToken::new()).await;
        reaped.await;
    }

    async fn run_bare(&self) {
        let (deno, script, dir) = (self.deno.clone(), self.script.clone(), self.dir.join("bare"));
        let status = tokio::task::spawn_blocking(move || {
            std::process::Command::new(deno)
                .args(BARE)
                .arg(script)
                .env_clear()
                .env("DENO_DIR", dir)
                .env("DENO_NO_UPDATE_CHECK", "1")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
        });
        assert!(status.await.expect("it does not panic").expect("deno starts").success());
    }
}

/// CPU time of this process, of its children that were waited for, and of the templates, which are not.
fn all_cpu() -> Result<Duration, Box<dyn Error>> {
    let mut sum = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        sum += Duration::from_micros(u64::try_from(micros)?);
    }
    Ok(sum + templates_cpu()?)
}

/// Own and collected children's CPU time of this process's living children, in ticks of ten milliseconds.
fn templates_cpu() -> Result<Duration, Box<dyn Error>> {
    let me = std::process::id().to_string();
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        if fields.get(1) == Some(&me.as_str()) {
            ticks += fields[11..15].iter().map(|field| field.parse::<u64>()).sum::<Result<u64, _>>()?;
        }
    }
    Ok(Duration::from_millis(ticks * 10))
}

fn trivial() -> Job {
    Job {
        execution_id: String::new(),
        code: "const x = 41; console.log(x + 1); return 1;".to_owned(),
        api_name: "api".to_owned(),
        globals: serde_json::Map::new(),
        imports: Default::default(),
        upstreams: None,
        permissions: serde_json::Value::Null,
        host: None,
        limits: RunLimits {
            wall: Duration::from_secs(30),
            compute: Duration::from_secs(60),
            linger: Duration::from_secs(1),
            max_output_bytes: 1 << 20,
            max_result_bytes: 1 << 20,
            max_media_bytes: 1 << 16,
            max_calls: 10_000,
            max_calls_in_flight: 64,
        },
    }
}
