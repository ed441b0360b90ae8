//! The directory `<data>/deno`: what is in it, who may change it, and how a version becomes visible.
//!
//! ```text
//! .lock             flock'ed by the one process that fetches
//! .staging-*/       the work of that process; without the lock held, a leftover of a killed one
//! 2.9.6/deno        an installed version, complete from the moment it is visible
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{GivenUp, Until};
use crate::search::executable_name;
use crate::version::Version;

const LOCK: &str = ".lock";
const STAGING: &str = ".staging-";

/// How often a process that waits for the lock looks at it again, and at its deadline.
const LOCK_TICK: Duration = Duration::from_millis(50);

/// The installed executables, newest first.
pub(crate) fn managed_executables(data_dir: &Path) -> Vec<PathBuf> {
    let root = root(data_dir);
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    let mut versions: Vec<Version> =
        entries.filter_map(|entry| Version::parse(entry.file_name().to_str()?)).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| executable(&root, version)).collect()
}

pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let root = root(&std::path::absolute(data_dir)?);
        create_private_dir(&root)?;
        Ok(Self { root })
    }

    /// Waits until no other process fetches into this directory.
    pub(super) fn lock(
        &self,
        until: Until<'_>,
        waiting: &mut dyn FnMut(),
    ) -> io::Result<Result<Locked, GivenUp>> {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(self.root.join(LOCK))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Ok(Locked { root: self.root.clone(), _lock: lock })),
                Err(TryLockError::WouldBlock) => waiting(),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if let Err(given_up) = until.check() {
                return Ok(Err(given_up));
            }
            thread::sleep(LOCK_TICK);
        }
    }
}

/// The right to change the directory, until dropped.
pub(super) struct Locked {
    root: PathBuf,
    _lock: File,
}

impl Locked {
    pub(super) fn executable(&self, version: Version) -> PathBuf {
        executable(&self.root, version)
    }

    /// A new directory that is removed when dropped, after those of processes that could not do so.
    pub(super) fn staging(&self) -> io::Result<TempDir> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(STAGING)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                // An orphaned package tool may still be writing there; the next fetch tries again.
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a leftover directory");
            }
        }
        tempfile::Builder::new().prefix(STAGING).tempdir_in(&self.root)
    }

    /// Makes the directory `staged` visible as `version`; one that is there, and did not work, goes to `staging`.
    pub(super) fn install(&self, staged: &Path, version: Version, staging: &Path) -> io::Result<()> {
        let target = self.root.join(version.to_string());
        match fs::rename(&target, staging.join("replaced")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_dir(staged)?;
        fs::rename(staged, &target)?;
        sync_dir(&self.root)
    }
}

/// Creates a directory, and those above it, for this user alone. One that is there stays as it is.
pub(super) fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Bytes of all files below `dir`; what vanishes meanwhile counts nothing.
pub(super) fn size_of_tree(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { size_of_tree(&entry.path()) } else { metadata.len() })
        })
        .sum()
}

/// Bytes that this user can still write there; `None` where it cannot be told.
#[cfg(unix)]
pub(super) fn free_space(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
pub(super) fn free_space(_dir: &Path) -> Option<u64> {
    None
}

/// Puts a directory's entries on disk, so that a power cut cannot leave a name without its content.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("deno")
}

fn executable(root: &Path, version: Version) -> PathBuf {
    root.join(version.to_string()).join(executable_name())
}
