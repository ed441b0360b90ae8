//! Who is at the other end of a connection. In: the connection, `/proc`. Out: whether it is served, and why not.
//!
//! The kernel tells the user and the process that connected. Workers and upstream servers have the daemon's own user, and
//! so has everything that those start; they are known by their ancestors, and where they have lost those (a process whose
//! parent ends gets another), by the mark that upstream servers hand on in their environment. A worker that may start
//! programs keeps them as their adoptive parent. A server that takes the mark off *and* leaves its parents is not known:
//! servers are programs that the user has chosen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

/// Longest chain of parents looked at.
const MAX_ANCESTORS: usize = 256;

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Served,
    /// The daemon's own watchdog, which knocks: that somebody hangs up is all it wants to know.
    Own,
    /// Another user's, if the kernel tells whose.
    OtherUser(Option<u32>),
    /// Of a process that the daemon has started, or that such a process has.
    Started(i32),
    /// It ended before it was known, and its number may be another's by now.
    Gone(i32),
}

/// # Errors
/// The operating system does not tell who it is.
pub(super) fn identify(stream: &Stream) -> io::Result<Peer> {
    let credentials = stream.peer_creds()?;
    let (user, pid) = (credentials.euid(), credentials.pid());
    if pid == Some(own_pid()) {
        return Ok(Peer::Own);
    }
    if user != Some(nix::unistd::geteuid().as_raw()) {
        return Ok(Peer::OtherUser(user));
    }
    let Some(pid) = pid else { return Ok(Peer::Served) };
    let handle = pidfd(stream)?;
    let started = is_started_by_us(pid);
    // What `/proc` told was told of the peer only if that is still there.
    Ok(match handle {
        Some(handle) if has_ended(&handle)? => Peer::Gone(pid),
        _ if started => Peer::Started(pid),
        _ => Peer::Served,
    })
}

pub(super) fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// A handle on the process that connected, which no other process can come to have; none on kernels before 6.5.
#[cfg(target_os = "linux")]
fn pidfd(stream: &Stream) -> io::Result<Option<OwnedFd>> {
    let Stream::UdSocket(stream) = stream;
    match getsockopt(&stream.as_fd(), sockopt::PeerPidfd) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::ENOPROTOOPT | Errno::EINVAL | Errno::ENODATA | Errno::ESRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: &Stream) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

fn has_ended(handle: &OwnedFd) -> io::Result<bool> {
    let mut watched = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
}

fn is_started_by_us(pid: i32) -> bool {
    ancestors(pid, parent).any(|pid| pid == own_pid() || conductor_upstream::is_of_a_server(pid))
}

/// The process and those it comes from, up to the first of the system, which is nobody's. A pid of 0 has none: the peer lives
/// where this process sees no processes, so it is none of its children. The bound is against pids that are used again while
/// this looks: no real chain is as long.
fn ancestors(pid: i32, parent: impl Fn(i32) -> Option<i32>) -> impl Iterator<Item = i32> {
    std::iter::successors(Some(pid), move |pid| parent(*pid)).take_while(|pid| *pid > 1).take(MAX_ANCESTORS)
}

/// Field 4 of `/proc/PID/stat`; nothing for a process that has ended, or on a system without.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, so fields count from its closing parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_ancestors() {
        let parent_of = |pid: i32| match pid {
            100_002 => Some(100_001),
            100_001 => Some(4711),
            100_003 => Some(1),
            100_004 => Some(100_004),
            _ => None,
        };
        for (pid, expected) in [
            (4711, true),
            (100_001, true),
            (100_002, true),
            (100_003, false),
            (100_004, false),
            (0, false),
            (100_005, false),
        ] {
            assert_eq!(ancestors(pid, parent_of).any(|pid| pid == 4711), expected, "{pid}");
        }
        let own_parent = parent(own_pid()).expect("has one");
        assert!(own_parent > 0 && !is_started_by_us(own_parent) && is_started_by_us(own_pid()));
    }
}
