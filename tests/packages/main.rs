//! Packages that much code uses, from the real registry, each in a session without any permission; and `docs/PACKAGES.md`,
//! whose table and examples are what these tests saw.
//!
//! With `CONDUCTOR_UPDATE_DOCS=1` the newest versions are taken and the document is written instead of compared. Numbers in
//! it are measurements of one machine and are never compared.
//!
//! The layer of all packages is built once into the target directory and used again until the list of packages, Deno or
//! the daemon's format of layers changes.

mod cases;
mod commands;
mod document;
mod registries;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cases::{CASES, Case, Outcome};
use conductor_protocol::AdminReply;
use conductor_protocol::operation::{LayerReport, Operation, PackageChanges, PackageReport, PackagesReport};
use conductor_tests::{Answer, Daemon, Home, Operator, Shim, wait_for};
use document::{Row, is_updating};
use serde::de::DeserializeOwned;
use serde_json::Value;

const PROFILE: &str = "MCP_CONDUCTOR_PROFILE";

/// The profile that imports nothing ahead of time, and the start of the names of those that do.
const COLD: &str = "cold";
const AHEAD: &str = "ahead";

/// Packages that one profile imports ahead of time: few, so that its workers boot in less than a second.
const AHEAD_AT_ONCE: usize = 4;

/// For all packages, from a registry that is slow.
const LAYER_TIME: Duration = Duration::from_secs(400);

/// An import of a package that is loaded already is a look into a map; this much is for a machine that does other work.
const LOADED_MS: f64 = 10.0;

/// Calls until one of them is not in the way of such work.
const TRIES: usize = 4;

#[test]
fn popular_packages_work_without_any_permission_and_the_document_says_how_well() {
    let home = Home::new();
    home.configure(&configuration());
    let _daemon = Daemon::start_with(&home, |command| {
        command.env("XDG_CACHE_HOME", cache());
    });
    let mut shim = session(&home, COLD);
    let layer = layer(&home);
    assert_eq!(layer.packages.len(), CASES.len(), "every package can be had");
    let mut faults = Vec::new();
    for case in CASES {
        faults.extend(fault(case, &shim.call(&case.code())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    let mut rows: Vec<Row> = CASES.iter().map(|case| Row::new(case, measured(&layer, case))).collect();
    for (number, cases) in CASES.chunks(AHEAD_AT_ONCE).enumerate() {
        shim = session(&home, &format!("{AHEAD}-{number}"));
        for (case, row) in cases.iter().zip(&mut rows[number * AHEAD_AT_ONCE..]) {
            if let Outcome::Value(value) = case.outcome {
                row.loaded_ms = Some(time_when_loaded(&shim, case, value));
            }
        }
    }
    document::table(&rows);
}

/// One list in many profiles, which makes them share one layer.
fn configuration() -> String {
    let list = quoted(CASES.iter());
    let mut text = format!("[profiles.{COLD}]\npackages = {list}\npreload = []\n");
    for (number, cases) in CASES.chunks(AHEAD_AT_ONCE).enumerate() {
        let values = cases.iter().filter(|case| matches!(case.outcome, Outcome::Value(_)));
        let names: Vec<String> = values.map(|case| format!("{:?}", case.specifier())).collect();
        text.push_str(&format!(
            "[profiles.{AHEAD}-{number}]\npackages = {list}\npreload = [{}]\n",
            names.join(", ")
        ));
    }
    text
}

fn quoted<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let quoted: Vec<String> = cases.map(|case| format!("{:?}", case.listed)).collect();
    format!("[{}]", quoted.join(", "))
}

/// Where layers stay from one run of the tests to the next.
fn cache() -> PathBuf {
    conductor_deno::testing::target_dir().join("conductor-test/packages")
}

/// A session that asks for the packages of its profile, and for no others.
fn session(home: &Arc<Home>, profile: &str) -> Shim {
    Shim::session_with(home, |command| {
        command.env(PROFILE, profile).env_remove("MCP_CONDUCTOR_ALLOWED_PACKAGES");
    })
}

/// What an operator of the first profile is told.
fn operate<T: DeserializeOwned>(home: &Home, operation: &Operation) -> T {
    match Operator::operate(&home.socket(), &[(PROFILE, COLD)], operation).expect("is answered") {
        AdminReply::Json(json) => serde_json::from_slice(&json).expect("is the document"),
        other => panic!("{operation:?}: {other:?}"),
    }
}

fn layer(home: &Home) -> LayerReport {
    let layer = wait_for("the layer of all packages", LAYER_TIME, || {
        let PackagesReport { layer, builds, error, .. } = operate(home, &Operation::PackagesList);
        layer.ok_or_else(|| format!("{builds:?} {error:?}"))
    });
    if !is_updating() {
        return layer;
    }
    let _changes: PackageChanges = operate(home, &Operation::PackagesUpdate);
    operate::<PackagesReport>(home, &Operation::PackagesList).layer.expect("an update leaves a layer")
}

fn measured(layer: &LayerReport, case: &Case) -> PackageReport {
    let found = layer.packages.iter().find(|package| package.spelling == case.listed);
    found.unwrap_or_else(|| panic!("{} is not in the layer", case.listed)).clone()
}

/// What is wrong with the answer, if anything.
fn fault(case: &Case, answer: &Answer) -> Option<String> {
    let structured = answer.structured();
    let error = &structured["error"];
    let is_right = match case.outcome {
        Outcome::Value(value) => structured["returnValue"] == json(value),
        Outcome::Refused(says, _) => {
            error["type"] == "dependency" && error["message"].as_str().is_some_and(|text| text.contains(says))
        }
        Outcome::Needs(_, says, _) => error["message"].as_str().is_some_and(|text| text.contains(says)),
    };
    (!is_right).then(|| format!("{}: {:?}, and the answer is {structured:#}", case.listed, case.outcome))
}

/// Milliseconds that the import takes in a worker that has done it before.
fn time_when_loaded(shim: &Shim, case: &Case, value: &str) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..TRIES {
        let answer = shim.call(&case.timed_code());
        assert_eq!(answer.value()[1], json(value), "{} when it is loaded already", case.listed);
        least = least.min(answer.value()[0].as_f64().expect("a time"));
        if least < LOADED_MS {
            return least;
        }
    }
    panic!("{} is not there at once when it is loaded already: {least} ms", case.listed);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("what is expected is JSON")
}
