//! How many descriptors the daemon may have open, how many of them its clients may take, and that none reaches what it starts.
//! Owns nothing; sets the process's limit and flags once, at start.
//!
//! Terminals and service managers start programs with a limit of 1024, which is low for old programs' sake, and let each
//! raise its own. A crowd of clients must not take the descriptors with which workers are started for the others.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as the daemon asks for: some thousand clients. Upstream servers inherit the limit, and a few old programs look at
/// each descriptor below it when they start, so it is not higher than it is good for.
const WANTED: u64 = 8192;

/// Kept for workers, upstream servers and files: a worker takes seven, a server five, and there are some dozens of each.
const RESERVED: u64 = 512;

/// A client takes the connection and a second view of it, by which its end is noticed.
const PER_CLIENT: u64 = 2;

/// Fewer clients than this are let in however low the limit is.
const FEWEST: u64 = 16;

/// Keeps what the daemon was started with by mistake, such as a file of the shell it came from, to itself: upstream servers
/// and fetches get what they are meant to have. What the daemon opens from now on is closed on exec anyway.
///
/// # Errors
/// The operating system's: a kernel before Linux 5.11.
#[cfg(target_os = "linux")]
pub(crate) fn keep_from_children() -> io::Result<()> {
    use nix::libc;
    const FIRST: libc::c_uint = 3;
    #[expect(unsafe_code, reason = "no safe wrapper of close_range exists in the libraries used here")]
    // SAFETY: the call takes three integers. It only sets close-on-exec, so no descriptor in use is invalidated.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Nothing: other systems have no such call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_from_children() -> io::Result<()> {
    Ok(())
}

/// Raises the limit as far as it is useful and allowed; gives how many clients may be connected at a time.
///
/// # Errors
/// The operating system's; none is known.
pub(crate) fn raise() -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = soft.max(WANTED.min(hard));
    if raised > soft {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok(usize::try_from(clients(raised)).unwrap_or(usize::MAX))
}

fn clients(limit: u64) -> u64 {
    (limit.saturating_sub(RESERVED) / PER_CLIENT).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_workers() {
        assert_eq!(clients(1024), 256);
        assert_eq!(clients(WANTED), 3840);
        for limit in [0, 64, 512] {
            assert_eq!(clients(limit), FEWEST);
        }
    }
}
