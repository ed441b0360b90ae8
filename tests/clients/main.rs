//! Clients that others wrote, driving the real shim and the HTTP endpoint: what they accept, an IDE accepts.
//!
//! The Inspector and the Python SDK hold every answer against the protocol's and the tool's own schemas; the tests check what
//! the answers say.

mod agents;
mod http;
mod inspector;
mod python;
mod rmcp;
