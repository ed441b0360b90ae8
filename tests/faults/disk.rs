//! Full disks. The daemon lives in a mount namespace of its own, in which its directories are small and can be filled; the test
//! reaches in by `/proc/PID/root`. Needs root, or says that it was not run.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use conductor_tests::{Daemon, Home, Shim, wait_for};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::{bed, tell};

/// Room for the workers' DENO_DIR twice over, and little more.
const DISK: &str = "size=4m,mode=700";

/// How soon calls succeed again once there is room: a worker that could not be booted is tried again after some seconds.
const RECOVERY: Duration = Duration::from_secs(20);

/// Of a disk that is filled.
const FILLING: usize = 64 * 1024;

struct Ground {
    home: Arc<Home>,
    daemon: Daemon,
}

impl Ground {
    /// A daemon for which each of these directories of the home is a small disk, filled from the start if so asked; `None`,
    /// after a loud notice, where none can be mounted.
    fn new(disks: &[&str], full: bool) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            tell("NOT RUN: full disks need root, to mount small ones");
            return None;
        }
        let home = bed::home(2);
        // A thread's namespace is that of what it starts, and ends with it.
        let start = || {
            unshare(CloneFlags::CLONE_NEWNS).expect("root may have mounts of its own");
            mount(&["--make-rprivate", "/"]);
            for disk in disks {
                let disk = home.path(disk);
                fs::create_dir_all(&disk).expect("makes the directory");
                mount(&["-t", "tmpfs", "-o", DISK, "tmpfs", &disk.display().to_string()]);
                if full {
                    fill(&disk);
                }
            }
            Daemon::start(&home)
        };
        let daemon = std::thread::scope(|scope| scope.spawn(start).join().expect("the daemon starts"));
        Some(Self { home, daemon })
    }

    fn disk(&self, name: &str) -> PathBuf {
        let place = self.home.path(name);
        let place = place.strip_prefix("/").expect("it is absolute");
        Path::new("/proc").join(self.daemon.pid().to_string()).join("root").join(place)
    }

    fn serves(&self, shim: &Shim, what: &str) {
        wait_for(what, RECOVERY, || {
            let answer = shim.call("7");
            if answer.structured()["status"] == "success" { Ok(()) } else { Err(answer.error().to_string()) }
        });
    }
}

fn mount(args: &[&str]) {
    let output = Command::new("mount").args(args).output().expect("mount is installed");
    assert!(output.status.success(), "mount {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Leaves no byte free.
fn fill(disk: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(filling(disk));
    let mut file = file.expect("makes a file");
    for chunk in [FILLING, 1] {
        while file.write_all(&vec![1; chunk]).is_ok() {}
    }
}

fn empty(disk: &Path) {
    fs::remove_file(filling(disk)).expect("is there");
}

fn filling(disk: &Path) -> PathBuf {
    disk.join("filling")
}

#[test]
fn a_disk_that_is_full_from_the_start_is_told_and_then_serves() {
    let Some(ground) = Ground::new(&["home/.cache"], true) else { return };
    let shim = Shim::session(&ground.home);
    let answer = shim.call("1");
    let error = answer.error();
    let text = error.to_string();
    assert!(text.contains("No space left on device") && text.contains("hint"), "{text}");
    empty(&ground.disk("home/.cache"));
    ground.serves(&shim, "there is room again");
}

/// Everything that is written while calls run is written for convenience; a call needs none of it.
#[test]
fn a_disk_that_fills_up_while_calls_run_stops_none_of_them() {
    let disks = ["home/.cache", "home/.local/state", "home/.local/share"];
    let Some(ground) = Ground::new(&disks, false) else { return };
    let pid = ground.daemon.pid();
    let shim = Shim::session(&ground.home);
    ground.serves(&shim, "the daemon serves");
    disks.iter().for_each(|disk| fill(&ground.disk(disk)));
    for n in 0..8 {
        assert_eq!(shim.call(&format!("{n}")).value(), n);
        assert_eq!(shim.call("await mcp.flaky.echo({ message: 'with a server' })").value(), "with a server");
    }
    let new = Shim::session(&ground.home);
    assert_eq!(new.call("'a new session'").value(), "a new session");
    disks.iter().for_each(|disk| empty(&ground.disk(disk)));
    ground.serves(&shim, "there is room again");
    assert_eq!(ground.daemon.pid(), pid);
}

#[test]
fn a_disk_that_is_full_when_packages_are_fetched_is_told_and_keeps_no_half_of_them() {
    let Some(ground) = Ground::new(&["home/.cache"], false) else { return };
    let shim = bed::session(&ground.home, |command| {
        // Nothing is fetched before a call asks.
        command.env("MCP_CONDUCTOR_ALLOWED_PACKAGES", "all");
    });
    ground.serves(&shim, "the workers' DENO_DIR is there");
    let disk = ground.disk("home/.cache");
    let code = |version: &str| format!("import ms from 'npm:ms@{version}'; ms(1000)");
    // From no byte at all to less than Deno's own databases take: how much it writes besides differs from run to run. Each
    // time for another layer, since a failure is remembered for a moment.
    for (version, kib) in [("2.0.0", 0), ("2.1.1", 16), ("2.1.2", 48)] {
        fill(&disk);
        let filling = OpenOptions::new().write(true).open(filling(&disk)).expect("was filled");
        let length = filling.metadata().expect("is there").len();
        filling.set_len(length - kib * 1024).expect("makes room");
        let answer = shim.call(&code(version));
        assert_eq!(answer.error_type(), "dependency", "{kib} KiB: {}", answer.error());
        let error = answer.error().to_string();
        assert!(error.contains("disk is full") && error.contains("free some space"), "{kib} KiB: {error}");
        wait_for("nothing is left of it", RECOVERY, || match layers(&disk) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
        assert_eq!(shim.call("'without packages'").value(), "without packages");
    }
    empty(&disk);
    wait_for("the packages are fetched", RECOVERY, || {
        let answer = shim.call(&code("2.1.2"));
        if answer.structured()["status"] == "success" { Ok(()) } else { Err(answer.error().to_string()) }
    });
    assert_eq!(shim.call(&code("2.1.2")).value(), "1s");
    assert_eq!(layers(&disk).len(), 1);
}

/// The package layers on this disk, whole or not.
fn layers(disk: &Path) -> Vec<String> {
    let entries = fs::read_dir(disk.join("conductor/layers")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".lock" && name != "index").collect()
}

#[test]
fn a_full_workspace_is_the_codes_own_affair() {
    let Some(ground) = Ground::new(&["ws"], false) else { return };
    let shim = bed::session(&ground.home, |_| {});
    let file = ground.home.workspace().join("large");
    let write = "Deno.writeTextFileSync(file, 'x'.repeat(1_000_000)); 'written'";
    let write = || shim.call_with(json!({ "deno_code": write, "globals": { "file": file } }));
    assert_eq!(write().value(), "written");
    fill(&ground.disk("ws"));
    fs::remove_file(ground.disk("ws").join("large")).expect("was written");
    fill(&ground.disk("ws"));
    let answer = write();
    assert!(answer.error_message().contains("No space left on device"), "{}", answer.error());
    ground.serves(&shim, "code that writes nothing");
    empty(&ground.disk("ws"));
    assert_eq!(write().value(), "written");
}
