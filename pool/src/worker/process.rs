//! A child process that only SIGKILL ends, and whose pid is never used after it may belong to another.
//!
//! The kernel keeps the pid, and with it the number of the process group, until the child's status is collected. Nobody
//! but the reaper thread does that, after the last signal was sent; so signals by number are safe while a [`Process`]
//! lives. Dropping one kills it and hands it to the reaper, from any thread, inside a runtime or not.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_jail::cgroup::Leaf;
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

/// A child of this process whose status nobody has collected yet.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    start_ticks: u64,
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
                Ok(Self { pid, start_ticks, pidfd, leaf: None, starts_programs: false })
            }
            Err(error) => {
                // Without a pidfd it cannot be watched. It is still ours by number, so it can be ended.
                rustix::process::kill_process(pid, Signal::KILL).ok();
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
                Err(error.into())
            }
        }
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
        Ok(ExitWatch { pidfd })
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
    pub(crate) fn kill(&self) {
        // All of these fail only if there is nothing left to kill.
        let held = self.leaf.as_ref().is_some_and(|leaf| leaf.kill().is_ok());
        if self.starts_programs && !held {
            pidfd_send_signal(self.pidfd(), Signal::STOP).ok();
            programs::end_all_below(self.pid);
        }
        pidfd_send_signal(self.pidfd(), Signal::KILL).ok();
        kill_process_group(self.pid, Signal::KILL).ok();
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
        let dying = Dying { pid: self.pid, pidfd, leaf: self.leaf.take(), collected: None, done };
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
}

impl ExitWatch {
    /// # Cancel safety
    /// Can be dropped and asked again, also after the end.
    pub(crate) async fn ended(&self) -> Status {
        // A failure means that the runtime is shutting down, and with it goes whoever waits.
        self.pidfd.readable().await.ok();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = wait(self.pidfd.get_ref(), options).ok().flatten();
        status.unwrap_or(Status { code: None, signal: None })
    }
}

fn wait(pidfd: &OwnedFd, options: WaitIdOptions) -> rustix::io::Result<Option<Status>> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options)?;
    let to_status =
        |status: WaitIdStatus| Status { code: status.exit_status(), signal: status.terminating_signal() };
    Ok(status.map(to_status))
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 may hold anything, so fields count from its closing parenthesis.
fn start_ticks(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// `VmRSS` of a `/proc/PID/status`, in bytes. A name, which stands first, cannot hold a line's end.
fn resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// A killed process on its way out.
struct Dying {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    leaf: Option<Leaf>,
    /// When the status was collected; what is left then are other members of the group.
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
        if self.collected.is_none() {
            match wait(&self.pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => return false,
                // An error: somebody else collected it, against the rules, but gone it is.
                Ok(Some(_)) | Err(_) => self.collected = Some(Instant::now()),
            }
        }
        let alone = test_kill_process_group(self.pid).is_err();
        // Removed only when nothing is in it any more.
        let empty = self.leaf.as_ref().is_none_or(|leaf| leaf.remove().is_ok());
        (alone && empty) || self.collected.is_some_and(|collected| collected.elapsed() > GROUP_GRACE)
    }
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
        for gone in dying.extract_if(.., Dying::is_gone) {
            if let Some(done) = gone.done {
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
