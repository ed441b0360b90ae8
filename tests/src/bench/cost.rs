//! What calls cost the machine when there is always another call waiting.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::bed::{Bed, Way};
use super::report::{Budget, Report, Unit};
use super::session::Session;

pub(super) const CPU: &str = "CPU per call, all processes";
pub(super) const RATIO: &str = "CPU per call / CPU of a bare boot";
pub(super) const RATE: &str = "calls per second, all CPUs busy";
const RATE_RATIO: &str = "calls per second / those of deno run";

/// Calls that each session keeps under way: enough that no worker waits for a client.
const IN_FLIGHT: usize = 4;

/// Calls, or runs, of each caller in one turn.
const TURN: usize = 25;

/// CPU time and rate of calls while all CPUs are busy, against those of `deno run` with an empty script.
pub(super) fn saturation(bed: &Bed, turns: usize, report: &mut Report) {
    let callers = thread::available_parallelism().map_or(1, usize::from);
    let empty = bed.cold.script("empty.js", "");
    let sessions = Way::WARM.map(|way| (0..callers).map(|_| bed.session_of(way)).collect::<Vec<_>>());
    let (mut runs, mut calls) = (Cost::default(), [Cost::default(), Cost::default()]);
    let mut sessions = sessions.into_iter().zip(Way::WARM).collect::<Vec<_>>();
    for _ in 0..turns {
        bed.wait_until_quiet();
        runs.add(callers * TURN, children_cpu, || {
            in_parallel(vec![(); callers], |()| {
                (0..TURN).for_each(|_| {
                    bed.cold.run(&empty);
                })
            })
        });
        for ((sessions, way), cost) in sessions.iter_mut().zip(&mut calls) {
            let shims: Vec<i32> = sessions.iter().map(Session::pid).collect();
            let turn = turn_of(*way);
            cost.add(
                callers * turn,
                || bed.cpu(&shims),
                || {
                    in_parallel(sessions.iter_mut().collect(), |session| keep_busy(session, turn));
                },
            );
        }
    }
    let costs = [(Way::Cold, &runs), (Way::Spawn, &calls[0]), (Way::Fork, &calls[1])];
    for (way, cost) in costs {
        report.figure(CPU, way.name(), cost.cpu_ms(), Unit::Milliseconds);
    }
    for ((way, cost), most) in costs.into_iter().skip(1).zip([1.3, 0.3]) {
        let ratio = cost.cpu_ms() / runs.cpu_ms();
        report.budgeted(RATIO, way.name(), ratio, Unit::Times, Budget::AtMost(most));
    }
    for (way, cost) in costs {
        report.figure(RATE, way.name(), cost.rate(), Unit::PerSecond);
    }
    let [spawn, fork] = calls.map(|cost| cost.rate() / runs.rate());
    report.figure(RATE_RATIO, Way::Spawn.name(), spawn, Unit::Times);
    report.budgeted(RATE_RATIO, Way::Fork.name(), fork, Unit::Times, Budget::AtLeast(4.0));
}

/// Turns are to take about as long in every way.
fn turn_of(way: Way) -> usize {
    if way == Way::Fork { 5 * TURN } else { TURN }
}

/// What several turns took together.
#[derive(Debug, Default)]
pub(super) struct Cost {
    calls: usize,
    cpu: Duration,
    wall: Duration,
}

impl Cost {
    pub(super) fn add(&mut self, calls: usize, cpu: impl Fn() -> Duration, turn: impl FnOnce()) {
        let before = cpu();
        let started = Instant::now();
        turn();
        self.wall += started.elapsed();
        self.cpu += cpu().saturating_sub(before);
        self.calls += calls;
    }

    pub(super) fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / number(self.calls)
    }

    fn rate(&self) -> f64 {
        number(self.calls) / self.wall.as_secs_f64()
    }
}

pub(super) fn in_parallel<T: Send>(callers: Vec<T>, turn: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for caller in callers {
            scope.spawn(|| turn(caller));
        }
    });
}

/// One session's turn: the next call leaves when an answer comes.
fn keep_busy(session: &mut Session, calls: usize) {
    for sent in 0..calls + IN_FLIGHT {
        if sent >= IN_FLIGHT {
            session.next();
        }
        if sent < calls {
            session.start("1 + 1");
        }
    }
}

/// CPU time of this program's children that have ended.
fn children_cpu() -> Duration {
    cpu_of(UsageWho::RUSAGE_CHILDREN)
}

pub(super) fn cpu_of(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("a valid question");
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.unsigned_abs())
}

pub(super) fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("counts are small"))
}
