//! Streamable HTTP: the same sessions as on the socket, for agents that are not on stdio.
//!
//! In: `[http]` of the configuration, and requests. Out: answers, as the protocol has them in both of its eras. [`serve`]
//! owns the listeners, the connections and the sessions; [`Http`] is what others see of them, and the list of tokens. A
//! request is let in by its `Host`, its `Origin` and its token before anything of its body is read, and its session has the
//! token's profile: nothing that a client sends over HTTP chooses one.
//!
//! ```text
//! connection ─► guard ─► token ─► account ─► body ─► headers ─► session of the older era ─► streams
//!                                                           └─► one request of the newer ─► its answer
//! ```

mod accounts;
mod answer;
mod endpoint;
mod events;
mod guard;
pub mod head;
mod headers;
mod listener;
mod ready;
mod request;
mod sessions;
mod streams;
mod tls;
pub mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conductor_protocol::status::{CertificateStatus, HttpStatus, TokenStatus};
use tokio::sync::watch;

use crate::config::HttpSection;
use crate::dirs::Dirs;
use crate::error_chain;
use crate::profile;
use crate::stats::Stats;
use crate::supervisor::{ConfigInUse, Phase, Shared};
use accounts::Accounts;
pub(crate) use accounts::Pass;
use endpoint::Endpoint;
pub(crate) use guard::{check_host, check_origin};
use listener::{Doors, Settings};
use sessions::Sessions;
use tls::{CertificateFiles, Encryption};
use tokens::{Token, Tokens};

/// Where MCP is.
pub(crate) const PATH: &str = "/mcp";

/// Between two tries to listen where somebody else does: a daemon that goes down is gone in a moment.
const RETRY: Duration = Duration::from_millis(250);

/// Between two looks for sessions that nobody uses, at most.
const SWEEP: Duration = Duration::from_secs(30);

/// HTTP as the rest of the daemon sees it.
#[derive(Debug)]
pub struct Http {
    pub tokens: Tokens,
    accounts: Accounts,
    view: Mutex<View>,
}

/// What `status` shows of the listeners.
#[derive(Debug, Default)]
struct View {
    enabled: bool,
    urls: Vec<String>,
    error: Option<String>,
    certificate: Option<CertificateStatus>,
    plaintext_because: Option<String>,
    sessions: Option<Arc<Sessions>>,
}

impl Http {
    /// Reads the list of tokens. One that cannot be read lets nobody in, and is told in `status`.
    pub fn new(dirs: &Dirs, stats: &Stats) -> Self {
        let (tokens, read) = Tokens::open(dirs.state.join("http/tokens.json"));
        let http = Self { tokens, accounts: Accounts::default(), view: Mutex::default() };
        http.note_tokens(read, stats);
        http
    }

    /// Reads the list of tokens anew.
    pub(crate) fn read_again(&self, stats: &Stats) {
        self.note_tokens(self.tokens.read_again(), stats);
    }

    fn note_tokens(&self, read: Result<(), tokens::TokenError>, stats: &Stats) {
        if let Err(error) = read {
            let error = error_chain(&error);
            tracing::error!(error, "no token is let in over HTTP");
            stats.error("http", error);
        }
    }

    /// `problem` says what is wrong with a profile that tokens are for.
    pub(crate) fn status(&self, now: Instant, problem: impl Fn(&Token) -> Option<String>) -> HttpStatus {
        let view = self.view();
        let sessions = view.sessions.as_ref().map(|sessions| sessions.count()).unwrap_or_default();
        let token = |token: &Arc<Token>| {
            let account = self.accounts.of(token, now);
            TokenStatus {
                name: token.name.clone(),
                profile: token.profile.clone(),
                problem: problem(token),
                created_at: token.created_at,
                sessions: sessions.get(&token.name).copied().unwrap_or_default(),
                in_flight: account.in_flight,
                requests: account.requests,
                unused_ms: account.unused.map(|unused| u64::try_from(unused.as_millis()).unwrap_or(u64::MAX)),
            }
        };
        let totals = self.accounts.totals();
        HttpStatus {
            enabled: view.enabled,
            urls: view.urls.clone(),
            error: view.error.clone(),
            certificate: view.certificate.clone(),
            plaintext_because: view.plaintext_because.clone(),
            tokens_file: self.tokens.file().display().to_string(),
            tokens_error: self.tokens.trouble(),
            tokens: self.tokens.list().iter().map(token).collect(),
            connections: totals.connections,
            turned_away: totals.turned_away,
            requests: totals.requests,
            refused: totals.refused,
        }
    }

    /// Where MCP is, while the daemon listens.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.view().urls.clone()
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Fields are replaced whole.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens as the configuration says, until the daemon goes down and every connection is over.
pub(crate) async fn serve(shared: Arc<Shared>) {
    let sessions = Arc::new(Sessions::new(shared.clone()));
    shared.http.view().sessions = Some(sessions.clone());
    let endpoint = Arc::new(Endpoint::new(shared.clone(), sessions.clone()));
    let mut phase = shared.phase();
    tokio::select! {
        // None is resumed after another has won, so cancel safety does not matter.
        () = listen(&shared, &endpoint) => {}
        () = sweep(&shared, &sessions) => {}
        _draining = phase.wait_for(|phase| phase.is_draining()) => {}
    }
    let deadline = phase.borrow().deadline();
    {
        let mut view = shared.http.view();
        (view.urls, view.sessions) = (Vec::new(), None);
    }
    let over = async {
        sessions.ended().await;
        endpoint.ended().await;
    };
    if tokio::time::timeout_at(deadline.into(), over).await.is_err() {
        sessions.cut_off();
        // What was cut off is answered as cancelled; the supervisor waits no longer than that takes.
        endpoint.ended().await;
    }
}

/// Keeps listening through changes of the configuration and of the certificate. Ends with the configuration's owner.
async fn listen(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>) {
    let mut config = shared.config_changes();
    let (mut doors, mut encryption) = (Doors::default(), None);
    let mut files = CertificateFiles::default();
    loop {
        let section = section(&config.borrow_and_update());
        // Before they are read, so that no change is missed.
        files.watch(&section);
        let (settings, error) = match open(&section, &mut doors, &mut encryption) {
            Ok((settings, problem)) => (settings.map(Arc::new), problem),
            Err(error) => (None, Some(error)),
        };
        let is_right = error.is_none();
        show(shared, &section, settings.as_deref(), error);
        // An agent that is told to call here must find a daemon.
        let _awake = section.enabled.then(|| shared.registry.count_connection());
        tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the queue.
            never = doors.accept(endpoint, settings) => match never {},
            // Cancel-safe, both: a change that is not seen stays unseen.
            changed = config.changed() => if changed.is_err() { return },
            () = files.changed() => {}
            // Cancel-safe: it only waits.
            () = tokio::time::sleep(RETRY), if !is_right => {}
        }
    }
}

fn section(config: &ConfigInUse) -> HttpSection {
    config.config.as_ref().map(|config| config.http.clone()).unwrap_or_default()
}

/// Opens and closes doors until they are those of the section; gives what goes for those who come in, and what is wrong with
/// it all the same.
///
/// # Errors
/// Nobody can come in.
fn open(
    section: &HttpSection,
    doors: &mut Doors,
    encryption: &mut Option<Encryption>,
) -> Result<(Option<Settings>, Option<String>), String> {
    if !section.enabled {
        (*doors, *encryption) = (Doors::default(), None);
        return Ok((None, None));
    }
    // First what may be wrong without anybody noticing: nothing listens without the encryption that was asked for.
    let problem = match tls::load(section) {
        Ok(loaded) => {
            *encryption = loaded;
            None
        }
        // While a certificate is renewed it may not fit its key for a moment; the one before is as good as it was.
        Err(error) if encryption.is_some() => {
            Some(format!("the certificate before stays in use: {}", error_chain(&error)))
        }
        Err(error) => {
            *doors = Doors::default();
            return Err(error_chain(&error));
        }
    };
    doors.open(&section.addresses()).map_err(|error| error_chain(&error))?;
    Ok((Some(Settings::new(section, encryption.clone(), doors.addresses())), problem))
}

fn show(shared: &Shared, section: &HttpSection, settings: Option<&Settings>, error: Option<String>) {
    let mut view = shared.http.view();
    view.enabled = section.enabled;
    view.urls = settings.map(Settings::urls).unwrap_or_default();
    view.certificate = settings.and_then(Settings::certificate).cloned();
    let is_plain = settings.is_some_and(|settings| !settings.is_encrypted());
    view.plaintext_because = section.plaintext_because.clone().filter(|_| is_plain);
    if let Some(error) = error.as_ref().filter(|error| view.error.as_ref() != Some(error)) {
        tracing::error!(error, listens = settings.is_some(), "HTTP is not as it should be");
        shared.stats.error("http", error.clone());
    }
    if let Some(settings) = settings.filter(|_| error.is_none()) {
        tracing::info!(urls = ?view.urls, tls = settings.is_encrypted(), "listening for HTTP");
    }
    view.error = error;
}

/// Ends sessions that nobody uses, and those of tokens that are revoked, as soon as they are; tells of tokens that are good for
/// nothing.
async fn sweep(shared: &Shared, sessions: &Sessions) {
    let mut tokens = shared.http.tokens.changes();
    let mut config = shared.config_changes();
    let mut told = BTreeMap::new();
    loop {
        let in_use = config.borrow_and_update().clone();
        let idle = section(&in_use).limits().session_idle;
        let list = tokens.borrow_and_update().clone();
        sessions.sweep(idle, &list);
        shared.http.accounts.keep(&list);
        tell(shared, &in_use, &list, &mut told);
        tokio::select! {
            // Cancel-safe, all: a change that is not seen stays unseen.
            () = tokio::time::sleep(SWEEP.min(idle / 2)) => {}
            changed = tokens.changed() => if changed.is_err() { return },
            changed = config.changed() => if changed.is_err() { return },
        }
    }
}

/// Tells of each token with which nothing can be done, once for each reason.
fn tell(shared: &Shared, config: &ConfigInUse, list: &[Arc<Token>], told: &mut BTreeMap<String, String>) {
    let problems =
        list.iter().filter_map(|token| Some((token.name.clone(), problem(config, &shared.dirs, token)?)));
    let problems: BTreeMap<String, String> = problems.collect();
    for (token, problem) in problems.iter().filter(|(token, problem)| told.get(*token) != Some(problem)) {
        tracing::error!(token, error = problem, "nothing can be done with a token");
        shared.stats.error("http", format!("token {token}: {problem}"));
    }
    *told = problems;
}

/// Why nothing can be done with a token. A configuration that cannot be used at all is told elsewhere.
pub(crate) fn problem(config: &ConfigInUse, dirs: &Dirs, token: &Token) -> Option<String> {
    let config = config.config.as_ref().ok()?;
    let profile = match token.tenant() {
        Some(tenant) => profile::resolve_tenant(config, tenant, dirs),
        None => profile::resolve(config, &BTreeMap::new(), "", dirs),
    };
    profile.err().map(|error| error_chain(&error))
}

/// The URL of an address.
fn url(address: SocketAddr, encrypted: bool) -> String {
    format!("{}://{address}{PATH}", if encrypted { "https" } else { "http" })
}

async fn until_draining(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| phase.is_draining()).await.is_err() {
        // The supervisor is gone, and with it this task in a moment.
        std::future::pending().await
    }
}
