//! Finding and ending the programs that a worker has started, where no control group holds them.
//!
//! A worker that may start programs is the *subreaper* of all of them: whichever loses its parent becomes its child. So as
//! long as it lives they are all below it, in whatever session or process group they have put themselves, and while it is
//! stopped none of their numbers is used again: their ends wait for it. What it leaves behind when it ends by itself has
//! become the child of another, and is found only by its process group.

use std::collections::HashSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Looks at the whole tree before this gives up. Each ends all that it finds, and a killed process starts no other, so a
/// second look finds what was started during the first, and hardly ever a third anything.
const MAX_LOOKS: usize = 100;

/// Ends everything below `root`, which the caller has stopped and will kill.
pub(super) fn end_all_below(root: Pid) {
    let mut ended = HashSet::new();
    for _ in 0..MAX_LOOKS {
        let found: Vec<_> = below(root).into_iter().filter(|(pid, _)| !ended.contains(pid)).collect();
        if found.is_empty() {
            return;
        }
        for (pid, parent) in found {
            if end(pid, parent) {
                ended.insert(pid);
            }
        }
    }
}

/// Ends a process if it is still this parent's child. One that has become another's of the tree, or is gone, is left to the
/// next look.
fn end(pid: Pid, parent: Pid) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // Now the number cannot change its owner between this look and the signal. If its parent has collected it before, and the
    // number is another's, that one is the child of somebody else.
    children(parent).contains(&pid) && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

/// All processes below `root` with their parents, as they are found at one look.
fn below(root: Pid) -> Vec<(Pid, Pid)> {
    let mut found: Vec<(Pid, Pid)> = children(root).into_iter().map(|child| (child, root)).collect();
    let mut next = 0;
    while let Some((parent, _)) = found.get(next).copied() {
        found.extend(children(parent).into_iter().map(|child| (child, parent)));
        next += 1;
    }
    found
}

/// The children of all threads of a process; none if it is gone, or the kernel does not tell.
fn children(parent: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", parent.as_raw_pid())).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(pid).collect::<Vec<_>>()).collect()
}

fn pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}
