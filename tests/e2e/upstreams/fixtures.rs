//! Configurations of servers, and the servers themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use conductor_deno::testing::packages;
use conductor_protocol::AdminReply;
use conductor_tests::{Answer, Daemon, Home, Process, Shim, binaries};
use serde_json::{Value, json};

const RECORDER: &str = include_str!("recorder.js");

/// A home with a configuration of servers in the default place, and a daemon.
pub(super) struct Bed {
    pub(super) daemon: Daemon,
    pub(super) home: Arc<Home>,
}

impl Bed {
    pub(super) fn new(servers: impl FnOnce(&Home) -> Value) -> Self {
        let home = Home::new();
        write(&default_place(&home), &servers(&home));
        Self { daemon: Daemon::start(&home), home }
    }

    /// Replaces the configuration as editors do.
    pub(super) fn configure(&self, servers: &Value) {
        write(&default_place(&self.home), servers);
    }

    pub(super) fn session(&self) -> Shim {
        Shim::session(&self.home)
    }

    pub(super) fn workspace(&self) -> String {
        self.home.workspace().display().to_string()
    }
}

pub(super) fn default_place(home: &Home) -> PathBuf {
    home.home().join(".mcp-conductor/mcp-config.json")
}

pub(super) fn write(path: &Path, servers: &Value) {
    write_text(path, &format!("{:#}", json!({ "mcpServers": servers })));
}

pub(super) fn write_text(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("makes the directory");
    let staged = path.with_extension("staged");
    fs::write(&staged, text).expect("writes the configuration");
    fs::rename(staged, path).expect("puts it in place");
}

/// An entry for a server that writes down what reaches it.
pub(super) fn recorder(home: &Home, name: &str) -> Value {
    let program = home.path("recorder.js");
    fs::write(&program, RECORDER).expect("writes the recorder");
    let args =
        ["run", "--quiet", "--no-config", "--allow-read", "--allow-write", "--allow-env"].map(Value::from);
    let args = args.into_iter().chain([json!(program), json!(home.path("")), json!(name)]);
    let env = json!({ "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": home.path("recorder-cache") });
    json!({ "command": binaries::deno(), "args": Vec::from_iter(args), "env": env })
}

/// What reached the recorders of this name so far.
pub(super) fn recorded(home: &Home, name: &str) -> String {
    let logs = fs::read_dir(home.path("")).expect("the home").flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}.")) && file.ends_with(".log")
    };
    logs.filter(is_ours).map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
}

/// An entry for an npm server; `None`, after a loud notice, where it cannot be had.
pub(super) fn node(command: &str, args: &[&str]) -> Option<Value> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [
        ("package.json", include_str!("../../../daemon/upstream/tests/servers/npm/package.json")),
        ("package-lock.json", include_str!("../../../daemon/upstream/tests/servers/npm/package-lock.json")),
    ];
    let bin = BIN.get_or_init(|| Some(packages::npm("upstream-npm", &manifest)?.join("node_modules/.bin")));
    Some(json!({ "command": bin.as_ref()?.join(command), "args": args, "env": { "PATH": path() } }))
}

/// An entry for a PyPI server; `None`, after a loud notice, where it cannot be had.
pub(super) fn python(module: &str, args: &[&str]) -> Option<Value> {
    static PACKAGES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [(
        "requirements.txt",
        include_str!("../../../daemon/upstream/tests/servers/python/requirements.txt"),
    )];
    let packages =
        PACKAGES.get_or_init(|| Some(packages::pip("upstream-python", &manifest)?.join("packages")));
    let args = [&["-B", "-s", "-m", module], args].concat();
    let env = json!({ "PYTHONPATH": packages.as_ref()?, "PATH": path(), "TZ": "UTC" });
    Some(json!({ "command": "python3", "args": args, "env": env }))
}

/// The PATH of the test, on which the fetched programs' interpreters are.
pub(super) fn path() -> String {
    std::env::var("PATH").expect("a PATH")
}

/// Calls any tool.
#[track_caller]
pub(super) fn tool(shim: &Shim, name: &str, arguments: Value) -> Answer {
    shim.ask("tools/call", json!({ "name": name, "arguments": arguments }))
}

pub(super) fn tool_names(shim: &Shim) -> Vec<String> {
    shim.tools().iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// Processes of servers of this home: they carry the mark by which the daemon finds what it started.
pub(super) fn servers(home: &Home) -> Vec<Process> {
    home.processes()
        .into_iter()
        .filter(|process| process.names(Path::new("MCP_CONDUCTOR_UPSTREAM=")))
        .collect()
}

pub(super) fn pids(home: &Home) -> BTreeSet<i32> {
    servers(home).iter().map(|process| process.pid).collect()
}

/// What an operator reads of a reply.
pub(super) fn shown(reply: AdminReply) -> String {
    match reply {
        AdminReply::Json(bytes) => String::from_utf8(bytes).expect("JSON is text"),
        other => format!("{other:?}"),
    }
}
