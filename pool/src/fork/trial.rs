//! Whether this Deno can be forked at all: tried once for each executable, before the first template of it that counts.
//!
//! A template of its own, with the network of this machine, forks 64 children that live and fetch side by side, and then
//! many that come and go; at the end it holds what it held before. What is particular to a spec, the
//! [self-test](super::self_test) of each of its templates shows.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use serde_json::{Map, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

use super::self_test::{job, values};
use super::template::{ForkError, Template};
use crate::job::Job;
use crate::source::Worker as _;
use crate::spawn::{DenoSpawn, Origin};
use crate::spec::{Grant, Grants, WorkerSpec};

/// Executables that have passed in this process, and one trial at a time: those who want a template of the same wait for it.
static PASSED: Mutex<BTreeSet<String>> = Mutex::const_new(BTreeSet::new());

/// Children that live at one time.
const CROWD: usize = 64;
/// Children that come and go, some at a time; two milliseconds of CPU time each.
const MANY: usize = 1000;
const AT_ONCE: usize = 8;
/// Bytes that the template may have more in memory after them: room for what it needs once.
const GROWTH: u64 = 1 << 20;

/// A child's share in the crowd.
const VISIT: &str = "
    const answer = await (await fetch(address)).text();
    if (answer !== 'ok') throw new Error(`fetch on loopback: ${answer}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
    return Deno.pid;";

/// # Errors
/// What went wrong. The next to ask tries again.
///
/// # Cancel safety
/// Dropping the future kills what was started.
pub(super) async fn of(spawn: &DenoSpawn, deno: &Path, busy: &Semaphore) -> Result<(), ForkError> {
    let origin = Origin::of(deno, None).map_err(|error| ForkError::Trial(error.to_string()))?;
    let mut passed = PASSED.lock().await;
    if !passed.contains(origin.key()) {
        run(spawn, deno, busy).await?;
        passed.insert(origin.key().to_owned());
    }
    Ok(())
}

async fn run(spawn: &DenoSpawn, deno: &Path, busy: &Semaphore) -> Result<(), ForkError> {
    let failed = |error: io::Error| ForkError::Trial(format!("cannot listen on loopback: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let net = Grant::Only([address.to_string()].into());
    let spec = WorkerSpec { grants: Grants { net, ..Grants::default() }, ..spawn.plain_spec(deno) };
    let template = super::template(spawn, &spec, busy).await?;
    let _testing = busy.acquire().await.expect("nobody closes it");
    tokio::select! {
        // Cancel-safe: never ready.
        () = serve(listener) => unreachable!("it serves for ever"),
        // Cancel-safe: it is not polled again after the other.
        done = crowd(&template, spawn, &spec, address) => done?,
    }
    many(&template, spawn, &spec).await
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
    address: SocketAddr,
) -> Result<(), ForkError> {
    let children = try_join_all((0..CROWD).map(|_| template.fork(spawn, spec))).await?;
    let globals = Map::from_iter([("address".to_owned(), json!(format!("http://{address}")))]);
    let visit = || Job { globals: globals.clone(), ..job(VISIT) };
    let answers = join_all(children.into_iter().map(|child| values(child, visit()))).await;
    let mut pids = BTreeSet::new();
    for answer in answers {
        pids.insert(answer.map_err(ForkError::Trial)?.to_string());
    }
    match pids.len() {
        CROWD => Ok(()),
        other => Err(ForkError::Trial(format!("{CROWD} forks are {other} processes"))),
    }
}

async fn many(template: &Arc<Template>, spawn: &DenoSpawn, spec: &WorkerSpec) -> Result<(), ForkError> {
    let before = Held::by(template)?;
    for _ in 0..MANY / AT_ONCE {
        let children = try_join_all((0..AT_ONCE).map(|_| template.fork(spawn, spec))).await?;
        join_all(children.into_iter().map(|child| Box::new(child).retire())).await;
    }
    let after = Held::by(template)?;
    if after.memory > before.memory + GROWTH || after.descriptors != before.descriptors {
        return Err(ForkError::Trial(format!(
            "{MANY} forks have left something: {before:?}, then {after:?}"
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
        let process = format!("/proc/{}", template.pid().as_raw_pid());
        let look = || {
            let status = std::fs::read_to_string(format!("{process}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            let memory = kibibytes.ok_or(io::ErrorKind::InvalidData)? << 10;
            Ok(Self { memory, descriptors: std::fs::read_dir(format!("{process}/fd"))?.count() })
        };
        look().map_err(|error: io::Error| ForkError::Trial(format!("cannot look at the template: {error}")))
    }
}
