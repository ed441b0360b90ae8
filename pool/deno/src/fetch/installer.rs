//! npm and pip: how each is found, what it is told, and which file it leaves.
//!
//! Both run with the user's environment, because that is where registries, proxies and certificates are configured, and
//! with every file they write inside the work directory. Neither runs any code of the package.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::{env, fmt, fs, io};

use crate::child::{self, Finished, RunError, Until};
use crate::pin::Pin;

use super::store::{create_private_dir, size_of_tree};
use super::{AttemptError, Halt, Phase, Progress};

/// A package tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Installer {
    Npm,
    Pip,
}

impl fmt::Display for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Npm => "npm",
            Self::Pip => "pip",
        })
    }
}

/// A program and the arguments that make it the tool.
struct Tool {
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// Runs the tool until the package lies in `work`; returns its path.
pub(super) fn download(
    installer: Installer,
    pin: &Pin,
    path: Option<&OsStr>,
    work: &Path,
    until: Until<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, Halt> {
    let tool = find(installer, path, work, until)?;
    let directories = Directories::create(work).map_err(Halt::DataDir)?;
    let mut command = directories.command(&tool, path);
    match installer {
        Installer::Npm => npm_arguments(&mut command, pin, &directories),
        Installer::Pip => pip_arguments(&mut command, pin, &directories),
    }
    tracing::debug!(?command, "fetching Deno");
    let mut tick = || {
        let bytes = size_of_tree(work).min(pin.download_size);
        progress(Progress { phase: Phase::Downloading(installer), bytes, total: pin.download_size });
    };
    // A tool that fails at once has been tried, too.
    tick();
    let Finished { status, output } = child::run(command, until, &mut tick).map_err(halt)?;
    if !status.success() {
        return Err(failed(status, output));
    }
    package_in(&directories.package).ok_or(Halt::Next(AttemptError::NoPackage))
}

fn npm_arguments(command: &mut Command, pin: &Pin, directories: &Directories) {
    command
        .arg("pack")
        .arg(format!("{}@{}", pin.npm_package, pin.version))
        .arg("--pack-destination")
        .arg(&directories.package)
        .arg("--cache")
        .arg(directories.scratch.join("npm"))
        .args(["--ignore-scripts", "--no-update-notifier", "--no-progress", "--logs-max=0"])
        // Its defaults wait 70 s before they admit that there is no network.
        .args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]);
}

fn pip_arguments(command: &mut Command, pin: &Pin, directories: &Directories) {
    command
        .arg("download")
        .arg(format!("deno=={}", pin.version))
        .arg("--dest")
        .arg(&directories.package)
        .args([
            "--no-deps",
            "--only-binary=:all:",
            "--no-cache-dir",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--progress-bar=off", "--retries=2"])
        .env("PIP_REQUIRE_VIRTUALENV", "false");
}

/// Where a tool works: none of its files lands anywhere else.
struct Directories {
    package: PathBuf,
    scratch: PathBuf,
    /// Empty, so that the tool reads no project's configuration.
    cwd: PathBuf,
}

impl Directories {
    fn create(work: &Path) -> io::Result<Self> {
        let directories =
            Self { package: work.join("package"), scratch: work.join("scratch"), cwd: work.join("cwd") };
        for dir in [&directories.package, &directories.scratch, &directories.cwd] {
            create_private_dir(dir)?;
        }
        Ok(directories)
    }

    fn command(&self, tool: &Tool, path: Option<&OsStr>) -> Command {
        let mut command = Command::new(&tool.program);
        command.args(tool.arguments).current_dir(&self.cwd);
        for variable in ["TMPDIR", "TMP", "TEMP"] {
            command.env(variable, &self.scratch);
        }
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command
    }
}

/// The first tool of the kind that is there and, for pip, works: `python3` often comes without pip.
fn find(installer: Installer, path: Option<&OsStr>, work: &Path, until: Until<'_>) -> Result<Tool, Halt> {
    let candidates: &[(&str, &[&str])] = match installer {
        Installer::Npm => &[("npm", &[])],
        Installer::Pip => &[("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])],
    };
    for &(name, arguments) in candidates {
        let Some(program) = in_path(name, path) else { continue };
        let tool = Tool { program, arguments };
        if installer == Installer::Npm || answers(&tool, path, work, until)? {
            return Ok(tool);
        }
    }
    Err(Halt::Next(AttemptError::Absent))
}

fn answers(tool: &Tool, path: Option<&OsStr>, work: &Path, until: Until<'_>) -> Result<bool, Halt> {
    let mut command = Command::new(&tool.program);
    command.args(tool.arguments).arg("--version").current_dir(work);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    match child::run(command, until, &mut || {}) {
        Ok(finished) => Ok(finished.status.success()),
        Err(RunError::Start(_)) => Ok(false),
        Err(RunError::GivenUp(given_up)) => Err(given_up.into()),
    }
}

/// Looks a program up as a shell does, but never in a relative directory.
fn in_path(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    // npm is a batch file on Windows.
    let suffixes: &[&str] = if cfg!(windows) { &[".exe", ".cmd"] } else { &[""] };
    env::split_paths(path?)
        .filter(|dir| dir.is_absolute())
        .flat_map(|dir| suffixes.iter().map(move |suffix| dir.join(format!("{name}{suffix}"))))
        .find(|file| file.is_file())
}

fn package_in(dir: &Path) -> Option<PathBuf> {
    let is_package =
        |name: &OsString| [".tgz", ".whl"].iter().any(|end| name.to_string_lossy().ends_with(end));
    fs::read_dir(dir).ok()?.flatten().find(|entry| is_package(&entry.file_name())).map(|entry| entry.path())
}

fn halt(error: RunError) -> Halt {
    match error {
        RunError::Start(source) => Halt::Next(AttemptError::Start { source }),
        RunError::GivenUp(given_up) => given_up.into(),
    }
}

fn failed(status: ExitStatus, output: String) -> Halt {
    // A full disk fails the next tool too.
    let disk_full = ["ENOSPC", "No space left on device"].iter().any(|sign| output.contains(sign));
    if disk_full {
        Halt::DataDir(io::ErrorKind::StorageFull.into())
    } else {
        Halt::Next(AttemptError::Failed { status, output })
    }
}
