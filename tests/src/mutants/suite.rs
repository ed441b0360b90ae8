//! Runs tests in the copy, with a build directory of its own and a time limit.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::tree::Tree;
use crate::process::Process;

/// A first build takes minutes, the slowest test one: what takes longer than this hangs.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// How a run of tests ended.
pub(super) enum Outcome {
    Green,
    /// The first test that failed.
    Red(String),
    NoTest,
    /// Neither: it hung, or died without a test having failed.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Green => f.write_str("all passed"),
            Self::Red(test) => write!(f, "{test} failed"),
            Self::NoTest => f.write_str("no test ran"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// Where tests are run.
pub(super) struct Suites<'t> {
    tree: &'t Tree,
    home: &'t Path,
    cargo: OsString,
    deno: PathBuf,
}

impl<'t> Suites<'t> {
    pub(super) fn new(tree: &'t Tree, home: &'t Path) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // What a mutated launcher lets live beyond its tests becomes this process's child, and `end_strays` ends it.
        prctl::set_child_subreaper(true).expect("a process may ask for this");
        // Else the copy would fetch one of its own.
        Self { tree, home, cargo, deno: crate::binaries::deno() }
    }

    /// True when the tests that `cargo test` would run with these arguments can be built.
    pub(super) fn compiles(&self, name: &str, tests: &str) -> bool {
        self.cargo(name, &format!("{tests} --no-run")).is_ok_and(|(status, _)| status.success())
    }

    /// Runs `cargo test` with these arguments; it stops behind the first test program with a failure.
    pub(super) fn run(&self, name: &str, tests: &str) -> Outcome {
        let (status, output) = match self.cargo(name, tests) {
            Ok(ended) => ended,
            Err(hung) => return Outcome::Broken(hung),
        };
        let mut results = output.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
        let mut ran = results.clone().filter(|(_, result)| !result.starts_with("ignored"));
        match results.find(|(_, result)| *result == "FAILED") {
            Some((test, _)) => Outcome::Red(test.to_owned()),
            None if !status.success() => {
                Outcome::Broken(format!("cargo test ended with {status}, but no test failed"))
            }
            None if ran.next().is_none() => Outcome::NoTest,
            None => Outcome::Green,
        }
    }

    /// Runs cargo up to its end and returns what it printed, which also goes to a file called `name`.
    fn cargo(&self, name: &str, tests: &str) -> Result<(ExitStatus, String), String> {
        let log = self.home.join(format!("{name}.log"));
        let output = File::create(&log).expect("the target directory is writable");
        let errors = output.try_clone().expect("a descriptor is left");
        let mut child = Command::new(&self.cargo)
            .arg("test")
            .args(tests.split_whitespace())
            .current_dir(self.tree.path())
            .env("CARGO_TARGET_DIR", self.home.join("target"))
            .env("CONDUCTOR_DENO", &self.deno)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .expect("cargo is installed");
        let group = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
        let (ended, waiting) = std::sync::mpsc::sync_channel(1);
        let waiter = std::thread::spawn(move || ended.send(child.wait()));
        let status = waiting.recv_timeout(TIME_LIMIT);
        if status.is_err() {
            killpg(group, Signal::SIGKILL).expect("it still runs, and is ours");
        }
        waiter.join().expect("waiting does not panic").expect("the receiver is still there");
        end_strays();
        let status = status.map_err(|_| format!("it hangs: more than {} seconds", TIME_LIMIT.as_secs()))?;
        let output = fs::read(&log).expect("it was just written");
        Ok((status.expect("a child can be waited for"), String::from_utf8_lossy(&output).into_owned()))
    }
}

/// Kills what a run of tests has left. Cargo has ended, so this process has no other children; those of a stray become its own.
fn end_strays() {
    let own = i32::try_from(std::process::id()).expect("process ids are small");
    while let Some(stray) = Process::all().into_iter().find(|process| process.parent == own) {
        stray.signal(Signal::SIGKILL);
        waitpid(Pid::from_raw(stray.pid), None).expect("it is a child of this process");
    }
}
