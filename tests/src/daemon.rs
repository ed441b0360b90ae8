//! One real `conductord`.

use std::fs::OpenOptions;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_protocol::status::StatusReport;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::home::Home;
use crate::operator::Operator;
use crate::process::{self, Process};
use crate::wait::wait_for;
use crate::{DEADLINE, binaries};

/// How long a daemon without running calls may take to go down before the fixture kills it.
const STOP_TIME: Duration = Duration::from_secs(10);

/// A running daemon; stopped when it is dropped, and then none of its workers may be left.
#[derive(Debug)]
pub struct Daemon {
    home: Arc<Home>,
    child: Child,
}

impl Daemon {
    /// A daemon in a home of its own, ready.
    pub fn new() -> Self {
        Self::start(&Home::new())
    }

    /// A daemon in this home, ready.
    pub fn start(home: &Arc<Home>) -> Self {
        Self::start_with(home, |_| {})
    }

    /// The same, with a changed command line or environment.
    pub fn start_with(home: &Arc<Home>, adapt: impl FnOnce(&mut Command)) -> Self {
        let mut command = Self::command(home);
        adapt(&mut command);
        let child = command.spawn().expect("conductord starts");
        let mut daemon = Self { home: home.clone(), child };
        wait_for("the daemon answers a status request", DEADLINE, || {
            if let Some(status) = daemon.child.try_wait().expect("it is a child") {
                panic!("the daemon ended before it was ready: {status}");
            }
            Operator::status(&home.socket()).map_err(|error| error.to_string())
        });
        daemon
    }

    /// Runs a daemon that is expected to end by itself.
    pub fn run_to_end(home: &Arc<Home>, adapt: impl FnOnce(&mut Command)) -> Output {
        let mut command = Self::command(home);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        adapt(&mut command);
        let mut child = command.spawn().expect("conductord starts");
        // Its few words fit into the pipes, so waiting first cannot block it.
        ended(&mut child, DEADLINE).unwrap_or_else(|| {
            child.kill().expect("it is a child");
            panic!("the daemon did not end by itself within {DEADLINE:?}")
        });
        child.wait_with_output().expect("its output")
    }

    /// The command line of a daemon in this home.
    fn command(home: &Home) -> Command {
        let mut command = home.command(&binaries::conductord());
        command.arg("--socket").arg(home.socket());
        command.arg("--deno").arg(home.deno());
        command.arg("--log-file").arg(home.log_file()).args(["--log-format", "json"]);
        command.env("CONDUCTOR_LOG", "debug");
        let stderr = OpenOptions::new().create(true).append(true).open(home.path("stderr")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// # Panics
    /// The daemon does not answer.
    #[track_caller]
    pub fn status(&self) -> StatusReport {
        Operator::status(&self.home.socket()).expect("the daemon answers a status request")
    }

    /// Waits until the status document satisfies `is_so`.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, is_so: impl Fn(&StatusReport) -> bool) -> StatusReport {
        wait_for(what, DEADLINE, || {
            let status = self.status();
            if is_so(&status) { Ok(status) } else { Err(format!("{status:#?}")) }
        })
    }

    /// Waits until nothing runs, nobody is connected, and all idle workers are there.
    #[track_caller]
    pub fn wait_until_quiet(&self, sessions: usize) -> StatusReport {
        self.wait_for_status("the daemon is quiet", |status| {
            let is_quiet = |profile: &conductor_protocol::status::ProfileStatus| {
                profile.busy == 0 && profile.booting == 0 && profile.queued == 0
            };
            status.sessions.len() == sessions && status.pool.profiles.iter().all(is_quiet)
        })
    }

    /// Its child processes: workers, from launcher to zombie.
    pub fn children(&self) -> Vec<Process> {
        Process::all().into_iter().filter(|process| process.parent == self.pid()).collect()
    }

    /// Its open descriptors, as it says itself: its part of `/proc` is closed to all but root.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        let told = self.status().daemon.descriptors;
        assert!(told > 0, "the daemon can count its descriptors");
        usize::try_from(told).expect("a count")
    }

    pub fn threads(&self) -> usize {
        process::threads(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the daemon is there");
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child, DEADLINE).expect("the daemon ends in time")
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child")
    }

    /// Ends it without a chance to clean up, and reaps it.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut graceful = true;
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
            graceful = ended(&mut self.child, STOP_TIME).is_some();
        }
        if !graceful {
            self.child.kill().expect("it is a child");
            self.child.wait().expect("it is a child");
        }
        if std::thread::panicking() {
            return;
        }
        assert!(graceful, "the daemon did not stop within {STOP_TIME:?} of SIGTERM");
        // Workers of a daemon that a shim has started in the same home meanwhile are not this one's.
        if self.home.daemons().is_empty() {
            wait_for("no worker is left", STOP_TIME, || match self.home.workers() {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:#?}")),
            });
        }
    }
}

/// The end of a child, if it comes within `time`.
pub(crate) fn ended(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
