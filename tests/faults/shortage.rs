//! Something the daemon needs is taken away while it runs: descriptors, processes, its files, its socket, Deno. A table: each row
//! takes something away, says what calls may come to meanwhile, and gives it back; then the same daemon serves as before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use conductor_tests::kernel::{Asked, By, Denial};
use conductor_tests::{Answer, Daemon, Held, Home, Kernel, Shim, binaries, wait_for};
use nix::libc;
use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;

use crate::tell;

/// Calls made while something is missing: more than there are idle workers, so that some must be booted.
const CALLS: usize = 8;

/// How long an answer may take meanwhile: above all time limits on the way.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How soon calls succeed again: what failed again and again is left alone for some seconds.
const RECOVERY: Duration = Duration::from_secs(20);

struct Row {
    name: &'static str,
    take: fn(&Ground),
    give_back: fn(&Ground),
    /// What the calls meanwhile come to.
    meanwhile: Meanwhile,
}

enum Meanwhile {
    /// Nobody notices.
    Served,
    /// Those that can be served are; at least one is not, and is told so in words like these.
    Refused(&'static [&'static str]),
}

struct Ground {
    home: Arc<Home>,
    daemon: Daemon,
    shim: Shim,
    limits: [Rlimit; 2],
    kernel: Kernel,
}

const ROWS: [Row; 12] = [
    Row {
        name: "no descriptor is left",
        // Fewer than it has: it keeps those, and gets no other.
        take: |ground| ground.limit(Resource::Nofile, 5),
        give_back: Ground::lift_limits,
        meanwhile: Meanwhile::Refused(&["Too many open files", "hint"]),
    },
    Row {
        name: "no memory is left for a process",
        take: |ground| ground.deny(Asked::Task, libc::ENOMEM),
        give_back: Ground::allow,
        meanwhile: Meanwhile::Refused(&["Cannot allocate memory", "hint"]),
    },
    Row {
        name: "no process is left",
        take: |ground| ground.deny(Asked::Task, libc::EAGAIN),
        give_back: Ground::allow,
        meanwhile: Meanwhile::Refused(&["Resource temporarily unavailable", "hint"]),
    },
    Row {
        name: "no memory is left for a file",
        take: |ground| {
            remove(&ground.cache());
            ground.deny(Asked::File, libc::ENOMEM);
        },
        give_back: Ground::allow,
        meanwhile: Meanwhile::Refused(&["Cannot allocate memory", "hint"]),
    },
    Row {
        name: "no room is left for a file",
        take: |ground| {
            remove(&ground.cache());
            ground.deny(Asked::File, libc::ENOSPC);
        },
        give_back: Ground::allow,
        meanwhile: Meanwhile::Refused(&["No space left on device", "hint"]),
    },
    Row {
        name: "the workers' DENO_DIR is gone",
        take: |ground| remove(&ground.cache()),
        give_back: |_| {},
        meanwhile: Meanwhile::Served,
    },
    Row {
        name: "Deno is gone",
        take: |ground| fs::remove_file(ground.deno()).expect("removes it"),
        give_back: |ground| install_deno(&ground.home),
        meanwhile: Meanwhile::Refused(&["Deno", "hint"]),
    },
    Row {
        name: "Deno was replaced",
        take: |ground| {
            fs::remove_file(ground.deno()).expect("removes it");
            install_deno(&ground.home);
        },
        give_back: |_| {},
        meanwhile: Meanwhile::Served,
    },
    Row {
        name: "Deno was replaced by something else",
        take: |ground| {
            fs::remove_file(ground.deno()).expect("removes it");
            fs::write(ground.deno(), "#!/bin/sh\necho this is no Deno >&2\nexit 3\n").expect("writes");
            fs::set_permissions(ground.deno(), fs::Permissions::from_mode(0o755)).expect("sets its mode");
        },
        give_back: |ground| {
            fs::remove_file(ground.deno()).expect("removes it");
            install_deno(&ground.home);
        },
        meanwhile: Meanwhile::Refused(&["Deno", "hint"]),
    },
    Row {
        name: "the configuration is gone",
        take: |ground| {
            fs::remove_file(ground.home.config_file()).expect("removes it");
            ground.daemon.signal(Signal::SIGHUP);
        },
        give_back: |ground| {
            configure(&ground.home);
            ground.daemon.signal(Signal::SIGHUP);
        },
        meanwhile: Meanwhile::Served,
    },
    Row {
        name: "the socket is gone",
        take: |ground| fs::remove_file(ground.home.socket()).expect("removes it"),
        give_back: |_| {},
        meanwhile: Meanwhile::Served,
    },
    Row {
        name: "the runtime directory is gone",
        take: |ground| remove(&ground.home.path("run")),
        give_back: |_| {},
        meanwhile: Meanwhile::Served,
    },
];

/// The kernel asks this limit of everybody but root.
const NO_PROCESS: Row = Row {
    name: "no process can be started",
    take: |ground| ground.limit(Resource::Nproc, 1),
    give_back: Ground::lift_limits,
    meanwhile: Meanwhile::Refused(&["Resource temporarily unavailable", "hint"]),
};

/// A user that owns nothing else on this machine.
const NOBODY: u32 = 54_321;

#[test]
fn what_is_taken_away_is_told_and_when_it_is_back_the_same_daemon_serves() {
    play(&ROWS);
}

#[test]
fn a_machine_without_processes_to_spare_is_told_and_survived() {
    if nix::unistd::geteuid().is_root() {
        let name = "shortage::a_machine_without_processes_to_spare_is_told_and_survived";
        // Where that user can read it.
        let home = Home::new();
        install_deno(&home);
        for dir in [home.path(""), home.path("bin")] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("sets its mode");
        }
        let mut again = Command::new(std::env::current_exe().expect("is running"));
        again.args(["--exact", name, "--nocapture"]).env("CONDUCTOR_DENO", home.own_deno());
        let output = again.uid(NOBODY).gid(NOBODY).output().expect("starts");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "as user {NOBODY}: {}", String::from_utf8_lossy(&said));
        return;
    }
    play(&[NO_PROCESS]);
}

fn play(rows: &[Row]) {
    let ground = Ground::new();
    let mut held = ground.at_rest();
    for row in rows {
        tell(row.name);
        (row.take)(&ground);
        let answers: Vec<Answer> = (0..CALLS).map(|n| ground.call(n)).collect();
        (row.give_back)(&ground);
        row.is_right(&answers);
        ground.recovers(row.name);
        // A Deno that was not there before has a DENO_DIR of its own.
        held.files = ground.at_rest().files;
        held.is_back(&ground.daemon, row.name);
    }
}

impl Row {
    fn is_right(&self, answers: &[Answer]) {
        let name = self.name;
        let refused: Vec<_> =
            answers.iter().filter(|answer| answer.structured()["status"] == "error").collect();
        match self.meanwhile {
            Meanwhile::Served => assert!(refused.is_empty(), "{name}: {refused:#?}"),
            Meanwhile::Refused(words) => {
                assert!(!refused.is_empty(), "{name}: nobody was told");
                let texts: Vec<_> = refused.iter().map(|answer| answer.error().to_string()).collect();
                for text in &texts {
                    assert!(text.contains("hint"), "{name}: {text}");
                }
                let is_clear = |text: &&String| words.iter().all(|word| text.contains(word));
                assert!(texts.iter().any(|text| is_clear(&text)), "{name}: {texts:#?}");
            }
        }
    }
}

impl Ground {
    fn new() -> Self {
        let home = Home::new();
        configure(&home);
        install_deno(&home);
        let (kernel, daemon) = Kernel::around(|| Daemon::start(&home));
        let shim = Shim::session(&home);
        assert_eq!(shim.call("1").value(), 1);
        let pid = Pid::from_raw(daemon.pid());
        let limits = [Resource::Nofile, Resource::Nproc]
            .map(|resource| prlimit(pid, resource, getrlimit(resource)).expect("it is ours"));
        Self { home, daemon, shim, limits, kernel }
    }

    fn call(&self, n: usize) -> Answer {
        let id = self.shim.start_call(json!({ "deno_code": format!("{n}"), "timeout": 20_000 }));
        self.shim.answer_within(id, ANSWER_TIME)
    }

    /// The old session is served, and a new one.
    fn recovers(&self, name: &str) {
        let what = format!("{name}: the daemon serves again");
        wait_for(&what, RECOVERY, || {
            let answer = self.call(7);
            if answer.structured()["status"] == "success" { Ok(()) } else { Err(answer.error().to_string()) }
        });
        wait_for(&what, RECOVERY, || if self.home.socket().exists() { Ok(()) } else { Err("no socket") });
        assert_eq!(Shim::session(&self.home).call("'a new session'").value(), "a new session", "{name}");
    }

    fn at_rest(&self) -> Held {
        self.daemon.wait_for_status("the pool is full", |status| {
            let is_full = |it: &conductor_protocol::status::ProfileStatus| {
                (it.busy, it.booting, it.queued, it.idle) == (0, 0, 0, 2) && it.breaker == "closed"
            };
            status.sessions.len() == 1 && status.pool.profiles.iter().all(is_full)
        });
        Held::of(&self.daemon)
    }

    /// Lowers a limit of the running daemon.
    fn limit(&self, resource: Resource, current: u64) {
        let pid = Pid::from_raw(self.daemon.pid());
        let maximum = getrlimit(resource).maximum;
        prlimit(pid, resource, Rlimit { current: Some(current), maximum }).expect("it is ours");
    }

    fn lift_limits(&self) {
        let pid = Pid::from_raw(self.daemon.pid());
        for (resource, limit) in [Resource::Nofile, Resource::Nproc].into_iter().zip(&self.limits) {
            prlimit(pid, resource, *limit).expect("it is ours");
        }
    }

    /// Has the kernel deny this to the daemon.
    fn deny(&self, asked: Asked, errno: i32) {
        self.kernel.deny(Denial { asked, by: By::Process(self.daemon.pid()), errno });
    }

    fn allow(&self) {
        self.kernel.allow();
    }

    fn cache(&self) -> PathBuf {
        self.home.home().join(".cache/conductor")
    }

    fn deno(&self) -> PathBuf {
        self.home.own_deno()
    }
}

fn configure(home: &Home) {
    home.configure("[pool]\nidle-per-profile = 2\n[profiles.default]\nlinger = \"200ms\"\n");
}

fn install_deno(home: &Home) {
    let deno = home.own_deno();
    fs::create_dir_all(deno.parent().expect("has one")).expect("makes the directory");
    binaries::install(&binaries::deno(), &deno);
}

/// Removes a tree, some of it read-only: at once, so that nobody puts anything into what is left of it.
fn remove(path: &Path) {
    let gone = path.with_extension("gone");
    fs::rename(path, &gone).expect("is there");
    remove_below(&gone);
}

fn remove_below(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700)).expect("sets its mode");
                remove_below(&entry.path());
            }
            _ => fs::remove_file(entry.path()).expect("removes a file"),
        }
    }
    fs::remove_dir(path).expect("removes a directory");
}
