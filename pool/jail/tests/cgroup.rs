//! Control groups on this machine's own tree, where it has one that the tests may divide.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use conductor_jail::cgroup::{Branch, CgroupError, Delegation, LeafLimits};

/// A branch of the tests' own, in a group of their own, with a process that stands for the daemon. All removed in the end.
struct Ground {
    path: PathBuf,
    delegation: Delegation,
    daemon: Child,
    /// `None` once it was dropped.
    branch: Option<Branch>,
}

impl Ground {
    /// `None` without a tree to divide, and then says so: only the pure part, in the crate's own tests, has been checked.
    fn new(name: &str) -> Option<Self> {
        if let Err(error) = Delegation::of_this_process() {
            not_checked(format_args!("control groups on a real tree: {error}"));
            return None;
        }
        let root = own_group();
        let path = root.join(format!("jail-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for controller in ["memory", "pids"] {
            // Refused unless it is delegated to us, and then the limits are what is not checked.
            std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
        let delegation = Delegation::at(path.clone()).unwrap();
        let daemon = sleeper();
        let branch = delegation.settle(daemon.id()).unwrap();
        Some(Self { path, delegation, daemon, branch: Some(branch) })
    }

    fn branch(&self) -> &Branch {
        self.branch.as_ref().unwrap()
    }

    fn branch_path(&self) -> PathBuf {
        self.path.join(format!("conductor-{}-0", self.daemon.id()))
    }

    /// Ends the daemon without a chance to clean up.
    fn kill_daemon(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.kill_daemon();
        drop(self.branch.take());
        self.delegation.sweep().ok();
        eventually(|| {
            self.delegation.sweep().ok();
            !self.path.exists() || std::fs::remove_dir(&self.path).is_ok()
        });
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
    let mut sleep = Command::new("sleep");
    // Should a test fail, nobody waits for the end of its output.
    sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_kill_reaches_what_has_left_its_session() {
    let Some(ground) = Ground::new("kill") else { return };
    let leaf = ground.branch().leaf(LeafLimits::default()).unwrap();
    // The shell waits until it is in the leaf; then a grandchild gets itself a session and loses its parent.
    let mut shell = Command::new("sh")
        .args(["-c", "read go; (setsid sleep 600 &); sleep 600"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!leaf.events().unwrap().populated);
    leaf.add(shell.id()).unwrap();
    drop(shell.stdin.take());
    let path = ground.branch_path().join("worker-0");
    let members = || std::fs::read_to_string(path.join("cgroup.procs")).unwrap().lines().count();
    assert!(eventually(|| members() >= 3), "{} processes", members());
    assert!(leaf.events().unwrap().populated);
    assert!(matches!(leaf.remove(), Err(CgroupError::Io { .. })), "it is in use");
    leaf.kill().unwrap();
    assert_eq!(shell.wait().unwrap().signal(), Some(9));
    assert!(eventually(|| !leaf.events().unwrap().populated));
    assert!(eventually(|| leaf.remove().is_ok()));
    assert!(!path.exists());
    leaf.remove().unwrap();
}

#[test]
fn a_new_daemon_sweeps_what_the_last_one_left() {
    let Some(mut ground) = Ground::new("sweep") else { return };
    let mut left: Vec<Child> = (0..3).map(|_| sleeper()).collect();
    for child in &left {
        ground.branch().leaf(LeafLimits::default()).unwrap().add(child.id()).unwrap();
    }
    ground.branch().leaf(LeafLimits::default()).unwrap();
    assert_eq!(ground.delegation.sweep().unwrap(), 0, "nothing of a daemon that lives is touched");
    assert!(left.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
    ground.kill_daemon();
    let mut next = sleeper();
    let branch = ground.delegation.settle(next.id()).unwrap();
    for child in &mut left {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    // The kernel tells of a death before the group is free of the dead.
    assert!(eventually(|| ground.delegation.sweep().unwrap() == 0 && !ground.branch_path().exists()));
    next.kill().unwrap();
    next.wait().unwrap();
    drop(branch);
}

#[test]
fn the_daemon_settles_in_a_leaf_of_its_own_and_leaves_nothing_when_it_goes() {
    let Some(mut ground) = Ground::new("settle") else { return };
    let branch = ground.branch_path();
    let daemon = ground.daemon.id().to_string();
    let members = |path: PathBuf| std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
    assert_eq!(members(branch.join("daemon")).trim(), daemon);
    ground.branch().leaf(LeafLimits::default()).unwrap();
    let shares_out = ground.branch().lacks().count() < 2;
    drop(ground.branch.take());
    if shares_out {
        not_checked(format_args!(
            "the way back of a daemon whose group shares out controllers: there is none"
        ));
    } else {
        assert!(!branch.exists());
        assert_eq!(members(ground.path.clone()).trim(), daemon);
    }
}

#[test]
fn limits_hold_where_their_controllers_are_delegated() {
    let Some(ground) = Ground::new("limits") else { return };
    let lacks: Vec<_> = ground.branch().lacks().collect();
    let leaf = ground.branch().leaf(LeafLimits { memory: Some(64 << 20), tasks: Some(8) }).unwrap();
    assert_eq!(leaf.limits_memory(), !lacks.contains(&"memory"));
    if leaf.limits_memory() {
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
    if lacks.contains(&"pids") {
        not_checked(format_args!("the task limit of a control group: the controller is not delegated here"));
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; for i in $(seq 20); do sleep 600 & done; wait"]);
        let mut bomb = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        leaf.add(bomb.id()).unwrap();
        drop(bomb.stdin.take());
        assert!(eventually(|| leaf.events().unwrap().refused_tasks > 0));
        leaf.kill().unwrap();
        bomb.wait().unwrap();
    }
    assert!(eventually(|| leaf.remove().is_ok()));
}
