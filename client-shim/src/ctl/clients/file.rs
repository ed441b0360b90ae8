//! A configuration file on disk: read whole, replaced whole or not at all, with a backup of what was there.
//!
//! Links are followed: the file they lead to is replaced, so that a link into a directory of dotfiles stays one. Nothing
//! is written that another program has changed since it was read, that belongs to somebody else, or that is read-only.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{AccessFlags, access, geteuid};

/// Largest file that is edited, in bytes. Clients that keep their history in the same file reach some megabytes; beyond
/// this it is the wrong file, or too much for an edit in memory.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Backups that are looked at for what a file was like before: more than a file ever gets in practice.
const MAX_BACKUPS: usize = 32;

const BACKUP: &str = "conductor-backup";

/// Who may read a file that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ctl) enum Access {
    /// This user only; of an existing file too.
    Private,
    /// This user only; an existing file stays as it is.
    New,
    /// What the user's umask says, as for any file of a project; an existing file stays as it is.
    Shared,
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::ctl) enum FileError {
    #[error("{} is {what}, not a file", path.display())]
    NotFile { path: PathBuf, what: &'static str },
    #[error("{} is a link that leads nowhere", path.display())]
    Dangling { path: PathBuf },
    #[error("{} is larger than {} MiB", path.display(), MAX_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} belongs to another user (uid {uid})", path.display())]
    Foreign { path: PathBuf, uid: u32 },
    #[error("{} cannot be written to", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} was changed by another program in the meantime", path.display())]
    Changed { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl FileError {
    /// What to do about it.
    pub(in crate::ctl) fn hint(&self) -> String {
        match self {
            Self::NotFile { path, .. } => format!("move {} out of the way, then try again", path.display()),
            Self::Dangling { .. } => "remove the link, or make the file it names".into(),
            Self::TooLarge { .. } => "is it the right file? then add the entry by hand".into(),
            Self::Read { .. } => "check its permissions and those of its directories".into(),
            Self::Foreign { .. } => "run this as the user it belongs to".into(),
            Self::ReadOnly { path } => format!("chmod u+w {}", path.display()),
            Self::Changed { .. } => "run the same command again".into(),
            Self::Write { .. } => "check the directory's permissions and the space on the disk".into(),
        }
    }
}

/// A file as it was when it was read.
#[derive(Debug)]
pub(in crate::ctl) struct ConfigFile {
    /// As the client names it.
    path: PathBuf,
    /// With all links followed.
    target: PathBuf,
    /// `None`: there is no file.
    bytes: Option<Vec<u8>>,
}

impl ConfigFile {
    pub(in crate::ctl) fn read(path: &Path) -> Result<Self, FileError> {
        let target = followed(path)?;
        let bytes = read(&target)?;
        Ok(Self { path: path.to_owned(), target, bytes })
    }

    pub(in crate::ctl) fn path(&self) -> &Path {
        &self.path
    }

    /// With all links followed.
    pub(in crate::ctl) fn target(&self) -> &Path {
        &self.target
    }

    pub(in crate::ctl) fn exists(&self) -> bool {
        self.bytes.is_some()
    }

    pub(in crate::ctl) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Fails for a reason that would keep [`Self::replace`] from its work.
    pub(in crate::ctl) fn check_writable(&self) -> Result<(), FileError> {
        let existing = self.target.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let directory =
            if existing == self.target { existing.parent().unwrap_or(existing) } else { existing };
        if self.exists() {
            let uid = metadata(&self.target)?.uid();
            if uid != geteuid().as_raw() {
                return Err(FileError::Foreign { path: self.path.clone(), uid });
            }
        }
        for path in [existing, directory] {
            if access(path, AccessFlags::W_OK).is_err() {
                return Err(FileError::ReadOnly { path: path.to_owned() });
            }
        }
        Ok(())
    }

    /// Puts `bytes` in place of the file, in one step. Gives the path of the backup, if there was a file.
    pub(in crate::ctl) fn replace(&self, bytes: &[u8], access: Access) -> Result<Option<PathBuf>, FileError> {
        self.check_writable()?;
        let directory = self.target.parent().unwrap_or(Path::new("/"));
        make_directory(directory, access).map_err(|source| self.write_error(source))?;
        let mode = match (access, self.exists()) {
            (Access::Private, _) | (Access::New, false) => Some(0o600),
            (Access::New | Access::Shared, true) => Some(metadata(&self.target)?.mode() & 0o7777),
            (Access::Shared, false) => None,
        };
        let file = self.fresh(directory, bytes, mode).map_err(|source| self.write_error(source))?;
        if read(&self.target)? != self.bytes {
            return Err(FileError::Changed { path: self.path.clone() });
        }
        let backup = self.bytes.as_deref().map(|old| self.back_up(old)).transpose();
        let backup = backup.map_err(|source| self.write_error(source))?;
        file.persist(&self.target).map_err(|error| self.write_error(error.error))?;
        // The file is in place; a directory that cannot be synchronised only makes that less durable.
        File::open(directory).and_then(|directory| directory.sync_all()).ok();
        Ok(backup)
    }

    /// What the file was like at earlier times, newest first.
    pub(in crate::ctl) fn backups(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let prefix = self.backup_prefix();
        let directory = self.path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
        let mut found: Vec<_> = directory
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
            .map(|entry| entry.path())
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().take(MAX_BACKUPS).filter_map(|path| read(&path).ok().flatten())
    }

    /// A file beside the target that holds `bytes` and is gone again unless it is persisted.
    fn fresh(
        &self,
        directory: &Path,
        bytes: &[u8],
        mode: Option<u32>,
    ) -> io::Result<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".conductor-").permissions(Permissions::from_mode(mode.map_or(0o666, |_| 0o600)));
        let mut file = builder.tempfile_in(directory)?;
        file.write_all(bytes)?;
        if let Some(mode) = mode {
            // After the contents: until then nobody else may read it, and the umask has no say in an existing mode.
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
        }
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn back_up(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
        let prefix = self.backup_prefix();
        for n in 0_u32.. {
            let again = if n == 0 { String::new() } else { format!("-{n:03}") };
            let path = self.path.with_file_name(format!("{prefix}{stamp}{again}"));
            // It may hold what the file held when it was less private.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    file.write_all(bytes)?;
                    file.sync_all()?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("there are too many backups"))
    }

    fn backup_prefix(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}.{BACKUP}-")
    }

    fn write_error(&self, source: io::Error) -> FileError {
        FileError::Write { path: self.path.clone(), source }
    }
}

/// `path` with its links followed; what is not there yet stays as it is named.
fn followed(path: &Path) -> Result<PathBuf, FileError> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => Err(FileError::Dangling { path: path.to_owned() }),
            Err(_) => Ok(path.to_owned()),
        },
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

fn metadata(path: &Path) -> Result<Metadata, FileError> {
    fs::metadata(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

/// The whole file; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let owned = || path.to_owned();
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path: owned(), source }),
        Ok(found) => found,
    };
    // Opening a pipe or a device could wait for ever.
    if !found.is_file() {
        let what = if found.is_dir() { "a directory" } else { "a device or pipe" };
        return Err(FileError::NotFile { path: owned(), what });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match file {
        Err(source) => Err(FileError::Read { path: owned(), source }),
        Ok(n_bytes) if n_bytes as u64 > MAX_BYTES => Err(FileError::TooLarge { path: owned() }),
        Ok(_) => Ok(Some(bytes)),
    }
}

fn make_directory(path: &Path, access: Access) -> io::Result<()> {
    let mode = if access == Access::Shared { 0o777 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

#[cfg(test)]
mod tests;
