//! When processes end, to a fraction of a millisecond: the kernel says it by their pidfd. A process has ended when it has no
//! thread, memory or file left, whether its status was collected or not: nothing goes on from there.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, getpriority_process, pidfd_open, setpriority_process};

use crate::process::Process;

/// The priority of a thread that must not be late itself.
const FIRST: i32 = -20;

/// A process whose end is waited for.
#[derive(Debug)]
pub struct Watched {
    process: Process,
    pidfd: OwnedFd,
}

impl Watched {
    /// `None` when it has ended already.
    ///
    /// # Panics
    /// There is no descriptor left to watch it by.
    pub fn new(process: Process) -> Option<Self> {
        let pidfd = match pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return None,
            opened => opened.expect("a running process can be watched"),
        };
        // Else the number may have become another's before it was opened.
        process.exists().then_some(Self { process, pidfd })
    }
}

/// Waits until all have ended, and tells how long after `since` the last did.
///
/// # Panics
/// One lives on after `deadline`.
#[track_caller]
pub fn wait_for_ends(mut left: Vec<Watched>, since: Instant, deadline: Duration) -> Duration {
    let usual = getpriority_process(None).expect("its own can be read");
    // Only root may; others measure what they can.
    setpriority_process(None, FIRST).ok();
    while !left.is_empty() && since.elapsed() < deadline {
        let mut fds: Vec<_> =
            left.iter().map(|it| PollFd::new(it.pidfd.as_fd(), PollFlags::POLLIN)).collect();
        let rest = deadline.saturating_sub(since.elapsed());
        poll(&mut fds, PollTimeout::try_from(rest).expect("some seconds fit"))
            .expect("they can be waited for");
        let mut ended = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>().into_iter();
        left.retain(|_| !ended.next().expect("one for each"));
    }
    let took = since.elapsed();
    setpriority_process(None, usual).ok();
    let left: Vec<_> = left.into_iter().map(|it| it.process).collect();
    assert!(left.is_empty(), "alive after {deadline:?}: {left:#?}");
    took
}
