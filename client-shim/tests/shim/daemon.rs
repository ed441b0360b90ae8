//! The daemon's side, played by the test.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use conductor_client::connection::Connection;
use conductor_protocol::handshake::Welcome;
use conductor_protocol::{Greeting, Hello, SessionFrame};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use serde_json::Value;

use crate::PATIENCE;

/// A listening socket in a directory of its own.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    listener: UnixListener,
    _dir: Option<tempfile::TempDir>,
}

impl Daemon {
    pub(crate) fn listen() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let daemon = Self::listen_on(&dir.path().join("conductord.sock"));
        Self { _dir: Some(dir), ..daemon }
    }

    pub(crate) fn listen_on(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("binds");
        Self { socket: socket.to_owned(), listener, _dir: None }
    }

    /// The next connection, before its handshake.
    pub(crate) fn accept_raw(&self) -> UnixStream {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).expect("fits");
        assert_eq!(nix::poll::poll(&mut fds, timeout), Ok(1), "the shim connects");
        self.listener.accept().expect("accepts").0
    }

    /// Somebody waits to be accepted.
    pub(crate) fn has_caller(&self) -> bool {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    /// The next connection and what it says first.
    pub(crate) fn accept_hello(&self) -> (Peer, Hello) {
        let mut peer = Peer(Connection::new(self.accept_raw()));
        peer.0.set_timeout(Some(PATIENCE)).expect("a socket");
        let payload = peer.0.receive_payload().expect("a frame").expect("a hello");
        let (_, hello) = Hello::decode(&payload).expect("a hello");
        (peer, hello.expect("of our version"))
    }

    /// The next connection, welcomed.
    pub(crate) fn accept(&self) -> Peer {
        let (mut peer, _) = self.accept_hello();
        peer.welcome();
        peer
    }
}

/// One connection of the shim.
pub(crate) struct Peer(pub(crate) Connection);

impl Peer {
    pub(crate) fn greet(&self, greeting: &Greeting) {
        self.0.send_payload(&greeting.encode().expect("encodes")).expect("writes");
    }

    pub(crate) fn welcome(&mut self) {
        let welcome = Welcome { build: "test".into(), pid: std::process::id(), session: 1 };
        self.greet(&Greeting::Welcome { version: 1, welcome });
        self.0.lift_limit();
    }

    pub(crate) fn send(&self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub(crate) fn send_text(&self, json: &str) {
        self.0.send(&SessionFrame::Mcp(json.into())).expect("writes");
    }

    /// Bytes that need not be frames.
    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        (&*self.0.writer()).write_all(bytes).expect("writes");
    }

    pub(crate) fn receive(&mut self) -> Value {
        serde_json::from_slice(&self.receive_bytes()).expect("JSON")
    }

    pub(crate) fn receive_bytes(&mut self) -> Vec<u8> {
        match self.0.receive().expect("a frame") {
            Some(SessionFrame::Mcp(json)) => json,
            other => panic!("a message is awaited, not {other:?}"),
        }
    }

    pub(crate) fn sees_the_end(&mut self) {
        assert_eq!(self.0.receive::<SessionFrame>().expect("a clean end"), None);
    }
}
