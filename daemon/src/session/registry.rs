//! Who is connected. Owns the map of sessions; a session registers itself and is gone when its entry is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use conductor_protocol::status::SessionStatus;
use conductor_upstream::SessionId;
use dashmap::DashMap;
use tokio::sync::watch;

use super::Session;
use crate::upstreams::report::Users;

/// All sessions; a cheap handle. Never hands out references into the map, so no lock is held over an await.
#[derive(Clone, Debug)]
pub struct Registry {
    sessions: Arc<DashMap<u64, Arc<Session>>>,
    next: Arc<AtomicU64>,
    /// The number of connections of any kind, for the idle exit.
    connections: watch::Sender<usize>,
}

/// Membership: dropping it removes the session.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Registry,
    id: u64,
}

/// Counts one connection as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    connections: watch::Sender<usize>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            sessions: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
            connections: watch::Sender::new(0),
        }
    }
}

impl Registry {
    pub(crate) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn insert(&self, session: Arc<Session>) -> Entry {
        let id = session.id;
        self.sessions.insert(id, session);
        Entry { registry: self.clone(), id }
    }

    pub(crate) fn count_connection(&self) -> ConnectionCount {
        self.connections.send_modify(|count| *count += 1);
        ConnectionCount { connections: self.connections.clone() }
    }

    pub(crate) fn n_connections(&self) -> usize {
        *self.connections.borrow()
    }

    pub fn connections(&self) -> watch::Receiver<usize> {
        self.connections.subscribe()
    }

    /// The session that upstream servers know by this id.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Arc<Session>> {
        let id = id.to_string().parse().ok()?;
        self.sessions.get(&id).map(|session| session.value().clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.sessions.iter().map(|entry| entry.value().clone()).collect();
        sessions.sort_unstable_by_key(|session| session.id);
        sessions
    }

    /// Which sessions have which registration of upstream servers.
    pub(crate) fn users_of_servers(&self) -> Users {
        let mut users = Users::new();
        for session in self.all() {
            if let Some(registration) = session.known_servers().registration() {
                users.entry(registration.id.clone()).or_default().push(session.id);
            }
        }
        users
    }

    pub fn status(&self, now: Instant) -> Vec<SessionStatus> {
        self.all().iter().map(|session| session.status(now)).collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.id);
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.connections.send_modify(|count| *count -= 1);
    }
}
