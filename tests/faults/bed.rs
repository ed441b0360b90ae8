//! A home whose sessions have servers, and the servers: one that breaks when it is told to, real ones of npm and PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use conductor_deno::testing::packages;
use conductor_tests::{Home, Process, Shim, binaries};
use serde_json::{Map, Value, json};

/// How long a request to a server may take before the daemon gives it up, milliseconds: above what a loaded machine needs to
/// start one of them.
const REQUEST_MS: u64 = 8_000;

/// Servers that are struck.
pub(crate) const STRUCK: [&str; 2] = ["flaky", "everything"];

/// Servers that nobody touches.
pub(crate) const CALM: [&str; 2] = ["calm", "time"];

/// Makes a home ready: idle workers, calls enough, servers.
pub(crate) fn home(idle: u64) -> Arc<Home> {
    let home = Home::new();
    home.configure(&format!(
        "[pool]\nidle-per-profile = {idle}\n[profiles.default]\nmax-calls-per-minute = 1000000\nlinger = \"200ms\"\n"
    ));
    configure_servers(&home);
    home
}

/// A session that may leave marks.
pub(crate) fn session(home: &Arc<Home>, adapt: impl FnOnce(&mut std::process::Command)) -> Shim {
    Shim::session_with(home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={}", home.workspace().display()));
        adapt(command);
    })
}

/// Where code notes down that it has begun.
pub(crate) fn marks(home: &Home) -> PathBuf {
    home.workspace().join("marks")
}

/// The running server of a name.
pub(crate) fn server(home: &Home, name: &str) -> Option<Process> {
    let wanted = match name {
        "everything" => "mcp-server-everything".to_owned(),
        name => format!("server.js {name}"),
    };
    let leads = |process: &Process| process.command.contains(&wanted) && !process.is_zombie();
    home.processes().into_iter().find(leads)
}

/// The configured servers; those of the registries may not be there to be had.
pub(crate) fn server_names(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(configuration(home)).expect("was written");
    let servers: Value = serde_json::from_str(&text).expect("is JSON");
    servers["mcpServers"].as_object().expect("an object").keys().cloned().collect()
}

fn configuration(home: &Home) -> PathBuf {
    home.home().join(".mcp-conductor/mcp-config.json")
}

fn configure_servers(home: &Home) {
    let mut servers = Map::new();
    let mut add = |name: &str, entry: Option<Value>| {
        if let Some(mut entry) = entry {
            entry["timeout"] = json!(REQUEST_MS);
            servers.insert(name.to_owned(), entry);
        }
    };
    add("flaky", Some(own(home, "flaky")));
    add("calm", Some(own(home, "calm")));
    add("everything", everything());
    add("time", time());
    let file = configuration(home);
    fs::create_dir_all(file.parent().expect("has one")).expect("makes the directory");
    fs::write(file, json!({ "mcpServers": servers }).to_string()).expect("writes the configuration");
}

fn own(home: &Home, name: &str) -> Value {
    let program = home.path("server.js");
    fs::write(&program, include_str!("server.js")).expect("writes the server");
    let args = ["run", "--quiet", "--no-config", "--allow-read"].map(Value::from);
    let args = Vec::from_iter(args.into_iter().chain([json!(program), json!(name)]));
    let env = json!({ "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": home.path("server-cache") });
    json!({ "command": binaries::deno(), "args": args, "env": env })
}

fn everything() -> Option<Value> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [
        ("package.json", include_str!("../../daemon/upstream/tests/servers/npm/package.json")),
        ("package-lock.json", include_str!("../../daemon/upstream/tests/servers/npm/package-lock.json")),
    ];
    let bin = BIN.get_or_init(|| Some(packages::npm("upstream-npm", &manifest)?.join("node_modules/.bin")));
    let command = bin.as_ref()?.join("mcp-server-everything");
    Some(json!({ "command": command, "args": ["stdio"], "env": { "PATH": path() } }))
}

fn time() -> Option<Value> {
    static PACKAGES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest =
        [("requirements.txt", include_str!("../../daemon/upstream/tests/servers/python/requirements.txt"))];
    let packages =
        PACKAGES.get_or_init(|| Some(packages::pip("upstream-python", &manifest)?.join("packages")));
    let args = ["-B", "-s", "-m", "mcp_server_time", "--local-timezone", "UTC"];
    let env = json!({ "PYTHONPATH": packages.as_ref()?, "PATH": path(), "TZ": "UTC" });
    Some(json!({ "command": "python3", "args": args, "env": env }))
}

/// The PATH of the test, on which the fetched programs' interpreters are.
fn path() -> String {
    std::env::var("PATH").expect("a PATH")
}

/// Empties a file that others append to.
pub(crate) fn empty(file: &Path) {
    if file.exists() {
        fs::write(file, "").expect("empties it");
    }
}
