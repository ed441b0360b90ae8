//! What code does with upstream servers while it runs: each request of `mcp` and `mcpFactory`, answered once.
//!
//! A run reaches the servers of its own session's configuration and no others: the registration is fixed before the code
//! starts, and the code only ever names servers in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_catalog::{ToolError, nearest, signature, unwrap};
use conductor_pool::HostError;
use conductor_upstream::{CallContext, CallError, Manifest, ServerRef, SessionId};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Registration, Servers, UpstreamService};
use crate::exec::CallEvent;

/// Progress of one request that waits to be told; what has no room is left out, as progress may be.
const PROGRESS: usize = 16;

/// Schemas above this size are compiled on a blocking thread, bytes of JSON: half a megabyte takes some hundred
/// milliseconds.
const INLINE_SCHEMA_BYTES: usize = 32 << 10;

/// The requests of one run.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamCalls {
    pub(crate) service: Arc<UpstreamService>,
    pub(crate) registration: Arc<Registration>,
    pub(crate) session: u64,
    pub(crate) execution: Arc<str>,
    pub(crate) cancel: CancellationToken,
    pub(crate) events: Option<mpsc::Sender<CallEvent>>,
}

impl UpstreamCalls {
    /// Answers one request; `None` when there is no such method.
    ///
    /// # Cancel safety
    /// Dropped before its end it tells the server that the request is cancelled.
    pub(crate) async fn answer(&self, method: &str, mut params: Value) -> Option<Result<Value, HostError>> {
        let context = self.context(&params);
        let server = self.server(params["server"].as_str().unwrap_or_default());
        let upstreams = self.service.upstreams();
        let text = |key: &str| params[key].as_str().unwrap_or_default();
        let answer = match method {
            "listServers" => Ok(json!(self.registration.names)),
            "load" => upstreams.manifest(&server).map(|_| json!(server.name)),
            "callTool" => {
                let call = ToolCall {
                    tool: text("name").to_owned(),
                    raw: params["raw"] == true,
                    args: params.get_mut("args").map(Value::take),
                };
                return Some(self.call_tool(&server, call, context).await);
            }
            "listTools" => upstreams.list_tools(&server, &context).await.map(Value::from),
            "listResources" => upstreams.list_resources(&server, &context).await.map(Value::from),
            "listPrompts" => upstreams.list_prompts(&server, &context).await.map(Value::from),
            "readResource" => upstreams.read_resource(&server, &context, text("uri")).await,
            "getPrompt" => {
                let arguments = params["args"].as_object().cloned().unwrap_or_default();
                upstreams.get_prompt(&server, &context, text("name"), arguments).await
            }
            _ => return None,
        };
        Some(answer.map_err(|error| failed(&server.name, None, &error)))
    }

    fn context(&self, params: &Value) -> CallContext {
        let timeout = params["timeout"].as_f64().filter(|ms| ms.is_finite() && *ms > 0.0);
        let deadline = timeout.map(|ms| Instant::now() + Duration::from_secs_f64((ms / 1e3).min(86_400.0)));
        CallContext {
            execution: Some(self.execution.clone()),
            cancel: self.cancel.clone(),
            deadline: deadline.map(Into::into),
            ..CallContext::new(SessionId::new(self.session.to_string()))
        }
    }

    /// The server that code means: by its name, or by the name as an identifier.
    fn server(&self, asked: &str) -> ServerRef {
        let names = &self.registration.names;
        let meant = meant(asked, names.iter().map(String::as_str)).unwrap_or(asked);
        ServerRef::new(self.registration.id.clone(), meant)
    }

    async fn call_tool(
        &self,
        server: &ServerRef,
        call: ToolCall,
        context: CallContext,
    ) -> Result<Value, HostError> {
        let ToolCall { tool, raw, args } = call;
        let failed = |tool: &str, error: &CallError| failed(&server.name, Some(tool), error);
        let manifest = self.manifest(server, &context).await.map_err(|error| failed(&tool, &error))?;
        let names: Vec<&str> = manifest.tool_names().collect();
        let tool = meant(&tool, names.iter().copied()).unwrap_or(&tool).to_owned();
        let listed = manifest.tools.iter().find(|listed| listed["name"] == *tool);
        let arguments = arguments(&server.name, &tool, args)?;
        if let Some(listed) = listed {
            self.check(server, listed, &arguments).await?;
        }
        let result = self.with_progress(server, &tool, context, arguments).await;
        let result = result.map_err(|error| failed(&tool, &error))?;
        if raw {
            return Ok(result);
        }
        let output = listed.and_then(|listed| listed.get("outputSchema"));
        let value = unwrap(result, output).map_err(|error| tool_failed(&server.name, &tool, error))?;
        if output.is_none() {
            self.service.learn(server, &tool, &value);
        }
        Ok(value)
    }

    /// What is known of the server; one that never ran is started.
    async fn manifest(&self, server: &ServerRef, context: &CallContext) -> Result<Arc<Manifest>, CallError> {
        let upstreams = self.service.upstreams();
        match upstreams.manifest(server)? {
            Some(manifest) => Ok(manifest),
            None => upstreams.lists(server, context).await,
        }
    }

    /// Refuses arguments that the tool's schema forbids, before the server sees them.
    async fn check(
        &self,
        server: &ServerRef,
        listed: &Value,
        arguments: &Map<String, Value>,
    ) -> Result<(), HostError> {
        let Some(schema) = listed.get("inputSchema") else { return Ok(()) };
        let checker = if schema.to_string().len() <= INLINE_SCHEMA_BYTES {
            self.service.checkers.get(schema)
        } else {
            let (service, schema) = (self.service.clone(), schema.clone());
            match tokio::task::spawn_blocking(move || service.checkers.get(&schema)).await {
                Ok(checker) => checker,
                // The server checks, too.
                Err(_panicked) => return Ok(()),
            }
        };
        let arguments = Value::Object(arguments.clone());
        checker.check(&arguments).map_err(|error| {
            let tool = listed["name"].as_str().unwrap_or_default();
            let entry = conductor_catalog::ToolEntry::from_listed(&server.name, listed);
            let hint = entry.map_or_else(String::new, |entry| format!("\nhint: {}", signature(&entry)));
            invalid(&server.name, tool, &format!("{error}{hint}"))
        })
    }

    async fn with_progress(
        &self,
        server: &ServerRef,
        tool: &str,
        mut context: CallContext,
        arguments: Map<String, Value>,
    ) -> Result<Value, CallError> {
        let (sender, mut progress) = mpsc::channel(PROGRESS);
        context.progress = self.events.is_some().then_some(sender);
        let call = self.service.upstreams().call_tool(server, &context, tool, arguments);
        let mut call = std::pin::pin!(call);
        loop {
            tokio::select! {
                // Biased: progress is told before the result it belongs to.
                biased;
                // Cancel-safe: what is not taken stays in the channel.
                Some(params) = progress.recv() => self.tell(server, tool, &params),
                // Cancel-safe: the future is kept across turns.
                result = &mut call => return result,
            }
        }
    }

    fn tell(&self, server: &ServerRef, tool: &str, params: &Value) {
        let Some(events) = &self.events else { return };
        let mut text = format!("{}.{tool}", server.name);
        match (params["message"].as_str(), &params["progress"], &params["total"]) {
            (Some(message), ..) => text.push_str(&format!(": {message}")),
            (None, progress, Value::Null) => text.push_str(&format!(": {progress}")),
            (None, progress, total) => text.push_str(&format!(": {progress} of {total}")),
        }
        // receiver gone: the session ended; full: it has newer things to tell
        let _told = events.try_send(CallEvent::Phase(text));
    }
}

/// What errors of upstream servers are called in code.
const TOOL_ERROR: &str = "McpToolError";

struct ToolCall {
    tool: String,
    raw: bool,
    args: Option<Value>,
}

/// The one of `names` that is asked for: exactly, or written as an identifier (`my_server` for `my-server`) if only one is.
pub(crate) fn meant<'n>(asked: &str, names: impl Iterator<Item = &'n str> + Clone) -> Option<&'n str> {
    if let Some(name) = names.clone().find(|name| *name == asked) {
        return Some(name);
    }
    let identifier = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let mut alike = names.filter(|name| identifier(name) == asked);
    let first = alike.next()?;
    alike.next().is_none().then_some(first)
}

fn arguments(server: &str, tool: &str, args: Option<Value>) -> Result<Map<String, Value>, HostError> {
    match args {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(arguments)) => Ok(arguments),
        Some(other) => {
            let kind = match other {
                Value::Array(_) => "an array",
                Value::String(_) => "a string",
                Value::Number(_) => "a number",
                _ => "a boolean",
            };
            let why = format!("the arguments are {kind}\nhint: pass one object, like {{ name: value }}");
            Err(invalid(server, tool, &why))
        }
    }
}

fn invalid(server: &str, tool: &str, why: &str) -> HostError {
    error("invalid_arguments", server, Some(tool), format!("{server}.{tool}: {why}"))
}

fn tool_failed(server: &str, tool: &str, failed: ToolError) -> HostError {
    let ToolError { message, content, structured } = failed;
    let mut error = error("tool_error", server, Some(tool), format!("{server}.{tool}: {message}"));
    error.data.insert("content".into(), Value::Array(content));
    if let Some(structured) = structured {
        error.data.insert("structuredContent".into(), structured);
    }
    error
}

fn failed(server: &str, tool: Option<&str>, failed: &CallError) -> HostError {
    let mut failure = error(&failed.kind().replace('-', "_"), server, tool, failed.to_string());
    if let CallError::JsonRpc { code, data, .. } = failed {
        failure.data.insert("rpcCode".into(), json!(code));
        failure.data.insert("rpcData".into(), data.clone().unwrap_or_default());
    }
    failure
}

/// What every request comes to without a configuration that can be used; `None` where there is none at all.
pub(crate) fn unusable(servers: &Servers) -> Option<HostError> {
    let why = match servers {
        Servers::Failed(why) => why.to_string(),
        Servers::Pending => {
            "the configuration of MCP servers is still being read\nhint: try again in a moment".into()
        }
        Servers::None | Servers::Ready(_) => return None,
    };
    let data = Map::from_iter([("code".to_owned(), json!("configuration"))]);
    Some(HostError { name: TOOL_ERROR.into(), message: why, data })
}

/// An error that code can catch by its type and tell by its `code`.
fn error(code: &str, server: &str, tool: Option<&str>, message: String) -> HostError {
    let mut data = Map::new();
    data.insert("code".into(), json!(code));
    data.insert("server".into(), json!(server));
    if let Some(tool) = tool {
        data.insert("tool".into(), json!(tool));
    }
    HostError { name: TOOL_ERROR.into(), message, data }
}

/// `\nhint: did you mean …?`, or nothing.
pub(crate) fn did_you_mean<'n>(asked: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    match nearest(asked, names).as_slice() {
        [] => String::new(),
        names => format!("\nhint: did you mean {}?", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_exactly_or_as_an_identifier() {
        let names = ["my-server", "github", "a-b", "a.b"];
        let meant = |asked| meant(asked, names.into_iter());
        assert_eq!(meant("github"), Some("github"));
        assert_eq!(meant("my_server"), Some("my-server"));
        assert_eq!(meant("a-b"), Some("a-b"));
        assert_eq!(meant("a_b"), None, "two could be meant");
        assert_eq!(meant("git"), None);
    }

    #[test]
    fn errors_tell_their_kind_and_arguments_must_be_an_object() {
        assert_eq!(arguments("s", "t", None), Ok(Map::new()));
        let error = arguments("s", "t", Some(json!([1]))).expect_err("is no object");
        assert_eq!((error.name.as_str(), &error.data["code"]), ("McpToolError", &json!("invalid_arguments")));
        let error =
            failed("s", None, &CallError::UnknownServer { name: "s".into(), nearest: vec!["t".into()] });
        assert_eq!(error.data["code"], "unknown_server");
        assert!(error.message.contains("did you mean t?"), "{}", error.message);
    }
}
