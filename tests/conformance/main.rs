//! The official conformance suite: exactly what each revision requires, and what it runs without counting.
//!
//! It speaks HTTP only. First it runs against the server of its own (`conductor_tests::conformance`), so that a failure behind
//! conductor is conductor's; then against conductor with that server behind it, under the names that the suite asks for. The
//! other way round it is the server, and the client is the one with which conductor uses its upstream servers.

mod front;
mod run;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use conductor_tests::clients::ConformanceSuite;
use conductor_tests::{Home, binaries};

use front::Front;
use run::check;
use serde_json::json;

/// The server of the suite over HTTP, without conductor.
struct Alone {
    child: Child,
    url: String,
}

impl Alone {
    fn start() -> Self {
        let mut command = Command::new(binaries::conformance_server());
        let mut child = command.arg("http").stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut url).expect("a line");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }
}

#[test]
fn the_suites_server_itself() {
    let Some(suite) = ConformanceSuite::fetch() else { return };
    let (home, server) = (Home::new(), Alone::start());
    for revision in run::REVISIONS {
        check(&suite, &home, "suite-server", &server.url, revision);
    }
}

#[test]
fn conductor_in_front_of_a_process() {
    let Some(suite) = ConformanceSuite::fetch() else { return };
    let front = Front::start(json!({ "command": binaries::conformance_server(), "args": ["stdio"] }));
    for revision in run::REVISIONS {
        check(&suite, &front.home, "conductor", &front.url, revision);
    }
}

#[test]
fn conductor_in_front_of_an_http_server() {
    let Some(suite) = ConformanceSuite::fetch() else { return };
    let server = Alone::start();
    let front = Front::start(json!({ "url": server.url }));
    for revision in run::REVISIONS {
        check(&suite, &front.home, "conductor", &front.url, revision);
    }
}

#[test]
fn conductor_as_a_client() {
    let Some(suite) = ConformanceSuite::fetch() else { return };
    let home = Home::new();
    for revision in run::REVISIONS {
        run::check_client(&suite, &home, revision);
    }
}
