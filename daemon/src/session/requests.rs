//! What upstream servers ask of a session's client (elicitation, sampling, roots), and what they tell it: log messages, and
//! changes of resources.
//!
//! [`ClientRouter`] answers for `conductor_upstream`; [`Link`] is what a session knows of its client: the way to it, the
//! levels it wants to hear, and the calls that are open. Nobody is asked for what he did not declare, everybody answers
//! within a limit, and the end of the session or of the daemon is an answer too: a server never waits for ever.
//!
//! Up to 2025-11-25 the question is a request to the client. From 2026-07-28 on servers may send none: the question becomes
//! the result of a call that is open, and the retry of that call brings the reply (see [`super::rounds`]). A question names
//! its session, not its call; it goes to the youngest call that uses the server, or else to the youngest run of code, whose
//! code may. Whichever it is, the same user reads it.

#![expect(deprecated, reason = "logging is on its way out of MCP (SEP-2577), and clients of today use it")]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use conductor_upstream::{Ask, ClientRequests, ServerAsks, SessionId};
use rmcp::RoleServer;
use rmcp::model::{
    CancelledNotification, CancelledNotificationParam, ClientCapabilities, ClientResult, CustomRequest,
    LoggingLevel, LoggingMessageNotificationParam, RequestId, ServerRequest,
};
use rmcp::service::{Peer, PeerRequestOptions, RequestContext};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::follow::Severity;
use super::registry::Registry;
use super::{lock, until_draining};
use crate::supervisor::Phase;

/// How long a client may take to answer what a person has to decide, or a model to write.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5 * 60);

/// How long a client may take to list its roots, which it knows.
const ROOTS_TIME: Duration = Duration::from_secs(10);

/// Log messages that wait for the client; what has no room is left out, as logs may be.
const LOGS: usize = 64;

/// Questions that wait for one call: a server that asks more at once waits itself.
const QUESTIONS: usize = 16;

/// Sends each question of a server to the client of the session it is for.
#[derive(Debug)]
pub(crate) struct ClientRouter {
    registry: Registry,
    phase: watch::Receiver<Phase>,
}

/// The way from the daemon to a session's client.
#[derive(Debug)]
pub(super) struct Link {
    peer: OnceLock<Peer<RoleServer>>,
    /// What the client asked for with `logging/setLevel`.
    level: Mutex<Option<Severity>>,
    open: Mutex<Vec<Open>>,
    logs: mpsc::Sender<Log>,
}

/// A log message, and the way it goes.
#[derive(Debug)]
pub(super) struct Log {
    /// That of one call, or else the session's own.
    by: Option<Peer<RoleServer>>,
    message: LoggingMessageNotificationParam,
}

/// Log messages on their way to the client.
pub(super) type Logs = mpsc::Receiver<Log>;

/// A call that a client of the newer protocol waits for: it may be asked by way of it, and told what it logs.
#[derive(Debug)]
struct Open {
    call: Arc<str>,
    /// `None`: code, which may use any server.
    server: Option<String>,
    capabilities: ClientCapabilities,
    level: Option<Severity>,
    /// The way of the request that began it.
    peer: Peer<RoleServer>,
    questions: mpsc::Sender<Question>,
}

/// Takes a call out of the open ones.
#[derive(Debug)]
pub(super) struct OpenCall {
    session: Arc<super::Session>,
    call: Arc<str>,
}

/// What a server asks by way of a call.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) what: Ask,
    pub(super) params: Value,
    pub(super) reply: oneshot::Sender<Result<Value, String>>,
}

impl ClientRouter {
    pub(crate) fn new(registry: Registry, phase: watch::Receiver<Phase>) -> Self {
        Self { registry, phase }
    }
}

impl ClientRequests for ClientRouter {
    fn ask(
        &self,
        session: SessionId,
        request: ServerAsks,
    ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send>> {
        let session = self.registry.find(&session);
        let mut phase = self.phase.clone();
        Box::pin(async move {
            let session = session.ok_or("the session is over")?;
            let limit = if request.what == Ask::Roots { ROOTS_TIME } else { ANSWER_TIME };
            tokio::select! {
                // Cancel-safe, all of them: a question that nobody waits for is withdrawn, the others are flags and a time.
                answer = session.link.ask(request) => answer,
                () = session.gone.cancelled() => Err("the session is over".to_owned()),
                () = session.calls_over() => Err("the call that it belongs to is over".to_owned()),
                () = until_draining(&mut phase) => Err("the daemon is going down".to_owned()),
                () = tokio::time::sleep(limit) => {
                    Err(format!("the client did not answer within {}", humantime::format_duration(limit)))
                }
            }
        })
    }

    fn log(&self, session: &SessionId, server: &str, level: &str, logger: Option<&str>, data: &Value) {
        if let Some(session) = self.registry.find(session) {
            session.link.log(server, level, logger, data);
        }
    }

    fn updated(&self, session: &SessionId, uri: &str) {
        if let Some(session) = self.registry.find(session) {
            session.watches.changed(uri);
        }
    }
}

impl Link {
    pub(super) fn new() -> (Self, Logs) {
        let (logs, queue) = mpsc::channel(LOGS);
        let (peer, level, open) = (OnceLock::new(), Mutex::new(None), Mutex::default());
        (Self { peer, level, open, logs }, queue)
    }

    /// Learns the way to the client from one of its requests.
    pub(super) fn met(&self, peer: &Peer<RoleServer>) {
        self.peer.get_or_init(|| peer.clone());
    }

    pub(super) fn peer(&self) -> Option<&Peer<RoleServer>> {
        self.peer.get()
    }

    pub(super) fn level(&self) -> Option<Severity> {
        *lock(&self.level)
    }

    pub(super) fn set_level(&self, level: Severity) {
        *lock(&self.level) = Some(level);
    }

    async fn ask(&self, request: ServerAsks) -> Result<Value, String> {
        let ServerAsks { server, what, params } = request;
        let open = self.youngest(&server);
        if let Some((capabilities, questions)) = open {
            may_ask(&capabilities, what, &params)?;
            let (reply, answer) = oneshot::channel();
            let over = |_| "the call that it belongs to is over".to_owned();
            questions.send(Question { what, params, reply }).await.map_err(|gone| over(gone.to_string()))?;
            return answer.await.map_err(|gone| over(gone.to_string()))?;
        }
        let info = self.peer.get().and_then(Peer::peer_info).ok_or(
            "a client of this revision of the protocol can be asked only while it waits for a call, and it does not",
        )?;
        may_ask(&info.capabilities, what, &params)?;
        let peer = self.peer.get().ok_or("the client has said nothing yet")?;
        request_of(peer, what, params).await
    }

    fn youngest(&self, server: &str) -> Option<(ClientCapabilities, mpsc::Sender<Question>)> {
        let open = lock(&self.open);
        let by_tool = open.iter().rev().find(|call| call.server.as_deref() == Some(server));
        let by_code = || open.iter().rev().find(|call| call.server.is_none());
        // Profiles that share a server may have different names for it.
        by_tool
            .or_else(by_code)
            .or(open.last())
            .map(|call| (call.capabilities.clone(), call.questions.clone()))
    }

    fn log(&self, server: &str, level: &str, logger: Option<&str>, data: &Value) {
        let Ok(level) = serde_json::from_value::<LoggingLevel>(Value::from(level)) else { return };
        let Some(by) = self.listener(server, Severity::from(level)) else { return };
        let logger = logger.map_or_else(|| server.to_owned(), |logger| format!("{server}/{logger}"));
        let message = LoggingMessageNotificationParam::new(level, data.clone()).with_logger(logger);
        // full: the client reads slowly; closed: it is gone
        let _queued = self.logs.try_send(Log { by, message });
    }

    /// The way of what a server says so loud, if anybody wants to hear it: that of the youngest call that does and uses the
    /// server, else of the youngest that does at all, else the session's own.
    fn listener(&self, server: &str, severity: Severity) -> Option<Option<Peer<RoleServer>>> {
        let wants = |level: Option<Severity>| level.is_some_and(|least| least <= severity);
        let open = lock(&self.open);
        let mut by_call = open.iter().rev().filter(|call| wants(call.level));
        let of_server = by_call.clone().find(|call| call.server.as_deref() == Some(server));
        match of_server.or_else(|| by_call.next()) {
            Some(call) => Some(Some(call.peer.clone())),
            None => wants(self.level()).then_some(None),
        }
    }
}

impl super::Session {
    /// Ready when the last call is over; never where there was none, for then the question belongs to no call.
    async fn calls_over(&self) {
        let mut in_flight = self.in_flight.subscribe();
        if *in_flight.borrow() == 0 || in_flight.wait_for(|calls| *calls == 0).await.is_err() {
            std::future::pending().await
        }
    }

    /// Lets servers ask the client by way of a call while it is open; `None` where they can ask it at any time.
    /// `call` is its execution id, `server` the only one that it uses.
    pub(super) fn open_call(
        self: &Arc<Self>,
        call: &str,
        server: Option<&str>,
        context: &RequestContext<RoleServer>,
    ) -> Option<(OpenCall, mpsc::Receiver<Question>)> {
        if !is_newer(context) {
            return None;
        }
        let (questions, queue) = mpsc::channel(QUESTIONS);
        let call: Arc<str> = call.into();
        lock(&self.link.open).push(Open {
            call: call.clone(),
            server: server.map(str::to_owned),
            capabilities: context.client_capabilities().unwrap_or_default(),
            level: context.meta.log_level().map(Severity::from),
            peer: context.peer.clone(),
            questions,
        });
        Some((OpenCall { session: self.clone(), call }, queue))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        lock(&self.session.link.open).retain(|open| !Arc::ptr_eq(&open.call, &self.call));
    }
}

/// Whether a request is of a revision without requests from servers.
pub(super) fn is_newer(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| !version.has_initialize())
}

/// Passes log messages on in the order in which they came, for as long as the session lasts.
pub(super) async fn tell_logs(session: Arc<super::Session>, mut logs: Logs) {
    while let Some(Log { by, message }) = logs.recv().await {
        if let Some(peer) = by.as_ref().or_else(|| session.link.peer()) {
            // client gone: its call ends, or the session
            let _gone = peer.notify_logging_message(message).await;
        }
    }
}

/// Whether the client declared what it is asked for.
fn may_ask(declared: &ClientCapabilities, what: Ask, params: &Value) -> Result<(), String> {
    let missing = match what {
        Ask::Elicitation => match &declared.elicitation {
            None => Some("elicitation"),
            Some(modes) if params["mode"] == "url" => modes.url.is_none().then_some("elicitation by URL"),
            // A client that names no mode means forms.
            Some(modes) => (modes.form.is_none() && modes.url.is_some()).then_some("elicitation by forms"),
        },
        Ask::Sampling => match &declared.sampling {
            None => Some("sampling"),
            Some(sampling) => {
                let wants_tools = params.get("tools").or(params.get("toolChoice")).is_some();
                (wants_tools && sampling.tools.is_none()).then_some("sampling with tools")
            }
        },
        Ask::Roots => declared.roots.is_none().then_some("roots"),
    };
    missing.map_or(Ok(()), |missing| Err(format!("the client does not offer {missing}")))
}

/// The question as a request of the protocol.
pub(super) fn method(what: Ask) -> &'static str {
    match what {
        Ask::Elicitation => "elicitation/create",
        Ask::Sampling => "sampling/createMessage",
        Ask::Roots => "roots/list",
    }
}

/// Asks the client. Dropped before its end it tells the client that the question is withdrawn.
async fn request_of(peer: &Peer<RoleServer>, what: Ask, params: Value) -> Result<Value, String> {
    // As it came: the models of rmcp would leave out what they do not know.
    let request = CustomRequest::new(method(what), (what != Ask::Roots).then_some(params));
    let request = ServerRequest::CustomRequest(request);
    let sent = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await;
    let handle = sent.map_err(|error| format!("the client cannot be asked: {error}"))?;
    let mut withdraw = Withdraw { peer, id: Some(handle.id.clone()), runtime: Handle::current() };
    let answer = handle.rx.await;
    withdraw.id = None;
    match answer {
        Ok(Ok(ClientResult::CustomResult(result))) => Ok(result.0),
        Ok(Ok(result)) => serde_json::to_value(result).map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(format!("the client refused: {error}")),
        Err(_closed) => Err("the session is over".to_owned()),
    }
}

struct Withdraw<'a> {
    peer: &'a Peer<RoleServer>,
    id: Option<RequestId>,
    runtime: Handle,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let reason = "nobody waits for the answer any more".to_owned();
        let notification =
            CancelledNotification::new(CancelledNotificationParam::new(Some(id), Some(reason)));
        let peer = self.peer.clone();
        // The client may be gone; so is its question.
        self.runtime.spawn(async move { peer.send_notification(notification.into()).await.ok() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared(capabilities: Value) -> ClientCapabilities {
        serde_json::from_value(capabilities).expect("capabilities of a client")
    }

    #[test]
    fn a_client_is_asked_only_for_what_it_declared() {
        let asks = |capabilities: Value, what, params: Value| may_ask(&declared(capabilities), what, &params);
        for what in [Ask::Elicitation, Ask::Sampling, Ask::Roots] {
            assert!(asks(json!({}), what, json!({})).is_err(), "{what:?}");
        }
        let url = json!({ "mode": "url" });
        assert!(asks(json!({ "elicitation": {} }), Ask::Elicitation, json!({})).is_ok());
        assert!(asks(json!({ "elicitation": {} }), Ask::Elicitation, url.clone()).is_err());
        assert!(asks(json!({ "elicitation": { "url": {} } }), Ask::Elicitation, url).is_ok());
        assert!(asks(json!({ "elicitation": { "url": {} } }), Ask::Elicitation, json!({})).is_err());
        assert!(asks(json!({ "sampling": {} }), Ask::Sampling, json!({})).is_ok());
        assert!(asks(json!({ "sampling": {} }), Ask::Sampling, json!({ "tools": [] })).is_err());
        assert!(asks(json!({ "sampling": { "tools": {} } }), Ask::Sampling, json!({ "tools": [] })).is_ok());
        assert!(asks(json!({ "roots": {} }), Ask::Roots, json!({})).is_ok());
    }

    #[tokio::test]
    async fn logs_of_the_level_that_was_asked_for_are_queued_in_order() {
        let (link, mut logs) = Link::new();
        link.log("s", "error", None, &json!("nobody asked"));
        link.set_level(Severity::from(LoggingLevel::Warning));
        link.log("s", "info", None, &json!("too quiet"));
        link.log("s", "no such level", None, &json!("?"));
        link.log("s", "warning", Some("part"), &json!(1));
        link.log("s", "error", None, &json!(2));
        let told = [logs.recv().await, logs.recv().await].map(|message| message.expect("a message"));
        assert_eq!(told.each_ref().map(|log| log.message.logger.as_deref()), [Some("s/part"), Some("s")]);
        assert_eq!(told.map(|log| log.message.data), [json!(1), json!(2)]);
        assert!(logs.try_recv().is_err(), "and nothing else");
    }
}
