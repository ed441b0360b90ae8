//! What it takes to have something to fork: once for each Deno, and for each profile.

use std::time::Instant;

use super::bed::{Bed, Way};
use super::proc::{Counts, mebibytes};
use super::report::{Report, Unit};

/// The first of a daemon, which is preceded by the trial of this Deno. Nothing has been forked before.
pub(super) fn first(bed: &Bed, report: &mut Report) {
    let started = Instant::now();
    let mut session = bed.session_of(Way::Fork);
    bed.wait_until_forking(&mut session);
    let took = started.elapsed().as_secs_f64();
    report.figure("first template of a daemon, until it serves", "", took, Unit::Seconds);
}

/// Another, beside the one that is there.
pub(super) fn another(bed: &Bed, report: &mut Report) {
    bed.wait_until_quiet();
    let (before, started) = (bed.templates(), Instant::now());
    let mut session = bed.session_of_new_profile(Way::Fork, "another");
    bed.wait_until_forking(&mut session);
    let took = started.elapsed().as_secs_f64();
    report.figure("another template, until it serves", "", took, Unit::Seconds);
    let new = bed.templates().into_iter().find(|pid| !before.contains(pid));
    let template = new.expect("another profile has a template of its own");
    let counts = Counts::of(template).expect("it serves");
    let cpu = counts.all_cpu().as_secs_f64() * 1e3;
    report.figure("another template, CPU with its self-test", "", cpu, Unit::Milliseconds);
    let memory = |fields: &[&str]| mebibytes(template, "smaps_rollup", fields);
    report.figure("a template, PSS", "", memory(&["Pss"]), Unit::Mebibytes);
    let private = memory(&["Private_Clean", "Private_Dirty"]);
    report.figure("a template, memory of its own", "", private, Unit::Mebibytes);
    report.figure("a template, RSS", "", memory(&["Rss"]), Unit::Mebibytes);
}
