//! One running server, from ready to ended.
//!
//! Calls hold a [`Lease`] and work with the server directly, side by side. A keeper task waits for the end, whichever
//! comes first: the server's own, or the wish to be done with it; then it ends the process with everything below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{ClientRequest, DiscoverRequest, DiscoverRequestParams, PingRequest, ServerPeerInfo};
use rmcp::service::{Peer, RunningService};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::client::{Answers, Users};
use crate::connection::open::{Era, Opened};
use crate::connection::request::{self, Failure, Limits, Operation, Request};
use crate::error::CallError;
use crate::log::{LogRing, LogSource};
use crate::process::{ServerProcess, describe};
use crate::session::SessionId;

/// How long the end of a server may take to be explained to the calls that it failed.
const EXPLANATION: Duration = Duration::from_secs(1);

/// How long stdout of a server whose process has ended is still read: something it started may hold it open for ever.
const AFTER_EXIT: Duration = Duration::from_millis(300);

/// How long rmcp may take to wind up.
const WIND_UP: Duration = Duration::from_secs(3);

/// How long a sign of life may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

const TAIL: usize = 5;

/// A server that is ready, or was.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) generation: u64,
    pub(crate) peer: Peer<RoleClient>,
    pub(crate) info: Arc<ServerPeerInfo>,
    pub(crate) era: Era,
    pub(crate) pid: Option<u32>,
    pub(crate) users: Arc<Users>,
    pub(crate) answers: Answers,
    /// Its lists were fetched.
    pub(crate) listed: watch::Sender<bool>,
    /// Why it ended; `None` while it runs.
    pub(crate) end: watch::Receiver<Option<Arc<End>>>,
    /// Ends it.
    pub(crate) close: CancellationToken,
}

/// How a server ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) reason: String,
    pub(crate) stderr: Vec<String>,
}

/// The right to call a server; as long as there is one, the server is not idle.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) live: Arc<Live>,
    session: SessionId,
    answered: AtomicBool,
}

/// The part of a running server that its keeper owns.
pub(crate) struct Kept {
    service: RunningService<RoleClient, Answers>,
    process: Option<ServerProcess>,
    stderr: Option<tokio::task::JoinHandle<()>>,
    end: watch::Sender<Option<Arc<End>>>,
    close: CancellationToken,
    log: Arc<LogRing>,
}

impl Live {
    pub(crate) fn new(
        opened: Opened,
        generation: u64,
        answers: Answers,
        log: Arc<LogRing>,
    ) -> (Arc<Self>, Kept) {
        let Opened { service, process, stderr, era } = opened;
        let (end, end_seen) = watch::channel(None);
        let close = CancellationToken::new();
        let peer = service.peer().clone();
        let info = peer.peer_info().expect("a service that is ready knows its peer");
        let pid = process.as_ref().and_then(ServerProcess::pid);
        let users = answers.users.clone();
        let listed = watch::Sender::new(false);
        let live = Self {
            generation,
            peer,
            info,
            era,
            pid,
            users,
            answers,
            listed,
            end: end_seen,
            close: close.clone(),
        };
        (Arc::new(live), Kept { service, process, stderr, end, close, log })
    }

    /// A request that belongs to no session: lists.
    ///
    /// # Cancel safety
    /// As [`request::send`].
    pub(crate) async fn send(
        &self,
        server: &str,
        operation: Operation,
        limits: &Limits,
    ) -> Result<Box<RawValue>, CallError> {
        let method = operation.method();
        match request::send(&self.peer, server, Request::from(operation), limits, &|| false).await {
            Ok(result) => Ok(result),
            Err(failure) => Err(self.explain(server, method, failure).await),
        }
    }

    /// Whether it is over, or being ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.close.is_cancelled() || self.peer.is_transport_closed() || self.end.borrow().is_some()
    }

    /// Whether the server gives a sign of life.
    pub(crate) async fn ping(&self) -> bool {
        let request = match self.era {
            Era::Initialize => ClientRequest::PingRequest(PingRequest::default()),
            Era::Discover => ClientRequest::DiscoverRequest(DiscoverRequest::new(DiscoverRequestParams {})),
        };
        let answered = timeout(PING_TIMEOUT, self.peer.send_request(request)).await;
        // An error is a sign of life too.
        matches!(answered, Ok(Ok(_) | Err(rmcp::service::ServiceError::McpError(_))))
    }

    pub(crate) async fn explain(&self, server: &str, method: &str, failure: Failure) -> CallError {
        match failure {
            Failure::Call(error) => error,
            Failure::Gone => {
                let mut end = self.end.clone();
                let known = timeout(EXPLANATION, end.wait_for(Option::is_some)).await;
                let end = known.ok().and_then(Result::ok).and_then(|end| end.clone());
                let (reason, stderr) = end.map_or_else(
                    || ("the connection was closed".to_owned(), Vec::new()),
                    |end| (end.reason.clone(), end.stderr.clone()),
                );
                CallError::Disconnected {
                    server: server.to_owned(),
                    method: method.to_owned(),
                    reason,
                    stderr,
                }
            }
        }
    }
}

impl Lease {
    pub(crate) fn new(live: Arc<Live>, session: SessionId) -> Self {
        live.users.enter(&session);
        Self { live, session, answered: AtomicBool::new(false) }
    }

    /// A request of the session.
    ///
    /// # Cancel safety
    /// As [`request::send`].
    pub(crate) async fn send(
        &self,
        server: &str,
        request: Request,
        limits: &Limits,
    ) -> Result<Box<RawValue>, CallError> {
        let method = request.operation.method();
        let live = &self.live;
        let sent = request::send(&live.peer, server, request, limits, &|| live.users.is_asked()).await;
        let answered = matches!(
            sent,
            Ok(_) | Err(Failure::Call(CallError::JsonRpc { .. } | CallError::TooLarge { .. }))
        );
        self.answered.fetch_or(answered, Ordering::Relaxed);
        if matches!(sent, Err(Failure::Call(CallError::Timeout { .. }))) {
            live.users.was_late();
        }
        match sent {
            Ok(result) => Ok(result),
            Err(failure) => Err(live.explain(server, method, failure).await),
        }
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.live.users.leave(&self.session, self.answered.load(Ordering::Relaxed));
    }
}

impl Kept {
    /// Keeps the server until it ends or is no longer wanted; gives back whether it ended by itself.
    pub(crate) async fn keep(self) -> bool {
        let Self { service, mut process, mut stderr, end, close, log } = self;
        let stop = service.cancellation_token();
        let mut service = tokio::spawn(service.waiting());
        let by_itself = tokio::select! {
            // Cancel-safe: a join handle can be awaited again until it has given its output.
            _ = &mut service => true,
            // Cancel-safe.
            () = exited(process.as_mut()) => {
                timeout(AFTER_EXIT, &mut service).await.ok();
                true
            }
            // Cancel-safe: a token stays cancelled.
            () = close.cancelled() => false,
        };
        stop.cancel();
        if !service.is_finished() {
            timeout(WIND_UP, &mut service).await.ok();
            service.abort();
        }
        if by_itself {
            let status = match process.as_mut() {
                Some(process) => timeout(AFTER_EXIT, process.wait()).await.ok().and_then(Result::ok),
                None => None,
            };
            if let Some(stderr) = stderr.as_mut() {
                timeout(AFTER_EXIT, stderr).await.ok();
            }
            let reason = match &process {
                Some(_) if status.is_none() => "it closed its stdout".to_owned(),
                Some(_) => describe(status),
                None => "the connection was closed".to_owned(),
            };
            log.push(LogSource::Conductor, &reason);
            end.send_replace(Some(Arc::new(End { reason, stderr: log.tail(TAIL) })));
        } else {
            let reason = "it was stopped".to_owned();
            end.send_replace(Some(Arc::new(End { reason, stderr: Vec::new() })));
        }
        if let Some(process) = process {
            let status = process.end().await;
            if !by_itself {
                log.push(LogSource::Conductor, &format!("stopped: {}", describe(status)));
            }
        }
        by_itself
    }
}

/// Waits for the end of a process, for ever if there is none.
async fn exited(process: Option<&mut ServerProcess>) {
    match process {
        Some(process) => drop(process.wait().await),
        None => std::future::pending().await,
    }
}
