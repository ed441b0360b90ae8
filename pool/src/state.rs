//! The pool's rules, as a pure state machine: [`PoolState::on_event`] takes what happened and says what to do.
//!
//! It owns the account of every worker, caller and profile. It does no I/O, reads no clock (times are durations since the
//! pool started) and draws chance from a seed, so that every schedule can be replayed. After each event:
//!
//! - no caller waits for a profile that has an idle worker;
//! - processes, from the start of a boot until reaped, are at most `max_workers`: a boot that needs room waits until a
//!   killed worker is reaped;
//! - a profile has at most `idle_per_profile` idle workers, all profiles together `max_idle`; the least recently used
//!   profile loses its own first;
//! - a worker that was leased never becomes idle again, unless its lease reached nobody;
//! - nothing boots while the pool drains.
//!
//! `state/rules.rs` holds these rules; this file holds what changes with each event.

mod breaker;
mod profile;
mod queue;
mod report;
mod rules;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::breaker::{Breaker, Jitter};
use self::profile::{Profile, Slot, Stage};
use self::queue::{Queue, Waiter};
use crate::config::PoolConfig;
use crate::lease::LeaseError;
use crate::source::{SpawnError, WorkerKind};
use crate::spec::WorkerSpec;
use crate::status::Totals;

/// A worker, from the start of its boot; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u64);

/// A caller of `lease`; numbered by whoever feeds the events, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ProfileId(u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session that will use this profile connected.
    Prepare {
        spec: Arc<WorkerSpec>,
    },
    /// That session is gone.
    Release {
        spec: Arc<WorkerSpec>,
    },
    /// A caller wants a worker; `wait` is how long it will queue, if not as long as configured.
    Lease {
        waiter: WaiterId,
        spec: Arc<WorkerSpec>,
        session: u64,
        wait: Option<Duration>,
    },
    WaiterGone {
        waiter: WaiterId,
    },
    Booted {
        worker: WorkerId,
        kind: WorkerKind,
    },
    BootFailed {
        worker: WorkerId,
        error: Arc<SpawnError>,
    },
    /// An idle worker ended by itself.
    Died {
        worker: WorkerId,
    },
    /// A granted worker found its caller gone; it has been in nobody's hands.
    Unclaimed {
        worker: WorkerId,
    },
    /// A caller dropped its worker unused.
    LeaseDropped {
        worker: WorkerId,
    },
    RunEnded {
        worker: WorkerId,
    },
    Reaped {
        worker: WorkerId,
    },
    /// From now on this profile's workers are made in this way. Those that are otherwise are replaced one by one, as if
    /// they had grown too old.
    KindChanged {
        spec: Arc<WorkerSpec>,
        kind: WorkerKind,
    },
    /// The time of [`PoolState::wake_at`] has come.
    Tick,
    Reconfigure {
        config: PoolConfig,
    },
    /// Replace all idle workers; what they were made from has changed.
    RetireIdle {
        reason: RetireReason,
    },
    /// No more leases; whatever is left at `deadline` is killed.
    Drain {
        deadline: Duration,
    },
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    Boot {
        worker: WorkerId,
        spec: Arc<WorkerSpec>,
    },
    /// Kill the worker, wherever it is: booting, idle, or leased. `Reaped` must follow. Asked for again when a worker
    /// comes back that was out of reach.
    Retire {
        worker: WorkerId,
        reason: RetireReason,
    },
    Grant {
        waiter: WaiterId,
        worker: WorkerId,
    },
    Refuse {
        waiter: WaiterId,
        error: LeaseError,
    },
    /// Tell the operator that this profile will not be booted for a while.
    BreakerOpened {
        spec: Arc<WorkerSpec>,
        retry_at: Duration,
    },
}

/// Why a worker ends without having run a job, or before the job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetireReason {
    /// Idle for longer than `max_idle_age`, and replaced.
    Age,
    /// New workers of its profile are made in another way, and one of them has taken its place.
    Superseded,
    /// More idle workers than the profile's target.
    Surplus,
    /// More idle workers than `max_idle`, and this profile was the least recently used.
    Budget,
    /// Another profile's caller needed the room.
    Room,
    /// No session holds the profile and nobody used it for `unused_after`.
    Unused,
    /// Booted under an older configuration.
    Reconfigured,
    /// Booted from a Deno executable that has been replaced.
    DenoReplaced,
    /// Ended by itself while idle.
    Died,
    /// Its caller dropped the lease.
    LeaseDropped,
    /// The pool shut down.
    Drained,
    /// Still booting or running at the deadline of a shutdown.
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { deadline: Duration },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct PoolState {
    config: PoolConfig,
    phase: Phase,
    /// Counts changes of configuration and of the executable.
    epoch: u64,
    /// Why workers of older epochs are retired.
    outdated: RetireReason,
    ids: HashMap<Arc<WorkerSpec>, ProfileId>,
    profiles: BTreeMap<ProfileId, Profile>,
    owners: BTreeMap<WorkerId, ProfileId>,
    queue: Queue,
    /// Counters of profiles that are forgotten.
    past: Totals,
    jitter: Jitter,
    next_id: u64,
}

impl PoolState {
    /// `seed` feeds the jitter.
    pub fn new(config: PoolConfig, seed: u64) -> Self {
        Self {
            config,
            phase: Phase::Running,
            epoch: 0,
            outdated: RetireReason::Reconfigured,
            ids: HashMap::new(),
            profiles: BTreeMap::new(),
            owners: BTreeMap::new(),
            queue: Queue::default(),
            past: Totals::default(),
            jitter: Jitter::new(seed),
            next_id: 0,
        }
    }

    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// True when the pool drains and nothing is left of any worker.
    pub fn is_drained(&self) -> bool {
        self.phase != Phase::Running && self.owners.is_empty()
    }

    /// Takes one event; `now` never goes backwards. Events about workers that are already gone change nothing.
    pub fn on_event(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.apply(now, event, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    fn apply(&mut self, now: Duration, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Prepare { spec } => self.prepare(now, spec),
            Event::Release { spec } => self.release(now, &spec),
            Event::Lease { waiter, spec, session, wait } => {
                self.enqueue(now, waiter, spec, session, wait, out);
            }
            Event::WaiterGone { waiter } => drop(self.queue.remove_where(|other| other.id == waiter)),
            Event::Booted { worker, kind } => self.booted(now, worker, kind, out),
            Event::BootFailed { worker, error } => self.boot_failed(now, worker, error, out),
            Event::Died { worker } => self.died(now, worker, out),
            Event::Unclaimed { worker } => self.unclaimed(now, worker, out),
            Event::LeaseDropped { worker } => self.lease_dropped(now, worker, out),
            Event::RunEnded { worker } => self.run_ended(now, worker),
            Event::Reaped { worker } => self.remove_worker(worker),
            Event::KindChanged { spec, kind } => self.kind_changed(now, &spec, kind),
            Event::Tick => {}
            Event::Reconfigure { config } => {
                self.config = config;
                self.start_epoch(RetireReason::Reconfigured, out);
            }
            Event::RetireIdle { reason } => self.start_epoch(reason, out),
            Event::Drain { deadline } => self.drain(deadline, out),
        }
    }

    fn prepare(&mut self, now: Duration, spec: Arc<WorkerSpec>) {
        let (_, profile) = self.profile_of(now, spec);
        profile.registrations += 1;
        profile.used_at = now;
    }

    fn release(&mut self, now: Duration, spec: &Arc<WorkerSpec>) {
        if let Some(profile) = self.ids.get(spec).and_then(|id| self.profiles.get_mut(id)) {
            profile.registrations = profile.registrations.saturating_sub(1);
            profile.released_at = now;
        }
    }

    fn kind_changed(&mut self, now: Duration, spec: &Arc<WorkerSpec>, kind: WorkerKind) {
        if let Some(profile) = self.ids.get(spec).and_then(|id| self.profiles.get_mut(id)) {
            profile.kind_changed(now, kind);
        }
    }

    /// Queues the caller, or refuses it at once; an idle worker is granted when the event settles.
    fn enqueue(
        &mut self,
        now: Duration,
        waiter: WaiterId,
        spec: Arc<WorkerSpec>,
        session: u64,
        wait: Option<Duration>,
        out: &mut Vec<Effect>,
    ) {
        if self.phase != Phase::Running {
            out.push(Effect::Refuse { waiter, error: LeaseError::Draining });
            return;
        }
        let queued = self.queue.len();
        let full = queued >= self.config.queue_capacity;
        let until = now + wait.unwrap_or(self.config.queue_wait);
        let (id, profile) = self.profile_of(now, spec);
        profile.used_at = now;
        if profile.idle() == 0 {
            if let Some(error) = profile.breaker.refusal(now) {
                profile.totals.refused_broken += 1;
                out.push(Effect::Refuse { waiter, error });
                return;
            }
            if full {
                profile.totals.refused_busy += 1;
                let error = LeaseError::Busy { queued, waited: Duration::ZERO };
                out.push(Effect::Refuse { waiter, error });
                return;
            }
        }
        self.queue.push(Waiter { id: waiter, session, profile: id, since: now, until });
    }

    fn booted(&mut self, now: Duration, worker: WorkerId, kind: WorkerKind, out: &mut Vec<Effect>) {
        let epoch = self.epoch;
        let Some((profile, slot)) = self.slot(worker) else { return };
        if let Stage::Booting { since } = slot.stage {
            profile.booted(worker, now - since, kind);
            if slot.epoch == epoch {
                profile.breaker.succeeded();
            }
        }
        self.make_idle(now, worker, out);
    }

    fn boot_failed(
        &mut self,
        now: Duration,
        worker: WorkerId,
        error: Arc<SpawnError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(id) = self.owners.remove(&worker) else { return };
        let profile = self.profiles.get_mut(&id).expect("a worker's profile is known");
        let Some(slot) = profile.workers.remove(&worker) else { return };
        if !matches!(slot.stage, Stage::Booting { .. }) {
            return;
        }
        profile.totals.boot_failures += 1;
        if slot.epoch != self.epoch {
            return;
        }
        let opened = profile.breaker.failed(now, error, &self.config, &mut self.jitter);
        if !opened {
            return;
        }
        let (spec, retry_at) = (Arc::clone(&profile.spec), profile.breaker.retry_at());
        out.push(Effect::BreakerOpened { spec, retry_at });
        if profile.breaker.refusal(now).is_none() {
            return;
        }
        for waiter in self.queue.remove_where(|waiter| waiter.profile == id) {
            let error = profile.breaker.refusal(now).expect("it was asked just now");
            profile.totals.refused_broken += 1;
            out.push(Effect::Refuse { waiter: waiter.id, error });
        }
    }

    fn died(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Effect>) {
        if let Some((profile, Slot { stage: Stage::Idle { since, .. }, .. })) = self.slot(worker) {
            profile.died_idle(now, since);
            self.retire(worker, RetireReason::Died, out);
        }
    }

    fn unclaimed(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Effect>) {
        if let Some((profile, _)) = self.slot(worker) {
            profile.vacated.remove(&worker);
            profile.totals.leased -= 1;
            self.make_idle(now, worker, out);
        }
    }

    fn lease_dropped(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Effect>) {
        if self.slot(worker).is_some() {
            self.end_run(now, worker);
            self.retire(worker, RetireReason::LeaseDropped, out);
        }
    }

    fn run_ended(&mut self, now: Duration, worker: WorkerId) {
        if let Some((profile, Slot { stage: Stage::Leased, .. })) = self.slot(worker) {
            profile.set_stage(worker, Stage::Reaping);
            self.end_run(now, worker);
        }
    }

    fn end_run(&mut self, now: Duration, worker: WorkerId) {
        let id = self.owners[&worker];
        if let Some(profile) = self.profiles.get_mut(&id) {
            profile.run_over(now, worker, &self.config);
        }
    }

    fn remove_worker(&mut self, worker: WorkerId) {
        if let Some(profile) = self.owners.remove(&worker).and_then(|id| self.profiles.get_mut(&id)) {
            profile.workers.remove(&worker);
        }
    }

    /// Retires all idle workers and lets breakers try again; what is leased finishes, what boots is retired when ready.
    fn start_epoch(&mut self, reason: RetireReason, out: &mut Vec<Effect>) {
        self.epoch += 1;
        self.outdated = reason;
        for profile in self.profiles.values_mut() {
            profile.breaker = Breaker::default();
        }
        self.retire_where(reason, out, |stage| matches!(stage, Stage::Idle { .. }));
    }

    fn drain(&mut self, deadline: Duration, out: &mut Vec<Effect>) {
        let deadline = match self.phase {
            Phase::Running => deadline,
            Phase::Draining { deadline: earlier } => deadline.min(earlier),
        };
        self.phase = Phase::Draining { deadline };
        for waiter in self.queue.remove_where(|_| true) {
            out.push(Effect::Refuse { waiter: waiter.id, error: LeaseError::Draining });
        }
    }

    /// A worker that waits for its first job becomes idle, unless it is not wanted any more.
    fn make_idle(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Effect>) {
        let aged_at = now + self.jitter.shorten(self.config.max_idle_age);
        let (epoch, outdated) = (self.epoch, self.outdated);
        match self.slot(worker) {
            None => {}
            Some((_, Slot { stage: Stage::Ending(_), .. })) => self.retire(worker, outdated, out),
            Some((_, slot)) if slot.epoch != epoch => self.retire(worker, outdated, out),
            Some((profile, slot)) => {
                let aged_at = if slot.is_superseded() { now } else { aged_at };
                profile.set_stage(worker, Stage::Idle { since: now, aged_at });
            }
        }
    }

    /// Kills a worker; one that is being killed already is so again, for its first reason.
    fn retire(&mut self, worker: WorkerId, reason: RetireReason, out: &mut Vec<Effect>) {
        let Some((profile, slot)) = self.slot(worker) else { return };
        if let Stage::Ending(reason) = slot.stage {
            out.push(Effect::Retire { worker, reason });
            return;
        }
        profile.set_stage(worker, Stage::Ending(reason));
        *profile.totals.retired.entry(reason).or_default() += 1;
        out.push(Effect::Retire { worker, reason });
    }

    fn retire_where(
        &mut self,
        reason: RetireReason,
        out: &mut Vec<Effect>,
        matches: impl Fn(&Stage) -> bool,
    ) {
        let slots = self.profiles.values().flat_map(|profile| &profile.workers);
        let chosen: Vec<_> =
            slots.filter(|(_, slot)| matches(&slot.stage)).map(|(worker, _)| *worker).collect();
        for worker in chosen {
            self.retire(worker, reason, out);
        }
    }

    fn profile_of(&mut self, now: Duration, spec: Arc<WorkerSpec>) -> (ProfileId, &mut Profile) {
        let next_id = &mut self.next_id;
        let id = *self.ids.entry(Arc::clone(&spec)).or_insert_with(|| {
            *next_id += 1;
            ProfileId(*next_id)
        });
        (id, self.profiles.entry(id).or_insert_with(|| Profile::new(now, spec)))
    }

    fn slot(&mut self, worker: WorkerId) -> Option<(&mut Profile, Slot)> {
        let id = self.owners.get(&worker)?;
        let profile = self.profiles.get_mut(id)?;
        let slot = *profile.workers.get(&worker)?;
        Some((profile, slot))
    }
}
