//! A daemon that does what a test tells it, to force faults a real one has no way to.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use conductor_client::connection::Connection;
use conductor_protocol::handshake::Welcome;
use conductor_protocol::{AdminReply, AdminRequest, Greeting, Hello, SessionFrame};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A home of its own for `conductorctl`, so that it finds nothing of this machine's user.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("directory") }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// `conductorctl` with a clean environment, one socket path, and never starting a daemon.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conductorctl"));
        command.args(arguments).env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        command.env("CONDUCTOR_SOCKET", self.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.ctl(arguments).output().expect("runs").into()
    }

    /// Runs `conductorctl` against a daemon that treats each of its connections with the next of `scripts`.
    pub(crate) fn run_against(&self, arguments: &[&str], scripts: Vec<Script>) -> Outcome {
        let daemon = serve(&self.socket(), scripts);
        let outcome = self.run(arguments);
        // One that never connected must fail the test, not leave the daemon waiting; else there is nobody to connect to.
        let _in_its_place = UnixStream::connect(self.socket());
        daemon.join().expect("the daemon's expectations hold");
        outcome
    }
}

pub(crate) type Script = Box<dyn FnOnce(Client) + Send>;

pub(crate) fn script(script: impl FnOnce(Client) + Send + 'static) -> Vec<Script> {
    vec![Box::new(script)]
}

/// Serves one connection for each script, then nobody.
pub(crate) fn serve(socket: &Path, scripts: Vec<Script>) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("binds");
    let socket = socket.to_owned();
    thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().expect("accepts");
            script(Client { connection: Connection::new(stream) });
        }
        std::fs::remove_file(socket).expect("is there");
    })
}

/// What a run of `conductorctl` came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Outcome {
    /// Asserts the code and a part of what stderr says.
    pub(crate) fn fails(&self, code: i32, says: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(says), "{self:?}");
    }
}

/// The daemon's end of one connection.
pub(crate) struct Client {
    pub(crate) connection: Connection,
}

impl Client {
    pub(crate) fn stream(&self) -> std::sync::Arc<UnixStream> {
        self.connection.writer()
    }

    pub(crate) fn hello(&mut self) -> Hello {
        let payload = self.connection.receive_payload().expect("reads").expect("a hello");
        Hello::decode(&payload).expect("a hello").1.expect("our version")
    }

    pub(crate) fn greet(&mut self, greeting: &Greeting) {
        self.connection.send_payload(&greeting.encode().expect("encodes")).expect("writes");
        self.connection.lift_limit();
    }

    /// Lets the client in, as the daemon with process id `pid`.
    pub(crate) fn welcome(&mut self, pid: u32) -> Hello {
        let hello = self.hello();
        let welcome = Welcome { build: env!("CARGO_PKG_VERSION").into(), pid, session: 1 };
        self.greet(&Greeting::Welcome { version: 1, welcome });
        hello
    }

    pub(crate) fn request(&mut self) -> AdminRequest {
        self.connection.receive().expect("reads").expect("a request")
    }

    /// Answers one request.
    pub(crate) fn reply(&mut self, reply: &AdminReply) -> AdminRequest {
        let request = self.request();
        self.connection.send(reply).expect("writes");
        request
    }

    /// The next MCP message; `None` when the client has gone.
    pub(crate) fn hear(&mut self) -> Option<Value> {
        match self.connection.receive().expect("reads")? {
            SessionFrame::Mcp(json) => Some(serde_json::from_slice(&json).expect("JSON")),
            other => panic!("a client says nothing but MCP: {other:?}"),
        }
    }

    pub(crate) fn say(&self, message: &Value) {
        self.connection.send(&SessionFrame::Mcp(message.to_string().into_bytes())).expect("writes");
    }

    /// Goes through `initialize`; gives the Hello and the call that follows.
    pub(crate) fn until_call(&mut self) -> (Hello, Value) {
        let hello = self.welcome(1);
        let initialize = self.hear().expect("a message");
        assert_eq!(initialize["method"], "initialize");
        assert_eq!(initialize["params"]["protocolVersion"], "2025-11-25");
        let result = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
        self.say(&json!({ "jsonrpc": "2.0", "id": initialize["id"], "result": result }));
        assert_eq!(self.hear().expect("a message")["method"], "notifications/initialized");
        let call = self.hear().expect("a message");
        assert_eq!(call["method"], "tools/call");
        (hello, call)
    }

    pub(crate) fn answer(&self, call: &Value, structured: &Value) {
        let result = json!({ "content": [], "structuredContent": structured });
        self.say(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }));
    }
}
