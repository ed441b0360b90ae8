//! The completion value of a program is what Deno's REPL shows, for a table of programs.

use std::fmt::Write as _;
use std::fs;

use crate::runner::{Outcome, ask_repl, data, rewritten, run};
use serde_json::json;

const FEWEST_PROGRAMS: usize = 150;
const FEWEST_DECORATED_PROGRAMS: usize = 60;

pub(crate) struct Program {
    pub(crate) title: String,
    pub(crate) source: String,
}

pub(crate) fn programs() -> Vec<Program> {
    let text = fs::read_to_string(data().join("programs.txt")).expect("the table is in git");
    let programs: Vec<_> = sections(&text).map(|(title, source)| Program { title, source }).collect();
    assert!(programs.len() >= FEWEST_PROGRAMS, "only {} programs", programs.len());
    programs
}

/// Programs with decorators, which the REPL does not know: real modules are their judge.
pub(crate) fn decorated_programs() -> Vec<Program> {
    let text = fs::read_to_string(data().join("decorators.txt")).expect("the table is in git");
    let programs: Vec<_> = sections(&text).map(|(title, source)| Program { title, source }).collect();
    assert!(programs.len() >= FEWEST_DECORATED_PROGRAMS, "only {} programs", programs.len());
    programs
}

/// The pieces of a text behind lines `=== title`.
fn sections(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let text = text.strip_prefix("=== ").expect("a table begins with a title");
    text.strip_suffix('\n').unwrap_or(text).split("\n=== ").map(|section| {
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        let body = if title.ends_with("(escaped)") { unescape(body) } else { body.to_owned() };
        (title.to_owned(), body)
    })
}

fn unescape(text: &str) -> String {
    [("\\r", "\r"), ("\\t", "\t"), ("\\u{2028}", "\u{2028}"), ("\\u{feff}", "\u{feff}")]
        .iter()
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

fn answers() -> Vec<(String, Outcome)> {
    let text = fs::read_to_string(data().join("answers.txt")).expect("the answers are in git");
    sections(&text)
        .map(|(title, body)| (title, serde_json::from_str(&body).expect("an answer is a JSON object")))
        .collect()
}

#[test]
fn rewritten_programs_do_what_the_repl_says() {
    let (programs, answers) = (programs(), answers());
    let titles = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(
        titles(programs.iter().map(|it| &it.title).collect()),
        titles(answers.iter().map(|it| &it.0).collect()),
        "the answers are out of date; see tests/data/README.md"
    );
    let outcomes = run(&programs.iter().map(|it| rewritten(&it.source)).collect::<Vec<_>>());
    let mut wrong = String::new();
    for ((program, (_, expected)), outcome) in programs.iter().zip(&answers).zip(outcomes) {
        let outcome = outcome.without_stack();
        if outcome != *expected {
            let Program { title, source } = program;
            let _ = writeln!(wrong, "=== {title}\n{source}\n--- REPL {expected:?}\n--- ours {outcome:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
#[ignore = "writes tests/data/answers.txt; see tests/data/README.md"]
fn regenerate() {
    let programs = programs();
    let questions: Vec<_> =
        programs.iter().map(|it| json!({ "title": it.title, "source": it.source })).collect();
    let mut text = String::new();
    for (program, outcome) in programs.iter().zip(ask_repl(&questions)) {
        let answer = json!({ "value": outcome.value, "throws": outcome.throws, "prints": outcome.prints });
        let answer = serde_json::to_string(&answer).expect("strings are JSON");
        let _ = writeln!(text, "=== {}\n{answer}", program.title);
    }
    fs::write(data().join("answers.txt"), text).expect("the checkout is writable");
}
