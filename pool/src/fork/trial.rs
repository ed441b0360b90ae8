//! Whether this Deno can be forked at all: tried once for each executable, before the first template of it that counts, and
//! [noted](super::passed).
//!
//! A template of its own, with the network of this machine and a directory of its own, forks 64 children that live, fetch and
//! use files side by side, and then many that come and go; at the end it holds what it held before. What is particular to a
//! spec, the [self-test](super::self_test) of each of its templates shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::passed::{Passed, hash_of_file};
use super::preload::Build;
use super::self_test::{job, values};
use super::template::{ForkError, LIBRARY, Template};
use crate::job::Job;
use crate::source::Worker as _;
use crate::spawn::{DenoSpawn, HARNESS, Origin};
use crate::spec::{Grant, Grants, WorkerSpec};

/// What this process knows of executables: the hash of the content, by [`Origin::key`]. Locked during a trial: those who want
/// a template of the same Deno wait for it.
static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::const_new(BTreeMap::new());

/// Of the children that come and go.
const AT_ONCE: usize = 8;
/// Bytes that the template may have more in memory after them: room for what it needs once.
const GROWTH: u64 = 1 << 20;

/// A child's share in the crowd.
const VISIT: &str = "
    const answer = await (await fetch(address)).text();
    if (answer !== 'ok') throw new Error(`fetch on loopback: ${answer}`);
    const file = `${directory}/${Deno.pid}`;
    await Deno.writeTextFile(file, answer);
    if (await Deno.readTextFile(file) !== answer) throw new Error('files');
    await new Promise((resolve) => setTimeout(resolve, 5));
    return Deno.pid;";

/// # Errors
/// What went wrong. The next to ask tries again.
///
/// # Cancel safety
/// Dropping the future kills what was started.
pub(super) async fn of(build: Build<'_>) -> Result<(), ForkError> {
    let (deno, limits) = (&build.spec.deno, build.limits);
    let failed = |error: io::Error| ForkError::Trial(format!("cannot read {}: {error}", deno.display()));
    let origin = Origin::of(deno, None).map_err(failed)?;
    let mut known = KNOWN.lock().await;
    if !known.contains_key(origin.key()) {
        let path = deno.clone();
        let hash = spawn_blocking(move || hash_of_file(&path)).await;
        let hash = hash.map_err(io::Error::other).and_then(|hash| hash).map_err(failed)?;
        known.insert(origin.key().to_owned(), hash);
    }
    let directory = match &limits.trial.passed {
        Some(directory) => directory.clone(),
        None => build.spawn.config().cache_dir.join("trials"),
    };
    let passed = Passed::new(&directory, &known[origin.key()], HARNESS.as_bytes(), LIBRARY, &limits.trial);
    if passed.as_ref().is_ok_and(Passed::is_noted) {
        return Ok(());
    }
    run(build).await?;
    passed
        .and_then(|passed| passed.note())
        .unwrap_or_else(|error| warn!(%error, "the trial of this Deno is not noted, and will be run again"));
    Ok(())
}

async fn run(build: Build<'_>) -> Result<(), ForkError> {
    let Build { spawn, limits, busy, .. } = build;
    let failed = |error: io::Error| ForkError::Trial(format!("cannot set the scene: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?.to_string();
    let directory = tempfile::tempdir().map_err(failed)?;
    let files = directory.path().canonicalize().map_err(failed)?.to_string_lossy().into_owned();
    let only = |value: &String| Grant::Only([value.clone()].into());
    let grants = Grants { net: only(&address), read: only(&files), write: only(&files), ..Grants::default() };
    let spec = WorkerSpec { grants, ..spawn.plain_spec(&build.spec.deno) };
    let template = Build { spec: &spec, ..build }.plain().await?;
    let _testing = busy.acquire().await.expect("nobody closes it");
    let scene = [("address", format!("http://{address}")), ("directory", files)];
    let scene = scene.map(|(name, value)| (name.to_owned(), Value::from(value))).into_iter().collect();
    tokio::select! {
        // Cancel-safe: never ready.
        () = serve(listener) => unreachable!("it serves for ever"),
        // Cancel-safe: it is not polled again after the other.
        done = crowd(&template, spawn, &spec, &scene, limits.trial.crowd) => done?,
    }
    many(&template, spawn, &spec, limits.trial.many).await
}

/// Answers every request with `ok`.
async fn serve(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        // A request is one packet, and one that fails shows in the child.
        let mut request = [0; 4096];
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        if stream.read(&mut request).await.is_ok() {
            stream.write_all(answer).await.ok();
        }
    }
}

async fn crowd(
    template: &Arc<Template>,
    spawn: &DenoSpawn,
    spec: &WorkerSpec,
    scene: &Map<String, Value>,
    size: usize,
) -> Result<(), ForkError> {
    let children = try_join_all((0..size).map(|_| template.fork(spawn, spec))).await?;
    let visit = || Job { globals: scene.clone(), ..job(VISIT) };
    let answers = join_all(children.into_iter().map(|child| values(child, visit()))).await;
    let mut pids = BTreeSet::new();
    for answer in answers {
        pids.insert(answer.map_err(ForkError::Trial)?.to_string());
    }
    if pids.len() == size {
        return Ok(());
    }
    Err(ForkError::Trial(format!("{size} forks are {} processes", pids.len())))
}

async fn many(
    template: &Arc<Template>,
    spawn: &DenoSpawn,
    spec: &WorkerSpec,
    size: usize,
) -> Result<(), ForkError> {
    let before = Held::by(template)?;
    for _ in 0..size / AT_ONCE {
        let children = try_join_all((0..AT_ONCE).map(|_| template.fork(spawn, spec))).await?;
        join_all(children.into_iter().map(|child| Box::new(child).retire())).await;
    }
    let after = Held::by(template)?;
    if after.memory > before.memory + GROWTH || after.descriptors != before.descriptors {
        return Err(ForkError::Trial(format!(
            "{size} forks have left something: {before:?}, then {after:?}"
        )));
    }
    Ok(())
}

/// What a template holds.
#[derive(Debug)]
struct Held {
    /// Bytes of its own.
    memory: u64,
    descriptors: usize,
}

impl Held {
    fn by(template: &Template) -> Result<Self, ForkError> {
        let gone = || ForkError::Trial("cannot look at the template".to_owned());
        let memory = template.memory().ok_or_else(gone)?;
        let open = std::fs::read_dir(format!("/proc/{}/fd", template.pid().as_raw_pid()));
        Ok(Self { memory, descriptors: open.map_err(|_| gone())?.count() })
    }
}
