//! How many workers one session, and all sessions of one profile, may keep busy at one time.
//!
//! Owns a counter for each of them while it is in use. A call over the limit waits for an earlier one to end, in the order
//! in which they came, and is refused as busy when that takes too long. Says nothing about the workers themselves: those
//! are the pool's, which deals them out among all sessions in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::profile::Profile;

/// How long a call waits for its turn: as long as one waits for a worker by default, below the time limits that MCP
/// clients set for a call.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    counters: Mutex<HashMap<Counted, Arc<Semaphore>>>,
}

/// What is counted, with its limit: one that a reload has changed is another counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Session { id: u64, limit: usize },
    Profile { name: String, limit: usize },
}

/// Leave to use one worker; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _held: Vec<OwnedSemaphorePermit>,
}

/// Why a call got none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoShare {
    #[error(
        "this session keeps {limit} workers busy, as many as it may (`max-workers-per-session`); this call waited {waited:?} for one\n\
         hint: run fewer calls at once, or shorten them"
    )]
    Session { limit: usize, waited: Duration },
    #[error(
        "sessions of the profile `{name}` keep {limit} workers busy, as many as they may (`max-workers`); this call waited {waited:?} for one\n\
         hint: call again later; an administrator can raise `max-workers` in [profiles.{name}]"
    )]
    Profile { name: String, limit: usize, waited: Duration },
}

impl Shares {
    /// Waits for a turn of this session, then for one of its profile.
    ///
    /// # Errors
    /// The limit that stayed reached.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn take(&self, session: u64, profile: &Profile) -> Result<Share, NoShare> {
        let limits = [
            profile.max_workers_per_session.map(|limit| Counted::Session { id: session, limit }),
            profile.max_workers.map(|limit| Counted::Profile { name: profile.name.clone(), limit }),
        ];
        let mut held = Vec::new();
        for counted in limits.into_iter().flatten() {
            match timeout(MAX_WAIT, self.counter(&counted).acquire_owned()).await {
                Ok(permit) => held.push(permit.expect("no counter is ever closed")),
                Err(_) => return Err(counted.exhausted()),
            }
        }
        Ok(Share { _held: held })
    }

    fn counter(&self, counted: &Counted) -> Arc<Semaphore> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        // Who holds a share or waits for one holds its counter.
        counters.retain(|_, counter| Arc::strong_count(counter) > 1);
        counters.entry(counted.clone()).or_insert_with(|| Arc::new(Semaphore::new(counted.limit()))).clone()
    }
}

impl Counted {
    fn limit(&self) -> usize {
        match self {
            Self::Session { limit, .. } | Self::Profile { limit, .. } => *limit,
        }
    }

    fn exhausted(self) -> NoShare {
        match self {
            Self::Session { limit, .. } => NoShare::Session { limit, waited: MAX_WAIT },
            Self::Profile { name, limit } => NoShare::Profile { name, limit, waited: MAX_WAIT },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;
    use crate::dirs::Dirs;

    fn profile(keys: &str) -> Profile {
        let config: Config = toml::from_str(&format!("[profiles.default]\n{keys}")).expect("is right");
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/home/a".into())).expect("has a home");
        crate::profile::resolve(&config, &BTreeMap::new(), "/", &dirs).expect("is right")
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_waits_for_its_own_calls_only() {
        let (shares, profile) = (Shares::default(), profile("max-workers-per-session = 2"));
        let first = shares.take(1, &profile).await.expect("the first");
        let _second = shares.take(1, &profile).await.expect("the second");
        let _other = shares.take(2, &profile).await.expect("another session's");
        let refused = shares.take(1, &profile).await.expect_err("a third");
        assert_eq!(refused, NoShare::Session { limit: 2, waited: MAX_WAIT });
        let (third, ()) = tokio::join!(shares.take(1, &profile), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(first);
        });
        third.expect("the first one's place");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_of_a_profile_share_its_limit() {
        let (shares, profile) = (Shares::default(), profile("max-workers = 1"));
        let held = shares.take(1, &profile).await.expect("the first");
        let refused = shares.take(2, &profile).await.expect_err("another session").to_string();
        assert!(refused.contains("`max-workers`") && refused.contains("[profiles.default]"), "{refused}");
        drop(held);
        drop(shares.take(2, &profile).await.expect("its place"));
        assert_eq!(shares.counters.lock().expect("nobody panicked").len(), 1);
        // What nobody uses any more is forgotten with the next call.
        drop(shares.take(3, &profile_with_other_limit()).await.expect("a place"));
        assert_eq!(shares.counters.lock().expect("nobody panicked").len(), 1);
    }

    fn profile_with_other_limit() -> Profile {
        profile("max-workers = 2")
    }

    #[tokio::test]
    async fn without_limits_nothing_is_counted() {
        let shares = Shares::default();
        shares.take(1, &profile("")).await.expect("a place");
        assert!(shares.counters.lock().expect("nobody panicked").is_empty());
    }
}
