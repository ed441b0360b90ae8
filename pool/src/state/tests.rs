//! Schedules written by hand: what happens, when, and what the pool answers.
//!
//! Profiles are `a` to `d`, workers are `#1`, `#2` .. in the order of their boots, callers and sessions are numbers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Event, PoolState, RetireReason, WaiterId, WorkerId};
use crate::config::PoolConfig;
use crate::lease::LeaseError;
use crate::source::{SpawnError, WorkerKind};
use crate::spec::{Grants, WorkerSpec};
use crate::status::BreakerStatus;

const MS: Duration = Duration::from_millis(1);

pub(super) fn spec(number: usize) -> Arc<WorkerSpec> {
    Arc::new(WorkerSpec {
        deno: PathBuf::from("deno"),
        workspace: PathBuf::from(number.to_string()),
        grants: Grants::default(),
        heap_mib: 64,
        max_memory_mib: 512,
        max_wall: Duration::from_secs(3600),
        env: Default::default(),
        worker: Default::default(),
        packages: None,
        protected: Default::default(),
    })
}

fn config() -> PoolConfig {
    PoolConfig { max_workers: 8, max_idle: 4, parallel_boots: 2, ..PoolConfig::for_cpus(2) }
}

struct Machine {
    state: PoolState,
    now: Duration,
    boots: Vec<WorkerId>,
}

impl Machine {
    fn new(config: PoolConfig) -> Self {
        config.validate().unwrap();
        Self { state: PoolState::new(config, 1), now: Duration::ZERO, boots: Vec::new() }
    }

    /// A machine with the idle workers of these profiles booted, one profile after the other.
    fn warm(config: PoolConfig, profiles: &str) -> Self {
        let mut m = Self::new(config);
        for profile in profiles.chars() {
            m.now += MS;
            let mut ready = m.boots.len();
            m.prepare(profile);
            while ready < m.boots.len() {
                ready += 1;
                m.booted(ready);
            }
        }
        m
    }

    fn feed(&mut self, event: Event) -> String {
        let effects = self.state.on_event(self.now, event);
        let shown: Vec<_> = effects.into_iter().map(|effect| self.show(effect)).collect();
        shown.join(", ")
    }

    fn show(&mut self, effect: Effect) -> String {
        match effect {
            Effect::Boot { worker, spec } => {
                self.boots.push(worker);
                format!("boot {}#{}", letter(&spec), self.boots.len())
            }
            Effect::Retire { worker, reason } => format!("retire #{} {reason:?}", self.number(worker)),
            Effect::BreakerOpened { spec, .. } => format!("breaker {}", letter(&spec)),
            Effect::Grant { waiter, worker } => format!("grant {} #{}", waiter.0, self.number(worker)),
            Effect::Refuse { waiter, error } => {
                let why = match error {
                    LeaseError::Busy { queued, waited } => format!("busy {queued} {waited:?}"),
                    LeaseError::Broken { .. } => "broken".to_owned(),
                    LeaseError::Draining => "draining".to_owned(),
                    LeaseError::Gone => "gone".to_owned(),
                };
                format!("refuse {} {why}", waiter.0)
            }
        }
    }

    fn number(&self, worker: WorkerId) -> usize {
        1 + self.boots.iter().position(|booted| *booted == worker).unwrap()
    }

    fn worker(&self, number: usize) -> WorkerId {
        self.boots[number - 1]
    }

    /// Advances the clock to the tick the machine asked for, and gives it.
    fn tick(&mut self) -> String {
        self.now = self.state.wake_at(self.now).expect("a tick to come");
        self.feed(Event::Tick)
    }

    fn wait(&mut self, milliseconds: u32) -> String {
        self.now += milliseconds * MS;
        self.feed(Event::Tick)
    }

    fn prepare(&mut self, profile: char) -> String {
        self.feed(Event::Prepare { spec: named(profile) })
    }

    fn release(&mut self, profile: char) -> String {
        self.feed(Event::Release { spec: named(profile) })
    }

    fn lease(&mut self, waiter: u64, profile: char, session: u64) -> String {
        self.lease_within(waiter, profile, session, None)
    }

    fn lease_within(&mut self, waiter: u64, profile: char, session: u64, wait: Option<Duration>) -> String {
        self.feed(Event::Lease { waiter: WaiterId(waiter), spec: named(profile), session, wait })
    }

    fn booted(&mut self, number: usize) -> String {
        self.feed(Event::Booted { worker: self.worker(number), kind: WorkerKind::Spawn })
    }

    fn boot_failed(&mut self, number: usize) -> String {
        let error = Arc::new(SpawnError::Start(io::Error::other("no")));
        self.feed(Event::BootFailed { worker: self.worker(number), error })
    }

    fn died(&mut self, number: usize) -> String {
        self.feed(Event::Died { worker: self.worker(number) })
    }

    fn ended(&mut self, number: usize) -> String {
        self.feed(Event::RunEnded { worker: self.worker(number) })
    }

    fn reaped(&mut self, number: usize) -> String {
        self.feed(Event::Reaped { worker: self.worker(number) })
    }
}

fn letter(spec: &WorkerSpec) -> char {
    let number: u8 = spec.workspace.to_str().unwrap().parse().unwrap();
    char::from(b'a' + number)
}

fn named(profile: char) -> Arc<WorkerSpec> {
    spec("abcd".find(profile).unwrap())
}

#[test]
fn a_session_warms_its_profile_with_few_boots_at_a_time() {
    let mut m = Machine::new(PoolConfig { idle_per_profile: 3, ..config() });
    assert_eq!(m.prepare('a'), "boot a#1, boot a#2");
    assert_eq!(m.booted(2), "boot a#3");
    assert_eq!(m.booted(1), "");
    assert_eq!(m.booted(3), "");
    assert_eq!(m.prepare('a'), "", "a second session of the profile shares it");
}

#[test]
fn a_place_is_refilled_soon_after_the_run_or_during_a_long_one() {
    let mut m = Machine::warm(config(), "a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #1");
    assert_eq!(m.wait(3), "");
    assert_eq!(m.ended(1), "", "the answer is on its way");
    assert_eq!(m.reaped(1), "");
    assert_eq!(m.wait(4), "");
    assert_eq!(m.wait(1), "boot a#3");
    assert_eq!(m.booted(3), "");

    assert_eq!(m.lease(2, 'a', 1), "grant 2 #2");
    assert_eq!(m.wait(99), "");
    assert_eq!(m.wait(1), "boot a#4", "a long run does not hold its place");
}

#[test]
fn workers_of_another_kind_are_replaced_one_by_one() {
    let mut m = Machine::new(config());
    assert_eq!(m.prepare('a'), "boot a#1, boot a#2");
    assert_eq!(m.booted(1), "");
    let change = |m: &mut Machine, kind| m.feed(Event::KindChanged { spec: named('a'), kind });
    let forked =
        |m: &mut Machine, number| m.feed(Event::Booted { worker: m.worker(number), kind: WorkerKind::Fork });
    assert_eq!(change(&mut m, WorkerKind::Fork), "boot a#3");
    assert_eq!(m.booted(2), "", "begun before the change, so it is replaced in its turn");
    assert_eq!(forked(&mut m, 3), "retire #1 Superseded, boot a#4");
    assert_eq!(m.booted(4), "retire #2 Superseded", "what begins after the change is as it can be");
    assert_eq!(change(&mut m, WorkerKind::Fork), "boot a#5", "but not when there is another change");
    assert_eq!(forked(&mut m, 5), "retire #4 Superseded");
    assert_eq!(change(&mut m, WorkerKind::Fork), "", "nothing is of another kind");
}

#[test]
fn running_jobs_keep_boot_slots_to_themselves() {
    let mut m = Machine::warm(config(), "a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #1");
    assert_eq!(m.lease(2, 'a', 1), "grant 2 #2");
    assert_eq!(m.wait(100), "boot a#3", "not two at once while two jobs run");
    assert_eq!(m.booted(3), "boot a#4");
}

#[test]
fn sessions_take_turns_and_each_is_served_in_order() {
    let mut m = Machine::new(PoolConfig { idle_per_profile: 0, parallel_boots: 1, ..config() });
    assert_eq!(m.lease(11, 'a', 1), "boot a#1");
    for waiter in [12, 13] {
        assert_eq!(m.lease(waiter, 'a', 1), "");
    }
    assert_eq!(m.lease(21, 'a', 2), "");
    assert_eq!(m.lease(31, 'a', 3), "");
    assert_eq!(m.lease(22, 'a', 2), "");
    assert_eq!(m.booted(1), "grant 11 #1, boot a#2");
    assert_eq!(m.booted(2), "grant 21 #2, boot a#3");
    assert_eq!(m.booted(3), "grant 31 #3, boot a#4");
    assert_eq!(m.booted(4), "grant 12 #4, boot a#5");
    assert_eq!(m.booted(5), "grant 22 #5, boot a#6");
    assert_eq!(m.feed(Event::WaiterGone { waiter: WaiterId(13) }), "");
    assert_eq!(m.booted(6), "retire #6 Surplus", "nobody is left to wait for it");
}

#[test]
fn boots_follow_the_turns_over_all_profiles_and_come_before_refills() {
    let mut m = Machine::new(PoolConfig { idle_per_profile: 1, parallel_boots: 1, ..config() });
    assert_eq!(m.lease(11, 'a', 1), "boot a#1");
    assert_eq!(m.lease(12, 'a', 1), "");
    assert_eq!(m.lease(21, 'b', 2), "");
    assert_eq!(m.booted(1), "grant 11 #1, boot b#2", "session 2 is next, not the caller who came next");
    assert_eq!(m.booted(2), "grant 21 #2, boot a#3");
    assert_eq!(m.booted(3), "grant 12 #3");
    assert_eq!(m.wait(100), "boot b#4", "only now something is booted in reserve");
}

#[test]
fn a_full_queue_or_a_wait_that_is_over_is_busy() {
    let mut m = Machine::new(PoolConfig { idle_per_profile: 0, queue_capacity: 2, ..config() });
    assert_eq!(m.lease_within(1, 'a', 1, Some(Duration::ZERO)), "refuse 1 busy 0 0ns");
    assert_eq!(m.lease_within(2, 'a', 1, Some(50 * MS)), "boot a#1");
    assert_eq!(m.lease(3, 'a', 2), "boot a#2");
    assert_eq!(m.lease(4, 'a', 3), "refuse 4 busy 2 0ns");
    assert_eq!(m.wait(49), "");
    assert_eq!(m.wait(1), "refuse 2 busy 1 50ms");
    assert_eq!(m.booted(1), "grant 3 #1");
}

#[test]
fn the_idle_budget_goes_to_the_profiles_used_last() {
    let mut m = Machine::warm(config(), "ab");
    m.now += MS;
    assert_eq!(m.prepare('c'), "boot c#5, boot c#6");
    assert_eq!(m.booted(5), "retire #1 Budget");
    assert_eq!(m.booted(6), "retire #2 Budget", "down to zero, and `a` is not booted again");
    m.reaped(1);
    m.reaped(2);
    m.now += MS;
    assert_eq!(m.lease(1, 'a', 1), "boot a#7, boot a#8");
    assert_eq!(m.booted(7), "grant 1 #7");
    let retired = m.booted(8);
    assert!(
        ["retire #3 Budget", "retire #4 Budget"].contains(&retired.as_str()),
        "`b` is last now: {retired}"
    );
}

#[test]
fn a_caller_gets_room_from_the_profile_used_longest_ago_once_it_is_free() {
    let mut m = Machine::warm(PoolConfig { max_workers: 4, ..config() }, "ab");
    m.now += MS;
    assert_eq!(m.lease(1, 'c', 1), "retire #1 Room");
    assert_eq!(m.lease(2, 'c', 1), "retire #2 Room");
    assert_eq!(m.reaped(1), "boot c#5");
    assert_eq!(m.reaped(2), "boot c#6");
    assert_eq!(m.booted(5), "grant 1 #5");
    assert_eq!(m.booted(6), "grant 2 #6");
    assert_eq!(m.wait(100), "", "a refill takes no room from the idle workers of others");
}

#[test]
fn a_refill_gets_room_from_idle_workers_beyond_their_allowance() {
    let mut m = Machine::warm(PoolConfig { max_workers: 4, ..config() }, "ab");
    m.now += MS;
    assert_eq!(m.prepare('c'), "retire #1 Budget");
    assert_eq!(m.reaped(1), "boot c#5, retire #2 Budget");
    assert_eq!(m.reaped(2), "boot c#6");
}

#[test]
fn old_workers_are_replaced_one_at_a_time_and_not_before_there_is_a_new_one() {
    let mut m = Machine::warm(config(), "a");
    let aged = m.tick();
    assert!(m.now >= config().max_idle_age / 2 && m.now <= config().max_idle_age + MS, "{:?}", m.now);
    assert_eq!(aged, "boot a#3");
    assert_eq!(m.wait(1_900_000), "", "both are too old, one is being replaced");
    let replaced = m.booted(3);
    let (first, rest) = replaced.split_once(", ").unwrap();
    assert!(["retire #1 Age", "retire #2 Age"].contains(&first), "{replaced}");
    assert_eq!(rest, "boot a#4");
    assert!(m.booted(4).ends_with(" Age"));
}

#[test]
fn in_a_full_pool_an_old_worker_makes_room_for_its_replacement() {
    let mut m = Machine::warm(PoolConfig { max_workers: 2, ..config() }, "a");
    let retired = m.tick();
    assert!(retired == "retire #1 Age" || retired == "retire #2 Age", "{retired}");
    assert_eq!(m.wait(1_900_000), "", "one at a time");
    let number = if retired.contains('1') { 1 } else { 2 };
    assert_eq!(m.reaped(number), "boot a#3");
}

#[test]
fn the_breaker_opens_probes_once_and_backs_off() {
    let mut m = Machine::new(PoolConfig { idle_per_profile: 0, breaker_failures: 2, ..config() });
    let breaker = |m: &Machine| m.state.status(m.now).profiles[0].breaker;
    assert_eq!(m.lease(1, 'a', 1), "boot a#1");
    assert_eq!(m.lease(2, 'a', 2), "boot a#2");
    assert_eq!(m.boot_failed(1), "", "the next attempt is paced");
    assert_eq!(m.boot_failed(2), "breaker a", "those who wait are held until it has been tried again");
    assert_eq!(m.lease_within(3, 'a', 1, Some(MS)), "");
    assert_eq!(m.wait(1), "refuse 3 broken", "its time is over");
    let BreakerStatus::Open { retry_in_ms } = breaker(&m) else { panic!("{:?}", breaker(&m)) };
    assert!((499..1_000).contains(&retry_in_ms), "{retry_in_ms}");
    assert_eq!(m.tick(), "boot a#3", "one probe");
    assert_eq!(breaker(&m), BreakerStatus::HalfOpen);
    assert_eq!(m.lease(4, 'a', 1), "");
    assert_eq!(m.boot_failed(3), "breaker a, refuse 1 broken, refuse 2 broken, refuse 4 broken");
    assert_eq!(m.lease(5, 'a', 2), "refuse 5 broken");
    let BreakerStatus::Open { retry_in_ms } = breaker(&m) else { panic!("{:?}", breaker(&m)) };
    assert!((1_000..=2_000).contains(&retry_in_ms), "{retry_in_ms}");
    m.tick();
    assert_eq!(m.lease(6, 'a', 1), "boot a#4");
    assert_eq!(m.lease(7, 'a', 2), "");
    assert_eq!(m.booted(4), "grant 6 #4, boot a#5");
    assert_eq!(breaker(&m), BreakerStatus::Closed);
}

#[test]
fn an_open_breaker_leaves_idle_workers_and_other_profiles_alone() {
    let config = PoolConfig { breaker_failures: 1, ..config() };
    let mut m = Machine::warm(config, "ab");
    assert_eq!(m.died(1), "retire #1 Died, boot a#5");
    assert_eq!(m.boot_failed(5), "breaker a");
    assert_eq!(m.tick(), "boot a#6");
    assert_eq!(m.boot_failed(6), "breaker a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #2");
    assert_eq!(m.lease(2, 'a', 1), "refuse 2 broken");
    assert!(m.lease(3, 'b', 1).starts_with("grant 3"));
}

#[test]
fn idle_workers_that_keep_dying_are_replaced_ever_more_slowly() {
    let mut m = Machine::warm(PoolConfig { idle_per_profile: 1, ..config() }, "a");
    assert_eq!(m.died(1), "retire #1 Died, boot a#2");
    m.booted(2);
    assert_eq!(m.died(2), "retire #2 Died");
    assert_eq!(m.wait(99), "");
    assert_eq!(m.wait(1), "boot a#3");
    m.booted(3);
    assert_eq!(m.died(3), "retire #3 Died");
    assert_eq!(m.wait(199), "");
    assert_eq!(m.lease(1, 'a', 1), "boot a#4", "a caller does not wait for that");
    assert_eq!(m.booted(4), "grant 1 #4");
}

#[test]
fn an_unused_profile_is_emptied_and_forgotten() {
    let config = PoolConfig { max_idle_age: Duration::from_secs(24 * 3600), ..config() };
    let mut m = Machine::warm(config, "a");
    assert_eq!(m.wait(3_600_000), "", "a session holds it");
    assert_eq!(m.release('a'), "");
    assert_eq!(m.wait(599_999), "");
    let retired = m.tick();
    assert_eq!(retired.matches("Unused").count(), 2, "{retired}");
    assert_eq!(m.reaped(1), "");
    assert_eq!(m.state.status(m.now).profiles.len(), 1);
    assert_eq!(m.reaped(2), "");
    let status = m.state.status(m.now);
    assert!(status.profiles.is_empty());
    assert_eq!(status.totals.retired(RetireReason::Unused), 2, "totals outlive the profile");
    assert_eq!(m.state.wake_at(m.now), None);
}

#[test]
fn a_new_epoch_retires_idle_workers_now_and_booting_ones_when_ready() {
    let mut m = Machine::warm(config(), "a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #1");
    assert_eq!(m.wait(100), "boot a#3");
    let replaced = m.feed(Event::RetireIdle { reason: RetireReason::DenoReplaced });
    assert_eq!(replaced, "retire #2 DenoReplaced", "one job runs, so one boots at a time");
    assert_eq!(m.booted(3), "retire #3 DenoReplaced, boot a#4");
    assert_eq!(m.ended(1), "boot a#5");
}

#[test]
fn a_worker_that_reached_nobody_serves_the_next_caller_unless_it_is_outdated() {
    let mut m = Machine::warm(PoolConfig { idle_per_profile: 1, parallel_boots: 1, ..config() }, "a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #1");
    assert_eq!(m.lease(2, 'a', 1), "boot a#2");
    assert_eq!(m.feed(Event::Unclaimed { worker: m.worker(1) }), "grant 2 #1");
    m.feed(Event::RetireIdle { reason: RetireReason::DenoReplaced });
    assert_eq!(m.feed(Event::Unclaimed { worker: m.worker(1) }), "retire #1 DenoReplaced");
}

#[test]
fn draining_boots_nothing_and_kills_at_the_deadline() {
    let mut m = Machine::warm(config(), "a");
    assert_eq!(m.lease(1, 'a', 1), "grant 1 #1");
    assert_eq!(m.lease(2, 'b', 1), "boot b#3");
    let deadline = m.now + 100 * MS;
    assert_eq!(m.feed(Event::Drain { deadline }), "refuse 2 draining, retire #2 Drained");
    assert_eq!(m.lease(3, 'a', 1), "refuse 3 draining");
    assert_eq!(m.reaped(2), "");
    assert_eq!(m.tick(), "retire #1 Deadline, retire #3 Deadline");
    assert_eq!(m.now, deadline);
    assert_eq!(m.booted(3), "retire #3 Deadline", "it was ready in the same moment");
    assert_eq!(m.reaped(3), "");
    assert_eq!(m.feed(Event::LeaseDropped { worker: m.worker(1) }), "retire #1 Deadline");
    assert!(!m.state.is_drained());
    assert_eq!(m.reaped(1), "");
    assert!(m.state.is_drained());
}

#[test]
fn status_tells_what_there_is() {
    let mut m = Machine::warm(config(), "a");
    m.now += 40 * MS;
    m.lease(1, 'a', 1);
    let status = m.state.status(m.now);
    let profile = &status.profiles[0];
    assert_eq!((profile.idle, profile.busy, profile.registrations), (1, 1, 1));
    assert_eq!(profile.idle_ages_ms, [40]);
    assert_eq!((profile.id.len(), profile.source.as_str()), (12, "spawn"));
    assert_eq!((status.totals.booted, status.totals.leased), (2, 1));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["profiles"][0]["breaker"]["state"], "closed");
    assert_eq!(serde_json::from_value::<crate::status::PoolStatus>(json).unwrap(), status);
}
