//! Builds that failed lately, and until when nobody tries again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::LayerError;

/// The first failure is remembered for this long, each further one in a row for twice as long as the one before.
const FIRST: Duration = Duration::from_secs(2);

/// Longer than this nobody is kept from trying.
const LONGEST: Duration = Duration::from_secs(60);

/// Requests remembered. With `all`, code makes up requests; the oldest are forgotten.
const MAX_REMEMBERED: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Failures {
    by_key: HashMap<String, Failure>,
}

#[derive(Debug)]
struct Failure {
    error: LayerError,
    until: Instant,
    wait: Duration,
}

impl Failures {
    /// The failure that answers a request made now.
    pub(super) fn recent(&self, key: &str, now: Instant) -> Option<LayerError> {
        self.by_key.get(key).filter(|failure| now < failure.until).map(|failure| failure.error.clone())
    }

    /// Takes note of how a build ended.
    pub(super) fn note<T>(&mut self, key: &str, answer: &Result<T, LayerError>, now: Instant) {
        match answer {
            Ok(_) => drop(self.by_key.remove(key)),
            // Nobody's fault, and nothing learned.
            Err(LayerError::Cancelled | LayerError::Gone) => {}
            Err(error) => {
                let wait = self.by_key.get(key).map_or(FIRST, |before| (before.wait * 2).min(LONGEST));
                self.make_room(key);
                self.by_key.insert(key.to_owned(), Failure { error: error.clone(), until: now + wait, wait });
            }
        }
    }

    fn make_room(&mut self, key: &str) {
        if self.by_key.len() < MAX_REMEMBERED || self.by_key.contains_key(key) {
            return;
        }
        let oldest = self.by_key.iter().min_by_key(|(_, failure)| failure.until).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_after_each_failure_and_not_after_a_success() {
        let mut failures = Failures::default();
        let mut now = Instant::now();
        let failed: Result<(), _> = Err(LayerError::DiskFull);
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            failures.note("a", &failed, now);
            assert!(failures.recent("a", now + Duration::from_secs(expected - 1)).is_some());
            now += Duration::from_secs(expected);
            assert!(failures.recent("a", now).is_none(), "{expected}");
        }
        failures.note("a", &Ok(()), now);
        failures.note("a", &failed, now);
        assert!(failures.recent("a", now + FIRST).is_none());
        failures.note::<()>("b", &Err(LayerError::Cancelled), now);
        assert!(failures.recent("b", now).is_none());
    }

    #[test]
    fn remembers_a_bounded_number() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for number in 0..=MAX_REMEMBERED {
            let at = now + Duration::from_millis(u64::try_from(number).unwrap());
            failures.note::<()>(&number.to_string(), &Err(LayerError::DiskFull), at);
        }
        assert_eq!(failures.by_key.len(), MAX_REMEMBERED);
        assert!(failures.recent("0", now).is_none() && failures.recent("1", now).is_some());
    }
}
