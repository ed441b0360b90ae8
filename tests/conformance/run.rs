//! One run of the suite, and what is expected of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use conductor_tests::clients::ConformanceSuite;
use conductor_tests::{Home, binaries};
use serde_json::Value;

/// Revisions with a frozen set of requirements.
pub(crate) const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// How the names of results end, after the scenario's, which those of servers have `server-` before.
const TIME: &str = "-2026-11-25T12-00-00-000Z";

/// Checks that fail in scenarios which the suite itself does not count, with the reason of each. Nothing that is
/// required may stand here; the suite's exit code is about that.
const EXPECTED: &str = include_str!("expected-failures.txt");

/// Runs what a revision requires against `target`, and fails on any check that is not as expected.
#[track_caller]
pub(crate) fn check(suite: &ConformanceSuite, home: &Home, target: &str, url: &str, revision: &str) {
    check_run(suite, home, target, revision, &["server", "--url", url]);
}

/// Runs what a revision requires of clients against conductor's own.
#[track_caller]
pub(crate) fn check_client(suite: &ConformanceSuite, home: &Home, revision: &str) {
    let client = binaries::conformance_client();
    let client = client.to_str().expect("the target directory is UTF-8");
    // The scenarios run all at once, and a slow machine has few processors.
    check_run(suite, home, "client", revision, &["client", "--timeout", "120000", "--command", client]);
}

/// A scenario that fails is run by itself before it counts: the suite gives some of them fractions of a second, and runs those of
/// clients all at once, so that their servers are silent for longer than a client waits where the machine is loaded.
#[track_caller]
fn check_run(suite: &ConformanceSuite, home: &Home, target: &str, revision: &str, arguments: &[&str]) {
    let run = |what: &[&str], results: &Path| {
        let mut command = suite.command(home);
        command.args(arguments).args(what).arg("-o").arg(results);
        command.output().expect("the suite starts")
    };
    let results = home.path(&format!("conformance-{target}-{revision}"));
    let output = run(&["--requirements", revision], &results);
    let n_scenarios = results_below(&results).len();
    assert!(n_scenarios > 15, "results of {n_scenarios} scenarios");
    let (mut failed, expected) = (failed(&results), expected(target, revision));
    let is_expected = |check: &str| expected.iter().any(|expected| covers(expected, check));
    let scenario_of = |check: &str| check.split(": ").next().unwrap_or(check).to_owned();
    let again: BTreeSet<String> =
        failed.iter().filter(|check| !is_expected(check)).map(|check| scenario_of(check)).collect();
    for scenario in &again {
        failed.retain(|check| scenario_of(check) != *scenario);
        let results = home.path(&format!("again-{target}-{revision}")).join(scenario);
        let output = run(&["--scenario", scenario, "--spec-version", revision], &results);
        assert!(results.is_dir(), "no results of {scenario} by itself: {output:?}");
        failed.extend(self::failed(&results));
    }
    let unexpected: Vec<&String> = failed.iter().filter(|check| !is_expected(check)).collect();
    let passed: Vec<&String> =
        expected.iter().filter(|expected| !failed.iter().any(|check| covers(expected, check))).collect();
    assert!(
        (output.status.success() || !again.is_empty()) && unexpected.is_empty() && passed.is_empty(),
        "{target}, {revision}: {}\nfailed, and not expected: {unexpected:#?}\nexpected, and not failed: {passed:#?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn expected(target: &str, revision: &str) -> BTreeSet<String> {
    let lines = EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_revision = lines.filter_map(|line| line.strip_prefix(target)?.trim_start().strip_prefix(revision));
    of_revision.map(|line| line.trim().to_owned()).collect()
}

/// Whether an expectation is about a check, or about all of its scenario.
fn covers(expected: &str, check: &str) -> bool {
    let of_scenario = || check.strip_prefix(expected.strip_suffix('*')?);
    expected == check || of_scenario().is_some()
}

/// `scenario: check` of everything that failed. Warnings are about what should be and within how many milliseconds.
fn failed(results: &Path) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    for file in results_below(results) {
        let text = fs::read_to_string(&file).expect("checks of a scenario");
        let checks: Vec<Value> = serde_json::from_str(&text).expect("a list of checks");
        let directory = file.parent().and_then(|directory| directory.strip_prefix(results).ok());
        let name = directory.expect("it was found there").to_string_lossy().into_owned();
        let name = &name[..name.len() - TIME.len()];
        let scenario = name.strip_prefix("server-").unwrap_or(name);
        for check in checks.iter().filter(|check| check["status"] == "FAILURE") {
            failed.insert(format!("{scenario}: {}", check["id"].as_str().unwrap_or_default()));
        }
    }
    failed
}

/// The results of all scenarios, some of which have a directory in their names.
fn results_below(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).expect("the suite wrote its results").flatten().map(|entry| entry.path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.ends_with("checks.json"));
    directories.iter().flat_map(|directory| results_below(directory)).chain(here).collect()
}
