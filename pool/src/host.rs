//! What a worker's code can ask of whoever leased it, while it runs: a method's name and parameters, answered once.
//!
//! The worker has no other way out. What a method does, and whether this run may use it, is up to the implementation;
//! parameters are hostile input.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::source::BoxFuture;

/// Answers the calls of one run.
pub trait HostCalls: Send + Sync {
    /// Cancel safety: the future is dropped when the run ends before the answer.
    fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>>;
}

/// A shared [`HostCalls`].
#[derive(Clone)]
pub struct Host(Arc<dyn HostCalls>);

impl Host {
    pub fn new(calls: impl HostCalls + 'static) -> Self {
        Self(Arc::new(calls))
    }

    pub(crate) fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
        self.0.call(method, params)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

/// The name of the error that a call over one of the run's limits fails with.
pub const CALL_LIMIT_ERROR: &str = "CallLimitError";

/// Why a call failed; the code gets it as a JavaScript error of this name and message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{name}: {message}")]
pub struct HostError {
    pub name: String,
    pub message: String,
    /// Properties of the error besides.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

impl HostError {
    /// One with JavaScript's plain name, `Error`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { name: "Error".to_owned(), message: message.into(), data: Map::new() }
    }
}
