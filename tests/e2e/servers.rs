//! Upstream servers for tests about the client's side: one that does what it is told, and the reference server.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use conductor_deno::testing::packages;
use conductor_tests::{Daemon, Home, Shim, binaries};
use serde_json::{Value, json};

/// A daemon, and servers that its sessions have.
pub(crate) struct Bed {
    pub(crate) daemon: Daemon,
    pub(crate) home: Arc<Home>,
}

impl Bed {
    pub(crate) fn new(servers: impl FnOnce(&Home) -> Value) -> Self {
        let home = Home::new();
        let servers = servers(&home);
        configure(&home, &servers);
        Self { daemon: Daemon::start(&home), home }
    }

    /// What the mirrors noted down.
    pub(crate) fn notes(&self) -> String {
        fs::read_to_string(notes(&self.home)).unwrap_or_default()
    }
}

pub(crate) fn configure(home: &Home, servers: &Value) {
    let directory = home.home().join(".mcp-conductor");
    fs::create_dir_all(&directory).expect("makes the directory");
    let text = json!({ "mcpServers": servers }).to_string();
    fs::write(directory.join("staged"), text).expect("writes the configuration");
    fs::rename(directory.join("staged"), directory.join("mcp-config.json")).expect("puts it in place");
}

fn notes(home: &Home) -> PathBuf {
    home.path("mirror-notes")
}

/// An entry for `servers/mirror.js` with `more` in it.
pub(crate) fn mirror(home: &Home, more: Value) -> Value {
    let program = home.path("mirror.js");
    fs::write(&program, include_str!("servers/mirror.js")).expect("writes the server");
    let permissions = ["run", "--quiet", "--no-config", "--allow-read", "--allow-write"].map(Value::from);
    let args = Vec::from_iter(permissions.into_iter().chain([json!(program), json!(notes(home))]));
    let env = json!({ "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": home.path("mirror-cache") });
    with(json!({ "command": binaries::deno(), "args": args, "env": env }), more)
}

/// An entry for `servers/nasty.js` with `more` in it.
pub(crate) fn nasty(home: &Home, more: Value) -> Value {
    let program = home.path("nasty.js");
    fs::write(&program, include_str!("servers/nasty.js")).expect("writes the server");
    let env = json!({ "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": home.path("nasty-cache") });
    let args = json!(["run", "--quiet", "--no-config", program]);
    with(json!({ "command": binaries::deno(), "args": args, "env": env }), more)
}

/// An entry for the reference server with `more` in it; `None`, after a loud notice, where it cannot be had.
pub(crate) fn everything(more: Value) -> Option<Value> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [
        ("package.json", include_str!("../../daemon/upstream/tests/servers/npm/package.json")),
        ("package-lock.json", include_str!("../../daemon/upstream/tests/servers/npm/package-lock.json")),
    ];
    let bin = BIN.get_or_init(|| Some(packages::npm("upstream-npm", &manifest)?.join("node_modules/.bin")));
    let path = std::env::var("PATH").expect("a PATH");
    let command = bin.as_ref()?.join("mcp-server-everything");
    Some(with(json!({ "command": command, "args": ["stdio"], "env": { "PATH": path } }), more))
}

/// A session of the older revisions whose client has these capabilities.
pub(crate) fn session_that_offers(bed: &Bed, capabilities: Value) -> Shim {
    let shim = Shim::spawn(&bed.home);
    let client = json!({ "name": "conductor-tests", "version": "1" });
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client });
    shim.ask("initialize", params);
    shim.notify("notifications/initialized", json!({}));
    shim
}

/// What each request of the newer revision carries.
pub(crate) fn newer() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "conductor-tests", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
    })
}

fn with(mut entry: Value, more: Value) -> Value {
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}
