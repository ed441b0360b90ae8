//! What an operator's connection exchanges after the handshake.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Answered with `Json` of [`crate::status::StatusReport`].
    Status,
    /// Reads the configuration again; calls in flight keep theirs. Answered with `Done` or `Failed`.
    Reload,
    /// Goes down: running calls may finish within the daemon's grace period. Answered with `Done` before it goes.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReply {
    /// A JSON document; JSON, because documents gain fields without a new protocol version.
    Json(Vec<u8>),
    Done {
        text: String,
    },
    Failed {
        text: String,
    },
}
