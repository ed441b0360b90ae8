//! Where workers come from: the seam between the pool's rules and the operating system.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::job::{Job, RunEvent, RunReport};
use crate::spec::WorkerSpec;
use crate::status::TemplateStatus;

/// A boxed future, so that the traits below can be used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a worker comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// A Deno process of its own, booted for it.
    Spawn,
    /// A copy of a Deno process that has booted: see [`fork`](crate::fork).
    Fork,
}

impl WorkerKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Fork => "fork",
        }
    }
}

/// Makes workers. The pool cannot tell one implementation from another.
pub trait WorkerSource: Send + Sync + 'static {
    /// Boots one worker; ready when it is warm and waits for a job.
    ///
    /// Cancel safety: dropping the future kills what was started.
    fn boot(&self, spec: Arc<WorkerSpec>) -> BoxFuture<'static, Result<Box<dyn Worker>, SpawnError>>;

    /// Ready when workers of a spec have come to be made in another way: which spec, and how its next ones are made.
    ///
    /// Cancel safety: cancel-safe. A change is told once, to one listener.
    fn changed(&self) -> BoxFuture<'_, (Arc<WorkerSpec>, WorkerKind)> {
        Box::pin(std::future::pending())
    }

    /// Packages of this spec's that are not imported ahead of time as they should be, and why: a template does not have them,
    /// or workers do not boot with them. For people.
    fn left_out(&self, _spec: &WorkerSpec) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Why workers of this spec are not of the kind that it asks for, if at present they are not. For people.
    fn fallback(&self, _spec: &WorkerSpec) -> Option<String> {
        None
    }

    /// What forked workers of this spec come from, if any were asked for.
    fn templates(&self, _spec: &WorkerSpec) -> Option<TemplateStatus> {
        None
    }
}

/// One booted, idle process. Dropping it kills the process without waiting for its end.
pub trait Worker: Send + 'static {
    fn identity(&self) -> WorkerIdentity;

    fn kind(&self) -> WorkerKind;

    /// Ready when the idle worker has ended by itself. Cancel-safe.
    fn died(&mut self) -> BoxFuture<'_, ()>;

    /// Runs the one job of this worker's life. The process is dead or dying when the report is there; `Reaped` waits for
    /// the rest. Cancelling `cancel` kills at once and reports `Cancelled`. Dropping the future kills the worker.
    fn run(
        self: Box<Self>,
        job: Job,
        events: Option<mpsc::Sender<RunEvent>>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, (RunReport, Reaped)>;

    /// Kills the worker and waits until it is gone.
    fn retire(self: Box<Self>) -> Reaped;
}

/// Ready when nothing of a killed worker is left: process group ended, status collected.
pub type Reaped = BoxFuture<'static, ()>;

/// Which process ran a job. A pid is used again by the kernel, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WorkerIdentity {
    pub pid: i32,
    /// Clock ticks since the machine booted, from field 22 of `/proc/PID/stat`; 0 where there is none.
    pub start_ticks: u64,
}

/// Why a worker could not be made. Every variant is counted by the crash-loop breaker.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot start Deno")]
    Start(#[source] std::io::Error),
    /// The level is strict, and the jail is not what it must be.
    #[error(transparent)]
    Jail(#[from] crate::launcher::Unproved),
    #[error("cannot prepare the worker's directories")]
    Prepare(#[source] std::io::Error),
    #[error("Deno ended before it was ready ({status}){}", if .stderr.is_empty() { String::new() } else { format!(": {}", .stderr) })]
    Died { status: String, stderr: String },
    #[error("the worker was not ready within {after:?}")]
    BootTimeout { after: std::time::Duration },
}
