//! What an import in the call takes: of a package that nobody has imported, and of one that the worker has ahead of time.

use std::time::Duration;

use super::bed::{Bed, PACKAGES};
use super::cost::Cost;
use super::progress;
use super::report::{Budget, Report, Timing, Unit};
use super::session::Session;
use crate::wait::wait_for;

/// Profiles, and what the figures call them.
pub(super) const PROFILES: [(&str, &str); 3] =
    [("packages-cold", COLD), ("packages-spawn", "spawn, preloaded"), ("packages-fork", "fork, preloaded")];
const COLD: &str = "not preloaded";

/// For a registry to answer, and for templates.
const FETCH: Duration = Duration::from_secs(180);

/// Calls whose CPU time is measured together.
const TURN: usize = 10;

pub(super) fn import_of(package: &str) -> String {
    format!("import of {package}")
}

/// Everything about imports; nothing, after a loud notice, where the packages cannot be had.
pub(super) fn imports(bed: &Bed, samples: usize, report: &mut Report) {
    let mut sessions = PROFILES.map(|(profile, of)| (bed.session_with_packages(profile), of));
    if let Err(why) = wait_for_packages(bed, &mut sessions) {
        progress(&format!("\n*** NOT MEASURED: packages cannot be fetched here: {why}\n"));
        return;
    }
    for package in PACKAGES {
        let code = format!(
            "const started = performance.now(); await import('npm:{package}'); performance.now() - started"
        );
        let mut times = PROFILES.map(|_| Vec::new());
        for _ in 0..samples {
            for ((session, _), times) in sessions.iter_mut().zip(&mut times) {
                bed.wait_until_quiet();
                let milliseconds = session.value(&code).as_f64().expect("code gave its time");
                times.push(Duration::from_secs_f64(milliseconds / 1e3));
            }
        }
        for ((_, of), times) in PROFILES.into_iter().zip(times) {
            let timing = Timing::new(import_of(package), of, times);
            report.timing(&timing);
            if of != COLD {
                let p50 = timing.percentile_ms(50);
                let name = format!("{}, p50", import_of(package));
                report.budgeted(&name, of, p50, Unit::Milliseconds, Budget::AtMost(1.0));
            }
        }
    }
    cpu(bed, &mut sessions, samples.div_ceil(TURN), report);
}

/// The whole cost of calls that import the heaviest of them.
fn cpu(bed: &Bed, sessions: &mut [(Session, &str)], turns: usize, report: &mut Report) {
    let mut costs: Vec<Cost> = sessions.iter().map(|_| Cost::default()).collect();
    for _ in 0..turns {
        for ((session, _), cost) in sessions.iter_mut().zip(&mut costs) {
            let shim = session.pid();
            cost.add(
                TURN,
                || bed.cpu(&[shim]),
                || {
                    for _ in 0..TURN {
                        session.call("await import('npm:axios'); 1");
                    }
                },
            );
        }
    }
    for ((_, of), cost) in sessions.iter().zip(costs) {
        report.figure("CPU per call that imports axios", of, cost.cpu_ms(), Unit::Milliseconds);
    }
}

/// Until every profile has its packages, and imports ahead of time what it is to.
fn wait_for_packages(bed: &Bed, sessions: &mut [(Session, &str)]) -> Result<(), String> {
    let ready = wait_for("the packages are there", FETCH, || {
        let status = bed.status();
        let of_profiles: Vec<_> =
            status.packages.iter().filter(|packages| packages.profile.starts_with("packages-")).collect();
        if let Some(error) = of_profiles.iter().find_map(|packages| packages.error.clone()) {
            return Ok(Err(error));
        }
        let there = |name: &str, preloaded| {
            of_profiles.iter().any(|packages| {
                packages.profile == name && packages.layer.is_some() && packages.preloaded.len() == preloaded
            })
        };
        let counts = [0, PACKAGES.len(), PACKAGES.len()];
        let all = PROFILES.iter().zip(counts).all(|((name, _), preloaded)| there(name, preloaded));
        if all { Ok(Ok(())) } else { Err(format!("{of_profiles:#?}")) }
    });
    ready?;
    // Workers made from now on have them.
    for (session, _) in sessions.iter_mut() {
        session.call("1 + 1");
    }
    if let Some((forking, _)) = sessions.last_mut() {
        bed.wait_until_forking(forking);
    }
    for left_out in bed.status().pool.profiles.iter().flat_map(|profile| &profile.left_out) {
        progress(&format!("imported by each fork: {left_out}"));
    }
    Ok(())
}
