//! Random schedules of events against the state machine, with a second, simpler account of the world beside it, and the
//! [checks] of the one by the other.
//!
//! Every schedule comes from a seed, which is printed when a check fails. `CONDUCTOR_POOL_SEEDS=100000` runs that many,
//! `CONDUCTOR_POOL_SEED=17` runs that one.

mod checks;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use super::tests::spec;
use super::{Effect, Event, PoolState, RetireReason, WaiterId, WorkerId};
use crate::config::PoolConfig;
use crate::source::{SpawnError, WorkerKind};
use crate::spec::WorkerSpec;
use crate::status::profile_id;

const SEEDS: u64 = 1000;
const EVENTS: usize = 300;
const SPECS: usize = 4;
const SESSIONS: usize = 5;
const MS: Duration = Duration::from_millis(1);

#[test]
fn no_schedule_breaks_a_rule() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("CONDUCTOR_POOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CONDUCTOR_POOL_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let _printed = PrintedOnPanic(seed);
        let mut world = World::new(seed);
        for _ in 0..EVENTS {
            world.step();
        }
        world.come_to_rest();
        world.drain();
    }
}

/// An event and its time, written out only when a check fails.
struct Moment(Event, Duration);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.0, self.1)
    }
}

struct PrintedOnPanic(u64);

impl Drop for PrintedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failing schedule: CONDUCTOR_POOL_SEED={}", self.0);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Booting,
    Idle,
    Leased,
    Dying,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    spec: usize,
    stage: Stage,
    outdated: bool,
    ready_at: Duration,
    /// How it was made, and how its spec's workers have come to be made since its boot began.
    kind: Option<WorkerKind>,
    wanted: Option<WorkerKind>,
    /// Killed while it was out of the pool's reach, and not back yet.
    away: Option<Stage>,
}

#[derive(Clone, Copy, Debug)]
struct Caller {
    spec: usize,
    session: u64,
    until: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    registrations: usize,
    used_at: Duration,
    released_at: Duration,
    failures_in_a_row: u32,
    /// How often its breaker has opened since a boot succeeded.
    openings: u32,
}

impl Use {
    fn boots_again(&mut self) {
        (self.failures_in_a_row, self.openings) = (0, 0);
    }
}

struct World {
    random: Random,
    now: Duration,
    config: PoolConfig,
    state: PoolState,
    workers: BTreeMap<WorkerId, Worker>,
    callers: BTreeMap<WaiterId, Caller>,
    uses: [Use; SPECS],
    /// How often each session got a worker of a spec that another session was waiting for, since that other was served.
    overtaken: HashMap<(u64, usize), HashMap<u64, u32>>,
    draining: Option<Duration>,
    callers_so_far: u64,
    names: [String; SPECS],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = random_config(&mut random);
        Self {
            state: PoolState::new(config.clone(), seed),
            random,
            now: Duration::ZERO,
            config,
            workers: BTreeMap::new(),
            callers: BTreeMap::new(),
            uses: Default::default(),
            overtaken: HashMap::new(),
            draining: None,
            callers_so_far: 0,
            names: std::array::from_fn(|number| profile_id(&spec(number))),
        }
    }

    fn step(&mut self) {
        if self.random.below(3) == 0 {
            let by = [1, 5, 50, 500][self.random.below(4)];
            let time = self.random.upto(by) * MS;
            self.pass(time);
        }
        let spec = self.random.below(SPECS);
        match self.random.below(100) {
            0..30 => self.call(spec),
            30..35 => {
                if let Some(waiter) = self.random.pick(self.callers.keys()) {
                    self.callers.remove(&waiter);
                    self.feed(Event::WaiterGone { waiter });
                }
            }
            35..57 => self.end_boot(),
            57..60 => self.on_worker(Stage::Idle, |worker| Event::Died { worker }),
            60..72 => self.on_worker(Stage::Leased, |worker| Event::RunEnded { worker }),
            72..74 => self.on_worker(Stage::Leased, |worker| Event::LeaseDropped { worker }),
            74..76 => self.on_worker(Stage::Leased, |worker| Event::Unclaimed { worker }),
            76..90 => self.end_dying(),
            90..94 => self.prepare(spec),
            94..96 => self.release(spec),
            96 => self.change_kind(spec),
            97 => {
                let config = random_config(&mut self.random);
                self.feed(Event::Reconfigure { config });
            }
            98 => self.feed(Event::RetireIdle { reason: RetireReason::DenoReplaced }),
            _ if self.random.below(20) == 0 => {
                let deadline = self.now + self.random.upto(300) * MS;
                self.feed(Event::Drain { deadline });
            }
            _ => self.feed(Event::Tick),
        }
    }

    /// Lets time pass; ticks come when they were asked for.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.state.wake_at(self.now).filter(|at| *at <= end) {
                None => {
                    self.now = end;
                    return self.feed(Event::Tick);
                }
                Some(at) => {
                    assert!(at > self.now, "a tick is asked for in the past");
                    self.now = at;
                    self.feed(Event::Tick);
                }
            }
        }
        panic!("too many ticks in {time:?}");
    }

    fn call(&mut self, spec_number: usize) {
        self.callers_so_far += 1;
        let waiter = WaiterId(self.callers_so_far);
        let wait = [None, Some(Duration::ZERO), Some(20 * MS), Some(400 * MS)][self.random.below(4)];
        let session = self.random.below(SESSIONS) as u64;
        let until = self.now + wait.unwrap_or(self.config.queue_wait);
        self.callers.insert(waiter, Caller { spec: spec_number, session, until });
        self.feed(Event::Lease { waiter, spec: spec(spec_number), session, wait });
    }

    fn end_boot(&mut self) {
        // Whole stretches of failures, or breakers would hardly ever open.
        let failing = (self.now.as_millis() / 400).is_multiple_of(3);
        if failing && self.random.below(4) > 0 {
            let error = Arc::new(SpawnError::Start(io::Error::other("simulated")));
            self.on_worker(Stage::Booting, |worker| Event::BootFailed { worker, error: Arc::clone(&error) });
        } else {
            let kind = self.kind();
            self.on_worker(Stage::Booting, |worker| Event::Booted { worker, kind });
        }
    }

    fn change_kind(&mut self, spec_number: usize) {
        let kind = self.kind();
        for worker in self.workers.values_mut().filter(|worker| worker.spec == spec_number) {
            worker.wanted = Some(kind);
        }
        self.feed(Event::KindChanged { spec: spec(spec_number), kind });
    }

    fn kind(&mut self) -> WorkerKind {
        [WorkerKind::Spawn, WorkerKind::Fork][self.random.below(2)]
    }

    /// A dying worker is reaped, or first comes back from where it was when it was killed.
    fn end_dying(&mut self) {
        let dying = self.workers.iter().filter(|(_, worker)| worker.stage == Stage::Dying).map(|(id, _)| id);
        let Some(worker) = self.random.pick(dying) else { return };
        let away = self.workers.get_mut(&worker).unwrap().away.take();
        let event = match (away, self.random.below(4)) {
            (Some(Stage::Booting), 0) => Event::Booted { worker, kind: WorkerKind::Spawn },
            (Some(Stage::Leased), 0) => Event::RunEnded { worker },
            (Some(Stage::Leased), 1) => Event::LeaseDropped { worker },
            (Some(Stage::Leased), 2) => Event::Unclaimed { worker },
            _ => Event::Reaped { worker },
        };
        self.feed(event);
    }

    fn on_worker(&mut self, stage: Stage, event: impl Fn(WorkerId) -> Event) {
        let workers = self.workers.iter().filter(|(_, worker)| worker.stage == stage).map(|(id, _)| id);
        if let Some(worker) = self.random.pick(workers) {
            self.feed(event(worker));
        }
    }

    fn prepare(&mut self, spec_number: usize) {
        self.uses[spec_number].registrations += 1;
        self.feed(Event::Prepare { spec: spec(spec_number) });
    }

    fn release(&mut self, spec_number: usize) {
        if self.uses[spec_number].registrations > 0 {
            self.uses[spec_number].registrations -= 1;
            self.feed(Event::Release { spec: spec(spec_number) });
        }
    }

    /// Keeps this account, gives the event to the machine, and checks each effect and the state after it.
    fn feed(&mut self, event: Event) {
        let about = self.account(&event);
        let open_before = self.open_breakers();
        let resets = matches!(
            event,
            Event::Booted { .. } | Event::Reconfigure { .. } | Event::RetireIdle { .. } | Event::Lease { .. }
        );
        let what = &Moment(event.clone(), self.now);
        for effect in self.state.on_event(self.now, event) {
            match effect {
                Effect::Boot { worker, spec } => {
                    let spec = number_of(&spec);
                    assert!(resets || !open_before.contains(&spec), "boot while the breaker is open: {what}");
                    self.check_boot(worker, spec, what);
                }
                Effect::Grant { waiter, worker } => self.check_grant(waiter, worker, what),
                Effect::Refuse { waiter, error } => self.check_refusal(waiter, &error, what),
                Effect::BreakerOpened { spec, retry_at } => {
                    assert!(retry_at > self.now, "{what}");
                    self.use_of(&spec).openings += 1;
                }
                Effect::Retire { worker, reason } => self.check_retirement(worker, reason, about, what),
            }
        }
        self.check_state(what);
    }

    /// Returns the worker that the event is about, if it came back from somewhere.
    fn account(&mut self, event: &Event) -> Option<WorkerId> {
        let now = self.now;
        match event {
            Event::Prepare { spec } => self.use_of(spec).used_at = now,
            Event::Release { spec } => self.use_of(spec).released_at = now,
            Event::Lease { spec, .. } if self.draining.is_none() => self.use_of(spec).used_at = now,
            Event::Booted { worker, .. } | Event::Unclaimed { worker } => {
                let entry = self.workers.get_mut(worker).unwrap();
                if let Event::Booted { kind, .. } = event {
                    entry.kind = Some(*kind);
                }
                if !entry.outdated && entry.stage == Stage::Booting {
                    self.uses[entry.spec].boots_again();
                }
                if entry.stage != Stage::Dying {
                    (entry.stage, entry.ready_at) = (Stage::Idle, now);
                }
                return Some(*worker);
            }
            Event::BootFailed { worker, .. } => {
                let failed = self.workers.remove(worker).unwrap();
                if !failed.outdated {
                    self.uses[failed.spec].failures_in_a_row += 1;
                }
            }
            Event::LeaseDropped { worker } => {
                self.uses[self.workers[worker].spec].used_at = now;
                return Some(*worker);
            }
            Event::RunEnded { worker } => {
                let entry = self.workers.get_mut(worker).unwrap();
                entry.stage = Stage::Dying;
                self.uses[entry.spec].used_at = now;
            }
            Event::Reaped { worker } => drop(self.workers.remove(worker)),
            Event::Reconfigure { config } => {
                self.config = config.clone();
                self.outdate();
            }
            Event::RetireIdle { .. } => self.outdate(),
            Event::Drain { deadline } => {
                self.draining = Some(self.draining.map_or(*deadline, |earlier| earlier.min(*deadline)));
            }
            _ => {}
        }
        None
    }

    fn outdate(&mut self) {
        self.workers.values_mut().for_each(|worker| worker.outdated = true);
        self.uses.iter_mut().for_each(Use::boots_again);
    }

    /// Everything that was begun ends well; then every caller has an answer and every profile its idle workers.
    fn come_to_rest(&mut self) {
        for _ in 0..2_000 {
            if self.end_something() {
                continue;
            }
            if self.callers.is_empty() && (self.draining.is_some() || self.is_full()) {
                return;
            }
            let at = self.state.wake_at(self.now).expect("something is still to be done");
            self.pass(at - self.now);
        }
        panic!("no rest: {:?} {:#?}", self.callers, self.state.status(self.now));
    }

    fn drain(&mut self) {
        let deadline = self.now + 50 * MS;
        self.feed(Event::Drain { deadline });
        while self.end_something() {}
        assert!(self.state.is_drained() && self.workers.is_empty(), "{:?}", self.workers);
    }

    fn end_something(&mut self) -> bool {
        let Some((&worker, entry)) = self.workers.iter().find(|(_, w)| w.stage != Stage::Idle) else {
            return false;
        };
        match entry.stage {
            Stage::Booting => self.feed(Event::Booted { worker, kind: WorkerKind::Spawn }),
            Stage::Leased => self.feed(Event::RunEnded { worker }),
            Stage::Dying | Stage::Idle => self.feed(Event::Reaped { worker }),
        }
        true
    }

    fn use_of(&mut self, spec: &WorkerSpec) -> &mut Use {
        &mut self.uses[number_of(spec)]
    }

    fn count(&self, matches: impl Fn(&Worker) -> bool) -> usize {
        self.workers.values().filter(|worker| matches(worker)).count()
    }
}

fn number_of(spec: &WorkerSpec) -> usize {
    spec.workspace.to_str().unwrap().parse().unwrap()
}

fn random_config(random: &mut Random) -> PoolConfig {
    let config = PoolConfig {
        idle_per_profile: random.below(4),
        max_idle: random.below(7),
        max_workers: 1 + random.below(7),
        parallel_boots: 1 + random.below(3),
        queue_capacity: 1 + random.below(8),
        queue_wait: (10 + random.upto(2_000)) * MS,
        max_idle_age: (1_000 + random.upto(3_000)) * MS,
        unused_after: (1_000 + random.upto(2_000)) * MS,
        refill_delay: random.upto(50) * MS,
        refill_patience: random.upto(200) * MS,
        breaker_failures: 1 + random.upto(3),
        breaker_backoff_min: (10 + random.upto(200)) * MS,
        breaker_backoff_max: (300 + random.upto(500)) * MS,
        ..PoolConfig::for_cpus(2)
    };
    config.validate().unwrap();
    config
}

/// xorshift64*, for schedules that are the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= 0x9e37_79b9_7f4a_7c15;
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0 = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }

    fn upto(&mut self, most: u32) -> u32 {
        u32::try_from(self.next()).unwrap() % (most + 1)
    }

    fn pick<'a, T: Copy + 'a>(&mut self, from: impl Iterator<Item = &'a T>) -> Option<T> {
        let all: Vec<&T> = from.collect();
        (!all.is_empty()).then(|| *all[self.below(all.len())])
    }
}
