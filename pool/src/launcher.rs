//! The first program of a worker: takes away what the worker must not have, then becomes Deno.
//!
//! A worker is started as `<our own binary> __worker-launcher ..` instead of as `deno ..`. What has to happen between
//! fork and exec then runs in a small single-threaded process of its own, and the daemon can use `posix_spawn`, which
//! does not copy the daemon's page tables.
//!
//! Descriptors when it starts, and when Deno starts: 0 `/dev/null`, 1 and 2 output, 3 commands, 4 replies. Its steps, in
//! this order and no other ([`STEPS`] is the same list):
//!
//! 1. A session and process group of its own, so that everything the worker starts can be killed with it.
//! 2. Death with the daemon: `PR_SET_PDEATHSIG`, then a look whether the daemon is already gone.
//! 3. Every descriptor from 5 up closes at exec, whoever forgot to say so.
//! 4. Umask 077.
//! 5. Resource limits: no core files, few descriptors, no file growth unless writing was granted.
//! 6. First choice of the kernel's out-of-memory killer.
//! 7. All capabilities given up, so that file modes bind the worker even if the daemon runs as root.
//! 8. `no_new_privs`: no program it starts can get any of that back.
//! 9. The working directory.
//!    (The kernel jail, once there is one, belongs here: after everything it would forbid, before foreign code.)
//! 10. Exec of Deno with exactly the given arguments and the environment as it is.
//!
//! A step that fails ends the launcher with [`LAUNCH_FAILED`] and one line on stderr. Step 6 alone may fail: it protects
//! other programs, not the sandbox.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::libc;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// First argument that turns the binary into a launcher.
const ASK: &str = "__worker-launcher";

/// Exit status of a launcher that did not become Deno.
pub(crate) const LAUNCH_FAILED: i32 = 125;

/// What a launcher is asked to do; travels as its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The process that must be alive for this one to live.
    pub(crate) parent: i32,
    /// Size to which the worker may grow files, in bytes; `None` for any.
    pub(crate) max_file_bytes: Option<u64>,
    pub(crate) max_descriptors: u64,
    /// Working directory.
    pub(crate) directory: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// Becomes a launcher, and then Deno, if the process was started as one. Call it first thing in `main`: before a
/// runtime, a thread or a logger exists. Never returns when asked.
pub fn run_if_asked() {
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
        let fixed = [
            launcher.to_owned(),
            ASK.into(),
            self.parent.to_string().into(),
            self.max_file_bytes.map_or("any".to_owned(), |bytes| bytes.to_string()).into(),
            self.max_descriptors.to_string().into(),
            self.directory.clone().into(),
            self.program.clone().into(),
        ];
        fixed.iter().chain(&self.args).map(|arg| Ok(CString::new(arg.as_bytes())?)).collect()
    }

    fn from_args(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut text = || args.next()?.into_string().ok();
        let parent = text()?.parse().ok()?;
        let max_file_bytes = match text()?.as_str() {
            "any" => None,
            bytes => Some(bytes.parse().ok()?),
        };
        let max_descriptors = text()?.parse().ok()?;
        let directory = args.next()?.into();
        let program = args.next()?.into();
        Some(Self { parent, max_file_bytes, max_descriptors, directory, program, args: args.collect() })
    }

    /// Takes every step; returns only with the text of the one that failed.
    fn become_deno(&self) -> String {
        for (what, step) in STEPS {
            if let Err(error) = step(self) {
                return format!("cannot {what}: {error}");
            }
        }
        let error = Command::new(&self.program).args(&self.args).exec();
        format!("cannot start {}: {error}", self.program.display())
    }
}

type Step = fn(&Launch) -> io::Result<()>;

const STEPS: [(&str, Step); 9] = [
    ("start a session", own_session),
    ("tie the worker to the daemon", die_with_parent),
    ("close inherited descriptors", close_descriptors),
    ("set the umask", private_umask),
    ("set resource limits", limit_resources),
    ("volunteer for the out-of-memory killer", be_first_victim),
    ("give up capabilities", drop_capabilities),
    ("give up new privileges", forbid_new_privileges),
    ("enter the working directory", enter_directory),
];

fn own_session(_: &Launch) -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

fn die_with_parent(launch: &Launch) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Pid::from_raw(launch.parent) {
        return Err(io::Error::other("the daemon ended while the worker started"));
    }
    Ok(())
}

fn close_descriptors(_: &Launch) -> io::Result<()> {
    // By number: the C library gained the function later (glibc 2.34) than Linux the call (5.9).
    #[expect(unsafe_code, reason = "no safe wrapper of close_range exists in the libraries used here")]
    // SAFETY: the call takes three integers. It only sets close-on-exec, so no descriptor in use is invalidated.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 5, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn private_umask(_: &Launch) -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    Ok(())
}

fn limit_resources(launch: &Launch) -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, launch.max_descriptors)?;
    launch.max_file_bytes.map_or(Ok(()), |bytes| limit(Resource::Fsize, bytes))
}

/// Lowers a limit for good; one that is already lower stays.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(maximum));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })?)
}

fn be_first_victim(_: &Launch) -> io::Result<()> {
    // Refused only where /proc is read-only or hidden, and then the worker is as safe as any other program.
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    Ok(())
}

fn drop_capabilities(_: &Launch) -> io::Result<()> {
    // The bounding set needs CAP_SETPCAP, which an ordinary user lacks; for him and for a root without it,
    // no_new_privs keeps exec from adding anything to the empty sets below.
    if rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        drop_bounding_set()?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok(())
}

fn drop_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor any above.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn forbid_new_privileges(_: &Launch) -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn enter_directory(launch: &Launch) -> io::Result<()> {
    rustix::process::chdir(&launch.directory).map_err(|error| {
        io::Error::other(format!("{}: {}", launch.directory.display(), io::Error::from(error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_survives_the_trip_through_arguments() {
        for max_file_bytes in [None, Some(0), Some(7)] {
            let launch = Launch {
                parent: 42,
                max_file_bytes,
                max_descriptors: 128,
                directory: "/with space".into(),
                program: OsStr::from_bytes(b"/not utf-8 \xff/deno").into(),
                args: vec!["run".into(), "".into(), "--".into()],
            };
            let args = launch.to_args(OsStr::new("launcher")).unwrap();
            assert_eq!(args[0].as_bytes(), b"launcher");
            let args = args.iter().skip(2).map(|arg| OsStr::from_bytes(arg.as_bytes()).to_owned());
            assert_eq!(Launch::from_args(args), Some(launch));
        }
    }

    #[test]
    fn an_argument_with_a_nul_byte_is_refused() {
        let launch = Launch {
            parent: 1,
            max_file_bytes: None,
            max_descriptors: 1,
            directory: "/".into(),
            program: "/deno".into(),
            args: vec!["a\0b".into()],
        };
        assert!(launch.to_args(OsStr::new("launcher")).is_err());
    }

    #[test]
    fn garbage_arguments_are_no_launch() {
        for args in [vec![], vec!["x"], vec!["1", "any"], vec!["1", "-1", "5", "/", "/deno"]] {
            assert_eq!(Launch::from_args(args.into_iter().map(OsString::from)), None);
        }
    }
}
