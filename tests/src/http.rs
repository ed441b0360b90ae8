//! A client of the daemon's HTTP endpoint that sends what it is told, byte for byte, and so what no real client would.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use conductor_protocol::AdminReply;
use conductor_protocol::operation::{Operation, TokenAdded};
use serde_json::{Value, json};

use crate::{DEADLINE, Daemon, Home, Operator, wait_for};

/// The section that lets the daemon listen on any port, and a default profile that fetches no packages.
pub const CONFIG: &str = "[http]\nenabled = true\nlisten = [\"127.0.0.1:0\"]\n";
const PROFILE: &str = "[profiles.default]\npackages = []\n";

/// A daemon that listens, and a token for it.
#[derive(Debug)]
pub struct HttpBed {
    pub daemon: Daemon,
    pub home: Arc<Home>,
    pub client: HttpClient,
}

/// Someone with a token.
#[derive(Clone, Debug)]
pub struct HttpClient {
    pub address: SocketAddr,
    pub token: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// An answer that goes on.
#[derive(Debug)]
pub struct Stream {
    lines: BufReader<TcpStream>,
}

impl HttpBed {
    /// `more` goes behind the `[http]` section.
    pub fn new(more: &str) -> Self {
        Self::in_home(&Home::new(), more)
    }

    pub fn in_home(home: &Arc<Home>, more: &str) -> Self {
        home.configure(&format!("{CONFIG}{more}\n{PROFILE}"));
        let daemon = Daemon::start(home);
        let address = address(&daemon);
        let token = add_token(home, "first", None);
        Self { daemon, home: home.clone(), client: HttpClient { address, token } }
    }

    /// Someone else with a token of his own.
    pub fn another(&self, name: &str, profile: &str) -> HttpClient {
        HttpClient { address: self.client.address, token: add_token(&self.home, name, Some(profile)) }
    }
}

/// Where the daemon listens, as soon as it does.
pub fn address(daemon: &Daemon) -> SocketAddr {
    let status = daemon.wait_for_status("the daemon listens for HTTP", |status| !status.http.urls.is_empty());
    let url = &status.http.urls[0];
    let address = url.split("://").nth(1).and_then(|rest| rest.strip_suffix("/mcp"));
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{url} is a URL of an address"))
}

pub fn add_token(home: &Home, name: &str, profile: Option<&str>) -> String {
    let operation = Operation::TokensAdd { name: name.to_owned(), profile: profile.map(str::to_owned) };
    match Operator::operate(&home.socket(), &[], &operation).expect("the daemon answers") {
        AdminReply::Json(json) => serde_json::from_slice::<TokenAdded>(&json).expect("a token").token,
        other => panic!("no token: {other:?}"),
    }
}

/// Sends bytes and reads until the daemon closes the connection.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // It may close before it has read everything.
    let _sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("sets the limit");
    stream
}

impl HttpClient {
    /// The head of a request with everything that it needs, and `more` headers.
    pub fn head(&self, method: &str, more: &[(&str, &str)]) -> String {
        let mut head = format!(
            "{method} /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: application/json, \
             text/event-stream\r\nContent-Type: application/json\r\n",
            self.address, self.token
        );
        more.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head
    }

    fn bytes(&self, method: &str, more: &[(&str, &str)], body: &str) -> String {
        let head = self.head(method, more);
        format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    pub fn send(&self, method: &str, more: &[(&str, &str)], body: &str) -> Reply {
        Reply::parse(&raw(self.address, self.bytes(method, more, body).as_bytes()))
    }

    pub fn post(&self, more: &[(&str, &str)], message: &Value) -> Reply {
        self.send("POST", more, &message.to_string())
    }

    /// The same, answered by a stream that goes on.
    pub fn stream(&self, method: &str, more: &[(&str, &str)], message: Option<&Value>) -> Stream {
        let mut stream = connect(self.address);
        let body = message.map(Value::to_string).unwrap_or_default();
        stream.write_all(self.bytes(method, more, &body).as_bytes()).expect("is sent");
        Stream { lines: BufReader::new(stream) }
    }

    /// Begins a session of the older era; gives its id.
    pub fn initialize(&self, capabilities: Value) -> String {
        let client = json!({ "name": "conductor-tests", "version": "1" });
        let params =
            json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client });
        let reply = self.post(&[], &request(0, "initialize", params));
        assert_eq!(reply.status, 200, "{reply:?}");
        let id = reply.headers["mcp-session-id"].clone();
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(self.post(&[("Mcp-Session-Id", &id)], &told).status, 202);
        id
    }

    /// A request in a session of the older era.
    pub fn ask_in(&self, session: &str, method: &str, params: Value) -> Value {
        let headers = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-11-25")];
        self.post(&headers, &request(1, method, params)).answer()
    }

    /// A request of the newer era.
    pub fn ask(&self, method: &str, params: Value) -> Value {
        let (headers, message) = newer(2, method, params);
        self.post(&borrowed(&headers), &message).answer()
    }

    /// What code comes to, in the newer era.
    pub fn run(&self, code: &str) -> Value {
        let params = json!({ "name": "run_deno_code", "arguments": { "deno_code": code } });
        self.ask("tools/call", params)["result"]["structuredContent"].clone()
    }
}

pub fn request(id: i64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A request of the newer era and the headers that belong to it.
pub fn newer(id: i64, method: &str, mut params: Value) -> (Vec<(String, String)>, Value) {
    let name = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(str::to_owned);
    let mut meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "conductor-tests", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
    });
    if let (Value::Object(meta), Some(Value::Object(more))) = (&mut meta, params.get("_meta").cloned()) {
        meta.extend(more);
    }
    params["_meta"] = meta;
    let headers = [
        ("MCP-Protocol-Version", Some("2026-07-28")),
        ("Mcp-Method", Some(method)),
        ("Mcp-Name", name.as_deref()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    (headers.collect(), request(id, method, params))
}

pub fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Reply {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status: status.unwrap_or_default(), headers, body: body.to_owned() }
    }

    /// The messages in it, however they came.
    pub fn messages(&self) -> Vec<Value> {
        let data = self.body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
        data.filter(|line| line.starts_with('{')).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The one that answers the request.
    #[track_caller]
    pub fn answer(&self) -> Value {
        self.messages().pop().unwrap_or_else(|| panic!("there is no answer in {self:?}"))
    }
}

impl Stream {
    /// The next message; `None` at the end.
    pub fn message(&mut self) -> Option<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).expect("something within the time limit") == 0 {
                return None;
            }
            let text = line.trim_end();
            let data = text.strip_prefix("data: ").unwrap_or(text);
            if data.starts_with('{') {
                return Some(serde_json::from_str(data).expect("a message"));
            }
        }
    }

    /// The next event that has an id, and its message if it has one; `None` at the end.
    pub fn event(&mut self) -> Option<(String, Option<Value>)> {
        let (mut line, mut id) = (String::new(), None);
        loop {
            line.clear();
            if self.lines.read_line(&mut line).expect("something within the time limit") == 0 {
                return None;
            }
            let text = line.trim_end();
            if let Some(text) = text.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(data) = text.strip_prefix("data:") {
                let message = Some(data.trim()).filter(|data| !data.is_empty());
                let message = message.map(|data| serde_json::from_str(data).expect("a message"));
                return Some((id.take().unwrap_or_default(), message));
            }
        }
    }

    /// The next message of a method.
    #[track_caller]
    pub fn until(&mut self, method: &str) -> Value {
        std::iter::from_fn(|| self.message())
            .find(|message| message["method"] == method)
            .unwrap_or_else(|| panic!("the stream ended before {method}"))
    }
}

/// Waits until the daemon runs as many calls.
pub fn wait_until_busy(daemon: &Daemon, n: u64) {
    wait_for(&format!("{n} calls run"), DEADLINE, || {
        let busy: u64 = daemon.status().pool.profiles.iter().map(|profile| profile.busy).sum();
        if busy == n { Ok(()) } else { Err(busy.to_string()) }
    });
}
