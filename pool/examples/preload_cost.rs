//! What preloaded packages save in the call and cost the worker, for forked and for spawned workers, in turn in one run:
//! the import in the call, the whole call from nothing to nothing, and the memory that an idle worker has for itself.
//!
//! `cargo run --release -p conductor-pool --example preload_cost -- /path/to/deno ROUNDS npm:axios@^1 npm:zod@^4 …`

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoSpawn, DenoWorkers, Grants, Job, Packages, RunLimits, RunReport, Settled, SpawnConfig, Verdict,
    WorkerChoice, WorkerSource as _, WorkerSpec,
};
use tokio_util::sync::CancellationToken;

/// Time for one package's import before its layer becomes read-only.
const REHEARSAL: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    conductor_pool::launcher::run_if_asked();
    let mut args = std::env::args().skip(1);
    let usage = "usage: preload_cost DENO ROUNDS PACKAGE...";
    let deno = PathBuf::from(args.next().ok_or(usage)?).canonicalize()?;
    let rounds: usize = args.next().ok_or(usage)?.parse()?;
    let packages: Vec<String> = args.collect();
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&deno, rounds, &packages, dir.path()))
}

async fn measure(
    deno: &Path,
    rounds: usize,
    specifiers: &[String],
    dir: &Path,
) -> Result<(), Box<dyn Error>> {
    let spawn = DenoSpawn::new(SpawnConfig {
        boot_timeout: Duration::from_secs(60),
        ..SpawnConfig::new(dir.join("cache"))
    });
    let layer = fetch(deno, specifiers, &dir.join("layer"))?;
    spawn.rehearse(deno, &layer, specifiers, REHEARSAL).await?;
    let (source, templates) = DenoWorkers::new(spawn);
    let templates = tokio::spawn(templates.run());
    let ways = [WorkerChoice::Fork, WorkerChoice::Spawn].into_iter().flat_map(|worker| {
        [true, false].map(|preloaded| {
            let preload = if preloaded { specifiers.to_vec() } else { Vec::new() };
            let packages = Some(Packages { preload, ..layer.clone() });
            Way { preloaded, spec: Arc::new(spec(deno, dir, worker, packages)) }
        })
    });
    let ways: Vec<Way> = ways.collect();
    for way in ways.iter().filter(|way| way.spec.worker == WorkerChoice::Fork) {
        source.ready(&way.spec).await?;
        for (package, why) in source.left_out(&way.spec) {
            println!("not in the template: {package}: {why}");
        }
    }
    let mut seen: BTreeMap<(usize, usize), Vec<Call>> = BTreeMap::new();
    for _ in 0..rounds {
        for (number, way) in ways.iter().enumerate() {
            for (package, specifier) in specifiers.iter().enumerate() {
                seen.entry((number, package)).or_default().push(call(&source, way, specifier).await);
            }
        }
    }
    println!(
        "| worker | preloaded | package | import in the call, ms | boot, ms | call in all, ms | own memory, MiB |\n|---|---|---|--:|--:|--:|--:|"
    );
    for ((number, package), calls) in seen {
        let Way { preloaded, spec } = &ways[number];
        let median = |of: fn(&Call) -> f64| {
            let mut all: Vec<f64> = calls.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        println!(
            "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.1} |",
            spec.worker.name(),
            if *preloaded { "yes" } else { "no" },
            specifiers[package],
            median(|call| call.import),
            median(|call| call.boot),
            median(|call| call.all),
            median(|call| call.memory),
        );
    }
    templates.abort();
    Ok(())
}

struct Way {
    preloaded: bool,
    spec: Arc<WorkerSpec>,
}

struct Call {
    import: f64,
    boot: f64,
    all: f64,
    memory: f64,
}

/// From nothing to nothing: made, used, reaped.
async fn call(source: &DenoWorkers, way: &Way, specifier: &str) -> Call {
    let started = Instant::now();
    let worker = source.boot(Arc::clone(&way.spec)).await.expect("a worker boots");
    let boot = millis(started);
    assert_eq!(worker.kind().name(), way.spec.worker.name(), "{:?}", source.fallback(&way.spec));
    let memory = own_memory(worker.identity().pid);
    let looked = Instant::now();
    let (report, reaped) = worker.run(job(specifier), None, CancellationToken::new()).await;
    reaped.await;
    Call { import: value(&report), boot, all: boot + millis(looked), memory }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn value(report: &RunReport) -> f64 {
    match &report.verdict {
        Verdict::Settled { settled: Settled::Json { value }, .. } => value.as_f64().expect("a time"),
        other => panic!("{other:?}"),
    }
}

/// MiB that the process shares with no other.
fn own_memory(pid: i32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

fn fetch(deno: &Path, specifiers: &[String], dir: &Path) -> Result<Packages, Box<dyn Error>> {
    fs::create_dir(dir)?;
    let entry = dir.join("entry.js");
    fs::write(&entry, specifiers.iter().map(|it| format!("import {it:?};\n")).collect::<String>())?;
    let (deno_dir, lock) = (dir.join("deno"), dir.join("deno.lock"));
    let status = Command::new(deno)
        .args(["cache", "--quiet", "--no-config", "--node-modules-dir=none"])
        .arg(format!("--lock={}", lock.display()))
        .arg(entry)
        .env("DENO_DIR", &deno_dir)
        .status()?;
    if !status.success() {
        return Err(format!("the packages cannot be fetched: {status}").into());
    }
    let env = Default::default();
    Ok(Packages { deno_dir, lock, env, allow_import: None, spellings: BTreeMap::new(), preload: Vec::new() })
}

fn spec(deno: &Path, dir: &Path, worker: WorkerChoice, packages: Option<Packages>) -> WorkerSpec {
    WorkerSpec {
        deno: deno.to_owned(),
        workspace: dir.to_owned(),
        grants: Grants::default(),
        protected: BTreeSet::new(),
        heap_mib: 256,
        max_memory_mib: 704,
        max_wall: Duration::from_secs(3600),
        env: BTreeMap::new(),
        worker,
        packages,
    }
}

fn job(specifier: &str) -> Job {
    Job {
        execution_id: String::new(),
        code: format!(
            "const start = performance.now(); await api.import({specifier:?}); return performance.now() - start;"
        ),
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
