//! Lists that change: tools, prompts and resources, and who is told.
//!
//! A client that has listed something is told once when it is something else, and again after it has listed anew. Clients of
//! the newer protocol are told through the streams that they opened (`subscriptions/listen`), all others at any time.
//! [`keep`] watches what the lists are made of, and starts exposed servers of which nothing is known. A stream also says
//! which resources its client watches; see [`super::watches`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conductor_upstream::ProfileId;
use rmcp::service::{SubscriptionContext, SubscriptionSink};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::tools::ToolServer;
use super::{Session, expose, lock, until_draining, watches};
use crate::supervisor::Shared;
use crate::upstreams::Servers;

/// How long lists wait, once in a session, for exposed servers that never ran: one that is installed is often faster, and
/// some clients ask only once. Less than anybody notices; a server that comes later is announced.
const FIRST_LISTS: Duration = Duration::from_millis(300);

/// How long a call waits for them that names what nobody has yet: its client may know it from another session.
const FIRST_CALLS: Duration = Duration::from_secs(3);

/// Every list there is, in the order of [`Lists::shown`].
const ALL: [List; 3] = [List::Tools, List::Prompts, List::Resources];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Tools,
    Prompts,
    /// Templates among them: they share one notification.
    Resources,
}

/// What the client knows of the lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// A hash of each list as the client has it; `None` if it never asked, or was told that it changed.
    shown: Mutex<[Option<u64>; ALL.len()]>,
    /// By a number of its own: clients that share a token may choose the same request ids.
    streams: Mutex<BTreeMap<u64, SubscriptionSink>>,
    next_stream: AtomicU64,
    /// The configuration for whose exposed servers no list waits any more.
    settled: watch::Sender<Option<ProfileId>>,
    /// The configuration whose exposed servers have all told their lists, or failed to.
    learnt: watch::Sender<Option<ProfileId>>,
}

impl Lists {
    /// The client gets this list now.
    pub(super) fn show(&self, list: List, content: &Value) {
        lock(&self.shown)[list as usize] = Some(hash(content));
    }

    /// Whether the client has another list than this; it will not be said again until it has asked for it.
    fn outdates(&self, list: List, content: impl FnOnce() -> Value) -> bool {
        let Some(before) = lock(&self.shown)[list as usize] else { return false };
        let is_outdated = before != hash(&content());
        let shown = &mut lock(&self.shown)[list as usize];
        // The client may have asked anew meanwhile.
        if is_outdated && *shown == Some(before) {
            *shown = None;
        }
        is_outdated
    }

    /// Waits a moment for servers of which nothing is known yet, before they are listed.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub(super) async fn settled(&self, servers: &Servers) {
        wait(&self.settled, servers, FIRST_LISTS).await;
    }

    /// The same, before a call is refused.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub(super) async fn learnt(&self, servers: &Servers) {
        wait(&self.learnt, servers, FIRST_CALLS).await;
    }

    /// Whoever listens for changes has the list as it is now, unless it got another one before. Gives the stream's number.
    fn listen(&self, sink: &SubscriptionSink, current: impl Fn(List) -> Value) -> u64 {
        let number = self.next_stream.fetch_add(1, Ordering::Relaxed);
        lock(&self.streams).insert(number, sink.clone());
        let accepted = sink.accepted();
        let wanted =
            [accepted.tools_list_changed, accepted.prompts_list_changed, accepted.resources_list_changed];
        for (list, _) in ALL.into_iter().zip(wanted).filter(|(_, wanted)| *wanted == Some(true)) {
            let content = hash(&current(list));
            lock(&self.shown)[list as usize].get_or_insert(content);
        }
        number
    }

    /// The streams that are open.
    pub(super) fn streams(&self) -> Vec<SubscriptionSink> {
        lock(&self.streams).values().cloned().collect()
    }

    async fn tell(&self, session: &Session, list: List) {
        for stream in self.streams() {
            // Not wanted on this stream, or the client is gone.
            let _told = match list {
                List::Tools => stream.notify_tool_list_changed().await,
                List::Prompts => stream.notify_prompt_list_changed().await,
                List::Resources => stream.notify_resource_list_changed().await,
            };
        }
        let Some(peer) = session.link.peer().filter(|peer| peer.peer_info().is_some()) else { return };
        // client gone: the session ends
        let _told = match list {
            List::Tools => peer.notify_tool_list_changed().await,
            List::Prompts => peer.notify_prompt_list_changed().await,
            List::Resources => peer.notify_resource_list_changed().await,
        };
    }
}

async fn wait(reached: &watch::Sender<Option<ProfileId>>, servers: &Servers, limit: Duration) {
    let Servers::Ready(registration) = servers else { return };
    let mut reached = reached.subscribe();
    let is_this = |reached: &Option<ProfileId>| reached.as_ref() == Some(&registration.id);
    // too late: the client is told when they are known
    let _in_time = tokio::time::timeout(limit, reached.wait_for(is_this)).await;
}

fn hash(content: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Serves a stream of announcements until the client cancels it, or the daemon goes down.
pub(super) async fn stream(
    server: &ToolServer,
    session: &Session,
    shared: &Shared,
    context: SubscriptionContext,
) {
    let number = session.lists.listen(context.sink(), |list| server.list(list));
    let watched = context.accepted().resource_subscriptions.clone().unwrap_or_default();
    let mut phase = shared.phase();
    let watching = async {
        watches::begin(server, session, &watched).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Not resumed after another has won, so cancel safety does not matter.
        () = watching => {}
        // Cancel-safe, all of them: they wait for flags.
        () = context.cancelled() => {}
        () = session.gone.cancelled() => {}
        () = until_draining(&mut phase) => {}
    }
    lock(&session.lists.streams).remove(&number);
    watches::end(session, shared, &watched);
}

/// Tells the client of changes for as long as the session lasts.
pub(super) async fn keep(session: Arc<Session>, shared: Arc<Shared>) {
    let server = ToolServer::new(session.clone(), shared.clone());
    let mut config = shared.config_changes();
    let mut manifests = shared.upstreams.upstreams().manifest_changes();
    let mut servers = session.servers.subscribe();
    loop {
        // Its name alone: a registration that is held is in use.
        let registered =
            servers.borrow_and_update().registration().map(|registration| registration.id.clone());
        let learning = async {
            if let Some(servers) = &registered {
                expose::learn_unknown(&session, &shared, servers).await;
            }
        };
        let (mut learning, mut renewing) =
            (std::pin::pin!(learning), std::pin::pin!(watches::renew(&server, &session)));
        let (mut is_learnt, mut is_settled, mut is_renewed) = (false, false, false);
        let settles_at = Instant::now() + FIRST_LISTS;
        loop {
            for list in ALL {
                if session.lists.outdates(list, || server.list(list)) {
                    session.lists.tell(&session, list).await;
                }
            }
            let changed = tokio::select! {
                // Cancel-safe: the future is kept across turns.
                () = &mut learning, if !is_learnt => {
                    (is_learnt, is_settled) = (true, true);
                    session.lists.settled.send_replace(registered.clone());
                    session.lists.learnt.send_replace(registered.clone());
                    continue;
                }
                // Cancel-safe: the future is kept across turns.
                () = &mut renewing, if !is_renewed => {
                    is_renewed = true;
                    continue;
                }
                // Cancel-safe: a point in time.
                () = sleep_until(settles_at), if !is_settled => {
                    is_settled = true;
                    session.lists.settled.send_replace(registered.clone());
                    continue;
                }
                // Cancel-safe: changes that are not seen stay unseen.
                changed = manifests.changed() => changed,
                changed = config.changed() => changed,
                changed = servers.changed() => match changed {
                    Ok(()) => break,
                    Err(gone) => Err(gone),
                },
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_is_told_once_of_a_list_that_it_has() {
        let lists = Lists::default();
        assert!(!lists.outdates(List::Tools, || json!([1])), "it never asked");
        lists.show(List::Tools, &json!([1]));
        assert!(!lists.outdates(List::Tools, || json!([1])));
        assert!(!lists.outdates(List::Prompts, || json!([1])));
        assert!(lists.outdates(List::Tools, || json!([2])));
        assert!(!lists.outdates(List::Tools, || json!([3])), "it was told already");
        lists.show(List::Tools, &json!([3]));
        assert!(lists.outdates(List::Tools, || json!([1])));
    }
}
