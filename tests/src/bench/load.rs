//! Calls per second and the time of each, with so many callers that each have one call under way.

use std::thread;
use std::time::{Duration, Instant};

use super::bed::{Bed, Caller, Way};
use super::cost::number;
use super::report::{Report, Timing, Unit};

pub(super) const CALLERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// In each of them callers begin calls for this long; those under way then are waited for.
const TURN: Duration = Duration::from_secs(1);

/// What the calls per second with this many callers are called.
pub(super) fn rate(callers: usize) -> String {
    format!("calls per second, callers: {callers}")
}

pub(super) fn measure(bed: &Bed, turns: usize, report: &mut Report) {
    let task = bed.task("load.js", "1 + 1");
    for callers in CALLERS {
        let mut crowds = Way::ALL.map(|way| Crowd::new(way, (0..callers).map(|_| bed.caller(way, &task))));
        for _ in 0..turns {
            for crowd in &mut crowds {
                bed.wait_until_quiet();
                crowd.turn();
            }
        }
        for crowd in crowds {
            crowd.tell(report);
        }
    }
}

/// Callers of one way, and what their calls took.
struct Crowd<'a> {
    way: Way,
    callers: Vec<Caller<'a>>,
    times: Vec<Duration>,
    wall: Duration,
}

impl<'a> Crowd<'a> {
    fn new(way: Way, callers: impl Iterator<Item = Caller<'a>>) -> Self {
        Self { way, callers: callers.collect(), times: Vec::new(), wall: Duration::ZERO }
    }

    fn turn(&mut self) {
        let started = Instant::now();
        let calls = |caller: &mut Caller<'_>| {
            let mut times = Vec::new();
            while started.elapsed() < TURN {
                times.push(caller.call());
            }
            times
        };
        thread::scope(|scope| {
            let running: Vec<_> =
                self.callers.iter_mut().map(|caller| scope.spawn(|| calls(caller))).collect();
            self.times.extend(running.into_iter().flat_map(|caller| caller.join().expect("calls end well")));
        });
        self.wall += started.elapsed();
    }

    fn tell(self, report: &mut Report) {
        let (callers, calls) = (self.callers.len(), number(self.times.len()));
        report.figure(&rate(callers), self.way.name(), calls / self.wall.as_secs_f64(), Unit::PerSecond);
        report.timing(&Timing::new(format!("callers: {callers}"), self.way.name(), self.times));
    }
}
