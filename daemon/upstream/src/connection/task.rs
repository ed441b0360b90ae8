//! The task of one connection: does what [`State`] decides.
//!
//! It owns the state and the current server. It receives wishes of calls and operators, the ends of leases, and the news
//! of the attempt, the keeper and the ping that it started itself. It publishes a [`ConnectionStatus`].

#![expect(
    deprecated,
    reason = "logging levels are on their way out of MCP (SEP-2577); older servers take them"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rmcp::model::LoggingLevel;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::client::{Answers, Users};
use crate::connection::live::{Lease, Live};
use crate::connection::open::{Era, OpenError, Opened, Spec};
use crate::connection::request::{Limits, Operation};
use crate::connection::state::{Action, PhaseStatus, State, Verdict, Why};
use crate::connection::watches::Watches;
use crate::log::{LogRing, LogSource};
use crate::manifest::Manifests;
use crate::session::{ClientRequests, SessionId};
use crate::transport::ledger::Notice;

/// How long calls in flight may go on at a server that was replaced.
const DRAIN: Duration = Duration::from_secs(600);

/// Commands of operators that may wait, besides one of each call in flight.
const OPERATORS: usize = 16;

/// News that may wait. The reporters have nothing else to do and wait in their turn.
const NEWS: usize = 8;

/// How long a server may take to accept a log level; nobody waits for it.
const LEVEL_TIME: Duration = Duration::from_secs(10);

/// What the task is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Lease {
        session: SessionId,
        reply: oneshot::Sender<Result<Lease, Refusal>>,
    },
    Stop,
    Restart,
    /// The session that it belongs to wants to hear log messages from this level on.
    LogLevel(LoggingLevel),
}

/// Why there is no lease.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    Start(OpenError),
    Open { failures: u32, until: Instant, last: Option<OpenError> },
    Closing,
}

/// What can be seen of a connection from outside.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionStatus {
    pub(crate) phase: PhaseStatus,
    pub(crate) live: Option<Arc<Live>>,
    pub(crate) ready_since: Option<SystemTime>,
    pub(crate) failures: u32,
    pub(crate) last_failure: Option<OpenError>,
    pub(crate) n_starts: u64,
}

/// What a connection is made of; the task takes it over.
pub(crate) struct Parts {
    pub(crate) label: Arc<str>,
    pub(crate) spec: Spec,
    pub(crate) state: State,
    pub(crate) owner: Option<SessionId>,
    pub(crate) router: Option<Arc<dyn ClientRequests>>,
    pub(crate) declined: Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) watches: Arc<Watches>,
    /// What the session that it belongs to asked for.
    pub(crate) log_level: Option<LoggingLevel>,
    pub(crate) log: Arc<LogRing>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) tracker: TaskTracker,
    /// Ends the connection once its calls are done.
    pub(crate) close: CancellationToken,
    /// Ends every server at once, calls or not.
    pub(crate) force: CancellationToken,
    pub(crate) max_in_flight: usize,
}

pub(crate) struct Task {
    parts: Parts,
    commands: mpsc::Receiver<Command>,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    status: watch::Sender<ConnectionStatus>,
    waiting: VecDeque<(SessionId, oneshot::Sender<Result<Lease, Refusal>>)>,
    current: Option<Arc<Live>>,
    attempt: Option<JoinHandle<()>>,
    generation: u64,
    ready_since: Option<SystemTime>,
    last_failure: Option<OpenError>,
}

/// What the task's own children report.
enum News {
    Opened { generation: u64, answers: Answers, result: Box<Result<Opened, OpenError>> },
    Ended { generation: u64 },
    Pinged { generation: u64, answered: bool },
}

impl ConnectionStatus {
    fn new() -> Self {
        let phase = PhaseStatus::Idle;
        Self { phase, live: None, ready_since: None, failures: 0, last_failure: None, n_starts: 0 }
    }
}

/// Starts the task of a connection.
pub(crate) fn spawn(parts: Parts) -> (mpsc::Sender<Command>, watch::Receiver<ConnectionStatus>) {
    let (commands, receiver) = mpsc::channel(parts.max_in_flight + OPERATORS);
    let (status, seen) = watch::channel(ConnectionStatus::new());
    let tracker = parts.tracker.clone();
    let task = Task {
        parts,
        commands: receiver,
        news: mpsc::channel(NEWS),
        status,
        waiting: VecDeque::new(),
        current: None,
        attempt: None,
        generation: 0,
        ready_since: None,
        last_failure: None,
    };
    tracker.spawn(task.run());
    (commands, seen)
}

impl Task {
    async fn run(mut self) {
        loop {
            while let Some(action) = self.parts.state.due(Instant::now()) {
                self.act(action);
            }
            self.publish();
            let wakeup = self.parts.state.next_wakeup();
            tokio::select! {
                // Cancel-safe, as all receivers of channels are.
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                // Cancel-safe: a stored permit is not lost before it is awaited.
                () = left(self.current.as_deref()) => {
                    if let Some(Live { users, .. }) = self.current.as_deref() {
                        if users.take_late() {
                            self.parts.state.timed_out();
                        }
                        self.parts.state.released(Instant::now(), users.n_calls(), users.take_answered());
                    }
                }
                // Cancel-safe: a stored permit is not lost before it is awaited.
                () = self.parts.watches.changed.notified() => {
                    self.parts.state.set_watched(!self.parts.watches.is_empty());
                }
                // Cancel-safe, as all receivers of channels are.
                Some(news) = self.news.1.recv() => self.news(news),
                // Cancel-safe: a token stays cancelled.
                () = self.parts.close.cancelled() => break,
                // Cancel-safe: a token stays cancelled.
                () = self.parts.force.cancelled() => break,
                // Cancel-safe: a point in time.
                () = sleep_until(wakeup.unwrap_or_else(Instant::now).into()), if wakeup.is_some() => {}
            }
        }
        self.close();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Lease { session, reply } => self.lease(session, reply),
            Command::Stop => {
                let retire = self.parts.state.stop();
                self.interrupted(retire);
                let reason = "it was stopped".to_owned();
                self.refuse_waiting(&Refusal::Start(OpenError::Failed { reason, stderr: Vec::new() }));
            }
            Command::Restart => {
                let retire = self.parts.state.restart();
                self.interrupted(retire);
            }
            Command::LogLevel(level) => {
                self.parts.log_level = Some(level);
                self.tell_log_level();
            }
        }
    }

    /// Tells a server that takes it from which level on its messages are wanted.
    fn tell_log_level(&self) {
        let (Some(level), Some(live)) = (self.parts.log_level, self.current.clone()) else { return };
        if live.era != Era::Initialize || live.info.capabilities.logging.is_none() {
            return;
        }
        let label = self.parts.label.clone();
        self.parts.tracker.spawn(async move {
            let limits = Limits::internal(LEVEL_TIME, usize::MAX);
            if let Err(error) = live.send(&label, Operation::SetLevel(level), &limits).await {
                tracing::info!(upstream = %label, %error, "its log level stays");
            }
        });
    }

    fn lease(&mut self, session: SessionId, reply: oneshot::Sender<Result<Lease, Refusal>>) {
        match self.parts.state.want(Instant::now()) {
            Verdict::Use => {
                let live = self.current.clone().expect("a server that may be used is there");
                // Receiver gone: the lease comes back and ends.
                reply.send(Ok(Lease::new(live, session))).ok();
            }
            Verdict::Wait => self.waiting.push_back((session, reply)),
            Verdict::Refuse(until) => {
                let failures = self.parts.state.failures();
                reply.send(Err(Refusal::Open { failures, until, last: self.last_failure.clone() })).ok();
            }
        }
    }

    /// An operator ended the server, or the attempt to start one.
    fn interrupted(&mut self, retire: Option<Action>) {
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.last_failure = None;
        if let Some(action) = retire {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start => self.start(),
            Action::Retire(why) => {
                if let Some(live) = self.current.take() {
                    self.retire(live, why);
                }
            }
            Action::Ping => {
                let Some(live) = self.current.clone() else { return };
                let news = self.news.0.clone();
                self.parts.tracker.spawn(async move {
                    let answered = live.ping().await;
                    // Receiver gone: the connection is closed.
                    news.send(News::Pinged { generation: live.generation, answered }).await.ok();
                });
            }
        }
    }

    fn start(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        let Parts { label, spec, owner, router, declined, watches, log, manifests, .. } = &self.parts;
        let answers = Answers {
            server: label.clone(),
            owner: owner.clone(),
            users: Arc::new(Users::default()),
            router: router.clone(),
            declined: declined.clone(),
            watches: watches.clone(),
        };
        let (spec, log, news, era) = (spec.clone(), log.clone(), self.news.0.clone(), manifests.era());
        let sink = {
            let (log, manifests, answers) = (log.clone(), manifests.clone(), answers.clone());
            Arc::new(move |notice: Notice| take(notice, &log, &manifests, &answers))
        };
        self.attempt = Some(self.parts.tracker.spawn(async move {
            let result = Box::new(spec.open(era, &answers, &log, &(sink as _)).await);
            // Receiver gone: the connection is closed; what was opened ends with its drop.
            news.send(News::Opened { generation, answers, result }).await.ok();
        }));
    }

    fn news(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Opened { generation, answers, result }
                if generation == self.generation && self.attempt.is_some() =>
            {
                self.attempt = None;
                match *result {
                    Ok(opened) => self.opened(opened, answers),
                    Err(error) => self.failed(error, now),
                }
            }
            News::Ended { generation } if self.is_current(generation) => {
                self.current = None;
                self.parts.state.lost(now);
            }
            News::Pinged { generation, answered } if self.is_current(generation) => {
                if let Some(action) = self.parts.state.pinged(now, answered) {
                    self.act(action);
                }
            }
            // Of a server that is no longer the current one.
            News::Opened { .. } | News::Ended { .. } | News::Pinged { .. } => {}
        }
    }

    fn opened(&mut self, opened: Opened, answers: Answers) {
        let (live, kept) = Live::new(opened, self.generation, answers, self.parts.log.clone());
        self.parts.manifests.attach(&live, &self.parts.label);
        self.parts.watches.renew(&live, &live.answers, &self.parts.tracker);
        let (news, generation) = (self.news.0.clone(), self.generation);
        self.parts.tracker.spawn(async move {
            kept.keep().await;
            // Receiver gone: the connection is closed.
            news.send(News::Ended { generation }).await.ok();
        });
        tracing::info!(upstream = %self.parts.label, pid = live.pid, protocol = %live.info.protocol_version, "ready");
        self.current = Some(live);
        self.tell_log_level();
        self.ready_since = Some(SystemTime::now());
        self.last_failure = None;
        self.parts.state.started(Instant::now());
        for (session, reply) in std::mem::take(&mut self.waiting) {
            if !reply.is_closed() {
                self.lease(session, reply);
            }
        }
    }

    fn failed(&mut self, error: OpenError, now: Instant) {
        let reason = match &error {
            OpenError::Auth => "it wants authorisation",
            OpenError::Failed { reason, .. } => reason,
        };
        self.parts.log.push(LogSource::Conductor, &format!("did not start: {reason}"));
        tracing::warn!(upstream = %self.parts.label, reason = %self.parts.log.redact(reason), "did not start");
        self.parts.state.failed(now);
        self.last_failure = Some(error.clone());
        self.refuse_waiting(&Refusal::Start(error));
    }

    fn refuse_waiting(&mut self, refusal: &Refusal) {
        for (_, reply) in self.waiting.drain(..) {
            // Receiver gone: the call was cancelled.
            reply.send(Err(refusal.clone())).ok();
        }
    }

    /// Lets the calls of a server finish, then ends it.
    fn retire(&self, live: Arc<Live>, why: Why) {
        tracing::info!(upstream = %self.parts.label, pid = live.pid, ?why, "retired");
        let force = self.parts.force.clone();
        self.parts.tracker.spawn(async move {
            tokio::select! {
                // Cancel-safe.
                _ = timeout(DRAIN, live.users.none_left()) => {}
                // Cancel-safe: a token stays cancelled.
                () = force.cancelled() => {}
            }
            live.close.cancel();
        });
    }

    fn close(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        if let Some(live) = self.current.take() {
            self.retire(live, Why::Asked);
        }
        self.refuse_waiting(&Refusal::Closing);
        self.publish();
    }

    fn is_current(&self, generation: u64) -> bool {
        self.current.as_ref().is_some_and(|live| live.generation == generation)
    }

    fn publish(&self) {
        self.status.send_replace(ConnectionStatus {
            phase: self.parts.state.status(),
            live: self.current.clone(),
            ready_since: self.current.as_ref().and(self.ready_since),
            failures: self.parts.state.failures(),
            last_failure: self.last_failure.clone(),
            n_starts: self.generation,
        });
    }
}

/// Waits until calls of a server are over; for ever if there is none.
async fn left(current: Option<&Live>) {
    match current {
        Some(live) => live.users.left.notified().await,
        None => std::future::pending().await,
    }
}

fn take(notice: Notice, log: &LogRing, manifests: &Manifests, answers: &Answers) {
    match &notice {
        Notice::Log { level, logger, data } => {
            let logger = logger.as_deref().map(|logger| format!("{logger}: ")).unwrap_or_default();
            let data = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
            log.push(LogSource::Message, &format!("{level}: {logger}{data}"));
            answers.log(&notice);
        }
        Notice::ResourceUpdated { uri } => answers.updated(uri),
        Notice::ToolsChanged | Notice::PromptsChanged | Notice::ResourcesChanged => manifests.outdated(),
    }
}

impl Manifests {
    fn era(&self) -> Option<Era> {
        self.current().map(|manifest| manifest.era)
    }
}
