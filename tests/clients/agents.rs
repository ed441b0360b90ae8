//! Agents that people use, without an account and without a model: each lists the server, and Codex calls the tool.
//!
//! Half a gigabyte of packages, so only on request (docs/TESTING.md). They get a home of their own. What might reach for the
//! network beside MCP is given an address on this machine where nobody listens.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use conductor_deno::testing::packages;
use conductor_tests::clients::Inspector;
use conductor_tests::{Daemon, Home, binaries};
use serde_json::{Value, json};

/// Where nobody listens: the port is reserved (RFC 863, discard).
const NOWHERE: &str = "http://127.0.0.1:9";

struct Agents {
    modules: PathBuf,
    node: PathBuf,
    home: Arc<Home>,
    _daemon: Daemon,
}

impl Agents {
    fn fetch() -> Option<Self> {
        let manifest = [
            ("package.json", include_str!("agents/package.json")),
            ("package-lock.json", include_str!("agents/package-lock.json")),
        ];
        let modules = packages::npm("agents", &manifest)?.join("node_modules");
        let node = Inspector::fetch()?.node();
        let daemon = Daemon::new();
        let home = daemon.home().clone();
        Some(Self { modules, node, home, _daemon: daemon })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.home.command(program);
        // None may find the way out by a proxy either.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"]
        {
            command.env(name, NOWHERE);
        }
        command.env("NO_PROXY", "").env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        command
    }

    /// Runs a program to its end; gives what it printed.
    fn run(&self, program: &Path, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().expect("the agent starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{args:?}: {}\n{said}", output.status);
        said
    }

    fn native(&self, pattern: &str) -> PathBuf {
        let arch = if cfg!(target_arch = "aarch64") { ("arm64", "aarch64") } else { ("x64", "x86_64") };
        self.modules.join(pattern.replace("ARCH", arch.0).replace("MACHINE", arch.1))
    }

    /// A shim that finds this home's daemon whatever the agent makes of the environment.
    fn shim(&self) -> [String; 3] {
        let socket = self.home.socket().display().to_string();
        [binaries::shim().display().to_string(), "--socket".to_owned(), socket]
    }
}

#[test]
#[ignore = "fetches half a gigabyte; see docs/TESTING.md"]
fn claude_code_lists_the_server() {
    let Some(agents) = Agents::fetch() else { return };
    let claude = agents.native("@anthropic-ai/claude-code-linux-ARCH/claude");
    let [shim, option, socket] = agents.shim();
    let add = ["mcp", "add", "--scope", "user", "conductor", "--", &shim, &option, &socket];
    agents.run(&claude, &add);
    let listed = agents.run(&claude, &["mcp", "list"]);
    assert!(listed.contains("conductor: ") && listed.contains("Connected"), "{listed}");
}

#[test]
#[ignore = "fetches half a gigabyte; see docs/TESTING.md"]
fn gemini_cli_lists_the_server() {
    let Some(agents) = Agents::fetch() else { return };
    let directory = agents.home.home().join(".gemini");
    fs::create_dir_all(&directory).expect("a directory");
    let [shim, option, socket] = agents.shim();
    let servers = json!({ "mcpServers": { "conductor": { "command": shim, "args": [option, socket] } } });
    fs::write(directory.join("settings.json"), servers.to_string()).expect("writes");
    // It shows no server in a directory that it does not trust.
    let trusted = json!({ agents.home.path("").display().to_string().trim_end_matches('/'): "TRUST_FOLDER" });
    fs::write(directory.join("trustedFolders.json"), trusted.to_string()).expect("writes");
    let program = agents.modules.join("@google/gemini-cli/bundle/gemini.js");
    let program = program.to_str().expect("UTF-8");
    let listed = agents.run(&agents.node, &[program, "mcp", "list"]);
    assert!(listed.contains("conductor: ") && listed.contains("Connected"), "{listed}");
}

#[test]
#[ignore = "fetches half a gigabyte; see docs/TESTING.md"]
fn codex_lists_the_tool_and_calls_it() {
    let Some(agents) = Agents::fetch() else { return };
    let codex = agents.native("@openai/codex-linux-ARCH/vendor/MACHINE-unknown-linux-musl/bin/codex");
    let directory = agents.home.home().join(".codex");
    fs::create_dir_all(&directory).expect("a directory");
    // A thread has to have a model, and looks for it when it starts.
    let config = format!(
        "model = \"none\"\nmodel_provider = \"nowhere\"\ncheck_for_update_on_startup = false\n\
         [model_providers.nowhere]\nname = \"nowhere\"\nbase_url = \"{NOWHERE}/v1\"\n[analytics]\nenabled = false\n"
    );
    fs::write(directory.join("config.toml"), config).expect("writes");
    let [shim, option, socket] = agents.shim();
    agents.run(&codex, &["mcp", "add", "conductor", "--", &shim, &option, &socket]);

    let mut server = AppServer::start(agents.command(&codex).arg("app-server"));
    server.ask("initialize", json!({ "clientInfo": { "name": "tests", "title": "tests", "version": "1" } }));
    server.send(&json!({ "jsonrpc": "2.0", "method": "initialized" }));
    let status = server.ask("mcpServerStatus/list", json!({}));
    let tool = &status["data"][0]["tools"]["run_deno_code"];
    assert_eq!(tool["inputSchema"]["required"], json!(["deno_code"]), "{status:#}");
    let thread = server.ask("thread/start", json!({ "cwd": agents.home.workspace() }));
    let call = json!({
        "threadId": thread["thread"]["id"],
        "server": "conductor",
        "tool": "run_deno_code",
        "arguments": { "deno_code": "const n: number = 6; n * 7" },
    });
    let result = server.ask("mcpServer/tool/call", call);
    assert_eq!(result["structuredContent"]["returnValue"], 42, "{result:#}");
    assert_eq!(result["content"][0]["text"], "42");
}

/// Codex as an editor drives it: JSON-RPC in lines.
struct AppServer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    id: u64,
}

impl AppServer {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, stdin, stdout, id: 0 }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").expect("it reads");
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params }));
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).expect("it writes");
            assert_ne!(read, 0, "it ended before it answered {method}");
            let message: Value = serde_json::from_str(&line).expect("a message");
            if message["id"] == self.id && message.get("method").is_none() {
                assert!(message.get("error").is_none(), "{method}: {message:#}");
                return message["result"].clone();
            }
        }
    }
}

impl Drop for AppServer {
    fn drop(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }
}
