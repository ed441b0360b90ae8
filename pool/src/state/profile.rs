//! One set of interchangeable workers and what the pool remembers about it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Breaker, doubled};
use super::{RetireReason, WorkerId};
use crate::config::PoolConfig;
use crate::source::WorkerKind;
use crate::spec::WorkerSpec;
use crate::status::{Totals, profile_id};

/// How many boot times status looks back on.
const BOOT_TIMES: usize = 64;
/// An idle worker that lived this long did not die of how it was booted.
const STEADY: Duration = Duration::from_secs(10);
/// Pause before refilling after the second idle death in a row; doubles up to `STEADY`.
const DEATH_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Profile {
    pub(super) spec: Arc<WorkerSpec>,
    pub(super) name: String,
    /// Sessions that keep it warm.
    pub(super) registrations: usize,
    /// The latest lease, end of a run or new session: decides which profile is the least recently used.
    pub(super) used_at: Duration,
    pub(super) released_at: Duration,
    pub(super) workers: BTreeMap<WorkerId, Slot>,
    /// Places that running or just finished jobs left empty, and when each is to be refilled.
    pub(super) vacated: BTreeMap<WorkerId, Duration>,
    pub(super) breaker: Breaker,
    idle_deaths: u32,
    /// No refill before this, for idle workers keep dying.
    pub(super) refill_from: Duration,
    pub(super) boot_times: VecDeque<Duration>,
    /// How the latest worker was made. The first one is spawned.
    pub(super) kind: WorkerKind,
    pub(super) totals: Totals,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The pool's epoch when the boot began; idle workers of an older one are outdated.
    pub(super) epoch: u64,
    pub(super) stage: Stage,
    /// How it was made; known once it has booted.
    kind: Option<WorkerKind>,
    /// How its profile's workers have come to be made since its boot began.
    wanted: Option<WorkerKind>,
}

impl Slot {
    pub(super) fn booting(now: Duration, epoch: u64) -> Self {
        Self { epoch, stage: Stage::Booting { since: now }, kind: None, wanted: None }
    }

    /// A worker that is booted now would be of another kind.
    pub(super) fn is_superseded(&self) -> bool {
        self.kind.zip(self.wanted).is_some_and(|(kind, wanted)| kind != wanted)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Booting {
        since: Duration,
    },
    Idle {
        since: Duration,
        /// Old enough to be replaced.
        aged_at: Duration,
    },
    Leased,
    /// Its run is over; killed, not reaped yet.
    Reaping,
    /// Killed without a run, not reaped yet.
    Ending(RetireReason),
}

impl Profile {
    pub(super) fn new(now: Duration, spec: Arc<WorkerSpec>) -> Self {
        Self {
            name: profile_id(&spec),
            kind: WorkerKind::Spawn,
            spec,
            registrations: 0,
            used_at: now,
            released_at: now,
            workers: BTreeMap::new(),
            vacated: BTreeMap::new(),
            breaker: Breaker::default(),
            idle_deaths: 0,
            refill_from: Duration::ZERO,
            boot_times: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    pub(super) fn count(&self, matches: impl Fn(&Stage) -> bool) -> usize {
        self.workers.values().filter(|slot| matches(&slot.stage)).count()
    }

    pub(super) fn idle(&self) -> usize {
        self.count(|stage| matches!(stage, Stage::Idle { .. }))
    }

    pub(super) fn booting(&self) -> usize {
        self.count(|stage| matches!(stage, Stage::Booting { .. }))
    }

    pub(super) fn leased(&self) -> usize {
        self.count(|stage| *stage == Stage::Leased)
    }

    /// Boots whose worker will be of use.
    pub(super) fn booting_in(&self, epoch: u64) -> usize {
        let current = |slot: &&Slot| slot.epoch == epoch && matches!(slot.stage, Stage::Booting { .. });
        self.workers.values().filter(current).count()
    }

    /// Idle workers in the order in which they grow too old: when that is, and which.
    pub(super) fn idle_by_age(&self) -> Vec<(Duration, WorkerId)> {
        let mut idle: Vec<_> = self.idle_workers().collect();
        idle.sort();
        idle
    }

    /// The idle worker that is too old first. It is granted first, too.
    pub(super) fn oldest_idle(&self) -> Option<(Duration, WorkerId)> {
        self.idle_workers().min()
    }

    fn idle_workers(&self) -> impl Iterator<Item = (Duration, WorkerId)> {
        self.workers.iter().filter_map(|(worker, slot)| match slot.stage {
            Stage::Idle { aged_at, .. } => Some((aged_at, *worker)),
            _ => None,
        })
    }

    pub(super) fn has_aged(&self, now: Duration) -> bool {
        self.oldest_idle().is_some_and(|(aged_at, _)| aged_at <= now)
    }

    pub(super) fn lease(&mut self, now: Duration, worker: WorkerId, config: &PoolConfig) {
        self.set_stage(worker, Stage::Leased);
        self.vacated.insert(worker, now + config.refill_patience);
        self.idle_deaths = 0;
        self.refill_from = Duration::ZERO;
        self.totals.leased += 1;
    }

    pub(super) fn set_stage(&mut self, worker: WorkerId, stage: Stage) {
        self.workers.get_mut(&worker).expect("the caller found the worker here").stage = stage;
    }

    /// A leased worker is used up: its place may be refilled once the answer is on its way.
    pub(super) fn run_over(&mut self, now: Duration, worker: WorkerId, config: &PoolConfig) {
        self.used_at = now;
        let due = now + config.refill_delay;
        self.vacated.entry(worker).and_modify(|at| *at = due.min(*at));
    }

    /// Slows refills down when idle workers die again and again, which no boot failure shows.
    pub(super) fn died_idle(&mut self, now: Duration, since: Duration) {
        if now - since >= STEADY {
            self.idle_deaths = 0;
        }
        if self.idle_deaths > 0 {
            self.refill_from = now + doubled(DEATH_PAUSE, self.idle_deaths - 1, STEADY);
        }
        self.idle_deaths = self.idle_deaths.saturating_add(1);
    }

    /// Idle workers of another kind count as too old.
    pub(super) fn kind_changed(&mut self, now: Duration, kind: WorkerKind) {
        for slot in self.workers.values_mut() {
            slot.wanted = Some(kind);
            if let Stage::Idle { since, .. } = slot.stage
                && slot.is_superseded()
            {
                slot.stage = Stage::Idle { since, aged_at: now };
            }
        }
    }

    pub(super) fn booted(&mut self, worker: WorkerId, took: Duration, kind: WorkerKind) {
        self.kind = kind;
        self.workers.get_mut(&worker).expect("the caller found the worker here").kind = Some(kind);
        self.totals.booted += 1;
        self.totals.forked += u64::from(kind == WorkerKind::Fork);
        self.boot_times.truncate(BOOT_TIMES - 1);
        self.boot_times.push_front(took);
    }

    /// When nobody will have needed it for long enough; never while a session holds it or a job runs.
    pub(super) fn unused_at(&self, config: &PoolConfig) -> Option<Duration> {
        let held =
            self.registrations > 0 || self.count(|stage| matches!(stage, Stage::Leased | Stage::Reaping)) > 0;
        (!held).then(|| self.used_at.max(self.released_at) + config.unused_after)
    }

    pub(super) fn idle_target(&self, now: Duration, config: &PoolConfig) -> usize {
        match self.unused_at(config) {
            Some(at) if at <= now => 0,
            _ => config.idle_per_profile,
        }
    }
}
