//! One real `conductor-shim`, used the way an IDE does: lines of JSON-RPC on its standard streams.
//!
//! A writer thread and a reader thread keep a test from blocking on a full pipe. Everything the shim ever printed is kept, so
//! that a test can count the answers to each request; when a [`Shim`] is dropped, none may have been answered twice and each
//! line must have been JSON.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::daemon::ended;
use crate::home::Home;
use crate::{DEADLINE, binaries, forks};

const TOOL: &str = "run_deno_code";

/// How long an answer may take: longer than any call of the tests, shorter than a test run's patience.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A running shim; killed when it is dropped.
#[derive(Debug)]
pub struct Shim {
    /// Keeps the directory as long as the process may use it.
    home: Arc<Home>,
    child: Child,
    /// `None` once the input is closed.
    input: Option<Sender<Vec<u8>>>,
    heard: Arc<Heard>,
    next_id: AtomicU64,
    /// Every answer of the tool is held against its own output schema, once that is known.
    output_schema: OnceLock<Validator>,
}

/// What the shim has printed.
#[derive(Debug, Default)]
struct Heard {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    messages: Vec<Value>,
    /// Lines that are not JSON.
    broken: Vec<String>,
    ended: bool,
}

impl Shim {
    /// A session that is ready for calls: spawned, initialized, and its tools listed.
    pub fn session(home: &Arc<Home>) -> Self {
        Self::session_with(home, |_| {})
    }

    /// The same, with a changed environment.
    pub fn session_with(home: &Arc<Home>, adapt: impl FnOnce(&mut Command)) -> Self {
        let shim = Self::spawn_with(home, adapt);
        shim.initialize();
        shim.tools();
        shim
    }

    /// A shim that has been told nothing yet.
    pub fn spawn(home: &Arc<Home>) -> Self {
        Self::spawn_with(home, |_| {})
    }

    /// The same, with a changed environment. It starts no daemon unless `adapt` takes `CONDUCTOR_NO_AUTOSTART` away.
    pub fn spawn_with(home: &Arc<Home>, adapt: impl FnOnce(&mut Command)) -> Self {
        let mut command = home.command(&binaries::shim());
        command.env("CONDUCTOR_SOCKET", home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
        let stderr =
            OpenOptions::new().create(true).append(true).open(home.path("shim-stderr")).expect("a file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        adapt(&mut command);
        let mut child = command.spawn().expect("conductor-shim starts");
        let heard = Arc::new(Heard::default());
        let input = write_in_background(child.stdin.take().expect("it is piped"));
        read_in_background(child.stdout.take().expect("it is piped"), heard.clone());
        Self {
            home: home.clone(),
            child,
            input: Some(input),
            heard,
            next_id: AtomicU64::new(1),
            output_schema: OnceLock::new(),
        }
    }

    /// Lets the shim start the daemon under test by itself.
    pub fn with_autostart(command: &mut Command) {
        command.env_remove("CONDUCTOR_NO_AUTOSTART");
        command.env("CONDUCTOR_DAEMON", binaries::conductord()).env("CONDUCTOR_DENO", binaries::deno());
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Opens the session, as a client of the current protocol does; gives the server's answer.
    #[track_caller]
    pub fn initialize(&self) -> Value {
        let client = json!({ "name": "conductor-tests", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let answer = self.ask("initialize", params);
        self.notify("notifications/initialized", json!({}));
        answer.result().clone()
    }

    /// The list of tools, in one page. From here on the answers of `run_deno_code` are validated.
    #[track_caller]
    pub fn tools(&self) -> Vec<Value> {
        let answer = self.ask("tools/list", json!({}));
        let tools = answer.result()["tools"].as_array().expect("a list of tools").clone();
        if let Some(tool) = tools.iter().find(|tool| tool["name"] == TOOL) {
            let schema = jsonschema::validator_for(&tool["outputSchema"]).expect("the output schema is one");
            self.output_schema.get_or_init(|| schema);
        }
        tools
    }

    /// Runs code and waits for its answer.
    #[track_caller]
    pub fn call(&self, code: &str) -> Answer {
        self.call_with(json!({ "deno_code": code }))
    }

    /// Calls the tool with any arguments and waits for its answer.
    #[track_caller]
    pub fn call_with(&self, arguments: Value) -> Answer {
        let id = self.start_call(arguments);
        self.answer(id)
    }

    /// Calls the tool without waiting.
    pub fn start_call(&self, arguments: Value) -> u64 {
        if forks::are_wanted() {
            forks::wait(&self.home.socket());
        }
        self.request("tools/call", json!({ "name": TOOL, "arguments": arguments }))
    }

    /// Any request and its answer.
    #[track_caller]
    pub fn ask(&self, method: &str, params: Value) -> Answer {
        let id = self.request(method, params);
        self.answer(id)
    }

    /// Sends a request; gives its id.
    pub fn request(&self, method: &str, params: Value) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    pub fn notify(&self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    pub fn send(&self, message: &Value) {
        self.send_line(message.to_string().into_bytes());
    }

    /// Sends one line; the line break is added. Never blocks: a thread writes.
    pub fn send_line(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        let input = self.input.as_ref().expect("the input was not closed");
        // An error is the shim's end, which whoever waits for an answer learns.
        input.send(line).ok();
    }

    /// Waits for the answer to a request, and checks it against the output schema if it is the tool's.
    #[track_caller]
    pub fn answer(&self, id: u64) -> Answer {
        self.answer_within(id, ANSWER_TIME)
    }

    #[track_caller]
    pub fn answer_within(&self, id: u64, time: Duration) -> Answer {
        let what = format!("the answer to request {id}");
        let message = self.wait_for_message(&what, time, |message| is_answer(message) && message["id"] == id);
        let answer = Answer { message };
        self.validate(&answer);
        answer
    }

    /// Waits for the first message, past or future, that satisfies `is_it`.
    #[track_caller]
    pub fn wait_for_message(&self, what: &str, time: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + time;
        let mut lines = self.heard.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = lines.messages[seen..].iter().find(|message| is_it(message)) {
                return found.clone();
            }
            seen = lines.messages.len();
            let left = until.saturating_duration_since(Instant::now());
            assert!(!lines.ended, "{what}: the shim has ended; broken lines: {:?}", lines.broken);
            assert!(
                !left.is_zero(),
                "{what}: not within {time:?}; {seen} messages came: {}",
                tail(&lines.messages)
            );
            lines = self.heard.changed.wait_timeout(lines, left).expect(UNPOISONED).0;
        }
    }

    /// Everything the shim has printed so far.
    pub fn messages(&self) -> Vec<Value> {
        self.heard.lock().messages.clone()
    }

    /// All answers to one request so far: a right shim gives one.
    pub fn answers(&self, id: u64) -> usize {
        let lines = self.heard.lock();
        lines.messages.iter().filter(|message| is_answer(message) && message["id"] == id).count()
    }

    /// All notifications of a method so far, their parameters in order.
    pub fn notifications(&self, method: &str) -> Vec<Value> {
        let lines = self.heard.lock();
        let wanted = lines.messages.iter().filter(|message| message["method"] == method);
        wanted.map(|message| message["params"].clone()).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the shim is there");
    }

    /// Closes its input, as an IDE that ends, and waits for its end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        self.input = None;
        ended(&mut self.child, DEADLINE).expect("the shim ends when its input does")
    }

    #[track_caller]
    fn validate(&self, answer: &Answer) {
        let Some(structured) = answer.message.pointer("/result/structuredContent") else { return };
        let Some(schema) = self.output_schema.get() else { return };
        let errors: Vec<String> = schema.iter_errors(structured).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "the answer is not as its schema says: {errors:?}\n{structured:#}");
    }

    fn check_lines(&self) {
        let lines = self.heard.lock();
        assert!(lines.broken.is_empty(), "the shim printed lines that are not JSON: {:?}", lines.broken);
        let mut answered = HashMap::new();
        for message in lines.messages.iter().filter(|message| is_answer(message) && !message["id"].is_null())
        {
            let count = answered.entry(message["id"].to_string()).or_insert(0);
            *count += 1;
            assert_eq!(*count, 1, "request {} was answered twice: {message}", message["id"]);
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().expect("it is a child");
        if !std::thread::panicking() {
            self.check_lines();
        }
    }
}

const UNPOISONED: &str = "no thread panics while it holds the lock";

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A test that fails while it waits holds the lock; the others only read.
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn is_answer(message: &Value) -> bool {
    message.get("result").is_some() || message.get("error").is_some()
}

/// The last few messages, shortened, for a text about what did not come.
fn tail(messages: &[Value]) -> String {
    let last = &messages[messages.len().saturating_sub(5)..];
    let shorten = |message: &Value| message.to_string().chars().take(500).collect::<String>();
    last.iter().map(shorten).collect::<Vec<_>>().join("\n")
}

fn write_in_background(mut stdin: ChildStdin) -> Sender<Vec<u8>> {
    let (input, lines) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for line in lines {
            // The shim's end is seen by the reader.
            if stdin.write_all(&line).is_err() {
                return;
            }
        }
    });
    input
}

fn read_in_background(stdout: ChildStdout, heard: Arc<Heard>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let mut lines = heard.lock();
            match serde_json::from_slice(&line) {
                Ok(message) => lines.messages.push(message),
                Err(_) => lines.broken.push(String::from_utf8_lossy(&line).into_owned()),
            }
            line.clear();
            heard.changed.notify_all();
        }
        heard.lock().ended = true;
        heard.changed.notify_all();
    });
}
