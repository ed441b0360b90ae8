//! One `run_deno_code` call: arguments in, result out. The only place where code meets a worker.
//!
//! ```text
//! arguments ─► RunArgs ─► script::prepare ─► Deno ready? ─► pool.lease ─► Lease::run ─► RunReport ─► ExecutionResult
//! ```
//! Every step can end the call with an error of its own kind; each call gives exactly one [`ExecutionResult`]. Owns the
//! counter behind execution ids, nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conductor_pool::{Host, Job, LeaseError, PoolHandle, RunEvent, RunReport};
use conductor_script::Script;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::deno::DenoHandle;
use crate::dirs::Dirs;
use crate::packages::{PackageService, Provided};
use crate::profile::Profile;
use crate::stats::{Spans, Stats};
use crate::store::Store;
use crate::upstreams::calls::UpstreamCalls;
use crate::upstreams::{Servers, UpstreamService};
use args::RunArgs;
use calls::{RunCalls, StoreCalls};
use failure::ends::{self, Usage};
use failure::{OwnPaths, Source};
use imports::Imports;
use inline::Inline;
pub(crate) use outcome::MAX_MEDIA_BYTES;
use outcome::Outcome;
use result::{ErrorReport, ErrorType, ExecutionResult, Status, Timings};
use shares::{Share, Shares};

pub mod args;
mod calls;
mod canary;
mod excerpt;
mod failure;
mod imports;
mod inline;
mod outcome;
pub mod result;
pub(crate) mod schema;
mod shares;

/// Code above this size is parsed on a blocking thread: 64 KiB take about a millisecond.
const INLINE_PARSE_BYTES: usize = 64 << 10;

/// Runs code; one for the daemon, shared by all sessions.
#[derive(Debug)]
pub struct Executor {
    pool: PoolHandle,
    deno: DenoHandle,
    stats: Arc<Stats>,
    store: Arc<Store>,
    packages: Arc<PackageService>,
    upstreams: Arc<UpstreamService>,
    dirs: Arc<Dirs>,
    own_paths: OwnPaths,
    shares: Shares,
    /// Makes ids of two daemons differ.
    run_id: String,
    next: AtomicU64,
}

/// What an executor works with.
#[derive(Debug)]
pub struct Parts {
    pub pool: PoolHandle,
    pub deno: DenoHandle,
    pub stats: Arc<Stats>,
    pub store: Arc<Store>,
    pub packages: Arc<PackageService>,
    pub upstreams: Arc<UpstreamService>,
    pub dirs: Arc<Dirs>,
}

/// Who calls, and how the call can be followed and ended.
#[derive(Debug)]
pub struct Caller<'a> {
    pub session: u64,
    pub profile: &'a Profile,
    /// The upstream servers that the code can call.
    pub servers: Servers,
    /// Gets output and phases while the code runs; never blocks the run for longer than it takes to queue.
    pub events: Option<mpsc::Sender<CallEvent>>,
    pub cancel: CancellationToken,
}

/// What a caller can be told while it waits.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// What the call waits for, in words.
    Phase(String),
    Output(RunEvent),
}

/// A worker for a call, and what its code's imports come to in it.
struct Leased {
    lease: conductor_pool::Lease,
    /// Given back when the run is over.
    share: Share,
    imports: BTreeMap<String, String>,
    /// The layer that the worker imports from; it must outlive the worker.
    provided: Option<Arc<Provided>>,
}

impl Executor {
    pub fn new(parts: Parts) -> Self {
        let Parts { pool, deno, stats, store, packages, upstreams, dirs } = parts;
        let run_id = format!("{:08x}", fastrand::u32(..));
        let own_paths = OwnPaths::new(&dirs);
        let next = AtomicU64::new(1);
        let shares = Shares::default();
        Self { pool, deno, stats, store, packages, upstreams, dirs, own_paths, shares, run_id, next }
    }

    /// A name for a call, unique for the life of the daemon and longer.
    pub fn next_id(&self) -> String {
        format!("{}-{}", self.run_id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs one call under a name from [`Executor::next_id`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the worker; the call is then counted as started only. Cancel the token instead.
    pub async fn run(
        &self,
        id: String,
        arguments: Option<Map<String, Value>>,
        caller: Caller<'_>,
    ) -> ExecutionResult {
        let started = Instant::now();
        self.stats.execution_started();
        let mut timings = Timings::default();
        let mut result = match self.try_run(&id, arguments, &caller, &mut timings).await {
            Ok(result) => result,
            Err(error) => ExecutionResult::failed(id, *error),
        };
        timings.total = millis(started.elapsed());
        result.timings = timings;
        // The operator is told everything, the client what concerns it.
        self.record(&result, caller.session);
        if let Some(error) = &mut result.error {
            self.own_paths.hide_in(error);
        }
        result
    }

    async fn try_run(
        &self,
        id: &str,
        arguments: Option<Map<String, Value>>,
        caller: &Caller<'_>,
        timings: &mut Timings,
    ) -> Result<ExecutionResult, Box<ErrorReport>> {
        let profile = caller.profile;
        let args = RunArgs::read(arguments, profile)
            .map_err(|error| ErrorReport::from_text(ErrorType::InvalidArguments, &error.to_string()))?;

        let parsing = Instant::now();
        let RunArgs { code, timeout, globals, dependencies, notes } = args;
        let (code, script) = prepare(code).await?;
        let imports = Imports::judge(&profile.packages.allowed, &script.imports, &dependencies)?;
        timings.prepare = millis(parsing.elapsed());

        let queueing = Instant::now();
        let Leased { lease, share, imports, provided } = tokio::select! {
            // Cancel-safe: dropping the lease request takes it out of the queue, and leaves a layer to others who wait.
            leased = self.lease(caller, &imports) => leased?,
            // Cancel-safe: waits for a flag.
            () = caller.cancel.cancelled() => return Err(ends::cancelled().into()),
        };
        timings.queue = millis(queueing.elapsed());

        let job = Job {
            execution_id: id.to_owned(),
            code: script.code.clone(),
            api_name: script.api_name.clone(),
            globals,
            imports,
            upstreams: caller.servers.names().map(<[String]>::to_vec),
            permissions: profile.permissions(),
            host: Some(Host::new(self.calls(id, caller))),
            limits: profile.limits(timeout),
        };
        let report = run_with_events(lease, job, caller).await;
        drop(share);
        timings.run = millis(report.wall);
        timings.compute = millis(report.cpu);
        timings.waiting = millis(report.waiting);
        let source = Source { text: &code, script: &script };
        let packages = match &provided {
            Some(provided) => failure::Packages::Layer(&provided.layer),
            None if profile.packages.allowed.is_empty() => failure::Packages::None,
            None => failure::Packages::NotFetched,
        };
        let usage = Usage { profile, packages, timeout, wall: report.wall, cpu: report.cpu };
        let mut result = from_report(id, report, source, usage);
        result.notes.splice(0..0, notes);
        self.own_paths.hide_in_shown_value(&mut result);
        let owner = profile.owner(&self.dirs);
        Inline { store: &self.store, owner: &owner, limit: profile.max_inline_bytes }.apply(&mut result);
        Ok(result)
    }

    fn calls(&self, id: &str, caller: &Caller<'_>) -> RunCalls {
        RunCalls {
            store: StoreCalls::new(self.store.clone(), caller.profile.owner(&self.dirs)),
            upstreams: match &caller.servers {
                Servers::Ready(registration) => Ok(UpstreamCalls {
                    service: self.upstreams.clone(),
                    registration: registration.clone(),
                    session: caller.session,
                    execution: id.into(),
                    cancel: caller.cancel.clone(),
                    events: caller.events.clone(),
                }),
                unusable => Err(unusable.clone()),
            },
        }
    }

    async fn lease(&self, caller: &Caller<'_>, imports: &Imports) -> Result<Leased, Box<ErrorReport>> {
        let deno = self.deno.ready(caller.events.as_ref()).await.map_err(|error| {
            Box::new(ErrorReport::from_text(
                ErrorType::Internal,
                &format!("there is no Deno to run code: {error}"),
            ))
        })?;
        let profile = caller.profile;
        let asked = imports.asked();
        let provided = if asked.is_empty() {
            self.packages.at_hand(profile, &deno)
        } else {
            let provided = self.packages.provide(profile, &deno, &asked, caller.events.as_ref()).await;
            Some(provided.map_err(|error| Box::new(imports::no_layer(&error)))?)
        };
        let spelled = imports.spelled(provided.as_deref().map(|provided| &*provided.layer))?;
        let packages = provided.as_ref().map(|provided| self.packages.worker_packages(profile, provided));
        let share = self
            .shares
            .take(caller.session, profile)
            .await
            .map_err(|error| Box::new(ErrorReport::from_text(ErrorType::Busy, &error.to_string())))?;
        let spec = Arc::new(profile.worker_spec(&deno.path, &self.dirs, packages));
        let lease = self.pool.lease(spec, caller.session, None).await;
        let lease = lease.map_err(|error| {
            if matches!(error, LeaseError::Broken { .. }) {
                self.deno.doubt();
            }
            Box::new(failure::from_lease_error(&error))
        })?;
        if let Some(provided) = provided.as_ref().filter(|_| !asked.is_empty()) {
            self.packages.used(profile, provided, &asked);
        }
        Ok(Leased { lease, share, imports: spelled, provided })
    }

    fn record(&self, result: &ExecutionResult, session: u64) {
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let spans = Spans {
            total: ms(result.timings.total),
            queue: ms(result.timings.queue),
            run: ms(result.timings.run),
        };
        let kind = result.error.as_ref().map(|error| error.kind.name());
        self.stats.execution_ended(spans, kind, result.kind);
        if let Some(error) = &result.error {
            self.stats.error("execution", format!("{}: {}", error.kind.name(), error.message));
        }
        let (pid, start_ticks) = result.worker.map_or((0, 0), |worker| (worker.pid, worker.start_ticks));
        tracing::debug!(
            session,
            execution = result.execution_id,
            pid,
            start_ticks,
            error = kind,
            total_ms = result.timings.total,
            "execution ended"
        );
    }
}

async fn prepare(code: String) -> Result<(String, Script), Box<ErrorReport>> {
    let parse = |code: String| {
        let script = conductor_script::prepare(&code);
        script.map(|script| (code, script)).map_err(|error| Box::new(failure::from_syntax_error(&error)))
    };
    if code.len() <= INLINE_PARSE_BYTES {
        return parse(code);
    }
    tokio::task::spawn_blocking(move || parse(code)).await.unwrap_or_else(|_panicked| {
        Err(Box::new(ErrorReport::new(
            ErrorType::Internal,
            "reading the code failed; this is a fault of conductor",
        )))
    })
}

/// Runs the job, handing its output on while it runs.
async fn run_with_events(lease: conductor_pool::Lease, job: Job, caller: &Caller<'_>) -> RunReport {
    let Some(events) = &caller.events else { return lease.run(job, None, caller.cancel.clone()).await };
    // As many chunks as a burst of output brings before they are passed on; a full channel slows the worker down.
    let (sender, mut receiver) = mpsc::channel(64);
    let forward = async {
        while let Some(event) = receiver.recv().await {
            if events.send(CallEvent::Output(event)).await.is_err() {
                // receiver gone: the session ended, and its token ends the run
                break;
            }
        }
    };
    let (report, ()) = tokio::join!(lease.run(job, Some(sender), caller.cancel.clone()), forward);
    report
}

fn from_report(id: &str, report: RunReport, source: Source<'_>, usage: Usage<'_>) -> ExecutionResult {
    let outcome = Outcome::of(report.verdict, source, usage);
    ExecutionResult {
        status: if outcome.error.is_some() { Status::Error } else { Status::Success },
        return_value: outcome.value,
        return_value_format: outcome.format,
        stdout: printable(&report.stdout),
        stderr: printable(&report.stderr),
        error: outcome.error,
        execution_id: id.to_owned(),
        timings: Timings::default(),
        media: outcome.media,
        truncated: None,
        resources: Vec::new(),
        notes: outcome.notes,
        kind: Some(report.kind),
        worker: Some(report.worker),
    }
}

/// Output as text: bytes that are no UTF-8 are replaced, escape sequences of terminals are taken out.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\u{1b}') { anstream::adapter::strip_str(&text).to_string() } else { text.into_owned() }
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are as fine as these clocks mean anything.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
