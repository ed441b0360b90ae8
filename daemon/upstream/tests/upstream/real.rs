//! Servers of the registries, as their authors publish them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use conductor_deno::testing::packages;
use conductor_upstream::{CallError, Era};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Bed, server, session, text, until};

const EVERYTHING: &str = "mcp-server-everything";

/// Where the npm servers' commands are; `None` where they cannot be had.
fn npm() -> Option<&'static Path> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [
        ("package.json", include_str!("../servers/npm/package.json")),
        ("package-lock.json", include_str!("../servers/npm/package-lock.json")),
    ];
    let bin = || Some(packages::npm("upstream-npm", &manifest)?.join("node_modules/.bin"));
    BIN.get_or_init(bin).as_deref()
}

/// Where the Python servers' modules are; `None` where they cannot be had.
fn python() -> Option<&'static Path> {
    static PACKAGES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let manifest = [("requirements.txt", include_str!("../servers/python/requirements.txt"))];
    let packages = || Some(packages::pip("upstream-python", &manifest)?.join("packages"));
    PACKAGES.get_or_init(packages).as_deref()
}

fn node(bed: &Bed, command: &str, args: &[&str]) -> Option<Value> {
    let command = npm()?.join(command);
    Some(
        json!({ "command": command, "args": args, "env": { "BED": bed.root.path(), "PATH": std::env::var("PATH").unwrap() } }),
    )
}

fn module(bed: &Bed, name: &str, args: &[&str]) -> Option<Value> {
    let packages = python()?;
    let args = [&["-B", "-s", "-m", name], args].concat();
    let env = json!({ "PYTHONPATH": packages, "BED": bed.root.path(), "PATH": std::env::var("PATH").unwrap(), "TZ": "UTC" });
    Some(json!({ "command": "python3", "args": args, "env": env }))
}

#[tokio::test]
async fn everything_over_stdio() {
    let bed = Bed::new();
    let Some(entry) = node(&bed, EVERYTHING, &["stdio"]) else { return };
    bed.set(json!({ "everything": entry })).await;
    everything(&bed).await;
    assert_eq!(bed.status("everything").n_starts, 1);
    assert_eq!(bed.status("everything").transport, Some("stdio"));
    bed.end().await;
}

#[tokio::test]
async fn everything_over_streamable_http() {
    let bed = Bed::new();
    let Some(web) = Web::start("streamableHttp") else { return };
    bed.set(json!({ "everything": { "type": "http", "url": format!("http://127.0.0.1:{}/mcp", web.port) } }))
        .await;
    everything(&bed).await;
    bed.end().await;
}

#[tokio::test]
async fn everything_over_sse_named_and_found_out() {
    let bed = Bed::new();
    let Some(web) = Web::start("sse") else { return };
    let url = format!("http://127.0.0.1:{}/sse", web.port);
    bed.set(json!({ "everything": { "type": "sse", "url": url } })).await;
    everything(&bed).await;
    bed.set(json!({ "everything": { "url": url } })).await;
    everything(&bed).await;
    bed.end().await;
}

async fn everything(bed: &Bed) {
    let (name, context) = (server("everything"), session("s"));
    let lists = bed.upstreams.lists(&name, &context).await.unwrap();
    assert!(lists.tools.len() >= 10, "{:?}", lists.tool_names().collect::<Vec<_>>());
    assert_eq!(lists.era, Era::Initialize);
    assert_eq!(lists.problems, [""; 0]);
    let echo = bed.call("everything", "echo", json!({ "message": "héllo" })).await.unwrap();
    assert_eq!(text(&echo), "Echo: héllo");
    let structured =
        bed.call("everything", "get-structured-content", json!({ "location": "New York" })).await.unwrap();
    assert!(structured["structuredContent"].is_object(), "{structured}");
    let (sender, mut receiver) = mpsc::channel(100);
    let mut long = session("s");
    long.progress = Some(sender);
    let arguments = json!({ "duration": 0.5, "steps": 5 });
    bed.call_as(&long, "everything", "trigger-long-running-operation", arguments).await.unwrap();
    let steps: Vec<_> =
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|params| params["progress"].as_u64()).collect();
    assert_eq!(steps, (1..=5).map(Some).collect::<Vec<_>>());
    let uri = lists.resources[0]["uri"].as_str().unwrap();
    let resource = bed.upstreams.read_resource(&name, &context, uri).await.unwrap();
    assert_eq!(resource["contents"][0]["uri"], uri);
    let prompt =
        bed.upstreams.get_prompt(&name, &context, "simple-prompt", serde_json::Map::new()).await.unwrap();
    assert!(prompt["messages"][0]["content"]["text"].is_string(), "{prompt}");
    let sums = join_all((0..10).map(|n| bed.call("everything", "get-sum", json!({ "a": n, "b": 1 })))).await;
    for (n, sum) in sums.into_iter().enumerate() {
        assert!(text(&sum.unwrap()).contains(&format!("is {}", n + 1)));
    }
    let wrong = bed.call("everything", "get-sum", json!({ "a": "x" })).await;
    assert!(
        wrong.as_ref().map_or_else(|e| e.kind() == "json-rpc", |result| result["isError"] == true),
        "{wrong:?}"
    );
    let unknown = bed.call("everything", "ecko", json!({})).await.unwrap_err();
    assert!(
        matches!(&unknown, CallError::UnknownTool { nearest, .. } if nearest[0] == "echo"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn reading_with_one_server_and_writing_with_another() {
    let bed = Bed::new();
    let root = bed.root.path().canonicalize().unwrap();
    let directory = root.to_str().unwrap();
    let Some(files) = node(&bed, "mcp-server-filesystem", &[directory]) else { return };
    let Some(mut memory) = node(&bed, "mcp-server-memory", &[]) else { return };
    memory["env"]["MEMORY_FILE_PATH"] = json!(root.join("memory.jsonl"));
    let Some(thinking) = node(&bed, "mcp-server-sequential-thinking", &[]) else { return };
    bed.set(json!({ "files": files, "memory": memory, "thinking": thinking })).await;
    fs::write(root.join("in.txt"), "3\n4\n5\n").unwrap();
    let read = bed.call("files", "read_text_file", json!({ "path": root.join("in.txt") })).await.unwrap();
    let sum: u32 = text(&read).lines().map(|line| line.parse::<u32>().unwrap()).sum();
    let entity = json!({ "name": "sum", "entityType": "number", "observations": [sum.to_string()] });
    bed.call("memory", "create_entities", json!({ "entities": [entity] })).await.unwrap();
    let written = json!({ "path": root.join("out.txt"), "content": format!("{sum}") });
    bed.call("files", "write_file", written).await.unwrap();
    assert_eq!(fs::read_to_string(root.join("out.txt")).unwrap(), "12");
    assert!(fs::read_to_string(root.join("memory.jsonl")).unwrap().contains("\"12\""));
    let thought =
        json!({ "thought": "x", "thoughtNumber": 1, "totalThoughts": 1, "nextThoughtNeeded": false });
    bed.call("thinking", "sequentialthinking", thought).await.unwrap();
    assert_eq!(bed.processes().len(), 3, "one process for each server");
    bed.end().await;
}

#[tokio::test]
async fn servers_of_the_newer_era() {
    let bed = Bed::new();
    let repository = bed.root.path().join("repo");
    let made = Command::new("git").args(["init", "--quiet"]).arg(&repository).status().unwrap();
    assert!(made.success());
    let Some(time) = module(&bed, "mcp_server_time", &["--local-timezone", "UTC"]) else { return };
    let Some(git) = module(&bed, "mcp_server_git", &[]) else { return };
    bed.set(json!({ "time": time, "git": git })).await;
    let converted = json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
    let converted = bed.call("time", "convert_time", converted).await.unwrap();
    assert!(converted.to_string().contains("21:00"), "{converted}");
    let lists = bed.upstreams.manifest(&server("time")).unwrap();
    until("its lists are there", || bed.upstreams.manifest(&server("time")).unwrap().is_some()).await;
    assert!(lists.is_none_or(|lists| lists.era == Era::Discover));
    let status = bed.call("git", "git_status", json!({ "repo_path": repository })).await.unwrap();
    assert!(text(&status).contains("No commits yet"), "{status}");
    assert_eq!(bed.status("git").protocol_version.as_deref(), Some("2026-07-28"));
    bed.upstreams.restart(&server("time")).unwrap();
    let again = json!({ "timezone": "UTC" });
    bed.call("time", "get_current_time", again).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn five_sessions_and_three_real_servers_are_three_processes() {
    let bed = Bed::new();
    let Some(everything) = node(&bed, EVERYTHING, &["stdio"]) else { return };
    let Some(thinking) = node(&bed, "mcp-server-sequential-thinking", &[]) else { return };
    let Some(time) = module(&bed, "mcp_server_time", &[]) else { return };
    bed.set(json!({ "everything": everything, "thinking": thinking, "time": time })).await;
    let sessions: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| session(name)).collect();
    for name in ["everything", "thinking", "time"] {
        let server = server(name);
        let lists = join_all(sessions.iter().map(|context| bed.upstreams.lists(&server, context))).await;
        assert!(lists.iter().all(Result::is_ok), "{lists:?}");
    }
    assert_eq!(bed.processes().len(), 3);
    bed.end().await;
}

/// server-everything as a web server.
struct Web {
    child: Child,
    port: u16,
}

impl Web {
    fn start(transport: &str) -> Option<Self> {
        let command = npm()?.join(EVERYTHING);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(command);
        command.arg(transport).env("PORT", port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let web = Self { child: command.spawn().unwrap(), port };
        let start = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(web)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
