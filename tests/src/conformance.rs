//! The server that the official conformance suite asks for, for tests alone, and the client that it drives. The server's tools,
//! prompts and resources have the names and answers that the suite's scenarios describe. Speaks both eras of the protocol, over stdio or Streamable HTTP.
//!
//! What it keeps is what a scenario changes: lists that grow, resources that are watched, tasks. [`Server`] is a handle to
//! that, so that all connections over HTTP see the same. A resource `test://watched-resource`, changed by the tool
//! `touch_watched_resource`, is ours, and so is `test_restart`, which ends the process.

#![expect(deprecated, reason = "the scenarios of older revisions log and subscribe")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    CompletionInfo, ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult,
    Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    LoggingLevel, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
    Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::{RoleServer, ServiceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use tasks::Tasks;

pub mod client;
mod content;
mod http;
mod questions;
mod tasks;
mod tools;

/// The server; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Server(Arc<State>);

#[derive(Debug, Default)]
struct State {
    n_more_tools: AtomicUsize,
    n_more_prompts: AtomicUsize,
    level: Mutex<Option<LoggingLevel>>,
    subscribed: Mutex<BTreeSet<String>>,
    streams: Mutex<Vec<SubscriptionSink>>,
    tasks: Tasks,
}

type Context = RequestContext<RoleServer>;

impl Server {
    /// Serves one client over stdin and stdout, until it ends.
    pub async fn serve_stdio(self) {
        // An error is a client that ended before it said anything.
        if let Ok(running) = self.serve((tokio::io::stdin(), tokio::io::stdout())).await {
            drop(running.waiting().await);
        }
    }

    /// Serves Streamable HTTP at `/mcp` of a free port on the loopback address; tells the URL on stdout.
    ///
    /// # Panics
    /// No port is free.
    pub async fn serve_http(self) {
        http::serve(self).await;
    }

    fn streams(&self) -> Vec<SubscriptionSink> {
        lock(&self.0.streams).clone()
    }

    /// Tells the client of a request, and all who listen, that the tools changed.
    async fn more_tools(&self, context: &Context) {
        self.0.n_more_tools.fetch_add(1, Ordering::Relaxed);
        for stream in self.streams() {
            // Not asked for on this stream.
            stream.notify_tool_list_changed().await.ok();
        }
        if is_older(context) {
            context.peer.notify_tool_list_changed().await.ok();
        }
    }

    async fn more_prompts(&self, context: &Context) {
        self.0.n_more_prompts.fetch_add(1, Ordering::Relaxed);
        for stream in self.streams() {
            // Not asked for on this stream.
            stream.notify_prompt_list_changed().await.ok();
        }
        if is_older(context) {
            context.peer.notify_prompt_list_changed().await.ok();
        }
    }

    async fn touch(&self, context: &Context) {
        for stream in self.streams() {
            // Not asked for on this stream.
            stream.notify_resource_updated(content::WATCHED).await.ok();
        }
        if lock(&self.0.subscribed).contains(content::WATCHED) {
            let updated = of(json!({ "uri": content::WATCHED }));
            context.peer.notify_resource_updated(updated).await.ok();
        }
    }

    /// Whether the client of a request wants to hear messages at `info`.
    fn wants_logs(&self, context: &Context) -> bool {
        let quieter = [LoggingLevel::Debug, LoggingLevel::Info];
        if is_older(context) {
            lock(&self.0.level).is_none_or(|level| quieter.contains(&level))
        } else {
            context.meta.log_level().is_some_and(|level| quieter.contains(&level))
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("conformance", "1"))
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        *lock(&self.0.level) = Some(request.level);
        Ok(())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let all = ["paris", "park", "party"].map(str::to_owned);
        let values = all.into_iter().filter(|value| value.starts_with(&request.argument.value)).collect();
        let completion = CompletionInfo::with_all_values(values);
        Ok(CompleteResult::new(completion.map_err(|error| ErrorData::internal_error(error, None))?))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(result(json!({ "tools": tools::listed(self.0.n_more_tools.load(Ordering::Relaxed)) })))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let listed = tools::listed(0);
        listed.into_iter().find(|tool| tool["name"] == name).map(of)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, &request, &context).await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(result(json!({ "prompts": content::prompts(self.0.n_more_prompts.load(Ordering::Relaxed)) })))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        content::prompt(&request, &context)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(result(json!({ "resources": content::resources() })))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(result(json!({ "resourceTemplates": content::templates() })))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        content::read(&request.uri)
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        lock(&self.0.subscribed).insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        lock(&self.0.subscribed).remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        lock(&self.0.streams).push(context.sink().clone());
        context.cancelled().await;
        let id = context.sink().id();
        lock(&self.0.streams).retain(|stream| stream.id() != id);
        Ok(())
    }

    async fn get_task(&self, request: GetTaskParams, _: Context) -> Result<GetTaskResult, ErrorData> {
        self.0.tasks.get(&request.task_id)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.0.tasks.update(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.0.tasks.cancel(&request.task_id)
    }
}

/// Whether a request is of a revision with `initialize`.
fn is_older(context: &Context) -> bool {
    context.protocol_version().is_none_or(|version| version.has_initialize())
}

/// A result, as its members; for an older client rmcp takes away what only the newer era has.
fn result<T: DeserializeOwned>(mut members: Value) -> T {
    members["resultType"] = json!("complete");
    of(members)
}

/// A type of the protocol, as its JSON.
fn of<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("it is written as the protocol has it")
}

fn lock<T>(data: &Mutex<T>) -> MutexGuard<'_, T> {
    data.lock().unwrap_or_else(PoisonError::into_inner)
}
