//! What must hold for any bytes, one check for each parser of text or bytes that conductor did not write itself.
//!
//! A [`Target`] is a function of bytes that panics when a promise of its parser is broken: what is read can be written and
//! read again, what is refused is refused with a text, the same bytes cut otherwise mean the same, a secret shows nowhere.
//! That nothing panics, and that an answer takes a bounded time, holds for all of them.
//!
//! Two things run them: the test `parsers` over the kept inputs and [seeded mutations](Mutator) of them, and, for hours, the
//! coverage-guided fuzzer in `tests/fuzz`. Inputs that were worth keeping are in `tests/fuzz/corpus`.
//!
//! ```text
//! head        requests over HTTP, up to what their heads decide
//! wire        frames, handshake, requests and documents between shim, operator and daemon
//! messages    JSON-RPC as the shim reads it, events of HTTP servers
//! worker      what a worker writes on its reply pipe
//! settings    config.toml, mcp-config.json, permission flags, references in values
//! packages    package lists, import specifiers and locks
//! program     the rewrite of programs, arguments of `run_deno_code`
//! tools       schemas, declarations and searches of upstream tools
//! ```

mod head;
mod messages;
mod mutator;
mod packages;
mod program;
mod settings;
mod tools;
mod wire;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use mutator::Mutator;

/// Longest input that is tried, bytes: beyond it only the limits of sizes are met, which have tests of their own.
pub const MAX_INPUT_BYTES: usize = 8 * 1024;

/// CPU time that the check of one input may take, in a build without optimisation. Each takes about a millisecond; what
/// grows with the square of the input takes longer than this at [`MAX_INPUT_BYTES`].
pub const MAX_CPU: Duration = Duration::from_secs(5);

/// One parser's check.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As the fuzzer and its corpus directory call it.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub check: fn(&[u8]),
    /// Words of the parser's language, which mutations put in.
    pub words: &'static [&'static str],
}

pub const TARGETS: [Target; 17] = [
    Target { name: "arguments", check: program::arguments, words: program::ARGUMENT_WORDS },
    Target { name: "config", check: settings::config, words: settings::CONFIG_WORDS },
    Target { name: "event_stream", check: messages::event_stream, words: messages::EVENT_WORDS },
    Target { name: "expand", check: settings::expand, words: settings::REFERENCE_WORDS },
    Target { name: "frame", check: wire::frame, words: &[] },
    Target { name: "hello", check: wire::hello, words: &[] },
    Target { name: "http_head", check: head::http_head, words: head::HEAD_WORDS },
    Target { name: "lockfile", check: packages::lockfile, words: packages::LOCK_WORDS },
    Target { name: "mcp_config", check: settings::mcp_config, words: settings::SERVER_WORDS },
    Target { name: "message", check: messages::message, words: messages::MESSAGE_WORDS },
    Target { name: "operate", check: wire::operate, words: wire::DOCUMENT_WORDS },
    Target { name: "run_args", check: settings::run_args, words: settings::FLAG_WORDS },
    Target { name: "schema", check: tools::schema, words: tools::SCHEMA_WORDS },
    Target { name: "script", check: program::script, words: program::SCRIPT_WORDS },
    Target { name: "session", check: wire::session, words: &[] },
    Target { name: "specifier", check: packages::specifier, words: packages::SPECIFIER_WORDS },
    Target { name: "worker_frame", check: worker::frames, words: worker::REPLY_WORDS },
];

impl Target {
    /// # Panics
    /// There is no target of that name.
    pub fn named(name: &str) -> Self {
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("no parser is called {name}"))
    }

    /// Where its kept inputs are.
    pub fn corpus_dir(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(self.name)
    }

    /// Its kept inputs, in the order of their names.
    ///
    /// # Panics
    /// They cannot be read, or there are none.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let directory = self.corpus_dir();
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut files: Vec<_> =
            entries.map(|entry| entry.expect("the directory is readable").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", directory.display());
        files.iter().map(|file| fs::read(file).expect("the file is readable")).collect()
    }
}

/// The text of an error: there is one, it is bounded, and nothing in it moves a terminal's cursor.
fn assert_told(text: &str) {
    assert!(!text.trim().is_empty(), "an error without a text");
    assert!(text.len() <= 16 * 1024 + 4 * MAX_INPUT_BYTES, "a text of {} bytes", text.len());
    let control = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(control, None, "a control character in {text:?}");
}

/// The input as text, as far as it is any.
fn text_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("it is valid up to there"),
    }
}
