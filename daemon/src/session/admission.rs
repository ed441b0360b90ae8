//! How many calls one session may make. Pure but for the clock it is given.
//!
//! Two limits from the profile: calls at one time, running or waiting for a worker, and calls in a minute. Both refuse at
//! once with `busy`, so that one session cannot fill the queue that all share, nor make the others wait.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// A session's account of its calls: a bucket that holds a minute's worth of calls and refills evenly.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: usize,
    /// Calls that may start now; meaningless without a rate limit.
    tokens: f64,
    refilled_at: Instant,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "this session has {in_flight} calls in flight, as many as it may (`max-calls-in-flight`)\nhint: wait for one of them to end"
    )]
    InFlight { in_flight: usize },
    #[error("this session may make {limit} calls in a minute (`max-calls-per-minute`)\nhint: call again in {} s", .retry_in.as_secs() + 1)]
    Rate { limit: u32, retry_in: Duration },
}

impl Admission {
    pub(crate) fn new(now: Instant) -> Self {
        Self { in_flight: 0, tokens: f64::MAX, refilled_at: now }
    }

    /// Lets one call in, or says why not. Each call that is let in must be counted out with [`Admission::leave`].
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        max_in_flight: usize,
        per_minute: Option<u32>,
    ) -> Result<(), Refused> {
        if self.in_flight >= max_in_flight {
            return Err(Refused::InFlight { in_flight: self.in_flight });
        }
        if let Some(limit) = per_minute {
            let capacity = f64::from(limit);
            let refill = now.duration_since(self.refilled_at).as_secs_f64() / MINUTE.as_secs_f64() * capacity;
            self.tokens = (self.tokens + refill).min(capacity);
            self.refilled_at = now;
            if self.tokens < 1.0 {
                let retry_in = MINUTE.mul_f64((1.0 - self.tokens) / capacity);
                return Err(Refused::Rate { limit, retry_in });
            }
            self.tokens -= 1.0;
        }
        self.in_flight += 1;
        Ok(())
    }

    pub(crate) fn leave(&mut self) {
        self.in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_calls_in_flight() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        assert_eq!(admission.enter(now, 2, None), Ok(()));
        assert_eq!(admission.enter(now, 2, None), Ok(()));
        assert_eq!(admission.enter(now, 2, None), Err(Refused::InFlight { in_flight: 2 }));
        admission.leave();
        assert_eq!(admission.enter(now, 2, None), Ok(()));
    }

    #[test]
    fn bounds_calls_in_a_minute_and_refills_evenly() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        let enter = |admission: &mut Admission, seconds: f64| {
            admission.enter(start + Duration::from_secs_f64(seconds), 1000, Some(60))
        };
        for _ in 0..60 {
            assert_eq!(enter(&mut admission, 0.0), Ok(()));
        }
        let refused = enter(&mut admission, 0.5).expect_err("the minute is used up");
        assert_eq!(refused, Refused::Rate { limit: 60, retry_in: Duration::from_millis(500) });
        assert_eq!(enter(&mut admission, 1.1), Ok(()));
        assert!(enter(&mut admission, 1.2).is_err());
        let let_in = (0..100).filter(|_| enter(&mut admission, 3600.0).is_ok()).count();
        assert_eq!(let_in, 60, "an hour of silence buys no more than one minute's worth");
    }
}
