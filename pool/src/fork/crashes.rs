//! When forking is the likely cause of crashes: a breaker over deaths that a spawned worker would hardly die. Pure.
//!
//! Code may kill itself with such a signal. Then its profile is spawned for a while, which is slower and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::job::Verdict;

/// This many crashes, all of them within [`WITHIN`] and [`AMONG`], are a pattern.
const PATTERN: usize = 5;
const WITHIN: Duration = Duration::from_secs(10 * 60);
/// Workers of the spec.
const AMONG: u32 = 50;

/// What memory that is not what a process takes it for ends in: ILL, TRAP, BUS, FPE, SEGV, SYS.
const SIGNALS: [i32; 6] = [4, 5, 7, 8, 11, 31];

/// Of one spec, whichever of its templates they came from.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    /// When, and the how many-th worker was the latest; at most [`PATTERN`].
    latest: VecDeque<(Instant, u32)>,
}

impl Crashes {
    /// Counts one, when there have been so many workers; true if they are a pattern, and are then forgotten.
    pub(super) fn note(&mut self, now: Instant, workers: u32) -> bool {
        let counts = |at: Instant, worker| now.duration_since(at) < WITHIN && workers - worker < AMONG;
        self.latest.retain(|(at, worker)| counts(*at, *worker));
        self.latest.push_back((now, workers));
        let is_pattern = self.latest.len() >= PATTERN;
        if is_pattern {
            self.latest.clear();
        }
        is_pattern
    }
}

/// The signal, if the run ended by a crash. Want of memory is none, though V8 ends in the same way for it.
pub(super) fn crash(verdict: &Verdict) -> Option<i32> {
    match verdict {
        Verdict::Exited { signal: Some(signal), out_of_memory: false, .. } if SIGNALS.contains(signal) => {
            Some(*signal)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_ten_minutes_and_fifty_workers_are_a_pattern() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let noted = |crashes_at: &[(u32, u32)]| {
            let mut crashes = Crashes::default();
            let mut note = |(at, workers): &(u32, u32)| crashes.note(start + *at * minute, *workers);
            crashes_at.iter().map(&mut note).collect::<Vec<_>>()
        };
        let many = [false, false, false, false, true];
        assert_eq!(noted(&[(0, 1), (1, 2), (2, 3), (3, 49), (4, 50)]), many);
        assert_eq!(noted(&[(0, 1), (1, 2), (2, 3), (3, 4), (10, 5), (11, 6)]), [false; 6], "long ago");
        assert_eq!(noted(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 51), (5, 52)]), [false; 6], "few of many");
        assert_eq!(noted(&[(0, 1); 5]), many);
        assert!(!noted(&[(0, 1); 6])[5], "counted anew");
    }

    #[test]
    fn what_code_and_limits_do_is_no_crash() {
        let exited = |signal, out_of_memory| Verdict::Exited { code: None, signal, out_of_memory };
        assert_eq!(crash(&exited(Some(11), false)), Some(11));
        for verdict in [
            exited(Some(5), true),
            exited(Some(9), false),
            exited(Some(15), false),
            exited(None, false),
            Verdict::Timeout,
        ] {
            assert_eq!(crash(&verdict), None, "{verdict:?}");
        }
    }
}
