//! Results too large for an answer, kept for a while. Owns them, in memory: a restart of the daemon forgets them.
//!
//! In: bytes with their media type, and who may read them. Out: an id, and the bytes again. Bounded by a quota and by
//! age; the oldest go first. Ids cannot be guessed, and code of one profile cannot read what another's left even with one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes kept at most.
const QUOTA_BYTES: usize = 64 << 20;

/// Entries kept at most; what one costs besides its bytes is small, but not nothing.
const MAX_ENTRIES: usize = 1024;

/// How long a result can be read. Longer than a conversation waits before it looks at what it asked for.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

/// Begins the address of a stored result as an MCP resource.
pub(crate) const URI_PREFIX: &str = "conductor://result/";

/// The media type of JSON values.
pub(crate) const JSON: &str = "application/json";

#[derive(Debug)]
pub struct Store {
    entries: Mutex<VecDeque<Entry>>,
    quota: usize,
    lifetime: Duration,
}

/// Something kept.
#[derive(Clone, Debug)]
pub struct Stored {
    pub media_type: &'static str,
    pub text: Arc<str>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    /// The profile whose code made it.
    owner: String,
    stored: Stored,
    at: Instant,
}

impl Default for Store {
    fn default() -> Self {
        Self { entries: Mutex::default(), quota: QUOTA_BYTES, lifetime: LIFETIME }
    }
}

impl Store {
    /// Keeps a text for code of the same owner and for operators; `None` when it is larger than the whole store, or the
    /// system has no randomness.
    pub fn keep(&self, owner: &str, media_type: &'static str, text: String, now: Instant) -> Option<String> {
        if text.len() > self.quota {
            return None;
        }
        let id = crate::random::id().ok()?;
        let mut entries = self.lock();
        let mut bytes: usize = entries.iter().map(|entry| entry.stored.text.len()).sum();
        while let Some(oldest) = entries.front() {
            let expired = now.duration_since(oldest.at) >= self.lifetime;
            if !expired && bytes + text.len() <= self.quota && entries.len() < MAX_ENTRIES {
                break;
            }
            bytes -= oldest.stored.text.len();
            entries.pop_front();
        }
        let stored = Stored { media_type, text: text.into() };
        entries.push_back(Entry { id: id.clone(), owner: owner.to_owned(), stored, at: now });
        Some(id)
    }

    /// What was kept under an id. `owner` is the reader's profile, or `None` for an operator.
    pub fn get(&self, id: &str, owner: Option<&str>, now: Instant) -> Option<Stored> {
        let entries = self.lock();
        let entry = entries.iter().find(|entry| entry.id == id)?;
        let readable = owner.is_none_or(|owner| owner == entry.owner);
        (readable && now.duration_since(entry.at) < self.lifetime).then(|| entry.stored.clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Entries are pushed and popped whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(quota: usize) -> Store {
        Store { quota, ..Store::default() }
    }

    fn keep(store: &Store, text: &str, now: Instant) -> String {
        store.keep("a", "text/plain", text.into(), now).expect("fits")
    }

    #[test]
    fn gives_back_what_was_kept_to_its_owner_and_to_operators() {
        let (store, now) = (store(100), Instant::now());
        let id = keep(&store, "hello", now);
        assert_eq!(id.len(), 32);
        for owner in [Some("a"), None] {
            assert_eq!(&*store.get(&id, owner, now).expect("may read").text, "hello");
        }
        assert!(store.get(&id, Some("b"), now).is_none());
        assert!(store.get("0", None, now).is_none());
    }

    #[test]
    fn the_oldest_goes_when_the_quota_is_reached() {
        let (store, now) = (store(10), Instant::now());
        let ids = ["aaaa", "bbbb", "cccc"].map(|text| keep(&store, text, now));
        let there = ids.each_ref().map(|id| store.get(id, None, now).is_some());
        assert_eq!(there, [false, true, true]);
        assert!(store.keep("a", "text/plain", "x".repeat(11), now).is_none());
        assert!(store.get(&ids[2], None, now).is_some(), "what cannot be kept drives nothing out");
    }

    #[test]
    fn a_result_expires() {
        let (store, now) = (store(10), Instant::now());
        let id = keep(&store, "x", now);
        assert!(store.get(&id, None, now + LIFETIME - Duration::from_secs(1)).is_some());
        assert!(store.get(&id, None, now + LIFETIME).is_none());
        keep(&store, "y", now + LIFETIME);
        assert_eq!(store.lock().len(), 1);
    }

    #[test]
    fn many_small_ones_are_bounded_too() {
        let (store, now) = (store(1 << 20), Instant::now());
        for _ in 0..MAX_ENTRIES + 10 {
            keep(&store, "", now);
        }
        assert_eq!(store.lock().len(), MAX_ENTRIES);
    }
}
