//! The pool's status, made from its state.

use std::cmp::Reverse;
use std::time::Duration;

use super::profile::{Profile, Stage};
use super::{Phase, PoolState, ProfileId};
use crate::error_chain;
use crate::spec::WorkerSpec;
use crate::status::{PoolStatus, ProfileStatus, Totals};

impl PoolState {
    pub fn status(&self, now: Duration) -> PoolStatus {
        let profiles: Vec<_> =
            self.profiles.iter().map(|(id, profile)| self.profile_status(now, *id, profile)).collect();
        let mut totals = self.past.clone();
        for profile in &profiles {
            totals.add(&profile.totals);
        }
        PoolStatus {
            draining: self.phase != Phase::Running,
            max_workers: self.config.max_workers,
            max_idle: self.config.max_idle,
            queue_capacity: self.config.queue_capacity,
            workers: self.owners.len(),
            idle: profiles.iter().map(|profile| profile.idle).sum(),
            queued: self.queue.len(),
            totals,
            profiles,
        }
    }

    /// The specs of the profiles in [`status`](Self::status), in the same order.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &WorkerSpec> {
        self.profiles.values().map(|profile| &*profile.spec)
    }

    fn profile_status(&self, now: Duration, id: ProfileId, profile: &Profile) -> ProfileStatus {
        let mut boot_times: Vec<_> = profile.boot_times.iter().copied().collect();
        boot_times.sort();
        let idle_since = |stage: &Stage| match *stage {
            Stage::Idle { since, .. } => Some(millis(now - since)),
            _ => None,
        };
        let mut idle_ages: Vec<_> =
            profile.workers.values().filter_map(|slot| idle_since(&slot.stage)).collect();
        idle_ages.sort_by_key(|age| Reverse(*age));
        ProfileStatus {
            id: profile.name.clone(),
            source: profile.kind.name().to_owned(),
            fallback: None,
            templates: None,
            left_out: Default::default(),
            registrations: profile.registrations,
            booting: profile.booting(),
            idle: profile.idle(),
            busy: profile.count(|stage| matches!(stage, Stage::Leased | Stage::Reaping)),
            ending: profile.count(|stage| matches!(stage, Stage::Ending(_))),
            queued: self.queue.waiting_for(id),
            idle_ages_ms: idle_ages,
            breaker: profile.breaker.status(now),
            boot_failures_in_a_row: profile.breaker.failures_in_a_row(),
            last_boot_error: profile.breaker.last_error().map(|error| error_chain(error)),
            boot_last_us: profile.boot_times.front().map(micros),
            boot_p50_us: boot_times.get(boot_times.len() / 2).map(micros),
            totals: profile.totals.clone(),
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.booted += other.booted;
        self.forked += other.forked;
        self.boot_failures += other.boot_failures;
        self.leased += other.leased;
        self.refused_busy += other.refused_busy;
        self.refused_broken += other.refused_broken;
        for (reason, count) in &other.retired {
            *self.retired.entry(*reason).or_default() += count;
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: &Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
