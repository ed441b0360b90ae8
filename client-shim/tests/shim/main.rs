//! The real `conductor-shim` between a test that plays the IDE and a test that plays the daemon: real pipes, a real socket,
//! real frames, and faults at chosen points.

mod autostart;
mod daemon;
mod faults;
mod ide;
mod pipes;

use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Peer};
use crate::ide::Ide;

/// How long anything may take before a test fails: generous, it only bounds a failure.
const PATIENCE: Duration = Duration::from_secs(30);

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}})
}

fn call(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": {"name": "run_deno_code"}})
}

fn result(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "result": {"ok": true}})
}

fn error_of(answer: &Value) -> (&Value, i64, &str) {
    let error = &answer["error"];
    (&answer["id"], error["code"].as_i64().expect("an error"), error["message"].as_str().expect("a message"))
}

/// A session that has been through `initialize`.
fn session() -> (Daemon, Ide, Peer) {
    let daemon = Daemon::listen();
    let mut ide = Ide::start(&daemon.socket, &[]);
    let mut peer = daemon.accept();
    ide.send(&initialize());
    assert_eq!(peer.receive(), initialize());
    peer.send(&result(0));
    assert_eq!(ide.receive(), result(0));
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    ide.send(&initialized);
    assert_eq!(peer.receive(), initialized);
    (daemon, ide, peer)
}

/// The next daemon takes the session up: it is told what the last one knew, and its answer goes nowhere.
fn taken_up(daemon: &Daemon) -> Peer {
    let mut peer = daemon.accept();
    let replayed = peer.receive();
    assert_eq!((&replayed["method"], &replayed["params"]), (&json!("initialize"), &initialize()["params"]));
    peer.send(&result(replayed["id"].clone()));
    assert_eq!(peer.receive()["method"], "notifications/initialized");
    peer
}
