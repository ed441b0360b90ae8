//! Why there is no layer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::lockfile::LockError;

/// Why a layer could not be had. Clones share their cause: every caller that waited for one build gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LayerError {
    #[error("Deno cannot be started to fetch packages")]
    DenoMissing(#[source] Arc<io::Error>),
    #[error("the package registry cannot be reached: {detail}")]
    RegistryUnreachable { detail: String },
    #[error("the packages were not fetched within {} s", .after.as_secs())]
    TimedOut { after: Duration },
    #[error("the registry knows no package `{package}`")]
    UnknownPackage { package: String },
    #[error("the registry has no version of `{package}` that is {range}")]
    NoSuchVersion { package: String, range: String },
    #[error("the registry refuses access: {detail}")]
    AccessDenied { detail: String },
    #[error("what came for `{package}` is not what its integrity hash promises")]
    Integrity { package: String },
    #[error("what came for a package is damaged: {detail}")]
    BadArchive { detail: String },
    #[error("the disk is full")]
    DiskFull,
    #[error("the build of the package layer was cancelled")]
    Cancelled,
    #[error("the pinned lock {file} cannot be used")]
    PinnedLock {
        file: String,
        #[source]
        cause: PinnedLockError,
    },
    #[error("`{package}` is not in the pinned lock {file}")]
    NotInPinnedLock { package: String, file: String },
    #[error("the package layer was changed after it was built ({detail}), and building it anew failed")]
    Damaged {
        detail: String,
        #[source]
        rebuild: Box<LayerError>,
    },
    #[error("the package layer could not be warmed: {detail}")]
    Warm { detail: String },
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        cause: Arc<io::Error>,
    },
    #[error("Deno could not fetch the packages: {detail}")]
    Fetch { detail: String },
    #[error("no package was asked for")]
    Nothing,
    #[error("packages are not available: the program is shutting down")]
    Gone,
}

/// What is wrong with a pinned lock.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PinnedLockError {
    #[error(transparent)]
    Read(Arc<io::Error>),
    #[error(transparent)]
    Content(#[from] LockError),
}

impl LayerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::DenoMissing(cause) if is_shortage(cause) => {
                "the machine or a limit is short of memory, processes or descriptors: end what is not needed, and call again"
            }
            Self::DenoMissing(_) => "`conductorctl doctor` says which Deno is used",
            Self::RegistryUnreachable { .. } => {
                "check the network, the proxy (HTTPS_PROXY) and the registry (NPM_CONFIG_REGISTRY, .npmrc, JSR_URL)"
            }
            Self::TimedOut { .. } => "the registry is slow: try again, what was fetched so far is not kept",
            Self::UnknownPackage { .. } => {
                "check the spelling in the package list; private packages need a registry in .npmrc"
            }
            Self::NoSuchVersion { .. } => "list a version that exists",
            Self::AccessDenied { .. } => "check the registry's token in .npmrc",
            Self::Integrity { .. } => {
                "the lock or the registry was tampered with, or a version was published twice: do not retry before knowing which"
            }
            Self::BadArchive { .. } => "try again; a proxy or the registry cuts downloads short",
            Self::DiskFull => {
                "free some space; `conductorctl packages prune` removes layers that nobody uses"
            }
            Self::PinnedLock { .. } => {
                "the file must be a deno.lock of version 5, written by Deno 2.3 or newer"
            }
            Self::NotInPinnedLock { .. } => {
                "add the package to the lock (`deno install --lockfile-only` with it among the imports), or unlist it"
            }
            Self::Damaged { rebuild, .. } => return rebuild.hint(),
            Self::Fetch { .. } => {
                "the text is Deno's; try again, or take the package that it names off the list"
            }
            Self::Cancelled | Self::Warm { .. } | Self::Io { .. } | Self::Nothing | Self::Gone => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// True when the same request can succeed later by itself: the cause lies outside and may pass.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RegistryUnreachable { .. } | Self::TimedOut { .. } | Self::BadArchive { .. } => true,
            Self::Cancelled | Self::Warm { .. } | Self::Io { .. } | Self::DiskFull => true,
            Self::Fetch { .. } | Self::DenoMissing(_) => true,
            Self::Damaged { rebuild, .. } => rebuild.is_retryable(),
            // Somebody must change something first: a name, a token, a lock.
            Self::UnknownPackage { .. } | Self::NoSuchVersion { .. } | Self::AccessDenied { .. } => false,
            Self::Integrity { .. } | Self::PinnedLock { .. } | Self::NotInPinnedLock { .. } => false,
            Self::Nothing | Self::Gone => false,
        }
    }

    /// Warming failed, or there was no room for what it leaves.
    pub(crate) fn warm(detail: String) -> Self {
        if says_full(&detail) { Self::DiskFull } else { Self::Warm { detail } }
    }

    /// Names an operation that failed; a full disk has its own kind, whatever failed for it.
    pub(crate) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { doing, cause: Arc::new(cause) },
        }
    }
}

/// Whether a text of the system or of Deno says that there is no room.
pub(crate) fn says_full(text: &str) -> bool {
    const SAID: [&str; 4] =
        ["No space left on device", "os error 28", "Disk quota exceeded", "File too large"];
    SAID.iter().any(|said| text.contains(said))
}

/// Deno is there, and what a process needs is not.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOMEM | Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE))
}
