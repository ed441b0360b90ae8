//! The MCP server of one session: which tools there are and what calling them does.
//!
//! Owns nothing; asks the session for its profile and the executor for results. Lists are answered from what is known,
//! never waiting for a worker.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use conductor_pool::RunEvent;
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode, Implementation,
    InitializeRequestParams, InitializeResult, ListResourceTemplatesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ProtocolVersion,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ResourceContents, ResourceTemplate,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::mpsc;

use super::Session;
use crate::BUILD;
use crate::exec::result::{ErrorReport, ErrorType, ExecutionResult};
use crate::exec::{CallEvent, Caller, schema};
use crate::store::URI_PREFIX;
use crate::supervisor::Shared;

/// Events of one call that wait to be told: a slow client slows its own code's output down, and nothing else.
const CALL_EVENTS: usize = 64;

/// Longest text in one progress notification, bytes; the whole output is in the result.
const MAX_PROGRESS_BYTES: usize = 4096;

/// The handler rmcp calls, one for a session.
#[derive(Clone, Debug)]
pub(crate) struct ToolServer {
    session: Arc<Session>,
    shared: Arc<Shared>,
}

impl ToolServer {
    pub(crate) fn new(session: Arc<Session>, shared: Arc<Shared>) -> Self {
        Self { session, shared }
    }

    fn tool(&self) -> Tool {
        let profile = self.session.profile(&self.shared);
        schema::run_deno_code(profile.as_deref().ok())
    }

    async fn run(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> ExecutionResult {
        let profile = match self.session.profile(&self.shared) {
            Ok(profile) => profile,
            Err(error) => {
                let error = ErrorReport::from_text(ErrorType::Configuration, &error);
                return ExecutionResult::failed("none".into(), error);
            }
        };
        if self.shared.is_draining() {
            let error =
                ErrorReport::new(ErrorType::Busy, "the daemon is going down").hint("call again in a moment");
            return ExecutionResult::failed("none".into(), error);
        }
        let _in_flight = self.session.call_started();
        let cancel = self.session.gone.child_token();
        let (events, mut told) = match context.meta.get_progress_token() {
            Some(token) => {
                let (sender, receiver) = mpsc::channel(CALL_EVENTS);
                (Some(sender), Some((receiver, Progress { token, peer: context.peer.clone(), sent: 0.0 })))
            }
            None => (None, None),
        };
        let caller = Caller { session: self.session.id, profile: &profile, events, cancel: cancel.clone() };
        let mut run = std::pin::pin!(self.shared.executor.run(request.arguments, caller));
        loop {
            tokio::select! {
                // Biased: output is told before the result it belongs to, and a cancelled call is ended before it is followed.
                biased;
                // Cancel-safe: waits for a flag.
                () = context.ct.cancelled(), if !cancel.is_cancelled() => cancel.cancel(),
                // Cancel-safe: an event that is not taken stays in the channel.
                Some(event) = next_event(&mut told) => {
                    if let Some((_, progress)) = &mut told {
                        progress.tell(event).await;
                    }
                }
                // Cancel-safe: the future is kept across turns.
                result = &mut run => {
                    tell_the_rest(&mut told).await;
                    return result;
                }
            }
        }
    }
}

type Told = Option<(mpsc::Receiver<CallEvent>, Progress)>;

async fn next_event(told: &mut Told) -> Option<CallEvent> {
    match told {
        Some((events, _)) => events.recv().await,
        None => None,
    }
}

async fn tell_the_rest(told: &mut Told) {
    if let Some((events, progress)) = told {
        while let Ok(event) = events.try_recv() {
            progress.tell(event).await;
        }
    }
}

/// Progress notifications of one call: in order, each higher than the last, none after the result.
#[derive(Debug)]
struct Progress {
    token: ProgressToken,
    peer: Peer<RoleServer>,
    sent: f64,
}

impl Progress {
    async fn tell(&mut self, event: CallEvent) {
        let message = match event {
            CallEvent::Phase(text) => text,
            CallEvent::Output(RunEvent::Output { bytes, .. }) => {
                let mut text = String::from_utf8_lossy(&bytes).into_owned();
                text.truncate(text.floor_char_boundary(MAX_PROGRESS_BYTES));
                text
            }
        };
        self.sent += 1.0;
        let progress = ProgressNotificationParam::new(self.token.clone(), self.sent).with_message(message);
        // client gone: the session's token ends the call
        let _gone = self.peer.notify_progress(progress).await;
    }
}

impl ServerHandler for ToolServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_resources().build())
            .with_server_info(Implementation::new("conductor", BUILD).with_title("Conductor"))
            .with_instructions(
                "Runs TypeScript in fresh, isolated Deno processes. Use run_deno_code to compute, to transform data and \
                 to check code; each call starts from nothing.",
            )
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let client = &request.client_info;
        self.session.introduce(format!("{} {}", client.name, client.version));
        let version = if request.protocol_version.has_initialize() {
            request.protocol_version
        } else {
            ProtocolVersion::LATEST_WITH_INITIALIZE
        };
        Ok(self.get_info().with_protocol_version(version))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![self.tool()]))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = ResourceTemplate::new(format!("{URI_PREFIX}{{id}}"), "result")
            .with_description("The whole of a value or an output that was too large for an answer");
        Ok(ListResourceTemplatesResult::with_all_items(vec![template]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri;
        let profile = self.session.profile(&self.shared).ok();
        let owner = profile.map(|profile| profile.owner(&self.shared.dirs)).unwrap_or_default();
        let id = uri.strip_prefix(URI_PREFIX).unwrap_or_default();
        match self.shared.store.get(id, Some(&owner), Instant::now()) {
            Some(stored) => {
                let contents = ResourceContents::text(&*stored.text, uri).with_mime_type(stored.media_type);
                Ok(ReadResourceResult::new(vec![contents]).into())
            }
            None => {
                let message = format!(
                    "there is no resource {uri}; results are kept for an hour, as long as there is room"
                );
                Err(ErrorData::resource_not_found(message, None))
            }
        }
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == schema::TOOL_NAME).then(|| self.tool())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name != schema::TOOL_NAME {
            let message = format!("there is no tool `{}`; there is {}", request.name, schema::TOOL_NAME);
            return Err(ErrorData::invalid_params(message, None));
        }
        let result = self.run(request, context).await;
        Ok(CallToolResponse::Complete(result.into_call_result()))
    }

    /// Also gets requests of known methods whose parameters do not fit.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        const KNOWN: [&str; 3] = ["tools/call", "tools/list", "initialize"];
        let method = request.method;
        if KNOWN.contains(&method.as_str()) {
            let message = format!("the parameters of {method} are not those of the MCP specification");
            return Err(ErrorData::invalid_params(message, None));
        }
        Err(ErrorData::new(
            ErrorCode::METHOD_NOT_FOUND,
            Cow::from(format!("there is no method {method}")),
            None,
        ))
    }
}
