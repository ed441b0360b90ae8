//! All upstream servers of the daemon: who may use which, and the connections they share.
//!
//! A profile brings a [`ServerSet`]; its code names servers in it and reaches no others. Equal configurations share one
//! connection, whichever profiles they stand in, unless their scope says otherwise. Requests run in their caller's task;
//! this module owns the registry of profiles and connections, and nothing in it blocks.

mod auth;
mod call;
mod registry;
mod status;
mod watching;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::Client;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authorities;
use crate::command::LoginShell;
use crate::config::{Changes, Disabled, Endpoint, Expose, Scope, ServerSet, Start};
use crate::connection::open::find;
use crate::connection::task::Command;
use crate::error::CallError;
use crate::log::LogLine;
use crate::manifest::{self, Manifest};
use crate::nearest::ranked;
use crate::session::{ClientRequests, ProfileId, ServerRef, SessionId};
use crate::transport::http;
use crate::upstreams::registry::{Entry, Instance, Profile, Registry};

pub use crate::upstreams::call::{CallContext, ClientTerms, Rounds};
pub use crate::upstreams::status::{ServerState, ServerStatus, Summary};

/// Largest message of a server if the options do not say, in bytes.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a server may take to become ready if the options do not say: the first start of a package downloads it.
pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(120);

/// Requests in flight at one connection if the options do not say; each may hold one message of the largest size.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 128;

/// How long processes may take to be killed after the deadline of a shutdown.
const KILL_TIME: Duration = Duration::from_secs(10);

/// What the upstreams of a daemon have in common.
#[derive(Debug, Clone)]
pub struct UpstreamsOptions {
    /// Where lists of tools are kept.
    pub state_dir: PathBuf,
    /// The user's home: working directory of servers that name none.
    pub home: PathBuf,
    /// Who answers the requests of servers; nobody if `None`.
    pub client_requests: Option<Arc<dyn ClientRequests>>,
    pub max_message_bytes: usize,
    pub start_timeout: Duration,
    pub max_in_flight: usize,
}

/// What of a server the clients of a profile see as their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    pub server: ServerRef,
    pub what: BTreeSet<Expose>,
    /// What names begin with, if the configuration says so.
    pub prefix: Option<String>,
}

/// The upstream servers of a daemon. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: UpstreamsOptions,
    login_shell: LoginShell,
    http: Mutex<Option<Client>>,
    authorities: Authorities,
    registry: Mutex<Registry>,
    /// Counts changes of manifests.
    changes: watch::Sender<u64>,
    tracker: TaskTracker,
    closing: CancellationToken,
    force: CancellationToken,
}

impl UpstreamsOptions {
    pub fn new(state_dir: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            home: home.into(),
            client_requests: None,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            start_timeout: DEFAULT_START_TIMEOUT,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
        }
    }
}

impl Upstreams {
    pub fn new(options: UpstreamsOptions) -> Self {
        let tracker = TaskTracker::new();
        let authorities = Authorities::new(options.state_dir.join("auth"), tracker.clone());
        Self(Arc::new(Inner {
            options,
            login_shell: LoginShell::default(),
            http: Mutex::default(),
            authorities,
            registry: Mutex::default(),
            changes: watch::Sender::new(0),
            tracker,
            closing: CancellationToken::new(),
            force: CancellationToken::new(),
        }))
    }

    /// Gives a profile its servers, in place of those that it had. Connections that nobody has in his configuration any
    /// more end once their calls are done; all others stay as they are. Eager servers start.
    ///
    /// # Cancel safety
    /// Either everything is done or nothing.
    pub async fn set(&self, profile: &ProfileId, set: ServerSet) -> Changes {
        let login_path = self.login_path(&set).await;
        let home = &self.0.options.home;
        let find = |stdio: &_| find(stdio, set.session_path.as_deref(), login_path.as_deref(), home);
        let new = Profile::new(&set, login_path.clone(), find);
        let mut registry = self.registry();
        let old = registry.profiles.insert(profile.clone(), Arc::new(new));
        let changes = old.map_or_else(|| ServerSet::default().changes(&set), |old| old.set.changes(&set));
        registry.close_unused();
        if !self.0.closing.is_cancelled() {
            self.start_eager(&mut registry, profile);
        }
        changes
    }

    /// The profile is gone, and with it what only it used.
    pub fn remove(&self, profile: &ProfileId) {
        let mut registry = self.registry();
        registry.profiles.remove(profile);
        registry.close_unused();
    }

    /// The session is gone, and with it what belonged to it.
    pub fn end_session(&self, session: &SessionId) {
        let mut registry = self.registry();
        registry.log_levels.remove(session);
        registry.close(|key| key.instance == Instance::Session(session.clone()));
        for connection in registry.connections() {
            let unwatched = connection.watches.end_session(session);
            self.farewell(connection, unwatched);
        }
    }

    /// What is known of a server, at once, whether it runs or not. `None` if it never ran with this configuration.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn manifest(&self, server: &ServerRef) -> Result<Option<Arc<Manifest>>, CallError> {
        let entry = self.entry(server)?;
        let known = self.registry().known(&self.0, &entry);
        Ok(known.manifests.current().map(|manifest| manifest.filtered(&entry.config.tools)))
    }

    /// The servers of a profile that expose something to its clients, by name.
    pub fn exposed(&self, profile: &ProfileId) -> Vec<Exposed> {
        let servers = self.registry().profiles.get(profile).cloned();
        let entries = servers.iter().flat_map(|servers| &servers.entries);
        let exposing = entries.filter(|(_, entry)| !entry.config.expose.is_empty());
        let view = |(name, entry): (&String, &Entry)| Exposed {
            server: ServerRef::new(profile.clone(), name),
            what: entry.config.expose.clone(),
            prefix: entry.config.expose_prefix.clone(),
        };
        exposing.map(view).collect()
    }

    /// Changes whenever a manifest does.
    pub fn manifest_changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The last lines of a server's stderr, its log messages, and what became of it.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn logs(&self, server: &ServerRef) -> Result<Vec<LogLine>, CallError> {
        let entry = self.entry(server)?;
        Ok(self.registry().known(&self.0, &entry).log.lines())
    }

    /// Ends a server once its calls are done. It starts again when it is used.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn stop(&self, server: &ServerRef) -> Result<(), CallError> {
        self.command(server, || Command::Stop)
    }

    /// Replaces a server by a fresh one, whatever failed before. Calls in flight finish at the old one.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn restart(&self, server: &ServerRef) -> Result<(), CallError> {
        self.command(server, || Command::Restart)
    }

    /// Removes what is kept on disk of servers that nobody has in a configuration any more. Blocks while it reads the
    /// directory.
    pub fn prune_manifests(&self) {
        match manifest::prune(&self.0.manifests(), SystemTime::now()) {
            Ok(0) => {}
            Ok(n_files) => tracing::debug!(n_files, "lists of servers that are gone were removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "lists of servers that are gone cannot be removed"),
        }
    }

    /// Ends all servers: calls may finish until `deadline`, then everything is killed.
    ///
    /// # Cancel safety
    /// Dropped before its end it leaves the servers to the drop of the last handle, which kills them.
    pub async fn shutdown(&self, deadline: Instant) {
        self.0.closing.cancel();
        {
            let mut registry = self.registry();
            registry.profiles.clear();
            registry.close(|_| true);
        }
        self.0.tracker.close();
        if timeout_at(deadline, self.0.tracker.wait()).await.is_err() {
            self.0.force.cancel();
            timeout(KILL_TIME, self.0.tracker.wait()).await.ok();
        }
    }

    fn command(&self, server: &ServerRef, command: impl Fn() -> Command) -> Result<(), CallError> {
        let entry = self.entry(server)?;
        for connection in self.registry().connections_of(&entry) {
            // Closed: it has ended already.
            if let Err(TrySendError::Full(_)) = connection.commands.try_send(command()) {
                return Err(CallError::Busy {
                    server: server.name.clone(),
                    limit: self.0.options.max_in_flight,
                });
            }
        }
        Ok(())
    }

    /// The entry of a profile; the only way to a server.
    fn entry(&self, server: &ServerRef) -> Result<Entry, CallError> {
        if self.0.closing.is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let registry = self.registry();
        let profile = registry.profiles.get(&server.profile);
        if let Some(entry) = profile.and_then(|profile| profile.entries.get(&server.name)) {
            return Ok(entry.clone());
        }
        let name = server.name.clone();
        let Some(profile) = profile else {
            return Err(CallError::UnknownServer { name, nearest: Vec::new() });
        };
        match profile.set.get(&name).map(|server| &server.config) {
            Some(Err(why)) => Err(disabled(name, why)),
            _ => {
                let names = profile.set.iter().map(|(name, _)| name);
                let nearest = ranked(&name, names).into_iter().map(str::to_owned).collect();
                Err(CallError::UnknownServer { name, nearest })
            }
        }
    }

    /// The same, after another look for a command that was not found before.
    async fn entry_to_use(&self, server: &ServerRef) -> Result<Entry, CallError> {
        let entry = self.entry(server)?;
        let (Endpoint::Stdio(stdio), Some(Err(_))) = (&entry.config.endpoint, &entry.found) else {
            return Ok(entry);
        };
        let profile = self.registry().profiles.get(&server.profile).cloned();
        let Some(profile) = profile else { return Ok(entry) };
        let login = self.0.login_shell.path().await;
        let found = find(stdio, profile.set.session_path.as_deref(), login, &self.0.options.home);
        if found.is_err() {
            return Ok(entry);
        }
        let mut newer = Profile::clone(&profile);
        newer.entries.insert(server.name.clone(), Entry::new(entry.config, Some(found), entry.login_path));
        if let Some(current) = self.registry().profiles.get_mut(&server.profile)
            && Arc::ptr_eq(current, &profile)
        {
            *current = Arc::new(newer);
        }
        self.entry(server)
    }

    fn start_eager(&self, registry: &mut Registry, profile: &ProfileId) {
        let Some(profile) = registry.profiles.get(profile).cloned() else { return };
        for (name, entry) in &profile.entries {
            if entry.config.life.start == Start::Eager && entry.config.scope == Scope::Shared {
                registry.connection(&self.0, entry, Instance::Shared, name);
            }
        }
    }

    async fn login_path(&self, set: &ServerSet) -> Option<std::ffi::OsString> {
        let is_stdio = |server: &crate::config::Server| {
            server.config.as_ref().is_ok_and(|config| matches!(config.endpoint, Endpoint::Stdio(_)))
        };
        if !set.iter().any(|(_, server)| is_stdio(server)) {
            return None;
        }
        self.0.login_shell.path().await.map(ToOwned::to_owned)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Where manifests are kept.
    fn manifests(&self) -> PathBuf {
        self.options.state_dir.join("manifests")
    }

    fn http(&self) -> Result<Client, String> {
        let mut made = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            // A failure is not kept: it may be want of descriptors or memory.
            *made = Some(http::client().map_err(|error| error.to_string())?);
        }
        Ok(made.clone().expect("was just made"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.force.cancel();
    }
}

fn disabled(server: String, why: &Disabled) -> CallError {
    CallError::Disabled { server, reason: why.to_string() }
}
