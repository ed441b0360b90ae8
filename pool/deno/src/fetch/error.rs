//! Why no Deno could be fetched, in the user's terms.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::probe::ProbeError;
use crate::search::install_hint;
use crate::version::Version;

use super::Installer;
use crate::probe::WithCause;

/// Lines of a tool's output that a message shows. npm ends with notices; the reason stands a few lines above them.
const LINES_SHOWN: usize = 8;

/// Why a fetch failed. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no Deno is pinned for {} on {}", std::env::consts::OS, std::env::consts::ARCH)]
    UnsupportedPlatform,
    #[error("Deno {version} cannot be fetched: neither npm nor pip is installed here")]
    NoInstaller { version: Version },
    #[error("Deno {version} could not be fetched{}", listed(attempts))]
    AllFailed { version: Version, attempts: Vec<FailedAttempt> },
    #[error(
        "Deno {version} was fetched with {installer}, but it is not the pinned executable: SHA-256 {found}, not {expected}"
    )]
    WrongHash { version: Version, installer: Installer, expected: String, found: String },
    #[error("not enough space for Deno in {}: {} MB are needed", dir.display(), needed.div_ceil(1_000_000))]
    NoSpace { dir: PathBuf, needed: u64 },
    #[error("Deno could not be fetched within {after:.0?}")]
    TimedOut { after: Duration },
    #[error("fetching Deno was cancelled")]
    Cancelled,
    #[error("cannot write Deno into {}", dir.display())]
    DataDir { dir: PathBuf, source: io::Error },
    #[error("the fetched Deno cannot be used on this machine")]
    Unusable { source: ProbeError },
}

/// One installer's failure.
#[derive(Debug)]
pub struct FailedAttempt {
    pub installer: Installer,
    pub error: AttemptError,
}

/// Why one installer failed; another may succeed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error("it is not installed")]
    Absent,
    #[error("it cannot be started")]
    Start { source: io::Error },
    #[error("it failed ({status}){}", last_lines(output))]
    Failed { status: ExitStatus, output: String },
    #[error("it took too long")]
    TimedOut,
    #[error("it succeeded without leaving a package")]
    NoPackage,
    #[error("the package it left cannot be unpacked")]
    BadArchive { source: io::Error },
    #[error("the executable in the package has the SHA-256 {found}, not {expected}")]
    WrongHash { expected: String, found: String },
}

impl FetchError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnsupportedPlatform | Self::Cancelled => install_hint(),
            Self::NoInstaller { .. } => format!("install npm or pip and try again, or {}", install_hint()),
            Self::AllFailed { .. } | Self::TimedOut { .. } => {
                format!("check the network and what npm and pip are configured to use, or {}", install_hint())
            }
            Self::WrongHash { .. } => format!(
                "nothing was kept; check which package registry npm and pip are configured to use, or {}",
                install_hint()
            ),
            Self::NoSpace { .. } => format!("free some space there, or {}", install_hint()),
            Self::DataDir { .. } => "check the owner and the permissions of this directory".to_owned(),
            Self::Unusable { source } => format!("{}, or {}", source.hint(), install_hint()),
        }
    }

    /// What all installers' failures amount to. A wrong hash weighs most: it is the one that may be an attack.
    pub(super) fn of_attempts(version: Version, attempts: Vec<FailedAttempt>, after: Duration) -> Self {
        let all = |fits: fn(&AttemptError) -> bool| attempts.iter().all(|attempt| fits(&attempt.error));
        if all(|error| matches!(error, AttemptError::Absent)) {
            return Self::NoInstaller { version };
        }
        if all(|error| matches!(error, AttemptError::Absent | AttemptError::TimedOut)) {
            return Self::TimedOut { after };
        }
        let wrong = attempts.iter().find_map(|attempt| match &attempt.error {
            AttemptError::WrongHash { expected, found } => {
                Some((attempt.installer, expected.clone(), found.clone()))
            }
            _ => None,
        });
        match wrong {
            Some((installer, expected, found)) => Self::WrongHash { version, installer, expected, found },
            None => Self::AllFailed { version, attempts },
        }
    }
}

fn listed(attempts: &[FailedAttempt]) -> String {
    attempts.iter().map(|attempt| format!("\n{}: {}", attempt.installer, WithCause(&attempt.error))).collect()
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].iter().map(|line| format!("\n  {line}")).collect()
}
