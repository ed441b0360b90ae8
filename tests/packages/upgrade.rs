//! A layer whose caches were made by another build of conductor.

use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::AdminReply;
use conductor_protocol::operation::{Operation, PackagesReport};
use conductor_tests::{Daemon, Home, Operator, Shim, wait_for};

const ALLOWED: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

const LIST: &str = "npm:ms@2.1.3";

const TIME: Duration = Duration::from_secs(120);

#[test]
fn a_layer_of_another_build_serves_until_one_of_the_same_versions_is_warm() {
    let home = Home::new();
    let first = layer_in_use(&home, |_| true);
    let warmed_for = home.home().join(".cache/conductor/layers").join(&first).join("warmed-for");
    assert!(warmed_for.is_file(), "it says what it was warmed for");
    std::fs::write(&warmed_for, "another build").expect("the file can be written");

    let second = layer_in_use(&home, |layer| layer != first);
    let lock = |layer: &str| {
        std::fs::read(home.home().join(".cache/conductor/layers").join(layer).join("deno.lock"))
            .expect("a lock")
    };
    assert_eq!(lock(&first), lock(&second), "the versions stay");
    assert_eq!(layer_in_use(&home, |layer| layer != first), second, "it is not built again");
    let usage = home.home().join(".local/state/conductor/package-usage.json");
    let counts = std::fs::read_to_string(usage).expect("what was used is kept");
    assert!(counts.contains("npm:ms@2.1.3"), "{counts}");
}

/// The layer that a new daemon's workers run on, as soon as it is one that `is_it`.
fn layer_in_use(home: &Arc<Home>, is_it: impl Fn(&str) -> bool) -> String {
    let mut daemon = Daemon::start(home);
    let shim = Shim::session_with(home, |command| {
        command.env(ALLOWED, LIST);
    });
    assert_eq!(shim.call("import ms from 'npm:ms'; ms('1s')").value(), 1000);
    let found = wait_for("the layer", TIME, || {
        let report = list(home);
        let mut in_use = report.layers.iter().filter(|layer| layer.in_use).map(|layer| layer.id.clone());
        let is_ready = report.layer.is_some() && report.builds.is_empty();
        in_use.rfind(|layer| is_ready && is_it(layer)).ok_or_else(|| format!("{report:?}"))
    });
    assert_eq!(shim.call("import ms from 'npm:ms'; ms('2s')").value(), 2000);
    drop(shim);
    daemon.stop();
    found
}

fn list(home: &Home) -> PackagesReport {
    match Operator::operate(&home.socket(), &[(ALLOWED, LIST)], &Operation::PackagesList)
        .expect("is answered")
    {
        AdminReply::Json(json) => serde_json::from_slice(&json).expect("is the document"),
        other => panic!("{other:?}"),
    }
}
