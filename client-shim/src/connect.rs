//! Finds the daemon's socket and connects to it.
//!
//! Only a socket whose listener runs as this user is used: what is sent over it (the environment, code) is the user's.
//! Windows' named pipes belong into this file, behind `cfg(windows)`; they are neither built nor tested.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_protocol::endpoint::{self, SOCKET_VARIABLE, Surroundings};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::TimeVal;

#[cfg(windows)]
compile_error!("conductor's clients speak Unix sockets; named pipes are not written yet");

/// How long a full backlog is waited for: a daemon that accepts nothing for that long does not serve.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("no conductor daemon listens on {}", list(tried))]
    Absent { tried: Vec<PathBuf> },
    #[error("the socket {path} is served by user {theirs}, not by you (user {ours})", path = path.display())]
    Foreign { path: PathBuf, theirs: u32, ours: u32 },
    #[error("the socket path {path} is longer than a socket address can be ({limit} bytes)",
        path = path.display(), limit = endpoint::MAX_SOCKET_PATH_BYTES)]
    TooLong { path: PathBuf },
    #[error("cannot connect to {path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl ConnectError {
    /// True when another attempt in a moment may go better.
    pub fn is_retryable(&self) -> bool {
        // The daemon is there and does not keep up with its connections.
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// What the socket rule looks at, from this process's environment; `socket` is `--socket`.
pub fn surroundings(socket: Option<PathBuf>) -> Surroundings {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Surroundings {
        explicit: socket.or_else(|| path(SOCKET_VARIABLE)),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        uid: nix::unistd::geteuid().as_raw(),
        home: std::env::home_dir().filter(|home| home.is_absolute()),
    }
}

/// Connects to the first candidate that somebody listens on.
///
/// # Errors
/// [`ConnectError::Absent`] when nobody does. A socket that exists and may not or cannot be used is an error at once: going on
/// to the next candidate would start a second daemon.
pub fn connect(at: &Surroundings) -> Result<UnixStream, ConnectError> {
    let tried = endpoint::candidates(at);
    for path in &tried {
        match connect_to(path) {
            Ok(stream) => {
                let theirs =
                    peer_uid(&stream).map_err(|source| ConnectError::Io { path: path.clone(), source })?;
                return match theirs == at.uid {
                    true => Ok(stream),
                    false => Err(ConnectError::Foreign { path: path.clone(), theirs, ours: at.uid }),
                };
            }
            // ENOTSOCK and the like are faults; these say that nobody is there.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => {}
            // Another user's directory on the way (a stale XDG_RUNTIME_DIR after su) holds no daemon of ours.
            Err(Errno::EACCES) if at.explicit.is_none() => {}
            Err(Errno::ENAMETOOLONG) => return Err(ConnectError::TooLong { path: path.clone() }),
            Err(errno) => return Err(ConnectError::Io { path: path.clone(), source: errno.into() }),
        }
    }
    Err(ConnectError::Absent { tried })
}

fn connect_to(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Unlike std's connect, this one ends when the backlog stays full.
    let timeout = TimeVal::new(BACKLOG_TIMEOUT.as_secs().cast_signed(), 0);
    socket::setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(0, 0))?;
    Ok(UnixStream::from(fd))
}

/// The user who listens, as the kernel knows it.
#[cfg(target_os = "linux")]
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket::getsockopt(stream, sockopt::PeerCredentials)?.uid())
}

/// The user who listens, as the kernel knows it. Not built or tested here.
#[cfg(not(target_os = "linux"))]
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn at(dir: &Path) -> Surroundings {
        Surroundings {
            explicit: None,
            runtime_dir: Some(dir.join("run")),
            uid: nix::unistd::geteuid().as_raw(),
            home: Some(dir.join("home")),
        }
    }

    fn listen(path: &Path) -> UnixListener {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        UnixListener::bind(path).expect("binds")
    }

    #[test]
    fn passes_over_sockets_that_nobody_serves() {
        let dir = tempfile::tempdir().expect("directory");
        let at = at(dir.path());
        let candidates = endpoint::candidates(&at);
        assert!(matches!(connect(&at), Err(ConnectError::Absent { tried }) if tried == candidates));
        drop(listen(&candidates[0]));
        assert!(candidates[0].exists(), "a stale socket");
        let _second = listen(candidates.last().expect("the home directory's"));
        connect(&at).expect("connects to the last candidate");
    }

    #[test]
    fn refuses_another_users_listener() {
        let dir = tempfile::tempdir().expect("directory");
        let at = Surroundings { uid: 4_000_000_000, explicit: Some(dir.path().join("s")), ..at(dir.path()) };
        let _listener = listen(&dir.path().join("s"));
        assert!(matches!(connect(&at), Err(ConnectError::Foreign { theirs, .. }) if theirs != at.uid));
    }

    #[test]
    fn names_a_path_that_is_no_socket_or_too_long() {
        let dir = tempfile::tempdir().expect("directory");
        let long = dir.path().join("x".repeat(120));
        let long = Surroundings { explicit: Some(long), ..at(dir.path()) };
        assert!(matches!(connect(&long), Err(ConnectError::TooLong { .. })));
        let nested = dir.path().join("file").join("socket");
        std::fs::write(dir.path().join("file"), "").expect("writes");
        let nested = Surroundings { explicit: Some(nested), ..at(dir.path()) };
        assert!(matches!(connect(&nested), Err(ConnectError::Absent { .. })));
    }
}
