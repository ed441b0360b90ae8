//! What a model's context pays for servers: the table in `docs/MCP_PROXY.md`.
//!
//! The tools are those that real servers list, replayed. Both sides are counted as clients put tools into a request: name,
//! description and input schema as JSON without white space; what a tool says, as it is.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use conductor_deno::testing::packages;
use conductor_tests::{Daemon, Home, Shim, binaries};
use serde_json::{Map, Value, json};

use crate::{document, repository, servers};

/// Servers in the order in which they are added; each row has the first of them.
const SERVERS: [&str; 7] =
    ["filesystem", "memory", "time", "git", "sequential-thinking", "everything", "github"];
const ROWS: [usize; 4] = [1, 3, 5, 7];

/// What the model looks for, and what it finds.
const QUERY: &str = "read several files at once";
const FOUND: (&str, &str) = ("filesystem", "read_multiple_files");

const TOKENIZER: [(&str, &str); 3] = [
    ("package.json", include_str!("tokens/package.json")),
    ("package-lock.json", include_str!("tokens/package-lock.json")),
    ("count.mjs", include_str!("tokens/count.mjs")),
];

/// The texts of one row.
struct Row {
    n_servers: usize,
    n_tools: usize,
    /// The tools of the servers.
    direct: String,
    /// The tools of conductor.
    own: String,
    search: String,
    details: String,
}

#[test]
fn the_table_of_tokens_is_that_of_the_tokenizer() {
    let Some(tokenizer) = packages::npm("tokens", &TOKENIZER) else { return };
    let rows = ROWS.map(Row::measure);
    let texts: Vec<&str> =
        rows.iter().flat_map(|row| [&*row.direct, &row.own, &row.search, &row.details]).collect();
    let counts = count(&tokenizer, &texts);
    let mut table = "\n| servers | their tools | exposed directly | conductor's tools | a search | details of a tool | together | part |\n\
                     |--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for (row, counts) in rows.iter().zip(counts.chunks(4)) {
        let [direct, own, search, details] = *counts else { unreachable!("four texts make a row") };
        let together = own + search + details;
        let part = (100 * together).div_ceil(direct);
        table.push_str(&format!(
            "| {} | {} | {direct} | {own} | {search} | {details} | {together} | {part} % |\n",
            row.n_servers, row.n_tools
        ));
    }
    document::edit_part("docs/MCP_PROXY.md", "<!-- made by tests/docs/tokens.rs -->", &table);
}

impl Row {
    fn measure(n_servers: usize) -> Self {
        let home = Home::new();
        let names = &SERVERS[..n_servers];
        let entries = names.iter().map(|name| ((*name).to_owned(), replayed(&home, name)));
        servers::write(&home, &json!({ "mcpServers": entries.collect::<Map<_, _>>() }));
        let listed: Vec<Value> = names.iter().flat_map(|name| tools(name)).collect();
        let _daemon = Daemon::start(&home);
        let shim = Shim::session(&home);
        let say = |tool: &str, arguments: Value| {
            let answer = shim.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
            assert_ne!(answer.result()["isError"], true, "{answer:?}");
            answer.text().to_owned()
        };
        // As after the first use of each server: what it lists is known.
        for name in names {
            say("get_tool_details", json!({ "server": name }));
        }
        let search = say("search_tools", json!({ "query": QUERY }));
        let (server, tool) = FOUND;
        assert!(search.contains(&format!("mcp.{server}.{tool}(")), "{search}");
        let own = as_in_a_request(&shim.tools());
        Self {
            n_servers,
            n_tools: listed.len(),
            direct: as_in_a_request(&listed),
            own: own.replace(&*home.home().to_string_lossy(), "/home/you"),
            details: say("get_tool_details", json!({ "server": server, "tools": [tool] })),
            search,
        }
    }
}

fn as_in_a_request(tools: &[Value]) -> String {
    let tool = |tool: &Value| json!({ "name": tool["name"], "description": tool["description"], "input_schema": tool["inputSchema"] });
    Value::from_iter(tools.iter().map(tool)).to_string()
}

fn fixture(server: &str) -> std::path::PathBuf {
    repository().join(format!("daemon/catalog/tests/data/{server}.json"))
}

/// What the real server lists.
fn tools(server: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture(server)).expect("the list is there");
    let mut recorded: Value = serde_json::from_str(&text).expect("it is JSON");
    serde_json::from_value(recorded["tools"].take()).expect("it has tools")
}

/// An entry for a server that lists the same.
fn replayed(home: &Home, server: &str) -> Value {
    let program = home.path("replay.js");
    std::fs::write(&program, include_str!("tokens/replay.js")).expect("writes the program");
    let args = json!(["run", "--quiet", "--no-config", "--allow-read", program, fixture(server)]);
    let env = json!({ "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": home.path("replay-cache") });
    json!({ "command": binaries::deno(), "args": args, "env": env })
}

fn count(tokenizer: &Path, texts: &[&str]) -> Vec<usize> {
    let mut command = Command::new("node");
    command.arg(tokenizer.join("count.mjs")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("node starts: npm was there");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(json!(texts).to_string().as_bytes()).expect("node reads all before it writes");
    drop(stdin);
    let output = child.wait_with_output().expect("node ends");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("numbers")
}
