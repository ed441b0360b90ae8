//! Every parser's check over its kept inputs and over seeded mutations of them: the short run of what the fuzzer does for
//! hours.
//!
//! `CONDUCTOR_PARSER_ROUNDS=100000` tries that many mutations of each, `CONDUCTOR_PARSER_SEED=17` those of another seed. An
//! input that breaks a promise is written to a file, whose path is printed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use conductor_tests::parsers::{MAX_CPU, Mutator, TARGETS, Target};
use nix::time::{ClockId, clock_gettime};

/// All of them together take some seconds.
const ROUNDS: u64 = 1500;

/// Makes a test of each target.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            short_run(&Target::named(stringify!($name)));
        })*

        #[test]
        fn every_target_is_tested_and_can_be_fuzzed() {
            let names = TARGETS.map(|target| target.name);
            assert_eq!(names.as_slice(), [$(stringify!($name)),*]);
            let fuzzed = include_str!("../fuzz/Cargo.toml");
            let fuzzed: Vec<&str> = fuzzed.split("[[bin]]\nname = \"").skip(1).filter_map(|it| it.split('"').next()).collect();
            assert_eq!(fuzzed, names);
        }
    };
}

targets!(
    arguments,
    config,
    event_stream,
    expand,
    frame,
    hello,
    http_head,
    lockfile,
    mcp_config,
    message,
    operate,
    run_args,
    schema,
    script,
    session,
    specifier,
    worker_frame,
);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn short_run(target: &Target) {
    let corpus = target.corpus();
    for input in &corpus {
        check(target, input);
    }
    let seed = number("CONDUCTOR_PARSER_SEED").unwrap_or(1);
    let mut mutator = Mutator::new(target, corpus, seed);
    for _ in 0..number("CONDUCTOR_PARSER_ROUNDS").unwrap_or(ROUNDS) {
        check(target, &mutator.next_input());
    }
}

fn check(target: &Target, input: &[u8]) {
    let before = cpu_time();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    let took = cpu_time() - before;
    if outcome.is_ok() && took <= MAX_CPU {
        return;
    }
    let directory = conductor_deno::testing::target_dir().join("parsers");
    std::fs::create_dir_all(&directory).expect("the build directory can be written");
    let file = directory.join(target.name);
    std::fs::write(&file, input).expect("the build directory can be written");
    panic!(
        "{}: an input of {} bytes breaks a promise (after {took:?}); it is in {}\n{}",
        target.name,
        input.len(),
        file.display(),
        input.escape_ascii()
    );
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a clock").into()
}
