//! What lies in memory and on disk: programs, idle workers of both kinds, and what forked ones are copies of.

use std::fs;
use std::path::Path;

use super::bed::{Bed, Way};
use super::cost::number;
use super::proc::mebibytes;
use super::report::{Budget, Report, Unit};

/// Sizes at rest, with as many spawned workers as two profiles have, and one profile's forked ones.
pub(super) fn at_rest(bed: &Bed, report: &mut Report) {
    let mut sessions =
        [bed.session(), bed.session_of_new_profile(Way::Spawn, "second"), bed.session_of(Way::Fork)];
    for session in &mut sessions {
        session.call("1 + 1");
    }
    bed.settle();
    let at_most = |mebibytes| Budget::AtMost(mebibytes);
    let shim = mebibytes(sessions[0].pid(), "status", &["VmRSS"]);
    report.budgeted("shim, RSS", "", shim, Unit::Mebibytes, at_most(4.0));
    report.budgeted("shim, file", "", file_mebibytes(&bed.shim), Unit::Mebibytes, at_most(1.0));
    let daemon = mebibytes(bed.daemon_pid(), "status", &["VmRSS"]);
    report.budgeted("daemon, RSS", "", daemon, Unit::Mebibytes, at_most(20.0));
    for way in Way::WARM {
        workers(bed, way, report);
    }
}

/// A page counts by halves for two processes that share it in the first figure, and not at all in the second.
fn workers(bed: &Bed, way: Way, report: &mut Report) {
    let workers = bed.workers(way);
    assert!(!workers.is_empty(), "there are idle workers of every kind");
    let mean = |fields: &[&str]| {
        let sum: f64 = workers.iter().map(|pid| mebibytes(*pid, "smaps_rollup", fields)).sum();
        sum / number(workers.len())
    };
    report.figure("idle workers", way.name(), number(workers.len()), Unit::Count);
    let budget = Budget::AtMost(22.0);
    report.budgeted("idle worker, PSS", way.name(), mean(&["Pss"]), Unit::Mebibytes, budget);
    let private = mean(&["Private_Clean", "Private_Dirty"]);
    report.figure("idle worker, memory of its own", way.name(), private, Unit::Mebibytes);
}

/// The daemon's size after everything else.
pub(super) fn after(bed: &Bed, report: &mut Report) {
    bed.settle();
    let rss = mebibytes(bed.daemon_pid(), "status", &["VmRSS"]);
    report.budgeted("daemon, RSS after all calls", "", rss, Unit::Mebibytes, Budget::AtMost(20.0));
}

#[expect(clippy::cast_precision_loss, reason = "files are small")]
fn file_mebibytes(path: &Path) -> f64 {
    fs::metadata(path).expect("the program is there").len() as f64 / (1024.0 * 1024.0)
}
