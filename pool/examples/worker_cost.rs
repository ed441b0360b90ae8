//! Measures workers: boot, one trivial run, CPU, against a bare `deno run` of an empty file with the same flags, and the
//! same boot without the jail. Then what a run costs whose memory is looked at: the same computation with the usual limit, at
//! its limit, where the looks are closest, and with a limit so far away that nobody looks.
//!
//! `cargo run -p conductor-pool --example worker_cost -- /path/to/deno [ROUNDS]`

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoSpawn, Grants, Job, RunLimits, SpawnConfig, Verdict, WorkerSource as _, WorkerSpec,
};
use nix::sys::resource::{UsageWho, getrusage};
use tokio_util::sync::CancellationToken;

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

/// Some 300 ms.
const COMPUTING: &str = "let x = 0; for (let i = 0; i < 30_000_000; i++) x = (x * 31 + i) | 0; return x;";

/// So far away that the first look comes after seconds.
const NO_LIMIT_MIB: u32 = 1 << 20;

/// Little more than a worker has.
const CLOSE_MIB: u32 = 96;

fn main() -> Result<(), Box<dyn Error>> {
    conductor_pool::launcher::run_if_asked();
    let mut args = std::env::args().skip(1);
    let deno = PathBuf::from(args.next().ok_or("usage: worker_cost DENO [ROUNDS]")?);
    let rounds = args.next().map_or(Ok(40), |rounds| rounds.parse())?;
    let dir = tempfile::tempdir()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(
        &deno,
        rounds,
        dir.path(),
    ))
}

async fn measure(deno: &Path, rounds: usize, dir: &Path) -> Result<(), Box<dyn Error>> {
    let config = SpawnConfig::new(dir.join("cache"));
    let unjailed = DenoSpawn::new(SpawnConfig { layers: BTreeSet::new(), ..config.clone() });
    let source = DenoSpawn::new(config);
    let spec = Arc::new(WorkerSpec {
        deno: deno.canonicalize()?,
        workspace: dir.to_owned(),
        grants: Grants::default(),
        protected: BTreeSet::new(),
        heap_mib: 256,
        max_memory_mib: 704,
        max_wall: Duration::from_secs(3600),
        env: BTreeMap::new(),
        worker: Default::default(),
        packages: None,
    });
    let started = Instant::now();
    source.boot(Arc::clone(&spec)).await?.retire().await;
    println!("first boot, with the preparation of DENO_DIR: {:.1} ms", ms(started.elapsed()));

    let empty = dir.join("empty.js");
    std::fs::write(&empty, "")?;
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let mut add = |what, duration| samples.entry(what).or_default().push(ms(duration));
        let (cpu, started) = (children_cpu()?, Instant::now());
        bare(deno, &empty, &dir.join("bare"))?;
        add("bare deno run, wall", started.elapsed());
        add("bare deno run, CPU", children_cpu()? - cpu);

        let (cpu, started) = (children_cpu()?, Instant::now());
        let worker = unjailed.boot(Arc::clone(&spec)).await?;
        add("boot without jail, wall", started.elapsed());
        worker.retire().await;
        add("boot without jail, CPU", children_cpu()? - cpu);

        let (cpu, started) = (children_cpu()?, Instant::now());
        let worker = source.boot(Arc::clone(&spec)).await?;
        add("boot with jail, wall", started.elapsed());
        worker.retire().await;
        add("boot with jail, CPU", children_cpu()? - cpu);

        let (cpu, started) = (children_cpu()?, Instant::now());
        let worker = source.boot(Arc::clone(&spec)).await?;
        add("boot to ready, wall", started.elapsed());
        // A call comes some time after the boot, when V8's helper threads have finished theirs.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        let (report, reaped) = worker.run(job("return 1;"), None, CancellationToken::new()).await;
        add("run of `return 1`, wall", started.elapsed());
        add("run of `return 1`, CPU", report.cpu);
        let started = Instant::now();
        reaped.await;
        add("report to reaped, wall", started.elapsed());
        add("worker's whole life, CPU", children_cpu()? - cpu);
    }
    tell(&mut samples);
    looks(&source, &spec, rounds).await
}

/// One after the other, so that whatever else the machine does meets all of them.
async fn looks(source: &DenoSpawn, spec: &WorkerSpec, rounds: usize) -> Result<(), Box<dyn Error>> {
    let limits = [
        ("never looked at", NO_LIMIT_MIB),
        ("usual limit", spec.max_memory_mib),
        ("at its limit", CLOSE_MIB),
    ];
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (what, max_memory_mib) in limits {
            let worker = source.boot(Arc::new(WorkerSpec { max_memory_mib, ..spec.clone() })).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let started = Instant::now();
            let (report, reaped) = worker.run(job(COMPUTING), None, CancellationToken::new()).await;
            samples.entry(what).or_default().push(ms(started.elapsed()));
            if !matches!(report.verdict, Verdict::Settled { .. }) {
                return Err(format!("{what}: {:?}", report.verdict).into());
            }
            reaped.await;
        }
    }
    println!("a computation:");
    tell(&mut samples);
    let middle = |what: &str| samples[what][(rounds - 1) / 2];
    for (what, _) in &limits[1..] {
        println!("{what}: {:.3} of never", middle(what) / middle("never looked at"));
    }
    Ok(())
}

/// Sorts the samples.
fn tell(samples: &mut BTreeMap<&str, Vec<f64>>) {
    for (what, samples) in samples {
        samples.sort_by(f64::total_cmp);
        let at = |share: usize| samples[(samples.len() - 1) * share / 100];
        println!("{what:26} p50 {:6.2}  p90 {:6.2}  min {:6.2} ms", at(50), at(90), at(0));
    }
}

fn bare(deno: &Path, script: &Path, deno_dir: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(deno)
        .args(BARE)
        .arg(script)
        .env_clear()
        .env("DENO_DIR", deno_dir)
        .env("DENO_NO_UPDATE_CHECK", "1")
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", deno.display()).into()) }
}

fn job(code: &str) -> Job {
    Job {
        execution_id: String::new(),
        code: code.to_owned(),
        api_name: "api".to_owned(),
        globals: serde_json::Map::new(),
        imports: Default::default(),
        upstreams: None,
        permissions: serde_json::Value::Null,
        host: None,
        limits: RunLimits {
            wall: Duration::from_secs(10),
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

/// CPU time of all children that have ended and been waited for.
fn children_cpu() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros =
        |time: nix::sys::time::TimeVal| u64::try_from(nix::sys::time::TimeValLike::num_microseconds(&time));
    Ok(Duration::from_micros(micros(usage.user_time())? + micros(usage.system_time())?))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
