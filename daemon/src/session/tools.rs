//! The MCP server of one session: which tools there are and what calling them does.
//!
//! Owns nothing; asks the session for its profile and the executor for results. Lists are answered from what is known,
//! never waiting for a worker.

#![expect(deprecated, reason = "logging is on its way out of MCP (SEP-2577), and clients of today use it")]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CustomRequest, CustomResult, ErrorCode,
    Implementation, InitializeRequestParams, InitializeResult, ListResourceTemplatesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ResourceContents, ResourceTemplate, ServerCapabilities, ServerConfig,
    SetLevelRequestParams, Tool,
};
use rmcp::service::RequestContext;
use tokio::sync::mpsc;

use super::Session;
use super::discovery::{self, Discovery};
use super::follow::Follower;
use super::raw::Raw;
use super::rounds::{Answer, Asked, Call, Events};
use crate::BUILD;
use crate::exec::result::{ErrorReport, ErrorType, ExecutionResult};
use crate::exec::{Caller, schema};
use crate::store::URI_PREFIX;
use crate::supervisor::Shared;
use crate::upstreams::Servers;

/// Events of one call that wait to be told: a slow client slows its own code's output down, and nothing else.
const CALL_EVENTS: usize = 64;

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

    fn run_deno_code(&self, servers: &Servers) -> Tool {
        let profile = self.session.profile(&self.shared);
        schema::run_deno_code(profile.as_deref().ok(), servers)
    }

    /// All tools, sorted by name, so that clients which cache them see the same list each time.
    pub(super) fn tools(&self, servers: &Servers) -> Vec<Tool> {
        let mut tools = discovery::tools(servers);
        tools.push(self.run_deno_code(servers));
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools
    }

    async fn discover(&self, request: CallToolRequestParams) -> Result<CallToolResponse, ErrorData> {
        let servers = self.session.servers().await;
        let known = self.tools(&servers);
        let discovery = Discovery { service: &self.shared.upstreams, servers, session: self.session.id };
        match discovery.answer(&request.name, request.arguments).await {
            Some(result) => Ok(CallToolResponse::Complete(result)),
            None => {
                let names: Vec<&str> = known.iter().map(|tool| &*tool.name).collect();
                let message = format!("there is no tool `{}`; there is {}", request.name, names.join(", "));
                Err(ErrorData::invalid_params(message, None))
            }
        }
    }

    /// Starts to run code, or says why not.
    async fn start_run(
        &self,
        asked: Asked,
        context: &RequestContext<RoleServer>,
    ) -> Result<Call, Box<ExecutionResult>> {
        let profile = self.session.profile(&self.shared).map_err(|error| {
            let error = ErrorReport::from_text(ErrorType::Configuration, &error);
            ExecutionResult::failed("none".into(), error)
        })?;
        let id = self.shared.executor.next_id();
        let call = self.session.call_started(&profile, &id).map_err(|refused| {
            ExecutionResult::failed(id.clone(), ErrorReport::from_text(ErrorType::Busy, &refused.to_string()))
        })?;
        let is_followed = Follower::new(context, self.session.link.level()).is_some();
        let (sender, receiver) = mpsc::channel(CALL_EVENTS);
        let events = if is_followed { Events::Run(receiver) } else { Events::None };
        let questions = self.session.open_call(&id, None, context);
        let cancel = call.cancel.clone();
        let servers = self.session.servers().await.registration().cloned();
        let (shared, session) = (self.shared.clone(), self.session.id);
        let (execution, arguments) = (id.clone(), asked.arguments.clone());
        let work = async move {
            let caller = Caller {
                session,
                profile: &profile,
                servers,
                events: is_followed.then_some(sender),
                cancel: call.cancel.clone(),
            };
            let result = shared.executor.run(execution, arguments, caller).await;
            Ok(Answer::Result(Box::new(result.into_call_result())))
        };
        Ok(Call::start(asked, id, work, events, questions, cancel))
    }

    /// Learns how the client can be reached.
    pub(super) fn met(&self, context: &RequestContext<RoleServer>) {
        self.session.link.met(&context.peer);
        if let Some(client) = context.client_info() {
            self.session.introduce(format!("{} {}", client.name, client.version));
        }
    }
}

/// The answer to a tool call; members given as they are go over an empty one.
fn tool_answer(answer: Answer, context: &RequestContext<RoleServer>) -> CallToolResponse {
    CallToolResponse::Complete(match answer {
        Answer::Result(result) => *result,
        Answer::Raw(members) => {
            Raw::give(context, members);
            CallToolResult::success(Vec::new())
        }
    })
}

impl ServerHandler for ToolServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_logging()
            .build();
        ServerConfig::new(capabilities)
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

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.link.set_level(request.level.into());
        Ok(())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools(&self.session.servers().await)))
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
        self.tools(&self.session.known_servers()).into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (asked, retry) = Asked::tool(&request);
        let call = match self.session.suspended.resume(&asked, retry)? {
            Some(call) => call,
            None if request.name == schema::TOOL_NAME => match self.start_run(asked, &context).await {
                Ok(call) => call,
                Err(refused) => return Ok(CallToolResponse::Complete(refused.into_call_result())),
            },
            None => return self.discover(request).await,
        };
        let answer = call.follow(&self.session, &context).await?;
        Ok(tool_answer(answer, &context))
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
