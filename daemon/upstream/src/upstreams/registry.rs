//! Which profile has which servers, and which connections there are.

#![expect(
    deprecated,
    reason = "logging levels are on their way out of MCP (SEP-2577); clients of today use them"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rmcp::model::LoggingLevel;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::command::Found;
use crate::config::{Endpoint, Identity, Life, Scope, ServerConfig, ServerSet, Stdio};
use crate::connection::open::Spec;
use crate::connection::state::State;
use crate::connection::task::{self, Command, ConnectionStatus, Parts};
use crate::connection::watches::Watches;
use crate::log::LogRing;
use crate::manifest::Manifests;
use crate::session::{ProfileId, SessionId};
use crate::upstreams::Inner;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) profiles: HashMap<ProfileId, Arc<Profile>>,
    connections: HashMap<Key, Connection>,
    known: HashMap<Identity, Known>,
    n_instances: u64,
    /// From which level on a session wants to hear what its own servers log.
    pub(crate) log_levels: HashMap<SessionId, LoggingLevel>,
}

/// The servers of a profile that can be used, with what was found out about them.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) set: ServerSet,
    pub(crate) entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) found: Option<Result<Found, String>>,
    pub(crate) login_path: Option<OsString>,
    pub(crate) identity: Identity,
}

/// What distinguishes connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) identity: Identity,
    pub(crate) life: Life,
    pub(crate) instance: Instance,
}

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Instance {
    Shared,
    Session(SessionId),
    Call(u64),
}

/// A handle to a connection's task.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) key: Key,
    pub(crate) commands: mpsc::Sender<Command>,
    close: CancellationToken,
    pub(crate) status: watch::Receiver<ConnectionStatus>,
    pub(crate) declined: Arc<AtomicUsize>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) watches: Arc<Watches>,
}

/// What is remembered of an identity, whether or not it is connected.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) log: Arc<LogRing>,
}

impl Profile {
    pub(crate) fn new(
        set: &ServerSet,
        login_path: Option<OsString>,
        find: impl Fn(&Stdio) -> Result<Found, String>,
    ) -> Self {
        let entry = |(name, server): (&str, &crate::config::Server)| {
            let config = server.config.as_ref().ok()?.clone();
            let found = match &config.endpoint {
                Endpoint::Stdio(stdio) => Some(find(stdio)),
                Endpoint::Http { .. } | Endpoint::Sse(_) => None,
            };
            Some((name.to_owned(), Entry::new(config, found, login_path.clone())))
        };
        Self { set: set.clone(), entries: set.iter().filter_map(entry).collect() }
    }
}

impl Entry {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        found: Option<Result<Found, String>>,
        login_path: Option<OsString>,
    ) -> Self {
        let program =
            found.as_ref().and_then(|found| found.as_ref().ok()).map(|found| found.program.as_path());
        let identity = config.identity(program);
        Self { config, found, login_path, identity }
    }

    fn has(&self, key: &Key) -> bool {
        let scope = match key.instance {
            Instance::Shared => Scope::Shared,
            Instance::Session(_) => Scope::Session,
            Instance::Call(_) => Scope::Call,
        };
        self.identity == key.identity && self.config.life == key.life && self.config.scope == scope
    }
}

impl Registry {
    /// Whose connection a call of `session` uses.
    pub(crate) fn instance(&mut self, scope: Scope, session: &SessionId) -> Instance {
        match scope {
            Scope::Shared => Instance::Shared,
            Scope::Session => Instance::Session(session.clone()),
            Scope::Call => {
                self.n_instances += 1;
                Instance::Call(self.n_instances)
            }
        }
    }

    /// The connection of an entry; a new one, not yet started, if there is none.
    pub(crate) fn connection(
        &mut self,
        inner: &Inner,
        entry: &Entry,
        instance: Instance,
        name: &str,
    ) -> Connection {
        let key = Key { identity: entry.identity, life: entry.config.life, instance };
        if let Some(connection) =
            self.connections.get(&key).filter(|connection| !connection.commands.is_closed())
        {
            return connection.clone();
        }
        let owner = match &key.instance {
            Instance::Session(session) => Some(session.clone()),
            Instance::Shared | Instance::Call(_) => None,
        };
        self.new_connection(inner, entry, key, owner, name)
    }

    /// A connection for one call, which belongs to the session that makes it.
    pub(crate) fn for_call(
        &mut self,
        inner: &Inner,
        entry: &Entry,
        session: &SessionId,
        name: &str,
    ) -> Connection {
        let instance = self.instance(entry.config.scope, session);
        if !matches!(instance, Instance::Call(_)) {
            return self.connection(inner, entry, instance, name);
        }
        let key = Key { identity: entry.identity, life: entry.config.life, instance };
        self.new_connection(inner, entry, key, Some(session.clone()), name)
    }

    fn new_connection(
        &mut self,
        inner: &Inner,
        entry: &Entry,
        key: Key,
        owner: Option<SessionId>,
        name: &str,
    ) -> Connection {
        let Known { manifests, log } = self.known(inner, entry);
        let declined = Arc::new(AtomicUsize::new(0));
        let options = &inner.options;
        let spec = Spec {
            endpoint: entry.config.endpoint.clone(),
            found: entry.found.clone(),
            login_path: entry.login_path.clone(),
            home: options.home.clone(),
            http: inner.http(),
            authority: inner.authority(&entry.config),
            max_bytes: options.max_message_bytes,
            start_timeout: options.start_timeout,
        };
        let close = CancellationToken::new();
        let watches = Arc::new(Watches::default());
        let log_level = owner.as_ref().and_then(|owner| self.log_levels.get(owner).copied());
        let (commands, status) = task::spawn(Parts {
            label: name.into(),
            spec,
            state: State::new(key.life, fastrand::u64(..)),
            owner,
            router: options.client_requests.clone(),
            declined: declined.clone(),
            watches: watches.clone(),
            log_level,
            log,
            manifests,
            tracker: inner.tracker.clone(),
            close: close.clone(),
            force: inner.force.clone(),
            max_in_flight: options.max_in_flight,
        });
        let permits = Arc::new(Semaphore::new(options.max_in_flight));
        let connection = Connection { key: key.clone(), commands, close, status, declined, permits, watches };
        self.connections.insert(key, connection.clone());
        connection
    }

    pub(crate) fn known(&mut self, inner: &Inner, entry: &Entry) -> Known {
        let load = || {
            let file = inner.manifests().join(format!("{}.json", entry.identity));
            let redactor = entry.config.redactor.clone();
            let log = Arc::new(LogRing::new(redactor.clone()));
            let (tracker, changes) = (inner.tracker.clone(), inner.changes.clone());
            let manifests =
                Manifests::load(file, redactor, tracker, changes, inner.options.max_message_bytes);
            Known { manifests, log }
        };
        self.known.entry(entry.identity).or_insert_with(load).clone()
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    pub(crate) fn connections_of(&self, entry: &Entry) -> Vec<Connection> {
        self.connections.values().filter(|connection| entry.has(&connection.key)).cloned().collect()
    }

    /// Closes what is in nobody's configuration.
    pub(crate) fn close_unused(&mut self) {
        let profiles: Vec<_> = self.profiles.values().cloned().collect();
        let entries = || profiles.iter().flat_map(|profile| profile.entries.values());
        self.close(|key| !entries().any(|entry| entry.has(key)));
        let identities: HashSet<_> = entries().map(|entry| entry.identity).collect();
        self.known.retain(|identity, _| identities.contains(identity));
    }

    /// Closes the connections that `which` names, once their calls are done.
    pub(crate) fn close(&mut self, which: impl Fn(&Key) -> bool) {
        self.connections.retain(|key, connection| {
            let closes = which(key);
            if closes {
                connection.close.cancel();
            }
            !closes
        });
    }
}
