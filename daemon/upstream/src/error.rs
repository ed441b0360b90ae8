//! How a request to an upstream can fail.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::secret::Redactor;

/// Why a request to an upstream server gave no result. Texts carry no secret.
#[derive(Debug, Clone, Error)]
pub enum CallError {
    #[error("there is no MCP server named {name:?}{}", did_you_mean(nearest))]
    UnknownServer { name: String, nearest: Vec<String> },
    #[error("the server {server} has no tool named {tool:?}{}", did_you_mean(nearest))]
    UnknownTool { server: String, tool: String, nearest: Vec<String> },
    #[error("no server has the resource {uri}")]
    UnknownResource { uri: String },
    #[error("the server {server} cannot be used: {reason}")]
    Disabled { server: String, reason: String },
    #[error(
        "the tool {tool} of {server} may not be called\nhint: `{rule}` in the configuration of {server} decides it"
    )]
    Denied { server: String, tool: String, rule: &'static str },
    #[error("the server {server} did not start: {reason}{}", last_lines(stderr))]
    Start { server: String, reason: String, stderr: Vec<String> },
    #[error("the server {server} failed {failures} times and is tried again in {}\nhint: conductorctl servers restart {server}\nlast failure: {reason}", humantime::format_duration(*retry_in))]
    Unavailable { server: String, failures: u32, retry_in: Duration, reason: String },
    #[error("the server {server} wants authorisation\nhint: conductorctl auth login {server}")]
    Auth { server: String },
    #[error("the server {server} did not answer {method} within {}", humantime::format_duration(*after))]
    Timeout { server: String, method: String, after: Duration },
    #[error("the server {server} ended during {method}: {reason}{}", last_lines(stderr))]
    Disconnected { server: String, method: String, reason: String, stderr: Vec<String> },
    #[error("the request was cancelled")]
    Cancelled,
    #[error(
        "the answer of {server} is larger than the {} bytes that are taken{}",
        limit,
        actual_bytes(actual)
    )]
    TooLarge { server: String, limit: usize, actual: Option<u64> },
    #[error("the server {server} broke the protocol: {reason}")]
    Protocol { server: String, reason: String },
    /// The server's own answer to the request, as it is.
    #[error("{message} (code {code})")]
    JsonRpc { code: i32, message: String, data: Option<Value> },
    /// The request answers a question of a call that nobody knows any more.
    #[error("the call that this answer belongs to is over\nhint: make the call again, without requestState")]
    Over,
    #[error("resources of {server} cannot be watched: {reason}")]
    Unwatchable { server: String, reason: &'static str },
    #[error("{server} has too many requests in flight\nhint: at most {limit} at a time")]
    Busy { server: String, limit: usize },
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl CallError {
    /// A stable word for the kind of failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownServer { .. } => "unknown-server",
            Self::UnknownTool { .. } => "unknown-tool",
            Self::UnknownResource { .. } => "unknown-resource",
            Self::Disabled { .. } => "disabled",
            Self::Denied { .. } => "denied",
            Self::Start { .. } => "start",
            Self::Unavailable { .. } => "unavailable",
            Self::Auth { .. } => "auth",
            Self::Timeout { .. } => "timeout",
            Self::Disconnected { .. } => "disconnected",
            Self::Cancelled => "cancelled",
            Self::TooLarge { .. } => "too-large",
            Self::Protocol { .. } => "protocol",
            Self::JsonRpc { .. } => "json-rpc",
            Self::Over => "over",
            Self::Unwatchable { .. } => "unwatchable",
            Self::Busy { .. } => "busy",
            Self::ShuttingDown => "shutting-down",
        }
    }

    /// Without the secrets that a server, or a library that names a URL, may have put into it.
    pub(crate) fn redacted(mut self, redactor: &Redactor) -> Self {
        match &mut self {
            Self::Start { reason, .. }
            | Self::Unavailable { reason, .. }
            | Self::Disconnected { reason, .. }
            | Self::Protocol { reason, .. } => *reason = redactor.redact(reason),
            Self::JsonRpc { message, data, .. } => {
                *message = redactor.redact(message);
                if let Some(data) = data {
                    redactor.redact_value(data);
                }
            }
            _ => {}
        }
        self
    }

    /// Whether the same request may succeed if it is simply made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The server may be back, or less busy, by then.
            Self::Unavailable { .. }
            | Self::Disconnected { .. }
            | Self::Busy { .. }
            | Self::Timeout { .. } => true,
            // Somebody has to change something first.
            Self::UnknownServer { .. }
            | Self::UnknownTool { .. }
            | Self::UnknownResource { .. }
            | Self::Disabled { .. }
            | Self::Denied { .. }
            | Self::Start { .. }
            | Self::Auth { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Over
            | Self::Unwatchable { .. }
            | Self::JsonRpc { .. } => false,
            // The caller is going away.
            Self::Cancelled | Self::ShuttingDown => false,
        }
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("\nhint: did you mean {}?", names.join(", ")),
    }
}

fn last_lines(stderr: &[String]) -> String {
    match stderr {
        [] => String::new(),
        lines => format!("\nit said: {}", lines.join("\n         ")),
    }
}

fn actual_bytes(actual: &Option<u64>) -> String {
    actual.map(|bytes| format!(": {bytes} bytes")).unwrap_or_default()
}
