//! Control groups on this machine's own tree, where it has one that the tests may divide.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use conductor_jail::cgroup::{CgroupError, Delegation, LeafLimits};

/// A group of the tests' own, removed in the end.
struct Ground {
    path: PathBuf,
    delegation: Delegation,
}

impl Ground {
    /// `None` without a tree to divide, and then says so: only the pure part, in the crate's own tests, has been checked.
    fn new(name: &str) -> Option<Self> {
        let root = match Delegation::of_this_process() {
            Ok(_) => own_group(),
            Err(error) => {
                not_checked(format_args!("control groups on a real tree: {error}"));
                return None;
            }
        };
        let path = root.join(format!("conductor-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for controller in ["memory", "pids"] {
            // Refused unless it is delegated to us, and then the limits are what is not checked.
            std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
        let delegation = Delegation::at(path.clone()).unwrap();
        Some(Self { path, delegation })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.delegation.sweep().ok();
        for path in [self.path.join("daemon"), self.path.clone()] {
            eventually(|| !path.exists() || std::fs::remove_dir(&path).is_ok());
        }
    }
}

fn own_group() -> PathBuf {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    Path::new(mount.split(' ').nth(4).unwrap()).join(group)
}

#[expect(clippy::explicit_write, reason = "the test harness swallows what passing tests print by macro")]
fn not_checked(what: std::fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "NOT CHECKED: {what}").unwrap();
}

/// Waits for a condition that the kernel brings about soon.
fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_kill_reaches_what_has_left_its_session() {
    let Some(ground) = Ground::new("kill") else { return };
    let leaf = ground.delegation.leaf("1", LeafLimits::default()).unwrap();
    // The shell waits until it is in the leaf; then a grandchild gets itself a session and loses its parent.
    let mut shell = Command::new("sh")
        .args(["-c", "read go; (setsid sleep 600 &); sleep 600"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!leaf.events().unwrap().populated);
    leaf.add(shell.id()).unwrap();
    drop(shell.stdin.take());
    let members =
        || std::fs::read_to_string(ground.path.join("worker-1/cgroup.procs")).unwrap().lines().count();
    assert!(eventually(|| members() >= 3), "{} processes", members());
    assert!(leaf.events().unwrap().populated);
    assert!(matches!(leaf.remove(), Err(CgroupError::Io { .. })), "it is in use");
    leaf.kill().unwrap();
    assert_eq!(shell.wait().unwrap().signal(), Some(9));
    assert!(eventually(|| !leaf.events().unwrap().populated));
    assert!(eventually(|| leaf.remove().is_ok()));
    assert!(!ground.path.join("worker-1").exists());
    leaf.remove().unwrap();
}

#[test]
fn a_new_daemon_sweeps_what_the_last_one_left() {
    let Some(ground) = Ground::new("sweep") else { return };
    let mut left: Vec<Child> = (0..3)
        .map(|number| {
            let child = sleeper();
            ground
                .delegation
                .leaf(&number.to_string(), LeafLimits::default())
                .unwrap()
                .add(child.id())
                .unwrap();
            child
        })
        .collect();
    ground.delegation.leaf("empty", LeafLimits::default()).unwrap();
    ground.delegation.sweep().unwrap();
    for child in &mut left {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    assert!(eventually(|| ground.delegation.sweep().unwrap() == 0));
    let leaves =
        std::fs::read_dir(&ground.path).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(leaves, 0);
}

#[test]
fn the_daemon_settles_in_a_leaf_of_its_own() {
    let Some(ground) = Ground::new("settle") else { return };
    let mut daemon = sleeper();
    for _ in 0..2 {
        ground.delegation.settle(daemon.id()).unwrap();
    }
    let procs = std::fs::read_to_string(ground.path.join("daemon/cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), daemon.id().to_string());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn limits_hold_where_their_controllers_are_delegated() {
    let Some(ground) = Ground::new("limits") else { return };
    let mut daemon = sleeper();
    ground.delegation.settle(daemon.id()).unwrap();
    let leaf = ground.delegation.leaf("1", LeafLimits { memory: Some(64 << 20), tasks: Some(8) }).unwrap();
    let (memory, pids) = (ground.delegation.has("memory"), ground.delegation.has("pids"));
    assert_eq!(leaf.is_limited(), memory && pids);
    if memory {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; head -c 512M /dev/zero | tail"]);
        let mut hog = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        leaf.add(hog.id()).unwrap();
        drop(hog.stdin.take());
        assert_eq!(hog.wait().unwrap().signal(), Some(9), "the whole leaf goes");
        assert!(leaf.events().unwrap().oom_kills > 0);
    } else {
        not_checked(format_args!(
            "the memory limit of a control group: the controller is not delegated here"
        ));
    }
    if pids {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; for i in $(seq 20); do sleep 600 & done; wait"]);
        let mut bomb = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        leaf.add(bomb.id()).unwrap();
        drop(bomb.stdin.take());
        assert!(eventually(|| leaf.events().unwrap().refused_tasks > 0));
        leaf.kill().unwrap();
        bomb.wait().unwrap();
    } else {
        not_checked(format_args!("the task limit of a control group: the controller is not delegated here"));
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(eventually(|| leaf.remove().is_ok()));
}
