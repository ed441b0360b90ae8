//! Sessions: one for each client that wants to run code.
//!
//! [`serve`] takes a connection from the handshake to its end. A [`Session`] holds what is known about the client and the
//! profile worked out from it; its MCP side is [`tools::ToolServer`] on rmcp. When the client goes away its calls are
//! cancelled; when the daemon goes down its calls may finish first, and it is told to connect again. Sessions over HTTP are
//! the same ([`Hosted`]), on transports of [`crate::http`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use conductor_deno::DenoBinary;
use conductor_protocol::status::{RunningStatus, SessionStatus};
use conductor_protocol::{ClientKind, Hello, RejectCode};
use conductor_upstream::SessionId;
use conductor_upstream::secret::{Redactor, Secret, is_secret_variable};
use interprocess::local_socket::tokio::Stream;
use rmcp::transport::Transport;
use rmcp::{RoleServer, ServiceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::profile::{self, Profile};
use crate::supervisor::{ConfigInUse, Phase, Shared};
use crate::upstreams::Servers;
use admission::{Admission, Refused};
use connection::{Connection, hang_up_of};
use handshake::Client;
use lists::Lists;
pub(crate) use raw::RawService;
use registry::Entry;
use requests::Link;
use rounds::Suspended;
use tools::ToolServer;
use watches::Watches;

mod accepted;
pub(crate) mod admission;
mod connection;
mod discovery;
mod ending;
mod expose;
mod fit;
mod follow;
pub(crate) mod handshake;
mod lists;
mod raw;
pub mod registry;
pub(crate) mod requests;
mod rounds;
#[cfg(test)]
mod simulation;
mod state;
mod tools;
pub(crate) mod transport;
mod watches;

#[doc(hidden)]
pub use transport::answer_to_malformed;

/// How long a configuration file is left alone after it has changed.
const SETTLE: Duration = Duration::from_millis(100);

/// How long a list may wait for a configuration of servers to be read: a locked keyring must not hold it up.
const SERVERS_WAIT: Duration = Duration::from_millis(500);

/// One client, from its handshake to its end.
#[derive(Debug)]
pub struct Session {
    pub id: u64,
    origin: Origin,
    /// Keeps the secrets that the client has sent out of the log for as long as the session lives.
    _secrets: Redactor,
    connected_at: Instant,
    /// Name and version of the MCP client, once it has told them.
    client: OnceLock<String>,
    /// Cancelled when nobody is left to answer.
    gone: CancellationToken,
    executions: AtomicU64,
    in_flight: watch::Sender<u64>,
    /// Calls in flight, to cancel one by its execution id.
    running: Mutex<BTreeMap<String, Running>>,
    admission: Mutex<Admission>,
    link: Link,
    lists: Lists,
    suspended: Suspended,
    watches: Watches,
    /// The upstream servers of its configuration.
    servers: watch::Sender<Servers>,
    /// The profile, with the generation of the configuration it was worked out from.
    profile: Mutex<Option<(u64, ProfileResult)>>,
}

/// What a session was opened with.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) kind: Kind,
    pub(crate) pid: u32,
    pub(crate) build: String,
    pub(crate) cwd: String,
    pub(crate) env: BTreeMap<String, String>,
    /// The profile that decides instead of `env`, for a user beside the daemon's own.
    pub(crate) tenant: Option<String>,
}

/// By which way the client comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Socket(ClientKind),
    /// With a token of this name. `requests`: what the client says comes in requests that know nothing of each other, and
    /// several programs may share the token.
    Http {
        token: Arc<str>,
        requests: bool,
    },
}

/// A session with all that goes on beside its calls, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) session: Arc<Session>,
    shared: Arc<Shared>,
    background: JoinSet<()>,
    _entry: Entry,
}

type ProfileResult = Result<Arc<Profile>, Arc<str>>;

/// A call in flight; dropping it counts it out.
#[derive(Debug)]
struct InFlight {
    session: Arc<Session>,
    id: String,
    /// Ends the call.
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    cancel: CancellationToken,
}

/// Serves one connection until its end.
pub(crate) async fn serve(stream: Stream, shared: Arc<Shared>) {
    let _count = shared.registry.count_connection();
    let Stream::UdSocket(socket) = &stream;
    let watched = socket.as_fd().try_clone_to_owned();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let id = shared.registry.next_id();
    if shared.is_draining() {
        // client gone: nobody to tell
        let _told = handshake::reject(&mut writer, RejectCode::Draining, "the daemon is going down").await;
        return;
    }
    let connected = shared.registry.n_connections();
    if connected > shared.max_connections {
        let text = format!(
            "{} clients are connected, as many as the limit on open files lets in\nhint: end some of them, or raise the limit: \
             `LimitNOFILE=` of the service, `ulimit -n` in a shell",
            shared.max_connections
        );
        tracing::warn!(connected, "a client is turned away: there are too many");
        // client gone: nobody to tell
        let _told = handshake::reject(&mut writer, RejectCode::Busy, &text).await;
        return;
    }
    let config = shared.config();
    let missing = |hello: &Hello| match &config.config {
        Ok(config) => profile::missing_variables(config, &hello.env, &hello.cwd, &shared.dirs),
        Err(_) => Vec::new(),
    };
    let client = match handshake::accept(&mut reader, &mut writer, id, missing).await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(session = id, error = crate::error_chain(&error), "handshake failed");
            return;
        }
    };
    if client.hello.kind == ClientKind::Admin {
        return crate::admin::serve(reader, writer, client, shared).await;
    }
    let Ok(watched) = watched else { return };
    let Client { hello, env, decoder } = client;
    let kind = Kind::Socket(hello.kind);
    let origin = Origin { kind, pid: hello.pid, build: hello.build, cwd: hello.cwd, env, tenant: None };
    let hosted = Hosted::open(id, origin, shared);
    let (session, phase) = (hosted.session.clone(), hosted.shared.phase());
    let connection = Connection { session, phase, is_gone: hang_up_of(watched) };
    // With the serving ends the session: its calls, and what it has of servers, before the client is told.
    let serving = |transport, stop| async move { hosted.serve(transport, stop).await };
    connection.serve(decoder, (reader, writer), serving).await;
}

impl Hosted {
    /// Begins a session. `id` is one of the registry's.
    pub(crate) fn open(id: u64, origin: Origin, shared: Arc<Shared>) -> Self {
        let (link, logs) = Link::new();
        let session = Arc::new(Session::new(id, origin, link));
        let entry = shared.registry.insert(session.clone());
        tracing::info!(session = id, client_pid = session.origin.pid, kind = ?session.origin.kind, "session started");
        let mut background = JoinSet::new();
        background.spawn(keep_warm(session.clone(), shared.clone()));
        background.spawn(keep_servers(session.clone(), shared.clone()));
        background.spawn(lists::keep(session.clone(), shared.clone()));
        background.spawn(requests::tell_logs(session.clone(), logs));
        background.spawn(watches::tell(session.clone()));
        Self { session, shared, background, _entry: entry }
    }

    /// What answers the session's requests.
    pub(crate) fn server(&self) -> RawService {
        RawService(ToolServer::new(self.session.clone(), self.shared.clone()))
    }

    /// The input schema of a tool that the client sees, in so far as it is known now.
    pub(crate) fn input_schema(&self, tool: &str) -> Option<serde_json::Value> {
        let tools = ToolServer::new(self.session.clone(), self.shared.clone()).list(lists::List::Tools);
        let tool = tools.as_array()?.iter().find(|listed| listed["name"] == tool)?;
        tool.get("inputSchema").cloned()
    }

    /// Serves all of its requests, until the transport ends or `stop` is cancelled.
    ///
    /// # Cancel safety
    /// The session is over when this is dropped.
    pub(crate) async fn serve(
        &self,
        transport: impl Transport<RoleServer> + 'static,
        stop: CancellationToken,
    ) {
        // An error here is a client that ended before it said anything, or said something else than MCP.
        if let Ok(running) = self.server().serve_with_ct(transport, stop).await {
            drop(running.waiting().await);
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.session.gone.cancel();
        self.background.abort_all();
        self.shared.upstreams.upstreams().end_session(&SessionId::new(self.session.id.to_string()));
        tracing::info!(session = self.session.id, "session ended");
    }
}

async fn until_draining(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| phase.is_draining()).await.is_err() {
        // The supervisor is gone, and with it this task in a moment.
        std::future::pending().await
    }
}

/// Keeps workers of the session's profile warm as long as it runs, and the packages that its code may import at hand.
async fn keep_warm(session: Arc<Session>, shared: Arc<Shared>) {
    let mut config = shared.config_changes();
    loop {
        config.mark_unchanged();
        let ready = async { Some((session.profile(&shared).ok()?, shared.deno.ready(None).await.ok()?)) };
        let changed = match ready.await {
            None => config.changed().await,
            Some((profile, deno)) => tokio::select! {
                // Cancel-safe: a change that is not seen stays unseen.
                changed = config.changed() => changed,
                // Dropped when the configuration changes: its registration ends, and its build if nobody else waits.
                never = keep_profile_warm(&session, &shared, &profile, &deno) => match never {},
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Keeps the session's upstream servers as its configuration says.
async fn keep_servers(session: Arc<Session>, shared: Arc<Shared>) {
    let mut config = shared.config_changes();
    let mut files = shared.upstreams.file_changes();
    loop {
        config.mark_unchanged();
        files.mark_unchanged();
        let servers = match session.profile(&shared) {
            Ok(profile) => shared.upstreams.load(&profile, &session.origin.env).await,
            // Told by every call.
            Err(_) => Servers::None,
        };
        drop(session.servers.send_replace(servers));
        let changed = tokio::select! {
            // Cancel-safe: changes that are not seen stay unseen.
            changed = config.changed() => changed,
            changed = files.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        // An editor writes a file in several steps.
        tokio::time::sleep(SETTLE).await;
    }
}

async fn keep_profile_warm(
    session: &Session,
    shared: &Shared,
    profile: &Profile,
    deno: &DenoBinary,
) -> Infallible {
    let mut packages = shared.packages.changes();
    let building = async {
        if session.origin.kind.is_lasting() {
            shared.packages.keep_at_hand(profile, deno).await;
        }
        std::future::pending().await
    };
    let warming = async {
        let mut registered = None;
        loop {
            packages.mark_unchanged();
            let at_hand = shared.packages.at_hand_for(profile, deno);
            let spec = Arc::new(profile.worker_spec(&deno.path, &shared.dirs, at_hand));
            if registered.as_ref().is_none_or(|(of, _)| *of != spec) {
                // The new one first: what both have in common stays warm.
                let registration = shared.pool.prepare(spec.clone()).await.ok();
                registered = Some((spec, registration));
            }
            if packages.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        // Neither ends, so nothing is lost.
        never = building => never,
        never = warming => never,
    }
}

impl Session {
    fn new(id: u64, origin: Origin, link: Link) -> Self {
        let secrets = secrets_in(&origin.env);
        Self {
            id,
            origin,
            _secrets: secrets,
            connected_at: Instant::now(),
            client: OnceLock::new(),
            gone: CancellationToken::new(),
            executions: AtomicU64::new(0),
            in_flight: watch::Sender::new(0),
            running: Mutex::default(),
            admission: Mutex::new(Admission::new(Instant::now())),
            link,
            lists: Lists::default(),
            suspended: Suspended::default(),
            watches: Watches::default(),
            servers: watch::Sender::default(),
            profile: Mutex::new(None),
        }
    }

    /// What the session may do under the configuration in use, or why nothing.
    fn profile(&self, shared: &Shared) -> ProfileResult {
        let config = shared.config();
        let mut known = lock(&self.profile);
        match &*known {
            Some((generation, profile)) if *generation == config.generation => profile.clone(),
            _ => {
                let profile = self.resolve_profile(&config, shared);
                *known = Some((config.generation, profile.clone()));
                profile
            }
        }
    }

    fn resolve_profile(&self, config: &ConfigInUse, shared: &Shared) -> ProfileResult {
        let config = config.config.as_ref().map_err(Arc::clone)?;
        let profile = match &self.origin.tenant {
            Some(tenant) => profile::resolve_tenant(config, tenant, &shared.dirs),
            None => profile::resolve(config, &self.origin.env, &self.origin.cwd, &shared.dirs),
        };
        let profile = profile
            .map_err(|error| error.to_string())
            .and_then(|profile| match std::fs::create_dir_all(&profile.workspace) {
                Ok(()) => Ok(Arc::new(profile)),
                Err(error) => Err(format!(
                    "cannot make the workspace {}: {error}\nhint: set MCP_CONDUCTOR_WORKSPACE to a directory that you can write",
                    profile.workspace.display()
                )),
            });
        for warning in profile.iter().flat_map(|profile| &profile.warnings) {
            tracing::warn!(session = self.id, warning, "the session's configuration");
        }
        profile.map_err(|error| {
            tracing::warn!(session = self.id, error, "the session's configuration is refused");
            shared.stats.error("session", error.clone());
            error.into()
        })
    }

    fn introduce(&self, client: String) {
        // Already introduced: a client that initializes twice keeps its first name.
        let _first = self.client.set(client);
    }

    /// Counts a call in, unless the session has too many.
    fn call_started(self: &Arc<Self>, profile: &Profile, id: &str) -> Result<InFlight, Refused> {
        let now = Instant::now();
        lock(&self.admission).enter(now, profile.max_calls_in_flight, profile.max_calls_per_minute)?;
        let cancel = self.gone.child_token();
        lock(&self.running).insert(id.to_owned(), Running { since: now, cancel: cancel.clone() });
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.in_flight.send_modify(|calls| *calls += 1);
        Ok(InFlight { session: self.clone(), id: id.to_owned(), cancel })
    }

    /// Ends a call by its execution id; `false` when it is not one of this session.
    pub(crate) fn cancel(&self, id: &str) -> bool {
        let running = lock(&self.running);
        running.get(id).map(|call| call.cancel.cancel()).is_some()
    }

    /// The upstream servers, read within a moment; what takes longer is [`Servers::Pending`].
    async fn servers(&self) -> Servers {
        let mut servers = self.servers.subscribe();
        let read = servers.wait_for(|servers| *servers != Servers::Pending);
        match tokio::time::timeout(SERVERS_WAIT, read).await {
            Ok(Ok(servers)) => servers.clone(),
            _ => Servers::Pending,
        }
    }

    /// The same as last read.
    pub(crate) fn known_servers(&self) -> Servers {
        self.servers.borrow().clone()
    }

    /// The profile as last worked out, for status.
    pub(crate) fn known_profile(&self) -> Option<ProfileResult> {
        let known = lock(&self.profile);
        known.as_ref().map(|(_, profile)| profile.clone())
    }

    fn status(&self, now: Instant) -> SessionStatus {
        let known = self.known_profile();
        let profile = known.as_ref().and_then(|known| known.as_ref().ok());
        SessionStatus {
            id: self.id,
            kind: self.origin.kind.name().into(),
            token: match &self.origin.kind {
                Kind::Http { token, .. } => Some(token.to_string()),
                Kind::Socket(_) => None,
            },
            client_pid: self.origin.pid,
            client_build: self.origin.build.clone(),
            client: self.client.get().cloned(),
            cwd: self.origin.cwd.clone(),
            age_ms: millis(now.duration_since(self.connected_at)),
            profile: profile.map(|profile| profile.name.clone()),
            limits: profile.map(|profile| profile.limits_status()),
            executions: self.executions.load(Ordering::Relaxed),
            in_flight: *self.in_flight.borrow(),
            running: lock(&self.running).iter().map(|(id, call)| call.status(id, now)).collect(),
            error: known.and_then(Result::err).map(|error| error.to_string()),
        }
    }
}

impl Kind {
    /// A session of a moment must not start what takes minutes.
    fn is_lasting(&self) -> bool {
        !matches!(self, Self::Socket(ClientKind::Ctl | ClientKind::Admin))
    }

    /// Whether the client's requests are all there is of it: no way leads to it but their answers.
    fn is_of_requests(&self) -> bool {
        matches!(self, Self::Http { requests: true, .. })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Socket(ClientKind::Shim) => "shim",
            Self::Socket(ClientKind::Ctl) => "ctl",
            Self::Socket(ClientKind::Admin) => "admin",
            Self::Http { .. } => "http",
        }
    }
}

impl Running {
    fn status(&self, id: &str, now: Instant) -> RunningStatus {
        RunningStatus { execution: id.to_owned(), age_ms: millis(now.duration_since(self.since)) }
    }
}

/// Values of variables that a client has sent for its code and its servers; those of our own are settings.
fn secrets_in(env: &BTreeMap<String, String>) -> Redactor {
    let secret = env
        .iter()
        .filter(|(name, value)| !name.starts_with("MCP_CONDUCTOR_") && is_secret_variable(name, value));
    Redactor::new(&secret.map(|(_, value)| Secret::new(value)).collect::<Vec<_>>())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.session.running).remove(&self.id);
        lock(&self.session.admission).leave();
        self.session.in_flight.send_modify(|calls| *calls -= 1);
    }
}

/// Locks plain data that no panic leaves half-changed.
fn lock<T>(data: &Mutex<T>) -> MutexGuard<'_, T> {
    data.lock().unwrap_or_else(PoisonError::into_inner)
}
