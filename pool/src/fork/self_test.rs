//! Whether what a template forks is a worker, with this spec's grants and packages: before the first job gets one.
//!
//! Two children run one script, side by side. It uses what a fork is most likely to break: timers, threads, the thread
//! pool, WebAssembly, the garbage collector, modules of Node. What must differ between the children does, and what they must
//! not have, as the kernel tells, they do not have. A third imports the packages that the spec imports ahead of time, beside
//! a spawned worker.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::template::{ForkError, Template};
use crate::job::{Job, RunLimits, RunReport, Settled, Verdict};
use crate::source::{Worker, WorkerSource as _};
use crate::spawn::DenoSpawn;
use crate::spec::WorkerSpec;
use crate::worker::DenoWorker;

/// A run of the script takes some fifty milliseconds, on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(60);

const SCRIPT: &str = include_str!("self_test.js");

/// Which of some packages can be imported.
const IMPORT: &str = "
    const imported = [];
    for (const specifier of specifiers) {
        try {
            await api.import(specifier);
            imported.push(specifier);
        } catch {}
    }
    return imported;";

/// # Errors
/// What a child did not do, or could.
pub(super) async fn run(
    template: &Arc<Template>,
    spawn: &DenoSpawn,
    spec: &WorkerSpec,
) -> Result<(), ForkError> {
    let (one, other) = (template.fork(spawn, spec).await?, template.fork(spawn, spec).await?);
    for child in [&one, &other] {
        look_at(template.pid(), child).map_err(ForkError::SelfTest)?;
    }
    if one.first_draw().is_none() || one.first_draw() == other.first_draw() {
        return Err(ForkError::SelfTest("the template has drawn random numbers".to_owned()));
    }
    let pids = [&one, &other].map(|child| child.process().pid().as_raw_pid());
    let (one, other) = tokio::join!(values(one, job(SCRIPT)), values(other, job(SCRIPT)));
    let (one, other) = (one.map_err(ForkError::SelfTest)?, other.map_err(ForkError::SelfTest)?);
    for (pid, values) in pids.iter().zip([&one, &other]) {
        if values.get("pids") != Some(&Value::from([*pid, *pid])) {
            return Err(ForkError::SelfTest(format!("a fork takes {:?} for its pid", values.get("pids"))));
        }
    }
    for key in ["bytes", "uuid", "number", "nodeBytes"] {
        if one.get(key).is_none() || one.get(key) == other.get(key) {
            return Err(ForkError::SelfTest(format!("two forks drew the same {key}")));
        }
    }
    let preload = spec.packages.iter().flat_map(|packages| &packages.preload);
    let shared: Vec<_> = preload.filter(|it| !template.left_out.contains_key(*it)).cloned().collect();
    if shared.is_empty() { Ok(()) } else { import(template, spawn, spec, &shared).await }
}

/// A fork imports what a spawned worker does. Either may fail at a package, which is that package's own affair.
async fn import(
    template: &Arc<Template>,
    spawn: &DenoSpawn,
    spec: &WorkerSpec,
    shared: &[String],
) -> Result<(), ForkError> {
    let globals = Map::from_iter([("specifiers".to_owned(), Value::from(shared))]);
    let job = || Job { globals: globals.clone(), ..job(IMPORT) };
    let fork = template.fork(spawn, spec).await?;
    // A machine on which none can be spawned has other troubles.
    let Ok(spawned) = spawn.boot(Arc::new(spec.clone())).await else { return Ok(()) };
    let (forked, spawned) = tokio::join!(values(fork, job()), values_of(spawned, job()));
    match (forked, spawned) {
        (_, Err(_)) => Ok(()),
        (Ok(forked), Ok(spawned)) if forked == spawned => Ok(()),
        (forked, Ok(spawned)) => Err(ForkError::SelfTest(format!(
            "a fork imports {}, and a spawned worker {spawned}",
            forked.map_or_else(|error| error, |forked| forked.to_string())
        ))),
    }
}

/// What the kernel says of a child.
fn look_at(template: Pid, child: &DenoWorker) -> Result<(), String> {
    let status = |pid: Pid| {
        fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).map_err(|error| error.to_string())
    };
    let (of_template, of_child) = (status(template)?, status(child.process().pid())?);
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    for (name, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        if field(&of_child, name).as_deref() != Some(expected) {
            return Err(format!("a fork has {name} {:?}", field(&of_child, name)));
        }
    }
    let filters = |status| field(status, "Seccomp_filters").and_then(|count| count.parse::<u32>().ok());
    if filters(&of_child).is_none() || filters(&of_child) <= filters(&of_template) {
        return Err("a fork has no filter of its own".to_owned());
    }
    let shared: BTreeSet<String> =
        connections(template)?.intersection(&connections(child.process().pid())?).cloned().collect();
    match shared.first() {
        None => Ok(()),
        Some(link) => Err(format!("a fork shares {link} with its template")),
    }
}

/// Pipes and sockets that a process holds.
fn connections(pid: Pid) -> Result<BTreeSet<String>, String> {
    let entries =
        fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).map_err(|error| error.to_string())?;
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let named = links.map(|link| link.to_string_lossy().into_owned());
    Ok(named.filter(|link| link.starts_with("pipe:") || link.starts_with("socket:")).collect())
}

/// What `job` comes to in the child.
pub(super) async fn values(child: DenoWorker, job: Job) -> Result<Value, String> {
    values_of(Box::new(child), job).await
}

async fn values_of(worker: Box<dyn Worker>, job: Job) -> Result<Value, String> {
    let (report, reaped) = worker.run(job, None, CancellationToken::new()).await;
    reaped.await;
    match report {
        RunReport {
            verdict: Verdict::Settled { settled: Settled::Json { value }, open_handles: None, .. },
            ..
        } => Ok(value),
        RunReport { verdict, stderr, .. } => {
            Err(format!("{verdict:?} {}", String::from_utf8_lossy(&stderr).trim()))
        }
    }
}

pub(super) fn job(code: &str) -> Job {
    Job {
        execution_id: "self-test".to_owned(),
        code: code.to_owned(),
        api_name: "api".to_owned(),
        globals: Map::new(),
        imports: Default::default(),
        upstreams: None,
        permissions: Value::Null,
        host: None,
        limits: RunLimits {
            wall: LIMIT,
            compute: LIMIT,
            linger: Duration::from_secs(5),
            max_output_bytes: 1 << 16,
            max_result_bytes: 1 << 16,
            max_media_bytes: 0,
            max_calls: 0,
            max_calls_in_flight: 1,
        },
    }
}
