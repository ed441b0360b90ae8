//! Do the tests bite? Each seeded mistake in the rewrite, in the harness, in the jail and in the state machines must turn a
//! test red.
//!
//! ```text
//! cargo run -p conductor-tests --bin mutants              all of them; minutes, the first time more
//! cargo run -p conductor-tests --bin mutants -- NAME ...  some of them
//! ```
//!
//! ```text
//! table    the mistakes: one edit of one file each, and the tests that must notice
//! tree     a copy of the checkout, in which the mistakes are made one at a time
//! suite    runs tests there and tells a red test from anything else that can go wrong
//! ```
//!
//! A mistake counts as noticed only when a test fails: one that does not compile, that keeps every worker from running, or
//! that hangs is reported as invalid, since no reviewer would miss it. The exit code is 1 unless all are noticed. The
//! checkout is only read; the copy and its build stay in `target/mutants`, with the output of each run beside them.

mod suite;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use suite::{Outcome, Suites};
use table::{Mutation, mutations};
use tree::Tree;

/// Makes mistakes in a copy of the sources, one at a time, and checks that a test turns red.
#[derive(Clone, Debug, Parser)]
#[command(name = "mutants")]
struct Options {
    /// Only these, by name; all by default
    names: Vec<String>,
}

/// What became of a mutation.
enum Verdict {
    /// The test that noticed it first.
    Red(String),
    Survived,
    /// Why it proves nothing.
    Invalid(String),
}

/// What the program does; `main` only calls this.
pub fn main_impl() -> ExitCode {
    let names = Options::parse().names;
    if let Some(unknown) = names.iter().find(|name| mutations().all(|it| it.name != **name)) {
        print(&format!("no mutation is called {unknown}"));
        return ExitCode::FAILURE;
    }
    let chosen = mutations().filter(|it| names.is_empty() || names.iter().any(|name| name == it.name));
    match run(&chosen.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            print(&why);
            ExitCode::FAILURE
        }
    }
}

fn run(mutations: &[&Mutation]) -> Result<(), String> {
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package has a directory of its own");
    let home = conductor_deno::testing::target_dir().join("mutants");
    let tree = Tree::copy(repository, home.join("tree"));
    for mutation in mutations {
        tree.find(mutation)?;
    }
    let suites = Suites::new(&tree, &home);
    print("the tests without a mutation ...");
    for tests in mutations.iter().map(|mutation| mutation.red).collect::<BTreeSet<_>>() {
        match suites.run("unmutated", tests) {
            Outcome::Green => {}
            other => return Err(format!("`cargo test {tests}` must be green to begin with: {other}")),
        }
    }
    let mut failed = 0;
    for mutation in mutations {
        let started = Instant::now();
        let verdict = judge(&tree, &suites, mutation)?;
        failed += usize::from(!matches!(verdict, Verdict::Red(_)));
        print(&line(mutation, &verdict, started.elapsed()));
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {} were not noticed; see {}", mutations.len(), home.display())),
    }
}

fn judge(tree: &Tree, suites: &Suites, mutation: &Mutation) -> Result<Verdict, String> {
    let _mutated = tree.mutate(mutation)?;
    if !suites.compiles(mutation.name, mutation.red) {
        return Ok(Verdict::Invalid("it does not compile".to_owned()));
    }
    if let Some(alive) = mutation.alive()
        && !matches!(suites.run(mutation.name, alive), Outcome::Green)
    {
        return Ok(Verdict::Invalid("nothing works any more".to_owned()));
    }
    Ok(match suites.run(mutation.name, mutation.red) {
        Outcome::Red(test) => Verdict::Red(test),
        Outcome::Green => Verdict::Survived,
        Outcome::NoTest => Verdict::Invalid(format!("`{}` runs no test", mutation.red)),
        Outcome::Broken(why) => Verdict::Invalid(why),
    })
}

fn line(mutation: &Mutation, verdict: &Verdict, took: Duration) -> String {
    let (word, detail) = match verdict {
        Verdict::Red(test) => ("red", test.as_str()),
        Verdict::Survived => ("SURVIVED", mutation.red),
        Verdict::Invalid(why) => ("INVALID", why.as_str()),
    };
    format!("{word:<9} {:<22} {:>3} s  {detail}", mutation.name, took.as_secs())
}

#[expect(clippy::print_stdout, reason = "the results are this program's output")]
fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_can_be_made() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies in the workspace");
        for mutation in mutations() {
            let text = std::fs::read_to_string(repository.join(mutation.file)).expect("its file is there");
            assert_eq!(text.matches(mutation.find).count(), 1, "{}: {}", mutation.name, mutation.find);
        }
    }
}
