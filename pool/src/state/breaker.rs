//! When to stop booting workers of a profile that cannot boot. Pure; one per profile.
//!
//! Only boots count. A worker that ends while it runs code says nothing about whether the next one will start.
//!
//! Callers are held for the first, short time that a breaker is open, and refused only once its probe has failed too: what
//! killed some boots in a row may be over (a machine out of memory for a moment), and then no call needs to fail for it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::PoolConfig;
use crate::lease::LeaseError;
use crate::source::SpawnError;
use crate::status::BreakerStatus;

/// First pause after a failure while the breaker is closed; doubles with each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    circuit: Circuit,
    failures_in_a_row: u32,
    last_error: Option<Arc<SpawnError>>,
}

#[derive(Clone, Copy, Debug)]
enum Circuit {
    /// Boots are tried, after a failure not before `retry_at`.
    Closed { retry_at: Duration },
    /// No boots before `until`; after it one probe at a time.
    Open { until: Duration, failed_probes: u32 },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { retry_at: Duration::ZERO }
    }
}

impl Breaker {
    pub(super) fn may_boot(&self, now: Duration, booting: usize) -> bool {
        match self.circuit {
            Circuit::Closed { retry_at } => now >= retry_at,
            Circuit::Open { until, .. } => now >= until && booting == 0,
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.circuit = Circuit::default();
        self.failures_in_a_row = 0;
    }

    /// Counts a failed boot. True when this failure opened the breaker, or opened it again.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        error: Arc<SpawnError>,
        config: &PoolConfig,
        jitter: &mut Jitter,
    ) -> bool {
        self.failures_in_a_row += 1;
        self.last_error = Some(error);
        let failed_probes = match self.circuit {
            Circuit::Closed { .. } if self.failures_in_a_row < config.breaker_failures => {
                let pause = doubled(RETRY_PAUSE, self.failures_in_a_row - 1, config.breaker_backoff_max);
                self.circuit = Circuit::Closed { retry_at: now + jitter.shorten(pause) };
                return false;
            }
            Circuit::Closed { .. } => 0,
            // A boot from before the breaker opened: it is no probe.
            Circuit::Open { until, .. } if now < until => return false,
            Circuit::Open { failed_probes, .. } => failed_probes.saturating_add(1),
        };
        let pause = doubled(config.breaker_backoff_min, failed_probes, config.breaker_backoff_max);
        self.circuit = Circuit::Open { until: now + jitter.shorten(pause), failed_probes };
        true
    }

    /// The answer to a caller for whom nothing will boot soon; `None` while there is hope.
    pub(super) fn refusal(&self, now: Duration) -> Option<LeaseError> {
        match self.circuit {
            Circuit::Open { until, failed_probes: 1.. } if now < until => self.broken(now),
            _ => None,
        }
    }

    /// The answer to a caller whose time is over, if it waited because nothing boots.
    pub(super) fn broken(&self, now: Duration) -> Option<LeaseError> {
        match (self.circuit, &self.last_error) {
            (Circuit::Open { until, .. }, Some(error)) => {
                Some(LeaseError::Broken { source: Arc::clone(error), retry_in: until.saturating_sub(now) })
            }
            _ => None,
        }
    }

    /// When a boot may be tried again.
    pub(super) fn retry_at(&self) -> Duration {
        match self.circuit {
            Circuit::Closed { retry_at } => retry_at,
            Circuit::Open { until, .. } => until,
        }
    }

    pub(super) fn status(&self, now: Duration) -> BreakerStatus {
        match self.circuit {
            Circuit::Closed { .. } => BreakerStatus::Closed,
            Circuit::Open { until, .. } if now < until => {
                BreakerStatus::Open { retry_in_ms: super::report::millis(until - now) }
            }
            Circuit::Open { .. } => BreakerStatus::HalfOpen,
        }
    }

    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    pub(super) fn last_error(&self) -> Option<&SpawnError> {
        self.last_error.as_deref()
    }
}

/// `base` × 2^`times`, at most `most`.
pub(super) fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

/// Chance from a seed (splitmix64), so that the state machine stays a function of its inputs.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From half of `whole` up to all of it, so that things started together do not come due together.
    pub(super) fn shorten(&mut self, whole: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = u32::from((mixed >> 48) as u16);
        whole / 2 + whole / 2 / u32::from(u16::MAX) * share
    }
}
