//! One Deno process, from the moment it was started until nothing is left of it.
//!
//! [`DenoWorker`] owns the process and our ends of its four pipes. Booting waits for the harness's `ready` frame and
//! throws away what the warm-up printed; [`run`](crate::source::Worker::run) hands over the one job and watches it.
//!
//! Nothing a worker writes is believed beyond its own run. It can write any frame at any time, close the channel, print
//! an out-of-memory message; so the daemon's own clock, its own byte counts and the kernel's word about the process
//! decide how the run ended, and only SIGKILL ends a worker.

pub(crate) mod calls;
mod compute;
/// Public for the checks of what a hostile worker may write.
#[doc(hidden)]
pub mod frame;
mod memory;
pub(crate) mod output;
pub(crate) mod process;
mod programs;
pub(crate) mod progress;
mod run;
/// Public as a part of [`frame`].
#[doc(hidden)]
pub mod sharing;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::job::{Job, RunEvent, RunReport, Settled};
use crate::launcher::LAUNCH_FAILED;
use crate::source::{BoxFuture, Reaped, SpawnError, Worker, WorkerIdentity, WorkerKind};
use crate::spawn::command_line::Revoke;
use crate::spawn::start::{Pipes, Started};
use crate::spec::WorkerSpec;
use frame::{Command, FrameReader, Reply};
pub use frame::{USER_LINE_OFFSET, USER_SCRIPT_URL};
use output::{Output, drain};
use process::{ExitWatch, Process};
use sharing::Sharing;

/// Largest frame to and from a worker that has no job yet. Its warm-up's results are a few hundred bytes each; what it is
/// told at boot has to fit into a pipe.
const MAX_BOOT_FRAME: usize = 64 * 1024;

/// How much a booting worker may print before it counts as broken; the warm-up prints two lines.
const MAX_BOOT_OUTPUT: usize = 64 * 1024;

/// How much of a failed boot's stderr is worth telling.
const MAX_BOOT_STDERR: usize = 2 * 1024;

/// A booted, idle worker.
#[derive(Debug)]
pub(crate) struct DenoWorker {
    // Before the process: it is deregistered before the descriptor can close.
    exit: ExitWatch,
    process: Process,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    commands: pipe::Sender,
    replies: pipe::Receiver,
    frames: FrameReader,
    /// Bytes that a run may have in memory.
    max_memory: u64,
    /// Of one that was forked: the first random number that it has drawn, as it says.
    first_draw: Option<u32>,
}

impl DenoWorker {
    /// Waits until a started process is warm. A template is when it can serve; `template` is what it loads and imports.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn boot(
        started: Started,
        revoke: Revoke,
        spec: &WorkerSpec,
        template: Option<(&Path, &mut Sharing)>,
        limit: Duration,
    ) -> Result<Self, SpawnError> {
        let (none, nothing) = (BTreeMap::new(), Vec::new());
        let (library, sharing) = template.unzip();
        let (spellings, preload) = match &spec.packages {
            Some(packages) => (&packages.spellings, &packages.preload),
            None => (&none, &nothing),
        };
        let command = frame::encode(&Command::Boot {
            workspace: &spec.workspace.to_string_lossy(),
            version: env!("CARGO_PKG_VERSION"),
            revoke_read: revoke.read,
            revoke_write: revoke.write,
            spellings,
            preload: sharing.as_ref().map_or(preload, |sharing| &sharing.each),
            shared: sharing.as_ref().map_or(&nothing, |sharing| &sharing.shared),
            library: library.map(Path::to_string_lossy).as_deref(),
        });
        if command.len() > MAX_BOOT_FRAME {
            return Err(SpawnError::Prepare(io::Error::other("the list of packages is too long")));
        }
        let mut none = Sharing::default();
        started.order(&command);
        Self::start(started, spec, sharing.unwrap_or(&mut none), limit).await
    }

    /// Waits for a process that has its first command to say that it is ready.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn start(
        started: Started,
        spec: &WorkerSpec,
        sharing: &mut Sharing,
        limit: Duration,
    ) -> Result<Self, SpawnError> {
        let deadline = Instant::now() + limit;
        let Started { process, pipes: Pipes { stdout, stderr, commands, replies } } = started;
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(SpawnError::Start);
        let mut worker = Self {
            exit: process.watch().map_err(SpawnError::Start)?,
            process,
            stdout: receiver(stdout)?,
            stderr: receiver(stderr)?,
            commands: pipe::Sender::from_owned_fd(commands).map_err(SpawnError::Start)?,
            replies: receiver(replies)?,
            frames: FrameReader::new(MAX_BOOT_FRAME),
            max_memory: u64::from(spec.max_memory_mib) << 20,
            first_draw: None,
        };
        worker.process.starts_programs(spec.grants.starts_programs());
        let mut output = Output::new(MAX_BOOT_OUTPUT);
        match timeout_at(deadline, worker.until_ready(sharing, &mut output)).await {
            Ok(true) => Ok(worker),
            Ok(false) => Err(worker.failed_boot(output, deadline).await),
            Err(_) => Err(SpawnError::BootTimeout { after: limit }),
        }
    }

    /// False when the worker closed its channel, broke it, or printed too much instead.
    async fn until_ready(&mut self, sharing: &mut Sharing, output: &mut Output) -> bool {
        loop {
            while let Some(reply) = self.frames.next_reply().transpose() {
                match reply {
                    Ok(Reply::Ready { drawn }) => {
                        self.first_draw = drawn;
                        return drain(output, &self.stdout, &self.stderr);
                    }
                    Ok(reply) => sharing.note(&reply),
                    Err(_) => return false,
                }
            }
            if !drain(output, &self.stdout, &self.stderr) {
                return false;
            }
            // Cancel-safe: waits for readiness only, the bytes stay in the pipe. Output needs no arm of its own: the
            // warm-up's fits into the pipes.
            if self.replies.readable().await.is_err() || !matches!(self.frames.fill(&self.replies), Ok(1..)) {
                return false;
            }
        }
    }

    /// The process itself; it ends with the worker.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn first_draw(&self) -> Option<u32> {
        self.first_draw
    }

    /// Why the boot failed, from the process's own words and status.
    async fn failed_boot(self, mut output: Output, deadline: Instant) -> SpawnError {
        // A worker that merely closed its channel is ended by us; all others are ending already.
        let grace = deadline.min(Instant::now() + Duration::from_secs(1));
        let status = timeout_at(grace, self.exit.ended()).await.ok();
        drain(&mut output, &self.stdout, &self.stderr);
        let (_, stderr) = output.into_parts();
        let stderr = String::from_utf8_lossy(&stderr[..stderr.len().min(MAX_BOOT_STDERR)]).trim().to_owned();
        match status {
            Some(status) if status.code == Some(LAUNCH_FAILED) => SpawnError::Start(io::Error::other(stderr)),
            Some(status) => SpawnError::Died { status: status.to_string(), stderr },
            None => SpawnError::Died { status: "channel closed".to_owned(), stderr },
        }
    }

    /// Runs `code` and lets the process end by itself, so that Deno writes its caches. `code` must be short, and what it
    /// prints and returns less than a pipe holds.
    pub(crate) async fn rehearse(self, code: &str, limit: Duration) -> io::Result<Rehearsed> {
        let run = frame::encode(&Command::Run {
            code,
            api_name: "api",
            globals: &serde_json::Map::new(),
            imports: &BTreeMap::new(),
            upstreams: None,
            max_result: 6000,
            max_media: 0,
            max_calls_in_flight: 0,
            permissions: &serde_json::Value::Null,
        });
        rustix::io::write(&self.commands, &run)?;
        let Self { exit, process, commands, replies, stdout, stderr, mut frames, .. } = self;
        // The end of its command stream is what a worker that has finished waits for.
        drop(commands);
        let status = tokio::time::timeout(limit, exit.ended()).await?;
        let mut output = Output::new(MAX_BOOT_OUTPUT);
        drain(&mut output, &stdout, &stderr);
        drop(process);
        if status.code != Some(0) {
            let error = format!("the rehearsal that fills Deno's caches failed: {status}");
            return Err(io::Error::other(error));
        }
        while frames.fill_now(&replies).is_ok_and(|bytes| bytes > 0) {}
        let mut rehearsed = Rehearsed { settled: None, quiet: output.is_empty() };
        while let Ok(Some(reply)) = frames.next_reply() {
            match reply {
                Reply::Settled(settled) => rehearsed.settled = Some(settled),
                Reply::Open { .. } | Reply::Late(_) => rehearsed.quiet = false,
                _ => {}
            }
        }
        Ok(rehearsed)
    }
}

/// What came of a rehearsal.
#[derive(Debug)]
pub(crate) struct Rehearsed {
    pub(crate) settled: Option<Settled>,
    /// Nothing was printed, and nothing went on after the value was known.
    pub(crate) quiet: bool,
}

impl Worker for DenoWorker {
    fn identity(&self) -> WorkerIdentity {
        self.process.identity()
    }

    fn kind(&self) -> WorkerKind {
        if self.process.is_forked() { WorkerKind::Fork } else { WorkerKind::Spawn }
    }

    fn died(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.exit.ended().await;
        })
    }

    fn run(
        self: Box<Self>,
        job: Job,
        events: Option<mpsc::Sender<RunEvent>>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, (RunReport, Reaped)> {
        Box::pin(run::run(*self, job, events, cancel))
    }

    fn retire(self: Box<Self>) -> Reaped {
        self.process.reap()
    }
}
