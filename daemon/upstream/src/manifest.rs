//! What is known of a server: its description, tools, prompts and resources, whether it runs or not.
//!
//! Fetched when a server becomes ready and again when it says that its lists changed; kept on disk by the identity of the
//! configuration, so that it is known at once after a restart of the daemon. Lists are kept as the server wrote them. No
//! secret of the configuration is kept: what a server repeats of them is blanked.

mod fetch;
mod headers;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::SubscriptionFilter;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::config::ToolFilter;
use crate::connection::live::Live;
use crate::connection::open::Era;
use crate::connection::request::ListOf;
use crate::secret::Redactor;

pub(crate) use crate::manifest::fetch::fetch;
pub(crate) use crate::manifest::store::prune;

/// How long a burst of changes is waited out before the lists are fetched again.
const SETTLE: Duration = Duration::from_millis(100);

/// Least time between two fetches: a server that announces changes all the time is asked this often.
const LEAST_INTERVAL: Duration = Duration::from_secs(2);

/// First and longest pause before a stream of announcements that ended is opened again.
const LISTEN_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub era: Era,
    pub protocol_version: String,
    #[serde(default)]
    pub server_info: Value,
    #[serde(default)]
    pub instructions: Option<String>,
    #[serde(default)]
    pub capabilities: Value,
    #[serde(default)]
    pub tools: Vec<Value>,
    #[serde(default)]
    pub prompts: Vec<Value>,
    #[serde(default)]
    pub resources: Vec<Value>,
    #[serde(default)]
    pub resource_templates: Vec<Value>,
    /// What is missing in the lists, and why.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What is known of one identity, and how it is kept up to date.
#[derive(Debug)]
pub(crate) struct Manifests {
    known: watch::Sender<Option<Arc<Manifest>>>,
    outdated: Notify,
    file: PathBuf,
    redactor: Redactor,
    tracker: TaskTracker,
    /// Counts changes of all manifests.
    changes: watch::Sender<u64>,
    max_bytes: usize,
}

impl Manifest {
    /// The tools' names.
    pub fn tool_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tools.iter().filter_map(|tool| tool["name"].as_str())
    }

    pub(crate) fn list_mut(&mut self, of: ListOf) -> &mut Vec<Value> {
        match of {
            ListOf::Tools => &mut self.tools,
            ListOf::Prompts => &mut self.prompts,
            ListOf::Resources => &mut self.resources,
            ListOf::ResourceTemplates => &mut self.resource_templates,
        }
    }

    /// Without the tools that may not be called.
    pub(crate) fn filtered(self: &Arc<Self>, filter: &ToolFilter) -> Arc<Self> {
        if self.tool_names().all(|name| filter.denies(name).is_none()) {
            return self.clone();
        }
        let mut manifest = Self::clone(self);
        manifest.tools.retain(|tool| tool["name"].as_str().is_none_or(|name| filter.denies(name).is_none()));
        Arc::new(manifest)
    }
}

impl Manifests {
    /// Starts with what is on disk. A file that cannot be used counts as none.
    pub(crate) fn load(
        file: PathBuf,
        redactor: Redactor,
        tracker: TaskTracker,
        changes: watch::Sender<u64>,
        max_bytes: usize,
    ) -> Arc<Self> {
        let known = watch::Sender::new(store::load(&file).map(Arc::new));
        Arc::new(Self { known, outdated: Notify::new(), file, redactor, tracker, changes, max_bytes })
    }

    pub(crate) fn current(&self) -> Option<Arc<Manifest>> {
        self.known.borrow().clone()
    }

    /// The server said that a list changed.
    pub(crate) fn outdated(&self) {
        self.outdated.notify_one();
    }

    /// Keeps the lists of a server that became ready until it ends.
    pub(crate) fn attach(self: &Arc<Self>, live: &Arc<Live>, server: &Arc<str>) {
        let end = live.end.clone();
        let (manifests, live, server) = (self.clone(), live.clone(), server.clone());
        let follow = async move {
            let ended = ended(end);
            let listening = async {
                let announced = fetch::announced(&live.info.capabilities);
                if let (Era::Discover, Some(filter)) = (live.era, announced) {
                    listen(&live, filter).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                // Cancel-safe: its end is the end of all.
                () = ended => {}
                () = manifests.follow(&live, &server) => {}
                () = listening => {}
            }
        };
        self.tracker.spawn(follow);
    }

    async fn follow(&self, live: &Live, server: &str) {
        loop {
            let started_at = Instant::now();
            // Ended: whoever waits for its lists is told so by its end.
            let Some(manifest) = fetch(live, server, self.max_bytes).await else { return };
            self.publish(manifest, server).await;
            live.listed.send_replace(true);
            self.outdated.notified().await;
            sleep(SETTLE).await;
            sleep_until(started_at + LEAST_INTERVAL).await;
        }
    }

    async fn publish(&self, manifest: Manifest, server: &str) {
        let manifest = match self.redactor.blanked(&manifest) {
            Ok(manifest) => Arc::new(manifest),
            Err(error) => {
                tracing::warn!(upstream = server, %error, "its lists cannot be kept");
                return;
            }
        };
        if self.current().as_ref() == Some(&manifest) {
            return;
        }
        self.known.send_replace(Some(manifest.clone()));
        self.changes.send_modify(|changes| *changes += 1);
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || store::save(&file, &manifest)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(upstream = server, %error, "its lists cannot be written to disk");
        }
    }
}

impl Redactor {
    /// `manifest` without the secrets that its server repeats.
    fn blanked(&self, manifest: &Manifest) -> serde_json::Result<Manifest> {
        serde_json::from_str(&self.redact(&serde_json::to_string(manifest)?))
    }
}

async fn ended(mut end: watch::Receiver<Option<Arc<crate::connection::live::End>>>) {
    // An error is the end too: the keeper is gone.
    end.wait_for(Option::is_some).await.ok();
}

/// Servers of the newer era announce changes only to those who listen. The announcements themselves are taken from the
/// wire; here the stream is only held open.
pub(crate) async fn listen(live: &Live, filter: SubscriptionFilter) {
    let (first, longest) = LISTEN_PAUSES;
    let mut pause = first;
    loop {
        match live.peer.listen(filter.clone()).await {
            Ok(mut subscription) => {
                pause = first;
                while let Ok(Some(_)) = subscription.next().await {}
            }
            Err(rmcp::service::ServiceError::McpError(error)) => {
                tracing::debug!(%error, "an upstream does not announce changes");
                return;
            }
            Err(error) => tracing::debug!(%error, "listening to an upstream failed"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
