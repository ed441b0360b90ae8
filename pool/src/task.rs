//! The task that owns all workers, and the handle everybody else holds.
//!
//! [`PoolTask`] waits for requests, for workers and for time, feeds [`PoolState`] one event at a time and carries out its
//! effects: it boots through the [`WorkerSource`], holds the idle workers and watches over them, hands them out, kills
//! and reaps. It decides nothing itself.
//!
//! In: requests of [`PoolHandle`]s, and the endings of [`Lease`]s. Out: leases, and [`PoolStatus`] on a `watch`. A caller
//! that has an idle worker waiting costs one hop to this task and one back; boots and reaping run beside it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::{ConfigError, MAX_WORKERS, PoolConfig};
use crate::error_chain;
use crate::lease::{Ending, Lease, LeaseError};
use crate::source::{BoxFuture, Reaped, SpawnError, Worker, WorkerIdentity, WorkerKind, WorkerSource};
use crate::spec::WorkerSpec;
use crate::state::{Effect, Event, PoolState, RetireReason, WaiterId, WorkerId};
use crate::status::{PoolStatus, profile_id};

/// Requests on their way. The task takes each in microseconds; when that many pile up, the next sender waits its turn.
const REQUESTS: usize = 64;

#[cfg(test)]
mod tests;

/// The pool's task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool has ended")]
pub struct PoolGone;

/// Why new settings were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconfigureError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Gone(#[from] PoolGone),
}

/// Talks to one [`PoolTask`]. When the last handle is dropped, the task kills every worker and ends.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    requests: mpsc::Sender<Request>,
}

/// Keeps a profile warm; dropping it lets the profile go once it is unused for long enough.
#[derive(Debug)]
pub struct Registration {
    _held: oneshot::Receiver<Infallible>,
}

type Grant = Result<Lease, LeaseError>;

#[derive(Debug)]
enum Request {
    Prepare(Registered),
    Lease { spec: Arc<WorkerSpec>, session: u64, wait: Option<Duration>, reply: oneshot::Sender<Grant> },
    Reconfigure(PoolConfig),
    RetireIdle(RetireReason),
    Drain { within: Duration, done: oneshot::Sender<()> },
    Status(oneshot::Sender<PoolStatus>),
    Watch(oneshot::Sender<watch::Receiver<PoolStatus>>),
}

/// The task's end of a [`Registration`].
#[derive(Debug)]
struct Registered {
    spec: Arc<WorkerSpec>,
    released: oneshot::Sender<Infallible>,
}

impl PoolHandle {
    /// Starts warming workers of this profile, and keeps them warm while the registration lives.
    pub async fn prepare(&self, spec: Arc<WorkerSpec>) -> Result<Registration, PoolGone> {
        let (released, held) = oneshot::channel();
        self.send(Request::Prepare(Registered { spec, released })).await?;
        Ok(Registration { _held: held })
    }

    /// Takes a worker for one run: an idle one at once, else in fair turn among sessions, within `wait` (default: the
    /// configured time).
    ///
    /// # Cancel safety
    /// Dropping the future frees the place in the queue; a worker that was just granted serves the next caller.
    pub async fn lease(
        &self,
        spec: Arc<WorkerSpec>,
        session: u64,
        wait: Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let (reply, granted) = oneshot::channel();
        let request = Request::Lease { spec, session, wait, reply };
        self.send(request).await.map_err(|PoolGone| LeaseError::Gone)?;
        granted.await.map_err(|_| LeaseError::Gone)?.map(Lease::claim)
    }

    /// Applies new settings and replaces all idle workers; running jobs are not touched.
    pub async fn reconfigure(&self, config: PoolConfig) -> Result<(), ReconfigureError> {
        config.validate()?;
        Ok(self.send(Request::Reconfigure(config)).await?)
    }

    /// Replaces all idle workers, and those that are booting as soon as they are ready.
    pub async fn retire_idle(&self, reason: RetireReason) -> Result<(), PoolGone> {
        self.send(Request::RetireIdle(reason)).await
    }

    /// Grants no more leases, gives running jobs until the deadline, and is done when every worker is reaped. A job that
    /// is killed at the deadline reports `Cancelled`.
    pub async fn drain(&self, within: Duration) -> Result<(), PoolGone> {
        let (done, drained) = oneshot::channel();
        self.send(Request::Drain { within, done }).await?;
        drained.await.map_err(|_| PoolGone)
    }

    pub async fn status(&self) -> Result<PoolStatus, PoolGone> {
        let (reply, status) = oneshot::channel();
        self.send(Request::Status(reply)).await?;
        status.await.map_err(|_| PoolGone)
    }

    /// The status as it changes; bursts of changes are seen as one.
    pub async fn watch(&self) -> Result<watch::Receiver<PoolStatus>, PoolGone> {
        let (reply, receiver) = oneshot::channel();
        self.send(Request::Watch(reply)).await?;
        receiver.await.map_err(|_| PoolGone)
    }

    async fn send(&self, request: Request) -> Result<(), PoolGone> {
        self.requests.send(request).await.map_err(|_| PoolGone)
    }
}

/// Owns every worker that nobody has leased. See the module's documentation.
pub struct PoolTask {
    state: PoolState,
    source: Arc<dyn WorkerSource>,
    started: Instant,
    /// The time the machine was last told, counted from `started`.
    fed_at: Duration,
    inputs: Inputs,
    /// Each lease takes one slot of this channel with it. Workers never outnumber its capacity, [`MAX_WORKERS`].
    endings: mpsc::Sender<(WorkerId, Ending)>,
    /// Leased workers, and how to kill them.
    leased: HashMap<WorkerId, (WorkerIdentity, CancellationToken)>,
    /// What each task of `inputs.work` does.
    work: HashMap<Id, Work>,
    drains: Vec<oneshot::Sender<()>>,
    status: watch::Sender<PoolStatus>,
    next_waiter: u64,
}

/// All that the task waits for.
struct Inputs {
    requests: mpsc::Receiver<Request>,
    endings: mpsc::Receiver<(WorkerId, Ending)>,
    /// Boots and reapings under way.
    work: JoinSet<Done>,
    /// Workers that are idle, or about to be retired.
    held: HashMap<WorkerId, Box<dyn Worker>>,
    waiters: HashMap<WaiterId, oneshot::Sender<Grant>>,
    registrations: Vec<Registered>,
    /// Handles are left.
    open: bool,
}

enum Input {
    Request(Option<Request>),
    Ending(WorkerId, Ending),
    Work(Result<(Id, Done), JoinError>),
    Died(WorkerId),
    WaiterGone(WaiterId),
    Released(Arc<WorkerSpec>),
    KindChanged(Arc<WorkerSpec>, WorkerKind),
    Time,
    Quiet,
}

enum Done {
    Booted(Result<Box<dyn Worker>, SpawnError>),
    Reaped,
}

enum Work {
    Boot(WorkerId, AbortHandle),
    Reap(WorkerId),
}

/// Makes a pool; it does nothing until [`PoolTask::run`] is awaited.
///
/// # Errors
/// The first setting that is out of its bounds.
pub fn pool(
    config: PoolConfig,
    source: Arc<dyn WorkerSource>,
) -> Result<(PoolHandle, PoolTask), ConfigError> {
    config.validate()?;
    let (requests, requested) = mpsc::channel(REQUESTS);
    let (endings, ended) = mpsc::channel(MAX_WORKERS);
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let task = PoolTask {
        state: PoolState::new(config, seed),
        source,
        started: Instant::now(),
        fed_at: Duration::ZERO,
        inputs: Inputs {
            requests: requested,
            endings: ended,
            work: JoinSet::new(),
            held: HashMap::new(),
            waiters: HashMap::new(),
            registrations: Vec::new(),
            open: true,
        },
        endings,
        leased: HashMap::new(),
        work: HashMap::new(),
        drains: Vec::new(),
        status: watch::Sender::new(PoolStatus::default()),
        next_waiter: 0,
    };
    Ok((PoolHandle { requests }, task))
}

impl PoolTask {
    /// Serves until the last handle is dropped and every worker is reaped.
    pub async fn run(mut self) {
        let mut unpublished = false;
        while self.inputs.open || !self.is_drained() {
            // As of the last event: what fell due since then has not been seen by the machine yet.
            let wake_at = self.state.wake_at(self.fed_at).map(|at| self.started + at);
            match self.inputs.next(&*self.source, wake_at, unpublished).await {
                Input::Quiet => {
                    self.publish();
                    unpublished = false;
                }
                input => {
                    self.take(input);
                    unpublished = self.status.receiver_count() > 0;
                }
            }
            if self.is_drained() {
                for done in self.drains.drain(..) {
                    // Receiver gone: the caller gave up.
                    done.send(()).ok();
                }
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Request(Some(request)) => self.take_request(request),
            Input::Request(None) => {
                self.inputs.open = false;
                self.feed(Event::Drain { deadline: self.now() });
            }
            Input::Ending(worker, ending) => self.take_ending(worker, ending),
            Input::Work(Ok((id, done))) => self.take_done(id, done),
            Input::Work(Err(error)) => self.take_failure(&error),
            Input::Died(worker) => self.feed(Event::Died { worker }),
            Input::WaiterGone(waiter) => {
                self.inputs.waiters.remove(&waiter);
                self.feed(Event::WaiterGone { waiter });
            }
            Input::Released(spec) => self.feed(Event::Release { spec }),
            Input::KindChanged(spec, kind) => self.feed(Event::KindChanged { spec, kind }),
            Input::Time => self.feed(Event::Tick),
            Input::Quiet => {}
        }
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Prepare(registered) => {
                let spec = Arc::clone(&registered.spec);
                self.inputs.registrations.push(registered);
                self.feed(Event::Prepare { spec });
            }
            Request::Lease { spec, session, wait, reply } => {
                self.next_waiter += 1;
                let waiter = WaiterId(self.next_waiter);
                self.inputs.waiters.insert(waiter, reply);
                self.feed(Event::Lease { waiter, spec, session, wait });
            }
            Request::Reconfigure(config) => self.feed(Event::Reconfigure { config }),
            Request::RetireIdle(reason) => self.feed(Event::RetireIdle { reason }),
            Request::Drain { within, done } => {
                self.drains.push(done);
                self.feed(Event::Drain { deadline: self.now() + within });
            }
            // Receivers gone: the callers gave up.
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Watch(reply) => {
                self.publish();
                drop(reply.send(self.status.subscribe()));
            }
        }
    }

    fn take_ending(&mut self, worker: WorkerId, ending: Ending) {
        let lease = self.leased.remove(&worker);
        if let (Some((identity, _)), Ending::Ran(_) | Ending::Abandoned(_)) = (lease, &ending) {
            debug!(pid = identity.pid, start_ticks = identity.start_ticks, "worker used");
        }
        match ending {
            Ending::Unclaimed(held) => {
                self.inputs.held.insert(worker, held);
                self.feed(Event::Unclaimed { worker });
            }
            Ending::Dropped(held) => {
                self.inputs.held.insert(worker, held);
                self.feed(Event::LeaseDropped { worker });
            }
            Ending::Ran(reaped) => {
                self.reap(worker, reaped);
                self.feed(Event::RunEnded { worker });
            }
            Ending::Abandoned(run) => {
                self.reap(
                    worker,
                    Box::pin(async {
                        let (_, reaped) = run.await;
                        reaped.await;
                    }),
                );
                self.feed(Event::RunEnded { worker });
            }
        }
    }

    fn take_done(&mut self, id: Id, done: Done) {
        let Some(Work::Boot(worker, _) | Work::Reap(worker)) = self.work.remove(&id) else { return };
        match done {
            Done::Booted(Ok(booted)) => {
                let (identity, kind) = (booted.identity(), booted.kind());
                debug!(
                    pid = identity.pid,
                    start_ticks = identity.start_ticks,
                    kind = kind.name(),
                    "worker ready"
                );
                self.inputs.held.insert(worker, booted);
                self.feed(Event::Booted { worker, kind });
            }
            Done::Booted(Err(error)) => self.take_boot_failure(worker, error),
            Done::Reaped => self.feed(Event::Reaped { worker }),
        }
    }

    /// A boot that was aborted, or a source that panicked.
    fn take_failure(&mut self, error: &JoinError) {
        match self.work.remove(&error.id()) {
            Some(Work::Boot(worker, _)) if error.is_panic() => {
                self.take_boot_failure(worker, SpawnError::Start(io::Error::other(error.to_string())));
            }
            Some(Work::Boot(worker, _) | Work::Reap(worker)) => self.feed(Event::Reaped { worker }),
            None => {}
        }
    }

    fn take_boot_failure(&mut self, worker: WorkerId, error: SpawnError) {
        warn!(error = error_chain(&error), "worker failed to boot");
        self.feed(Event::BootFailed { worker, error: Arc::new(error) });
    }

    fn feed(&mut self, event: Event) {
        self.fed_at = self.now();
        for effect in self.state.on_event(self.fed_at, event) {
            match effect {
                Effect::Boot { worker, spec } => self.boot(worker, spec),
                Effect::Retire { worker, reason } => self.retire(worker, reason),
                Effect::Grant { waiter, worker } => self.grant(waiter, worker),
                Effect::Refuse { waiter, error } => {
                    if let Some(reply) = self.inputs.waiters.remove(&waiter) {
                        // Receiver gone: the caller gave up.
                        drop(reply.send(Err(error)));
                    }
                }
                Effect::BreakerOpened { spec, retry_at } => {
                    let retry_in = retry_at.saturating_sub(self.now());
                    warn!(
                        profile = profile_id(&spec),
                        ?retry_in,
                        "workers keep failing to boot; breaker opened"
                    );
                }
            }
        }
    }

    fn boot(&mut self, worker: WorkerId, spec: Arc<WorkerSpec>) {
        debug!(profile = profile_id(&spec), "worker boots");
        let after = self.state.config().boot_timeout;
        let boot = self.source.boot(spec);
        let task = self.inputs.work.spawn(async move {
            let booted = timeout(after, boot).await;
            Done::Booted(booted.unwrap_or(Err(SpawnError::BootTimeout { after })))
        });
        self.work.insert(task.id(), Work::Boot(worker, task));
    }

    /// Kills a worker that is held or booting. A leased one is killed through its lease, and comes back as an ending.
    fn retire(&mut self, worker: WorkerId, reason: RetireReason) {
        if let Some(held) = self.inputs.held.remove(&worker) {
            let identity = held.identity();
            debug!(pid = identity.pid, start_ticks = identity.start_ticks, ?reason, "worker retired");
            self.reap(worker, held.retire());
        } else if let Some((_, kill)) = self.leased.get(&worker) {
            kill.cancel();
        } else {
            let of_worker = |work: &&Work| matches!(work, Work::Boot(booting, _) if *booting == worker);
            if let Some(Work::Boot(_, task)) = self.work.values().find(of_worker) {
                task.abort();
            }
        }
    }

    fn grant(&mut self, waiter: WaiterId, worker: WorkerId) {
        let held =
            self.inputs.held.remove(&worker).expect("only idle workers are granted, and they are held");
        let slot = self.endings.clone().try_reserve_owned().expect("there is a slot for every worker");
        let kill = CancellationToken::new();
        self.leased.insert(worker, (held.identity(), kill.clone()));
        let lease = Lease::unclaimed(worker, held, slot, kill);
        if let Some(reply) = self.inputs.waiters.remove(&waiter) {
            // Receiver gone: the lease that comes back is dropped here, and the worker returns as `Unclaimed`.
            drop(reply.send(Ok(lease)));
        }
    }

    fn reap(&mut self, worker: WorkerId, reaped: Reaped) {
        let task = self.inputs.work.spawn(async move {
            reaped.await;
            Done::Reaped
        });
        self.work.insert(task.id(), Work::Reap(worker));
    }

    fn is_drained(&self) -> bool {
        self.state.is_drained() && self.inputs.work.is_empty()
    }

    fn status(&self) -> PoolStatus {
        let mut status = self.state.status(self.now());
        for (profile, spec) in status.profiles.iter_mut().zip(self.state.specs()) {
            profile.fallback = self.source.fallback(spec);
            profile.templates = self.source.templates(spec);
            profile.left_out = self.source.left_out(spec);
        }
        status
    }

    fn publish(&self) {
        self.status.send_replace(self.status());
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl std::fmt::Debug for PoolTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolTask").finish_non_exhaustive()
    }
}

impl Inputs {
    /// Waits for the next thing to happen; `Quiet` if nothing has and `unpublished` asks to be told.
    async fn next(
        &mut self,
        source: &dyn WorkerSource,
        wake_at: Option<Instant>,
        unpublished: bool,
    ) -> Input {
        let mut deaths: Vec<_> = self.held.iter_mut().map(|(id, worker)| (*id, worker.died())).collect();
        let gone = poll_fn(|context| poll_gone(&mut self.waiters, context));
        let released = poll_fn(|context| poll_released(&mut self.registrations, context));
        tokio::select! {
            // Biased: what is known about workers and callers comes before requests, so that no dead worker is granted
            // and no boot begins for a caller who left. It cannot starve requests: each worker dies, ends and is
            // reaped once, each caller leaves once.
            biased;
            // Cancel-safe: `died` is.
            worker = poll_fn(|context| poll_deaths(&mut deaths, context)) => Input::Died(worker),
            // Cancel-safe: `recv` is. The pool holds a sender, so it never yields `None`.
            Some((worker, ending)) = self.endings.recv() => Input::Ending(worker, ending),
            // Cancel-safe: `join_next_with_id` is. `None` when nothing is under way.
            Some(done) = self.work.join_next_with_id() => Input::Work(done),
            // Cancel-safe: it only looks. Unconstrained, for a scan of many would spend the task's whole budget.
            waiter = tokio::task::unconstrained(gone) => Input::WaiterGone(waiter),
            // Cancel-safe: it takes out a registration only when it is ready with it. Unconstrained as above.
            spec = tokio::task::unconstrained(released) => Input::Released(spec),
            // Cancel-safe: `changed` is.
            (spec, kind) = source.changed() => Input::KindChanged(spec, kind),
            // Cancel-safe: `recv` is.
            request = self.requests.recv(), if self.open => Input::Request(request),
            // Cancel-safe: it has no effect but waiting.
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => Input::Time,
            // Cancel-safe: it has no effect.
            () = ready(()), if unpublished => Input::Quiet,
        }
    }
}

fn poll_deaths(deaths: &mut [(WorkerId, BoxFuture<'_, ()>)], context: &mut Context<'_>) -> Poll<WorkerId> {
    let dead = deaths.iter_mut().find_map(|(id, died)| died.as_mut().poll(context).is_ready().then_some(*id));
    dead.map_or(Poll::Pending, Poll::Ready)
}

fn poll_gone(
    waiters: &mut HashMap<WaiterId, oneshot::Sender<Grant>>,
    context: &mut Context<'_>,
) -> Poll<WaiterId> {
    let gone =
        waiters.iter_mut().find_map(|(id, reply)| reply.poll_closed(context).is_ready().then_some(*id));
    gone.map_or(Poll::Pending, Poll::Ready)
}

fn poll_released(registrations: &mut Vec<Registered>, context: &mut Context<'_>) -> Poll<Arc<WorkerSpec>> {
    let released = |registered: &mut Registered| registered.released.poll_closed(context).is_ready();
    match registrations.iter_mut().position(released) {
        Some(position) => Poll::Ready(registrations.swap_remove(position).spec),
        None => Poll::Pending,
    }
}
