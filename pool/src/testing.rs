//! A source of workers that are no processes: boots, deaths and reapings happen on tokio's clock and on command. For
//! tests that force a fault or need a clock that can be stopped.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::job::{Job, RunEvent, RunReport, Settled, Verdict};
use crate::source::{BoxFuture, Reaped, SpawnError, Worker, WorkerIdentity, WorkerKind, WorkerSource};
use crate::spec::WorkerSpec;

/// Makes fake workers. Clones share everything.
///
/// A fake worker takes `job.code` for a number of milliseconds to run (anything else: none), and settles with the job's
/// globals as its value.
#[derive(Clone, Debug)]
pub struct FakeSource {
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
struct World {
    boot_time: Duration,
    reap_time: Duration,
    boots_to_fail: usize,
    boots_to_hang: usize,
    boots: usize,
    most_alive: usize,
    next_pid: i32,
    /// Booting or booted, and not reaped; what kills each.
    alive: BTreeMap<i32, CancellationToken>,
}

impl Default for FakeSource {
    /// Boots and reaps as fast as Deno does: 20 ms and 4 ms.
    fn default() -> Self {
        let world = World {
            boot_time: Duration::from_millis(20),
            reap_time: Duration::from_millis(4),
            boots_to_fail: 0,
            boots_to_hang: 0,
            boots: 0,
            most_alive: 0,
            next_pid: 1,
            alive: BTreeMap::new(),
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }
}

impl FakeSource {
    pub fn set_boot_time(&self, boot_time: Duration) {
        self.world().boot_time = boot_time;
    }

    pub fn set_reap_time(&self, reap_time: Duration) {
        self.world().reap_time = reap_time;
    }

    /// The next `boots` boots fail at the end of their time.
    pub fn fail_boots(&self, boots: usize) {
        self.world().boots_to_fail = boots;
    }

    /// The next `boots` boots never end.
    pub fn hang_boots(&self, boots: usize) {
        self.world().boots_to_hang = boots;
    }

    /// The worker ends by itself.
    pub fn kill(&self, pid: i32) {
        if let Some(dead) = self.world().alive.get(&pid) {
            dead.cancel();
        }
    }

    /// Workers that are booting or booted, and not reaped.
    pub fn alive(&self) -> Vec<i32> {
        self.world().alive.keys().copied().collect()
    }

    pub fn most_alive(&self) -> usize {
        self.world().most_alive
    }

    /// Boots begun so far.
    pub fn boots(&self) -> usize {
        self.world().boots
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nothing panics while it holds the lock")
    }
}

enum Fate {
    Boots,
    Fails,
    Hangs,
}

impl WorkerSource for FakeSource {
    fn boot(&self, _spec: Arc<WorkerSpec>) -> BoxFuture<'static, Result<Box<dyn Worker>, SpawnError>> {
        let source = self.clone();
        Box::pin(async move {
            let (process, fate, boot_time) = source.start();
            match fate {
                Fate::Hangs => pending().await,
                Fate::Boots | Fate::Fails => sleep(boot_time).await,
            }
            match fate {
                Fate::Boots => Ok(Box::new(FakeWorker { process }) as Box<dyn Worker>),
                _ => Err(SpawnError::Start(io::Error::other("told to fail"))),
            }
        })
    }
}

impl FakeSource {
    fn start(&self) -> (Process, Fate, Duration) {
        let mut world = self.world();
        let pid = world.next_pid;
        world.next_pid += 1;
        world.boots += 1;
        let dead = CancellationToken::new();
        world.alive.insert(pid, dead.clone());
        world.most_alive = world.most_alive.max(world.alive.len());
        let fate = if world.boots_to_hang > 0 {
            world.boots_to_hang -= 1;
            Fate::Hangs
        } else if world.boots_to_fail > 0 {
            world.boots_to_fail -= 1;
            Fate::Fails
        } else {
            Fate::Boots
        };
        (Process { pid, dead, source: self.clone() }, fate, world.boot_time)
    }
}

/// Alive until dropped.
struct Process {
    pid: i32,
    dead: CancellationToken,
    source: FakeSource,
}

impl Process {
    fn reap(self) -> Reaped {
        let reap_time = self.source.world().reap_time;
        Box::pin(async move {
            sleep(reap_time).await;
            drop(self);
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.source.world().alive.remove(&self.pid);
    }
}

struct FakeWorker {
    process: Process,
}

impl Worker for FakeWorker {
    fn identity(&self) -> WorkerIdentity {
        WorkerIdentity { pid: self.process.pid, start_ticks: 0 }
    }

    fn kind(&self) -> WorkerKind {
        WorkerKind::Spawn
    }

    fn died(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.process.dead.cancelled())
    }

    fn run(
        self: Box<Self>,
        job: Job,
        _events: Option<mpsc::Sender<RunEvent>>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, (RunReport, Reaped)> {
        Box::pin(async move {
            let (worker, begun) = (self.identity(), Instant::now());
            let needed = Duration::from_millis(job.code.parse().unwrap_or(0));
            let value = Value::Object(job.globals);
            let verdict = tokio::select! {
                // Biased: a worker that is dead does not settle. Each arm only waits and is cancel-safe.
                biased;
                () = cancel.cancelled() => Verdict::Cancelled,
                () = self.process.dead.cancelled() => {
                    Verdict::Exited { code: None, signal: Some(9), out_of_memory: false }
                }
                () = sleep(needed) => Verdict::Settled {
                    settled: Settled::Json { value },
                    open_handles: None,
                    late: None,
                },
            };
            let report = RunReport {
                verdict,
                kind: WorkerKind::Spawn,
                stdout: Vec::new(),
                stderr: Vec::new(),
                worker,
                wall: begun.elapsed(),
                cpu: Duration::ZERO,
                waiting: Duration::ZERO,
            };
            (report, self.process.reap())
        })
    }

    fn retire(self: Box<Self>) -> Reaped {
        self.process.reap()
    }
}
