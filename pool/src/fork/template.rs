//! One template: a Deno process that has booted, warmed itself and now serves forks.
//!
//! It never runs a job and holds no secret. Its children die with it, since it is their parent; so each holds on to it,
//! and it ends when its last child is collected and nobody wants another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use conductor_fork::wire;
use conductor_jail::ForkFilter;
use rustix::process::Pid;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, timeout};

use super::descriptors::{self, Unfit};
use super::link::{Link, LinkError};
use crate::source::SpawnError;
use crate::spawn::start::{Pipes, Started};
use crate::spawn::{DenoSpawn, Origin, own_memory};
use crate::spec::WorkerSpec;
use crate::status::ForkFailure;
use crate::worker::DenoWorker;
use crate::worker::process::{Parent, Process, parent_of, pid_of};
use crate::worker::sharing::Sharing;

/// The library that templates load; empty where there is none.
pub(super) const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libconductor_fork.so"));

/// Looks after which a thread without a name of its own is taken for one that stays so.
const LOOKS: u32 = 5;
/// Between two looks at its threads.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no template, or no child of one. For people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForkError {
    #[error("{0}")]
    Unsuitable(String),
    #[error("this build has no library for templates")]
    NoLibrary,
    #[error("the jail has no filter of system calls here")]
    NoFilter(#[source] Option<io::Error>),
    #[error("the template did not start")]
    Start(#[source] SpawnError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Deno listens for SIGUSR1 on a thread of its own from half a second after its start on.
    #[error("the template took longer than half a second to boot")]
    Slow,
    #[error("the template still has {threads} threads after {after:?}")]
    Threads { threads: usize, after: Duration },
    #[error("the template named a process that is not its child")]
    NotItsChild,
    #[error("a fork did not become a worker")]
    Child(#[source] SpawnError),
    #[error("cannot make the pipes of a worker")]
    Pipes(#[source] io::Error),
    #[error("the self-test failed: {0}")]
    SelfTest(String),
    /// Never the last word: the next template has it not.
    #[error("the template has imported what its forks must not share")]
    Shared,
    /// Told to whoever asks after the one that saw it.
    #[error("this Deno cannot be forked: {0}")]
    Trial(String),
    #[error("the template's build failed")]
    Panicked(#[source] JoinError),
}

impl ForkError {
    pub(super) fn failure(&self) -> ForkFailure {
        match self {
            Self::Unsuitable(_) => ForkFailure::Unsuitable,
            Self::NoLibrary | Self::NoFilter(_) => ForkFailure::Unsupported,
            Self::Start(_) => ForkFailure::Start,
            Self::Link(_) => ForkFailure::Template,
            Self::Unfit(_) => ForkFailure::Descriptors,
            Self::Slow | Self::Threads { .. } => ForkFailure::Threads,
            Self::NotItsChild => ForkFailure::ForeignProcess,
            Self::Child(_) => ForkFailure::Child,
            Self::SelfTest(_) | Self::Shared => ForkFailure::SelfTest,
            Self::Trial(_) => ForkFailure::Trial,
            Self::Pipes(_) | Self::Panicked(_) => ForkFailure::Daemon,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Template {
    /// Never leased.
    process: DenoWorker,
    link: Link,
    filter: ForkFilter,
    origin: Origin,
    /// Packages that its spec has imported ahead of time and that are not in it, and why.
    pub(super) left_out: BTreeMap<String, String>,
    /// Some of them for want of time: the machine was busy, or always is.
    pub(super) was_hurried: bool,
    born: Instant,
    forks: AtomicU32,
}

impl Parent for Template {
    fn collect(&self, pid: Pid) -> bool {
        self.link.collect(pid)
    }
}

impl Template {
    /// Boots one. It can fork once it has [settled](Self::settle) and is [set up](Self::set_up).
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(super) async fn boot(
        spawn: &DenoSpawn,
        spec: &WorkerSpec,
        sharing: &mut Sharing,
    ) -> Result<Self, ForkError> {
        if LIBRARY.is_empty() {
            return Err(ForkError::NoLibrary);
        }
        let filter =
            spawn.jail_of_forks(spec).fork_filter().map_err(|error| ForkError::NoFilter(Some(error)))?;
        let filter = filter.ok_or(ForkError::NoFilter(None))?;
        let (link, theirs) = Link::pair().map_err(|error| ForkError::Start(SpawnError::Start(error)))?;
        let booting = spawn.boot_template(spec, LIBRARY, theirs, sharing);
        let (process, origin) = booting.await.map_err(ForkError::Start)?;
        // What a package says in its stead is found out by this and by what follows.
        let limit = spawn.config().boot_timeout;
        timeout(limit, link.serving()).await.map_err(|_| LinkError::Silent(limit))??;
        let left_out = BTreeMap::new();
        let (born, forks) = (Instant::now(), AtomicU32::new(0));
        Ok(Self { process, link, filter, origin, left_out, was_hurried: false, born, forks })
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.process().pid()
    }

    /// False if it has a thread that never ends: any but those of tokio's pool, which have a name soon after they begin.
    pub(super) async fn may_settle(&self) -> Result<bool, Unfit> {
        for _ in 0..LOOKS {
            if !self.has_other_threads()? {
                return Ok(true);
            }
            sleep(LOOK).await;
        }
        Ok(false)
    }

    fn has_other_threads(&self) -> Result<bool, Unfit> {
        let pid = self.pid().as_raw_pid().to_string();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            // One that has ended meanwhile has no name.
            if entry.file_name() != *pid && !name.is_empty() && !name.starts_with("tokio") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until it has one thread, which takes as long as Deno keeps idle ones: a fork copies the calling thread alone.
    pub(super) async fn settle(&self, within: Duration) -> Result<(), ForkError> {
        let task = format!("/proc/{}/task", self.pid().as_raw_pid());
        let deadline = Instant::now() + within;
        loop {
            let threads = std::fs::read_dir(&task).map_err(Unfit::Look)?.count();
            match threads {
                1 => return Ok(()),
                _ if Instant::now() > deadline => {
                    return Err(ForkError::Threads { threads, after: within });
                }
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Tells it what its children do with its descriptors.
    pub(super) async fn set_up(&self, limit: Duration) -> Result<(), ForkError> {
        let open =
            |what| File::open(format!("/proc/{}/{what}", self.pid().as_raw_pid())).map_err(Unfit::Look);
        let (maps, task) = (open("maps")?, open("task")?);
        let mut packet = vec![wire::SET_UP];
        for descriptor in descriptors::look_at(self.pid())? {
            descriptor.encode(&mut packet);
        }
        let fds = [maps.as_fd(), task.as_fd()];
        let request = self.link.request(&packet, &fds, drop);
        timeout(limit, request).await.map_err(|_| LinkError::Silent(limit))??;
        Ok(())
    }

    /// A child that waits for its job.
    ///
    /// # Cancel safety
    /// Dropping the future kills the child.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        spawn: &DenoSpawn,
        spec: &WorkerSpec,
    ) -> Result<DenoWorker, ForkError> {
        let (pipes, [stdout, stderr, commands, replies]) = Pipes::new().map_err(ForkError::Pipes)?;
        let null = File::open("/dev/null").map_err(ForkError::Pipes)?;
        let fds = [null.as_fd(), stdout.as_fd(), stderr.as_fd(), commands.as_fd(), replies.as_fd()];
        let orphan = |pidfd| drop(self.adopt(pidfd));
        // Half of the time that a boot may take is left for starting a Deno in its place.
        let limit = spawn.config().boot_timeout / 4;
        let request = self.link.request(&[wire::FORK], &fds, orphan);
        let answer = timeout(limit, request).await.map_err(|_| LinkError::Silent(limit))?;
        let pidfd = answer?.ok_or(LinkError::Garbage)?;
        // Ours are the only ends now, so the child's death shows.
        drop((stdout, stderr, commands, replies));
        self.forks.fetch_add(1, Ordering::Relaxed);
        let process = self.adopt(pidfd)?;
        let started = Started { process, pipes };
        started.order(&go(&self.filter, started.process.pid()));
        // Out of its template's control group into one of its own, while it becomes a worker.
        let started = spawn.enclose(started, spec).await.map_err(ForkError::Child)?;
        let mut none = Sharing::default();
        DenoWorker::start(started, spec, &mut none, limit).await.map_err(ForkError::Child)
    }

    /// What the template says is not believed: a descriptor may be of any process that it can see.
    fn adopt(self: &Arc<Self>, pidfd: OwnedFd) -> Result<Process, ForkError> {
        let pid = pid_of(&pidfd).ok_or(ForkError::NotItsChild)?;
        if parent_of(pid) != Some(self.pid()) {
            return Err(ForkError::NotItsChild);
        }
        Ok(Process::adopt_from(Arc::clone(self) as Arc<dyn Parent>, pid, pidfd))
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    pub(super) fn forks(&self) -> u32 {
        self.forks.load(Ordering::Relaxed)
    }

    /// Bytes that it shares with no other process.
    pub(super) fn memory(&self) -> Option<u64> {
        own_memory(self.pid().as_raw_pid())
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.process.process().has_ended()
    }

    /// False when its children would not be what a worker started now is.
    pub(super) fn is_current(&self) -> bool {
        self.is_alive() && self.origin.is_current()
    }
}

/// The frame with which a child becomes a worker.
fn go(filter: &ForkFilter, pid: Pid) -> Vec<u8> {
    let filter = filter.for_pid(pid.as_raw_pid().unsigned_abs());
    let length = u32::try_from(filter.len()).expect("the kernel takes 32 KiB");
    let mut go = length.to_ne_bytes().to_vec();
    go.extend(filter);
    go
}
