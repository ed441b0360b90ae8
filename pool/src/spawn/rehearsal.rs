//! Imports each package once before its layer becomes read-only: fills Deno's caches, and tells what an import costs.
//!
//! A worker of the usual kind does it: no grants, no network, one import each. The one difference is that it may write
//! its `DENO_DIR`, which is thrown away if anything fails.
//!
//! First the caches are filled, by as many workers at once as there are cores; then each import is measured, by half as
//! many: V8 compiles and collects on threads of its own, which then have a core as well, as in an idle daemon.
//!
//! In the end a worker is killed with the caches in use. They are SQLite databases with a write-ahead log, and in a directory
//! that is read-only SQLite opens one of those only beside its `-wal` and `-shm`, which the last process to close it
//! removes. A process that is killed closes nothing.

use std::fs;
use std::future::Future;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::deno_dir::{self, Directories};
use super::{DenoSpawn, Files, Inner};
use crate::job::Settled;
use crate::source::{SpawnError, Worker as _};
use crate::spec::{Packages, WorkerSpec};
use crate::worker::{DenoWorker, Rehearsed};

/// Between two looks at the memory of a worker at work. It lives for some milliseconds after its import.
const LOOK: Duration = Duration::from_millis(1);

/// How long the worker that is killed may import, by what was measured: it opens all caches with the first packages.
const OPENING: Duration = Duration::from_secs(1);

/// How one package's import went in a worker of its own, with Deno's caches filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// As given.
    pub specifier: String,
    /// Wall time of the import, in milliseconds.
    pub import_ms: f64,
    /// CPU time of it, all threads, in milliseconds: what a boot costs more for it, however busy the machine is.
    #[serde(default)]
    pub cpu_ms: f64,
    /// Memory of its own that the import added to the worker, at the most, in bytes; zero where the kernel does not tell.
    pub memory_bytes: u64,
    /// The import prints nothing and leaves no timer, handle or rejection behind, so it may happen before the job is known.
    pub preloadable: bool,
    /// Why it cannot be imported at all without grants, as far as Deno tells.
    pub error: Option<String>,
}

impl DenoSpawn {
    /// What a rehearsal of this source is good for: its workers compile the harness at every boot in a `DENO_DIR` that was
    /// filled with another one, which costs them half as much again.
    pub fn warms_for(&self) -> String {
        deno_dir::harness_in(&self.inner.config.cache_dir).to_string_lossy().into_owned()
    }

    /// Imports `specifiers`, spelled as in the lock, each in two fresh workers: the first fills the caches, the second is
    /// measured. `packages.deno_dir` must be writable; nothing is fetched. What is not begun within `limit` is left out of
    /// the answer: it can be imported all the same.
    ///
    /// # Errors
    /// When no worker boots at all. An import that fails is part of the answer.
    ///
    /// # Cancel safety
    /// Dropping the future kills the workers at work; the `DENO_DIR` is then to be thrown away.
    pub async fn rehearse(
        &self,
        deno: &Path,
        packages: &Packages,
        specifiers: &[String],
        limit: Duration,
    ) -> Result<Vec<Rehearsal>, SpawnError> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let start = Instant::now();
        self.inner.import_all(deno, packages, specifiers, cores, start + limit / 2).await?;
        let at_once = (cores / 2).max(1);
        let measured = self.inner.import_all(deno, packages, specifiers, at_once, start + limit).await?;
        if !measured.is_empty() {
            self.inner.leave_open(deno, packages, &measured).await?;
        }
        Ok(measured)
    }
}

impl Inner {
    /// Imports what can be begun before `until`, some at once.
    async fn import_all(
        &self,
        deno: &Path,
        packages: &Packages,
        specifiers: &[String],
        at_once: usize,
        until: Instant,
    ) -> Result<Vec<Rehearsal>, SpawnError> {
        let permits = Semaphore::new(at_once);
        let imports = specifiers.iter().map(async |specifier| {
            let _permit = permits.acquire().await.expect("nobody closes it");
            if Instant::now() >= until {
                return Ok(None);
            }
            self.import(deno, packages, specifier).await.map(Some)
        });
        Ok(try_join_all(imports).await?.into_iter().flatten().collect())
    }

    /// Kills a worker that uses the caches; see the module.
    async fn leave_open(
        &self,
        deno: &Path,
        packages: &Packages,
        measured: &[Rehearsal],
    ) -> Result<(), SpawnError> {
        let mut quick: Vec<&Rehearsal> = measured.iter().filter(|it| it.preloadable).collect();
        quick.sort_by(|a, b| a.import_ms.total_cmp(&b.import_ms));
        let mut left = OPENING.as_secs_f64() * 1e3;
        let quick = quick.into_iter().take_while(|it| {
            left -= it.import_ms;
            left >= 0.0
        });
        let preload = quick.map(|it| it.specifier.clone()).collect();
        Box::new(self.boot_writable(deno, packages, preload).await?).retire().await;
        Ok(())
    }

    /// A worker without grants that may write the packages' `DENO_DIR`.
    async fn boot_writable(
        &self,
        deno: &Path,
        packages: &Packages,
        preload: Vec<String>,
    ) -> Result<DenoWorker, SpawnError> {
        let directories = Directories::install(&self.config.cache_dir).map_err(SpawnError::Prepare)?;
        let spec = WorkerSpec {
            packages: Some(Packages { preload, ..packages.clone() }),
            ..plain_spec(deno, directories.empty())
        };
        let limit = self.config.boot_timeout;
        self.start(&spec, &directories, &packages.deno_dir, Files::Writable, None, limit).await
    }

    async fn import(
        &self,
        deno: &Path,
        packages: &Packages,
        specifier: &str,
    ) -> Result<Rehearsal, SpawnError> {
        let worker = self.boot_writable(deno, packages, Vec::new()).await?;
        let pid = worker.identity().pid;
        let before = Taken::by(pid);
        // A package that never lets the process end is no failure of the layer: it cannot be preloaded, that is all.
        let code = import_code(specifier);
        let rehearsing = worker.rehearse(&code, self.config.boot_timeout);
        let (rehearsed, most) = watched(pid, rehearsing).await;
        Ok(Rehearsal::of(specifier, rehearsed, most.since(before)))
    }
}

impl Rehearsal {
    fn of(specifier: &str, rehearsed: std::io::Result<Rehearsed>, taken: Taken) -> Self {
        let specifier = specifier.to_owned();
        let failed = |specifier, error: String| Self {
            specifier,
            import_ms: 0.0,
            cpu_ms: 0.0,
            memory_bytes: 0,
            preloadable: false,
            error: Some(error),
        };
        match rehearsed {
            Err(error) => failed(specifier, error.to_string()),
            Ok(Rehearsed { settled: Some(Settled::Json { value }), quiet }) => Self {
                specifier,
                import_ms: value["ms"].as_f64().unwrap_or_default(),
                cpu_ms: taken.cpu.as_secs_f64() * 1e3,
                memory_bytes: taken.memory,
                preloadable: quiet,
                error: None,
            },
            Ok(Rehearsed { settled: Some(Settled::Thrown { error }), .. }) => {
                failed(specifier, error.message)
            }
            Ok(_) => failed(specifier, "the import ended the process".to_owned()),
        }
    }
}

/// A spec that grants nothing.
pub(super) fn plain_spec(deno: &Path, empty: &Path) -> WorkerSpec {
    WorkerSpec {
        deno: deno.to_owned(),
        workspace: PathBuf::from(empty),
        grants: Default::default(),
        protected: Default::default(),
        heap_mib: 256,
        max_memory_mib: 704,
        max_wall: Duration::from_secs(3600),
        env: Default::default(),
        worker: Default::default(),
        packages: None,
    }
}

/// What a process has taken of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Bytes that it shares with no other.
    memory: u64,
    cpu: Duration,
}

impl Taken {
    /// Nothing of a process that is gone.
    fn by(pid: i32) -> Self {
        Self { memory: own_memory(pid).unwrap_or_default(), cpu: cpu_time(pid).unwrap_or_default() }
    }

    fn most(self, other: Self) -> Self {
        Self { memory: self.memory.max(other.memory), cpu: self.cpu.max(other.cpu) }
    }

    fn since(self, before: Self) -> Self {
        let memory = self.memory.saturating_sub(before.memory);
        Self { memory, cpu: self.cpu.saturating_sub(before.cpu) }
    }
}

/// Awaits `work` of a process and tells the most that the process was seen to have taken.
async fn watched<T>(pid: i32, work: impl Future<Output = T>) -> (T, Taken) {
    let mut work = pin!(work);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut most = Taken::default();
    loop {
        tokio::select! {
            // Cancel-safe: polled again by reference.
            done = &mut work => return (done, most),
            // Cancel-safe: a tick that is lost is a look less.
            _ = looks.tick() => most = most.most(Taken::by(pid)),
        }
    }
}

/// All threads' CPU time; not known of a process that has ended.
fn cpu_time(pid: i32) -> Option<Duration> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid)).ok()?;
    clock.now().ok().map(Duration::from)
}

/// Resident memory that a process shares with no other, in bytes. The worker cannot tell: it sees no `/proc`.
pub(crate) fn own_memory(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn import_code(specifier: &str) -> String {
    format!(
        "const start = performance.now();
         await api.import({});
         return {{ ms: performance.now() - start }};",
        json!(Value::from(specifier))
    )
}
