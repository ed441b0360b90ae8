//! Resources that sessions watch at one connection: who is told that one changed.
//!
//! Owns the list, which outlives the server that runs at the moment: one that is started in its place is asked again, and
//! sessions are told that the resource may have changed meanwhile. Servers of the older era are asked by
//! `resources/subscribe`, those of the newer by a stream for each resource, which stays open. Tells nobody itself: the
//! announcements are taken from the wire, and [`Watches::watchers`] says whom they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::SubscriptionFilter;
use rmcp::service::ServiceError;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::connection::client::Answers;
use crate::connection::live::Live;
use crate::connection::open::Era;
use crate::connection::request::{Failure, Limits, Operation};
use crate::error::CallError;
use crate::manifest::listen;
use crate::session::SessionId;

/// Resources that are watched at one connection. Over HTTP each may hold a request open, and half of those that a server
/// gets at a time are kept for calls.
const MAX_WATCHED: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Watches {
    watched: Mutex<BTreeMap<String, Watched>>,
    /// For the connection's task: the list is empty now, or no longer.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    sessions: BTreeSet<SessionId>,
    /// Of the server that was asked.
    generation: u64,
    /// Ends with its drop.
    stream: Option<AbortOnDropHandle<()>>,
}

impl Watches {
    /// Asks the server to announce changes of a resource, unless it does so already.
    ///
    /// # Errors
    /// The server refused, or too many are watched.
    ///
    /// # Cancel safety
    /// The server may have been asked; what it announces then reaches nobody.
    pub(crate) async fn add(
        &self,
        live: &Arc<Live>,
        server: &str,
        session: &SessionId,
        uri: &str,
        limits: &Limits,
    ) -> Result<(), CallError> {
        {
            let mut watched = self.lock();
            let is_full = watched.len() >= MAX_WATCHED;
            match watched.get_mut(uri) {
                Some(known) if known.generation == live.generation => {
                    known.sessions.insert(session.clone());
                    return Ok(());
                }
                None if is_full => {
                    let reason = "too many are watched already";
                    return Err(CallError::Unwatchable { server: server.to_owned(), reason });
                }
                _ => {}
            }
        }
        let stream = begin(live, server, uri, limits).await?;
        let mut watched = self.lock();
        let known = watched.entry(uri.to_owned()).or_default();
        known.sessions.insert(session.clone());
        (known.generation, known.stream) = (live.generation, stream);
        drop(watched);
        self.changed.notify_one();
        Ok(())
    }

    /// A session watches a resource no more; true if it was the last that did.
    pub(crate) fn remove(&self, session: &SessionId, uri: &str) -> bool {
        let mut watched = self.lock();
        let Some(known) = watched.get_mut(uri) else { return false };
        let was_last = known.sessions.remove(session) && known.sessions.is_empty();
        if was_last {
            watched.remove(uri);
            self.changed.notify_one();
        }
        was_last
    }

    /// The session is gone; gives the resources that nobody watches any more.
    pub(crate) fn end_session(&self, session: &SessionId) -> Vec<String> {
        let uris: Vec<String> = self.lock().keys().cloned().collect();
        uris.into_iter().filter(|uri| self.remove(session, uri)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Who is told that `uri` changed: whoever watches it, or something that it is part of.
    pub(crate) fn watchers(&self, uri: &str) -> BTreeSet<SessionId> {
        let watched = self.lock();
        let concerned = watched.iter().filter(|(watched, _)| uri.starts_with(watched.as_str()));
        concerned.flat_map(|(_, known)| known.sessions.iter().cloned()).collect()
    }

    /// Asks a server that has just started for everything that is watched.
    pub(crate) fn renew(self: &Arc<Self>, live: &Arc<Live>, answers: &Answers, tracker: &TaskTracker) {
        let uris: Vec<String> = self.lock().keys().cloned().collect();
        for uri in uris {
            let (watches, live, answers) = (self.clone(), live.clone(), answers.clone());
            tracker.spawn(async move {
                let limits = Limits::internal(RENEWAL, usize::MAX);
                match begin(&live, &answers.server, &uri, &limits).await {
                    Ok(stream) => {
                        if let Some(known) = watches.lock().get_mut(&uri) {
                            (known.generation, known.stream) = (live.generation, stream);
                        }
                        answers.updated(&uri);
                    }
                    Err(error) => {
                        tracing::info!(upstream = %answers.server, %error, "a resource is not watched any more");
                    }
                }
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a server that was started anew may take to accept one subscription.
const RENEWAL: std::time::Duration = std::time::Duration::from_secs(30);

/// Asks one server; gives the stream where that is how it announces changes.
async fn begin(
    live: &Arc<Live>,
    server: &str,
    uri: &str,
    limits: &Limits,
) -> Result<Option<AbortOnDropHandle<()>>, CallError> {
    if live.era == Era::Initialize {
        live.send(server, Operation::Subscribe { uri: uri.to_owned() }, limits).await?;
        return Ok(None);
    }
    let method = "subscriptions/listen";
    let mut filter = SubscriptionFilter::default();
    filter.resource_subscriptions = Some(vec![uri.to_owned()]);
    let opened = timeout(limits.timeout, live.peer.listen(filter.clone())).await;
    let opened = opened.map_err(|_| CallError::Timeout {
        server: server.to_owned(),
        method: method.to_owned(),
        after: limits.timeout,
    })?;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(ServiceError::McpError(error)) => {
            return Err(CallError::JsonRpc {
                code: error.code.0,
                message: error.message.into_owned(),
                data: error.data,
            });
        }
        Err(_gone) => return Err(live.explain(server, method, Failure::Gone).await),
    };
    if stream
        .acknowledged()
        .resource_subscriptions
        .as_ref()
        .is_none_or(|uris| !uris.iter().any(|it| it == uri))
    {
        let reason = "it does not announce changes of this one";
        return Err(CallError::Unwatchable { server: server.to_owned(), reason });
    }
    let live = live.clone();
    let held = tokio::spawn(async move {
        while let Ok(Some(_)) = stream.next().await {}
        listen(&live, filter).await;
    });
    Ok(Some(AbortOnDropHandle::new(held)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(entries: &[(&str, &[&str])]) -> Watches {
        let watches = Watches::default();
        for (uri, sessions) in entries {
            let sessions = sessions.iter().map(|session| SessionId::new(*session)).collect();
            watches.lock().insert((*uri).to_owned(), Watched { sessions, ..Watched::default() });
        }
        watches
    }

    #[test]
    fn sessions_are_told_of_what_they_watch_and_of_its_parts() {
        let watches = watches(&[("f:/a", &["one", "two"]), ("f:/a/b", &["two"]), ("f:/c", &["three"])]);
        let told = |uri: &str| Vec::from_iter(watches.watchers(uri).iter().map(ToString::to_string));
        assert_eq!(told("f:/a"), ["one", "two"]);
        assert_eq!(told("f:/a/b/d"), ["one", "two"]);
        assert_eq!(told("f:/c"), ["three"]);
        assert!(told("f:/").is_empty());
    }

    #[test]
    fn the_last_one_out_is_known() {
        let watches = watches(&[("a", &["one", "two"]), ("b", &["two"])]);
        let (one, two) = (SessionId::new("one"), SessionId::new("two"));
        assert!(!watches.remove(&one, "a") && !watches.remove(&one, "a") && !watches.remove(&one, "none"));
        assert_eq!(watches.end_session(&one), Vec::<String>::new());
        assert_eq!(watches.end_session(&two), ["a", "b"]);
        assert!(watches.is_empty());
    }
}
