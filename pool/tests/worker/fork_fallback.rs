//! Whatever keeps workers from being forked: each reason is forced once, says so in the status, and costs no call.
//!
//! Most faults are those of a Deno that cannot be forked well, and stand in for one ([`Faulty`]); the real Deno's own are in
//! `fork.rs`, the kernel's in `conductor-tests` (`faults/starts.rs`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoSpawn, ForkFailure, ForkLimits, Packages, Settled, SpawnConfig, TemplateStatus, TrialLimits, Verdict,
    Worker, WorkerChoice, WorkerKind, WorkerSource as _, WorkerSpec,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, Forks, config, job, json, settled};

/// Longer than a test goes on calling, however busy the machine is: what never comes fails, and does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A source whose Deno is `tests/fixtures/false_deno.rs`, with one fault.
pub(crate) struct Faulty {
    pub(crate) forks: Forks,
    pub(crate) spec: Arc<WorkerSpec>,
    /// Where its Deno is.
    pub(crate) directory: tempfile::TempDir,
    bench: Bench,
    deadline: Instant,
}

impl Faulty {
    pub(crate) fn new(fault: &str) -> Self {
        Self::with(fault, |_| {})
    }

    pub(crate) fn with(fault: &str, change: impl FnOnce(&mut ForkLimits)) -> Self {
        // Beside the program, so that it can be linked: no process has a link open for writing.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let deno = directory.path().join(format!("deno-{fault}"));
        fs::hard_link(env!("CARGO_BIN_EXE_conductor-false-deno"), &deno).unwrap();
        let bench = Bench::new();
        let packages = (fault == "idle").then(|| layer(bench.dir.path()));
        let spec = WorkerSpec { packages, worker: WorkerChoice::Fork, ..bench.spec_of(&deno) };
        let mut limits = ForkLimits {
            settled_within: Duration::from_millis(300),
            round: Duration::from_millis(20),
            trial: TrialLimits { crowd: 4, many: 16, passed: None },
            ..ForkLimits::default()
        };
        change(&mut limits);
        // A quarter of it is what a template may take for its answer. Who waits for the end of that waits less.
        let boot_timeout = Duration::from_secs(if ["silent", "mute"].contains(&fault) { 8 } else { 120 });
        let config = SpawnConfig { boot_timeout, ..config(bench.dir.path()) };
        let forks = Forks::with(DenoSpawn::new(config), limits);
        Self { forks, spec: Arc::new(spec), directory, bench, deadline: Instant::now() + PATIENCE }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.bench.dir.path().join("cache")
    }

    pub(crate) async fn boot(&self) -> Box<dyn Worker> {
        self.forks.source.boot(Arc::clone(&self.spec)).await.unwrap()
    }

    /// How it is served, and that it is.
    pub(crate) async fn call(&self) -> WorkerKind {
        assert!(Instant::now() < self.deadline, "{:?}", self.status());
        serve(self.boot().await).await
    }

    pub(crate) fn status(&self) -> TemplateStatus {
        self.forks.source.templates(&self.spec).unwrap()
    }
}

/// What a Deno that imports nothing takes for packages.
fn layer(directory: &Path) -> Packages {
    let (deno_dir, lock) = (directory.join("layer"), directory.join("layer/deno.lock"));
    fs::create_dir(&deno_dir).unwrap();
    fs::write(&lock, "").unwrap();
    let (env, spellings) = Default::default();
    let preload = vec!["npm:x".to_owned()];
    Packages { deno_dir, lock, env, allow_import: None, spellings, preload }
}

/// Runs a job that comes to 42.
pub(crate) async fn serve(worker: Box<dyn Worker>) -> WorkerKind {
    let kind = worker.kind();
    let (report, reaped) = worker.run(job("return 42;"), None, CancellationToken::new()).await;
    reaped.await;
    assert_eq!(json(report), 42);
    kind
}

/// Runs a job that ends its process by a signal.
pub(crate) async fn crash(worker: Box<dyn Worker>) {
    let (report, reaped) = worker.run(job("crash"), None, CancellationToken::new()).await;
    reaped.await;
    assert!(matches!(report.verdict, Verdict::Exited { signal: Some(4), .. }), "{:?}", report.verdict);
}

#[tokio::test]
async fn a_deno_without_a_fault_is_forked() {
    let faulty = Faulty::new("good");
    assert_eq!(faulty.forks.source.fallback(&faulty.spec).as_deref(), Some("no worker has been needed"));
    assert_eq!(faulty.call().await, WorkerKind::Spawn);
    faulty.forks.source.ready(&faulty.spec).await.unwrap();
    assert_eq!(faulty.forks.source.fallback(&faulty.spec), None);
    assert_eq!(faulty.call().await, WorkerKind::Fork);
    let status = faulty.status();
    assert_eq!((status.totals.built, status.totals.failures.len()), (1, 0), "{status:?}");
    assert!(status.serving.is_some_and(|it| it.forks > 2 && it.memory_bytes > 0));
}

/// Fault, what the status says, how it is counted.
const FAULTS: [(&str, &str, ForkFailure); 22] = [
    ("stillborn", "the template did not start: Deno ended before it was ready", ForkFailure::Start),
    ("silent", "the template has not answered within", ForkFailure::Template),
    ("threads", "the template still has 2 threads after 300ms", ForkFailure::Threads),
    ("listens", "the template took longer than half a second to boot", ForkFailure::Threads),
    ("pipes", "the template holds pipe:[", ForkFailure::Descriptors),
    ("loops", "the template has 2 event loops", ForkFailure::Descriptors),
    ("files", "the template holds more than 128 descriptors", ForkFailure::Descriptors),
    ("mute", "the template has not answered within", ForkFailure::Template),
    ("garbage", "the template answered with something that is no answer", ForkFailure::Template),
    ("ends", "the template has ended or does not answer", ForkFailure::Template),
    ("refuses", "the template cannot fork: Cannot allocate memory", ForkFailure::Template),
    ("foreign", "the template named a process that is not its child", ForkFailure::ForeignProcess),
    ("childless", "a fork did not become a worker", ForkFailure::Child),
    ("crowds", "this Deno cannot be forked: 4 forks are 1 processes", ForkFailure::Trial),
    ("grows", "this Deno cannot be forked: 16 forks have left something", ForkFailure::Trial),
    ("leaks", "this Deno cannot be forked: 16 forks have left something", ForkFailure::Trial),
    ("unfiltered", "the self-test failed: a fork has no filter of its own", ForkFailure::SelfTest),
    ("shares", "the self-test failed: a fork shares ", ForkFailure::SelfTest),
    ("broken", "the self-test failed: ", ForkFailure::SelfTest),
    ("draws", "the self-test failed: the template has drawn random numbers", ForkFailure::SelfTest),
    ("misnamed", "the self-test failed: a fork takes ", ForkFailure::SelfTest),
    ("repeats", "the self-test failed: two forks drew the same bytes", ForkFailure::SelfTest),
];

#[tokio::test]
async fn a_deno_that_cannot_be_forked_well_is_spawned_and_says_why() {
    let outcomes = FAULTS.map(async |(fault, text, failure)| {
        let faulty = Faulty::new(fault);
        let why = faulty.forks.source.ready(&faulty.spec).await.err().unwrap_or_default();
        let told = faulty.forks.source.fallback(&faulty.spec).unwrap_or_default();
        let kind = faulty.call().await;
        let totals = faulty.status().totals;
        let counted = totals.failures == [(failure, 1)].into() && totals.built == 0;
        let as_meant = why.contains(text) && told == why && kind == WorkerKind::Spawn && counted;
        (!as_meant).then(|| format!("{fault}: {why:?}, {told:?}, {kind:?}, {totals:?}"))
    });
    let wrong: Vec<String> = futures_util::future::join_all(outcomes).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_deno_that_was_tried_is_not_tried_again_as_long_as_its_note_can_be_believed() {
    let directory = tempfile::tempdir().unwrap();
    let noted = |limits: &mut ForkLimits| limits.trial.passed = Some(directory.path().join("trials"));
    let try_out = async |faulty: &Faulty| faulty.forks.source.ready(&faulty.spec).await.is_ok();
    // The same executable, which would not pass the trial under its second name.
    let (good, bad) = ("good", "crowds");
    assert!(!try_out(&Faulty::with(bad, noted)).await);
    assert!(!directory.path().join("trials").exists(), "nothing has passed");
    assert!(try_out(&Faulty::with(good, noted)).await);
    assert!(try_out(&Faulty::with(bad, noted)).await, "it was tried again");

    let note = fs::read_dir(directory.path().join("trials")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(note.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&note, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!try_out(&Faulty::with(bad, noted)).await, "others may read it, so it is none of ours");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o600)).unwrap();
    let content = fs::read_to_string(&note).unwrap();
    fs::write(&note, content.replace("deno: ", "deno: 0")).unwrap();
    assert!(!try_out(&Faulty::with(bad, noted)).await, "it is damaged");
    assert!(try_out(&Faulty::with(good, noted)).await);
    assert_eq!(fs::read_to_string(&note).unwrap(), content, "repaired");

    let changed = Faulty::with(bad, noted);
    let deno = &changed.spec.deno;
    // By a process of its own: nobody here has it open for writing when it is executed.
    let append = format!("cp '{0}' '{0}-' && echo >> '{0}-' && mv '{0}-' '{0}'", deno.display());
    assert!(Command::new("sh").args(["-c", &append]).status().unwrap().success());
    assert!(!try_out(&changed).await, "another executable");
}

/// The launcher, but for what `change`, an expression of sed, does to what it says of the jail.
fn launcher_that_says(directory: &Path, change: &str) -> PathBuf {
    let launcher = config(directory).launcher;
    let (path, launcher) = (directory.join("launcher"), launcher.display());
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = __worker-probe ]; then '{launcher}' \"$@\" | sed -E '{change}'; else exec '{launcher}' \"$@\"; fi\n"
    );
    // By a process of its own: nobody here has it open for writing when it is executed.
    let mut write = Command::new("sh");
    write.args(["-c", "printf %s \"$1\" > \"$0\" && chmod 700 \"$0\""]).arg(&path).arg(script);
    assert!(write.status().unwrap().success());
    path
}

#[tokio::test]
async fn a_jail_that_is_not_whole_has_no_forks_and_says_why() {
    for (change, text) in [
        ("", ""),
        (r#"s/"landlock_abi":[0-9]+/"landlock_abi":5/"#, "Landlock cannot keep a template's signals"),
        (r#"s/"errno":[0-9]+/"errno":null/"#, "the jail does not hold: "),
        ("s/./x/", "the jail's layer limits is not complete"),
    ] {
        let bench = Bench::new();
        let launcher = launcher_that_says(bench.dir.path(), change);
        let forks = Forks::new(DenoSpawn::new(SpawnConfig { launcher, ..config(bench.dir.path()) }));
        let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..bench.spec() });
        let why = forks.source.ready(&spec).await.err().unwrap_or_default();
        assert!(why.contains(text) && why.is_empty() == text.is_empty(), "{change}: {why}");
        let worker = forks.source.boot(Arc::clone(&spec)).await.unwrap();
        assert_eq!(worker.kind() == WorkerKind::Fork, text.is_empty(), "{change}");
        assert_eq!(serve(worker).await == WorkerKind::Fork, text.is_empty(), "{change}");
        if !text.is_empty() {
            let totals = forks.source.templates(&spec).unwrap().totals;
            assert_eq!(totals.failures, [(ForkFailure::Unsuitable, 1)].into(), "{change}");
        }
    }
}

#[tokio::test]
async fn a_package_that_forks_cannot_import_though_spawned_workers_do_is_in_no_template() {
    let faulty = Faulty::new("idle");
    faulty.forks.source.ready(&faulty.spec).await.unwrap();
    let left_out = faulty.forks.source.left_out(&faulty.spec);
    let why = left_out.get("npm:x").unwrap();
    assert!(why.contains("a fork imports [], and a spawned worker [\"npm:x\"]"), "{why}");
    assert_eq!(faulty.call().await, WorkerKind::Fork);
}

/// The self-test's script, as it is.
const SELF_TEST: &str = include_str!("../../src/fork/self_test.js");

/// What a fork may break, and what the script says.
const BROKEN: [(&str, &str); 9] = [
    ("const native = setTimeout; globalThis.setTimeout = (f, ms) => native(f, 20 - 2 * ms);", "timers: 2,1"),
    ("globalThis.clearTimeout = () => {};", "timers: cleared,1,2"),
    ("crypto.subtle.digest = async () => new ArrayBuffer(32);", "SHA-256"),
    (
        "globalThis.CompressionStream = class extends TransformStream { constructor() { super(); } };",
        "streams",
    ),
    ("globalThis.fetch = async () => new Response('');", "fetch of data"),
    ("WebAssembly.instantiate = async () => ({ instance: { exports: { f: () => 41 } } });", "WebAssembly"),
    (
        "const keep = Array.prototype.push; Array.prototype.push = function (it) { it.text = ''; return keep.call(this, it); };",
        "objects",
    ),
    (
        "globalThis.Worker = class { constructor() { queueMicrotask(() => this.onmessage({})); } terminate() {} };",
        "a worker",
    ),
    (
        "globalThis.Worker = class { constructor() { queueMicrotask(() => this.onerror({ message: 'no thread' })); } };",
        "no thread",
    ),
];

#[tokio::test]
async fn each_check_of_the_self_test_notices_what_it_is_for() {
    let bench = Bench::new();
    let run = async |before: &str| {
        let worker = bench.source.boot(Arc::new(bench.spec())).await.unwrap();
        let script = format!("{before}\n{SELF_TEST}");
        let (report, reaped) = worker.run(job(&script), None, CancellationToken::new()).await;
        reaped.await;
        match settled(&report) {
            Settled::Json { value } => Ok(value.clone()),
            Settled::Thrown { error } => Err(error.message.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (one, other) = (run("").await.unwrap(), run("").await.unwrap());
    for key in ["bytes", "uuid", "number", "nodeBytes"] {
        assert!(!one[key].is_null() && one[key] != other[key], "{key}");
    }
    for (before, said) in BROKEN {
        assert_eq!(run(before).await.err().as_deref(), Some(said), "{before}");
    }
}
