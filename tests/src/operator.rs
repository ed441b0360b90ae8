//! Connections to a daemon's socket, frame by frame: an operator's, and ones that no real client would make.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use conductor_protocol::operation::Operation;
use conductor_protocol::status::StatusReport;
use conductor_protocol::{
    AdminReply, AdminRequest, ClientKind, EnvReply, FrameDecoder, Greeting, Hello, codec, frame,
};

/// How long an operation may take that fetches packages.
const OPERATION_TIME: Duration = Duration::from_secs(180);

/// How long the daemon may take for every other answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection that has said nothing yet, or an operator's after [`Operator::greet`].
#[derive(Debug)]
pub struct Operator {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Operator {
    /// # Errors
    /// Nobody listens.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        Ok(Self { stream, decoder: FrameDecoder::default() })
    }

    /// Introduces itself as an operator.
    ///
    /// # Errors
    /// The daemon does not welcome it.
    pub fn greet(&mut self) -> io::Result<()> {
        self.greet_as(&hello(ClientKind::Admin))
    }

    fn greet_as(&mut self, hello: &Hello) -> io::Result<()> {
        self.send_frame(&hello.encode().map_err(io::Error::other)?)?;
        let mut greeting = Greeting::decode(&self.receive()?).map_err(io::Error::other)?;
        if let Greeting::NeedEnv { .. } = greeting {
            // All there is was in the hello.
            self.send_frame(&codec::encode(&EnvReply::default()).map_err(io::Error::other)?)?;
            greeting = Greeting::decode(&self.receive()?).map_err(io::Error::other)?;
        }
        match greeting {
            Greeting::Welcome { .. } => Ok(()),
            other => Err(io::Error::other(format!("not welcome: {other:?}"))),
        }
    }

    /// # Errors
    /// The connection fails, or the answer is not one.
    pub fn ask(&mut self, request: &AdminRequest) -> io::Result<AdminReply> {
        self.send_frame(&codec::encode(request).map_err(io::Error::other)?)?;
        codec::decode(&self.receive()?).map_err(io::Error::other)
    }

    /// One status request on a connection of its own.
    ///
    /// # Errors
    /// The daemon is not there, does not welcome us or does not answer.
    pub fn status(socket: &Path) -> io::Result<StatusReport> {
        match Self::ask_once(socket, &AdminRequest::Status)? {
            AdminReply::Json(json) => Ok(serde_json::from_slice(&json)?),
            other => Err(io::Error::other(format!("no status: {other:?}"))),
        }
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// See [`Operator::status`].
    pub fn ask_once(socket: &Path, request: &AdminRequest) -> io::Result<AdminReply> {
        let mut operator = Self::connect(socket)?;
        operator.greet()?;
        operator.ask(request)
    }

    /// One operation, for the profile that a session of this environment has; it may take minutes.
    ///
    /// # Errors
    /// See [`Operator::status`].
    pub fn operate(socket: &Path, env: &[(&str, &str)], operation: &Operation) -> io::Result<AdminReply> {
        let mut operator = Self::connect(socket)?;
        operator.stream.set_read_timeout(Some(OPERATION_TIME))?;
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        operator.greet_as(&Hello { env: env.collect(), ..hello(ClientKind::Admin) })?;
        operator.ask(&AdminRequest::Operate { json: serde_json::to_vec(operation)? })
    }

    /// Sends one well-formed frame with any payload.
    ///
    /// # Errors
    /// The daemon has closed the connection.
    pub fn send_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send_bytes(&frame::encode(payload).map_err(io::Error::other)?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The daemon has closed the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame's payload.
    ///
    /// # Errors
    /// The daemon has closed the connection (`UnexpectedEof`), or sent nothing in time.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(payload) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(payload);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.decoder.push(&chunk[..n]),
                // With a time limit on it, a read ends so when its process was stopped and goes on: signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How long a write may wait for the daemon to read.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(time))
    }
}

/// What a client of this kind says first.
pub fn hello(kind: ClientKind) -> Hello {
    Hello {
        min_version: conductor_protocol::MIN_PROTOCOL_VERSION,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        kind,
        pid: std::process::id(),
        cwd: "/".to_owned(),
        env: Default::default(),
    }
}
