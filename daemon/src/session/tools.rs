//! The MCP server of one session: which tools, resources and prompts there are, its own and those of exposed servers, and
//! what asking for them does.
//!
//! Owns nothing; asks the session for its profile, the executor for results, and upstream servers for theirs. Lists are
//! answered from what is known, never waiting for a worker.

#![expect(deprecated, reason = "logging is on its way out of MCP (SEP-2577), and clients of today use it")]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use conductor_upstream::{CallError, SessionId, TaskRequest, Upstreams};
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CustomRequest, CustomResult, DetailedTask, ErrorCode, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, GetTaskParams, GetTaskResult, Implementation,
    InitializeRequestParams, InitializeResult, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Reference, ResourceContents, ResourceTemplate,
    ServerCapabilities, ServerConfig, SetLevelRequestMethod, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, Task, TaskPayload, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::discovery::{self, Discovery};
use super::expose::{self, Catalogue, OWN_TOOLS, Target, page};
use super::fit::Kind;
use super::follow::Follower;
use super::lists::{self, List};
use super::raw::Raw;
use super::requests::is_newer;
use super::rounds::{Answer, Asked, Call, End, Events, Retry, over};
use super::watches;
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

    /// A list as the client is to see it now.
    pub(super) fn list(&self, list: List) -> Value {
        let servers = self.session.known_servers();
        let catalogue = self.catalogue(&servers);
        match list {
            List::Tools => {
                let own = self.tools(&servers).into_iter().map(|tool| json!(tool));
                let exposed = catalogue.tools();
                let mut tools: Vec<Value> =
                    own.chain(exposed.iter().map(|tool| tool.shown(Kind::Tool))).collect();
                tools.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
                Value::Array(tools)
            }
            List::Prompts => catalogue.prompts().iter().map(|prompt| prompt.shown(Kind::Prompt)).collect(),
            List::Resources => {
                json!({ "resources": catalogue.resources(), "templates": self.templates(&catalogue) })
            }
        }
    }

    fn templates(&self, catalogue: &Catalogue) -> Vec<Value> {
        let own = ResourceTemplate::new(format!("{URI_PREFIX}{{id}}"), "result")
            .with_description("The whole of a value or an output that was too large for an answer");
        [json!(own)].into_iter().chain(catalogue.templates()).collect()
    }

    /// The same, once there is something to see, and noted as what the client has.
    async fn show(&self, list: List) -> Value {
        self.session.lists.settled(&self.session.servers().await).await;
        let content = self.list(list);
        self.session.lists.show(list, &content);
        content
    }

    fn catalogue(&self, servers: &Servers) -> Catalogue {
        let upstreams = self.shared.upstreams.upstreams();
        servers
            .registration()
            .map(|registration| Catalogue::new(upstreams, &registration.id))
            .unwrap_or_default()
    }

    /// Looks for what a client names; it may know it from a session before, when nothing is known yet in this one.
    async fn find(&self, look: impl Fn(&Catalogue) -> Option<Target>) -> Option<Target> {
        let servers = self.session.servers().await;
        if let Some(found) = look(&self.catalogue(&servers)) {
            return Some(found);
        }
        self.session.lists.learnt(&servers).await;
        look(&self.catalogue(&servers))
    }

    /// Follows a call that is suspended, or starts it at `target`.
    async fn pass_on(
        &self,
        (asked, mut retry): (Asked, Retry),
        target: Option<Target>,
        unknown: impl FnOnce() -> ErrorData,
        context: &RequestContext<RoleServer>,
    ) -> End {
        let call = match self.session.suspended.resume(&asked, &mut retry)? {
            Some(call) => call,
            None => {
                let target = target.ok_or_else(unknown)?;
                match expose::start(&self.session, &self.shared, asked, retry, target, context) {
                    Ok(call) => call,
                    Err(end) => return end,
                }
            }
        };
        call.follow(&self.session, context).await
    }

    /// Asks the server that made it about a task.
    async fn task(
        &self,
        id: &str,
        request: TaskRequest,
        context: &RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let target = self.find(|catalogue| catalogue.task(id, request.clone())).await;
        let unknown = || ErrorData::invalid_params(format!("there is no task {id}"), None);
        let asked = Asked { method: "tasks", name: id.to_owned(), arguments: None };
        give(self.pass_on((asked, Retry::default()), target, unknown, context).await?, context);
        Ok(())
    }

    /// Which server has a resource.
    pub(super) async fn resource(&self, uri: &str) -> Option<Target> {
        self.find(|catalogue| catalogue.resource(uri)).await
    }

    pub(super) fn upstreams(&self) -> &Upstreams {
        self.shared.upstreams.upstreams()
    }

    async fn discover(
        &self,
        request: CallToolRequestParams,
        cancel: CancellationToken,
    ) -> Result<CallToolResponse, ErrorData> {
        let servers = self.session.servers().await;
        let known = self.tools(&servers);
        let (service, session) = (&*self.shared.upstreams, self.session.id);
        let discovery = Discovery { service, servers, session, cancel };
        match discovery.answer(&request.name, request.arguments).await {
            Some(result) => Ok(CallToolResponse::Complete(result)),
            None => {
                let names: Vec<&str> = known.iter().map(|tool| &*tool.name).collect();
                let message = format!("there is no tool `{}`; there is {}", request.name, names.join(", "));
                Err(ErrorData::invalid_params(message, None))
            }
        }
    }

    /// Starts what a tool does, or says why not; `None` when it is none of those that take their time.
    async fn start_tool(
        &self,
        asked: Asked,
        retry: Retry,
        context: &RequestContext<RoleServer>,
    ) -> Option<Result<Call, End>> {
        if asked.name == schema::TOOL_NAME {
            if retry.state.is_some() {
                return Some(Err(Err(over())));
            }
            let refused = |refused: ExecutionResult| Ok(Answer::Result(Box::new(refused.into_call_result())));
            return Some(self.start_run(asked, context).await.map_err(|why| refused(*why)));
        }
        if OWN_TOOLS.contains(&asked.name.as_str()) {
            return None;
        }
        let target = self.find(|catalogue| catalogue.tool(&asked.name)).await?;
        Some(expose::start(&self.session, &self.shared, asked, retry, target, context))
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
        let servers = self.session.servers().await;
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

    fn own_resource(&self, id: &str, uri: &str) -> Result<ReadResourceResult, ErrorData> {
        let profile = self.session.profile(&self.shared).ok();
        let owner = profile.map(|profile| profile.owner(&self.shared.dirs)).unwrap_or_default();
        match self.shared.store.get(id, Some(&owner), Instant::now()) {
            Some(stored) => {
                let contents = ResourceContents::text(&*stored.text, uri).with_mime_type(stored.media_type);
                Ok(ReadResourceResult::new(vec![contents]))
            }
            None => {
                let message = format!(
                    "there is no resource {uri}; results are kept for an hour, as long as there is room"
                );
                Err(ErrorData::resource_not_found(message, Some(json!({ "uri": uri }))))
            }
        }
    }

    pub(super) fn session_id(&self) -> u64 {
        self.session.id
    }

    /// Learns how the client can be reached.
    pub(super) fn met(&self, context: &RequestContext<RoleServer>) {
        if !self.session.origin.kind.is_of_requests() {
            self.session.link.met(&context.peer);
        }
        if let Some(client) = context.client_info() {
            self.session.introduce(format!("{} {}", client.name, client.version));
        }
    }
}

/// Gives an answer to the request; what a tool's result has beside that is returned.
fn give(answer: Answer, context: &RequestContext<RoleServer>) -> CallToolResult {
    match answer {
        Answer::Result(result) => *result,
        Answer::Raw(members) => {
            Raw::give(context, members);
            CallToolResult::success(Vec::new())
        }
    }
}

fn not_found(uri: &str) -> ErrorData {
    ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(json!({ "uri": uri })))
}

/// The same for all: servers that expose prompts may be configured at any time.
fn capabilities() -> ServerCapabilities {
    ServerCapabilities::builder()
        .enable_tools()
        .enable_tool_list_changed()
        .enable_prompts()
        .enable_prompts_list_changed()
        .enable_resources()
        .enable_resources_list_changed()
        .enable_resources_subscribe()
        .enable_completions()
        .enable_logging()
        .enable_tasks()
        .build()
}

impl ServerHandler for ToolServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(capabilities())
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
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // Each request says it for itself there.
        if is_newer(&context) {
            return Err(ErrorData::method_not_found::<SetLevelRequestMethod>());
        }
        self.session.link.set_level(request.level.into());
        self.upstreams().set_log_level(&SessionId::new(self.session.id.to_string()), request.level);
        Ok(())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let name = match &request.r#ref {
            Reference::Resource(own) if own.uri.starts_with(URI_PREFIX) => {
                return Ok(CompleteResult::default());
            }
            Reference::Resource(resource) => &resource.uri,
            Reference::Prompt(prompt) => &prompt.name,
            _ => return Ok(CompleteResult::default()),
        };
        let target = self.find(|catalogue| catalogue.completion(&request)).await;
        let unknown = || ErrorData::invalid_params(format!("there is no {name} to complete"), None);
        let asked = Asked { method: "completion/complete", name: name.clone(), arguments: None };
        give(self.pass_on((asked, Retry::default()), target, unknown, &context).await?, &context);
        Ok(CompleteResult::default())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if request.uri.starts_with(URI_PREFIX) {
            // What is kept of a call never changes.
            return Ok(());
        }
        watches::subscribe(self, &self.session, &request.uri).await.map_err(|error| match error {
            CallError::JsonRpc { code, message, data } => ErrorData::new(ErrorCode(code), message, data),
            CallError::UnknownResource { uri } => not_found(&uri),
            error => ErrorData::internal_error(error.to_string(), None),
        })
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        watches::unsubscribe(&self.session, &self.shared, &request.uri);
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.task(&request.task_id, TaskRequest::Get, &context).await?;
        Ok(GetTaskResult::new(DetailedTask::new(Task::default(), TaskPayload::Working)))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.task(&request.task_id, TaskRequest::Update(request.input_responses), &context).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.task(&request.task_id, TaskRequest::Cancel, &context).await
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Raw::give(&context, page("tools", self.show(List::Tools).await));
        Ok(ListToolsResult::default())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let mut lists = self.show(List::Resources).await;
        Raw::give(&context, page("resources", lists["resources"].take()));
        Ok(ListResourcesResult::default())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Raw::give(&context, page("prompts", self.show(List::Prompts).await));
        Ok(ListPromptsResult::default())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let target = self.find(|catalogue| catalogue.prompt(&request.name)).await;
        let unknown = || ErrorData::invalid_params(format!("there is no prompt `{}`", request.name), None);
        let answer = self.pass_on(Asked::prompt(&request), target, unknown, &context).await?;
        give(answer, &context);
        Ok(GetPromptResult::new(Vec::new()).into())
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut lists = self.show(List::Resources).await;
        Raw::give(&context, page("resourceTemplates", lists["templates"].take()));
        Ok(ListResourceTemplatesResult::default())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if let Some(id) = request.uri.strip_prefix(URI_PREFIX) {
            return self.own_resource(id, &request.uri).map(Into::into);
        }
        let target = self.resource(&request.uri).await;
        let unknown = || not_found(&request.uri);
        let answer = self.pass_on(Asked::resource(&request), target, unknown, &context).await?;
        give(answer, &context);
        Ok(ReadResourceResult::new(Vec::new()).into())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            let catalogue = self.catalogue(&self.session.known_servers());
            uris.retain(|uri| catalogue.resource(uri).is_some());
        }
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        lists::stream(self, &self.session, &self.shared, context).await;
        Ok(())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let Value::Array(tools) = self.list(List::Tools) else { return None };
        let tool = tools.into_iter().find(|tool| tool["name"] == name)?;
        serde_json::from_value(tool).ok()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (asked, mut retry) = Asked::tool(&request);
        let call = match self.session.suspended.resume(&asked, &mut retry)? {
            Some(call) => call,
            None => match self.start_tool(asked, retry, &context).await {
                Some(Ok(call)) => call,
                Some(Err(end)) => return end.map(|answer| give(answer, &context).into()),
                None => return self.discover(request, context.ct).await,
            },
        };
        let answer = call.follow(&self.session, &context).await?;
        Ok(give(answer, &context).into())
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
