//! A process that only SIGKILL ends, and whose pid is never used after it may belong to another.
//!
//! The kernel keeps the pid, and with it the number of the process group, until the process's status is collected. That is
//! done by its parent: this program, or the template that forked it, which does so when it is told. Nobody but the reaper
//! thread collects or has collected, after the last signal was sent; so the pid is safe to use while a [`Process`] lives.
//! Dropping one kills it and hands it to the reaper, from any thread, inside a runtime or not.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_jail::cgroup::Leaf;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, test_kill_process_group, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::programs;
use crate::source::{Reaped, WorkerIdentity};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit status {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "unknown status"),
        }
    }
}

/// The parent of processes that are not this program's own children.
pub(crate) trait Parent: fmt::Debug + Send + Sync {
    /// Collects the status of a child that has ended. False: not yet, ask again. Must not block.
    fn collect(&self, pid: Pid) -> bool;
}

/// A process whose status nobody has collected yet.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    start_ticks: u64,
    /// `None`: a child of this program, and the leader of a process group.
    parent: Option<Arc<dyn Parent>>,
    /// Taken when the process goes to the reaper.
    pidfd: Option<Arc<OwnedFd>>,
    /// Its control group, which holds whatever it starts.
    leaf: Option<Leaf>,
    /// It may start programs, and is the subreaper of them.
    starts_programs: bool,
}

impl Process {
    /// Takes charge of a child that was just started.
    pub(crate) fn adopt(pid: Pid) -> io::Result<Self> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => {
                let start_ticks = start_ticks(pid).unwrap_or(0);
                let pidfd = Some(Arc::new(pidfd));
                Ok(Self { pid, start_ticks, parent: None, pidfd, leaf: None, starts_programs: false })
            }
            Err(error) => {
                // Without a pidfd it cannot be watched. It is still ours by number, so it can be ended.
                rustix::process::kill_process(pid, Signal::KILL).ok();
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
                Err(error.into())
            }
        }
    }

    /// Takes charge of a child of `parent`, in the process group of that.
    pub(crate) fn adopt_from(parent: Arc<dyn Parent>, pid: Pid, pidfd: OwnedFd) -> Self {
        let start_ticks = start_ticks(pid).unwrap_or(0);
        let pidfd = Some(Arc::new(pidfd));
        Self { pid, start_ticks, parent: Some(parent), pidfd, leaf: None, starts_programs: false }
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.parent.is_some()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn identity(&self) -> WorkerIdentity {
        WorkerIdentity { pid: self.pid.as_raw_pid(), start_ticks: self.start_ticks }
    }

    /// Its pid, which is its own while this lives.
    pub(crate) fn number(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Takes charge of the control group that it is in, too.
    pub(crate) fn hold(&mut self, leaf: Option<Leaf>) {
        self.leaf = leaf;
    }

    /// Tells whether it may start programs.
    pub(crate) fn starts_programs(&mut self, starts: bool) {
        self.starts_programs = starts;
    }

    /// Whether the kernel keeps its memory, and that of all it starts, within the limit of its control group.
    pub(crate) fn is_limited_in_memory(&self) -> bool {
        self.leaf.as_ref().is_some_and(Leaf::limits_memory)
    }

    /// Whether that limit has ended it, by the kernel's count.
    pub(crate) fn has_met_its_memory_limit(&self) -> bool {
        let events = self.leaf.as_ref().and_then(|leaf| leaf.events().ok());
        events.is_some_and(|events| events.oom_kills > 0)
    }

    fn pidfd(&self) -> &Arc<OwnedFd> {
        self.pidfd.as_ref().expect("taken only by value or drop")
    }

    /// True when it has ended, and only its status is left.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(self.pidfd())
    }

    /// True when nothing of it runs any more, whether or not the kernel has taken it apart.
    pub(crate) fn is_dying(&self) -> bool {
        /// In field 9: it is on its way out (`PF_EXITING`, include/linux/sched.h).
        const EXITING: u32 = 0x4;
        let flags = stat_field(self.pid, 9).and_then(|flags| flags.parse::<u32>().ok());
        self.has_ended() || flags.is_some_and(|flags| flags & EXITING != 0)
    }

    /// Watches for the end of the process; needs a runtime.
    pub(crate) fn watch(&self) -> io::Result<ExitWatch> {
        let pidfd = Arc::clone(self.pidfd());
        #[expect(
            unsafe_code,
            reason = "tokio has no safe way to watch a descriptor of a kind it does not know"
        )]
        // SAFETY: the descriptor is open, and the Arc keeps it open, under the same number, for as long as the AsyncFd
        // that now shares it lives; the AsyncFd is never forgotten.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(ExitWatch { pidfd, forked: self.parent.as_ref().map(|_| self.pid) })
    }

    /// CPU time used by all its threads so far; zero where the kernel does not tell.
    pub(crate) fn cpu_time(&self) -> Duration {
        nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(self.pid.as_raw_pid()))
            .and_then(nix::time::ClockId::now)
            .map_or(Duration::ZERO, Duration::from)
    }

    /// Bytes that it has in memory now, shared ones included; zero where the kernel does not tell.
    pub(crate) fn memory(&self) -> u64 {
        // While this lives, the number is nobody else's.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_pid()));
        status.ok().and_then(|status| resident(&status)).unwrap_or(0)
    }

    /// Ends the process and everything that it has started: all of it with a control group, else as far as it can be found.
    /// A forked one can start nothing.
    pub(crate) fn kill(&self) {
        // All of these fail only if there is nothing left to kill.
        let held = self.leaf.as_ref().is_some_and(|leaf| leaf.kill().is_ok());
        if self.starts_programs && !held {
            pidfd_send_signal(self.pidfd(), Signal::STOP).ok();
            programs::end_all_below(self.pid);
        }
        pidfd_send_signal(self.pidfd(), Signal::KILL).ok();
        if self.parent.is_none() {
            kill_process_group(self.pid, Signal::KILL).ok();
        }
    }

    /// Kills, and is ready when the whole group is gone and the status collected.
    pub(crate) fn reap(mut self) -> Reaped {
        let (done, gone) = oneshot::channel();
        self.hand_over(Some(done));
        Box::pin(async {
            // An error means that the reaper is gone, which ends with the program only.
            gone.await.ok();
        })
    }

    fn hand_over(&mut self, done: Option<oneshot::Sender<()>>) {
        self.kill();
        let pidfd = self.pidfd.take().expect("handed over once");
        let dying = Dying {
            pid: self.pid,
            parent: self.parent.take(),
            pidfd,
            leaf: self.leaf.take(),
            collected: None,
            done,
        };
        // Without a reaper, which takes a machine out of threads, the child stays a zombie until the daemon ends.
        if let Some(reaper) = reaper() {
            reaper.send(dying).ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pidfd.is_some() {
            self.hand_over(None);
        }
    }
}

/// Tells when and how a process ended, without collecting its status.
#[derive(Debug)]
pub(crate) struct ExitWatch {
    pidfd: AsyncFd<Arc<OwnedFd>>,
    /// Of a process that is another's child.
    forked: Option<Pid>,
}

impl ExitWatch {
    /// # Cancel safety
    /// Can be dropped and asked again, also after the end.
    pub(crate) async fn ended(&self) -> Status {
        // A failure means that the runtime is shutting down, and with it goes whoever waits.
        self.pidfd.readable().await.ok();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = match self.forked {
            None => wait(self.pidfd.get_ref(), options).ok().flatten(),
            Some(pid) => status_of_dead(pid),
        };
        status.unwrap_or(Status { code: None, signal: None })
    }
}

fn wait(pidfd: &OwnedFd, options: WaitIdOptions) -> rustix::io::Result<Option<Status>> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options)?;
    let to_status =
        |status: WaitIdStatus| Status { code: status.exit_status(), signal: status.terminating_signal() };
    Ok(status.map(to_status))
}

fn start_ticks(pid: Pid) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

pub(crate) fn parent_of(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat_field(pid, 4)?.parse().ok()?)
}

/// How a process ended that is not collected yet. Field 52 is what its parent would get from `wait`.
fn status_of_dead(pid: Pid) -> Option<Status> {
    let status: i32 = stat_field(pid, 52)?.parse().ok()?;
    let signal = status & 0x7f;
    Some(match signal {
        0 => Status { code: Some((status >> 8) & 0xff), signal: None },
        _ => Status { code: None, signal: Some(signal) },
    })
}

/// A field of `/proc/PID/stat`, by its number in proc(5), from 3 on. The name in field 2 may hold anything, so fields count
/// from its closing parenthesis.
fn stat_field(pid: Pid, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3).map(str::to_owned)
}

/// `VmRSS` of a `/proc/PID/status`, in bytes. A name, which stands first, cannot hold a line's end.
fn resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// A killed process on its way out.
struct Dying {
    pid: Pid,
    parent: Option<Arc<dyn Parent>>,
    pidfd: Arc<OwnedFd>,
    leaf: Option<Leaf>,
    /// When the status was collected, or the parent told to. What is left then are other members of the group.
    collected: Option<Instant>,
    done: Option<oneshot::Sender<()>>,
}

/// How long the rest of a killed group may take to go away. Longer means a process in an uninterruptible system call.
const GROUP_GRACE: Duration = Duration::from_secs(2);

const REAP_INTERVAL: Duration = Duration::from_millis(1);
const MAX_REAP_INTERVAL: Duration = Duration::from_millis(64);

impl Dying {
    /// True when nothing is left.
    fn is_gone(&mut self) -> bool {
        if let Some(parent) = &self.parent {
            if self.collected.is_none() && has_ended(&self.pidfd) && parent.collect(self.pid) {
                self.collected = Some(Instant::now());
            }
            // Told is not done yet. A template that hangs keeps its dead until it ends itself.
            let gone = || pid_of(&self.pidfd).is_none() && self.is_empty();
            return self.collected.is_some_and(|told| gone() || told.elapsed() > GROUP_GRACE);
        }
        if self.collected.is_none() {
            match wait(&self.pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => return false,
                // An error: somebody else collected it, against the rules, but gone it is.
                Ok(Some(_)) | Err(_) => self.collected = Some(Instant::now()),
            }
        }
        let alone = test_kill_process_group(self.pid).is_err();
        (alone && self.is_empty())
            || self.collected.is_some_and(|collected| collected.elapsed() > GROUP_GRACE)
    }
}

impl Dying {
    /// Its control group is gone, which is removed only when nothing is in it any more.
    fn is_empty(&self) -> bool {
        self.leaf.as_ref().is_none_or(|leaf| leaf.remove().is_ok())
    }
}

/// The process behind a descriptor; `None` if it is no pidfd, or of a process that is collected.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Option<Pid> {
    let details = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = details.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    Pid::from_raw(pid.trim().parse().ok().filter(|pid| *pid > 0)?)
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// The thread that collects the status of killed processes. One that hangs in the kernel delays no other. `None` where
/// the machine is out of threads just now.
fn reaper() -> Option<Sender<Dying>> {
    static REAPER: Mutex<Option<Sender<Dying>>> = Mutex::new(None);
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        // Unbounded, because dropping a process must not block; it never holds more than there are live workers.
        let (sender, dead) = channel::<Dying>();
        std::thread::Builder::new().name("worker-reap".to_owned()).spawn(move || reap_all(&dead)).ok()?;
        *reaper = Some(sender);
    }
    reaper.clone()
}

fn reap_all(dead: &Receiver<Dying>) {
    let mut dying: Vec<Dying> = Vec::new();
    let mut interval = REAP_INTERVAL;
    loop {
        let next = if dying.is_empty() {
            dead.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            dead.recv_timeout(interval)
        };
        match next {
            Ok(process) => {
                dying.push(process);
                interval = REAP_INTERVAL;
            }
            Err(RecvTimeoutError::Timeout) => interval = (interval * 2).min(MAX_REAP_INTERVAL),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for mut gone in dying.extract_if(.., Dying::is_gone) {
            let done = gone.done.take();
            // Whoever waits is told when nothing is held of it any more.
            drop(gone);
            if let Some(done) = done {
                // Receiver gone: nobody waits for this one.
                done.send(()).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_by_its_name() {
        let status = "Name:\tVmRSS: 1 kB\nVmHWM:\t   90000 kB\nVmRSS:\t   30720 kB\nRssAnon:\t    8192 kB\n";
        assert_eq!(resident(status), Some(30 << 20));
        for none in ["", "Name:\tx\nState:\tZ (zombie)\n", "VmRSS:\t many kB\n"] {
            assert_eq!(resident(none), None, "{none:?}");
        }
    }
}
