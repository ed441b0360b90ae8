//! The client's half of the handshake. See `conductor_protocol` for its steps.
//!
//! In: a connected stream and who we are. Out: a [`Connection`] in session, or the daemon's words for the user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;

use conductor_protocol::handshake::{Welcome, wants_variable};
use conductor_protocol::{
    ClientKind, EnvReply, Greeting, HANDSHAKE_TIMEOUT, Hello, MAX_HELLO_BYTES, MIN_PROTOCOL_VERSION,
    RejectCode, codec,
};

use crate::connection::{Connection, ConnectionError};

/// Why the daemon does not serve us.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The daemon's own words, with its hint.
    #[error("{text}")]
    Rejected { code: RejectCode, text: String },
    #[error("the conductor daemon closed the connection during the handshake")]
    Closed,
    #[error("the conductor daemon did not answer the handshake")]
    Silent,
    #[error("the environment of this program is larger than the {MAX_HELLO_BYTES} bytes that can be sent")]
    TooLarge,
    #[error("the handshake with the conductor daemon failed")]
    Connection(#[from] ConnectionError),
}

impl HandshakeError {
    /// True when another attempt in a moment may go better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected { code, .. } => code.is_retryable(),
            // It is going down, or stuck: its successor may answer.
            Self::Closed | Self::Silent => true,
            // The socket broke; what cannot be decoded stays so.
            Self::Connection(error) => matches!(error, ConnectionError::Io(_) | ConnectionError::Frame(_)),
            Self::TooLarge => false,
        }
    }
}

/// Who connects: constant for the life of the process.
#[derive(Clone, Debug)]
pub struct Caller {
    pub kind: ClientKind,
    pub cwd: String,
    /// The whole environment; what of it is sent is decided by the handshake.
    pub env: BTreeMap<String, String>,
}

impl Caller {
    /// This process. Variables and paths that are not UTF-8 are sent with replacement characters: the daemon then names the
    /// broken value, where leaving it out would silently mean something else.
    pub fn this_process(kind: ClientKind) -> Self {
        let text = |value: OsString| value.to_string_lossy().into_owned();
        let cwd = std::env::current_dir().map(|dir| text(dir.into_os_string())).unwrap_or_default();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { kind, cwd, env }
    }

    fn hello(&self) -> Hello {
        let wanted = self.env.iter().filter(|(name, _)| wants_variable(name));
        Hello {
            min_version: MIN_PROTOCOL_VERSION,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            kind: self.kind,
            pid: std::process::id(),
            cwd: self.cwd.clone(),
            env: wanted.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    fn env_reply(&self, names: &[String]) -> EnvReply {
        let value = |name: &String| Some((name.clone(), self.env.get(name)?.clone()));
        EnvReply { env: names.iter().filter_map(value).collect() }
    }
}

/// Introduces `caller`. Each of the daemon's answers may take [`HANDSHAKE_TIMEOUT`].
///
/// # Errors
/// The daemon refuses, is silent, or speaks something else.
pub fn greet(stream: UnixStream, caller: &Caller) -> Result<(Connection, Welcome), HandshakeError> {
    let mut connection = Connection::new(stream);
    connection.set_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let mut greeting = ask(&mut connection, &caller.hello().encode().map_err(ConnectionError::from)?)?;
    if let Greeting::NeedEnv { names, .. } = &greeting {
        let reply = codec::encode(&caller.env_reply(names)).map_err(ConnectionError::from)?;
        greeting = ask(&mut connection, &reply)?;
    }
    match greeting {
        Greeting::Welcome { welcome, .. } => {
            connection.set_timeout(None)?;
            connection.lift_limit();
            Ok((connection, welcome))
        }
        Greeting::Reject { code, text, .. } => Err(HandshakeError::Rejected { code, text }),
        Greeting::NeedEnv { .. } => Err(ConnectionError::Codec(codec::CodecError::BadMagic).into()),
    }
}

fn ask(connection: &mut Connection, payload: &[u8]) -> Result<Greeting, HandshakeError> {
    if payload.len() > MAX_HELLO_BYTES {
        return Err(HandshakeError::TooLarge);
    }
    // A daemon that turns us away at once may close before it has read: its words count, not the broken pipe.
    let sent = connection.send_payload(payload);
    match connection.receive_payload() {
        Ok(Some(answer)) => Ok(Greeting::decode(&answer).map_err(ConnectionError::from)?),
        Ok(None) => Err(HandshakeError::Closed),
        Err(error) if error.is_timeout() => Err(HandshakeError::Silent),
        Err(error) => Err(sent.err().unwrap_or(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        let env = [("PATH", "/bin"), ("SECRET", "s"), ("MCP_CONDUCTOR_PROFILE", "p"), ("ASKED", "a")];
        Caller {
            kind: ClientKind::Shim,
            cwd: "/".into(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
        }
    }

    type Outcome = Result<(Connection, Welcome), HandshakeError>;

    /// Runs the handshake against a daemon that answers with `greetings`; gives back what it was sent.
    fn against(greetings: Vec<Greeting>) -> (Outcome, Vec<Vec<u8>>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let daemon = std::thread::spawn(move || {
            let mut theirs = Connection::new(theirs);
            let mut heard = Vec::new();
            for greeting in greetings {
                heard.extend(theirs.receive_payload().expect("reads"));
                theirs.send_payload(&greeting.encode().expect("encodes")).expect("writes");
            }
            heard
        });
        let outcome = greet(ours, &caller());
        (outcome, daemon.join().expect("the daemon's thread"))
    }

    fn welcome() -> Greeting {
        Greeting::Welcome { version: 1, welcome: Welcome { build: "b".into(), pid: 1, session: 7 } }
    }

    #[test]
    fn sends_only_listed_variables_until_it_is_asked() {
        let names = vec!["ASKED".into(), "UNSET".into()];
        let (outcome, heard) = against(vec![Greeting::NeedEnv { version: 1, names }, welcome()]);
        assert_eq!(outcome.expect("welcome").1.session, 7);
        let (_, hello) = Hello::decode(&heard[0]).expect("a hello");
        let sent: Vec<_> = hello.expect("our version").env.into_keys().collect();
        assert_eq!(sent, ["MCP_CONDUCTOR_PROFILE", "PATH"]);
        let reply: EnvReply = codec::decode(&heard[1]).expect("a reply");
        assert_eq!(reply.env, BTreeMap::from([("ASKED".into(), "a".into())]));
    }

    #[test]
    fn tells_the_daemons_words() {
        let (outcome, _) = against(vec![Greeting::version_mismatch(9, "9.9.9")]);
        let error = outcome.expect_err("rejected");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("hint: the daemon is older"), "{error}");
        let draining = Greeting::Reject { version: 1, code: RejectCode::Draining, text: "bye".into() };
        assert!(against(vec![draining]).0.expect_err("rejected").is_retryable());
    }

    #[test]
    fn a_daemon_that_closes_or_asks_for_ever_is_an_error() {
        assert!(matches!(against(vec![]).0, Err(error) if error.is_retryable()));
        let ask = || Greeting::NeedEnv { version: 1, names: vec![] };
        assert!(against(vec![ask(), ask()]).0.is_err());
    }
}
