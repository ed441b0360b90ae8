//! What the tests with real Deno share: a source of workers, specs, jobs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_pool::{
    DenoSpawn, DenoWorkers, ForkLimits, Grant, Grants, Job, RunLimits, RunReport, Settled, SpawnConfig,
    SpawnError, TrialLimits, Verdict, Worker, WorkerChoice, WorkerKind, WorkerSource, WorkerSpec,
};
use serde_json::{Map, Value};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// A source with a cache directory of its own below a temporary one, which is removed in the end.
pub(crate) struct Bench {
    pub(crate) source: DenoSpawn,
    pub(crate) dir: tempfile::TempDir,
    /// When workers are to be forked.
    forks: OnceCell<Forks>,
}

/// A source that forks, with the task that it needs.
pub(crate) struct Forks {
    pub(crate) source: DenoWorkers,
    task: AbortHandle,
}

impl Forks {
    pub(crate) fn new(spawn: DenoSpawn) -> Self {
        Self::with(spawn, Self::limits())
    }

    /// The product's, but that a Deno is tried once for all tests, unless something has changed: it takes seconds.
    pub(crate) fn limits() -> ForkLimits {
        let passed = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("trials"));
        let defaults = ForkLimits::default();
        ForkLimits { trial: TrialLimits { passed, ..defaults.trial }, ..defaults }
    }

    pub(crate) fn with(spawn: DenoSpawn, limits: ForkLimits) -> Self {
        let (source, task) = DenoWorkers::with_limits(spawn, limits);
        Self { source, task: tokio::spawn(task.run()).abort_handle() }
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// With `CONDUCTOR_TEST_WORKER=fork` all tests run with forked workers, where a spec's workers can be forked.
fn kind() -> WorkerKind {
    match std::env::var("CONDUCTOR_TEST_WORKER").as_deref() {
        Ok("fork") => WorkerKind::Fork,
        Ok("spawn") | Err(_) => WorkerKind::Spawn,
        Ok(other) => panic!("CONDUCTOR_TEST_WORKER is {other:?}: neither fork nor spawn"),
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { source: DenoSpawn::new(config(dir.path())), dir, forks: OnceCell::new() }
    }

    /// A second source over the same directories.
    pub(crate) fn again(&self) -> DenoSpawn {
        DenoSpawn::new(config(self.dir.path()))
    }

    /// Goes on with a source that has made nothing yet.
    pub(crate) fn restart(&mut self) {
        self.source = self.again();
        self.forks = OnceCell::new();
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        let workspace = self.dir.path().join("workspace");
        std::fs::create_dir_all(&workspace).unwrap();
        workspace
    }

    /// A spec without any grant.
    pub(crate) fn spec(&self) -> WorkerSpec {
        self.spec_of(&conductor_deno::testing::deno().path)
    }

    /// The same, of a Deno of the test's own.
    pub(crate) fn spec_of(&self, deno: &Path) -> WorkerSpec {
        WorkerSpec {
            deno: deno.to_owned(),
            workspace: self.workspace(),
            grants: Grants::default(),
            protected: BTreeSet::new(),
            heap_mib: 256,
            max_memory_mib: 704,
            max_wall: Duration::from_secs(3600),
            env: BTreeMap::new(),
            worker: Default::default(),
            packages: None,
        }
    }

    pub(crate) async fn boot(&self, spec: &WorkerSpec) -> Result<Box<dyn Worker>, SpawnError> {
        if kind() == WorkerKind::Spawn {
            return self.source.boot(Arc::new(spec.clone())).await;
        }
        let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..spec.clone() });
        let forks = self.forks.get_or_init(|| Forks::new(self.source.clone()));
        let ready = forks.source.ready(&spec).await;
        let worker = forks.source.boot(spec).await?;
        match ready {
            Ok(()) => assert_eq!(worker.kind(), WorkerKind::Fork),
            Err(why) => {
                let meant = ["grants `run`", "jail's layer", "`hardened`"];
                assert!(meant.iter().any(|meant| why.contains(meant)), "{why}");
            }
        }
        Ok(worker)
    }

    /// Runs `code` in a fresh worker without grants and waits until the worker is gone.
    pub(crate) async fn run(&self, code: &str) -> RunReport {
        self.run_job(&self.spec(), job(code)).await
    }

    pub(crate) async fn run_with(&self, grants: Grants, code: &str) -> RunReport {
        self.run_job(&WorkerSpec { grants, ..self.spec() }, job(code)).await
    }

    pub(crate) async fn run_job(&self, spec: &WorkerSpec, job: Job) -> RunReport {
        let worker = self.boot(spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let (report, reaped) = worker.run(job, None, CancellationToken::new()).await;
        reaped.await;
        report
    }

    /// The value of code that must settle with JSON.
    pub(crate) async fn json(&self, code: &str) -> Value {
        json(self.run(code).await)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove(self.dir.path());
    }
}

/// Removes a directory of a [`Bench`]. Its caches are read-only, which an ordinary user's removal does not get past.
pub(crate) fn remove(dir: &Path) {
    make_writable(dir);
    std::fs::remove_dir_all(dir).ok();
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).ok();
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            make_writable(&entry.path());
        }
    }
}

pub(crate) fn config(dir: &Path) -> SpawnConfig {
    SpawnConfig {
        launcher: std::env::var_os("CONDUCTOR_TEST_LAUNCHER")
            .map_or_else(|| env!("CARGO_BIN_EXE_conductor-worker-launcher").into(), PathBuf::from),
        boot_timeout: Duration::from_secs(30),
        ..SpawnConfig::new(dir.join("cache"))
    }
}

pub(crate) fn job(code: &str) -> Job {
    Job {
        execution_id: "test".to_owned(),
        code: code.to_owned(),
        api_name: "api".to_owned(),
        globals: Map::new(),
        imports: Default::default(),
        upstreams: None,
        permissions: serde_json::Value::Null,
        host: None,
        limits: RunLimits {
            wall: Duration::from_secs(20),
            compute: Duration::from_secs(60),
            // As long as the run: what is left to do has its time on a busy machine, too.
            linger: Duration::from_secs(20),
            max_output_bytes: 1 << 20,
            max_result_bytes: 1 << 20,
            max_media_bytes: 1 << 16,
            max_calls: 10_000,
            max_calls_in_flight: 64,
        },
    }
}

/// A job that leaves something open for ever.
pub(crate) fn unending(code: &str) -> Job {
    let mut job = job(code);
    job.limits.linger = Duration::from_millis(300);
    job
}

pub(crate) fn only(value: &str) -> Grant {
    Grant::Only(BTreeSet::from([value.to_owned()]))
}

pub(crate) fn settled(report: &RunReport) -> &Settled {
    match &report.verdict {
        Verdict::Settled { settled, .. } => settled,
        other => panic!("not settled: {other:?}, stderr: {}", String::from_utf8_lossy(&report.stderr)),
    }
}

pub(crate) fn json(report: RunReport) -> Value {
    match settled(&report) {
        Settled::Json { value } => value.clone(),
        other => panic!("no JSON: {other:?}, stderr: {}", String::from_utf8_lossy(&report.stderr)),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
