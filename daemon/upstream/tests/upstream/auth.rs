//! Logins: an issuer and a server that it protects, on the loopback address, and a browser played by the test.

mod site;

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conductor_upstream::{
    CallContext, CallError, LoginError, LoginRequest, LoginState, ProfileId, RMCP_LOG_FILTER, ServerRef,
    SessionId,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tracing_subscriber::fmt::MakeWriter;
use url::Url;

use crate::support::{Bed, server, text};
use site::{Issued, Site, browse, consent};

const ISSUED: Issued =
    Issued { access: "access-token", refresh: "refresh-token", code: "code", client_secret: None };

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
    let (site, log) = (Site::start(ISSUED).await, Log::default());
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
    assert_eq!(site.state().n_registrations, 1);
    assert_eq!(site.state().n_refreshes, 0);

    let mut shown = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(shown.contains("ready"), "nothing was captured");
    write!(shown, "{:?}{:?}", first.upstreams, first.upstreams.status()).unwrap();
    write!(shown, "{:?}", first.upstreams.logs(&server("s")).unwrap()).unwrap();
    for secret in [ISSUED.access, ISSUED.refresh] {
        assert!(!shown.contains(secret), "{shown}");
    }
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_once_for_all_calls() {
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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
    let site = Site::start(ISSUED).await;
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

#[tokio::test]
async fn logins_are_those_of_one_user() {
    let site = Site::start(ISSUED).await;
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
