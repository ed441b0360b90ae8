//! Looks for a Deno executable in the places where one can be, in a fixed order.
//!
//! One that was asked for by name (`--deno`, the configuration, `CONDUCTOR_DENO`) is used or is an error. One that just
//! lies there (`PATH`, `~/.deno/bin`, the data directory) and cannot be used is skipped, and the reason kept.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::fetch::{self, FetchError, FetchOptions, Progress};
use crate::pin::{MINIMUM, PINNED};
use crate::probe::{DenoBinary, Origin, ProbeError, WithCause, probe};

/// Where to look. The environment is read by the caller, or by [`Search::from_env`].
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `--deno` or the configuration.
    pub explicit: Option<PathBuf>,
    /// `CONDUCTOR_DENO`.
    pub env: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Conductor's data directory.
    pub data_dir: PathBuf,
}

impl Search {
    /// Reads `CONDUCTOR_DENO`, `PATH` and the home directory from this process's environment.
    pub fn from_env(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            explicit: None,
            env: env::var_os("CONDUCTOR_DENO").filter(|value| !value.is_empty()).map(PathBuf::from),
            path: env::var_os("PATH"),
            home: env::home_dir(),
            data_dir: data_dir.into(),
        }
    }

    /// Every place where an executable may just lie, in order.
    fn places(&self) -> Vec<(PathBuf, Origin)> {
        let name = executable_name();
        let in_path = self.path.iter().flat_map(env::split_paths);
        let in_home = self.home.iter().map(|home| home.join(".deno/bin"));
        let managed = fetch::managed_executables(&self.data_dir);
        in_path
            // A relative entry means another file in every working directory.
            .filter(|dir| dir.is_absolute())
            .map(|dir| (dir.join(&name), Origin::Path))
            .chain(in_home.map(|dir| (dir.join(&name), Origin::Home)))
            .chain(managed.into_iter().map(|path| (path, Origin::Managed)))
            .collect()
    }
}

/// A usable executable, and those that were passed over on the way to it.
#[derive(Debug)]
pub struct Found {
    pub deno: DenoBinary,
    pub skipped: Vec<Skipped>,
}

/// An executable that is there and cannot be used.
#[derive(Debug)]
pub struct Skipped {
    pub path: PathBuf,
    pub origin: Origin,
    pub reason: ProbeError,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {}): {}", self.path.display(), self.origin, WithCause(&self.reason))
    }
}

/// Why no executable was found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("cannot use the Deno executable {} (from {origin})", path.display())]
    Unusable { path: PathBuf, origin: Origin, source: ProbeError },
    #[error("no usable Deno executable{}", listed(skipped))]
    NotFound { skipped: Vec<Skipped> },
}

impl FindError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unusable { source, origin, .. } => {
                format!(
                    "{}; without {origin}, conductor looks elsewhere and fetches one if need be",
                    source.hint()
                )
            }
            Self::NotFound { .. } => install_hint(),
        }
    }
}

/// Why there is no executable in the end.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("no usable Deno executable, and none could be fetched{}", listed(skipped))]
    Fetch { skipped: Vec<Skipped>, source: FetchError },
}

impl ObtainError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Find(error) => error.hint(),
            Self::Fetch { source, .. } => source.hint(),
        }
    }
}

/// Finds the first usable executable.
///
/// # Errors
/// [`FindError::Unusable`] names the executable that was asked for; [`FindError::NotFound`] means that one must be fetched.
pub fn find(search: &Search) -> Result<Found, FindError> {
    let asked_for = [(&search.explicit, Origin::Explicit), (&search.env, Origin::Env)];
    if let Some((path, origin)) =
        asked_for.into_iter().find_map(|(path, origin)| Some((path.as_ref()?, origin)))
    {
        return match probe(path, origin) {
            Ok(deno) => Ok(Found { deno, skipped: Vec::new() }),
            Err(source) => Err(FindError::Unusable { path: path.clone(), origin, source }),
        };
    }
    let mut skipped: Vec<Skipped> = Vec::new();
    for (path, origin) in search.places() {
        let Ok(real) = path.canonicalize() else { continue };
        if skipped.iter().any(|seen| same_file(&seen.path, &real)) {
            continue;
        }
        match probe(&path, origin) {
            Ok(deno) => return Ok(Found { deno, skipped }),
            Err(reason) => {
                tracing::warn!(path = %path.display(), %origin, %reason, "Deno executable skipped");
                skipped.push(Skipped { path, origin, reason });
            }
        }
    }
    Err(FindError::NotFound { skipped })
}

/// Finds an executable, or fetches the pinned one.
///
/// # Errors
/// One that was asked for cannot be used, or there is none and fetching failed.
pub fn find_or_fetch(
    search: &Search,
    options: &FetchOptions,
    progress: impl FnMut(Progress),
) -> Result<Found, ObtainError> {
    match find(search) {
        Err(FindError::NotFound { skipped }) => match fetch::fetch(&search.data_dir, options, progress) {
            Ok(deno) => Ok(Found { deno, skipped }),
            Err(source) => Err(ObtainError::Fetch { skipped, source }),
        },
        found => Ok(found?),
    }
}

/// `deno`, or `deno.exe`.
pub(crate) fn executable_name() -> String {
    format!("deno{}", env::consts::EXE_SUFFIX)
}

/// What to do when there is no Deno and none can be fetched.
pub(crate) fn install_hint() -> String {
    format!(
        "install Deno {MINIMUM} or newer ({PINNED} is what was tested) so that `deno` is in PATH, \
         or set CONDUCTOR_DENO=/path/to/deno"
    )
}

/// Two places can lead to one file.
fn same_file(seen: &Path, real: &Path) -> bool {
    seen.canonicalize().is_ok_and(|seen| seen == real)
}

fn listed(skipped: &[Skipped]) -> String {
    skipped.iter().map(|skipped| format!("; skipped {skipped}")).collect()
}
