//! Starts processes from the one thread that may: its end is theirs.
//!
//! A worker asks the kernel to be killed when its parent *thread* ends (`PR_SET_PDEATHSIG`), so the thread that starts
//! workers must outlive them all. No owner could promise that, hence it belongs to the process: started once, never
//! ended.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::sync::{mpsc, oneshot};

use crate::worker::process::Process;

/// Starts that may wait for the thread. Each takes it a tenth of a millisecond; more callers than this wait in `run`.
const QUEUE: usize = 64;

/// A process to start: five descriptors or six, exactly these arguments, exactly this environment.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// What becomes descriptor 5.
    pub(crate) extra: Option<OwnedFd>,
}

/// Our ends of a worker's four pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// The process reads it as descriptor 3.
    pub(crate) commands: OwnedFd,
    /// The process writes it as descriptor 4.
    pub(crate) replies: OwnedFd,
}

impl Pipes {
    /// And the worker's ends, for its descriptors 1 to 4.
    pub(crate) fn new() -> io::Result<(Self, [OwnedFd; 4])> {
        let (stdout, child_stdout) = new_pipe()?;
        let (stderr, child_stderr) = new_pipe()?;
        let (child_commands, commands) = new_pipe()?;
        let (replies, child_replies) = new_pipe()?;
        let ours = Self { stdout, stderr, commands, replies };
        Ok((ours, [child_stdout, child_stderr, child_commands, child_replies]))
    }
}

impl Started {
    /// Writes its first command, which must be smaller than a pipe: the pipe is empty, so one attempt writes all of it,
    /// unless the process is gone. That shows when its answer is waited for.
    pub(crate) fn order(&self, command: &[u8]) {
        rustix::io::write(&self.pipes.commands, command).ok();
    }
}

/// A started process and our ends of its descriptors.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) pipes: Pipes,
}

struct Request {
    start: Start,
    answer: oneshot::Sender<io::Result<Started>>,
}

impl Start {
    /// # Cancel safety
    /// A process that nobody waits for any more is killed by its own drop.
    pub(crate) async fn run(self) -> io::Result<Started> {
        let (answer, started) = oneshot::channel();
        thread()?.send(Request { start: self, answer }).await.map_err(|_| thread_gone())?;
        started.await.map_err(|_| thread_gone())?
    }

    fn run_here(&self) -> io::Result<Started> {
        let (pipes, theirs) = Pipes::new()?;
        let extra = self.extra.as_ref().map(|extra| lift(extra.try_clone()?)).transpose()?;
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
        for (target, source) in (1..).zip(theirs.iter().chain(&extra)) {
            actions.add_dup2(source.as_raw_fd(), target)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes
            .set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_sigmask(&SigSet::empty())?;
        let pid = posix_spawn(&self.program, &actions, &attributes, &self.args, &self.env)?;
        let pid = Pid::from_raw(pid.as_raw()).expect("a started process has a positive pid");
        Ok(Started { process: Process::adopt(pid)?, pipes })
    }
}

fn thread_gone() -> io::Error {
    io::Error::other("the thread that starts workers has ended")
}

fn thread() -> io::Result<mpsc::Sender<Request>> {
    // A failure is not kept: the machine may have a thread to spare the next time.
    static THREAD: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*thread {
        return Ok(sender.clone());
    }
    let (sender, mut requests) = mpsc::channel::<Request>(QUEUE);
    let body = move || {
        while let Some(Request { start, answer }) = requests.blocking_recv() {
            // Receiver gone: the caller gave up, and dropping the answer kills the process.
            answer.send(start.run_here()).ok();
        }
    };
    std::thread::Builder::new().name("worker-start".to_owned()).spawn(body)?;
    *thread = Some(sender.clone());
    Ok(sender)
}

/// A pipe as (read end, write end), both above the numbers that the child's descriptors get: a `dup2` in the child must
/// not overwrite one that is still needed.
fn new_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((lift(read)?, lift(write)?))
}

fn lift(fd: OwnedFd) -> io::Result<OwnedFd> {
    const FIRST_FREE: i32 = 6;
    if fd.as_raw_fd() >= FIRST_FREE {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_FREE)?)
}
