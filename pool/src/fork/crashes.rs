//! When forking is the likely cause of crashes: a breaker over deaths that a spawned worker would hardly die. Pure.
//!
//! Code may kill itself with such a signal. Then its profile is spawned for a while, which is slower and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::job::Verdict;

/// This many crashes within [`WITHIN`] are a pattern.
const PATTERN: usize = 5;
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// What memory that is not what a process takes it for ends in: ILL, TRAP, BUS, FPE, SEGV, SYS.
const SIGNALS: [i32; 6] = [4, 5, 7, 8, 11, 31];

/// Of one spec, whichever of its templates they came from.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    /// At most [`PATTERN`].
    at: VecDeque<Instant>,
}

impl Crashes {
    /// Counts one; true if they are a pattern, and are then forgotten.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        self.at.retain(|at| now.duration_since(*at) < WITHIN);
        self.at.push_back(now);
        let is_pattern = self.at.len() >= PATTERN;
        if is_pattern {
            self.at.clear();
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
    fn five_in_ten_minutes_are_a_pattern() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let noted = |minutes: &[u32]| {
            let mut crashes = Crashes::default();
            minutes.iter().map(|at| crashes.note(start + *at * minute)).collect::<Vec<_>>()
        };
        assert_eq!(noted(&[0, 1, 2, 3, 4]), [false, false, false, false, true]);
        assert_eq!(noted(&[0, 1, 2, 3, 10, 11]), [false; 6], "the first are too long ago");
        assert_eq!(noted(&[0, 0, 0, 0, 0, 0]), [false, false, false, false, true, false]);
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
