//! Lists with packages of two registries, one of which is not there.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_protocol::AdminReply;
use conductor_protocol::operation::{Operation, PackagesReport};
use conductor_tests::{Daemon, Home, Operator, Shim, wait_for};

const ALLOWED: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

const LIST: &str = "npm:ms@2.1.3 jsr:@std/path@^1";

/// Far less than a fetch may take, and than a client waits.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_registry_that_refuses_takes_its_own_packages_away_and_no_others() {
    // Nothing listens there.
    without_jsr("http://127.0.0.1:9/", "jsr:@std/path@^1");
}

#[test]
fn a_registry_that_does_not_answer_takes_its_own_packages_away_and_no_others() {
    // Connections are made by the kernel, and nobody ever reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("it is bound");
    without_jsr(&format!("http://{address}/"), "not fetched within 15 s");
}

fn without_jsr(jsr: &str, says: &str) {
    let home = Home::new();
    let _daemon = Daemon::start_with(&home, |command| {
        command.env("JSR_URL", jsr);
    });
    let shim = Shim::session_with(&home, |command| {
        command.env(ALLOWED, LIST);
    });
    assert_eq!(shim.call("1 + 1").value(), 2);
    let report = wait_for("the layer of what can be had", Duration::from_secs(120), || {
        let report = list(&home);
        if report.error.is_some() { Ok(report) } else { Err(format!("{report:?}")) }
    });
    let error = report.error.expect("was waited for");
    assert!(error.contains(says), "{error}");

    let asked = Instant::now();
    assert_eq!(shim.call("import ms from 'npm:ms'; ms('1s')").value(), 1000);
    let answer = shim.call("import { join } from 'jsr:@std/path'; join('a', 'b')");
    assert_eq!(answer.error_type(), "dependency", "{}", answer.error());
    assert!(
        answer.error()["hint"].as_str().is_some_and(|hint| hint.contains("registry")),
        "{}",
        answer.error()
    );
    assert_eq!(shim.call("2 + 2").value(), 4);
    assert!(asked.elapsed() < SOON, "no call waits for a registry that is known to be away");
}

fn list(home: &Arc<Home>) -> PackagesReport {
    match Operator::operate(&home.socket(), &[(ALLOWED, LIST)], &Operation::PackagesList)
        .expect("is answered")
    {
        AdminReply::Json(json) => serde_json::from_slice(&json).expect("is the document"),
        other => panic!("{other:?}"),
    }
}
