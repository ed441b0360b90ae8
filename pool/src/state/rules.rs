//! What the pool does whenever something has changed: grant, refuse, retire, boot, forget, in this order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::profile::{Profile, Slot, Stage};
use super::{Effect, Phase, PoolState, ProfileId, RetireReason, WorkerId};
use crate::lease::LeaseError;

/// What booting for callers left over for refills.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Callers {
    /// Each has a boot on its way, or must wait for its breaker.
    Served,
    /// One at least waits for a boot slot or for room.
    Waiting,
}

impl PoolState {
    pub(super) fn settle(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.grant_idle(now, out);
        self.refuse_overdue(now, out);
        match self.phase {
            Phase::Draining { deadline } => self.wind_down(now, deadline, out),
            Phase::Running => {
                self.trim_idle(now, out);
                if self.boot_for_callers(now, out) == Callers::Served {
                    self.refill(now, out);
                }
            }
        }
        self.forget_unused(now);
    }

    /// When [`PoolState::on_event`] wants a `Tick`, if nothing happens before. What is due by `now` waits for an event.
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        let of_profile = |profile: &Profile| {
            let aged = profile.oldest_idle().map(|(aged_at, _)| aged_at);
            let single = [profile.breaker.retry_at(), profile.refill_from];
            let vacated = profile.vacated.values().copied();
            let times = vacated.chain(single).chain(aged).chain(profile.unused_at(&self.config));
            times.filter(|at| *at > now).min()
        };
        let deadline = match self.phase {
            Phase::Running => None,
            Phase::Draining { deadline } => Some(deadline),
        };
        let profiles = self.profiles.values().filter_map(of_profile);
        profiles.chain(self.queue.first_deadline()).chain(deadline).filter(|at| *at > now).min()
    }

    fn grant_idle(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.queue.len() == 0 {
            return;
        }
        for (id, profile) in &mut self.profiles {
            while let Some((_, worker)) = profile.oldest_idle() {
                let Some(waiter) = self.queue.take(*id) else { break };
                profile.lease(now, worker, &self.config);
                out.push(Effect::Grant { waiter: waiter.id, worker });
            }
        }
    }

    fn refuse_overdue(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.queue.first_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        for waiter in self.queue.remove_where(|waiter| waiter.until <= now) {
            let profile = self.profiles.get_mut(&waiter.profile).expect("a waiter's profile is known");
            let error = match profile.breaker.broken(now) {
                Some(broken) => {
                    profile.totals.refused_broken += 1;
                    broken
                }
                None => {
                    profile.totals.refused_busy += 1;
                    LeaseError::Busy { queued: self.queue.len(), waited: now - waiter.since }
                }
            };
            out.push(Effect::Refuse { waiter: waiter.id, error });
        }
    }

    fn wind_down(&mut self, now: Duration, deadline: Duration, out: &mut Vec<Effect>) {
        self.retire_where(RetireReason::Drained, out, |stage| matches!(stage, Stage::Idle { .. }));
        if now >= deadline {
            let alive = |stage: &Stage| matches!(stage, Stage::Booting { .. } | Stage::Leased);
            self.retire_where(RetireReason::Deadline, out, alive);
        }
    }

    /// Retires idle workers that are too many for their profile, replaced, or too many for the pool.
    fn trim_idle(&mut self, now: Duration, out: &mut Vec<Effect>) {
        for (id, allowance) in self.allowances(now) {
            let profile = &self.profiles[&id];
            let target = profile.idle_target(now, &self.config);
            let (mut idle, mut workers) = (profile.idle(), Vec::new());
            let mut oldest = profile.idle_by_age().into_iter();
            while let Some((aged_at, worker)) = oldest.next()
                && (idle > target || idle > allowance && aged_at <= now)
            {
                let reason = match aged_at <= now {
                    true if profile.workers[&worker].is_superseded() => RetireReason::Superseded,
                    _ if target < self.config.idle_per_profile => RetireReason::Unused,
                    true => RetireReason::Age,
                    false => RetireReason::Surplus,
                };
                workers.push((worker, reason));
                idle -= 1;
            }
            for (worker, reason) in workers {
                self.retire(worker, reason, out);
            }
        }
        while self.total(Profile::idle) > self.config.max_idle
            && let Some(worker) = self.least_recently_used_idle(None)
        {
            self.retire(worker, RetireReason::Budget, out);
        }
    }

    /// Boots for queued callers, in the order of their turns, before anything is booted in reserve.
    fn boot_for_callers(&mut self, now: Duration, out: &mut Vec<Effect>) -> Callers {
        let mut slots = self.config.parallel_boots.saturating_sub(self.total(Profile::booting));
        let mut room_to_come = self.room_to_come();
        let mut on_their_way: HashMap<ProfileId, usize> = HashMap::new();
        let mut callers = Callers::Served;
        for id in self.queue.profiles_in_order() {
            let profile = &self.profiles[&id];
            let booting = profile.booting_in(self.epoch);
            let coming = on_their_way.entry(id).or_insert(booting);
            if *coming > 0 {
                *coming -= 1;
                continue;
            }
            if !profile.breaker.may_boot(now, booting) {
                continue;
            }
            if slots == 0 {
                return Callers::Waiting;
            }
            slots -= 1;
            if self.owners.len() < self.config.max_workers {
                self.boot(now, id, out);
                continue;
            }
            callers = Callers::Waiting;
            if room_to_come > 0 {
                room_to_come -= 1;
            } else if let Some(worker) = self.least_recently_used_idle(Some(id)) {
                self.retire(worker, RetireReason::Room, out);
            } else {
                return Callers::Waiting;
            }
        }
        callers
    }

    /// Boots in reserve. Each running job keeps a boot slot, and so a CPU, to itself, as far as there are two.
    fn refill(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let most = self.config.parallel_boots.saturating_sub(self.total(Profile::leased)).max(1);
        let allowances = self.allowances(now);
        for &(id, allowance) in &allowances {
            while self.total(Profile::booting) < most && self.wants_refill(now, id, allowance) {
                if self.owners.len() >= self.config.max_workers {
                    return self.make_room_for_refill(now, id, &allowances, out);
                }
                self.boot(now, id, out);
            }
        }
    }

    fn wants_refill(&self, now: Duration, id: ProfileId, allowance: usize) -> bool {
        let profile = &self.profiles[&id];
        let booting = profile.booting_in(self.epoch);
        let coming = booting.saturating_sub(self.queue.waiting_for(id));
        let vacated = profile.vacated.values().filter(|due| **due > now).count();
        // A worker that is too old stays until its replacement is ready, one at a time.
        let replacement = usize::from(profile.has_aged(now));
        profile.idle() + coming < allowance.saturating_sub(vacated) + replacement
            && now >= profile.refill_from
            && profile.breaker.may_boot(now, booting)
    }

    /// In a pool that is full, an idle worker beyond its profile's allowance has to go first, or the one that is too old
    /// and is to be replaced.
    fn make_room_for_refill(
        &mut self,
        now: Duration,
        id: ProfileId,
        allowances: &[(ProfileId, usize)],
        out: &mut Vec<Effect>,
    ) {
        if self.room_to_come() > 0 {
            return;
        }
        let beyond = allowances.iter().rev().find(|(id, allowance)| self.profiles[id].idle() > *allowance);
        let profile = &self.profiles[&id];
        if let Some((_, worker)) = beyond.and_then(|(id, _)| self.profiles[id].oldest_idle()) {
            self.retire(worker, RetireReason::Budget, out);
        } else if let Some((aged_at, worker)) = profile.oldest_idle()
            && aged_at <= now
            && profile.booting_in(self.epoch) == 0
        {
            let superseded = profile.workers[&worker].is_superseded();
            let reason = if superseded { RetireReason::Superseded } else { RetireReason::Age };
            self.retire(worker, reason, out);
        }
    }

    /// Workers that are killed and about to be reaped.
    fn room_to_come(&self) -> usize {
        self.total(|profile| profile.count(|stage| matches!(stage, Stage::Reaping | Stage::Ending(_))))
    }

    fn boot(&mut self, now: Duration, id: ProfileId, out: &mut Vec<Effect>) {
        self.next_id += 1;
        let worker = WorkerId(self.next_id);
        let profile = self.profiles.get_mut(&id).expect("the caller knows the profile");
        profile.workers.insert(worker, Slot::booting(now, self.epoch));
        self.owners.insert(worker, id);
        out.push(Effect::Boot { worker, spec: profile.spec.clone() });
    }

    /// Each profile's share of the idle budget, the most recently used profile first.
    fn allowances(&self, now: Duration) -> Vec<(ProfileId, usize)> {
        let mut order: Vec<_> = self.profiles.iter().collect();
        order.sort_by_key(|(id, profile)| Reverse((profile.used_at, **id)));
        let mut left = self.config.max_idle;
        let share = |(id, profile): (&ProfileId, &Profile)| {
            let allowance = profile.idle_target(now, &self.config).min(left);
            left -= allowance;
            (*id, allowance)
        };
        order.into_iter().map(share).collect()
    }

    fn least_recently_used_idle(&self, except: Option<ProfileId>) -> Option<WorkerId> {
        let others = self.profiles.iter().filter(|(id, _)| Some(**id) != except);
        let idle = others.filter_map(|(id, profile)| Some((profile.used_at, id, profile.oldest_idle()?.1)));
        idle.min().map(|(_, _, worker)| worker)
    }

    fn total(&self, of_profile: impl Fn(&Profile) -> usize) -> usize {
        self.profiles.values().map(of_profile).sum()
    }

    fn forget_unused(&mut self, now: Duration) {
        let (config, queue) = (&self.config, &self.queue);
        for profile in self.profiles.values_mut() {
            profile.vacated.retain(|_, due| *due > now);
        }
        let unused = |(id, profile): (&ProfileId, &Profile)| {
            let lapsed = profile.unused_at(config).is_some_and(|at| at <= now);
            (lapsed && profile.workers.is_empty() && queue.waiting_for(*id) == 0).then_some(*id)
        };
        let forgotten: Vec<_> = self.profiles.iter().filter_map(unused).collect();
        for id in forgotten {
            if let Some(profile) = self.profiles.remove(&id) {
                self.ids.remove(&profile.spec);
                self.past.add(&profile.totals);
            }
        }
    }
}
