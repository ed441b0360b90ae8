//! Resources of exposed servers that the client watches, and how it is told that one changed.
//!
//! Clients of the older revisions name them one by one (`resources/subscribe`), those of the newer with each stream that they
//! open. Owns what is watched; `conductor_upstream` watches the servers, for as long as the client watches here, and again
//! when the configuration of servers changes. Changes that come faster than the client is told are one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use conductor_upstream::{CallContext, CallError, SessionId};
use rmcp::model::ResourceUpdatedNotificationParam;
use tokio::sync::Notify;

use super::tools::ToolServer;
use super::{Session, lock};
use crate::supervisor::Shared;

/// Different resources whose changes wait to be told. A server that announces more at once is not believed.
const WAITING: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Watches {
    watched: Mutex<BTreeMap<String, Watched>>,
    changed: Mutex<BTreeSet<String>>,
    news: Notify,
}

/// Who watches a resource.
#[derive(Debug, Default)]
struct Watched {
    /// The client subscribed, and did not take it back.
    subscribed: bool,
    n_streams: usize,
}

impl Watches {
    /// A resource, which may be a part of one that is watched, changed.
    pub(super) fn changed(&self, uri: &str) {
        let mut changed = lock(&self.changed);
        if changed.len() < WAITING {
            changed.insert(uri.to_owned());
        }
        drop(changed);
        self.news.notify_one();
    }

    fn enter(&self, uri: &str, by: impl FnOnce(&mut Watched)) {
        by(lock(&self.watched).entry(uri.to_owned()).or_default());
    }

    /// True if nobody is left that watches it.
    fn leave(&self, uri: &str, by: impl FnOnce(&mut Watched)) -> bool {
        let mut watched = lock(&self.watched);
        let Some(known) = watched.get_mut(uri) else { return false };
        by(known);
        let is_over = !known.subscribed && known.n_streams == 0;
        if is_over {
            watched.remove(uri);
        }
        is_over
    }

    /// Whether the client subscribed to the resource, or to something that it is part of.
    fn is_subscribed(&self, uri: &str) -> bool {
        let watched = lock(&self.watched);
        watched.iter().any(|(watched, known)| known.subscribed && uri.starts_with(watched.as_str()))
    }
}

/// The client subscribes to a resource.
///
/// # Errors
/// No server has it, or the server refuses.
///
/// # Cancel safety
/// Cancelled, it is not subscribed to.
pub(super) async fn subscribe(server: &ToolServer, session: &Session, uri: &str) -> Result<(), CallError> {
    watch(server, session, uri).await?;
    session.watches.enter(uri, |watched| watched.subscribed = true);
    Ok(())
}

/// The client takes a subscription back.
pub(super) fn unsubscribe(session: &Session, shared: &Shared, uri: &str) {
    if session.watches.leave(uri, |watched| watched.subscribed = false) {
        shared.upstreams.upstreams().unwatch(&id(session), uri);
    }
}

/// A stream of the client begins that names these resources.
pub(super) async fn begin(server: &ToolServer, session: &Session, uris: &[String]) {
    for uri in uris {
        session.watches.enter(uri, |watched| watched.n_streams += 1);
    }
    for uri in uris {
        if let Err(error) = watch(server, session, uri).await {
            tracing::info!(session = session.id, uri, %error, "a resource is not watched");
        }
    }
}

/// The stream ends.
pub(super) fn end(session: &Session, shared: &Shared, uris: &[String]) {
    for uri in uris {
        if session.watches.leave(uri, |watched| watched.n_streams = watched.n_streams.saturating_sub(1)) {
            shared.upstreams.upstreams().unwatch(&id(session), uri);
        }
    }
}

/// Watches everything again: the configuration of servers may be another.
pub(super) async fn renew(server: &ToolServer, session: &Session) {
    let uris: Vec<String> = lock(&session.watches.watched).keys().cloned().collect();
    for uri in uris {
        if let Err(error) = watch(server, session, &uri).await {
            tracing::info!(session = session.id, uri, %error, "a resource is not watched any more");
        }
    }
}

async fn watch(server: &ToolServer, session: &Session, uri: &str) -> Result<(), CallError> {
    let mut context = CallContext::new(id(session));
    context.cancel = session.gone.child_token();
    match server.resource(uri).await {
        Some(target) => server.upstreams().watch(&target.server, &context, uri).await,
        None => Err(CallError::UnknownResource { uri: uri.to_owned() }),
    }
}

fn id(session: &Session) -> SessionId {
    SessionId::new(session.id.to_string())
}

/// Tells the client of changes for as long as the session lasts.
pub(super) async fn tell(session: Arc<Session>) {
    loop {
        session.watches.news.notified().await;
        let changed = std::mem::take(&mut *lock(&session.watches.changed));
        for uri in changed {
            if session.watches.is_subscribed(&uri)
                && let Some(peer) = session.link.peer()
            {
                // client gone: the session ends
                let _gone = peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(&*uri)).await;
            }
            for stream in session.lists.streams() {
                let accepted = stream.accepted().resource_subscriptions.clone().unwrap_or_default();
                // A stream tells of what it named: the whole, where a part changed.
                if let Some(named) = accepted.iter().find(|named| uri.starts_with(named.as_str())) {
                    // client gone: the session ends
                    let _gone = stream.notify_resource_updated(named).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_watched_until_the_last_that_does_leaves() {
        let watches = Watches::default();
        let stream = |watched: &mut Watched| watched.n_streams += 1;
        watches.enter("a:/b", stream);
        watches.enter("a:/b", |watched| watched.subscribed = true);
        watches.enter("a:/b", |watched| watched.subscribed = true);
        assert!(watches.is_subscribed("a:/b/part") && !watches.is_subscribed("a:/"));
        assert!(!watches.leave("a:/b", |watched| watched.subscribed = false), "a stream is left");
        assert!(!watches.is_subscribed("a:/b"));
        assert!(watches.leave("a:/b", |watched| watched.n_streams -= 1));
        assert!(!watches.leave("a:/b", |watched| watched.subscribed = false), "it was gone");
    }

    #[test]
    fn changes_that_wait_are_one_for_each_resource_and_bounded() {
        let watches = Watches::default();
        (0..3).for_each(|_| watches.changed("same"));
        (0..2 * WAITING).for_each(|n| watches.changed(&n.to_string()));
        let waiting = lock(&watches.changed);
        assert_eq!(waiting.len(), WAITING);
        assert!(waiting.contains("same"));
    }
}
