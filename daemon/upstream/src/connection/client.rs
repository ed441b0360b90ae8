//! What we are to a server: the client that answers its requests.
//!
//! A request of a server names no call that caused it. It goes to the session that the connection belongs to, or to the
//! only session that has calls in flight; with several it is declined, because it might reach the wrong user. Roots of a
//! shared server are empty: they would be one session's directories in all others' hands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleClient;
use rmcp::model::{
    ClientCapabilities, ClientResult, CustomResult, ErrorCode, ErrorData, Implementation,
    InitializeRequestParams, ProtocolVersion, ServerNotification, ServerRequest,
};
use rmcp::service::{NotificationContext, RequestContext, Service};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::connection::watches::Watches;
use crate::session::{Ask, ClientRequests, ServerAsks, SessionId};
use crate::transport::ledger::Notice;

/// Code of an error that says no to a request of a server: the user, here the configuration, rejected it.
const REJECTED: i32 = -1;

/// The sessions with calls in flight at one running server.
#[derive(Debug, Default)]
pub(crate) struct Users {
    calls: Mutex<BTreeMap<SessionId, usize>>,
    /// Requests of the server that a session has not answered yet.
    asking: AtomicUsize,
    /// The server answered a call since this was asked last.
    answered: AtomicBool,
    /// A call ran into its timeout since this was asked last.
    late: AtomicBool,
    /// For whoever waits for the end of all calls.
    changed: Notify,
    /// For the connection's task.
    pub(crate) left: Notify,
}

/// Answers to one running server.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) server: Arc<str>,
    /// The session that the connection belongs to, unless it is shared.
    pub(crate) owner: Option<SessionId>,
    pub(crate) users: Arc<Users>,
    pub(crate) router: Option<Arc<dyn ClientRequests>>,
    /// Requests that could not be attributed to a session.
    pub(crate) declined: Arc<AtomicUsize>,
    pub(crate) watches: Arc<Watches>,
}

impl Users {
    pub(crate) fn enter(&self, session: &SessionId) {
        *self.lock().entry(session.clone()).or_insert(0) += 1;
    }

    pub(crate) fn leave(&self, session: &SessionId, answered: bool) {
        self.answered.fetch_or(answered, Ordering::Relaxed);
        let mut calls = self.lock();
        if let Some(n_calls) = calls.get_mut(session) {
            *n_calls -= 1;
            if *n_calls == 0 {
                calls.remove(session);
            }
        }
        drop(calls);
        self.changed.notify_waiters();
        self.left.notify_one();
    }

    pub(crate) fn take_answered(&self) -> bool {
        self.answered.swap(false, Ordering::Relaxed)
    }

    /// A call that is still there has run into its timeout.
    pub(crate) fn was_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_late(&self) -> bool {
        self.late.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn n_calls(&self) -> usize {
        self.lock().values().sum()
    }

    /// Whether a session is being asked something: then the call that waits for it is not late.
    pub(crate) fn is_asked(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 0
    }

    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn none_left(&self) {
        loop {
            let changed = self.changed.notified();
            if self.n_calls() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn only(&self) -> Option<SessionId> {
        let calls = self.lock();
        (calls.len() == 1).then(|| calls.keys().next().cloned()).flatten()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, usize>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// Answers one request; an error says why there is no answer. `caller` is the session whose call asks, where that is
    /// known.
    pub(crate) async fn answer(
        &self,
        what: Ask,
        params: Value,
        caller: Option<&SessionId>,
    ) -> Result<Value, String> {
        if what == Ask::Roots && self.owner.is_none() {
            return Ok(json!({ "roots": [] }));
        }
        let session = self.owner.clone().or_else(|| caller.cloned()).or_else(|| self.users.only());
        let answer = match (&self.router, session) {
            (Some(router), Some(session)) => {
                let _asking = Asking::new(&self.users);
                router.ask(session, ServerAsks { server: self.server.to_string(), what, params }).await
            }
            (None, _) => Err("nobody can be asked here".to_owned()),
            (Some(_), None) => {
                self.declined.fetch_add(1, Ordering::Relaxed);
                Err("several sessions use this server, so it is not known who to ask; scope = \"session\" in its \
                     configuration cures that"
                    .to_owned())
            }
        };
        match (answer, what) {
            (Err(_), Ask::Elicitation) => Ok(json!({ "action": "decline" })),
            (answer, _) => answer,
        }
    }

    /// Passes a log message on if it can be meant for one session only.
    pub(crate) fn log(&self, notice: &Notice) {
        if let (Notice::Log { level, logger, data }, Some(owner), Some(router)) =
            (notice, &self.owner, &self.router)
        {
            router.log(owner, &self.server, level, logger.as_deref(), data);
        }
    }

    /// Tells the sessions that watch a resource that it changed.
    pub(crate) fn updated(&self, uri: &str) {
        let Some(router) = &self.router else { return };
        for session in self.watches.watchers(uri) {
            router.updated(&session, uri);
        }
    }

    async fn reply(&self, what: Ask, params: impl Serialize) -> Result<ClientResult, ErrorData> {
        let params = serde_json::to_value(params).unwrap_or_default();
        match self.answer(what, params, None).await {
            Ok(result) => Ok(ClientResult::CustomResult(CustomResult(result))),
            Err(why) => Err(ErrorData::new(ErrorCode(REJECTED), why, None)),
        }
    }
}

impl Service<RoleClient> for Answers {
    async fn handle_request(
        &self,
        request: ServerRequest,
        _context: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        match request {
            ServerRequest::PingRequest(_) => Ok(ClientResult::empty(())),
            ServerRequest::ElicitRequest(request) => self.reply(Ask::Elicitation, request.params).await,
            ServerRequest::CreateMessageRequest(request) => self.reply(Ask::Sampling, request.params).await,
            ServerRequest::ListRootsRequest(_) => self.reply(Ask::Roots, json!({})).await,
            // What rmcp has no model for may still be one of them: a schema of a form that it does not know, say.
            ServerRequest::CustomRequest(request) => match Ask::from_method(&request.method) {
                Some(what) => self.reply(what, request.params).await,
                None => Err(unknown(&request.method)),
            },
            _ => Err(unknown("this request")),
        }
    }

    /// Notifications are taken from the wire; those that come here concern rmcp alone.
    async fn handle_notification(
        &self,
        _notification: ServerNotification,
        _context: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn get_info(&self) -> InitializeRequestParams {
        let capabilities = match &self.router {
            Some(_) => json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} }),
            None => json!({}),
        };
        let capabilities: ClientCapabilities = serde_json::from_value(capabilities).unwrap_or_default();
        let conductor = Implementation::new("conductor", env!("CARGO_PKG_VERSION"));
        InitializeRequestParams::new(capabilities, conductor)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }
}

fn unknown(method: &str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("{method} is not known"), None)
}

/// Counts a request of the server while a session is being asked.
struct Asking<'a>(&'a Users);

impl<'a> Asking<'a> {
    fn new(users: &'a Users) -> Self {
        users.asking.fetch_add(1, Ordering::Relaxed);
        Self(users)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;

    #[derive(Debug)]
    struct Echo;

    impl ClientRequests for Echo {
        fn ask(&self, session: SessionId, request: ServerAsks) -> BoxFuture<'static, Result<Value, String>> {
            Box::pin(async move { Ok(json!({ "to": session, "what": request.what })) })
        }

        fn log(&self, _: &SessionId, _: &str, _: &str, _: Option<&str>, _: &Value) {}

        fn updated(&self, _: &SessionId, _: &str) {}
    }

    fn answers(owner: Option<&str>) -> Answers {
        Answers {
            server: "s".into(),
            owner: owner.map(SessionId::new),
            users: Arc::default(),
            router: Some(Arc::new(Echo)),
            declined: Arc::default(),
            watches: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_shared_servers_request_goes_to_the_only_session_that_calls_it() {
        let answers = answers(None);
        let ask = || answers.answer(Ask::Sampling, json!({}), None);
        assert!(ask().await.is_err(), "nobody calls");
        answers.users.enter(&SessionId::new("a"));
        answers.users.enter(&SessionId::new("a"));
        assert_eq!(ask().await.expect("answered")["to"], "a");
        answers.users.enter(&SessionId::new("b"));
        assert!(ask().await.expect_err("two sessions").contains("scope = \"session\""));
        assert_eq!(
            answers.answer(Ask::Elicitation, json!({}), None).await.expect("declined"),
            json!({ "action": "decline" })
        );
        assert_eq!(answers.declined.load(Ordering::Relaxed), 3);
        let named = answers.answer(Ask::Sampling, json!({}), Some(&SessionId::new("b"))).await;
        assert_eq!(named.expect("answered")["to"], "b", "in the newer era a request names its call");
        answers.users.leave(&SessionId::new("b"), true);
        assert_eq!(ask().await.expect("answered")["to"], "a");
        assert_eq!(answers.answer(Ask::Roots, json!({}), None).await.expect("roots"), json!({ "roots": [] }));
    }

    #[tokio::test]
    async fn a_sessions_own_server_asks_that_session() {
        let answers = answers(Some("me"));
        answers.users.enter(&SessionId::new("me"));
        for what in [Ask::Roots, Ask::Sampling, Ask::Elicitation] {
            assert_eq!(answers.answer(what, json!({}), None).await.expect("answered")["to"], "me");
        }
    }
}
