//! The first frames of a connection: who calls, with which environment, and whether it may.
//!
//! `Hello` and `Greeting` payloads are `MAGIC`, a version, a body. The body of a `Hello` is the newest layout the client
//! speaks; a daemon that does not know that version answers with a `Reject`, whose layout never changes:
//! `MAGIC`, `u16` version of the daemon, `0u8`, `u16` code, UTF-8 text to the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::{MAGIC, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION};

/// What the client says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version the client speaks; the newest is in front of the body.
    pub min_version: u16,
    /// The client's build, shown in status and in mismatch texts.
    pub build: String,
    pub kind: ClientKind,
    pub pid: u32,
    /// Working directory, lossy UTF-8; empty when it has none.
    pub cwd: String,
    /// Environment variables the daemon may need: see [`wants_variable`].
    pub env: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientKind {
    /// An IDE's session through `conductor-shim`.
    Shim,
    /// A session `conductorctl` opens for one run.
    Ctl,
    /// Operations: status, reload, stop.
    Admin,
}

/// What the daemon says back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Go on in `version`.
    Welcome { version: u16, welcome: Welcome },
    /// Send the values of these variables as an [`EnvReply`], then wait for the final greeting.
    NeedEnv { version: u16, names: Vec<String> },
    /// Not served. `version` is the daemon's newest; `text` is for the user.
    Reject { version: u16, code: RejectCode, text: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The daemon's build.
    pub build: String,
    pub pid: u32,
    /// Names this session in logs and status; unique for the life of the daemon.
    pub session: u64,
}

/// Answer to [`Greeting::NeedEnv`]: the variables that are set, and only those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvReply {
    pub env: BTreeMap<String, String>,
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectCode {
    /// The two share no protocol version.
    Version,
    /// The first frame made no sense.
    Malformed,
    /// The daemon is going down; connect again to reach its successor.
    Draining,
    /// Too many connections.
    Busy,
    /// Another user, or a process that conductor itself runs.
    Forbidden,
    /// A code this build does not know.
    Other(u16),
}

impl RejectCode {
    pub fn wire(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Malformed => 2,
            Self::Draining => 3,
            Self::Busy => 4,
            Self::Forbidden => 5,
            Self::Other(code) => code,
        }
    }

    fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Malformed,
            3 => Self::Draining,
            4 => Self::Busy,
            5 => Self::Forbidden,
            other => Self::Other(other),
        }
    }

    /// True when the same client may be served if it connects again in a moment.
    pub fn is_retryable(self) -> bool {
        match self {
            // A successor or a free place will be there.
            Self::Draining | Self::Busy => true,
            // Only another build, another user or a repaired client changes these.
            Self::Version | Self::Malformed | Self::Forbidden | Self::Other(_) => false,
        }
    }
}

/// Variables a client always sends: conductor's own, the search path, and the project directories that clients set.
pub fn wants_variable(name: &str) -> bool {
    name.starts_with("MCP_CONDUCTOR_")
        || matches!(
            name,
            "PATH"
                | "HOME"
                | "CLAUDE_PROJECT_DIR"
                | "GEMINI_PROJECT_DIR"
                | "WORKSPACE_FOLDER_PATHS"
                | "VSCODE_CWD"
        )
}

const REJECT: u8 = 0;
const WELCOME: u8 = 1;
const NEED_ENV: u8 = 2;

impl Hello {
    /// # Errors
    /// See [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        Ok([&MAGIC[..], &PROTOCOL_VERSION.to_le_bytes(), &codec::encode(self)?].concat())
    }

    /// Reads the first frame of a connection: the client's newest version, and its body if this build knows the layout.
    ///
    /// # Errors
    /// Not conductor's magic, or a body of a known version that does not decode.
    pub fn decode(payload: &[u8]) -> Result<(u16, Option<Self>), CodecError> {
        let (version, body) = split(payload)?;
        if !(MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&version) {
            return Ok((version, None));
        }
        codec::decode(body).map(|hello| (version, Some(hello)))
    }
}

impl Greeting {
    /// # Errors
    /// See [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let (version, kind, body) = match self {
            Self::Welcome { version, welcome } => (version, WELCOME, codec::encode(welcome)?),
            Self::NeedEnv { version, names } => (version, NEED_ENV, codec::encode(names)?),
            Self::Reject { version, code, text } => {
                (version, REJECT, [&code.wire().to_le_bytes()[..], text.as_bytes()].concat())
            }
        };
        Ok([&MAGIC[..], &version.to_le_bytes(), &[kind], &body].concat())
    }

    /// # Errors
    /// Not a greeting, or of a layout this build does not know.
    pub fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let (version, rest) = split(payload)?;
        match rest.split_first() {
            Some((&REJECT, body)) => {
                let (code, text) = body.split_first_chunk::<2>().ok_or(CodecError::BadMagic)?;
                let code = RejectCode::from_wire(u16::from_le_bytes(*code));
                Ok(Self::Reject { version, code, text: String::from_utf8_lossy(text).into_owned() })
            }
            Some((&WELCOME, body)) => Ok(Self::Welcome { version, welcome: codec::decode(body)? }),
            Some((&NEED_ENV, body)) => Ok(Self::NeedEnv { version, names: codec::decode(body)? }),
            _ => Err(CodecError::BadMagic),
        }
    }

    /// The words for a client and a daemon that share no protocol version.
    pub fn version_mismatch(client_version: u16, client_build: &str) -> Self {
        let older = if client_version < MIN_PROTOCOL_VERSION { "client" } else { "daemon" };
        let client = if client_build.is_empty() { String::new() } else { format!(" (build {client_build})") };
        Self::Reject {
            version: PROTOCOL_VERSION,
            code: RejectCode::Version,
            text: format!(
                "this client{client} speaks conductor protocol {client_version}, the daemon (build {}) speaks \
                 {MIN_PROTOCOL_VERSION} to {PROTOCOL_VERSION}\nhint: the {older} is older; update it, then restart both",
                env!("CARGO_PKG_VERSION"),
            ),
        }
    }
}

fn split(payload: &[u8]) -> Result<(u16, &[u8]), CodecError> {
    let rest = payload.strip_prefix(&MAGIC).ok_or(CodecError::BadMagic)?;
    let (version, body) = rest.split_first_chunk::<2>().ok_or(CodecError::BadMagic)?;
    Ok((u16::from_le_bytes(*version), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            min_version: 1,
            build: "0.1.0".into(),
            kind: ClientKind::Shim,
            pid: 42,
            cwd: "/tmp".into(),
            env: BTreeMap::from([("PATH".into(), "/bin".into())]),
        }
    }

    #[test]
    fn a_hello_of_an_unknown_version_still_tells_its_version() {
        let mut payload = hello().encode().expect("encodes");
        payload[4..6].copy_from_slice(&999u16.to_le_bytes());
        payload.truncate(9);
        assert_eq!(Hello::decode(&payload).expect("magic is right"), (999, None));
    }

    #[test]
    fn a_reject_is_read_whatever_the_daemon_version() {
        let Greeting::Reject { code, text, .. } = Greeting::version_mismatch(9, "9.0.0") else {
            panic!("a reject")
        };
        let sent = Greeting::Reject { version: 77, code, text };
        assert_eq!(Greeting::decode(&sent.encode().expect("encodes")).expect("decodes"), sent);
        assert!(matches!(&sent, Greeting::Reject { text, .. } if text.contains("hint: the daemon is older")));
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        for greeting in [
            Greeting::NeedEnv { version: 1, names: vec!["A".into()] },
            Greeting::Welcome { version: 1, welcome: Welcome { build: "b".into(), pid: 1, session: 2 } },
        ] {
            let payload = greeting.encode().expect("encodes");
            assert_eq!(Greeting::decode(&payload).expect("decodes"), greeting);
            for cut in 0..payload.len() {
                assert!(Greeting::decode(&payload[..cut]).is_err(), "cut at {cut}");
            }
        }
        let payload = hello().encode().expect("encodes");
        for cut in 0..payload.len() {
            assert!(Hello::decode(&payload[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn only_listed_variables_are_sent_unasked() {
        assert!(wants_variable("MCP_CONDUCTOR_WORKSPACE") && wants_variable("PATH"));
        assert!(!wants_variable("AWS_SECRET_ACCESS_KEY") && !wants_variable("mcp_conductor_x"));
    }
}
