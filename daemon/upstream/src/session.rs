//! Who a request is for, and who answers what a server asks.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

/// A session of the daemon: one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SessionId(Arc<str>);

/// A set of servers that belong together: the effective configuration of sessions. Only a profile's own servers can be
/// reached through it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProfileId(Arc<str>);

/// A server as the code of a profile names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerRef {
    pub profile: ProfileId,
    pub name: String,
}

/// What a server asks of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerAsks {
    /// The server's name in the configuration.
    pub server: String,
    pub what: Ask,
    pub params: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    Elicitation,
    Sampling,
    Roots,
}

/// Answers of the daemon's sessions to requests of servers.
pub trait ClientRequests: Send + Sync + 'static {
    /// The result of the request as the protocol has it, or why there is none. It must end by itself: a client may never
    /// answer.
    fn ask(&self, session: SessionId, request: ServerAsks) -> BoxFuture<'static, Result<Value, String>>;

    /// A log message of a server that belongs to this session alone. Must not block.
    fn log(&self, session: &SessionId, server: &str, level: &str, logger: Option<&str>, data: &Value);

    /// A resource that the session watches, or a part of it, changed. Must not block.
    fn updated(&self, session: &SessionId, uri: &str);
}

impl Ask {
    pub(crate) fn from_method(method: &str) -> Option<Self> {
        match method {
            "elicitation/create" => Some(Self::Elicitation),
            "sampling/createMessage" => Some(Self::Sampling),
            "roots/list" => Some(Self::Roots),
            _ => None,
        }
    }
}

impl SessionId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
}

impl ProfileId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
}

impl ServerRef {
    pub fn new(profile: ProfileId, name: impl Into<String>) -> Self {
        Self { profile, name: name.into() }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for dyn ClientRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientRequests")
    }
}
