//! One shim with a session open, driven by the calling thread alone: no other thread's wake-up is in what is measured.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running shim; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    next_id: u64,
}

impl Session {
    /// Starts the shim and opens the session; gives the time until the shim's first answer, too.
    pub(super) fn open(command: &mut Command) -> (Self, Duration) {
        let started = Instant::now();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the shim starts");
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
        self.stdin.write_all(line.as_bytes()).expect("the shim reads");
    }

    fn answer(&mut self, id: u64) -> Value {
        let message = self.read();
        assert_eq!(message["id"], id, "no other request is under way");
        message
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the shim writes text");
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
