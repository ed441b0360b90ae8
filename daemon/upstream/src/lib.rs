//! Upstream MCP servers: configuration, connections, and what is known of them.

pub mod command;
pub mod config;
mod connection;
mod error;
pub mod keyring;
mod nearest;
mod process;
pub mod secret;

pub use crate::error::CallError;
