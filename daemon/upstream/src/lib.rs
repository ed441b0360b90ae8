//! Upstream MCP servers: configuration, connections, and what is known of them.
//!
//! In: the `mcpServers` of each profile ([`config::ServerSet`]) and requests of sessions. Out: results as the servers gave
//! them, what is known of each server ([`Manifest`]), and how it does ([`ServerStatus`]). [`Upstreams`] is the way in; it
//! owns all connections and the processes behind them, and keeps manifests below the state directory. It knows neither
//! workers nor the client's protocol, never passes one profile's servers to another, and shows no configured secret.
//!
//! Logs: rmcp writes whole messages at `info` and below, and errors of HTTP transports with all that is in them; filter it
//! as [`RMCP_LOG_FILTER`] says.

mod auth;
pub mod command;
pub mod config;
mod connection;
mod error;
pub mod keyring;
mod log;
mod manifest;
mod nearest;
mod process;
pub mod secret;
mod session;
mod transport;
mod upstreams;

pub use crate::auth::login::{Login, LoginError, LoginRequest};
pub use crate::auth::{LoginState, LoginStatus};
pub use crate::connection::open::Era;
pub use crate::connection::request::{Input, TaskRequest};
pub use crate::error::CallError;
pub use crate::log::{LogLine, LogSource};
pub use crate::manifest::Manifest;
pub use crate::nearest::nearest;
pub use crate::process::is_of_a_server;
pub use crate::session::{Ask, ClientRequests, ProfileId, ServerAsks, ServerRef, SessionId};
/// Public for the checks of what a hostile server may send.
#[doc(hidden)]
pub use crate::transport::sse_decoder;
pub use crate::upstreams::{
    CallContext, ClientTerms, DEFAULT_MAX_IN_FLIGHT, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_START_TIMEOUT,
    Exposed, Rounds, ServerState, ServerStatus, Summary, Upstreams, UpstreamsOptions,
};

/// The directives for rmcp in a log filter: none of its levels below may show payloads, and failures of its HTTP transport
/// are told by [`CallError`], without secrets.
pub const RMCP_LOG_FILTER: &str = "rmcp=warn,rmcp::transport::worker=off";
