//! The user's service manager: systemd on Linux, launchd on macOS (not built or tested here).
//!
//! Owns nothing. In: an installation's paths. Out: unit files, and runs of the manager's own program. Writes and removes only
//! files that `conductorctl` has written itself, which their first line tells.

#[cfg(target_os = "macos")]
mod launchd;
#[cfg(not(target_os = "macos"))]
mod systemd;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::exit_code;

#[cfg(target_os = "macos")]
pub(super) use launchd::Launchd as Manager;
#[cfg(not(target_os = "macos"))]
pub(super) use systemd::Systemd as Manager;

/// In the first line of every file that is written here.
const MARK: &str = "Written by `conductorctl service install`";

/// Why the manager did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManagerError {
    #[error("there is no {tool} on this machine, so conductord cannot be a service")]
    NoTool { tool: &'static str },
    #[error("no service manager of this user runs here: {words}")]
    Absent { words: String },
    #[error("the user has no home directory")]
    NoHome,
    #[error("the daemon's program conductord is not found")]
    NoProgram,
    #[error("{} cannot be written in a unit file: it is not UTF-8 or holds a line break", .path.display())]
    Path { path: PathBuf },
    #[error("{} was not written by conductorctl", .path.display())]
    Foreign { path: PathBuf },
    #[error("the service is not installed")]
    NotInstalled,
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("`{command}` failed: {words}")]
    Failed { command: String, words: String },
}

impl ManagerError {
    /// The cure.
    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoTool { .. } => {
                "nothing needs to be done: clients start conductord when they need it".into()
            }
            Self::Absent { .. } => "nothing needs to be done: clients start conductord when they need it. For a service, log in \
                                    as this user itself, not by su or sudo; on a server, also `loginctl enable-linger`"
                .into(),
            Self::NoHome => "set HOME".into(),
            Self::NoProgram => {
                "install conductord beside this program or on PATH, or set CONDUCTOR_DAEMON to its path".into()
            }
            Self::Path { .. } => "install it under another path".into(),
            Self::Foreign { .. } => "move it away if it is of no more use".into(),
            Self::NotInstalled => "conductorctl service install".into(),
            Self::Failed { .. } => "see `conductorctl service status` and `conductorctl service logs`".into(),
            Self::Io { .. } => return None,
        })
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NoTool { .. } | Self::Absent { .. } | Self::NoHome | Self::NoProgram => {
                exit_code::UNAVAILABLE
            }
            Self::Path { .. } | Self::Foreign { .. } | Self::NotInstalled | Self::Failed { .. } => {
                exit_code::FAILED
            }
            Self::Io { .. } => exit_code::IO,
        }
    }
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManagerError {
    let what = format!("cannot {what} {}", path.display());
    move |source| ManagerError::Io { what, source }
}

/// Runs the manager's program; an error holds its words.
fn run(mut command: Command, tool: &'static str) -> Result<Output, ManagerError> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| not_started(source, tool))?;
    if output.status.success() {
        return Ok(output);
    }
    let line = |arg: &std::ffi::OsStr| arg.to_string_lossy().into_owned();
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(line);
    Err(ManagerError::Failed {
        command: words.collect::<Vec<_>>().join(" "),
        words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs a program that talks to the user itself; false when it says that something is wrong.
fn show(mut command: Command, tool: &'static str) -> Result<bool, ManagerError> {
    let status = command.stdin(Stdio::null()).status().map_err(|source| not_started(source, tool))?;
    Ok(status.success())
}

fn not_started(source: io::Error, tool: &'static str) -> ManagerError {
    match source.kind() {
        io::ErrorKind::NotFound => ManagerError::NoTool { tool },
        _ => ManagerError::Io { what: format!("cannot start {tool}"), source },
    }
}

/// Puts `text` at `path`, all of it or nothing.
fn write(path: &Path, text: &str) -> Result<(), ManagerError> {
    check_ours(path)?;
    let new = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // Others may read what runs; nothing in it is a secret.
        .mode(0o644)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(io_at("write", path))
}

/// Removes the file if it is there; true when it was.
fn remove(path: &Path) -> Result<bool, ManagerError> {
    if !check_ours(path)? {
        return Ok(false);
    }
    fs::remove_file(path).map_err(io_at("remove", path))?;
    Ok(true)
}

/// True when the file is there; an error when somebody else wrote it.
fn check_ours(path: &Path) -> Result<bool, ManagerError> {
    match fs::read_to_string(path) {
        Ok(text) if text.lines().take(3).any(|line| line.contains(MARK)) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(io_at("read", path)(error)),
        Ok(_) | Err(_) => Err(ManagerError::Foreign { path: path.to_owned() }),
    }
}

/// A path or list of paths as text of one line.
fn text_of(path: &Path) -> Result<&str, ManagerError> {
    let wrong = || ManagerError::Path { path: path.to_owned() };
    path.to_str().filter(|text| !text.contains(['\n', '\r', '\0'])).ok_or_else(wrong)
}

/// The daemon's program: an absolute path, which later upgrades keep.
fn program() -> Result<PathBuf, ManagerError> {
    let program = crate::autostart::Autostart::of_this_process().program().ok_or(ManagerError::NoProgram)?;
    std::path::absolute(&program).map_err(io_at("find", &program))
}

/// The search path of this process, without what has a meaning only where it runs: upstream servers are started by name.
fn search_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let absolute = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    std::env::join_paths(absolute).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ours_are_replaced_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("conductor.service");
        assert!(!remove(&path).expect("nothing there"));
        for text in ["first", "second"] {
            let text = format!("# {MARK}.\n{text}");
            write(&path, &text).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("is there"), text);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("is there").count(), 1, "nothing is left beside it");
        assert!(remove(&path).expect("ours"));
        assert!(!path.exists());
        for foreign in [&b"[Service]\n"[..], b"", b"\xff\xff"] {
            fs::write(&path, foreign).expect("writes");
            assert!(matches!(write(&path, "x"), Err(ManagerError::Foreign { .. })));
            assert!(matches!(remove(&path), Err(ManagerError::Foreign { .. })));
            assert_eq!(fs::read(&path).expect("is there"), foreign);
        }
    }
}
