//! Fetches the pinned Deno with a package tool that is already there, and installs it under the data directory.
//!
//! ```text
//! lock ─► staging directory ─► npm, else pip, writes an archive into it ─► executable out of it, hashed on the way
//!      ─► probe ─► rename to <data>/deno/<version>
//! ```
//!
//! In: the data directory, a [`Pin`], [`FetchOptions`]. Out: a [`DenoBinary`], and [`Progress`] on the way.
//! One process at a time holds the lock; others wait for it and then find the result. What is visible under its version
//! has the pinned hash and has answered `--version`. Everything else lives in the staging directory, which goes away with
//! the fetch, or with the next one if this process is killed.

mod archive;
mod error;
mod installer;
mod store;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{env, fmt, io};

use crate::child::{GivenUp, Until};
use crate::pin::Pin;
use crate::probe::{DenoBinary, Origin, probe};
use crate::search::executable_name;

use self::archive::UnpackError;
pub use self::error::{AttemptError, FailedAttempt, FetchError};
pub use self::installer::Installer;
use self::store::Store;
pub(crate) use self::store::managed_executables;

/// How to fetch. `Default` is what the daemon uses.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Tried in this order, each at most once.
    pub installers: Vec<Installer>,
    /// `PATH`, in which the tools are looked up.
    pub path: Option<OsString>,
    /// Time for everything. Each installer gets an equal share of what is left when its turn comes, so that one that
    /// hangs leaves time for the next.
    pub limit: Duration,
    /// Set to true by another thread to give up.
    pub cancel: Arc<AtomicBool>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            installers: vec![Installer::Npm, Installer::Pip],
            path: env::var_os("PATH"),
            // 42 MB in half of this is 140 kB/s.
            limit: Duration::from_secs(600),
            cancel: Arc::default(),
        }
    }
}

/// How far a fetch is. Phases only go forward, except that a second installer starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// Of this phase, at most `total`.
    pub bytes: u64,
    /// 0 where the end cannot be told.
    pub total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Another process is fetching.
    Waiting,
    Downloading(Installer),
    /// The hash is computed while unpacking.
    Unpacking,
    /// The executable has the right hash, goes to disk and runs for the first time.
    Verifying,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting for another process that fetches Deno"),
            Self::Downloading(installer) => write!(f, "downloading Deno with {installer}"),
            Self::Unpacking => f.write_str("unpacking Deno"),
            Self::Verifying => f.write_str("verifying Deno"),
        }
    }
}

/// Fetches the version pinned for this platform into `<data_dir>/deno`, unless it is there and works.
///
/// # Errors
/// See [`FetchError`]; in every case nothing is left behind.
pub fn fetch(
    data_dir: &Path,
    options: &FetchOptions,
    progress: impl FnMut(Progress),
) -> Result<DenoBinary, FetchError> {
    let pin = Pin::of_this_platform().ok_or(FetchError::UnsupportedPlatform)?;
    fetch_pin(data_dir, &pin, options, progress)
}

/// Fetches what `pin` names, for callers with a pin of their own.
///
/// # Errors
/// See [`FetchError`]; in every case nothing is left behind.
pub fn fetch_pin(
    data_dir: &Path,
    pin: &Pin,
    options: &FetchOptions,
    mut progress: impl FnMut(Progress),
) -> Result<DenoBinary, FetchError> {
    Fetch { data_dir, pin, options, started: Instant::now(), progress: &mut progress }.run()
}

/// One fetch on its way.
struct Fetch<'a> {
    data_dir: &'a Path,
    pin: &'a Pin,
    options: &'a FetchOptions,
    started: Instant,
    progress: &'a mut dyn FnMut(Progress),
}

/// Why an installer did not lead to an executable: the next one may, or nothing will.
enum Halt {
    Next(AttemptError),
    /// Writing failed; the next one would fare no better.
    DataDir(io::Error),
    Final(FetchError),
}

impl Fetch<'_> {
    fn run(mut self) -> Result<DenoBinary, FetchError> {
        let store = Store::open(self.data_dir).map_err(|error| self.data_dir_error(error))?;
        let store = self.lock(&store)?;
        let installed = store.executable(self.pin.version);
        // Another process may have been faster; what does not work is replaced.
        if let Ok(deno) = probe(&installed, Origin::Managed) {
            return Ok(deno);
        }
        let staging = store.staging().map_err(|error| self.data_dir_error(error))?;
        self.check_space()?;
        let mut attempts = Vec::new();
        let mut installers = self.options.installers.iter().copied();
        while let Some(installer) = installers.next() {
            let left = self.options.limit.saturating_sub(self.started.elapsed());
            let still_to_come = u32::try_from(installers.len()).expect("there are two kinds of installers");
            let deadline = Instant::now() + left / (still_to_come + 1);
            match self.attempt(installer, staging.path(), deadline) {
                Ok(staged) => {
                    store
                        .install(&staged, self.pin.version, staging.path())
                        .map_err(|error| self.data_dir_error(error))?;
                    tracing::info!(version = %self.pin.version, path = %installed.display(), "Deno installed");
                    return probe(&installed, Origin::Managed)
                        .map_err(|source| FetchError::Unusable { source });
                }
                Err(Halt::Final(error)) => return Err(error),
                Err(Halt::DataDir(error)) => return Err(self.data_dir_error(error)),
                Err(Halt::Next(error)) => {
                    tracing::warn!(%installer, %error, "Deno could not be fetched with this installer");
                    attempts.push(FailedAttempt { installer, error });
                }
            }
        }
        Err(FetchError::of_attempts(self.pin.version, attempts, self.started.elapsed()))
    }

    fn lock(&mut self, store: &Store) -> Result<store::Locked, FetchError> {
        let until = Until { deadline: self.started + self.options.limit, cancel: &self.options.cancel };
        let mut waiting = || (self.progress)(Progress { phase: Phase::Waiting, bytes: 0, total: 0 });
        match store.lock(until, &mut waiting) {
            Ok(Ok(locked)) => Ok(locked),
            Ok(Err(GivenUp::TimedOut)) => Err(FetchError::TimedOut { after: self.started.elapsed() }),
            Ok(Err(GivenUp::Cancelled)) => Err(FetchError::Cancelled),
            Err(error) => Err(self.data_dir_error(error)),
        }
    }

    /// Downloads, unpacks and probes in a directory of the staging directory; returns the directory with the executable.
    fn attempt(&mut self, installer: Installer, staging: &Path, deadline: Instant) -> Result<PathBuf, Halt> {
        let until = Until { deadline, cancel: &self.options.cancel };
        let work = staging.join(installer.to_string());
        store::create_private_dir(&work).map_err(Halt::DataDir)?;
        let progress = &mut *self.progress;
        let archive =
            installer::download(installer, self.pin, self.options.path.as_deref(), &work, until, progress)?;
        let staged = work.join("install");
        store::create_private_dir(&staged).map_err(Halt::DataDir)?;
        let executable = staged.join(executable_name());
        let progress = &mut *self.progress;
        archive::unpack(installer, &archive, self.pin, &executable, until, progress).map_err(|error| {
            match error {
                UnpackError::Write(error) => Halt::DataDir(error),
                UnpackError::Archive(source) => Halt::Next(AttemptError::BadArchive { source }),
                UnpackError::WrongHash { found } => {
                    Halt::Next(AttemptError::WrongHash { found, expected: self.pin.sha256.clone() })
                }
                UnpackError::GivenUp(given_up) => given_up.into(),
            }
        })?;
        (self.progress)(Progress { phase: Phase::Verifying, bytes: self.pin.size, total: self.pin.size });
        // Before it becomes visible: an executable that does not run here is not installed.
        probe(&executable, Origin::Managed).map_err(|source| Halt::Final(FetchError::Unusable { source }))?;
        Ok(staged)
    }

    /// Fails early, with numbers, instead of late with what a full disk does to a package tool.
    fn check_space(&self) -> Result<(), FetchError> {
        match store::free_space(self.data_dir) {
            Some(free) if free < self.space_needed() => Err(self.no_space()),
            _ => Ok(()),
        }
    }

    /// npm keeps the package twice, in its cache and where it was told to put it.
    fn space_needed(&self) -> u64 {
        self.pin.size + 2 * self.pin.download_size
    }

    fn no_space(&self) -> FetchError {
        FetchError::NoSpace { dir: self.data_dir.to_owned(), needed: self.space_needed() }
    }

    fn data_dir_error(&self, source: io::Error) -> FetchError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_space(),
            _ => FetchError::DataDir { dir: self.data_dir.to_owned(), source },
        }
    }
}

impl From<AttemptError> for Halt {
    fn from(error: AttemptError) -> Self {
        Self::Next(error)
    }
}

impl From<GivenUp> for Halt {
    fn from(given_up: GivenUp) -> Self {
        match given_up {
            GivenUp::TimedOut => Self::Next(AttemptError::TimedOut),
            GivenUp::Cancelled => Self::Final(FetchError::Cancelled),
        }
    }
}
