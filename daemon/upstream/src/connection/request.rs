//! One request to a running server: its timeout, its progress, its cancellation, and its result as it came.

#![expect(
    deprecated,
    reason = "logging levels are on their way out of MCP (SEP-2577); older servers take them"
)]

use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelTaskParams, CancelTaskRequest, CancelledNotification,
    CancelledNotificationParam, ClientRequest, CompleteRequest, CompleteRequestParams, GetPromptRequest,
    GetPromptRequestParams, GetTaskParams, GetTaskRequest, InputResponses, JsonObject, ListPromptsRequest,
    ListResourceTemplatesRequest, ListResourcesRequest, ListToolsRequest, LoggingLevel,
    PaginatedRequestParams, ReadResourceRequest, ReadResourceRequestParams, RequestId, RequestMetaObject,
    ServerResult, SetLevelRequest, SetLevelRequestParams, SubscribeRequest, SubscribeRequestParams,
    UnsubscribeRequest, UnsubscribeRequestParams, UpdateTaskParams, UpdateTaskRequest,
};
use rmcp::service::{Peer, PeerRequestOptions, ServiceError};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::CallError;
use crate::transport::ledger::{Answer, Ledger, Slot};

/// How many times its timeout a request may take if it keeps reporting progress.
pub(crate) const MAX_EXTENSION: u32 = 10;

/// A request of ours, before it is sent.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    CallTool {
        name: String,
        arguments: JsonObject,
    },
    ReadResource {
        uri: String,
    },
    GetPrompt {
        name: String,
        arguments: JsonObject,
    },
    Complete(Box<CompleteRequestParams>),
    Task {
        id: String,
        request: TaskRequest,
    },
    /// Of the older era; in the newer one a stream is opened.
    Subscribe {
        uri: String,
    },
    Unsubscribe {
        uri: String,
    },
    SetLevel(LoggingLevel),
    List(ListOf, Option<String>),
}

/// What is asked about a task that a server made of a call (the extension `io.modelcontextprotocol/tasks`).
#[derive(Debug, Clone, PartialEq)]
pub enum TaskRequest {
    Get,
    /// Answers to what the task wants to know.
    Update(InputResponses),
    Cancel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListOf {
    Tools,
    Prompts,
    Resources,
    ResourceTemplates,
}

/// What a server wants to know before it goes on (`resultType: "input_required"`), answered.
#[derive(Debug, Clone, Default)]
pub struct Input {
    pub responses: Option<InputResponses>,
    /// The `requestState` of the result that asked.
    pub state: Option<String>,
}

/// A request with everything that is sent along.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) input: Input,
    pub(crate) meta: Option<RequestMetaObject>,
    pub(crate) progress: Option<mpsc::Sender<Value>>,
}

/// How a request is made.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Without progress.
    pub(crate) timeout: Duration,
    /// In any case.
    pub(crate) deadline: Instant,
    pub(crate) cancel: CancellationToken,
    /// Largest answer, in bytes; for its error.
    pub(crate) max_bytes: usize,
}

/// Why a request gave no result, before it is known whose words explain it.
#[derive(Debug)]
pub(crate) enum Failure {
    Call(CallError),
    /// The connection is gone; its end says why.
    Gone,
}

impl From<Operation> for Request {
    fn from(operation: Operation) -> Self {
        Self { operation, input: Input::default(), meta: None, progress: None }
    }
}

impl Operation {
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::CallTool { .. } => "tools/call",
            Self::ReadResource { .. } => "resources/read",
            Self::GetPrompt { .. } => "prompts/get",
            Self::Complete(_) => "completion/complete",
            Self::Task { request: TaskRequest::Get, .. } => "tasks/get",
            Self::Task { request: TaskRequest::Update(_), .. } => "tasks/update",
            Self::Task { request: TaskRequest::Cancel, .. } => "tasks/cancel",
            Self::Subscribe { .. } => "resources/subscribe",
            Self::Unsubscribe { .. } => "resources/unsubscribe",
            Self::SetLevel(_) => "logging/setLevel",
            Self::List(of, _) => of.method(),
        }
    }

    fn request(self, input: Input) -> ClientRequest {
        let Input { responses, state } = input;
        match self {
            Self::CallTool { name, arguments } => {
                let mut params = CallToolRequestParams::new(name).with_arguments(arguments);
                (params.input_responses, params.request_state) = (responses, state);
                CallToolRequest::new(params).into()
            }
            Self::ReadResource { uri } => {
                let mut params = ReadResourceRequestParams::new(uri);
                (params.input_responses, params.request_state) = (responses, state);
                ReadResourceRequest::new(params).into()
            }
            Self::GetPrompt { name, arguments } => {
                let mut params = GetPromptRequestParams::new(name);
                params.arguments = Some(arguments);
                (params.input_responses, params.request_state) = (responses, state);
                GetPromptRequest::new(params).into()
            }
            Self::Complete(params) => CompleteRequest::new(*params).into(),
            Self::Task { id, request } => match request {
                TaskRequest::Get => GetTaskRequest::new(GetTaskParams::new(id)).into(),
                TaskRequest::Update(responses) => {
                    UpdateTaskRequest::new(UpdateTaskParams::new(id, responses)).into()
                }
                TaskRequest::Cancel => CancelTaskRequest::new(CancelTaskParams::new(id)).into(),
            },
            Self::Subscribe { uri } => SubscribeRequest::new(SubscribeRequestParams::new(uri)).into(),
            Self::Unsubscribe { uri } => UnsubscribeRequest::new(UnsubscribeRequestParams::new(uri)).into(),
            Self::SetLevel(level) => SetLevelRequest::new(SetLevelRequestParams::new(level)).into(),
            Self::List(of, cursor) => {
                let params = PaginatedRequestParams::default().with_cursor(cursor);
                match of {
                    ListOf::Tools => ListToolsRequest::with_param(params).into(),
                    ListOf::Prompts => ListPromptsRequest::with_param(params).into(),
                    ListOf::Resources => ListResourcesRequest::with_param(params).into(),
                    ListOf::ResourceTemplates => ListResourceTemplatesRequest::with_param(params).into(),
                }
            }
        }
    }
}

impl ListOf {
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::ResourceTemplates => "resources/templates/list",
        }
    }

    /// The member of the result that holds the list.
    pub(crate) fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
        }
    }
}

/// Sends a request and waits for its result. `waits_for_us` says whether the server itself waits for an answer of ours,
/// so that it is not late.
///
/// # Cancel safety
/// Dropped before its end it tells the server that the request is cancelled.
pub(crate) async fn send(
    peer: &Peer<RoleClient>,
    server: &str,
    request: Request,
    limits: &Limits,
    waits_for_us: &(dyn Fn() -> bool + Sync),
) -> Result<Box<RawValue>, Failure> {
    let Request { operation, input, meta, progress } = request;
    let method = operation.method();
    let slot = if matches!(operation, Operation::List(..)) { Slot::shared() } else { Slot::new(progress) };
    let mut request = operation.request(input);
    Ledger::carry(&mut request, &slot);
    let mut options = PeerRequestOptions::no_options();
    options.meta = meta;
    let mut handle = peer.send_cancellable_request(request, options).await.map_err(|_| Failure::Gone)?;
    let mut guard = CancelOnDrop::new(peer, handle.id.clone());
    let sent_at = Instant::now();
    let mut late_at = sent_at + limits.timeout;
    let response = loop {
        let wake_at = late_at.min(limits.deadline);
        tokio::select! {
            // Biased: an answer that is there counts, however late it is noticed.
            biased;
            // Cancel-safe: a oneshot keeps its value.
            response = &mut handle.rx => break response,
            // Cancel-safe: a token stays cancelled.
            () = limits.cancel.cancelled() => return Err(Failure::Call(CallError::Cancelled)),
            // Cancel-safe: a stored permit is not lost before it is awaited.
            () = slot.heard.notified() => late_at = Instant::now() + limits.timeout,
            // Cancel-safe: a point in time.
            () = sleep_until(wake_at) => {
                if waits_for_us() && wake_at < limits.deadline {
                    late_at = Instant::now() + limits.timeout;
                    continue;
                }
                guard.reason = "timeout";
                let (server, method) = (server.to_owned(), method.to_owned());
                // Whole milliseconds read better.
                let waited = wake_at.saturating_duration_since(sent_at).as_millis();
                let after = Duration::from_millis(u64::try_from(waited).unwrap_or(u64::MAX));
                return Err(Failure::Call(CallError::Timeout { server, method, after }));
            }
        }
    };
    guard.disarm();
    outcome(server, method, &slot, response, limits)
}

/// What the slot and rmcp together say of a request that is over.
fn outcome(
    server: &str,
    method: &str,
    slot: &Slot,
    response: Result<Result<ServerResult, ServiceError>, RecvError>,
    limits: &Limits,
) -> Result<Box<RawValue>, Failure> {
    let server = || server.to_owned();
    match (slot.take(), response) {
        (Some(Answer::Result(result)), _) => Ok(result),
        (Some(Answer::TooLarge { bytes }), _) => Err(Failure::Call(CallError::TooLarge {
            server: server(),
            limit: limits.max_bytes,
            actual: bytes,
        })),
        (Some(Answer::Failed(reason)), _) => {
            let (server, method) = (server(), method.to_owned());
            Err(Failure::Call(CallError::Disconnected { server, method, reason, stderr: Vec::new() }))
        }
        (Some(Answer::Auth), _) => Err(Failure::Call(CallError::Auth { server: server() })),
        (None, Ok(Err(ServiceError::McpError(error)))) => Err(Failure::Call(CallError::JsonRpc {
            code: error.code.0,
            message: error.message.into_owned(),
            data: error.data,
        })),
        (None, Ok(Err(ServiceError::TransportSend(error)))) => {
            let reason = chain(error.error.as_ref());
            let (server, method) = (server(), method.to_owned());
            Err(Failure::Call(CallError::Disconnected { server, method, reason, stderr: Vec::new() }))
        }
        (None, Ok(Err(ServiceError::TransportClosed)) | Err(_)) => Err(Failure::Gone),
        (None, Ok(Ok(_))) => {
            let reason = format!("its answer to {method} has no result");
            Err(Failure::Call(CallError::Protocol { server: server(), reason }))
        }
        (None, Ok(Err(error))) => {
            Err(Failure::Call(CallError::Protocol { server: server(), reason: error.to_string() }))
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Tells the server that nobody waits for a request any more.
struct CancelOnDrop {
    peer: Peer<RoleClient>,
    id: Option<RequestId>,
    reason: &'static str,
    runtime: Handle,
}

impl CancelOnDrop {
    fn new(peer: &Peer<RoleClient>, id: RequestId) -> Self {
        Self { peer: peer.clone(), id: Some(id), reason: "cancelled", runtime: Handle::current() }
    }

    fn disarm(&mut self) {
        self.id = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let params = CancelledNotificationParam::new(Some(id), Some(self.reason.to_owned()));
        let (peer, notification) = (self.peer.clone(), CancelledNotification::new(params));
        // The connection may be gone by then; so is the request.
        self.runtime.spawn(async move { peer.send_notification(notification.into()).await.ok() });
    }
}

/// The request's metadata, without what belongs to the hop it came over.
pub(crate) fn forwarded_meta(meta: Option<JsonObject>) -> JsonObject {
    let mut meta = meta.unwrap_or_default();
    meta.retain(|key, _| key != "progressToken" && !key.starts_with("io.modelcontextprotocol/"));
    meta
}

impl Limits {
    /// Of a request that no session makes.
    pub(crate) fn internal(timeout: Duration, max_bytes: usize) -> Self {
        Self { timeout, deadline: Instant::now() + timeout, cancel: CancellationToken::new(), max_bytes }
    }
}
