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
    /// Ends one call, by its execution id. Answered with `Done`, or `Failed` when no such call is in flight.
    Cancel { execution: String },
    /// Reads a stored result, by its id. Answered with `Text` or `Failed`.
    Result { id: String },
    /// JSON of an [`Operation`](crate::operation::Operation), which says how it is answered.
    Operate { json: Vec<u8> },
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
    /// The text asked for.
    Text {
        text: String,
    },
}
