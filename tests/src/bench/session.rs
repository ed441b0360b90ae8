//! One shim, or any other MCP server, with a session open, driven by the calling thread alone: no other thread's wake-up is in what is measured.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running shim, or another server; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    next_id: u64,
}

impl Session {
    /// Starts the program and opens the session; gives the time until its first answer, too.
    pub(super) fn open(command: &mut Command) -> (Self, Duration) {
        let started = Instant::now();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut session = Self { child, stdin, stdout, next_id: 1 };
        let client = json!({ "name": "bench", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let id = session.request("initialize", &params);
        let line = session.answer(id);
        let first_answer = started.elapsed();
        assert!(line["result"]["serverInfo"].is_object(), "the session does not open: {line}");
        session.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        (session, first_answer)
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The time of one call.
    pub(super) fn call(&mut self, code: &str) -> Duration {
        let started = Instant::now();
        let id = self.start(code);
        self.finish(id);
        started.elapsed()
    }

    /// The value of a call.
    pub(super) fn value(&mut self, code: &str) -> Value {
        self.structured(code)["returnValue"].take()
    }

    /// All that a call comes to.
    pub(super) fn structured(&mut self, code: &str) -> Value {
        let id = self.start(code);
        let mut answer = self.read();
        assert_eq!(answer["id"], id, "no other call is under way");
        let structured = answer["result"]["structuredContent"].take();
        assert_eq!(structured["status"], "success", "a call failed: {structured}");
        structured
    }

    /// The time until this many calls of the tool `echo`, made at once, are answered.
    pub(super) fn echo(&mut self, at_once: usize) -> Duration {
        let started = Instant::now();
        let params = json!({ "name": "echo", "arguments": { "message": "hello" } });
        for _ in 0..at_once {
            self.request("tools/call", &params);
        }
        for _ in 0..at_once {
            let answer = self.read();
            assert!(answer["result"]["content"].is_array(), "a call failed: {answer}");
        }
        started.elapsed()
    }

    /// Sends a call; gives its id.
    pub(super) fn start(&mut self, code: &str) -> u64 {
        self.request("tools/call", &json!({ "name": "run_deno_code", "arguments": { "deno_code": code } }))
    }

    /// Waits for the answer to the call that is answered next; gives its id.
    pub(super) fn next(&mut self) -> u64 {
        let answer = self.read();
        let structured = &answer["result"]["structuredContent"];
        assert_eq!(structured["status"], "success", "a call failed: {answer}");
        answer["id"].as_u64().expect("the id of a call")
    }

    fn finish(&mut self, id: u64) {
        assert_eq!(self.next(), id, "no other call is under way");
    }

    fn request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    fn send(&mut self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).expect("the server reads");
    }

    fn answer(&mut self, id: u64) -> Value {
        let message = self.read();
        assert_eq!(message["id"], id, "no other request is under way");
        message
    }

    /// The next answer; servers may announce things before it.
    fn read(&mut self) -> Value {
        loop {
            let message = self.read_line();
            if message.get("method").is_none() {
                return message;
            }
        }
    }

    fn read_line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the server writes text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON: {error}: {line:?}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().expect("it is a child");
    }
}
