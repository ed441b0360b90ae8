//! What is in flight on one connection, below rmcp's models.
//!
//! Requests that carry a [`Slot`] get their result exactly as it came; rmcp sees an empty result in its place, so that it
//! neither parses nor keeps what can be large. Progress goes into the slot in the order in which it came, before the result.
//! Other notifications become a [`Notice`]; none of them reaches rmcp, which would start a task for each. Answers to
//! requests that nobody waits for are dropped unread.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, GetExtensions as _, GetMeta as _,
    JsonRpcMessage, ProgressToken, RequestId, ServerJsonRpcMessage,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// Requests of the server that may wait for an answer at a time. More are dropped: each costs a task.
const MAX_SERVER_REQUESTS: usize = 64;

/// The code of the error that rmcp sees in place of an answer that was too large.
const TOO_LARGE_CODE: i32 = -32_099;

/// Where the answer to one request arrives.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    answer: Mutex<Option<Answer>>,
    /// rmcp sees the result too: its HTTP client learns from lists of tools which arguments are sent as headers.
    shared: bool,
    progress: Option<mpsc::Sender<Value>>,
    /// Progress was reported.
    pub(crate) heard: Notify,
}

/// What arrived in a slot besides an error of the protocol, which rmcp delivers.
#[derive(Debug)]
pub(crate) enum Answer {
    Result(Box<RawValue>),
    TooLarge {
        bytes: Option<u64>,
    },
    /// HTTP 401.
    Auth,
    /// It could not be sent, or was refused below the protocol, with the reason.
    Failed(String),
}

/// A notification of the server that is not about a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    ToolsChanged,
    PromptsChanged,
    ResourcesChanged,
    ResourceUpdated { uri: String },
    Log { level: String, logger: Option<String>, data: Value },
}

/// What becomes of a message that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// rmcp gets it as it is.
    Forward,
    /// rmcp gets this instead.
    Replace(String),
    /// It has been dealt with.
    Taken,
    /// It is no message of the protocol.
    Garbage,
}

/// The carrier of a slot in a request's extensions.
#[derive(Clone)]
struct Carried(Arc<Slot>);

pub(crate) struct Ledger {
    open: Mutex<Open>,
    notice: Box<dyn Fn(Notice) + Send + Sync>,
}

#[derive(Default)]
struct Open {
    slots: HashMap<RequestId, Weak<Slot>>,
    tokens: HashMap<ProgressToken, Weak<Slot>>,
    token_of: HashMap<RequestId, ProgressToken>,
    /// Requests of rmcp itself, whose answers it needs.
    typed: HashSet<RequestId>,
    n_server_requests: usize,
    /// HTTP 401 in answer to a request of rmcp itself.
    auth: bool,
    /// Why a request of rmcp itself failed last.
    failure: Option<String>,
}

/// Just enough of a message to know what it is.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    id: Option<RequestId>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Slot {
    /// Progress notifications' `params` go to `progress`; what it has no room for is dropped.
    pub(crate) fn new(progress: Option<mpsc::Sender<Value>>) -> Arc<Self> {
        Arc::new(Self { progress, ..Self::default() })
    }

    /// For a request whose result rmcp must see as well.
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self { shared: true, ..Self::default() })
    }

    pub(crate) fn take(&self) -> Option<Answer> {
        lock(&self.answer).take()
    }

    fn put(&self, answer: Answer) {
        *lock(&self.answer) = Some(answer);
    }
}

impl Ledger {
    pub(crate) fn new(notice: impl Fn(Notice) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), notice: Box::new(notice) })
    }

    /// Lets `request` carry `slot` to [`Ledger::sent`].
    pub(crate) fn carry(request: &mut ClientRequest, slot: &Arc<Slot>) {
        request.extensions_mut().insert(Carried(slot.clone()));
    }

    /// A message is about to be sent.
    pub(crate) fn sent(&self, message: &ClientJsonRpcMessage) {
        let mut open = lock(&self.open);
        match message {
            JsonRpcMessage::Request(request) => {
                if let Some(Carried(slot)) = request.request.extensions().get::<Carried>() {
                    let slot = Arc::downgrade(slot);
                    open.slots.insert(request.id.clone(), slot.clone());
                    if let Some(token) = request.request.get_meta().get_progress_token() {
                        open.tokens.insert(token.clone(), slot);
                        open.token_of.insert(request.id.clone(), token);
                    }
                } else {
                    open.typed.insert(request.id.clone());
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    open.close(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {
                open.n_server_requests = open.n_server_requests.saturating_sub(1);
            }
        }
    }

    /// A message came in.
    pub(crate) fn received(&self, text: &str) -> Verdict {
        let envelope = text.starts_with('{').then(|| serde_json::from_str::<Envelope<'_>>(text));
        let Some(Ok(envelope)) = envelope else { return Verdict::Garbage };
        match (envelope.id, envelope.method) {
            (Some(_), Some(_)) => self.server_request(),
            (None, Some(method)) => self.notification(&method, envelope.params),
            (Some(id), None) => self.answer(id, envelope.result, text),
            // An error that could not be attributed to a request; rmcp logs it.
            (None, None) if envelope.error.is_some() => Verdict::Forward,
            (None, None) => Verdict::Garbage,
        }
    }

    /// An answer came in that was too large to be kept.
    pub(crate) fn too_large(&self, id: Option<RequestId>, bytes: Option<u64>) -> Verdict {
        let Some(id) = id else { return Verdict::Taken };
        if let Some(slot) = lock(&self.open).close(&id) {
            slot.put(Answer::TooLarge { bytes });
        }
        let error = json!({ "code": TOO_LARGE_CODE, "message": "the answer is too large" });
        Verdict::Replace(json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string())
    }

    /// The server answered a request with HTTP 401.
    pub(crate) fn unauthorised(&self, id: Option<&RequestId>) {
        let mut open = lock(&self.open);
        match id.and_then(|id| open.close(id)) {
            Some(slot) => slot.put(Answer::Auth),
            None => open.auth = true,
        }
    }

    /// Whether the server refused rmcp's own requests for want of authorisation.
    pub(crate) fn wants_auth(&self) -> bool {
        lock(&self.open).auth
    }

    /// A request could not be sent, or was refused below the protocol. The reason is for whoever made the request: rmcp
    /// would log it, and it may hold what must not be logged.
    pub(crate) fn failed(&self, id: Option<&RequestId>, reason: String) {
        let mut open = lock(&self.open);
        match id.and_then(|id| open.close(id)) {
            Some(slot) => slot.put(Answer::Failed(reason)),
            None => open.failure = Some(reason),
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.open).failure.clone()
    }

    fn server_request(&self) -> Verdict {
        let mut open = lock(&self.open);
        if open.n_server_requests >= MAX_SERVER_REQUESTS {
            return Verdict::Taken;
        }
        open.n_server_requests += 1;
        Verdict::Forward
    }

    fn answer(&self, id: RequestId, result: Option<&RawValue>, text: &str) -> Verdict {
        let understood = || serde_json::from_str::<ServerJsonRpcMessage>(text).is_ok();
        let mut open = lock(&self.open);
        let is_typed = open.typed.contains(&id);
        let is_ours = open.slots.contains_key(&id);
        let slot = open.close(&id);
        drop(open);
        match (result, slot) {
            _ if !is_typed && !is_ours => Verdict::Taken,
            (Some(result), Some(slot)) => {
                let forward = slot.shared && understood();
                slot.put(Answer::Result(result.to_owned()));
                if forward { Verdict::Forward } else { empty_result(&id) }
            }
            (Some(_), None) if !is_typed => empty_result(&id),
            _ if understood() => Verdict::Forward,
            _ => {
                let error = json!({ "code": -32_603, "message": "the answer is not understood" });
                Verdict::Replace(json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string())
            }
        }
    }

    fn notification(&self, method: &str, params: Option<&RawValue>) -> Verdict {
        match method {
            "notifications/progress" => self.progress(params),
            "notifications/tools/list_changed" => (self.notice)(Notice::ToolsChanged),
            "notifications/prompts/list_changed" => (self.notice)(Notice::PromptsChanged),
            "notifications/resources/list_changed" => (self.notice)(Notice::ResourcesChanged),
            "notifications/resources/updated" => self.updated(params),
            "notifications/message" => self.log(params),
            "notifications/cancelled" | "notifications/subscriptions/acknowledged" => {
                return Verdict::Forward;
            }
            _ => {}
        }
        Verdict::Taken
    }

    fn progress(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Token {
            progress_token: ProgressToken,
        }
        let Some(params) = params else { return };
        let Ok(Token { progress_token }) = serde_json::from_str(params.get()) else { return };
        let slot = lock(&self.open).tokens.get(&progress_token).and_then(Weak::upgrade);
        let Some(slot) = slot else { return };
        slot.heard.notify_one();
        if let Some(progress) = &slot.progress
            && let Ok(params) = serde_json::from_str(params.get())
        {
            // Full: whoever reads too slowly misses steps, not the result. Closed: nobody is interested.
            progress.try_send(params).ok();
        }
    }

    fn updated(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Updated {
            uri: String,
        }
        if let Some(Ok(Updated { uri })) = params.map(|params| serde_json::from_str(params.get())) {
            (self.notice)(Notice::ResourceUpdated { uri });
        }
    }

    fn log(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Message {
            level: String,
            logger: Option<String>,
            #[serde(default)]
            data: Value,
        }
        if let Some(Ok(Message { level, logger, data })) =
            params.map(|params| serde_json::from_str(params.get()))
        {
            (self.notice)(Notice::Log { level, logger, data });
        }
    }
}

impl Open {
    /// The request is answered or given up.
    fn close(&mut self, id: &RequestId) -> Option<Arc<Slot>> {
        if let Some(token) = self.token_of.remove(id) {
            self.tokens.remove(&token);
        }
        self.typed.remove(id);
        self.slots.remove(id)?.upgrade()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("n_open", &lock(&self.open).slots.len()).finish_non_exhaustive()
    }
}

fn empty_result(id: &RequestId) -> Verdict {
    Verdict::Replace(json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string())
}

/// What rmcp gets of a message, if anything.
pub(crate) fn typed(verdict: Verdict, text: &str) -> Option<ServerJsonRpcMessage> {
    let text = match &verdict {
        Verdict::Forward => text,
        Verdict::Replace(other) => other,
        Verdict::Taken | Verdict::Garbage => return None,
    };
    match serde_json::from_str(text) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::debug!(%error, "a message of an upstream is not understood");
            None
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
