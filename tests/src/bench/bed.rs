//! What the benchmark runs on: the programs as they are shipped, a daemon with default settings and profiles that differ in
//! how their workers are made, and cold runs like its workers.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use conductor_protocol::status::{ProfileStatus, StatusReport};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cold::Cold;
use super::proc::Counts;
use super::session::Session;
use crate::wait::wait_for;
use crate::{DEADLINE, Home, Operator, Process, binaries};

const PROFILE: &str = "MCP_CONDUCTOR_PROFILE";
const ALLOWED_PACKAGES: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

/// After this long without a change the pool has as many idle workers as it wants.
const SETTLED: Duration = Duration::from_millis(300);

/// A template waits ten seconds for Deno's idle threads to end; the first one is preceded by another, of the trial.
const TEMPLATES: Duration = Duration::from_secs(120);

/// What code may import where it may import anything, in every session alike.
pub(super) const PACKAGES: [&str; 3] = ["axios", "lodash", "zod"];

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a `deno run` of its own.
    Cold,
    /// By the daemon, in a worker that is a Deno started for it.
    Spawn,
    /// By the daemon, in a worker that is a copy of a Deno.
    Fork,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Cold, Self::Spawn, Self::Fork];
    pub(super) const WARM: [Self; 2] = [Self::Spawn, Self::Fork];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cold => "deno run",
            Self::Spawn => "spawn",
            Self::Fork => "fork",
        }
    }

    /// The profile whose workers are made so.
    fn profile(self) -> &'static str {
        if self == Self::Fork { "fork" } else { "default" }
    }
}

/// The same code for calls and for cold runs.
#[derive(Clone, Debug)]
pub(super) struct Task {
    code: &'static str,
    script: PathBuf,
}

/// Somebody who has the same done again and again.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    task: Task,
    /// None runs Deno.
    session: Option<Session>,
    cold: &'a Cold,
}

impl Caller<'_> {
    /// The time of one call.
    pub(super) fn call(&mut self) -> Duration {
        match &mut self.session {
            Some(session) => session.call(self.task.code),
            None => self.cold.run(&self.task.script),
        }
    }
}

/// A daemon, and what a call without it takes.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) home: Arc<Home>,
    pub(super) cold: Cold,
    /// Idle workers that the daemon keeps for a profile.
    pub(super) idle_target: u64,
    pub(super) shim: PathBuf,
    pub(super) deno: PathBuf,
    daemon: Child,
}

impl Bed {
    /// With the programs in this directory; without one, with those that are built like this program.
    pub(super) fn new(programs: Option<&Path>) -> Self {
        let [conductord, shim] =
            programs.map_or_else(build, |dir| ["conductord", "conductor-shim"].map(|name| dir.join(name)));
        let home = Home::new();
        home.configure(&configuration());
        let deno = binaries::deno();
        let daemon = start(&home, &conductord, &deno);
        let (mut session, _) = Session::open(&mut shim_command(&home, &shim));
        session.call("1 + 1");
        let idle_target = settled(&home);
        let worker = home.workers().first().expect("there are idle workers").pid;
        let cold = Cold::like_worker(&home, deno.clone(), worker);
        Self { home, cold, idle_target, shim, deno, daemon }
    }

    pub(super) fn daemon_pid(&self) -> i32 {
        self.daemon.id().cast_signed()
    }

    /// A session of the default profile.
    pub(super) fn session(&self) -> Session {
        self.timed_session().0
    }

    /// A session whose calls are made in this way; not the cold one.
    pub(super) fn session_of(&self, way: Way) -> Session {
        Session::open(self.shim_command().env(PROFILE, way.profile())).0
    }

    /// A session of this profile of the configuration, which has packages.
    pub(super) fn session_with_packages(&self, profile: &str) -> Session {
        let mut command = self.shim_command();
        Session::open(command.env(PROFILE, profile).env_remove(ALLOWED_PACKAGES)).0
    }

    pub(super) fn task(&self, name: &str, code: &'static str) -> Task {
        Task { code, script: self.cold.script(name, code) }
    }

    pub(super) fn caller(&self, way: Way, task: &Task) -> Caller<'_> {
        let session = (way != Way::Cold).then(|| self.session_of(way));
        Caller { task: task.clone(), session, cold: &self.cold }
    }

    /// The same, with the time from the shim's start to its first answer.
    pub(super) fn timed_session(&self) -> (Session, Duration) {
        Session::open(&mut self.shim_command())
    }

    fn shim_command(&self) -> Command {
        shim_command(&self.home, &self.shim)
    }

    /// A session of a profile that no other session has.
    pub(super) fn session_of_new_profile(&self, way: Way, name: &str) -> Session {
        let grant = format!("allow-net={name}.invalid");
        Session::open(self.shim_command().env(PROFILE, way.profile()).env("MCP_CONDUCTOR_RUN_ARGS", grant)).0
    }

    /// A session that has the upstream servers of this file.
    pub(super) fn session_with_servers(&self, config: &Path) -> Session {
        Session::open(self.shim_command().env("MCP_CONDUCTOR_MCP_CONFIG", config)).0
    }

    /// Waits until nothing runs or boots and a profile has all its idle workers.
    pub(super) fn wait_until_quiet(&self) {
        wait_for("the pool is quiet", DEADLINE, || {
            let profiles = profiles(&self.home);
            let quiet = profiles.iter().all(|profile| profile.busy + profile.booting + profile.queued == 0);
            let full = profiles.iter().any(|profile| profile.idle == self.idle_target);
            if quiet && full { Ok(()) } else { Err(format!("{profiles:#?}")) }
        });
    }

    /// Waits until the pool has stopped changing; gives the number of its workers.
    pub(super) fn settle(&self) -> u64 {
        settled(&self.home)
    }

    /// Waits until the calls of this session are served by forked workers.
    pub(super) fn wait_until_forking(&self, session: &mut Session) {
        let until = Instant::now() + TEMPLATES;
        while session.structured("1 + 1")["worker"] != Way::Fork.name() {
            assert!(Instant::now() < until, "nothing is forked: {:#?}", profiles(&self.home));
            thread::sleep(SETTLED);
        }
        self.settle();
    }

    pub(super) fn status(&self) -> StatusReport {
        Operator::status(&self.home.socket()).expect("the daemon answers")
    }

    /// The processes that workers are forked from, the oldest first.
    pub(super) fn templates(&self) -> Vec<i32> {
        let mut workers = self.home.workers();
        workers
            .retain(|worker| worker.parent == self.daemon_pid() && worker.command.contains(" --allow-ffi="));
        workers.sort_by_key(|worker| worker.start_ticks);
        workers.iter().map(|worker| worker.pid).collect()
    }

    /// The workers of this way that are alive.
    pub(super) fn workers(&self, way: Way) -> Vec<i32> {
        let templates = self.templates();
        let is_of = |worker: &Process| match way {
            Way::Cold => false,
            Way::Spawn => worker.parent == self.daemon_pid() && !templates.contains(&worker.pid),
            Way::Fork => templates.contains(&worker.parent),
        };
        self.home.workers().iter().filter(|worker| is_of(worker)).map(|worker| worker.pid).collect()
    }

    /// CPU time of these processes, of the daemon and of all that it has started, once the pool is quiet: its idle workers
    /// have cost the same before and after, and those in between have ended.
    pub(super) fn cpu(&self, shims: &[i32]) -> Duration {
        self.wait_until_quiet();
        let shims = shims.iter().filter_map(|pid| Counts::of(*pid));
        shims.chain(Counts::of_tree(self.daemon_pid())).map(|counts| counts.all_cpu()).sum()
    }
}

/// The default profile is as it is without a configuration.
fn configuration() -> String {
    let allowed = PACKAGES.map(|name| format!("\"npm:{name}\"")).join(", ");
    let packages = [("cold", "spawn", ""), ("spawn", "spawn", &allowed), ("fork", "fork", &allowed)];
    let packages = packages.map(|(name, worker, preload)| {
        format!(
            "[profiles.packages-{name}]\nworker = \"{worker}\"\npackages = [{allowed}]\npreload = [{preload}]\n"
        )
    });
    format!("[profiles.default]\n[profiles.fork]\nworker = \"fork\"\n{}", packages.concat())
}

impl Drop for Bed {
    fn drop(&mut self) {
        // It may have ended already.
        kill(Pid::from_raw(self.daemon_pid()), Signal::SIGTERM).ok();
        self.daemon.wait().expect("it is a child");
    }
}

/// Builds daemon and shim the way this one was built. As programs of its own package, whose dependencies are there already:
/// other packages ask for other features of them, and all would be compiled once more.
fn build() -> [PathBuf; 2] {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--package", "conductor-tests"]);
    command.args(["--bin", "conductord-under-test", "--bin", "conductor-shim-under-test"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let target = conductor_deno::testing::target_dir();
    let status = command.arg("--target-dir").arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(status.expect("cargo starts").success(), "the programs cannot be built");
    [binaries::conductord(), binaries::shim()]
}

fn start(home: &Home, conductord: &Path, deno: &Path) -> Child {
    let mut command = home.command(conductord);
    command.arg("--socket").arg(home.socket()).arg("--deno").arg(deno);
    let stderr = File::create(home.path("stderr")).expect("a file");
    let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
    let daemon = daemon.expect("conductord starts");
    wait_for("the daemon has found Deno", DEADLINE, || match Operator::status(&home.socket()) {
        Ok(status) if status.deno.state == "ready" => Ok(()),
        Ok(status) => Err(format!("{:?}", status.deno)),
        Err(error) => Err(error.to_string()),
    });
    daemon
}

fn shim_command(home: &Home, shim: &Path) -> Command {
    let mut command = home.command(shim);
    command.env("CONDUCTOR_SOCKET", home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    command
}

fn profiles(home: &Home) -> Vec<ProfileStatus> {
    Operator::status(&home.socket()).expect("the daemon answers").pool.profiles
}

fn settled(home: &Home) -> u64 {
    let count = || -> u64 {
        let profiles = profiles(home);
        let booting: u64 = profiles.iter().map(|profile| profile.booting + profile.busy).sum();
        // An unsettled pool never equals the one before.
        if booting > 0 { u64::MAX } else { profiles.iter().map(|profile| profile.idle).sum() }
    };
    wait_for("the pool settles", DEADLINE, || {
        let before = count();
        thread::sleep(SETTLED);
        let after = count();
        if before == after && after != u64::MAX { Ok(after) } else { Err(format!("{before}, then {after}")) }
    })
}
