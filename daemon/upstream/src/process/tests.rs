use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::*;

/// Longest wait for something that happens at once on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

async fn shell(script: &str) -> (ServerProcess, Pipes) {
    let env = BTreeMap::from([(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))]);
    let args = ["-c", script].map(OsString::from).into();
    let launch = Launch {
        program: PathBuf::from("/bin/sh"),
        args,
        env,
        directory: "/".into(),
        mark: spawn::new_mark(),
    };
    ServerProcess::start(launch).await.expect("sh starts")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_polite_server_ends_when_its_stdin_does() {
    // More than one try: a machine that stands still for so long says nothing.
    for _ in 0..3 {
        let (process, pipes) = shell("cat; exit 3").await;
        drop(pipes.stdin);
        let start = Instant::now();
        let status = process.end().await.expect("ended");
        if start.elapsed() < AFTER_EOF {
            return assert_eq!(status.code(), Some(3));
        }
    }
    panic!("it was waited for");
}

#[tokio::test]
async fn the_whole_tree_ends_even_what_ignores_signals_and_leaves_the_group() {
    let script = "trap '' TERM; sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & echo ready; wait' &) ; sleep 1000";
    let (process, mut pipes) = shell(script).await;
    let mut line = String::new();
    BufReader::new(&mut pipes.stdout).read_line(&mut line).await.expect("it writes");
    let mark = process.mark.clone();
    until("all are running", || tree::marked(&mark).len() >= 5).await;
    drop(pipes.stdin);
    process.end().await.expect("ended");
    until("all are gone", || tree::marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn a_dropped_process_takes_its_tree_along() {
    let (process, pipes) = shell("setsid sleep 1000 & sleep 1000").await;
    let mark = process.mark.clone();
    until("both are running", || tree::marked(&mark).len() >= 2).await;
    drop((process, pipes));
    until("all are gone", || tree::marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn a_server_gets_its_own_environment_and_no_other() {
    let (process, mut pipes) = shell("/usr/bin/env").await;
    let mut output = String::new();
    pipes.stdout.read_to_string(&mut output).await.expect("it writes");
    let mut names: Vec<_> =
        output.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !matches!(*name, "_" | "PWD" | "SHLVL"));
    names.sort_unstable();
    assert_eq!(names, [tree::MARK, "PATH"]);
    process.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let launch = Launch {
        program: PathBuf::from("/nonexistent"),
        args: Vec::new(),
        env: BTreeMap::new(),
        directory: "/".into(),
        mark: spawn::new_mark(),
    };
    assert_eq!(ServerProcess::start(launch).await.expect_err("no such file").kind(), io::ErrorKind::NotFound);
}

/// A process that becomes another program has no environment for a moment, in which it is not seen to carry the mark.
#[tokio::test]
async fn what_becomes_another_program_just_then_ends_too() {
    for _ in 0..10 {
        let again = r#"'exec sh -c "$0" "$0"'"#;
        let (process, pipes) = shell(&format!("setsid sh -c {again} {again} & sleep 1000")).await;
        let mark = process.mark.clone();
        until("both are running", || tree::marked(&mark).len() >= 2).await;
        drop((process, pipes));
        // One look does not tell: it would not be seen either.
        until("all are gone", || (0..10).all(|_| tree::marked(&mark).is_empty())).await;
    }
}
