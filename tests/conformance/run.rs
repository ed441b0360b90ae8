//! One run of the suite, and what is expected of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use conductor_tests::Home;
use conductor_tests::clients::ConformanceSuite;
use serde_json::Value;

/// Revisions with a frozen set of requirements.
pub(crate) const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// Checks that fail in scenarios which the suite itself does not count, with the reason of each. Nothing that is
/// required may stand here; the suite's exit code is about that.
const EXPECTED: &str = include_str!("expected-failures.txt");

/// Runs what a revision requires against `target`, and fails on any check that is not as expected.
#[track_caller]
pub(crate) fn check(suite: &ConformanceSuite, home: &Home, target: &str, url: &str, revision: &str) {
    let results = home.path(&format!("conformance-{revision}"));
    let mut command = suite.command(home);
    command.args(["server", "--url", url, "--requirements", revision, "-o"]).arg(&results);
    let output = command.output().expect("the suite starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = failed(&results);
    let expected = expected(target, revision);
    assert!(
        output.status.success() && failed == expected,
        "{target}, {revision}: {}\nfailed, and not expected: {:#?}\nexpected, and not failed: {:#?}\n{said}{}",
        output.status,
        failed.difference(&expected),
        expected.difference(&failed),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn expected(target: &str, revision: &str) -> BTreeSet<String> {
    let lines = EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_revision = lines.filter_map(|line| line.strip_prefix(target)?.trim_start().strip_prefix(revision));
    of_revision.map(|line| line.trim().to_owned()).collect()
}

/// `scenario: check` of everything that failed. Warnings are about what should be and within how many milliseconds.
fn failed(results: &Path) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    let directories: Vec<PathBuf> = fs::read_dir(results)
        .expect("the suite wrote its results")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(directories.len() > 20, "results of {} scenarios", directories.len());
    for directory in directories {
        let text = fs::read_to_string(directory.join("checks.json")).expect("checks of a scenario");
        let checks: Vec<Value> = serde_json::from_str(&text).expect("a list of checks");
        for check in checks.iter().filter(|check| check["status"] == "FAILURE") {
            let name = directory.file_name().expect("it was listed").to_string_lossy().into_owned();
            // `server-SCENARIO-2026-11-25T12-00-00-000Z`.
            let scenario = name.split("-20").next().unwrap_or(&name).trim_start_matches("server-").to_owned();
            failed.insert(format!("{scenario}: {}", check["id"].as_str().unwrap_or_default()));
        }
    }
    failed
}
