//! Runs one Deno executable with `--version` and says whether it can be used.
//!
//! In: a path. Out: a [`DenoBinary`], or a [`ProbeError`] that says what is wrong with it. The executable runs once, with
//! an empty environment and a deadline.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use crate::child::{self, Finished, RunError, Until};
use crate::pin::{MINIMUM, PINNED};
use crate::version::Version;

/// `deno --version` takes 20 ms; a disk that has to wake up takes seconds. Past this the executable counts as broken.
const DEADLINE: Duration = Duration::from_secs(10);

/// A Deno executable that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenoBinary {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    pub version: Version,
    /// The version of V8 in it, as it prints it.
    pub v8: String,
    pub origin: Origin,
    /// The file that answered.
    pub identity: FileIdentity,
}

impl DenoBinary {
    /// True when the pinned version is newer than this one.
    pub fn update_wanted(&self) -> bool {
        self.version < PINNED
    }

    /// True when the file at the path is not the one that answered: replaced, rewritten or removed.
    pub fn was_replaced(&self) -> bool {
        FileIdentity::of(&self.path).ok().as_ref() != Some(&self.identity)
    }
}

/// Where an executable was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `--deno` or the configuration.
    Explicit,
    /// `CONDUCTOR_DENO`.
    Env,
    /// A directory of `PATH`.
    Path,
    /// `~/.deno/bin`.
    Home,
    /// Fetched into conductor's data directory.
    Managed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "--deno or the configuration",
            Self::Env => "CONDUCTOR_DENO",
            Self::Path => "PATH",
            Self::Home => "~/.deno/bin",
            Self::Managed => "conductor's data directory",
        })
    }
}

/// What tells a replaced or rewritten file from the one that was probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// 0 where the system has no such number.
    pub device: u64,
    /// 0 where the system has no such number.
    pub inode: u64,
    pub modified: SystemTime,
    pub size: u64,
}

impl FileIdentity {
    /// # Errors
    /// The file cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::from_metadata(&fs::metadata(path)?)
    }

    fn from_metadata(metadata: &Metadata) -> io::Result<Self> {
        let (device, inode) = device_and_inode(metadata);
        Ok(Self { device, inode, modified: metadata.modified()?, size: metadata.len() })
    }
}

/// What is wrong with an executable.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("there is no such file")]
    Missing,
    #[error("the file cannot be looked at")]
    Inspect(#[source] io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is not executable")]
    NotExecutable,
    #[error("it is a script that starts Deno, not the Deno executable itself")]
    Script,
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    #[error("`--version` gave no answer within {after:?}")]
    NoAnswer { after: Duration },
    #[error("`--version` failed ({status}){}", quoted(output))]
    Failed { status: ExitStatus, output: String },
    #[error("`--version` did not answer `deno MAJOR.MINOR.PATCH`{}", quoted(output))]
    NotDeno { output: String },
    #[error("Deno {found} is older than {MINIMUM}, and older releases let code bypass permissions")]
    TooOld { found: Version },
}

impl ProbeError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing | Self::NotAFile | Self::NotDeno { .. } => "give the path of a Deno executable".to_owned(),
            Self::Inspect(_) => "check the permissions of the file and of the directories above it".to_owned(),
            Self::NotExecutable => "make it executable: chmod u+x".to_owned(),
            Self::Script => {
                "give the path of the executable; the wrapper prints it with `deno eval -p 'Deno.execPath()'`".to_owned()
            }
            Self::Start(_) | Self::Failed { .. } => {
                "it may be built for another system or lie on a file system mounted noexec; install Deno again".to_owned()
            }
            Self::NoAnswer { .. } => "run it by hand with --version; install Deno again if it hangs there too".to_owned(),
            Self::TooOld { .. } => format!("update it: deno upgrade {PINNED}"),
        }
    }
}

/// An error of a list with its cause. Lists have no `source()` by which whoever prints them could find it.
pub(crate) struct WithCause<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for WithCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => write!(f, "{}: {cause}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Runs the executable at `path` once and learns its version.
///
/// # Errors
/// It cannot be used; the error says why.
pub fn probe(path: &Path, origin: Origin) -> Result<DenoBinary, ProbeError> {
    // Links are resolved first: what answers must be what workers run, and not a launcher that picks by its own name.
    let path = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProbeError::Missing,
        _ => ProbeError::Inspect(error),
    })?;
    let metadata = fs::metadata(&path).map_err(ProbeError::Inspect)?;
    check_file(&path, &metadata)?;
    let identity = FileIdentity::from_metadata(&metadata).map_err(ProbeError::Inspect)?;
    let (version, v8) = ask_version(&path)?;
    if version < MINIMUM {
        return Err(ProbeError::TooOld { found: version });
    }
    Ok(DenoBinary { path, version, v8, origin, identity })
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<(), ProbeError> {
    if !metadata.is_file() {
        return Err(ProbeError::NotAFile);
    }
    if !is_executable(metadata) {
        return Err(ProbeError::NotExecutable);
    }
    // npm's `deno` package and version switchers put a script in PATH. Killing that script would leave Deno running.
    let mut start = [0; 2];
    let readable = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    if readable.is_ok() && &start == b"#!" {
        return Err(ProbeError::Script);
    }
    Ok(())
}

fn ask_version(path: &Path) -> Result<(Version, String), ProbeError> {
    let mut command = Command::new(path);
    command.arg("--version").env_clear().env("NO_COLOR", "1").env("DENO_NO_UPDATE_CHECK", "1");
    let until = Until { deadline: Instant::now() + DEADLINE, cancel: &AtomicBool::new(false) };
    let Finished { status, output } =
        child::run(command, until, &mut || {}).map_err(|error| match error {
            RunError::Start(error) => ProbeError::Start(error),
            RunError::GivenUp(_) => ProbeError::NoAnswer { after: DEADLINE },
        })?;
    if !status.success() {
        return Err(ProbeError::Failed { status, output });
    }
    parse_answer(&output).ok_or(ProbeError::NotDeno { output })
}

/// Reads `deno 2.9.6 (stable, …)` and `v8 14.9.207.2-rusty`; other lines do not matter.
fn parse_answer(output: &str) -> Option<(Version, String)> {
    let word_after =
        |name: &str| output.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    Some((Version::parse(word_after("deno ")?)?, word_after("v8 ")?.to_owned()))
}

/// The first line of an answer, short enough for a message.
fn quoted(output: &str) -> String {
    match output.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim().chars().take(200).collect::<String>()),
        None => String::new(),
    }
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_metadata: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn device_and_inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn device_and_inode(_metadata: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_deno_prints() {
        let table = [
            (
                "deno 2.9.6 (stable, release, x86_64-unknown-linux-gnu)\nv8 14.9.207.2-rusty\ntypescript 5.9.2\n",
                Some((Version::new(2, 9, 6), "14.9.207.2-rusty")),
            ),
            ("a warning\ndeno 2.9.6\r\nv8 14.9\r\n", Some((Version::new(2, 9, 6), "14.9"))),
            ("deno 2.9.6+abcdef0 (canary)\nv8 14.9\n", Some((Version::new(2, 9, 6), "14.9"))),
            ("deno 2.10.0-rc.1 (rc)\nv8 14.9\n", None),
            ("deno 2.9.6\n", None),
            ("deno \nv8 14.9\n", None),
            ("denote 2.9.6\nv8 14.9\n", None),
            ("v24.21.0\n", None),
            ("", None),
        ];
        for (output, expected) in table {
            let expected = expected.map(|(version, v8)| (version, v8.to_owned()));
            assert_eq!(parse_answer(output), expected, "{output:?}");
        }
    }
}
