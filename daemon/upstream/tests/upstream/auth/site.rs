//! An issuer and a server that it protects, on the loopback address, and what a user's browser does between them.
//!
//! A whole authorization server in small: metadata, registration, codes with a proof (PKCE), tokens that are good for one
//! renewal. Owns what it has issued; panics when a client asks for something that the protocol does not have.

#![allow(clippy::unwrap_used, reason = "this is part of tests")]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// An issuer and the server that it protects.
pub(super) struct Site {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

/// What it issues begins with.
#[derive(Clone, Copy)]
pub(super) struct Issued {
    pub(super) access: &'static str,
    pub(super) refresh: &'static str,
    pub(super) code: &'static str,
    /// Of a client that registers itself; `None` for public ones.
    pub(super) client_secret: Option<&'static str>,
}

pub(super) struct State {
    issued: Issued,
    /// Seconds for which a token is said to be valid: from logins and from renewals.
    pub(super) life: (u64, u64),
    pub(super) rejects_refresh: bool,
    pub(super) is_down: bool,
    challenges: HashMap<String, String>,
    pub(super) valid: BTreeSet<String>,
    pub(super) refresh: BTreeSet<String>,
    n_issued: usize,
    pub(super) n_refreshes: usize,
    pub(super) n_registrations: usize,
    pub(super) clients: BTreeSet<String>,
}

struct Request {
    method: String,
    url: Url,
    head: String,
    body: String,
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Value,
}

impl Site {
    pub(super) async fn start(issued: Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            issued,
            life: (3600, 3600),
            rejects_refresh: false,
            is_down: false,
            challenges: HashMap::new(),
            valid: BTreeSet::new(),
            refresh: BTreeSet::new(),
            n_issued: 0,
            n_refreshes: 0,
            n_registrations: 0,
            clients: BTreeSet::new(),
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, port, shared.clone()));
            }
        });
        Self { port, state, task }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn entry(&self) -> Value {
        json!({ "url": format!("http://127.0.0.1:{}/mcp", self.port) })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, port: u16, state: Arc<Mutex<State>>) {
    while let Some(request) = read(&mut stream, port).await {
        let Answer { status, headers, body } = answer(&request, port, &mut state.lock().unwrap());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, port: u16) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    let mut words = head.split(' ');
    let method = words.next()?.to_owned();
    let url = Url::parse(&format!("http://127.0.0.1:{port}{}", words.next()?)).unwrap();
    Some(Request { method, url, head, body: String::from_utf8_lossy(&bytes[end..]).into_owned() })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

fn ok(body: Value) -> Answer {
    Answer { status: "200 OK", headers: String::new(), body }
}

fn answer(request: &Request, port: u16, state: &mut State) -> Answer {
    let base = format!("http://127.0.0.1:{port}");
    let refused = |error: &str| Answer { body: json!({ "error": error }), ..bad("400 Bad Request") };
    match (request.method.as_str(), request.url.path()) {
        _ if state.is_down && request.url.path() != "/mcp" => bad("503 Service Unavailable"),
        (_, "/mcp") => mcp(request, &base, state),
        ("GET", "/.well-known/oauth-protected-resource/mcp") => ok(json!({
            "resource": format!("{base}/mcp"), "authorization_servers": [base], "scopes_supported": ["tools"],
        })),
        ("GET", "/.well-known/oauth-authorization-server") => ok(json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "registration_endpoint": format!("{base}/register"),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        })),
        ("POST", "/register") => {
            state.n_registrations += 1;
            state.clients.insert("registered".to_owned());
            let mut body: Value = serde_json::from_str(&request.body).unwrap();
            body["client_id"] = "registered".into();
            if let Some(secret) = state.issued.client_secret {
                body["client_secret"] = secret.into();
            }
            Answer { status: "201 Created", headers: String::new(), body }
        }
        ("GET", "/authorize") => {
            let query: HashMap<String, String> = request.url.query_pairs().into_owned().collect();
            assert!(state.clients.contains(&query["client_id"]), "{query:?}");
            assert_eq!((query["scope"].as_str(), query["code_challenge_method"].as_str()), ("tools", "S256"));
            let code = format!("{}-{}", state.issued.code, state.challenges.len());
            state.challenges.insert(code.clone(), query["code_challenge"].clone());
            let mut back = Url::parse(&query["redirect_uri"]).unwrap();
            back.query_pairs_mut().append_pair("code", &code).append_pair("state", &query["state"]);
            Answer { headers: format!("Location: {back}\r\n"), ..bad("302 Found") }
        }
        ("POST", "/token") => {
            let form: HashMap<String, String> =
                url::form_urlencoded::parse(request.body.as_bytes()).into_owned().collect();
            assert_eq!(form["resource"], format!("{base}/mcp"));
            let life = if form["grant_type"] == "authorization_code" {
                let challenge = state.challenges.remove(&form["code"]);
                let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
                if challenge != Some(verifier) {
                    return refused("invalid_grant");
                }
                state.life.0
            } else {
                state.n_refreshes += 1;
                // As the good ones do: each is good for one use.
                if !state.refresh.remove(&form["refresh_token"]) || state.rejects_refresh {
                    return refused("invalid_grant");
                }
                state.life.1
            };
            ok(issue(state, life))
        }
        _ => bad("404 Not Found"),
    }
}

fn bad(status: &'static str) -> Answer {
    Answer { status, headers: String::new(), body: Value::Null }
}

fn issue(state: &mut State, life: u64) -> Value {
    state.n_issued += 1;
    let n = state.n_issued;
    let access = format!("{}-{n}", state.issued.access);
    let refresh = format!("{}-{n}", state.issued.refresh);
    state.valid.insert(access.clone());
    state.refresh.insert(refresh.clone());
    json!({ "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": life })
}

fn mcp(request: &Request, base: &str, state: &State) -> Answer {
    let token = header(&request.head, "authorization").unwrap_or_default();
    if !token.strip_prefix("Bearer ").is_some_and(|token| state.valid.contains(token)) {
        let headers = format!(
            "WWW-Authenticate: Bearer resource_metadata=\"{base}/.well-known/oauth-protected-resource/mcp\"\r\n"
        );
        return Answer { headers, ..bad("401 Unauthorized") };
    }
    if request.method != "POST" {
        return bad("405 Method Not Allowed");
    }
    let message: Value = serde_json::from_str(&request.body).unwrap();
    if message.get("id").is_none() {
        return bad("202 Accepted");
    }
    let result = match message["method"].as_str().unwrap() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": "protected", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [{ "name": "repeat", "inputSchema": { "type": "object" } }] }),
        "tools/call" => json!({ "content": [{ "type": "text", "text": format!("you sent {token}") }] }),
        "ping" => json!({}),
        _ => {
            let error = json!({ "code": -32601, "message": "unknown" });
            return ok(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
        }
    };
    ok(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
}

/// What a browser gets for a URL: the head of the answer and its body.
pub(super) async fn browse(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let target = url[url::Position::BeforePath..].to_owned();
    let request = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let n = stream.read(&mut part).await.unwrap();
        answer.extend_from_slice(&part[..n]);
        // The issuer keeps its connections; none of its pages that a browser sees has a body.
        if n == 0 || answer.ends_with(b"\r\n\r\n") {
            return String::from_utf8(answer).unwrap();
        }
    }
}

/// Where the issuer sends the browser of a login.
pub(super) async fn consent(url: &str) -> String {
    header(&browse(url).await, "location").unwrap().to_owned()
}
