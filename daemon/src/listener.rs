//! The socket: who may listen on it, who may connect to it.
//!
//! [`Endpoint::claim`] makes a directory that only the user can enter, takes a lock beside the socket, and binds. Only the
//! holder of the lock ever removes a socket file, and only one that is a socket nobody answers on; so two daemons that
//! start at once cannot take each other's place. When the file is taken away, as a log-out takes the whole runtime directory,
//! [`Endpoint::keep_place`] listens there anew, or tells that another daemon does. [`Endpoint::adopt`] takes a socket that a service manager has bound, after
//! the same checks; its file stays the manager's. Owns the socket and the lock until it is dropped.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conductor_protocol::endpoint;
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixSocketListener;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};
use peer::Peer;

mod peer;

/// How long a daemon that finds the lock taken waits to see its holder listen: it may be about to, or about to find out that
/// its socket is gone, every [`LOOK`].
const HOLDER_TIME: Duration = Duration::from_secs(3);

/// How often the daemon looks whether its socket is still where clients look for it. Two system calls.
pub const LOOK: Duration = Duration::from_secs(1);

/// Between two looks at a holder that does not listen.
const HOLDER_LOOK: Duration = Duration::from_millis(20);

/// A bound socket that is ours alone.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    path: PathBuf,
    /// The socket's file if it is ours to remove; a service manager's is not.
    file: Option<FileId>,
    /// Held as long as the socket is.
    lock: Flock<File>,
}

/// Names one file for as long as it exists: device and number.
type FileId = (u64, u64);

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "the socket path {} is longer than the {} bytes an address holds\nhint: give a shorter one with --socket",
        .path.display(), endpoint::MAX_SOCKET_PATH_BYTES
    )]
    TooLong { path: PathBuf },
    #[error("cannot use the directory {} for the socket", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the directory {} {why}\nhint: {hint}", .path.display())]
    Untrusted { path: PathBuf, why: &'static str, hint: String },
    #[error("another daemon serves {}", .path.display())]
    AlreadyRunning { path: PathBuf },
    #[error("{} is in the way of the socket: it is no socket\nhint: move it away", .path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot listen on {}", .path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error(
        "the service manager passed {what} where conductord needs a listening Unix stream socket with a path\nhint: see \
         ListenStream= in conductor.socket"
    )]
    Passed { what: &'static str },
    #[error(
        "the service manager listens on {}, and --socket or CONDUCTOR_SOCKET says {}\nhint: leave those out, or make \
         ListenStream= in conductor.socket the same",
        .path.display(), .wanted.display()
    )]
    OtherPlace { path: PathBuf, wanted: PathBuf },
}

impl Endpoint {
    /// Takes the first candidate whose directory can be used. With one candidate, as with `--socket`, there is no choice.
    ///
    /// # Errors
    /// The last candidate's error, or at once when another daemon serves one of them.
    pub fn claim_first(candidates: &[PathBuf]) -> Result<Self, ClaimError> {
        let mut last = None;
        for path in candidates {
            match Self::claim(path) {
                Err(error @ (ClaimError::Directory { .. } | ClaimError::Untrusted { .. })) => {
                    last = Some(error)
                }
                result => return result,
            }
        }
        let nowhere = || ClaimError::Directory {
            path: PathBuf::new(),
            source: io::Error::new(
                io::ErrorKind::NotFound,
                "there is no place for it; give one with --socket",
            ),
        };
        Err(last.unwrap_or_else(nowhere))
    }

    fn claim(path: &Path) -> Result<Self, ClaimError> {
        if !endpoint::fits(path) {
            return Err(ClaimError::TooLong { path: path.to_owned() });
        }
        make_private(directory_of(path))?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let (listener, file) = listen(path)?;
        Ok(Self { listener, path: path.to_owned(), file: Some(file), lock })
    }

    /// Listens anew if the socket's file is gone; true when it had to. Connections go on, those that nobody has accepted are
    /// closed. What a service manager has bound it must see to itself.
    ///
    /// # Errors
    /// [`ClaimError::AlreadyRunning`] when another daemon has taken the place; else the place cannot be used for now.
    pub fn keep_place(&mut self) -> Result<bool, ClaimError> {
        if self.file.is_none() || file_id(&self.path) == self.file {
            return Ok(false);
        }
        make_private(directory_of(&self.path))?;
        // The lock went with the directory, and the one that is there may be another's.
        let held = self.lock.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        if file_id(&lock_path(&self.path)) != held {
            self.lock = lock(&self.path)?;
        }
        remove_stale(&self.path)?;
        let (listener, file) = listen(&self.path)?;
        (self.listener, self.file) = (listener, Some(file));
        Ok(true)
    }

    /// Takes a socket on which a service manager listens already. `candidates` is where clients look.
    ///
    /// # Errors
    /// It is no such socket, others can reach it, another daemon serves it, or it is not where it was asked for.
    pub fn adopt(socket: OwnedFd, candidates: &[PathBuf]) -> Result<Self, ClaimError> {
        let path = listening_path(&socket)?;
        if let [wanted] = candidates
            && *wanted != path
        {
            return Err(ClaimError::OtherPlace { path, wanted: wanted.clone() });
        }
        if !candidates.contains(&path) {
            tracing::warn!(socket = %path.display(), "clients look for the socket elsewhere unless CONDUCTOR_SOCKET names it");
        }
        check_private(directory_of(&path))?;
        let lock = lock(&path)?;
        let bind_error = |source| ClaimError::Bind { path: path.clone(), source };
        // Made from a descriptor it removes no file when it is dropped: the manager goes on listening.
        let listener = UnixSocketListener::try_from(socket).map_err(bind_error)?;
        Ok(Self { listener: listener.into(), path, file: None, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of the same user, unless it is by a process that the daemon has started, or one that such a
    /// process has: workers run foreign code, upstream servers are foreign programs, and both have the same user. Others
    /// are closed without a word.
    ///
    /// # Errors
    /// The operating system's, such as too many open files: wait and call again.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let stream = self.listener.accept().await?;
            // A connection whose other end cannot be told is closed like one of a stranger.
            match peer::identify(&stream) {
                Ok(Peer::Served) => return Ok(stream),
                Ok(Peer::Own) => {}
                Ok(Peer::OtherUser(peer)) => tracing::warn!(peer, "a connection of another user is refused"),
                Ok(Peer::Started(pid)) => {
                    tracing::warn!(pid, "a connection of a process that the daemon has started is refused");
                }
                Ok(Peer::Gone(pid)) => tracing::debug!(pid, "a connection of a process that has ended"),
                Err(error) => tracing::warn!(%error, "a connection of nobody knows whom is refused"),
            }
        }
    }
}

impl Drop for Endpoint {
    /// Removes the socket's file, unless it is another daemon's by now.
    fn drop(&mut self) {
        if self.file.is_some() && file_id(&self.path) == self.file {
            // What cannot be removed is stale, and the next daemon sees that.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Binds a socket that only the user can connect to.
fn listen(path: &Path) -> Result<(Listener, FileId), ClaimError> {
    let failed = |source| ClaimError::Bind { path: path.to_owned(), source };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    let options = ListenerOptions::new().name(name).mode(0o600).reclaim_name(false);
    let listener = options.create_tokio().map_err(failed)?;
    let file = file_id(path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok((listener, file))
}

fn file_id(path: &Path) -> Option<FileId> {
    path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Makes the directory, or checks that the one that is there lets nobody else in.
fn make_private(directory: &Path) -> Result<(), ClaimError> {
    let failed = |source| ClaimError::Directory { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    check_private(directory)
}

fn check_private(directory: &Path) -> Result<(), ClaimError> {
    let failed = |source| ClaimError::Directory { path: directory.to_owned(), source };
    let untrusted = |why, hint| ClaimError::Untrusted { path: directory.to_owned(), why, hint };
    let meta = directory.symlink_metadata().map_err(failed)?;
    if !meta.is_dir() {
        return Err(untrusted("is a symbolic link", "name the directory itself".into()));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(untrusted("belongs to another user", "give another place with --socket".into()));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(untrusted("can be entered by others", format!("chmod 700 {}", directory.display())));
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of a listening stream socket that is ours.
fn listening_path(socket: &OwnedFd) -> Result<PathBuf, ClaimError> {
    let passed = |what| ClaimError::Passed { what };
    let kind = getsockopt(socket, sockopt::SockType).map_err(|_| passed("something that is no socket"))?;
    if kind != SockType::Stream {
        return Err(passed("a socket of another type"));
    }
    // Sockets of other families have no such address.
    let address: UnixAddr =
        getsockname(socket.as_raw_fd()).map_err(|_| passed("a socket of another family"))?;
    let path = address.path().ok_or_else(|| passed("a socket without a path"))?;
    if !getsockopt(socket, sockopt::AcceptConn).is_ok_and(|accepts| accepts) {
        return Err(passed("a socket that does not listen"));
    }
    let meta = path.symlink_metadata();
    if !meta.is_ok_and(|meta| meta.file_type().is_socket() && meta.uid() == nix::unistd::geteuid().as_raw()) {
        return Err(passed("a socket whose file is gone or belongs to another user"));
    }
    Ok(path.to_owned())
}

fn lock(path: &Path) -> Result<Flock<File>, ClaimError> {
    let lock_path = lock_path(path);
    let failed = |source| ClaimError::Directory { path: lock_path.clone(), source };
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(failed)?;
    let until = Instant::now() + HOLDER_TIME;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        if UnixStream::connect(path).is_ok() || Instant::now() >= until {
            return Err(ClaimError::AlreadyRunning { path: path.to_owned() });
        }
        std::thread::sleep(HOLDER_LOOK);
    }
}

/// Removes a socket that a daemon left behind. Call with the lock held.
fn remove_stale(path: &Path) -> Result<(), ClaimError> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ClaimError::Bind { path: path.to_owned(), source }),
    };
    if !meta.file_type().is_socket() {
        return Err(ClaimError::NoSocket { path: path.to_owned() });
    }
    if UnixStream::connect(path).is_ok() {
        // Someone listens without the lock, so it is not one of ours to replace.
        return Err(ClaimError::AlreadyRunning { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(|source| ClaimError::Bind { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    fn claim(path: &Path) -> Result<Endpoint, ClaimError> {
        Endpoint::claim_first(&[path.to_owned()])
    }

    #[tokio::test]
    async fn only_the_user_can_reach_the_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s.sock");
        let endpoint = claim(&path).expect("is free");
        let mode = |path: &Path| path.metadata().expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("has one"))), (0o600, 0o700));
        drop(endpoint);
        assert!(!path.exists(), "it is taken away in the end");
    }

    #[tokio::test]
    async fn what_the_daemon_has_started_cannot_connect() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s.sock");
        let endpoint = claim(&path).expect("is free");
        // Connects, and says how it ended by what it reads: nothing, since it is hung up on.
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.exit(len(s.recv(1)))";
        let mut child =
            std::process::Command::new("python3").args(["-c", script]).arg(&path).spawn().expect("starts");
        tokio::select! {
            // Cancel-safe, and nothing comes of it afterwards.
            accepted = endpoint.accept() => panic!("a child was let in: {accepted:?}"),
            ended = tokio::task::spawn_blocking(move || child.wait()) => {
                assert!(ended.expect("waits").expect("is a child").success(), "it was hung up on");
            }
        }
    }

    #[tokio::test]
    async fn there_is_one_daemon_for_a_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s.sock");
        let first = claim(&path).expect("is free");
        assert!(matches!(claim(&path), Err(ClaimError::AlreadyRunning { .. })));
        assert!(path.exists(), "the loser touches nothing");
        drop(first);
        claim(&path).expect("is free again");
    }

    #[tokio::test]
    async fn a_socket_that_was_taken_away_is_there_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s.sock");
        let mut endpoint = claim(&path).expect("is free");
        assert!(!endpoint.keep_place().expect("is in place"));
        std::fs::remove_file(&path).expect("removes the socket");
        assert!(endpoint.keep_place().expect("listens anew"));
        UnixStream::connect(&path).expect("somebody listens");
        std::fs::remove_dir_all(dir.path().join("run")).expect("removes the directory");
        assert!(endpoint.keep_place().expect("listens anew"));
        UnixStream::connect(&path).expect("somebody listens");
        assert!(matches!(claim(&path), Err(ClaimError::AlreadyRunning { .. })), "the lock is held again");
        drop(endpoint);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_place_that_another_daemon_has_taken_is_left_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/s.sock");
        let mut first = claim(&path).expect("is free");
        std::fs::remove_dir_all(dir.path().join("run")).expect("removes the directory");
        let second = claim(&path).expect("is free");
        assert!(matches!(first.keep_place(), Err(ClaimError::AlreadyRunning { .. })));
        drop(first);
        UnixStream::connect(&path).expect("the second one listens as before");
        drop(second);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("run");
        DirBuilder::new().mode(0o700).create(&run).expect("makes it");
        let path = run.join("s.sock");
        let stale = UnixListener::bind(&path).expect("binds");
        // Closed alone it would still answer while a process that another test starts just then has it, until its exec.
        shutdown(stale.as_raw_fd(), Shutdown::Both).expect("listens no more");
        drop(stale);
        assert!(path.exists(), "a socket nobody answers on stays behind");
        drop(claim(&path).expect("replaces it"));

        let foreign = UnixListener::bind(&path).expect("binds");
        assert!(matches!(claim(&path), Err(ClaimError::AlreadyRunning { .. })));
        drop(foreign);
        std::fs::remove_file(&path).expect("removes it");

        std::fs::write(&path, "precious").expect("writes");
        assert!(matches!(claim(&path), Err(ClaimError::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("is still there"), "precious");
    }

    #[tokio::test]
    async fn a_managers_socket_is_taken_and_its_file_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("run");
        DirBuilder::new().mode(0o700).create(&run).expect("makes it");
        let path = run.join("s.sock");
        let manager = UnixListener::bind(&path).expect("binds");
        let passed = || OwnedFd::from(manager.try_clone().expect("a descriptor"));
        let here = [path.clone()];
        let endpoint = Endpoint::adopt(passed(), &here).expect("is one");
        assert_eq!(endpoint.path(), path);
        assert!(matches!(Endpoint::adopt(passed(), &here), Err(ClaimError::AlreadyRunning { .. })));
        drop(endpoint);
        assert!(path.exists(), "it is the manager's");
        let elsewhere = Endpoint::adopt(passed(), &[dir.path().join("other.sock")]);
        assert!(matches!(elsewhere, Err(ClaimError::OtherPlace { .. })));
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).expect("sets the mode");
        assert!(matches!(Endpoint::adopt(passed(), &here), Err(ClaimError::Untrusted { .. })));
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).expect("sets the mode");
        std::fs::remove_file(&path).expect("removes it");
        assert!(
            matches!(Endpoint::adopt(passed(), &here), Err(ClaimError::Passed { .. })),
            "nobody can connect"
        );
    }

    #[tokio::test]
    async fn what_is_no_listening_unix_stream_socket_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (stream, _other) = UnixStream::pair().expect("a pair");
        let passed: [OwnedFd; 4] = [
            std::fs::File::open("/dev/null").expect("opens").into(),
            std::os::unix::net::UnixDatagram::bind(dir.path().join("d")).expect("binds").into(),
            std::net::TcpListener::bind("127.0.0.1:0").expect("binds").into(),
            stream.into(),
        ];
        for descriptor in passed {
            let refused = Endpoint::adopt(descriptor, &[]).expect_err("is refused");
            assert!(matches!(refused, ClaimError::Passed { .. }), "{refused}");
        }
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = dir.path().join("open");
        std::fs::create_dir(&open).expect("makes it");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("sets the mode");
        let error = claim(&open.join("s.sock")).expect_err("is refused").to_string();
        assert!(error.contains("hint: chmod 700"), "{error}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).expect("links");
        assert!(claim(&link.join("s.sock")).is_err());
        let long = dir.path().join("x".repeat(120)).join("s.sock");
        assert!(matches!(claim(&long), Err(ClaimError::TooLong { .. })));
    }

    #[tokio::test]
    async fn of_many_daemons_that_start_at_once_one_wins() {
        let dir = tempfile::tempdir().expect("a directory");
        for round in 0..50 {
            let path = dir.path().join(format!("run{round}/s.sock"));
            let runtime = tokio::runtime::Handle::current();
            let claims: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    let _entered = runtime.enter();
                    claim(&path)
                };
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                racers.into_iter().map(|racer| racer.join().expect("does not panic")).collect()
            });
            let winners = claims.iter().filter(|claim| claim.is_ok()).count();
            let losers =
                claims.iter().filter(|claim| matches!(claim, Err(ClaimError::AlreadyRunning { .. }))).count();
            assert_eq!((winners, losers), (1, 3), "{claims:?}");
        }
    }
}
