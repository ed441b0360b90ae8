//! Starts the daemon when nobody listens.
//!
//! Through the service manager if its unit is installed, else as a detached process. Programs that race for it are held
//! apart by a lock file beside the socket: one starts the daemon, the others wait for its socket. The daemon gets a clean
//! environment, so that it does not depend on which IDE happened to start it.

mod detached;
mod directory;
mod service;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conductor_protocol::endpoint::Surroundings;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::connect::{self, ConnectError};

pub use directory::DirectoryError;
#[cfg(not(target_os = "macos"))]
pub(crate) use service::systemctl;

/// Set to anything but `0`: no daemon is started.
pub const OFF_VARIABLE: &str = "CONDUCTOR_NO_AUTOSTART";

/// The daemon's executable.
pub const DAEMON_VARIABLE: &str = "CONDUCTOR_DAEMON";

/// How long a daemon may take until it accepts connections; it does so before it looks for Deno or boots a worker.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a daemon that was started this way serves nobody before it ends.
const IDLE_EXIT: &str = "15m";

/// A log larger than this is set aside when the next daemon starts: it must not grow for years.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How much of the daemon's own last words an error repeats.
const TAIL_BYTES: usize = 2000;

const DAEMON: &str = "conductord";

/// Between two looks at a socket that is not there yet.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why no daemon was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no conductor daemon is running, and {OFF_VARIABLE} forbids to start one")]
    Off,
    #[error("no conductor daemon is running, and its program {DAEMON} is not found")]
    NoProgram,
    #[error("no directory for the conductor daemon's socket can be used")]
    Directory(#[source] DirectoryError),
    #[error("the conductor daemon cannot be started: {what}")]
    Io { what: String, source: io::Error },
    #[error("the conductor daemon ended as soon as it was started{}", words(.last_words))]
    Died { log: PathBuf, last_words: String },
    #[error("the conductor daemon did not accept connections within {START_TIMEOUT:?}{}", words(.last_words))]
    Slow { log: PathBuf, last_words: String },
    #[error("{unit} was started and accepted no connection within {START_TIMEOUT:?}")]
    ServiceSlow { unit: &'static str },
    #[error("another program is starting the conductor daemon, without success so far")]
    Raced,
    #[error(transparent)]
    Connect(ConnectError),
}

fn words(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; it said:\n{last_words}") }
}

impl StartError {
    /// True when another attempt in a moment may go better.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Its predecessor may still have been going down.
            Self::Died { .. } => true,
            // Another one may be quicker to start it.
            Self::Raced => true,
            // Each took its whole time already.
            Self::Slow { .. } | Self::ServiceSlow { .. } => false,
            // Only the user can change these.
            Self::Off | Self::NoProgram | Self::Directory(_) | Self::Io { .. } | Self::Connect(_) => false,
        }
    }

    /// The cure.
    pub fn hint(&self) -> String {
        match self {
            Self::Off => format!("start it with `{DAEMON}`, or unset {OFF_VARIABLE}"),
            Self::NoProgram => {
                format!(
                    "install {DAEMON} beside this program or on PATH, or set {DAEMON_VARIABLE} to its path"
                )
            }
            Self::Directory(_) => {
                "set CONDUCTOR_SOCKET to a path in a directory that only you can write to".into()
            }
            Self::Died { log, .. } | Self::Slow { log, .. } => {
                format!("see {}, or run `{DAEMON}` in a terminal", log.display())
            }
            Self::ServiceSlow { unit } => format!("see `systemctl --user status {unit}`"),
            Self::Io { .. } | Self::Raced | Self::Connect(_) => {
                format!("run `{DAEMON}` in a terminal to see what keeps it from starting")
            }
        }
    }
}

/// Starts daemons from one environment.
#[derive(Clone, Debug)]
pub struct Autostart {
    env: BTreeMap<OsString, OsString>,
    /// The directory of this program.
    beside: Option<PathBuf>,
}

impl Autostart {
    /// With the environment and the executable of this process.
    pub fn of_this_process() -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        Self { env: std::env::vars_os().collect(), beside }
    }

    /// Makes a daemon accept connections, and connects to it.
    ///
    /// # Errors
    /// None could be started within [`START_TIMEOUT`].
    pub fn start(&self, at: &Surroundings) -> Result<UnixStream, StartError> {
        let deadline = Instant::now() + START_TIMEOUT;
        if self.variable(OFF_VARIABLE).is_some_and(|value| value != "0") {
            return Err(StartError::Off);
        }
        // A service whose socket listens was connected to before, and systemd started it: this is for one that was stopped.
        // It listens where the rule says, not where this program was told to look.
        if at.explicit.is_none()
            && let Some(unit) = service::installed(&self.service_directories(at))
            && service::start(unit)
        {
            let slow = || StartError::ServiceSlow { unit };
            return wait_until(deadline, || self.try_connect(at).transpose())?.ok_or_else(slow);
        }
        let socket = directory::prepare(at).map_err(StartError::Directory)?;
        let path = socket.with_extension("start.lock");
        let lock_file = open_private(&path, OpenOptions::new().write(true)).map_err(io_at(&path))?;
        let mut lock_file = Some(lock_file);
        let won = wait_until(deadline, || {
            if let Some(stream) = self.try_connect(at).transpose() {
                return Some(stream.map(Race::Served));
            }
            match Flock::lock(lock_file.take()?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Some(Ok(Race::Won(lock))),
                Err((file, Errno::EWOULDBLOCK)) => {
                    lock_file = Some(file);
                    None
                }
                Err((_, errno)) => Some(Err(io_at(&path)(errno.into()))),
            }
        })?;
        match won {
            Some(Race::Served(stream)) => Ok(stream),
            Some(Race::Won(_lock)) => self.launch(at, &socket, deadline),
            None => Err(StartError::Raced),
        }
    }

    /// Runs the daemon on `socket` and waits until it accepts. The caller holds the lock.
    fn launch(&self, at: &Surroundings, socket: &Path, deadline: Instant) -> Result<UnixStream, StartError> {
        // The last holder of the lock may have been successful.
        if let Some(stream) = self.try_connect(at)? {
            return Ok(stream);
        }
        let program = self.program().ok_or(StartError::NoProgram)?;
        let (log, mut log_file) = self.open_log(at, socket)?;
        let begin = log_file.seek(SeekFrom::End(0)).map_err(io_at(&log))?;
        let mut command = Command::new(&program);
        command.arg("--socket").arg(socket).args(["--idle-exit", IDLE_EXIT]).arg("--log-file").arg(&log);
        command.env_clear().envs(self.env.iter().filter(|(name, _)| keeps_variable(name)));
        if let Some(home) = &at.home {
            command.env("HOME", home);
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log_file.try_clone().map_err(io_at(&log))?);
        let daemon = detached::spawn(command).map_err(io_at(&program))?;
        let served = wait_until(deadline, || match self.try_connect(at).transpose() {
            Some(stream) => Some(stream.map(Some)),
            None => (!detached::is_alive(daemon)).then_some(Ok(None)),
        })?;
        let mut last_words = || tail(&mut log_file, begin).unwrap_or_default();
        match served {
            Some(Some(stream)) => Ok(stream),
            Some(None) => Err(StartError::Died { last_words: last_words(), log }),
            None => Err(StartError::Slow { last_words: last_words(), log }),
        }
    }

    fn try_connect(&self, at: &Surroundings) -> Result<Option<UnixStream>, StartError> {
        match connect::connect(at) {
            Ok(stream) => Ok(Some(stream)),
            Err(ConnectError::Absent { .. }) => Ok(None),
            Err(error) => Err(StartError::Connect(error)),
        }
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// What the user names, else what was installed together with this program, else what is on the search path.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        if let Some(named) = self.variable(DAEMON_VARIABLE) {
            return Some(named.into());
        }
        let search = self.variable("PATH").map(std::env::split_paths).into_iter().flatten();
        let mut places = self.beside.iter().cloned().chain(search.filter(|dir| dir.is_absolute()));
        places.find_map(|dir| Some(dir.join(DAEMON)).filter(|path| is_program(path)))
    }

    fn open_log(&self, at: &Surroundings, socket: &Path) -> Result<(PathBuf, File), StartError> {
        let state = self.variable("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let state = state.or_else(|| at.home.as_ref().map(|home| home.join(".local/state")));
        let dir = state.map(|dir| dir.join("conductor")).filter(|dir| directory::make(dir, at.uid).is_ok());
        // Without a home there is no state directory: the log then goes where the socket is.
        let dir = dir.unwrap_or_else(|| socket.parent().map(Path::to_owned).unwrap_or_default());
        let log = dir.join(format!("{DAEMON}.log"));
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
            fs::rename(&log, log.with_extension("log.1")).map_err(io_at(&log))?;
        }
        let file = open_private(&log, OpenOptions::new().read(true).append(true)).map_err(io_at(&log))?;
        Ok((log, file))
    }

    fn service_directories(&self, at: &Surroundings) -> Vec<PathBuf> {
        let base = |name, default: &str| {
            let named = self.variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
            named.or_else(|| at.home.as_ref().map(|home| home.join(default)))
        };
        service::directories(base("XDG_CONFIG_HOME", ".config"), base("XDG_DATA_HOME", ".local/share"))
    }
}

/// How a race to start the daemon ended for this program.
enum Race {
    Served(UnixStream),
    Won(Flock<File>),
}

/// Asks `look` until it has an answer or the deadline is over.
fn wait_until<T>(
    deadline: Instant,
    mut look: impl FnMut() -> Option<Result<T, StartError>>,
) -> Result<Option<T>, StartError> {
    loop {
        if let Some(answer) = look() {
            return answer.map(Some);
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { what: path.display().to_string(), source }
}

/// Opens a file that only we may read, and never through a link somebody laid.
fn open_private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn is_program(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// The last lines of what was written to the log since `begin`.
fn tail(log: &mut File, begin: u64) -> io::Result<String> {
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL_BYTES as u64))))?;
    let mut bytes = Vec::new();
    log.take(TAIL_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The environment of a daemon: what names the user, places and languages, conductor's own settings, and what npm and pip need
/// to fetch Deno. A session's `MCP_CONDUCTOR_*` is not among it: it comes with that session's handshake.
fn keeps_variable(name: &OsStr) -> bool {
    const NAMES: [&str; 17] = [
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TMPDIR",
        "TZ",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "NODE_EXTRA_CA_CERTS",
    ];
    const PREFIXES: [&str; 7] =
        ["LC_", "XDG_", "CONDUCTOR_", "npm_config_", "NPM_CONFIG_", "PIP_", "SSL_CERT_"];
    NAMES.iter().any(|kept| name == *kept)
        || PREFIXES.iter().any(|kept| name.as_bytes().starts_with(kept.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_environment_names_no_session() {
        for kept in
            ["HOME", "LC_ALL", "XDG_RUNTIME_DIR", "CONDUCTOR_DENO", "npm_config_registry", "HTTPS_PROXY"]
        {
            assert!(keeps_variable(OsStr::new(kept)), "{kept}");
        }
        for left in
            ["MCP_CONDUCTOR_WORKSPACE", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "NODE_OPTIONS", "HOMEX"]
        {
            assert!(!keeps_variable(OsStr::new(left)), "{left}");
        }
    }

    #[test]
    fn the_program_is_the_one_named_then_the_one_beside_us_then_one_on_the_path() {
        let dir = tempfile::tempdir().expect("directory");
        let install = |name: &str| {
            let path = dir.path().join(name).join(DAEMON);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
            OpenOptions::new().create(true).append(true).mode(0o700).open(&path).expect("writes");
            path
        };
        let mut autostart = Autostart { env: BTreeMap::new(), beside: Some(dir.path().join("beside")) };
        assert_eq!(autostart.program(), None);
        let on_path = install("path");
        autostart.env.insert("PATH".into(), on_path.parent().expect("a parent").into());
        assert_eq!(autostart.program(), Some(on_path));
        let beside = install("beside");
        assert_eq!(autostart.program(), Some(beside));
        autostart.env.insert(DAEMON_VARIABLE.into(), "/named".into());
        assert_eq!(autostart.program(), Some("/named".into()));
    }
}
