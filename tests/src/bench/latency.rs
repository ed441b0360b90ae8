//! How long calls take, warm and cold in turns.

use std::thread;
use std::time::{Duration, Instant};

use super::bed::Bed;
use super::report::{Report, Timing, Unit};

/// Plain JavaScript, so that a cold run has nothing to translate.
const TRIVIAL: &str = "1 + 1";

/// Prints 64 KiB, the content of a pipe.
const PRINTING: &str = "console.log('x'.repeat(65535))";

/// Between two calls of someone who reads the answer; by then a used worker has been replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// One call at a time with pauses: what an agent does.
pub(super) fn paused(bed: &Bed, samples: usize, report: &mut Report) {
    let (cold, warm) = in_turns(bed, TRIVIAL, samples);
    let cold = Timing::new("deno run, every 100 ms", cold);
    let warm = Timing::new("call, every 100 ms", warm);
    report.timing(&cold);
    report.timing(&warm);
    let ratio = |percent| warm.percentile_ms(percent) / cold.percentile_ms(percent);
    report.budgeted("call / deno run, every 100 ms, p50", ratio(50), Unit::Part, 1.0 / 12.0);
    report.budgeted("call / deno run, every 100 ms, p99", ratio(99), Unit::Part, 1.0 / 3.0);
}

/// Calls whose output fills a pipe.
pub(super) fn output(bed: &Bed, samples: usize, report: &mut Report) {
    let (cold, warm) = in_turns(bed, PRINTING, samples);
    report.timing(&Timing::new("deno run, 64 KiB of output", cold));
    report.timing(&Timing::new("call, 64 KiB of output", warm));
}

fn in_turns(bed: &Bed, code: &str, samples: usize) -> (Vec<Duration>, Vec<Duration>) {
    let script = bed.cold.script("turns.js", code);
    let mut session = bed.session();
    bed.wait_until_quiet();
    let turn = || {
        thread::sleep(PAUSE);
        let cold = bed.cold.run(&script);
        thread::sleep(PAUSE);
        (cold, session.call(code))
    };
    std::iter::repeat_with(turn).take(samples).unzip()
}

/// One call at a time without a pause: what a script does.
pub(super) fn back_to_back(bed: &Bed, samples: usize, report: &mut Report) {
    const TURN: usize = 20;
    let script = bed.cold.script("back-to-back.js", TRIVIAL);
    let mut session = bed.session();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..samples.div_ceil(TURN) {
        bed.wait_until_quiet();
        cold.extend((0..TURN).map(|_| bed.cold.run(&script)));
        warm.extend((0..TURN).map(|_| session.call(TRIVIAL)));
    }
    report.timing(&Timing::new("deno run, back to back", cold));
    report.timing(&Timing::new("call, back to back", warm));
}

/// Four times as many calls at once as there are idle workers.
pub(super) fn bursts(bed: &Bed, samples: usize, report: &mut Report) {
    let size = usize::try_from(4 * bed.idle_target).expect("a few");
    let script = bed.cold.script("burst.js", TRIVIAL);
    let mut session = bed.session();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        bed.wait_until_quiet();
        thread::scope(|scope| {
            let runs: Vec<_> = (0..size).map(|_| scope.spawn(|| bed.cold.run(&script))).collect();
            cold.extend(runs.into_iter().map(|run| run.join().expect("a run ends well")));
        });
        let started = Instant::now();
        for _ in 0..size {
            session.start(TRIVIAL);
        }
        warm.extend((0..size).map(|_| {
            session.next();
            started.elapsed()
        }));
    }
    report.timing(&Timing::new(format!("deno run, {size} at once"), cold));
    report.timing(&Timing::new(format!("call, {size} at once"), warm));
}

/// The first call of a profile that has no workers yet.
pub(super) fn new_profiles(bed: &Bed, samples: usize, report: &mut Report) {
    let first_call = |n| {
        let mut session = bed.session_of_new_profile(&format!("profile-{n}"));
        let took = session.call(TRIVIAL);
        drop(session);
        bed.settle();
        took
    };
    report.timing(&Timing::new("a new profile's first call", (0..samples).map(first_call).collect()));
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
    let answered = Timing::new("shim start to initialize's answer", answered);
    report.timing(&answered);
    report.timing(&Timing::new("shim start to first call's answer", called));
    report.budgeted("shim start to first answer, p50", answered.percentile_ms(50), Unit::Milliseconds, 10.0);
}
