//! Upstream MCP servers: configuration, connections, and what is known of them.

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

pub use crate::connection::open::Era;
pub use crate::error::CallError;
pub use crate::log::{LogLine, LogSource};
pub use crate::manifest::Manifest;
pub use crate::session::{Ask, ClientRequests, ProfileId, ServerAsks, ServerRef, SessionId};
pub use crate::upstreams::{
    CallContext, DEFAULT_MAX_IN_FLIGHT, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_START_TIMEOUT, ServerState,
    ServerStatus, Summary, Upstreams, UpstreamsOptions,
};
