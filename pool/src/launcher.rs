//! The first program of a worker: takes away what the worker must not have, then becomes Deno.
//!
//! A worker is started as `<our own binary> __worker-launcher ..` instead of as `deno ..`. What has to happen between
//! fork and exec then runs in a small single-threaded process of its own, and the daemon can use `posix_spawn`, which
//! does not copy the daemon's page tables.
//!
//! Descriptors when it starts, and when Deno starts: 0 `/dev/null`, 1 and 2 output, 3 commands, 4 replies, in a template
//! 5 its socket. Its steps, in this order and no other ([`STEPS`] is the same list):
//!
//! 1. A session and process group of its own, so that everything the worker starts can be killed with it.
//! 2. Death with the daemon: `PR_SET_PDEATHSIG`, then a look whether the daemon is already gone.
//! 3. Under a `run` grant: programs that lose their parent become its children, so that all can be found as long as it
//!    lives.
//! 4. Every other descriptor closes at exec, whoever forgot to say so.
//! 5. Umask 077.
//! 6. The jail ([`conductor_jail`], which has an order of its own): limits, no capabilities, no new privileges, Landlock,
//!    seccomp. After everything it would forbid, before anything that foreign code could influence.
//! 7. The working directory: in the jail, so that a directory the worker may not enter is an error here.
//! 8. Exec of Deno with exactly the given arguments and the environment as it is.
//!
//! A step that fails ends the launcher with [`LAUNCH_FAILED`] and one line on stderr. On success it says nothing: which
//! layers of the jail this machine has is the same for every worker, and [`conductor_jail::probe`] tells.

pub(crate) mod jail;
mod proof;

use std::ffi::{CString, NulError, OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use conductor_jail::{Jail, Level};
use nix::libc;
use rustix::process::{Pid, Signal};

use crate::error_chain;
pub use proof::{Proof, Unproved};

/// First argument that turns the binary into a launcher.
const ASK: &str = "__worker-launcher";

const STRICT: &str = "strict";
const BEST_EFFORT: &str = "best-effort";

/// Exit status of a launcher that did not become Deno.
pub(crate) const LAUNCH_FAILED: i32 = 125;

/// What a launcher is asked to do; travels as its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The process that must be alive for this one to live.
    pub(crate) parent: i32,
    /// What the worker may do, and the program that it is: Deno.
    pub(crate) jail: Jail,
    pub(crate) level: Level,
    /// Working directory.
    pub(crate) directory: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// Becomes a launcher, and then Deno, if the process was started as one. Call it first thing in `main`: before a
/// runtime, a thread or a logger exists. Never returns when asked. Also becomes the probe of
/// [`conductor_jail::probe::self_test`], for which the same program serves.
pub fn run_if_asked() {
    conductor_jail::probe::run_if_asked();
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(ASK)) {
        return;
    }
    let failure = match Launch::from_args(args) {
        Some(launch) => launch.become_deno(),
        None => "the launcher's arguments are not those of this version".to_owned(),
    };
    // Nobody is left to tell if this fails; the exit status says the rest.
    writeln!(io::stderr(), "{failure}").ok();
    #[expect(
        clippy::exit,
        reason = "this process was never more than a launcher; nothing is there to unwind"
    )]
    std::process::exit(LAUNCH_FAILED);
}

impl Launch {
    /// The full argument list, argument zero included, that asks `launcher` for this.
    pub(crate) fn to_args(&self, launcher: &OsStr) -> io::Result<Vec<CString>> {
        let level = match self.level {
            Level::Strict => STRICT,
            Level::BestEffort => BEST_EFFORT,
        };
        let mut args = vec![launcher.to_owned(), ASK.into(), self.parent.to_string().into(), level.into()];
        args.push(self.directory.clone().into());
        args.extend(self.jail.to_args());
        args.iter().chain(&self.args).map(|arg| Ok(CString::new(arg.as_bytes())?)).collect()
    }

    fn from_args(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let parent = args.next()?.into_string().ok()?.parse().ok()?;
        let level = match args.next()?.to_str()? {
            STRICT => Level::Strict,
            BEST_EFFORT => Level::BestEffort,
            _ => return None,
        };
        let directory = args.next()?.into();
        let jail = Jail::from_args(&mut args)?;
        Some(Self { parent, jail, level, directory, args: args.collect() })
    }

    /// Takes every step; returns only with the text of the one that failed.
    fn become_deno(&self) -> String {
        let Ok(exec) = Exec::new(self) else {
            return "cannot start Deno: an argument contains a NUL byte".to_owned();
        };
        for (what, step) in STEPS {
            if let Err(error) = step(self, &exec) {
                return format!("cannot {what}: {error}");
            }
        }
        let error = exec.run();
        format!("cannot start {}: {error}", self.jail.program.display())
    }
}

/// The exec to come. Made first, because the jail lets through only the one with this very `program`.
struct Exec {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Exec {
    fn new(launch: &Launch) -> Result<Self, NulError> {
        let text = |text: &OsStr| CString::new(text.as_bytes());
        let program = text(launch.jail.program.as_os_str())?;
        let args = std::iter::once(Ok(program.clone())).chain(launch.args.iter().map(|arg| text(arg)));
        let env = std::env::vars_os().map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            text(&entry)
        });
        Ok(Self { args: args.collect::<Result<_, _>>()?, env: env.collect::<Result<_, _>>()?, program })
    }

    /// Returns only if it failed.
    fn run(&self) -> io::Error {
        match nix::unistd::execve(&self.program, &self.args, &self.env) {
            Err(errno) => errno.into(),
        }
    }
}

type Step = fn(&Launch, &Exec) -> io::Result<()>;

const STEPS: [(&str, Step); 7] = [
    ("start a session", own_session),
    ("tie the worker to the daemon", die_with_parent),
    ("keep the programs it starts", keep_programs),
    ("close inherited descriptors", close_descriptors),
    ("set the umask", private_umask),
    ("enter the jail", enter_jail),
    ("enter the working directory", enter_directory),
];

fn own_session(_: &Launch, _: &Exec) -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

fn die_with_parent(launch: &Launch, _: &Exec) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Pid::from_raw(launch.parent) {
        return Err(io::Error::other("the daemon ended while the worker started"));
    }
    Ok(())
}

fn keep_programs(launch: &Launch, _: &Exec) -> io::Result<()> {
    if launch.jail.run {
        // Outlives the exec. Any pid says yes.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    Ok(())
}

fn close_descriptors(launch: &Launch, _: &Exec) -> io::Result<()> {
    let first =
        if launch.jail.forks { conductor_fork::wire::SOCKET + 1 } else { conductor_fork::wire::SOCKET };
    // By number: the C library gained the function later (glibc 2.34) than Linux the call (5.9).
    #[expect(unsafe_code, reason = "no safe wrapper of close_range exists in the libraries used here")]
    // SAFETY: the call takes three integers. It only sets close-on-exec, so no descriptor in use is invalidated.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn private_umask(_: &Launch, _: &Exec) -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    Ok(())
}

fn enter_jail(launch: &Launch, exec: &Exec) -> io::Result<()> {
    // The report stays here; see the module's text.
    launch
        .jail
        .apply(launch.level, Some(&exec.program))
        .map(drop)
        .map_err(|error| io::Error::other(error_chain(&error)))
}

fn enter_directory(launch: &Launch, _: &Exec) -> io::Result<()> {
    rustix::process::chdir(&launch.directory).map_err(|error| {
        io::Error::other(format!("{}: {}", launch.directory.display(), io::Error::from(error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            parent: 42,
            jail: Jail::new(OsStr::from_bytes(b"/not utf-8 \xff/deno").into()),
            level: Level::Strict,
            directory: "/with space".into(),
            args: vec!["run".into(), "".into(), "--".into()],
        }
    }

    #[test]
    fn a_launch_survives_the_trip_through_arguments() {
        for level in [Level::Strict, Level::BestEffort] {
            let launch = Launch { level, ..launch() };
            let args = launch.to_args(OsStr::new("launcher")).unwrap();
            assert_eq!(args[0].as_bytes(), b"launcher");
            let args = args.iter().skip(2).map(|arg| OsStr::from_bytes(arg.as_bytes()).to_owned());
            assert_eq!(Launch::from_args(args), Some(launch));
        }
    }

    #[test]
    fn an_argument_with_a_nul_byte_is_refused() {
        let launch = Launch { args: vec!["a\0b".into()], ..launch() };
        assert!(launch.to_args(OsStr::new("launcher")).is_err());
    }

    #[test]
    fn garbage_arguments_are_no_launch() {
        for args in [vec![], vec!["x"], vec!["1", "any", "/", "--"], vec!["1", "strict", "/", "--"]] {
            assert_eq!(Launch::from_args(args.into_iter().map(OsString::from)), None);
        }
    }
}
