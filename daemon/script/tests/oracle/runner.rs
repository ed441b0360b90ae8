//! Runs programs in a real Deno, and asks its REPL about them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use conductor_deno::testing::deno;
use serde::Deserialize;
use serde_json::{Value, json};

/// How one program ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Outcome {
    /// The completion value as `Deno.inspect` shows it.
    #[serde(default)]
    pub(crate) value: Option<String>,
    #[serde(default)]
    pub(crate) prints: String,
    #[serde(default)]
    pub(crate) throws: Option<String>,
    #[serde(default)]
    pub(crate) stack: Option<String>,
}

impl Outcome {
    /// What a program does, apart from the stack of what it throws.
    pub(crate) fn without_stack(mut self) -> Self {
        self.stack = None;
        self
    }
}

/// A rewritten program for [`run`].
pub(crate) fn rewritten(source: &str) -> Value {
    let script =
        conductor_script::prepare(source).unwrap_or_else(|error| panic!("{error}\n{}", error.code_frame));
    json!({ "code": script.code, "api": script.api_name })
}

/// Runs every program in one Deno process.
pub(crate) fn run(programs: &[Value]) -> Vec<Outcome> {
    let scratch = scratch();
    let path = scratch.path().to_str().expect("temporary paths are UTF-8").to_owned();
    ask("runner.js", &[&path], programs)
}

/// Asks the REPL about every program.
pub(crate) fn ask_repl(programs: &[Value]) -> Vec<Outcome> {
    ask("oracle.js", &[], programs)
}

pub(crate) fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the directory")
}

fn ask(script: &str, arguments: &[&str], programs: &[Value]) -> Vec<Outcome> {
    let cache = scratch();
    let mut child = Command::new(&deno().path)
        .args(["run", "--quiet", "--allow-all", "--no-lock", "--no-config"])
        .arg(data().join(script))
        .args(arguments)
        .current_dir(data().join("modules"))
        .env("DENO_DIR", cache.path())
        .env("NO_COLOR", "1")
        .env("DENO_NO_UPDATE_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Deno starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = serde_json::to_vec(programs).expect("values are JSON");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("Deno ends");
    writer.join().expect("the writer does not panic").expect("Deno reads its input");
    assert!(output.status.success(), "{script} failed: {}", output.status);
    let outcomes: Vec<Outcome> = serde_json::from_slice(&output.stdout).expect("the script answers in JSON");
    assert_eq!(outcomes.len(), programs.len());
    outcomes
}
