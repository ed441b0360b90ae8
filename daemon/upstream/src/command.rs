//! Finding the program of a server although a service has a bare PATH.
//!
//! A name without a slash is looked for in these places, in this order; the first executable file wins:
//!
//! 1. `PATH` in the entry's own `env`;
//! 2. the PATH of the session, as the IDE gave it to the shim;
//! 3. the PATH of the user's login shell, which knows version managers; asked once per daemon;
//! 4. the usual directories of the system.
//!
//! A name with a slash is a path, relative to the server's working directory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::{User, getuid};
use rustix::fs::{Access, access};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::process::{Group, new_session};

/// Where programs are if nobody says otherwise.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// How long the user's shell may take to start.
const SHELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Most that is read of the shell's output, in bytes.
const MAX_SHELL_BYTES: u64 = 256 * 1024;

/// Stands around the environment in the shell's output: start-up files print whatever they like.
const MARK: &str = "__CONDUCTOR_ENVIRONMENT__";

/// A program and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    pub program: PathBuf,
    pub place: Place,
}

/// Where a program was found or looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It was named by its path.
    Named,
    /// `PATH` in the entry's `env`.
    Configured,
    Session,
    LoginShell,
    System,
}

/// A program that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    pub command: String,
    /// The places that were looked through, with their number of directories.
    pub searched: Vec<(Place, usize)>,
}

/// The PATH of the user's login shell, read when it is first needed.
#[derive(Debug, Default)]
pub struct LoginShell(OnceCell<Option<OsString>>);

/// The PATHs in which a program is looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paths<'a> {
    pub(crate) configured: Option<&'a OsStr>,
    pub(crate) session: Option<&'a OsStr>,
    pub(crate) login_shell: Option<&'a OsStr>,
}

impl LoginShell {
    /// `None` if the shell does not tell within five seconds.
    ///
    /// # Cancel safety
    /// Cancel safe: a shell that nobody waits for is killed, and asked again the next time.
    pub async fn path(&self) -> Option<&OsStr> {
        self.0.get_or_init(ask_shell).await.as_deref()
    }
}

impl Paths<'_> {
    pub(crate) fn find(&self, command: &str, directory: &Path) -> Result<Found, NotFound> {
        let mut searched = Vec::new();
        if command.contains('/') {
            let program = directory.join(command);
            if is_executable(&program) {
                return Ok(Found { program, place: Place::Named });
            }
            searched.push((Place::Named, 1));
        } else {
            for (place, path) in self.places() {
                // A relative directory in a PATH would depend on where the daemon stands.
                let directories: Vec<_> = env::split_paths(path).filter(|dir| dir.is_absolute()).collect();
                if let Some(program) =
                    directories.iter().map(|dir| dir.join(command)).find(|p| is_executable(p))
                {
                    return Ok(Found { program, place });
                }
                searched.push((place, directories.len()));
            }
        }
        Err(NotFound { command: command.to_owned(), searched })
    }

    /// The PATH that the program gets: what the entry says, else the program's own directory, so that `npx` finds the
    /// `node` beside it, and then the login shell's. Never a session's: the server may be another session's too.
    pub(crate) fn for_child(&self, program: &Path) -> OsString {
        if let Some(configured) = self.configured {
            return configured.to_owned();
        }
        let rest = self.login_shell.unwrap_or(OsStr::new(SYSTEM_PATH));
        let directories = program.parent().map(Path::to_path_buf).into_iter().chain(env::split_paths(rest));
        env::join_paths(directories).unwrap_or_else(|_| rest.to_owned())
    }

    fn places(&self) -> impl Iterator<Item = (Place, &OsStr)> {
        let system = Some(OsStr::new(SYSTEM_PATH));
        [
            (Place::Configured, self.configured),
            (Place::Session, self.session),
            (Place::LoginShell, self.login_shell),
            (Place::System, system),
        ]
        .into_iter()
        .filter_map(|(place, path)| Some((place, path?)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "the path that is configured",
            Self::Configured => "PATH in the entry's env",
            Self::Session => "the session's PATH",
            Self::LoginShell => "the login shell's PATH",
            Self::System => "the system's directories",
        })
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command {:?} was not found in ", self.command)?;
        for (index, (place, n_directories)) in self.searched.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{place}")?;
            if *n_directories != 1 {
                write!(f, " ({n_directories} directories)")?;
            }
        }
        write!(f, "\nhint: install it, write its full path, or put PATH into the server's env")
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Version managers are set up in files that only interactive shells read, so an interactive shell is asked first; one
/// that insists on a terminal is asked again without.
async fn ask_shell() -> Option<OsString> {
    let shell = env::var_os("SHELL")
        .map(PathBuf::from)
        .or_else(|| User::from_uid(getuid()).ok().flatten().map(|user| user.shell))
        .filter(|shell| shell.is_absolute())?;
    for flags in ["-ilc", "-lc"] {
        let answer = timeout(SHELL_TIMEOUT, run_shell(&shell, flags)).await;
        if let Ok(Some(path)) = answer {
            return Some(path);
        }
    }
    tracing::warn!(shell = %shell.display(), "the login shell does not tell its PATH");
    None
}

async fn run_shell(shell: &Path, flags: &str) -> Option<OsString> {
    let mut command = Command::new(shell);
    command.arg(flags).arg(format!("echo {MARK}; /usr/bin/env; echo {MARK}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    new_session(command.as_std_mut());
    let mut child = command.spawn().ok()?;
    let _group = Group::of(&child);
    let mut output = String::new();
    child.stdout.take()?.take(MAX_SHELL_BYTES).read_to_string(&mut output).await.ok()?;
    child.wait().await.ok()?;
    parse_environment(&output)
}

fn parse_environment(output: &str) -> Option<OsString> {
    let environment = output.split(MARK).nth(1)?;
    let path = environment.lines().find_map(|line| line.strip_prefix("PATH="))?;
    (!path.is_empty()).then(|| OsString::from(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(directory: &Path, name: &str, mode: u32) -> PathBuf {
        fs::create_dir_all(directory).expect("made");
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn places_are_searched_in_the_documented_order() {
        let root = tempfile::tempdir().expect("a directory");
        let dirs = ["configured", "session", "login"].map(|name| root.path().join(name));
        program(&dirs[0], "tool", 0o644);
        let [_, session, login] =
            dirs.each_ref().map(|dir| program(dir, "other", 0o755).with_file_name("tool"));
        program(&dirs[2], "tool", 0o755);
        let paths = Paths {
            configured: Some(dirs[0].as_os_str()),
            session: Some(dirs[1].as_os_str()),
            login_shell: Some(dirs[2].as_os_str()),
        };
        let find = |paths: &Paths<'_>, command: &str| paths.find(command, root.path());
        let found = find(&paths, "tool").expect("found");
        assert_eq!(
            found,
            Found { program: login, place: Place::LoginShell },
            "not executable, not there, there"
        );
        program(&dirs[1], "tool", 0o755);
        assert_eq!(find(&paths, "tool").expect("found"), Found { program: session, place: Place::Session });
        assert_eq!(find(&paths, "other").expect("found").place, Place::Configured);
        assert_eq!(find(&Paths::default(), "sh").expect("found").place, Place::System);
        assert_eq!(find(&paths, "./login/tool").expect("found").place, Place::Named);
    }

    #[test]
    fn what_is_nowhere_says_where_it_was_looked_for() {
        let paths = Paths { session: Some(OsStr::new("/a:/b:relative")), ..Paths::default() };
        let error = paths.find("no-such-tool", Path::new("/")).expect_err("nowhere").to_string();
        assert!(
            error.contains("the session's PATH (2 directories), the system's directories (6 directories)"),
            "{error}"
        );
        let error = paths.find("/no/such", Path::new("/")).expect_err("nowhere").to_string();
        assert!(error.contains("in the path that is configured\nhint"), "{error}");
    }

    #[test]
    fn a_program_finds_what_lies_beside_it_and_never_a_sessions_path() {
        let paths = Paths {
            session: Some(OsStr::new("/session")),
            login_shell: Some(OsStr::new("/l")),
            configured: None,
        };
        assert_eq!(paths.for_child(Path::new("/nvm/bin/npx")), "/nvm/bin:/l");
        let paths = Paths { configured: Some(OsStr::new("/c")), ..paths };
        assert_eq!(paths.for_child(Path::new("/nvm/bin/npx")), "/c");
    }

    #[test]
    fn the_path_is_found_in_whatever_a_shell_prints() {
        let output = format!("Welcome!\nPATH=/wrong\n{MARK}\nA=b\nPATH=/x:/y\nMANPATH=/z\n{MARK}\nbye\n");
        assert_eq!(parse_environment(&output), Some(OsString::from("/x:/y")));
        assert_eq!(parse_environment("PATH=/x"), None);
    }

    #[tokio::test]
    async fn a_shell_is_asked_and_a_hanging_one_is_given_up() {
        assert!(run_shell(Path::new("/bin/sh"), "-lc").await.is_some());
        assert!(run_shell(Path::new("/nonexistent"), "-lc").await.is_none());
    }
}
