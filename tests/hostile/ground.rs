//! Where the table is tried: a daemon, its sessions, what must not be reached, and what must be the same after each case.
//!
//! Two kinds of machine: this one, and one whose kernel has neither Landlock nor seccomp filters. The second is this one
//! behind a filter that answers those two calls as such a kernel does. Where it can be (the tests run as root), the daemon
//! lives in a network of its own that has a loopback interface and nothing else, whose counters tell every packet.

mod descriptors;
mod names;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_tests::{Answer, DEADLINE, Daemon, Home, Process, Shim, forks, wait_for};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::{Value, json};

use crate::case::{ATTEMPTS, Case, Outcome, outcome};
use descriptors::{Leaks, Look, Steady};
use network::Network;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// With every layer of the jail that this kernel has.
    Jailed,
    /// Without Landlock and seccomp.
    Bare,
}

/// Idle workers of each set of grants.
const IDLE: u64 = 2;

/// Time for a template: ten seconds until its idle threads have ended, and what a busy machine adds.
const TEMPLATE: Duration = Duration::from_secs(90);

/// How much a template may grow, in bytes, while its copies do what they like.
const GROWTH: u64 = 4 << 20;

/// How soon the daemon must answer an innocent call after a hostile one.
const CANARY_TIME: Duration = Duration::from_secs(1);

/// What no answer and no log may hold.
const SECRETS: [&str; 3] =
    ["c4n4ry-of-a-file", "c4n4ry-of-the-daemons-environment", "c4n4ry-of-another-session"];

/// What a worker that nobody has used looks like from the inside, and that a daemon is there to give one.
const CANARY: &str = "({ answer: 6 * 7, globals: Reflect.ownKeys(globalThis).length, prototype: Reflect.ownKeys(Object.prototype).length,\n\
     storage: (() => { try { return localStorage.length } catch (error) { return error.name } })(),\n\
     caches: await caches.open('x').then(() => 'opened', (error) => error.name) })";

pub(crate) struct Ground {
    machine: Machine,
    home: Arc<Home>,
    daemon: Daemon,
    /// One session for each set of grants.
    sessions: BTreeMap<&'static str, Shim>,
    canary: Shim,
    untouched: Value,
    rest: Rest,
    /// `None` where only root may look.
    steady: Option<Steady>,
    network: Network,
    leaks: Leaks,
    /// Memory of each template's own when it had its first copies.
    templates: BTreeMap<i32, u64>,
}

/// What the daemon holds when nothing runs.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    descriptors: usize,
    children: usize,
    workers: usize,
    /// What workers are forked from, by pid and start: no case ends one.
    templates: BTreeSet<(i32, u64)>,
    files: BTreeMap<PathBuf, (u64, i64)>,
}

impl Rest {
    /// Fewer descriptors are none left behind: at the first look a connection may just have been closing.
    fn is_back_at(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && (self.children, self.workers, &self.templates, &self.files)
                == (before.children, before.workers, &before.templates, &before.files)
    }
}

/// Started as a template, or copied from one.
fn is_forked(process: &Process) -> bool {
    process.command.contains("--single-threaded")
}

impl Ground {
    pub(crate) fn new(machine: Machine, heap_mib: u32) -> Self {
        let home = Home::new();
        home.configure(&format!(
            "[pool]\nidle-per-profile = {IDLE}\nmax-idle = 64\nmax-workers = 64\n[profiles.default]\nheap-mib = {heap_mib}\nlinger = \"200ms\"\n\
             max-output-bytes = 1000000\nmax-calls-per-minute = 1000000\nworker = \"{}\"\n[policy]\n\
             session-grants = [\"read\", \"write\", \"net\", \"env\", \"run\", \"ffi\"]\n",
            if forks::are_wanted() { "fork" } else { "spawn" }
        ));
        plant(&home);
        // A thread's filters and network are those of what it starts, and end with it.
        let (network, daemon, leaks) = std::thread::scope(|scope| {
            let start = scope.spawn(|| {
                let network = Network::new(&home);
                if machine == Machine::Bare {
                    take_layers_away();
                }
                let mut leaks = None;
                let daemon = Daemon::start_with(&home, |command| {
                    command.env("CONDUCTOR_SECRET", SECRETS[1]);
                    leaks = Some(Leaks::into(command, &home));
                });
                (network, daemon, leaks.expect("the daemon was started"))
            });
            start.join().expect("the daemon starts")
        });
        let jail =
            daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking").jail;
        // Control groups are this machine's, and both kinds have what it has.
        let inside = jail.layers.iter().filter(|layer| layer.name != "cgroup");
        let missing: Vec<_> = inside.filter(|layer| layer.state == "missing").collect();
        assert_eq!(missing.len(), if machine == Machine::Bare { 2 } else { 0 }, "{jail:?}");
        let canary = Shim::session_with(&home, |command| {
            command.env("MCP_CONDUCTOR_RUN_ARGS", "allow-env=OTHER").env("OTHER", SECRETS[2]);
        });
        let untouched = canary.call(CANARY).value().clone();
        let rest = Rest {
            descriptors: 0,
            children: 0,
            workers: 0,
            templates: BTreeSet::new(),
            files: BTreeMap::new(),
        };
        let (sessions, templates) = Default::default();
        let steady = None;
        let mut ground = Self {
            machine,
            home,
            daemon,
            sessions,
            canary,
            untouched,
            rest,
            steady,
            network,
            leaks,
            templates,
        };
        ground.settle("at the start");
        ground
    }

    /// Plays one case; tells what was not as it must be.
    pub(crate) fn play(&mut self, case: &Case) -> Result<(), String> {
        let label = format!(
            "class {} on {:?}: {:.80}",
            case.class,
            self.machine,
            case.source().trim_start_matches(ATTEMPTS).trim()
        );
        if !case.resolves.is_empty() && self.network.asked().is_none() {
            // Past the test harness, which keeps what a test says to itself.
            let notice = format!(
                "\n*** NOT TESTED: {label}: no root, so no network with a name server of its own\n\n"
            );
            std::io::stderr().write_all(notice.as_bytes()).expect("stderr is open");
            return Ok(());
        }
        self.open_session(case.grants);
        let shim = &self.sessions[case.grants];
        let code = self.filled(&case.source());
        let packets = self.network.packets(self.daemon.pid());
        let id = shim.start_call(json!({ "deno_code": code, "timeout": case.timeout() }));
        let answer = shim.answer(id);
        let outcome = outcome(case, &answer);
        let may_reach =
            outcome == Ok(Outcome::Breach) && case.allows(Outcome::Breach, self.machine == Machine::Bare);
        assert!(self.network.is_silent() || may_reach, "{label}: something was reached");
        assert!(self.leaks.are_untouched(), "{label}: a descriptor that the daemon had by mistake");
        self.look_around(&label, &answer);
        if let Some(asked) = self.network.asked() {
            assert_eq!(
                asked,
                case.resolves.iter().map(|name| (*name).to_owned()).collect(),
                "{label}: names"
            );
        }
        if !case.grants.contains("net") {
            assert_eq!(self.network.packets(self.daemon.pid()), packets, "{label}: packets were sent");
        }
        assert_eq!(self.sessions[case.grants].answers(id), 1, "{label}: one answer");
        match outcome {
            Ok(outcome) if case.allows(outcome, self.machine == Machine::Bare) => Ok(()),
            Ok(outcome) => Err(format!(
                "{label}\n  {outcome:?}, not {}: {:.600}",
                case.letters(self.machine == Machine::Bare),
                answer.result()["structuredContent"].to_string()
            )),
            Err(why) => Err(format!("{label}\n  {why:.600}")),
        }
    }

    fn open_session(&mut self, grants: &'static str) {
        if self.sessions.contains_key(grants) {
            return;
        }
        let run_args = self.filled(grants);
        let shim = Shim::session_with(&self.home, |command| {
            command
                .env("MCP_CONDUCTOR_RUN_ARGS", run_args)
                .env("MCP_CONDUCTOR_WORKSPACE", self.home.workspace());
        });
        // The first call makes the session's workers.
        assert_eq!(shim.call("1").value(), 1);
        self.sessions.insert(grants, shim);
        self.settle(grants);
    }

    /// Takes what there is now for what there must be from now on.
    fn settle(&mut self, label: &str) {
        self.wait_for_forks();
        self.rest = self.at_rest(label);
        // The table of a forked worker is that of its template, less what the child gives up: the tests of forks look at it.
        if forks::are_wanted() {
            return;
        }
        let first = Look::at(&self.daemon);
        self.answers_the_canary(label);
        self.rest = self.at_rest(label);
        let looks = first.zip(Look::at(&self.daemon));
        self.steady = looks.map(|(first, second)| Steady::of(&first, &second));
    }

    /// Waits until all idle workers are forked, but where they cannot be.
    fn wait_for_forks(&mut self) {
        if !forks::are_wanted() {
            return;
        }
        wait_for("workers are forked", TEMPLATE, || {
            let mut spawned = 0;
            for profile in self.daemon.status().pool.profiles {
                match profile.fallback {
                    None => {}
                    Some(why) if why.contains("grants `run`, `ffi`") => spawned += profile.idle,
                    Some(why) if self.machine == Machine::Bare && why.contains("jail's layer") => {
                        spawned += profile.idle;
                    }
                    Some(why) => return Err(why),
                }
            }
            // Those that were spawned before count until they are reaped.
            let children = Process::all().into_iter().filter(|process| process.parent == self.daemon.pid());
            let are_spawned = children.filter(|process| !is_forked(process)).count();
            if are_spawned as u64 == spawned { Ok(()) } else { Err(format!("{are_spawned}, not {spawned}")) }
        });
        let templates = self.workers().into_iter().filter(|process| self.is_template(process));
        for Process { pid, .. } in templates.collect::<Vec<_>>() {
            self.templates.entry(pid).or_insert_with(|| own_memory(pid));
        }
    }

    /// Processes of workers and templates.
    fn workers(&self) -> Vec<Process> {
        Process::all().into_iter().filter(|process| process.is_worker_below(&self.home.path(""))).collect()
    }

    fn is_template(&self, process: &Process) -> bool {
        process.parent == self.daemon.pid() && is_forked(process)
    }

    /// What holds after every case.
    fn look_around(&self, label: &str, answer: &Answer) {
        let text = answer.message.to_string();
        for secret in SECRETS {
            assert!(!text.contains(secret), "{label}: {secret} is in the answer: {text}");
        }
        self.answers_the_canary(label);
        empty(&self.home.workspace());
        wait_for(&format!("{label}: everything is as before"), DEADLINE, || {
            let now = self.at_rest(label);
            if !now.is_back_at(&self.rest) {
                return Err(differences(&self.rest, &now));
            }
            let look = Look::at(&self.daemon);
            let moved = self.steady.as_ref().zip(look).map(|(steady, look)| steady.differences(&look));
            if moved.as_ref().is_none_or(Vec::is_empty) { Ok(()) } else { Err(format!("{moved:#?}")) }
        });
    }

    /// On a loaded machine one of three must be in time.
    fn answers_the_canary(&self, label: &str) {
        let mut times = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            let answer = self.canary.call(CANARY);
            assert_eq!(answer.value(), &self.untouched, "{label}: the next worker is not as new");
            times.push(started.elapsed());
            if started.elapsed() <= CANARY_TIME {
                return;
            }
        }
        panic!("{label}: the canary took {times:?}");
    }

    fn at_rest(&self, label: &str) -> Rest {
        let sessions = self.sessions.len() + 1;
        let what = format!("{label}: the pool is full again");
        let status = self.daemon.wait_for_status(&what, |status| {
            let is_full = |profile: &conductor_protocol::status::ProfileStatus| {
                (profile.idle, profile.busy, profile.booting, profile.queued) == (IDLE, 0, 0, 0)
                    && (profile.breaker.as_str(), profile.boot_failures) == ("closed", 0)
            };
            status.sessions.len() == sessions
                && status.pool.profiles.len() == sessions
                && status.pool.profiles.iter().all(is_full)
        });
        drop(status);
        let processes = Process::all();
        let count = |is_it: &dyn Fn(&&Process) -> bool| processes.iter().filter(is_it).count();
        Rest {
            descriptors: self.daemon.descriptors(),
            children: count(&|process| process.parent == self.daemon.pid()),
            workers: count(&|process| process.is_worker_below(&self.home.path(""))),
            templates: processes
                .iter()
                .filter(|process| self.is_template(process))
                .map(|process| (process.pid, process.start_ticks))
                .collect(),
            files: files(&self.home),
        }
    }

    /// What holds for all that was written meanwhile.
    pub(crate) fn finish(self) {
        let Self { home, daemon, sessions, canary, templates, .. } = self;
        for (pid, before) in templates {
            let now = own_memory(pid);
            assert!(now < before + GROWTH, "a template has grown from {before} to {now} bytes");
        }
        drop((sessions, canary, daemon));
        for name in ["log", "stderr", "shim-stderr"] {
            let text = std::fs::read(home.path(name)).unwrap_or_default();
            let text = String::from_utf8(text).expect("logs are text");
            for secret in SECRETS {
                assert!(!text.contains(secret), "{secret} is in {name}");
            }
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{name} has control characters");
            if name == "log" {
                for line in text.lines() {
                    let entry: Value = serde_json::from_str(line).expect("each line of the log is JSON");
                    assert_ne!(entry["fields"]["message"], "forged", "{line}");
                }
            }
        }
    }

    /// Puts the places of this ground into a case's text.
    fn filled(&self, text: &str) -> String {
        let port =
            |addr: std::io::Result<std::net::SocketAddr>| addr.expect("it is bound").port().to_string();
        let path = |path: PathBuf| path.display().to_string();
        [
            ("{secret}", path(self.home.path("outside/secret.json"))),
            ("{outside}", path(self.home.path("outside"))),
            ("{ws}", path(self.home.workspace())),
            ("{cache}", path(self.home.home().join(".cache/conductor"))),
            ("{harness}", path(harness(&self.home))),
            ("{pid}", self.daemon.pid().to_string()),
            ("{socket}", path(self.home.socket())),
            ("{listener}", path(self.home.path("listener"))),
            ("{name}", path(self.home.path("name"))),
            ("{tcp}", port(self.network.tcp.local_addr())),
            ("{udp}", port(self.network.udp.local_addr())),
        ]
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// Memory that a process shares with no file, in bytes.
fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// For the calling thread and what it starts: the kernel has neither Landlock nor seccomp filters.
fn take_layers_away() {
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp].map(|call| (call, vec![]));
    let answer = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().expect("a processor with a table");
    let filter =
        SeccompFilter::new(calls.into(), SeccompAction::Allow, answer, architecture).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("compiles");
    seccompiler::apply_filter(&filter).expect("this kernel has filters");
}

/// What code must not reach, and what lies in wait for it in its workspace.
fn plant(home: &Home) {
    let outside = home.path("outside");
    std::fs::create_dir(&outside).expect("makes it");
    std::fs::write(outside.join("secret.json"), format!("\"{}\"", SECRETS[0])).expect("writes");
    std::fs::write(outside.join("module.js"), "export default 'BREACH'; globalThis.postMessage?.(1);")
        .expect("writes");
    bait(&home.workspace());
}

fn bait(workspace: &Path) {
    let link = workspace.join("link.json");
    let target = workspace.parent().expect("has one").join("outside/secret.json");
    std::os::unix::fs::symlink(target, link).expect("links");
    for (name, text) in [
        ("deno.json", r#"{"imports":{"bait":"./bait.js"},"unstable":["kv"],"nodeModulesDir":"auto"}"#),
        ("package.json", r#"{"name":"x","dependencies":{"bait":"file:./bait"},"main":"bait.js"}"#),
        (".npmrc", "registry=http://127.0.0.1:9/\n"),
        ("bait.js", "export default 'BREACH';"),
    ] {
        std::fs::write(workspace.join(name), text).expect("writes");
    }
}

/// Makes the workspace as it was: what code was granted to write there is no trace.
fn empty(workspace: &Path) {
    for entry in std::fs::read_dir(workspace).expect("is there").flatten() {
        let path = entry.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.expect("removes what code left");
    }
    bait(workspace);
}

fn harness(home: &Home) -> PathBuf {
    let dir = home.home().join(".cache/conductor/harness");
    let mut files = std::fs::read_dir(dir).expect("workers have booted").flatten();
    files.next().expect("the harness is a file").path()
}

/// Every file of the home but logs, sockets and the workspace, with its size and when it was changed.
fn files(home: &Home) -> BTreeMap<PathBuf, (u64, i64)> {
    let root = home.path("");
    let logs = ["log", "stderr", "shim-stderr", "ws"].map(|name| home.path(name));
    let mut found = BTreeMap::new();
    let mut left = vec![root];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            if logs.contains(&path) {
                continue;
            }
            if meta.is_dir() {
                left.push(path);
            } else {
                found.insert(path, (meta.len(), meta.mtime_nsec() + meta.mtime()));
            }
        }
    }
    found
}

fn differences(before: &Rest, now: &Rest) -> String {
    let new: Vec<_> = now.files.iter().filter(|(path, meta)| before.files.get(*path) != Some(meta)).collect();
    let gone: Vec<_> = before.files.keys().filter(|path| !now.files.contains_key(*path)).collect();
    let held = |rest: &Rest| {
        let Rest { descriptors, children, workers, templates, .. } = rest;
        format!("{descriptors} descriptors, {children} children, {workers} workers, templates {templates:?}")
    };
    let strays: Vec<_> =
        Process::all().into_iter().filter(|process| process.command.contains("sleep 987")).collect();
    format!("{}, before {}; files new or changed {new:?}, gone {gone:?}; {strays:?}", held(now), held(before))
}
