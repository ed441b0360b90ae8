//! The examples in the documents are what the program really does.
//!
//! `docs/RUN_DENO_CODE.md`: each `ts` block is run, and the `json` block behind it must be its answer, without what differs
//! from run to run. `docs/MCP_PROXY.md`: the same with real MCP servers, and a table of tokens. `docs/BENCHMARKS.md`: its plots
//! and tables are those of its samples. `examples/*.ts` must run.
//! With `CONDUCTOR_UPDATE_DOCS=1` the answers are written instead of compared.

mod benchmarks;
mod document;
mod mcp_proxy;
mod operations;
mod servers;
mod tokens;

use std::path::{Path, PathBuf};

use conductor_tests::{Daemon, Shim};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a directory of the repository").to_owned()
}

/// A document cut at its examples: text up to an answer, the arguments that lead to it, the answer as it stands there.
struct Example<'a> {
    before: &'a str,
    arguments: Value,
    answer: &'a str,
}

const CODE: &str = "```ts\n";
const ARGUMENTS: &str = "// arguments: ";
const ANSWER: &str = "```json\n";
const END: &str = "```\n";

fn examples(document: &str) -> (Vec<Example<'_>>, &str) {
    let (mut found, mut rest) = (Vec::new(), document);
    while let Some(start) = rest.find(CODE) {
        let code_from = start + CODE.len();
        let code_to = code_from + rest[code_from..].find(END).expect("every code block ends");
        let code = &rest[code_from..code_to];
        let answer_from =
            code_to + rest[code_to..].find(ANSWER).expect("every example has an answer") + ANSWER.len();
        let answer_to = answer_from + rest[answer_from..].find(END).expect("every answer ends");
        let mut arguments = match code.strip_prefix(ARGUMENTS) {
            Some(line) => {
                serde_json::from_str(line.lines().next().expect("a line")).expect("arguments are JSON")
            }
            None => json!({}),
        };
        arguments["deno_code"] = json!(code.trim_end());
        found.push(Example {
            before: &rest[..answer_from],
            arguments,
            answer: &rest[answer_from..answer_to],
        });
        rest = &rest[answer_to..];
    }
    (found, rest)
}

/// The answer without what no two runs share.
fn stable(structured: &Value) -> String {
    let mut answer = structured.clone();
    let fields = answer.as_object_mut().expect("an object");
    fields.remove("executionId");
    fields.remove("timings");
    fields.remove("worker");
    for name in ["stdout", "stderr"] {
        if fields[name] == "" {
            fields.remove(name);
        }
    }
    format!("{answer:#}\n")
}

#[test]
fn answers_in_the_document_are_the_answers_of_the_program() {
    let path = repository().join("docs/RUN_DENO_CODE.md");
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let (examples, rest) = examples(&document);
    assert!(examples.len() >= 10, "the document has its examples");
    let mut written = String::new();
    for example in &examples {
        let answer = stable(shim.call_with(example.arguments.clone()).structured());
        written.push_str(example.before);
        written.push_str(&answer);
        if std::env::var_os("CONDUCTOR_UPDATE_DOCS").is_none() {
            assert_eq!(example.answer, answer, "of {}", example.arguments["deno_code"]);
        }
    }
    written.push_str(rest);
    if written != document {
        std::fs::write(&path, written).expect("the document can be written");
    }
}

#[test]
fn examples_run() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let code = |name: &str| {
        std::fs::read_to_string(repository().join("examples").join(name)).expect("the example is there")
    };

    let answer = shim.call(&code("quick-start.ts"));
    assert_eq!(answer.value()["warm"], json!(["Lima", "Pune"]));
    assert_eq!(answer.stdout(), "2 of 3 cities are warm\n");

    let answer = shim.call(&code("data-processing.ts"));
    assert_eq!(answer.value()[0], json!({ "region": "north", "rows": 2, "total": 220 }));
    let csv = json!({ "csv": "region,amount\nnorth,3\nsouth,4\nnorth,5" });
    let answer = shim.call_with(json!({ "deno_code": code("data-processing.ts"), "globals": csv }));
    assert_eq!(answer.value()[0], json!({ "region": "north", "rows": 2, "total": 8 }));

    let answer = shim.call(&code("errors.ts"));
    assert_eq!((answer.error_type(), answer.error()["line"].as_u64()), ("runtime", Some(6)));
    assert_eq!(answer.stdout(), "output before an error is kept\n");

    let known = std::fs::read_dir(repository().join("examples")).expect("is there").count();
    assert_eq!(known, 6, "a new example is run here or in mcp_proxy.rs too");
}

#[test]
fn the_ide_configuration_is_accepted() {
    let text =
        std::fs::read_to_string(repository().join("examples/ide-config.json")).expect("the example is there");
    let config: Value = serde_json::from_str(&text).expect("is JSON");
    let server = &config["mcpServers"]["conductor"];
    assert_eq!(server["command"], "conductor-shim");
    let env = server["env"].as_object().expect("has an environment");
    let daemon = Daemon::new();
    let shim = Shim::session_with(daemon.home(), |command| {
        command.envs(env.iter().map(|(name, value)| (name, value.as_str().expect("is a string"))));
    });
    let answer = shim.call("await Deno.writeTextFile(`${WORKSPACE_DIR}/x`, 'y').catch((e) => e.name)");
    assert_eq!(answer.value(), "NotCapable", "the example grants reading alone");
    let answer = shim.call(
        "WORKSPACE_DIR.endsWith('.mcp-conductor/workspace') && Deno.readDirSync(WORKSPACE_DIR) != null",
    );
    assert_eq!(answer.value(), true);
}
