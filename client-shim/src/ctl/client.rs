//! What `conductorctl` asks of the daemon, over an established connection: an operator's requests, or MCP.

use std::io;
use std::time::Duration;

use conductor_protocol::handshake::Welcome;
use conductor_protocol::operation::Operation;
use conductor_protocol::{AdminReply, AdminRequest, FrameError, MAX_MESSAGE_BYTES, SessionFrame};
use serde_json::{Value, json};

use super::BUILD;
use crate::connection::{Connection, ConnectionError};
use crate::reach::{Patience, ReachError, Route};

/// How long a daemon may take to answer what needs no waiting; one that takes longer is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a daemon that is going down or overrun may take to serve us after all.
const PATIENCE: Duration = Duration::from_secs(3);

/// The MCP version we speak; it has `initialize`.
const MCP_VERSION: &str = "2025-11-25";

/// Why the daemon's answer did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Connection(ConnectionError),
    #[error("the conductor daemon went away before it had answered")]
    Lost,
    #[error("the conductor daemon ended the session before it had answered: {reason}")]
    Goodbye { reason: String },
    /// The daemon's own words.
    #[error("{text}")]
    Refused { text: String },
    #[error("the conductor daemon answered with something else than {expected}")]
    Protocol { expected: &'static str },
    #[error("the call is {bytes} bytes long, more than the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge { bytes: usize },
    #[error("the conductor daemon does not take the call: {message} ({code})")]
    Rpc { code: i64, message: String },
}

impl From<ConnectionError> for ClientError {
    fn from(error: ConnectionError) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match &error {
            ConnectionError::Frame(FrameError::Truncated { .. }) => Self::Lost,
            ConnectionError::Io(cause) if matches!(cause.kind(), BrokenPipe | ConnectionReset) => Self::Lost,
            _ => Self::Connection(error),
        }
    }
}

impl ClientError {
    /// The cure, when the text does not tell it.
    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Reach(_) | Self::Refused { .. } => return None,
            Self::Lost | Self::Goodbye { .. } => {
                "it may have done what it was asked; look before asking again, and see its log".into()
            }
            Self::Connection(error) if error.is_timeout() => {
                "it is stuck; end it with `conductorctl stop`, or kill it".into()
            }
            Self::Connection(ConnectionError::Io(_)) => "see `conductorctl doctor`".into(),
            Self::Connection(_) | Self::Protocol { .. } => {
                "daemon and conductorctl are of different builds; install both anew, then `conductorctl stop`"
                    .into()
            }
            Self::TooLarge { .. } => "read large data from a file in the workspace".into(),
            Self::Rpc { .. } => {
                "see `conductorctl version`: daemon and conductorctl should be of one build".into()
            }
        })
    }

    /// True when nobody listens.
    pub(super) fn is_absent(&self) -> bool {
        use crate::connect::ConnectError::Absent;
        matches!(self, Self::Reach(ReachError::Connect(Absent { .. })))
    }
}

/// An operator's connection.
#[derive(Debug)]
pub(super) struct Admin {
    connection: Connection,
    pub(super) welcome: Welcome,
}

impl Admin {
    pub(super) fn connect(route: &Route) -> Result<Self, ClientError> {
        Self::connect_within(route, PATIENCE)
    }

    /// Waits up to `patience` for a daemon that is going down to be gone, or to have a successor.
    pub(super) fn connect_within(route: &Route, patience: Duration) -> Result<Self, ClientError> {
        let (connection, welcome) = route.reach(&mut Patience::of(patience))?;
        connection.set_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { connection, welcome })
    }

    /// The status document as it came, and parsed.
    pub(super) fn status(&mut self) -> Result<Value, ClientError> {
        match self.ask(AdminRequest::Status)? {
            AdminReply::Json(json) => serde_json::from_slice(&json)
                .map_err(|_| ClientError::Protocol { expected: "a JSON document" }),
            AdminReply::Failed { text } => Err(ClientError::Refused { text }),
            AdminReply::Done { .. } | AdminReply::Text { .. } => {
                Err(ClientError::Protocol { expected: "a document" })
            }
        }
    }

    /// The daemon's words about what it did.
    pub(super) fn command(&mut self, request: AdminRequest) -> Result<String, ClientError> {
        match self.ask(request)? {
            AdminReply::Done { text } => Ok(text),
            AdminReply::Failed { text } => Err(ClientError::Refused { text }),
            AdminReply::Json(_) | AdminReply::Text { .. } => {
                Err(ClientError::Protocol { expected: "an outcome" })
            }
        }
    }

    /// The document that an operation comes to.
    pub(super) fn operate(&mut self, operation: &Operation) -> Result<Value, ClientError> {
        self.operate_within(operation, ANSWER_TIMEOUT)
    }

    /// The same for one that takes its time.
    pub(super) fn operate_within(
        &mut self,
        operation: &Operation,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        self.connection.set_timeout(Some(limit))?;
        match self.ask(operate(operation))? {
            AdminReply::Json(json) => serde_json::from_slice(&json)
                .map_err(|_| ClientError::Protocol { expected: "a JSON document" }),
            AdminReply::Failed { text } => Err(ClientError::Refused { text }),
            AdminReply::Done { .. } | AdminReply::Text { .. } => {
                Err(ClientError::Protocol { expected: "a document" })
            }
        }
    }

    /// The daemon's words about an operation that comes to no document.
    pub(super) fn perform(&mut self, operation: &Operation) -> Result<String, ClientError> {
        self.command(operate(operation))
    }

    /// A stored result.
    pub(super) fn result(&mut self, id: String) -> Result<String, ClientError> {
        match self.ask(AdminRequest::Result { id })? {
            AdminReply::Text { text } => Ok(text),
            AdminReply::Failed { text } => Err(ClientError::Refused { text }),
            AdminReply::Json(_) | AdminReply::Done { .. } => {
                Err(ClientError::Protocol { expected: "a stored result" })
            }
        }
    }

    fn ask(&mut self, request: AdminRequest) -> Result<AdminReply, ClientError> {
        self.connection.send(&request)?;
        self.connection.receive()?.ok_or(ClientError::Lost)
    }
}

fn operate(operation: &Operation) -> AdminRequest {
    AdminRequest::Operate { json: serde_json::to_vec(operation).expect("strings always encode") }
}

/// An MCP session.
#[derive(Debug)]
pub(super) struct McpSession {
    connection: Connection,
    pub(super) welcome: Welcome,
    last_id: u64,
}

impl McpSession {
    /// Connects, starting a daemon if `route` says so, and initializes MCP.
    pub(super) fn open(route: &Route) -> Result<Self, ClientError> {
        let (connection, welcome) = route.reach(&mut Patience::of(PATIENCE))?;
        connection.set_timeout(Some(ANSWER_TIMEOUT))?;
        let mut session = Self { connection, welcome, last_id: 0 };
        let params = json!({
            "protocolVersion": MCP_VERSION,
            "capabilities": {},
            "clientInfo": { "name": "conductorctl", "version": BUILD },
        });
        session.request("initialize", params, &mut |_| {})?;
        session.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))?;
        Ok(session)
    }

    /// Calls a tool, however long it takes. `told` gets the texts of its progress notifications.
    pub(super) fn call_tool(
        &mut self,
        name: &str,
        arguments: Value,
        told: &mut dyn FnMut(&str),
    ) -> Result<Value, ClientError> {
        // The daemon ends the call at its time limit; before that it may fetch Deno, which takes minutes on a slow line.
        self.connection.set_timeout(None)?;
        let meta = json!({ "progressToken": "run" });
        self.request("tools/call", json!({ "name": name, "arguments": arguments, "_meta": meta }), told)
    }

    /// The text of a resource.
    pub(super) fn read_resource(&mut self, uri: &str) -> Result<String, ClientError> {
        self.connection.set_timeout(Some(ANSWER_TIMEOUT))?;
        let mut answer = self.request("resources/read", json!({ "uri": uri }), &mut |_| {})?;
        match answer.pointer_mut("/contents/0/text").map(Value::take) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(ClientError::Protocol { expected: "a resource's text" }),
        }
    }

    fn request(
        &mut self,
        method: &str,
        params: Value,
        told: &mut dyn FnMut(&str),
    ) -> Result<Value, ClientError> {
        self.last_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params }))?;
        loop {
            let mut message = self.receive()?;
            if message["method"] == "notifications/progress" {
                told(message["params"]["message"].as_str().unwrap_or_default());
            }
            if message["id"] != self.last_id || message.get("method").is_some() {
                continue;
            }
            if let Some(error) = message.get("error") {
                let code = error["code"].as_i64().unwrap_or_default();
                return Err(ClientError::Rpc {
                    code,
                    message: error["message"].as_str().unwrap_or("").to_owned(),
                });
            }
            return match message.get_mut("result") {
                Some(result) => Ok(result.take()),
                None => Err(ClientError::Protocol { expected: "a JSON-RPC answer" }),
            };
        }
    }

    fn send(&self, message: &Value) -> Result<(), ClientError> {
        let json = message.to_string();
        if json.len() > MAX_MESSAGE_BYTES {
            return Err(ClientError::TooLarge { bytes: json.len() });
        }
        let payload = SessionFrame::encode_mcp(json.as_bytes()).map_err(ConnectionError::from)?;
        Ok(self.connection.send_payload(&payload)?)
    }

    fn receive(&mut self) -> Result<Value, ClientError> {
        match self.connection.receive()?.ok_or(ClientError::Lost)? {
            SessionFrame::Mcp(json) => serde_json::from_slice(&json)
                .map_err(|_| ClientError::Protocol { expected: "an MCP message" }),
            SessionFrame::Goodbye { reason } => Err(ClientError::Goodbye { reason }),
            SessionFrame::Draining => {
                // Nothing more is asked: what was, is answered or given back.
                self.connection.writer().shutdown(std::net::Shutdown::Write).ok();
                self.receive()
            }
            SessionFrame::Returned(_) => {
                let text = "the conductor daemon goes down and did not take the call\nhint: call again";
                Err(ClientError::Refused { text: text.into() })
            }
        }
    }
}
