//! What must hold after each event, by this account of the world.

use super::{Moment, SPECS, Stage, Worker, World, number_of, spec};
use crate::lease::LeaseError;
use crate::state::{RetireReason, WaiterId, WorkerId};
use crate::status::{BreakerStatus, ProfileStatus};

impl World {
    pub(super) fn check_boot(&mut self, worker: WorkerId, spec: usize, what: &Moment) {
        assert!(self.draining.is_none(), "boot while draining: {what}");
        assert!(self.workers.len() < self.config.max_workers, "more than max_workers: {what}");
        assert!(self.count(|w| w.stage == Stage::Booting) < self.config.parallel_boots, "{what}");
        let entry = Worker {
            spec,
            stage: Stage::Booting,
            outdated: false,
            ready_at: self.now,
            kind: None,
            wanted: None,
            away: None,
        };
        assert!(self.workers.insert(worker, entry).is_none(), "a worker id is used again: {what}");
    }

    pub(super) fn check_grant(&mut self, waiter: WaiterId, worker: WorkerId, what: &Moment) {
        let caller = self.callers.remove(&waiter).unwrap_or_else(|| panic!("granted to nobody: {what}"));
        let entry = self.workers.get_mut(&worker).unwrap();
        assert_eq!((entry.stage, entry.spec), (Stage::Idle, caller.spec), "{what}");
        assert!(!entry.outdated && self.draining.is_none(), "{what}");
        entry.stage = Stage::Leased;

        let rivals: Vec<_> = self.callers.iter().filter(|(_, other)| other.spec == caller.spec).collect();
        for (id, rival) in rivals {
            if rival.session == caller.session {
                assert!(*id > waiter, "{id:?} was before {waiter:?} in its session: {what}");
                continue;
            }
            let overtaken = self.overtaken.entry((rival.session, caller.spec)).or_default();
            // Once per session, not once per caller of it: only its first caller counts.
            let first = self.callers.iter().find(|(_, c)| (c.session, c.spec) == (rival.session, rival.spec));
            if first.is_some_and(|(first, _)| first == id) {
                let times = overtaken.entry(caller.session).or_default();
                *times += 1;
                assert!(*times <= 1, "session {} overtook {} twice: {what}", caller.session, rival.session);
            }
        }
        self.overtaken.retain(|(session, _), _| *session != caller.session);
    }

    pub(super) fn check_refusal(&mut self, waiter: WaiterId, error: &LeaseError, what: &Moment) {
        let caller = self.callers.remove(&waiter).unwrap_or_else(|| panic!("refused twice: {what}"));
        match error {
            LeaseError::Busy { queued, waited } => {
                let full = waited.is_zero() && *queued >= self.config.queue_capacity;
                assert!(full || self.now >= caller.until, "refused too early: {what}");
            }
            LeaseError::Broken { .. } => {
                let openings = self.uses[caller.spec].openings;
                let overdue = openings > 0 && self.now >= caller.until;
                assert!(overdue || openings > 1, "broken after {openings} openings: {what}");
            }
            LeaseError::Draining => assert!(self.draining.is_some(), "{what}"),
            LeaseError::Gone => panic!("{what}"),
        }
    }

    pub(super) fn check_retirement(
        &mut self,
        worker: WorkerId,
        reason: RetireReason,
        back: Option<WorkerId>,
        what: &Moment,
    ) {
        let entry = self.workers[&worker];
        let spec = entry.spec;
        let (now, config) = (self.now, &self.config);
        let idle_of = |spec: usize| self.count(|w| w.spec == spec && w.stage == Stage::Idle);
        let total_idle = self.count(|w| w.stage == Stage::Idle);
        let least_used = |among: &dyn Fn(usize) -> bool| {
            let others = (0..SPECS).filter(|other| idle_of(*other) > 0 && among(*other));
            others.map(|other| self.uses[other].used_at).min()
        };
        if entry.stage == Stage::Dying {
            assert_eq!(back, Some(worker), "retired twice: {what}");
            return;
        }
        let expected = match reason {
            RetireReason::Deadline => entry.stage != Stage::Idle && self.draining.is_some_and(|at| now >= at),
            RetireReason::LeaseDropped => entry.stage == Stage::Leased && back == Some(worker),
            _ if entry.stage != Stage::Idle => false,
            RetireReason::Drained => self.draining.is_some(),
            RetireReason::Died => true,
            RetireReason::Reconfigured | RetireReason::DenoReplaced => entry.outdated,
            RetireReason::Superseded => entry.wanted.is_some() && entry.kind != entry.wanted,
            RetireReason::Surplus => idle_of(spec) > config.idle_per_profile,
            RetireReason::Age => now >= entry.ready_at + config.max_idle_age / 2,
            RetireReason::Unused => self.is_unused(spec),
            RetireReason::Budget if total_idle > config.max_idle => {
                least_used(&|_| true) == Some(self.uses[spec].used_at)
            }
            RetireReason::Budget => {
                let allowances = self.allowances();
                let beyond = |spec: usize| idle_of(spec) > allowances[spec];
                let used_at = self.uses[spec].used_at;
                self.workers.len() >= config.max_workers && least_used(&beyond) == Some(used_at)
            }
            RetireReason::Room => {
                let wanted = |other: usize| self.callers.values().any(|caller| caller.spec == other);
                self.workers.len() >= config.max_workers
                    && (0..SPECS).any(|other| other != spec && wanted(other))
                    && least_used(&|_| true) == Some(self.uses[spec].used_at)
            }
        };
        assert!(expected, "{entry:?} was retired for {reason:?}: {what}");
        let entry = self.workers.get_mut(&worker).unwrap();
        entry.away =
            (entry.stage != Stage::Idle && reason != RetireReason::LeaseDropped).then_some(entry.stage);
        entry.stage = Stage::Dying;
    }

    pub(super) fn check_state(&mut self, what: &Moment) {
        let callers = &self.callers;
        self.overtaken.retain(|(session, spec), _| {
            callers.values().any(|caller| (caller.session, caller.spec) == (*session, *spec))
        });
        let status = self.state.status(self.now);
        assert_eq!((status.workers, status.queued), (self.workers.len(), self.callers.len()), "{what}");
        assert!(status.idle <= self.config.max_idle, "idle budget: {what}");
        assert!(self.callers.values().all(|caller| caller.until > self.now), "not refused in time: {what}");
        assert!(self.callers.is_empty() || self.state.wake_at(self.now).is_some(), "no tick to come: {what}");
        for spec_number in 0..SPECS {
            let of = |stage| self.count(|w| w.spec == spec_number && w.stage == stage);
            let queued = self.callers.values().filter(|caller| caller.spec == spec_number).count();
            let idle = of(Stage::Idle);
            assert!(idle <= self.config.idle_per_profile, "{idle} idle: {what}");
            assert!(idle == 0 || queued == 0, "{queued} wait, {idle} idle: {what}");
            if let Some(profile) = status.profiles.iter().find(|p| p.id == self.names[spec_number]) {
                let counted = (profile.booting, profile.idle, profile.queued, profile.busy + profile.ending);
                let dying = of(Stage::Leased) + of(Stage::Dying);
                assert_eq!(counted, (of(Stage::Booting), idle, queued, dying), "{what}");
                self.check_breaker(spec_number, profile, what);
                self.check_no_idling(spec_number, queued, what);
            } else {
                assert_eq!(of(Stage::Leased) + of(Stage::Booting) + idle + queued, 0, "forgotten: {what}");
                self.uses[spec_number].boots_again();
            }
        }
    }

    fn check_breaker(&self, spec: usize, profile: &ProfileStatus, what: &Moment) {
        let failures = self.uses[spec].failures_in_a_row;
        assert_eq!(profile.boot_failures_in_a_row, failures, "{what}");
        let closed = profile.breaker == BreakerStatus::Closed;
        assert_eq!(closed, failures < self.config.breaker_failures, "{:?}: {what}", profile.breaker);
        let probe_failed = self.uses[spec].openings > 1;
        let is_open = matches!(profile.breaker, BreakerStatus::Open { .. });
        assert!(!(profile.queued > 0 && is_open && probe_failed), "waits in vain: {what}");
    }

    /// A caller whose profile boots well waits only for boot slots or for room that cannot be made.
    fn check_no_idling(&self, spec: usize, queued: usize, what: &Moment) {
        let on_their_way = self.count(|w| w.spec == spec && w.stage == Stage::Booting && !w.outdated);
        if queued <= on_their_way || self.uses[spec].failures_in_a_row > 0 {
            return;
        }
        let slots_taken = self.count(|w| w.stage == Stage::Booting) >= self.config.parallel_boots;
        let full = self.workers.len() >= self.config.max_workers;
        let room_to_come = self.count(|w| w.stage == Stage::Dying) > 0;
        let no_room_to_make = self.count(|w| w.stage == Stage::Idle) == 0;
        assert!(slots_taken || full && (room_to_come || no_room_to_make), "nothing boots: {what}");
    }

    pub(super) fn is_full(&self) -> bool {
        let allowances = self.allowances();
        let idle_of = |spec: usize| self.count(|w| w.spec == spec && w.stage == Stage::Idle);
        let short = (0..SPECS).filter(|spec| idle_of(*spec) < allowances[*spec]).count();
        short == 0
            || self.workers.len() == self.config.max_workers
                && allowances.iter().sum::<usize>() > self.workers.len()
    }

    fn allowances(&self) -> [usize; SPECS] {
        let mut specs: Vec<usize> = (0..SPECS).filter(|spec| !self.is_unused(*spec)).collect();
        // Profiles used at the same moment rank by age.
        let rank = |number: usize| (self.uses[number].used_at, self.state.ids.get(&spec(number)).copied());
        specs.sort_by_key(|number| std::cmp::Reverse(rank(*number)));
        let mut left = self.config.max_idle;
        let mut allowances = [0; SPECS];
        for spec in specs {
            allowances[spec] = self.config.idle_per_profile.min(left);
            left -= allowances[spec];
        }
        allowances
    }

    fn is_unused(&self, spec_number: usize) -> bool {
        let known = self.state.ids.contains_key(&spec(spec_number));
        let u = &self.uses[spec_number];
        let busy = self.count(|w| w.spec == spec_number && w.stage == Stage::Leased) > 0;
        let lapsed = self.now >= u.used_at.max(u.released_at) + self.config.unused_after;
        !known || u.registrations == 0 && !busy && lapsed
    }

    pub(super) fn open_breakers(&self) -> Vec<usize> {
        let profiles = self.state.profiles.values();
        let open = profiles.filter(|p| matches!(p.breaker.status(self.now), BreakerStatus::Open { .. }));
        open.map(|profile| number_of(&profile.spec)).collect()
    }
}
