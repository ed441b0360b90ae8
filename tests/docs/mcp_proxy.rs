//! `docs/MCP_PROXY.md`: what code and a model get from the servers of `examples/mcp-config.json`.
//!
//! A `ts` block is run, and the `json` block behind it is its answer. A `jsonc` block names a tool in its first line and holds
//! its arguments; the `text` block behind it is what the tool says. They are run in their order, in one session.

use conductor_tests::{Daemon, Home, Shim};
use serde_json::{Value, json};

use crate::{document, repository, servers, stable};

const NAME: &str = "docs/MCP_PROXY.md";
const FENCE: &str = "```";
const TOOL: &str = "// tool: ";

/// One question of the document and the answer that stands behind it.
struct Example<'d> {
    /// The document from the end of the last answer to the start of this one.
    before: &'d str,
    question: Question,
    answer: &'d str,
}

enum Question {
    Code(String),
    Tool { name: String, arguments: Value },
}

/// A fenced block.
struct Block<'d> {
    language: &'d str,
    text: &'d str,
    /// Where its text stands in the document, bytes.
    starts: usize,
}

#[test]
fn answers_in_the_document_are_those_of_real_servers() {
    let Some(home) = servers::home() else { return };
    let _daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    document::edit(NAME, |document| {
        let (examples, rest) = examples(document);
        assert!(examples.len() >= 6, "the document has its examples");
        let mut written = String::new();
        for Example { before, question, answer } in examples {
            let given = masked(&home, &question.ask(&shim));
            assert!(
                document::is_updating() || given == answer,
                "{NAME} has\n{answer}\nas the answer to the end of\n{before}\nand it is\n{given}"
            );
            written.push_str(before);
            written.push_str(&given);
        }
        written + rest
    });
}

#[test]
fn the_workflow_among_the_examples_runs_with_the_configuration_among_them() {
    let Some(home) = servers::home() else { return };
    let _daemon = Daemon::start(&home);
    let code = std::fs::read_to_string(repository().join("examples/mcp-workflow.ts")).expect("is there");
    let answer = Shim::session(&home).call(&code);
    assert_eq!(answer.value(), &json!({ "totals": { "north": 8, "south": 4 }, "toldInTokyoAt": "18:00" }));
    let files = home.home().join(".mcp-conductor");
    let totals = std::fs::read_to_string(files.join("workspace/totals.json")).expect("it was written");
    assert_eq!(totals, r#"{"north":8,"south":4}"#);
    let memory = std::fs::read_to_string(files.join("memory.jsonl")).expect("it was written");
    assert!(memory.contains("sold 8"), "{memory}");
}

impl Question {
    /// A `ts` or `jsonc` block that asks for something.
    fn of(block: &Block<'_>) -> Option<Self> {
        match block.language {
            "ts" => Some(Self::Code(block.text.trim_end().to_owned())),
            "jsonc" => {
                let (name, arguments) = block.text.strip_prefix(TOOL)?.split_once('\n')?;
                let arguments = serde_json::from_str(arguments).expect("arguments are JSON");
                Some(Self::Tool { name: name.to_owned(), arguments })
            }
            _ => None,
        }
    }

    fn ask(&self, shim: &Shim) -> String {
        match self {
            Self::Code(code) => stable(shim.call(code).structured()),
            Self::Tool { name, arguments } => {
                let answer = shim.ask("tools/call", json!({ "name": name, "arguments": arguments }));
                format!("{}\n", answer.text().trim_end())
            }
        }
    }
}

fn examples(document: &str) -> (Vec<Example<'_>>, &str) {
    let (mut found, mut from) = (Vec::new(), 0);
    let mut blocks = blocks(document).into_iter();
    while let Some(block) = blocks.next() {
        let Some(question) = Question::of(&block) else { continue };
        let answer = blocks.next().expect("every question has an answer behind it");
        assert!(["json", "text"].contains(&answer.language), "an answer behind: {}", block.text);
        found.push(Example { before: &document[from..answer.starts], question, answer: answer.text });
        from = answer.starts + answer.text.len();
    }
    (found, &document[from..])
}

fn blocks(document: &str) -> Vec<Block<'_>> {
    let (mut found, mut at, mut open) = (Vec::new(), 0, None);
    for line in document.split_inclusive('\n') {
        let fence = line.strip_prefix(FENCE).map(str::trim_end);
        open = match (open, fence) {
            (None, Some(language)) => Some((language, at + line.len())),
            (Some((language, starts)), Some("")) => {
                found.push(Block { language, text: &document[starts..at], starts });
                None
            }
            (open, _) => open,
        };
        at += line.len();
    }
    found
}

/// The home directory is another in every run.
fn masked(home: &Home, text: &str) -> String {
    text.replace(&*home.home().to_string_lossy(), "/home/you")
}
