//! What a session exchanges after the handshake.

use serde::{Deserialize, Serialize};

/// One frame of a session, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionFrame {
    /// One JSON-RPC message: UTF-8 JSON without a line break. Opaque here.
    Mcp(Vec<u8>),
    /// Daemon to client: no more answers will come on this connection; unanswered requests were not started or are lost.
    /// The client connects again.
    Goodbye { reason: String },
}
