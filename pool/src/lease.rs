//! One worker in a caller's hands, for one run.
//!
//! A lease is single-use by type: [`Lease::run`] consumes it, and there is no way to hand a worker back. However a lease
//! ends, its ending reaches the pool through a slot reserved when the worker was granted, so that it can be sent from
//! `Drop` and is never lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_util::sync::CancellationToken;

use crate::job::{Job, RunEvent, RunReport};
use crate::source::{BoxFuture, Reaped, SpawnError, Worker, WorkerIdentity};
use crate::state::WorkerId;

/// Why a caller got no worker.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The queue was full (`waited` is zero), or the wait was over.
    #[error("every worker is busy: {queued} calls are queued, this one waited {waited:?}")]
    Busy { queued: usize, waited: Duration },
    /// The last boots of this profile all failed; `source` is the latest failure.
    #[error("workers of this profile fail to start; the next attempt is in {retry_in:?}")]
    Broken { source: Arc<SpawnError>, retry_in: Duration },
    #[error("the pool is shutting down")]
    Draining,
    #[error("the pool has ended")]
    Gone,
}

impl LeaseError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "run fewer calls at once, shorten them, or raise `max-workers`",
            Self::Broken { .. } => "run `conductorctl doctor`, which starts a worker and names what is wrong",
            Self::Draining | Self::Gone => "call again; the daemon is started anew when it is needed",
        }
    }
}

/// An idle worker that now belongs to one caller.
///
/// A leased worker never becomes idle again: run a job with it, or drop the lease and the worker is killed. Do either
/// at once, a pool that drains waits for it.
pub struct Lease {
    id: WorkerId,
    identity: WorkerIdentity,
    held: Option<Held>,
    /// Cancelled by the pool when the worker must end before its run does.
    kill: CancellationToken,
    unused: fn(Box<dyn Worker>) -> Ending,
}

struct Held {
    worker: Box<dyn Worker>,
    slot: OwnedPermit<(WorkerId, Ending)>,
}

/// How a lease ended; what the pool must still do with the worker is inside.
pub(crate) enum Ending {
    /// Nobody took the lease: the worker has never been in anyone's hands.
    Unclaimed(Box<dyn Worker>),
    /// Dropped without a run.
    Dropped(Box<dyn Worker>),
    /// The report is with the caller.
    Ran(Reaped),
    /// The caller went away during the run, which is cancelled and has to be awaited.
    Abandoned(BoxFuture<'static, (RunReport, Reaped)>),
}

impl Lease {
    /// A lease on its way to a caller who may be gone; [`Lease::claim`] is called when it arrives.
    pub(crate) fn unclaimed(
        id: WorkerId,
        worker: Box<dyn Worker>,
        slot: OwnedPermit<(WorkerId, Ending)>,
        kill: CancellationToken,
    ) -> Self {
        let identity = worker.identity();
        Self { id, identity, held: Some(Held { worker, slot }), kill, unused: Ending::Unclaimed }
    }

    pub(crate) fn claim(mut self) -> Self {
        self.unused = Ending::Dropped;
        self
    }

    pub fn worker(&self) -> WorkerIdentity {
        self.identity
    }

    /// Runs the one job of this worker's life. The worker is reaped and replaced in the background.
    ///
    /// # Cancel safety
    /// Dropping the future kills the worker.
    pub async fn run(
        mut self,
        job: Job,
        events: Option<mpsc::Sender<RunEvent>>,
        cancel: CancellationToken,
    ) -> RunReport {
        let Held { worker, slot } =
            self.held.take().expect("only run and drop take it, and each ends the lease");
        let mut running = Running {
            id: self.id,
            run: Some((worker.run(job, events, self.kill.clone()), slot)),
            kill: self.kill.clone(),
        };
        running.finish(cancel).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Held { worker, slot }) = self.held.take() {
            drop(slot.send((self.id, (self.unused)(worker))));
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).field("worker", &self.identity).finish_non_exhaustive()
    }
}

type Run = BoxFuture<'static, (RunReport, Reaped)>;

/// A run under way; dropped before its end, it leaves the rest to the pool.
struct Running {
    id: WorkerId,
    run: Option<(Run, OwnedPermit<(WorkerId, Ending)>)>,
    kill: CancellationToken,
}

impl Running {
    async fn finish(&mut self, cancel: CancellationToken) -> RunReport {
        let (run, _) = self.run.as_mut().expect("taken only at the end");
        let (report, reaped) = tokio::select! {
            // Biased: a report that is there is the truth, even when the caller cancels in the same moment.
            biased;
            // Cancel-safe: `run` is only borrowed, and awaited again below.
            done = &mut *run => done,
            // Cancel-safe: it has no effect but waiting.
            () = cancel.cancelled() => {
                self.kill.cancel();
                run.await
            }
        };
        if let Some((_, slot)) = self.run.take() {
            drop(slot.send((self.id, Ending::Ran(reaped))));
        }
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((run, slot)) = self.run.take() {
            self.kill.cancel();
            drop(slot.send((self.id, Ending::Abandoned(run))));
        }
    }
}
