//! How long calls take, in all ways in turns.

use std::thread;
use std::time::{Duration, Instant};

use super::bed::{Bed, Caller, Way};
use super::report::{Budget, Report, Timing, Unit};
use super::session::Session;

/// Plain JavaScript, so that a cold run has nothing to translate.
const TRIVIAL: &str = "1 + 1";

/// Prints 64 KiB, the content of a pipe.
const PRINTING: &str = "console.log('x'.repeat(65535))";

/// Between two calls of someone who reads the answer; by then a used worker has been replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls at once after a while without any: as many as models are said to make.
const BURST: usize = 50;

pub(super) const PAUSED: &str = "every 100 ms";
pub(super) const BACK_TO_BACK: &str = "back to back";
pub(super) const AT_ONCE: &str = "50 at once after a pause";

/// One call at a time with pauses: what an agent does.
pub(super) fn paused(bed: &Bed, samples: usize, report: &mut Report) {
    let [cold, spawn, fork] = in_turns(bed, PAUSED, TRIVIAL, samples);
    for (warm, times) in [(&spawn, 12.0), (&fork, 20.0)] {
        let mut ratio = |percent, budget: f64| {
            let name = format!("call / deno run, {PAUSED}, p{percent}");
            let ratio = warm.percentile_ms(percent) / cold.percentile_ms(percent);
            report.budgeted(&name, &warm.of, ratio, Unit::Part, Budget::AtMost(budget.recip()));
        };
        ratio(50, times);
        ratio(99, 3.0);
    }
    for timing in [cold, spawn, fork] {
        report.timing(&timing);
    }
}

/// Calls whose output fills a pipe.
pub(super) fn output(bed: &Bed, samples: usize, report: &mut Report) {
    for timing in in_turns(bed, "64 KiB of output", PRINTING, samples) {
        report.timing(&timing);
    }
}

fn in_turns(bed: &Bed, name: &str, code: &'static str, samples: usize) -> [Timing; 3] {
    let task = bed.task("turns.js", code);
    let mut callers = Way::ALL.map(|way| bed.caller(way, &task));
    let mut times = Way::ALL.map(|_| Vec::new());
    bed.wait_until_quiet();
    for _ in 0..samples {
        for (caller, times) in callers.iter_mut().zip(&mut times) {
            thread::sleep(PAUSE);
            times.push(caller.call());
        }
    }
    let mut times = times.into_iter();
    Way::ALL.map(|way| Timing::new(name, way.name(), times.next().expect("one for each way")))
}

/// One call at a time without a pause: what a script does.
pub(super) fn back_to_back(bed: &Bed, samples: usize, report: &mut Report) {
    const TURN: usize = 20;
    let task = bed.task("back-to-back.js", TRIVIAL);
    let mut callers = Way::ALL.map(|way| (bed.caller(way, &task), Vec::new()));
    for _ in 0..samples.div_ceil(TURN) {
        for (caller, times) in &mut callers {
            bed.wait_until_quiet();
            times.extend((0..TURN).map(|_| caller.call()));
        }
    }
    for (way, (_, times)) in Way::ALL.into_iter().zip(callers) {
        report.timing(&Timing::new(BACK_TO_BACK, way.name(), times));
    }
}

/// Many more calls at once than there are idle workers.
pub(super) fn bursts(bed: &Bed, samples: usize, report: &mut Report) {
    let task = bed.task("burst.js", TRIVIAL);
    let mut sessions = Way::WARM.map(|way| (bed.session_of(way), Vec::new()));
    let mut cold = Vec::new();
    for _ in 0..samples {
        bed.wait_until_quiet();
        cold.extend(cold_burst((0..BURST).map(|_| bed.caller(Way::Cold, &task)).collect()));
        for (session, times) in &mut sessions {
            bed.wait_until_quiet();
            times.extend(burst(session));
        }
    }
    report.timing(&Timing::new(AT_ONCE, Way::Cold.name(), cold));
    for (way, (_, times)) in Way::WARM.into_iter().zip(sessions) {
        report.timing(&Timing::new(AT_ONCE, way.name(), times));
    }
}

fn cold_burst(mut callers: Vec<Caller<'_>>) -> Vec<Duration> {
    thread::scope(|scope| {
        let runs: Vec<_> = callers.iter_mut().map(|caller| scope.spawn(|| caller.call())).collect();
        runs.into_iter().map(|run| run.join().expect("a run ends well")).collect()
    })
}

fn burst(session: &mut Session) -> Vec<Duration> {
    let started = Instant::now();
    for _ in 0..BURST {
        session.start(TRIVIAL);
    }
    let answers = (0..BURST).map(|_| {
        session.next();
        started.elapsed()
    });
    answers.collect()
}

/// What a call waits for when there is no idle worker: all of a boot, as the pool has measured those before.
pub(super) fn boots(bed: &Bed, report: &mut Report) {
    let profiles = bed.status().pool.profiles;
    for way in Way::WARM {
        let of_way = profiles.iter().find(|profile| profile.source == way.name());
        if let Some(p50) = of_way.and_then(|profile| profile.boot_p50_ms) {
            report.figure("a worker from nothing to ready, p50", way.name(), p50, Unit::Milliseconds);
        }
    }
}

/// The first call of a profile that has no workers yet.
pub(super) fn new_profiles(bed: &Bed, samples: usize, report: &mut Report) {
    let first_call = |n| {
        let mut session = bed.session_of_new_profile(Way::Spawn, &format!("profile-{n}"));
        let took = session.call(TRIVIAL);
        drop(session);
        bed.settle();
        took
    };
    report.timing(&Timing::new("a new profile's first call", "", (0..samples).map(first_call).collect()));
    // The new profiles have taken the idle workers of the default one.
    bed.session().call(TRIVIAL);
    bed.settle();
}

/// What an IDE waits for when it starts a shim while the daemon runs.
pub(super) fn first_answers(bed: &Bed, samples: usize, report: &mut Report) {
    let start = || {
        bed.wait_until_quiet();
        let (mut session, answered) = bed.timed_session();
        (answered, answered + session.call(TRIVIAL))
    };
    let (answered, called): (Vec<_>, Vec<_>) = std::iter::repeat_with(start).take(samples).unzip();
    let answered = Timing::new("shim start to initialize's answer", "", answered);
    report.timing(&answered);
    report.timing(&Timing::new("shim start to first call's answer", "", called));
    let p50 = answered.percentile_ms(50);
    let budget = Budget::AtMost(10.0);
    report.budgeted("shim start to first answer, p50", "", p50, Unit::Milliseconds, budget);
}
