//! How templates come and go: replaced before they have served too long, dropped when nobody needs them, given up for a while
//! when they keep failing. No call fails for it or waits for it.
//!
//! With limits that are reached at once, and a Deno that is a template in milliseconds ([`Faulty`]); at the end with the real
//! one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    ForkFailure, ForkLimits, TemplateEnd, WorkerChoice, WorkerKind, WorkerSource as _, WorkerSpec,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::fork::{is_dead, parent, stat, until};
use crate::fork_fallback::{Faulty, PATIENCE, crash, serve};
use crate::support::{Bench, Forks};

/// More than the second until a slow template has one thread.
const SLOW: Duration = Duration::from_secs(30);

/// A source with a template that is ready.
async fn ready(fault: &str, change: impl FnOnce(&mut ForkLimits)) -> Faulty {
    let faulty = Faulty::with(fault, change);
    faulty.forks.source.ready(&faulty.spec).await.unwrap();
    faulty
}

fn ended(faulty: &Faulty, end: TemplateEnd) -> u64 {
    faulty.status().totals.ended.get(&end).copied().unwrap_or_default()
}

fn serving(faulty: &Faulty) -> Option<i32> {
    faulty.status().serving.map(|template| template.pid)
}

/// A call that is served while the template is being built.
async fn call_without_template(faulty: &Faulty) {
    let told = until("the build is not told", || {
        let why = faulty.forks.source.fallback(&faulty.spec);
        why.as_deref() == Some("the template is being built")
    });
    assert_eq!(tokio::join!(faulty.call(), told).0, WorkerKind::Spawn);
}

/// Calls, all of them forked, until two templates have ended in this way.
async fn calls_until_two_ended(faulty: &Faulty, end: TemplateEnd) {
    while ended(faulty, end) < 2 {
        assert_eq!(faulty.call().await, WorkerKind::Fork, "{:?}", faulty.status());
    }
    let totals = faulty.status().totals;
    assert_eq!((totals.ended.len(), totals.failures.len()), (1, 0), "{totals:?}");
    assert_eq!(totals.built, totals.ended[&end] + 1);
}

#[tokio::test]
async fn a_template_that_has_forked_enough_is_replaced_while_it_serves() {
    let faulty = ready("good", |limits| {
        limits.max_forks = 10;
        // It is not the round that looks.
        limits.round = Duration::from_secs(3600);
    })
    .await;
    calls_until_two_ended(&faulty, TemplateEnd::Forks).await;
}

#[tokio::test]
async fn a_template_that_is_old_is_replaced_while_it_serves() {
    let faulty = ready("good", |limits| limits.max_age = Duration::from_millis(300)).await;
    calls_until_two_ended(&faulty, TemplateEnd::Age).await;
}

#[tokio::test]
async fn a_template_that_has_grown_is_replaced_while_it_serves() {
    let faulty = ready("swells", |_| {}).await;
    calls_until_two_ended(&faulty, TemplateEnd::Memory).await;
}

#[tokio::test]
async fn workers_of_a_template_that_was_replaced_serve_on_and_it_goes_with_the_last() {
    let faulty = ready("good", |limits| limits.max_forks = 10).await;
    let (used, lost) = (faulty.boot().await, faulty.boot().await);
    let first = parent(used.identity().pid);
    assert_eq!(serving(&faulty), Some(first));
    while serving(&faulty) == Some(first) {
        faulty.call().await;
    }
    assert!(!is_dead(first));
    assert_eq!(serve(used).await, WorkerKind::Fork);
    assert!(!is_dead(first), "it has another worker");
    drop(lost);
    until("a template outlives its last worker", || is_dead(first)).await;

    // One that is killed takes along what is its own, and nothing else.
    let (mut old, second) = (faulty.boot().await, serving(&faulty).unwrap());
    assert_eq!(parent(old.identity().pid), second);
    while serving(&faulty) == Some(second) {
        faulty.call().await;
    }
    let new = faulty.boot().await;
    kill_process(Pid::from_raw(second).unwrap(), Signal::KILL).unwrap();
    old.died().await;
    assert_eq!(serve(new).await, WorkerKind::Fork);
    assert_eq!(faulty.call().await, WorkerKind::Fork);
    assert_eq!(ended(&faulty, TemplateEnd::Died), 0, "it had a successor");
}

#[tokio::test]
async fn a_template_that_nobody_uses_goes_and_comes_again() {
    let faulty = ready("slow", |limits| {
        limits.unused_after = Duration::from_secs(1);
        limits.settled_within = SLOW;
    })
    .await;
    let template = serving(&faulty).unwrap();
    until("a template that is not used stays", || serving(&faulty).is_none()).await;
    until("its process stays", || is_dead(template)).await;
    assert!(ended(&faulty, TemplateEnd::Unused) > 0);
    let why = faulty.forks.source.fallback(&faulty.spec).unwrap();
    assert_eq!(why, "no worker has been needed for a while");
    call_without_template(&faulty).await;
    faulty.forks.source.ready(&faulty.spec).await.unwrap();
    let counted = ended(&faulty, TemplateEnd::Unused);
    assert_eq!(faulty.status().totals.built, counted + 1, "what is counted is kept");
}

#[tokio::test]
async fn a_deno_that_is_replaced_has_a_new_template() {
    let faulty = ready("slow", |limits| limits.settled_within = SLOW).await;
    let (old, first) = (faulty.boot().await, serving(&faulty).unwrap());
    let (deno, new) = (&faulty.spec.deno, faulty.directory.path().join("new"));
    // By a process of its own: nobody here has it open for writing when it is executed.
    assert!(Command::new("cp").arg(deno).arg(&new).status().unwrap().success());
    assert_ne!(new.metadata().unwrap().ino(), deno.metadata().unwrap().ino());
    fs::rename(&new, deno).unwrap();
    call_without_template(&faulty).await;
    assert_eq!(serve(old).await, WorkerKind::Fork, "it was made before");
    faulty.forks.source.ready(&faulty.spec).await.unwrap();
    assert_eq!(faulty.call().await, WorkerKind::Fork);
    assert_ne!(serving(&faulty), Some(first));
    assert_eq!(ended(&faulty, TemplateEnd::Outdated), 1);
}

/// Where the library of templates is.
fn library(faulty: &Faulty) -> PathBuf {
    let mut files = fs::read_dir(faulty.cache().join("harness")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|it| it == "so")).unwrap()
}

#[tokio::test]
async fn a_library_that_was_changed_is_never_loaded_and_one_that_cannot_be_written_is_done_without() {
    let retry = Duration::from_millis(500);
    let faulty = ready("good", |limits| {
        limits.max_forks = 10;
        limits.retry_after = retry;
    })
    .await;
    let library = library(&faulty);
    let content = fs::read(&library).unwrap();
    let replace = || {
        fs::remove_file(&library).unwrap();
        fs::write(&library, "another").unwrap();
    };
    replace();
    while ended(&faulty, TemplateEnd::Forks) < 1 {
        assert_eq!(faulty.call().await, WorkerKind::Fork);
    }
    assert_eq!(fs::read(&library).unwrap(), content, "restored before the next template loaded it");

    fs::remove_file(&library).unwrap();
    fs::create_dir(&library).unwrap();
    while faulty.call().await == WorkerKind::Fork {}
    let why = faulty.forks.source.fallback(&faulty.spec).unwrap();
    assert!(why.contains("the template did not start: cannot prepare the worker's directories"), "{why}");
    let failures = faulty.status().totals.failures;
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&ForkFailure::Start], "{failures:?}");

    fs::remove_dir(&library).unwrap();
    while faulty.call().await == WorkerKind::Spawn {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn forks_that_keep_crashing_and_templates_that_keep_dying_are_given_up_for_a_while() {
    let faulty = ready("good", |_| {}).await;
    for crashes in 1..=5 {
        assert_eq!(faulty.status().totals.gave_up, 0, "after {crashes}");
        let worker = faulty.boot().await;
        assert_eq!(worker.kind(), WorkerKind::Fork);
        crash(worker).await;
    }
    let why = faulty.forks.source.fallback(&faulty.spec).unwrap();
    assert_eq!(why, "forked workers keep crashing (signal 4)");
    assert_eq!(faulty.call().await, WorkerKind::Spawn);
    let totals = faulty.status().totals;
    assert_eq!((totals.gave_up, totals.failures), (1, [(ForkFailure::Crash, 5)].into()));

    let faulty = ready("good", |_| {}).await;
    for round in 1..=5 {
        let worker = faulty.boot().await;
        let template = parent(worker.identity().pid);
        kill_process(Pid::from_raw(template).unwrap(), Signal::KILL).unwrap();
        until("a template survives", || is_dead(template)).await;
        worker.retire().await;
        assert_eq!(faulty.call().await, WorkerKind::Spawn);
        let again = faulty.forks.source.ready(&faulty.spec).await;
        assert_eq!(again.err().as_deref(), (round == 5).then_some("templates keep dying"));
    }
    assert_eq!((faulty.status().totals.gave_up, ended(&faulty, TemplateEnd::Died)), (1, 5));
}

/// Templates that serve or are being built.
fn templates(faulty: &Faulty) -> usize {
    let deno = faulty.spec.deno.to_string_lossy().into_owned();
    let ours = i32::try_from(std::process::id()).unwrap();
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_template = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(&deno)
            && line.contains("--allow-ffi")
            && stat(*pid).is_some_and(|stat| stat[1] == ours.to_string())
    };
    all.filter(is_template).count()
}

#[tokio::test]
async fn a_template_that_was_being_built_when_forks_were_given_up_serves_none() {
    let faulty = ready("slower", |limits| {
        limits.settled_within = SLOW;
        limits.max_forks = 1;
    })
    .await;
    let workers = futures_util::future::join_all((0..5).map(|_| faulty.boot())).await;
    until("no successor is built", || templates(&faulty) == 2).await;
    futures_util::future::join_all(workers.into_iter().map(crash)).await;
    let totals = faulty.status().totals;
    assert_eq!(
        (totals.gave_up, totals.built),
        (1, 1),
        "in less than the ten seconds that it takes to build one"
    );
    until("the successor stays", || templates(&faulty) == 0).await;
    assert_eq!(faulty.call().await, WorkerKind::Spawn);
    assert_eq!(
        faulty.forks.source.fallback(&faulty.spec).unwrap(),
        "forked workers keep crashing (signal 4)"
    );
    assert_eq!((serving(&faulty), faulty.status().totals.built), (None, 1));
}

/// Tried in full, too. Ten seconds each until the idle threads of the trial's template, the first and the second have ended.
#[tokio::test]
async fn calls_go_on_while_a_real_template_is_replaced() {
    let bench = Bench::new();
    let limits = ForkLimits { max_forks: 40, ..ForkLimits::default() };
    let forks = Forks::with(bench.source.clone(), limits);
    let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, ..bench.spec() });
    forks.source.ready(&spec).await.unwrap();
    let served = || forks.source.templates(&spec).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while served().totals.built < 2 {
        assert!(Instant::now() < deadline, "{:?}", served());
        let worker = forks.source.boot(Arc::clone(&spec)).await.unwrap();
        assert_eq!(serve(worker).await, WorkerKind::Fork, "{:?}", forks.source.fallback(&spec));
    }
    assert_eq!(served().totals.ended, [(TemplateEnd::Forks, 1)].into());
    assert_eq!(served().totals.failures, Default::default());
}
