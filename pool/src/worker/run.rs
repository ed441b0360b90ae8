//! Watching the one run of a worker: hands over the code, reads three pipes, keeps the clock, and ends it.

use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::DenoWorker;
use super::calls::{Calls, MAX_PARAMS_BYTES};
use super::compute::Compute;
use super::frame::{self, Command, FrameError, Reply};
use super::memory::Memory;
use super::output::{CHUNK, Output, read_now};
use super::process::Status;
use super::progress::{End, Progress};
use crate::job::{Job, RunEvent, RunReport, Stream};
use crate::source::{Reaped, Worker as _};

/// What a frame needs beside the text it carries: names of fields, notes on what was cut.
const ENVELOPE: usize = 8 * 1024;

/// How long a worker may live on with its channel closed. The kernel closes a dying process's descriptors a moment
/// before it tells the status, and the status is the better answer.
const CLOSED_GRACE: Duration = Duration::from_millis(250);

/// How long that moment may last where the process is seen to be dying: a machine that has other things to do takes it
/// apart slowly.
const DYING_GRACE: Duration = Duration::from_secs(10);

/// What Rust writes before it aborts for want of memory.
const OUT_OF_MEMORY: &str = "memory allocation of";

const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// # Cancel safety
/// Dropping the future kills the worker.
pub(super) async fn run(
    worker: DenoWorker,
    job: Job,
    events: Option<mpsc::Sender<RunEvent>>,
    cancel: CancellationToken,
) -> (RunReport, Reaped) {
    let mut run = Run::new(worker, &job, events);
    let end = run.watch(&cancel).await;
    run.finish(end)
}

/// Everything about a run in progress.
struct Run {
    worker: DenoWorker,
    /// The frame being handed over and how much of it the worker has taken; a large one does not fit into the pipe at
    /// once.
    command: Vec<u8>,
    sent: usize,
    calls: Calls,
    progress: Progress,
    output: Output,
    events: Option<mpsc::Sender<RunEvent>>,
    /// Read but not yet forwarded. While there is one, no more output is read: a slow listener slows the worker down.
    unforwarded: Option<RunEvent>,
    open: Open,
    linger: Duration,
    started: Instant,
    compute: Compute,
    /// `None` where the kernel limits it.
    memory: Option<Memory>,
    deadline: Instant,
    /// When the worker closed its channel, if it has.
    closed_at: Instant,
}

/// Which of the worker's streams have not ended.
struct Open {
    stdout: bool,
    stderr: bool,
    replies: bool,
}

/// What the run waited for.
enum Turn {
    Cancelled,
    OutOfTime,
    /// The limit on compute or on memory may be reached.
    Look,
    /// The reply pipe has bytes, or has ended; false when it cannot be watched.
    Replies(bool),
    Send,
    /// The frame of an answer to a call.
    Answer(Vec<u8>),
    Exited(Status),
    Forward,
    Output(Stream),
}

impl Run {
    fn new(mut worker: DenoWorker, job: &Job, events: Option<mpsc::Sender<RunEvent>>) -> Self {
        let limits = job.limits;
        let command = frame::encode(&Command::Run {
            code: &job.code,
            api_name: &job.api_name,
            globals: &job.globals,
            imports: &job.imports,
            upstreams: job.upstreams.as_deref(),
            max_result: limits.max_result_bytes,
            max_media: limits.max_media_bytes,
            max_calls_in_flight: limits.max_calls_in_flight,
            permissions: &job.permissions,
        });
        let result = limits.max_result_bytes.saturating_add(ENVELOPE);
        worker.frames.set_limits(MAX_PARAMS_BYTES + ENVELOPE, result);
        let started = Instant::now();
        let compute = Compute::new(limits.compute, worker.process.cpu_time());
        let memory = (!worker.process.is_limited_in_memory()).then(|| Memory::new(worker.max_memory));
        Self {
            worker,
            command,
            sent: 0,
            calls: Calls::new(job.host.clone(), limits),
            progress: Progress::default(),
            output: Output::new(limits.max_output_bytes),
            events,
            unforwarded: None,
            open: Open { stdout: true, stderr: true, replies: true },
            linger: limits.linger,
            started,
            compute,
            memory,
            deadline: started + limits.wall,
            closed_at: started,
        }
    }

    /// Moves bytes until the run is over; says why it is.
    async fn watch(&mut self, cancel: &CancellationToken) -> End {
        self.send();
        loop {
            let turn = self.next_turn(cancel).await;
            if let Some(end) = self.take_turn(turn) {
                return end;
            }
        }
    }

    async fn next_turn(&mut self, cancel: &CancellationToken) -> Turn {
        let DenoWorker { exit, stdout, stderr, commands, replies, .. } = &self.worker;
        let sending = self.sent < self.command.len();
        let may_read = self.unforwarded.is_none();
        let look_at = self
            .memory
            .as_ref()
            .map(Memory::check_at)
            .into_iter()
            .fold(self.compute.check_at(), Instant::min);
        // Cancel-safe, every arm: each waits for a condition, or takes an answer only if it is chosen.
        // Biased: what ends a run is never kept waiting by what the worker writes; results come before output, since
        // all output printed before a result is collected when the run ends.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Turn::Cancelled,
            () = sleep_until(self.deadline) => Turn::OutOfTime,
            ready = replies.readable(), if self.open.replies => Turn::Replies(ready.is_ok()),
            () = sleep_until(look_at) => Turn::Look,
            _ = commands.writable(), if sending => Turn::Send,
            status = exit.ended() => Turn::Exited(status),
            () = has_room(self.events.as_ref()), if !may_read => Turn::Forward,
            frame = self.calls.answer(), if !sending && !self.calls.is_empty() => Turn::Answer(frame),
            _ = stdout.readable(), if may_read && self.open.stdout => Turn::Output(Stream::Stdout),
            _ = stderr.readable(), if may_read && self.open.stderr => Turn::Output(Stream::Stderr),
        }
    }

    fn take_turn(&mut self, turn: Turn) -> Option<End> {
        match turn {
            Turn::Cancelled => return Some(End::Cancelled),
            Turn::OutOfTime => return self.out_of_time(),
            Turn::Look => return self.look(),
            Turn::Exited(status) => return Some(self.on_exit(status)),
            Turn::Replies(readable) => return self.on_replies(readable),
            Turn::Output(stream) => return self.on_output(stream),
            Turn::Send => self.send(),
            Turn::Answer(frame) => {
                (self.command, self.sent) = (frame, 0);
                self.send();
            }
            Turn::Forward => self.forward(),
        }
        None
    }

    /// Hands over as much of the frame as the pipe takes.
    fn send(&mut self) {
        match rustix::io::write(&self.worker.commands, &self.command[self.sent..]) {
            Ok(n) => self.sent += n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // Nobody reads it: the process is gone or has closed the pipe, and shows it in other ways.
            Err(_) => self.sent = self.command.len(),
        }
    }

    fn on_replies(&mut self, readable: bool) -> Option<End> {
        let read = if readable { self.worker.frames.fill(&self.worker.replies).unwrap_or(0) } else { 0 };
        if read == 0 {
            let now = Instant::now();
            self.open.replies = false;
            self.closed_at = now;
            self.deadline = self.deadline.min(now + CLOSED_GRACE);
            return None;
        }
        self.take_replies()
    }

    /// Works through the frames that have arrived.
    fn take_replies(&mut self) -> Option<End> {
        let was_settled = self.progress.is_settled();
        let end = loop {
            match self.worker.frames.next_reply() {
                Ok(None) => break None,
                Ok(Some(Reply::Call(call))) => {
                    if !self.calls.start(&call) {
                        break Some(End::Flooded);
                    }
                }
                Ok(Some(reply)) => {
                    if let Some(end) = self.progress.on_reply(reply) {
                        break Some(end);
                    }
                }
                Err(error) => break Some(End::Broken(error)),
            }
        };
        if self.progress.is_settled() && !was_settled {
            self.deadline = self.deadline.min(Instant::now() + self.linger);
        }
        end
    }

    fn on_output(&mut self, stream: Stream) -> Option<End> {
        let mut chunk = [0; CHUNK];
        let pipe = self.pipe(stream);
        match pipe.try_read(&mut chunk) {
            Ok(n @ 1..) => self.keep(stream, &chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Ok(0) | Err(_) => {
                match stream {
                    Stream::Stdout => self.open.stdout = false,
                    Stream::Stderr => self.open.stderr = false,
                }
                None
            }
        }
    }

    fn keep(&mut self, stream: Stream, bytes: &[u8]) -> Option<End> {
        if self.events.is_some() {
            self.unforwarded = Some(RunEvent::Output { stream, bytes: bytes.to_vec() });
        }
        if self.output.push(stream, bytes) { None } else { Some(End::OutputLimit) }
    }

    fn pipe(&self, stream: Stream) -> &pipe::Receiver {
        match stream {
            Stream::Stdout => &self.worker.stdout,
            Stream::Stderr => &self.worker.stderr,
        }
    }

    fn out_of_time(&mut self) -> Option<End> {
        if self.open.replies {
            return Some(End::Deadline);
        }
        if self.closed_at.elapsed() < DYING_GRACE && self.worker.process.is_dying() {
            self.deadline = Instant::now() + CLOSED_GRACE;
            return None;
        }
        Some(End::ChannelClosed)
    }

    /// Checks what is due to be checked.
    fn look(&mut self) -> Option<End> {
        let (process, now) = (&self.worker.process, Instant::now());
        if let Some(memory) = &mut self.memory
            && memory.check_at() <= now
            && memory.is_used_up(process.memory())
        {
            return Some(End::MemoryLimit);
        }
        let used_up = self.compute.check_at() <= now && self.compute.is_used_up(process.cpu_time());
        used_up.then_some(End::ComputeLimit)
    }

    /// The process has ended: what it wrote before counts. One that exits in the middle of a frame has not said what it
    /// came to, whatever its exit code; one that a signal ends is told by that.
    fn on_exit(&mut self, status: Status) -> End {
        while let Ok(1..) = self.worker.frames.fill_now(&self.worker.replies) {
            if let Some(end) = self.take_replies() {
                return end;
            }
        }
        match self.worker.frames.incomplete() {
            bytes @ 1.. if status.code == Some(0) => End::Broken(FrameError::Incomplete { bytes }),
            _ => End::Exited { status, out_of_memory: false },
        }
    }

    /// Kills the worker and writes the report.
    fn finish(mut self, mut end: End) -> (RunReport, Reaped) {
        let wall = self.started.elapsed();
        let cpu = self.compute.used(self.worker.process.cpu_time());
        let waiting = self.calls.waiting();
        self.worker.process.kill();
        if !self.take_remaining_output() && !end.is_by_limit() {
            end = End::OutputLimit;
        }
        if let End::Exited { status, .. } = end
            && status.signal == Some(SIGKILL)
            && self.worker.process.has_met_its_memory_limit()
        {
            end = End::MemoryLimit;
        }
        if let End::Exited { status, out_of_memory } = &mut end {
            *out_of_memory = died_of_memory(*status, self.output.stderr());
        }
        let (stdout, stderr) = self.output.into_parts();
        let worker = self.worker.identity();
        let verdict = self.progress.verdict(end);
        let kind = self.worker.kind();
        let report = RunReport { verdict, kind, stdout, stderr, worker, wall, cpu, waiting };
        (report, self.worker.process.reap())
    }

    /// Empties both pipes; false when that is more than the limit. Listeners get of it what they have room for: they
    /// see a preview, the report has it all.
    fn take_remaining_output(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        self.forward();
        for stream in [Stream::Stdout, Stream::Stderr] {
            while let Ok(n @ 1..) = read_now(self.pipe(stream), &mut chunk) {
                let end = self.keep(stream, &chunk[..n]);
                self.forward();
                if end.is_some() {
                    return false;
                }
            }
        }
        true
    }

    /// Passes the waiting event on. A listener that is gone, or has no room at the end, gets nothing more: what follows
    /// a gap would mislead.
    fn forward(&mut self) {
        if let (Some(events), Some(event)) = (&self.events, self.unforwarded.take())
            && events.try_send(event).is_err()
        {
            self.events = None;
        }
    }
}

/// Ready when an event can be sent, or never will be. Nobody else sends on this channel, so the room stays.
async fn has_room(events: Option<&mpsc::Sender<RunEvent>>) {
    if let Some(events) = events {
        events.reserve().await.ok();
    }
}

/// V8 traps when its heap is full, and for nothing else that code brings about. An abort has several causes, which Rust's
/// last words tell apart. What code prints alone, or the code that it exits with, makes no death one of memory; code that
/// fakes words and signal fools its own caller and nobody else.
fn died_of_memory(status: Status, stderr: &[u8]) -> bool {
    match status.signal {
        Some(SIGTRAP) => true,
        Some(SIGABRT) => String::from_utf8_lossy(stderr).contains(OUT_OF_MEMORY),
        _ => false,
    }
}
