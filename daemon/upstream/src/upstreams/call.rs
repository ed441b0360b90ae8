//! Requests of sessions to their servers.

#![expect(
    deprecated,
    reason = "logging levels are on their way out of MCP (SEP-2577); clients of today use them"
)]

use std::sync::Arc;

use rmcp::model::{
    ClientCapabilities, CompleteRequestParams, InputResponses, JsonObject, LoggingLevel, RequestMetaObject,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::connection::live::Lease;
use crate::connection::open::{Era, OpenError};
use crate::connection::request::{
    Failure, Input, Limits, MAX_EXTENSION, Operation, Request, TaskRequest, forwarded_meta,
};
use crate::connection::task::{Command, Refusal};
use crate::error::CallError;
use crate::manifest::Manifest;
use crate::nearest::ranked;
use crate::session::{Ask, ServerRef, SessionId};
use crate::upstreams::Upstreams;
use crate::upstreams::registry::{Connection, Entry, Instance, Key};

/// How often a server may ask for more before it answers one request.
const MAX_ROUNDS: u32 = 10;

/// Pause before a request is repeated for a server that asked for nothing but patience; grows with each round.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often a call looks for another connection when the one that it found is just being closed.
const MAX_LOOKUPS: usize = 3;

/// Who makes a request, and how long it may take.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub session: SessionId,
    /// For logs.
    pub execution: Option<Arc<str>>,
    /// Cancels the request, and tells the server so. Dropping the future does the same.
    pub cancel: CancellationToken,
    /// The request fails then, whatever its server's own timeout says.
    pub deadline: Option<Instant>,
    /// Gets the `params` of progress notifications, in order and before the result; what it has no room for is dropped.
    pub progress: Option<mpsc::Sender<Value>>,
    /// The caller's `_meta`, which is passed on but for its progress token and what belongs to the caller's own connection.
    pub meta: Option<JsonObject>,
    /// What the caller's client declared, where the request is that client's own and servers of the newer era are to serve
    /// it as such. `None`: what the daemon can do.
    pub client: Option<ClientTerms>,
    pub rounds: Rounds,
}

/// A client whose request is passed on.
#[derive(Debug, Clone)]
pub struct ClientTerms {
    pub capabilities: ClientCapabilities,
    /// What it wants to hear while the request goes on. A server that is shared is not told: its messages reach no client.
    pub log_level: Option<LoggingLevel>,
}

/// What becomes of a result that wants input, which only servers of the newer era give.
#[derive(Debug, Clone, Default)]
pub enum Rounds {
    /// The session is asked, and the request repeated with its answers.
    #[default]
    Answered,
    /// It is the caller's result; what the caller brings along from an earlier one is passed on.
    PassedOn(Input),
}

/// The part of a result that says whether it is one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultKind {
    result_type: Option<String>,
    #[serde(default)]
    input_requests: serde_json::Map<String, Value>,
    request_state: Option<String>,
}

/// A lease, its place among the calls of its connection, and the end of a connection that was made for it alone.
pub(super) struct Use {
    pub(super) lease: Lease,
    pub(super) entry: Entry,
    _permit: tokio::sync::OwnedSemaphorePermit,
    _own: Option<OwnConnection>,
}

/// Closes a connection that was made for one call.
struct OwnConnection {
    upstreams: Upstreams,
    key: Key,
}

impl CallContext {
    pub fn new(session: SessionId) -> Self {
        let cancel = CancellationToken::new();
        let (execution, deadline, progress, meta, client) = (None, None, None, None, None);
        Self { session, execution, cancel, deadline, progress, meta, client, rounds: Rounds::default() }
    }
}

impl CallContext {
    /// The metadata of a request over `lease`: what is the caller's, and what a server of the newer era has to know of the
    /// caller's client.
    fn meta_for(&self, lease: &Lease) -> Option<RequestMetaObject> {
        let mut meta = forwarded_meta(self.meta.clone());
        if let Some(client) = self.client.as_ref().filter(|_| lease.live.era == Era::Discover) {
            let capabilities = serde_json::to_value(&client.capabilities).unwrap_or_default();
            meta.insert("io.modelcontextprotocol/clientCapabilities".to_owned(), capabilities);
            let is_heard = lease.live.answers.owner.is_some();
            if let Some(level) = client.log_level.filter(|_| is_heard) {
                meta.insert("io.modelcontextprotocol/logLevel".to_owned(), json!(level));
            }
        }
        (!meta.is_empty()).then(|| serde_json::from_value(Value::Object(meta)).ok()).flatten()
    }
}

impl Upstreams {
    /// Calls a tool. The result is the server's `CallToolResult`, with everything that it put into it; `resultType` is
    /// added where an older server left it out, and configured secrets are blanked.
    ///
    /// # Errors
    /// See [`CallError`]. A failure of the tool itself is a result with `isError`.
    ///
    /// # Cancel safety
    /// Dropped before its end it tells the server that the request is cancelled.
    pub async fn call_tool(
        &self,
        server: &ServerRef,
        context: &CallContext,
        tool: &str,
        arguments: JsonObject,
    ) -> Result<Value, CallError> {
        let entry = self.entry(server)?;
        if let Some(rule) = entry.config.tools.denies(tool) {
            return Err(CallError::Denied { server: server.name.clone(), tool: tool.to_owned(), rule });
        }
        let operation = Operation::CallTool { name: tool.to_owned(), arguments };
        let used = self.use_server(server, context, operation.method()).await?;
        self.check_tool(server, &used, tool, context).await?;
        self.perform(server, context, &used, operation).await
    }

    /// Reads a resource; the result is the server's `ReadResourceResult`.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// As [`Upstreams::call_tool`].
    pub async fn read_resource(
        &self,
        server: &ServerRef,
        context: &CallContext,
        uri: &str,
    ) -> Result<Value, CallError> {
        let operation = Operation::ReadResource { uri: uri.to_owned() };
        let used = self.use_server(server, context, operation.method()).await?;
        self.perform(server, context, &used, operation).await
    }

    /// Gets a prompt; the result is the server's `GetPromptResult`.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// As [`Upstreams::call_tool`].
    pub async fn get_prompt(
        &self,
        server: &ServerRef,
        context: &CallContext,
        prompt: &str,
        arguments: JsonObject,
    ) -> Result<Value, CallError> {
        let operation = Operation::GetPrompt { name: prompt.to_owned(), arguments };
        let used = self.use_server(server, context, operation.method()).await?;
        self.perform(server, context, &used, operation).await
    }

    /// Suggests values of an argument of a prompt or a resource template; the result is the server's `CompleteResult`.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// As [`Upstreams::call_tool`].
    pub async fn complete(
        &self,
        server: &ServerRef,
        context: &CallContext,
        params: CompleteRequestParams,
    ) -> Result<Value, CallError> {
        let operation = Operation::Complete(Box::new(params));
        let used = self.use_server(server, context, operation.method()).await?;
        self.perform(server, context, &used, operation).await
    }

    /// Asks about a task that the server made of a call; the result is the server's.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// As [`Upstreams::call_tool`].
    pub async fn task(
        &self,
        server: &ServerRef,
        context: &CallContext,
        id: &str,
        request: TaskRequest,
    ) -> Result<Value, CallError> {
        let operation = Operation::Task { id: id.to_owned(), request };
        let used = self.use_server(server, context, operation.method()).await?;
        self.perform(server, context, &used, operation).await
    }

    /// The server's lists as it gives them now: starts it if it does not run.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn lists(&self, server: &ServerRef, context: &CallContext) -> Result<Arc<Manifest>, CallError> {
        let used = self.use_server(server, context, "tools/list").await?;
        self.fresh(server, &used, context).await
    }

    /// The tools that may be called; see [`Upstreams::lists`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list_tools(
        &self,
        server: &ServerRef,
        context: &CallContext,
    ) -> Result<Vec<Value>, CallError> {
        Ok(self.lists(server, context).await?.tools.clone())
    }

    /// See [`Upstreams::lists`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list_resources(
        &self,
        server: &ServerRef,
        context: &CallContext,
    ) -> Result<Vec<Value>, CallError> {
        Ok(self.lists(server, context).await?.resources.clone())
    }

    /// See [`Upstreams::lists`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list_prompts(
        &self,
        server: &ServerRef,
        context: &CallContext,
    ) -> Result<Vec<Value>, CallError> {
        Ok(self.lists(server, context).await?.prompts.clone())
    }

    pub(super) async fn use_server(
        &self,
        server: &ServerRef,
        context: &CallContext,
        method: &str,
    ) -> Result<Use, CallError> {
        for _ in 0..MAX_LOOKUPS {
            let entry = self.entry_to_use(server).await?;
            let connection = self.registry().for_call(&self.0, &entry, &context.session, &server.name);
            let is_own = matches!(connection.key.instance, Instance::Call(_));
            let own = is_own.then(|| OwnConnection { upstreams: self.clone(), key: connection.key.clone() });
            let permit = connection.permits.clone().try_acquire_owned().map_err(|_| CallError::Busy {
                server: server.name.clone(),
                limit: self.0.options.max_in_flight,
            })?;
            match self.lease(server, &connection, context, method).await {
                Ok(Ok(lease)) => return Ok(Use { lease, entry, _permit: permit, _own: own }),
                // The configuration changed just now; it may have another connection.
                Ok(Err(Refusal::Closing)) => {}
                Ok(Err(refusal)) => {
                    return Err(refused(&server.name, refusal).redacted(&entry.config.redactor));
                }
                Err(error) => return Err(error),
            }
        }
        Err(CallError::ShuttingDown)
    }

    async fn lease(
        &self,
        server: &ServerRef,
        connection: &Connection,
        context: &CallContext,
        method: &str,
    ) -> Result<Result<Lease, Refusal>, CallError> {
        let (reply, answer) = oneshot::channel();
        let started_at = Instant::now();
        let wish = Command::Lease { session: context.session.clone(), reply };
        if connection.commands.send(wish).await.is_err() {
            return Ok(Err(Refusal::Closing));
        }
        tokio::select! {
            // Biased: a lease that is there is used.
            biased;
            // Cancel-safe: a oneshot keeps its value; a lease that is not taken ends by its drop.
            answer = answer => Ok(answer.unwrap_or(Err(Refusal::Closing))),
            // Cancel-safe: a token stays cancelled.
            () = context.cancel.cancelled() => Err(CallError::Cancelled),
            // Cancel-safe: a point in time.
            () = sleep_until(context.deadline.unwrap_or(started_at)), if context.deadline.is_some() => {
                let (server, method) = (server.name.clone(), method.to_owned());
                Err(CallError::Timeout { server, method, after: started_at.elapsed() })
            }
        }
    }

    /// A tool that the server is known not to have is not asked for.
    async fn check_tool(
        &self,
        server: &ServerRef,
        used: &Use,
        tool: &str,
        context: &CallContext,
    ) -> Result<(), CallError> {
        let has = |manifest: &Manifest| manifest.tool_names().any(|name| name == tool);
        let known = self.registry().known(&self.0, &used.entry).manifests.current();
        if known.is_some_and(|manifest| has(&manifest)) {
            return Ok(());
        }
        let manifest = self.fresh(server, used, context).await?;
        // A list that was cut, or failed, proves nothing.
        if has(&manifest) || manifest.problems.iter().any(|problem| problem.starts_with("tools/list")) {
            return Ok(());
        }
        let nearest = ranked(tool, manifest.tool_names()).into_iter().map(str::to_owned).collect();
        Err(CallError::UnknownTool { server: server.name.clone(), tool: tool.to_owned(), nearest })
    }

    /// The lists of the running server.
    async fn fresh(
        &self,
        server: &ServerRef,
        used: &Use,
        context: &CallContext,
    ) -> Result<Arc<Manifest>, CallError> {
        let live = &used.lease.live;
        let mut listed = live.listed.subscribe();
        let mut end = live.end.clone();
        let timeout = used.entry.config.timeout;
        // What `wait_for` gives must not live on: it locks the channel.
        let wait = async {
            tokio::select! {
                // Cancel-safe.
                () = async { drop(listed.wait_for(|listed| *listed).await) } => return Ok(()),
                // Cancel-safe.
                () = async { drop(end.wait_for(Option::is_some).await) } => {}
                // Cancel-safe: a token stays cancelled.
                () = context.cancel.cancelled() => return Err(CallError::Cancelled),
            }
            Err(live.explain(&server.name, "tools/list", Failure::Gone).await)
        };
        let until =
            (Instant::now() + timeout).min(context.deadline.unwrap_or_else(|| Instant::now() + timeout));
        let (name, method) = (server.name.clone(), "tools/list".to_owned());
        timeout_at(until, wait).await.map_err(|_| CallError::Timeout {
            server: name,
            method,
            after: timeout,
        })??;
        let known = self.registry().known(&self.0, &used.entry).manifests.current();
        let reason = "its lists could not be kept".to_owned();
        let manifest = known.ok_or_else(|| CallError::Protocol { server: server.name.clone(), reason })?;
        Ok(manifest.filtered(&used.entry.config.tools))
    }

    /// Makes the request, and answers what the server wants to know before it does.
    async fn perform(
        &self,
        server: &ServerRef,
        context: &CallContext,
        used: &Use,
        operation: Operation,
    ) -> Result<Value, CallError> {
        let config = &used.entry.config;
        let longest = Instant::now() + config.timeout.saturating_mul(MAX_EXTENSION);
        let limits = Limits {
            timeout: config.timeout,
            deadline: context.deadline.map_or(longest, |deadline| deadline.min(longest)),
            cancel: context.cancel.clone(),
            max_bytes: self.0.options.max_message_bytes,
        };
        let meta = context.meta_for(&used.lease);
        tracing::debug!(
            upstream = server.name,
            session = %context.session,
            execution = context.execution.as_deref(),
            method = operation.method(),
            "request"
        );
        let performed = rounds(server, context, used, operation, meta, &limits).await;
        let raw = performed.map_err(|error| error.redacted(&config.redactor))?;
        let mut result: Value = serde_json::from_str(raw.get()).map_err(|error| CallError::Protocol {
            server: server.name.clone(),
            reason: error.to_string(),
        })?;
        if config.redactor.finds(raw.get()) {
            config.redactor.redact_value(&mut result);
        }
        match result.as_object_mut() {
            Some(members) => {
                members.entry("resultType").or_insert_with(|| json!("complete"));
                Ok(result)
            }
            None => Err(CallError::Protocol {
                server: server.name.clone(),
                reason: "its result is no object".to_owned(),
            }),
        }
    }
}

async fn rounds(
    server: &ServerRef,
    context: &CallContext,
    used: &Use,
    operation: Operation,
    meta: Option<RequestMetaObject>,
    limits: &Limits,
) -> Result<Box<RawValue>, CallError> {
    let mut input = match &context.rounds {
        Rounds::PassedOn(Input { state: Some(_), .. }) if used.lease.live.era == Era::Initialize => {
            return Err(CallError::Over);
        }
        Rounds::PassedOn(input) => input.clone(),
        Rounds::Answered => Input::default(),
    };
    for round in 1..=MAX_ROUNDS {
        let progress = context.progress.clone();
        let request = Request { operation: operation.clone(), input, meta: meta.clone(), progress };
        let raw = used.lease.send(&server.name, request, limits).await?;
        if matches!(context.rounds, Rounds::PassedOn(_)) {
            return Ok(raw);
        }
        let kind: ResultKind = match serde_json::from_str(raw.get()) {
            Ok(kind) => kind,
            Err(_) => return Ok(raw),
        };
        if kind.result_type.as_deref() != Some("input_required") {
            return Ok(raw);
        }
        if kind.input_requests.is_empty() {
            sleep(PATIENCE * round).await;
        }
        let responses = respond(&used.lease, kind.input_requests);
        let responses = tokio::select! {
            // Cancel-safe: what was answered so far is of no use without the rest.
            responses = responses => responses.map_err(|reason| CallError::Protocol { server: server.name.clone(), reason })?,
            // Cancel-safe: a token stays cancelled.
            () = limits.cancel.cancelled() => return Err(CallError::Cancelled),
            // Cancel-safe: a point in time.
            () = sleep_until(limits.deadline) => {
                let (server, method) = (server.name.clone(), operation.method().to_owned());
                return Err(CallError::Timeout { server, method, after: limits.timeout });
            }
        };
        input = Input { responses: Some(responses).filter(|all| !all.is_empty()), state: kind.request_state };
    }
    let reason = format!("it asked for more {MAX_ROUNDS} times without an answer");
    Err(CallError::Protocol { server: server.name.clone(), reason })
}

/// Answers to what a server of the newer era asks in place of a result. It asks within a call, so the session is known.
async fn respond(lease: &Lease, requests: serde_json::Map<String, Value>) -> Result<InputResponses, String> {
    let mut responses = InputResponses::new();
    for (key, mut request) in requests {
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let what = Ask::from_method(&method)
            .ok_or_else(|| format!("it asked for {method:?}, which is not known"))?;
        let params = request.get_mut("params").map(Value::take).unwrap_or_default();
        let answer = lease.live.answers.answer(what, params, Some(lease.session())).await;
        responses.insert(key, answer.map_err(|why| format!("it asked for {method}: {why}"))?);
    }
    Ok(responses)
}

fn refused(server: &str, refusal: Refusal) -> CallError {
    let server = server.to_owned();
    match refusal {
        Refusal::Start(OpenError::Auth) => CallError::Auth { server },
        Refusal::Start(OpenError::Failed { reason, stderr }) => CallError::Start { server, reason, stderr },
        Refusal::Open { failures, until, last } => {
            let reason = match last {
                Some(OpenError::Failed { reason, .. }) => reason,
                Some(OpenError::Auth) => return CallError::Auth { server },
                None => "it ended again and again".to_owned(),
            };
            let retry_in = until.saturating_duration_since(std::time::Instant::now());
            // Whole seconds read better, and nobody waits for less.
            let retry_in = Duration::from_secs(retry_in.as_secs() + 1);
            CallError::Unavailable { server, failures, retry_in, reason }
        }
        Refusal::Closing => CallError::ShuttingDown,
    }
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.upstreams.registry().close(|key| *key == self.key);
    }
}
