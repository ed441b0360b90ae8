//! Upstream MCP servers: configured once, shared by all sessions, called from code, found by models, looked after by
//! operators. Servers of the registries as their authors publish them, and a recorder that tells what reached it.

mod canaries;
mod code;
mod discovery;
mod fixtures;
mod limits;
mod operators;
mod peers;
mod reload;
mod secrets;
mod sharing;
