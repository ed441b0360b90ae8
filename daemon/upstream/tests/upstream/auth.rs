//! Logins: an issuer and a server that it protects, on the loopback address, and a browser played by the test.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conductor_upstream::{
    CallContext, CallError, LoginError, LoginRequest, LoginState, ProfileId, RMCP_LOG_FILTER, ServerRef,
    SessionId,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::fmt::MakeWriter;
use url::Url;

use crate::support::{Bed, server, text};

/// An issuer and the server that it protects.
struct Site {
    port: u16,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Seconds for which a token is said to be valid: from logins and from renewals.
    life: (u64, u64),
    rejects_refresh: bool,
    is_down: bool,
    challenges: HashMap<String, String>,
    valid: BTreeSet<String>,
    refresh: BTreeSet<String>,
    n_issued: usize,
    n_refreshes: usize,
    n_registrations: usize,
    clients: BTreeSet<String>,
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
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { life: (3600, 3600), ..State::default() }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, port, shared.clone()));
            }
        });
        Self { port, state, task }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Registrations and refreshes so far.
    fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.n_registrations, state.n_refreshes)
    }

    fn entry(&self) -> Value {
        json!({ "url": format!("http://127.0.0.1:{}/mcp", self.port) })
    }

    /// Every token that was ever issued has one of these in it.
    fn secrets() -> [&'static str; 2] {
        ["access-token-", "refresh-token-"]
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
            Answer { status: "201 Created", headers: String::new(), body }
        }
        ("GET", "/authorize") => {
            let query: HashMap<String, String> = request.url.query_pairs().into_owned().collect();
            assert!(state.clients.contains(&query["client_id"]), "{query:?}");
            assert_eq!((query["scope"].as_str(), query["code_challenge_method"].as_str()), ("tools", "S256"));
            let code = format!("code-{}", state.challenges.len());
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
    let (access, refresh) =
        (format!("access-token-{}", state.n_issued), format!("refresh-token-{}", state.n_issued));
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
async fn browse(url: &str) -> String {
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
async fn consent(url: &str) -> String {
    header(&browse(url).await, "location").unwrap().to_owned()
}

/// A bed with the site as server `s`.
async fn bed(site: &Site) -> Bed {
    let bed = Bed::new();
    bed.set(json!({ "s": site.entry() })).await;
    bed
}

const PATIENCE: Duration = Duration::from_secs(60);

async fn log_in(bed: &Bed) {
    let login = bed.upstreams.begin_login(&server("s"), &LoginRequest::default()).await.unwrap();
    let page = login.url().to_owned();
    let browser = async { browse(&consent(&page).await).await };
    let (status, page) = tokio::join!(bed.upstreams.finish_login(login, PATIENCE), browser);
    assert!(page.contains("You are logged in"), "{page}");
    assert_eq!(status.unwrap().state, LoginState::LoggedIn);
}

fn state(bed: &Bed) -> LoginState {
    bed.upstreams.login_status(&server("s")).unwrap().unwrap().state
}

async fn calls(bed: &Bed, n: usize) -> Vec<Result<Value, CallError>> {
    join_all((0..n).map(|_| bed.call("s", "repeat", json!({})))).await
}

fn wants_login(error: &CallError) -> bool {
    matches!(error, CallError::Auth { .. }) && error.to_string().contains("hint: conductorctl auth login s")
}

#[tokio::test]
async fn a_login_gives_a_token_that_requests_carry_and_a_restart_keeps() {
    let (site, log) = (Site::start().await, Log::default());
    let _capturing = log.capture();
    let first = bed(&site).await;
    assert!(wants_login(&first.call("s", "repeat", json!({})).await.unwrap_err()));
    assert_eq!(state(&first), LoginState::LoggedOut);
    log_in(&first).await;
    let result = first.call("s", "repeat", json!({})).await.unwrap();
    assert_eq!(text(&result), "you sent Bearer [redacted]");
    let status = first.upstreams.login_status(&server("s")).unwrap().unwrap();
    assert_eq!(
        (status.issuer.unwrap(), status.scopes, status.renewable),
        (format!("http://127.0.0.1:{}", site.port), vec!["tools".to_owned()], true)
    );
    assert!(status.expires_secs.is_some_and(|secs| (3500..=3600).contains(&secs)));

    let state_dir = first.root.path().join("state");
    let files: Vec<_> = std::fs::read_dir(state_dir.join("auth")).unwrap().flatten().collect();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(files.iter().map(|file| mode(&file.path())).collect::<Vec<_>>(), [0o600]);
    assert_eq!(mode(&state_dir.join("auth")), 0o700);

    let second = Bed::with(|options| options.state_dir = state_dir);
    second.set(json!({ "s": site.entry() })).await;
    second.call("s", "repeat", json!({})).await.unwrap();
    assert_eq!(site.counts(), (1, 0));

    let mut shown = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(shown.contains("ready"), "nothing was captured");
    write!(shown, "{:?}{:?}", first.upstreams, first.upstreams.status()).unwrap();
    write!(shown, "{:?}", first.upstreams.logs(&server("s")).unwrap()).unwrap();
    for secret in Site::secrets() {
        assert!(!shown.contains(secret), "{shown}");
    }
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_once_for_all_calls() {
    let site = Site::start().await;
    site.state().life = (0, 3600);
    let bed = bed(&site).await;
    log_in(&bed).await;
    for result in calls(&bed, 10).await {
        result.unwrap();
    }
    assert_eq!(site.state().n_refreshes, 1);
    bed.end().await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_for_all_calls() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    log_in(&bed).await;
    bed.call("s", "repeat", json!({})).await.unwrap();
    site.state().valid.clear();
    for result in calls(&bed, 10).await {
        result.unwrap();
    }
    assert_eq!(site.state().n_refreshes, 1);
    // What was issued just now is not renewed when it is refused: that would go on for ever.
    site.state().valid.clear();
    for result in calls(&bed, 3).await {
        assert!(wants_login(&result.unwrap_err()));
    }
    assert_eq!(site.state().n_refreshes, 1);
    bed.end().await;
}

#[tokio::test]
async fn a_refresh_token_that_is_rejected_asks_for_a_new_login_which_helps_at_once() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    log_in(&bed).await;
    bed.call("s", "repeat", json!({})).await.unwrap();
    site.state().valid.clear();
    site.state().rejects_refresh = true;
    for result in calls(&bed, 5).await {
        assert!(wants_login(&result.unwrap_err()));
    }
    assert_eq!((state(&bed), site.state().n_refreshes), (LoginState::LoginAgain, 1));
    log_in(&bed).await;
    bed.call("s", "repeat", json!({})).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn an_issuer_that_is_down_costs_no_login() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    log_in(&bed).await;
    bed.call("s", "repeat", json!({})).await.unwrap();
    site.state().valid.clear();
    site.state().is_down = true;
    for result in calls(&bed, 3).await {
        let error = result.unwrap_err();
        assert!(!wants_login(&error) && error.to_string().contains("cannot be renewed now"), "{error}");
    }
    assert_eq!((state(&bed), site.state().n_refreshes), (LoginState::LoggedIn, 0));
    bed.end().await;
}

#[tokio::test]
async fn a_logout_forgets_everything() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    log_in(&bed).await;
    bed.call("s", "repeat", json!({})).await.unwrap();
    assert!(bed.upstreams.log_out(&server("s")).await.unwrap());
    assert!(!bed.upstreams.log_out(&server("s")).await.unwrap());
    assert_eq!(state(&bed), LoginState::LoggedOut);
    assert!(wants_login(&bed.call("s", "repeat", json!({})).await.unwrap_err()));
    assert_eq!(std::fs::read_dir(bed.root.path().join("state/auth")).unwrap().count(), 0);
    bed.end().await;
}

#[tokio::test]
async fn only_the_browser_that_knows_the_state_ends_a_login() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    let login = bed.upstreams.begin_login(&server("s"), &LoginRequest::default()).await.unwrap();
    let page = login.url().to_owned();
    let browser = async {
        let back = Url::parse(&consent(&page).await).unwrap();
        // A connection that says nothing holds nobody up.
        let _silent = TcpStream::connect(("127.0.0.1", back.port().unwrap())).await.unwrap();
        let mut forged = back.clone();
        forged.query_pairs_mut().clear().append_pair("code", "stolen").append_pair("state", "guessed");
        assert!(browse(forged.as_str()).await.contains("400 Bad Request"));
        let mut other = back.clone();
        other.set_path("/favicon.ico");
        assert!(browse(other.as_str()).await.contains("404 Not Found"));
        browse(back.as_str()).await
    };
    let (status, page) = tokio::join!(bed.upstreams.finish_login(login, PATIENCE), browser);
    assert!(page.contains("You are logged in"), "{page}");
    assert_eq!(status.unwrap().state, LoginState::LoggedIn);
    bed.end().await;
}

#[tokio::test]
async fn a_login_that_is_refused_or_forgotten_says_so() {
    let site = Site::start().await;
    let bed = bed(&site).await;
    let login = bed.upstreams.begin_login(&server("s"), &LoginRequest::default()).await.unwrap();
    let mut refused = Url::parse(&consent(login.url()).await).unwrap();
    let state = refused.query_pairs().find(|(key, _)| key == "state").unwrap().1.into_owned();
    refused.query_pairs_mut().clear().append_pair("error", "access_denied").append_pair("state", &state);
    let (result, _page) = tokio::join!(bed.upstreams.finish_login(login, PATIENCE), browse(refused.as_str()));
    assert_eq!(result.unwrap_err().to_string(), "the login was refused: access_denied");
    let login = bed.upstreams.begin_login(&server("s"), &LoginRequest::default()).await.unwrap();
    let error = bed.upstreams.finish_login(login, Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(error, LoginError::Timeout(_)), "{error}");
    bed.end().await;
}

#[tokio::test]
async fn a_client_that_was_registered_by_hand_is_used_as_it_is() {
    let site = Site::start().await;
    site.state().clients.insert("by-hand".to_owned());
    let bed = bed(&site).await;
    let request = LoginRequest { client_id: Some("by-hand".to_owned()), ..LoginRequest::default() };
    let login = bed.upstreams.begin_login(&server("s"), &request).await.unwrap();
    let page = login.url().to_owned();
    let browser = async { browse(&consent(&page).await).await };
    let (status, _page) = tokio::join!(bed.upstreams.finish_login(login, PATIENCE), browser);
    assert_eq!((status.unwrap().state, site.state().n_registrations), (LoginState::LoggedIn, 0));
    bed.end().await;
}

#[tokio::test]
async fn nobody_logs_in_where_that_makes_no_sense() {
    let site = Site::start().await;
    let bed = Bed::new();
    let mut own = site.entry();
    own["headers"] = json!({ "Authorization": "Bearer mine-0123456789" });
    let plain = json!({ "url": format!("http://127.0.0.1:{}/none", site.port) });
    bed.set(json!({ "command": bed.hostile(""), "own": own, "plain": plain })).await;
    let begin = async |name: &str| {
        bed.upstreams.begin_login(&server(name), &LoginRequest::default()).await.unwrap_err()
    };
    assert!(matches!(begin("command").await, LoginError::NotHttp { .. }));
    assert!(matches!(begin("own").await, LoginError::Header { .. }));
    assert!(matches!(begin("nobody").await, LoginError::Server(CallError::UnknownServer { .. })));
    assert_eq!(bed.upstreams.login_status(&server("own")).unwrap(), None);
    site.state().is_down = true;
    let error = begin("plain").await;
    assert!(matches!(error, LoginError::NoOAuth { .. } | LoginError::Discovery { .. }), "{error:?}");
    bed.end().await;
}

/// Everything that is logged with the directives of the daemon, in full.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let filter = format!("trace,{RMCP_LOG_FILTER}");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(self.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn logins_are_those_of_one_user() {
    let site = Site::start().await;
    let bed = Bed::new();
    for (profile, tenant) in [("p", None), ("alice", Some("alice")), ("bob", Some("bob"))] {
        bed.set_as(profile, tenant, json!({ "s": site.entry() })).await;
    }
    let of = |profile: &str| ServerRef::new(ProfileId::new(profile), "s");
    let login = bed.upstreams.begin_login(&of("alice"), &LoginRequest::default()).await.unwrap();
    let page = login.url().to_owned();
    let browser = async { browse(&consent(&page).await).await };
    let (status, _) = tokio::join!(bed.upstreams.finish_login(login, PATIENCE), browser);
    assert_eq!(status.unwrap().state, LoginState::LoggedIn);
    let call = async |profile: &str| {
        let context = CallContext::new(SessionId::new(profile));
        bed.upstreams.call_tool(&of(profile), &context, "repeat", Default::default()).await
    };
    assert_eq!(text(&call("alice").await.unwrap()), "you sent Bearer [redacted]");
    for other in ["bob", "p"] {
        assert!(wants_login(&call(other).await.unwrap_err()), "{other} has no login");
        let state = bed.upstreams.login_status(&of(other)).unwrap().unwrap().state;
        assert_eq!(state, LoginState::LoggedOut);
    }
    assert!(bed.upstreams.log_out(&of("alice")).await.unwrap());
    assert!(wants_login(&call("alice").await.unwrap_err()));
    bed.end().await;
}
