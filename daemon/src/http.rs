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
mod headers;
mod listener;
mod ready;
mod request;
mod sessions;
mod streams;
mod tls;
pub mod tokens;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conductor_protocol::status::{HttpStatus, TokenStatus};
use tokio::sync::watch;

use crate::config::HttpSection;
use crate::dirs::Dirs;
use crate::error_chain;
use crate::stats::Stats;
use crate::supervisor::{ConfigInUse, Phase, Shared};
use accounts::Accounts;
pub(crate) use accounts::Pass;
use endpoint::Endpoint;
pub(crate) use guard::{check_host, check_origin};
use listener::{Doors, Settings};
use sessions::Sessions;
use tokens::Tokens;

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

    pub fn status(&self, now: Instant) -> HttpStatus {
        let view = self.view();
        let sessions = view.sessions.as_ref().map(|sessions| sessions.count()).unwrap_or_default();
        let token = |token: &Arc<tokens::Token>| {
            let account = self.accounts.of(token, now);
            TokenStatus {
                name: token.name.clone(),
                profile: token.profile.clone(),
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
            tokens: self.tokens.list().iter().map(token).collect(),
            connections: totals.connections,
            turned_away: totals.turned_away,
            requests: totals.requests,
            refused: totals.refused,
        }
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

/// Keeps listening through changes of the configuration. Ends with the configuration's owner.
async fn listen(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>) {
    let mut config = shared.config_changes();
    let mut doors = Doors::default();
    loop {
        let section = section(&config.borrow_and_update());
        let opened = open(&section, &mut doors);
        let is_open = opened.is_ok();
        let settings = show(shared, &section, opened);
        // An agent that is told to call here must find a daemon.
        let _awake = section.enabled.then(|| shared.registry.count_connection());
        tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the queue.
            never = doors.accept(endpoint, settings) => match never {},
            // Cancel-safe: a change that is not seen stays unseen.
            changed = config.changed() => if changed.is_err() { return },
            // Cancel-safe: it only waits.
            () = tokio::time::sleep(RETRY), if section.enabled && !is_open => {}
        }
    }
}

fn section(config: &ConfigInUse) -> HttpSection {
    config.config.as_ref().map(|config| config.http.clone()).unwrap_or_default()
}

/// Opens and closes doors until they are those of the section; gives what goes for those who come in.
fn open(section: &HttpSection, doors: &mut Doors) -> Result<Option<Settings>, String> {
    if !section.enabled {
        *doors = Doors::default();
        return Ok(None);
    }
    // First what may be wrong without anybody noticing: nothing listens without the encryption that was asked for.
    let tls = tls::load(section).map_err(|error| {
        *doors = Doors::default();
        error_chain(&error)
    })?;
    doors.open(&section.addresses()).map_err(|error| error_chain(&error))?;
    Ok(Some(Settings::new(section, tls, doors.addresses())))
}

fn show(
    shared: &Shared,
    section: &HttpSection,
    opened: Result<Option<Settings>, String>,
) -> Option<Arc<Settings>> {
    let mut view = shared.http.view();
    view.enabled = section.enabled;
    let (settings, error) = match opened {
        Ok(settings) => (settings.map(Arc::new), None),
        Err(error) => (None, Some(error)),
    };
    view.urls = settings.iter().flat_map(|settings| settings.urls()).collect();
    if error.is_some() && view.error != error {
        tracing::error!(error, "the daemon does not listen for HTTP");
        shared.stats.error("http", error.clone().unwrap_or_default());
    }
    if let Some(settings) = settings.as_ref().filter(|_| view.error.is_some() || !view.urls.is_empty()) {
        tracing::info!(urls = ?view.urls, tls = settings.is_encrypted(), "listening for HTTP");
    }
    view.error = error;
    settings
}

/// Ends sessions that nobody uses, and those of tokens that are revoked, as soon as they are.
async fn sweep(shared: &Shared, sessions: &Sessions) {
    let mut tokens = shared.http.tokens.changes();
    loop {
        let idle = section(&shared.config()).limits().session_idle;
        let list = tokens.borrow_and_update().clone();
        sessions.sweep(idle, &list);
        shared.http.accounts.keep(&list);
        tokio::select! {
            // Cancel-safe, both: a change that is not seen stays unseen.
            () = tokio::time::sleep(SWEEP.min(idle / 2)) => {}
            changed = tokens.changed() => if changed.is_err() { return },
        }
    }
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
