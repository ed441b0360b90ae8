//! A control group per worker: what only the outside can do to a whole tree of processes.
//!
//! A worker that may start programs (`run`) can start one that leaves its session, its group and its parent. Its control
//! group it cannot leave: [`Leaf::kill`] reaches everything in it at once, and its limits hold for all together, where
//! resource limits hold for each. This needs a part of the cgroup v2 tree that is ours: systemd delegates one to a service
//! with `Delegate=yes`; in a plain session there usually is none, and then [`Delegation::of_this_process`] says so.
//!
//! ```text
//! <ours>/                             no process of its own, as the kernel wants it for a group that shares out controllers
//! <ours>/conductor-<pid>-<n>/         a Branch: one daemon and all its workers
//! <ours>/conductor-<pid>-<n>/daemon/  the daemon itself, and the programs it starts beside workers
//! <ours>/conductor-<pid>-<n>/worker-<n>/   a Leaf: one worker and all it starts
//! ```
//!
//! Files of cgroupfs answer at once, but for [`Leaf::add`], which waits until all CPUs have taken notice: some 15 ms. A leaf
//! is removed by its owner once it is empty; those of a daemon that was killed go when the next one settles.

mod own;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const DAEMON: &str = "daemon";
const BRANCH_PREFIX: &str = "conductor-";
const LEAF_PREFIX: &str = "worker-";

/// Those that limit a leaf.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

const PROCESSES: &str = "cgroup.procs";
const SHARED_OUT: &str = "cgroup.subtree_control";
const KILL: &str = "cgroup.kill";

/// How often a branch is made again that another daemon took for one whose owner is gone, before its own had moved in.
const ATTEMPTS: usize = 8;

/// Why a control group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("this system has no cgroup v2 tree")]
    NoTree,
    #[error("the cgroup {} is shared with other programs", path.display())]
    Shared { path: PathBuf },
    #[error("the cgroup {} is not ours to divide", path.display())]
    NotDelegated { path: PathBuf, source: io::Error },
    #[error("this kernel cannot kill a cgroup at once (Linux 5.14)")]
    NoKill,
    #[error("cannot {what} the cgroup {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// A part of the tree that this process may divide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    path: PathBuf,
}

/// The part of one daemon. Dropping it moves the daemon back and removes what is empty.
#[derive(Debug)]
pub struct Branch {
    path: PathBuf,
    /// Where the daemon came from.
    home: PathBuf,
    daemon: u32,
    /// Those of [`CONTROLLERS`] that leaves have.
    controllers: BTreeSet<&'static str>,
    next: AtomicU64,
}

/// Limits of a leaf, over all its processes. Those whose controller was not delegated are not set; see [`Branch::lacks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafLimits {
    /// Bytes, swap excluded: none may be used. When they are not enough the whole leaf is killed, never a part of it.
    pub memory: Option<u64>,
    /// Threads and processes.
    pub tasks: Option<u32>,
}

/// The control group of one worker.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    limits_memory: bool,
}

/// What the kernel has counted in a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Processes are in it.
    pub populated: bool,
    /// Processes killed because the memory limit was reached.
    pub oom_kills: u64,
    /// Times that a process or thread was refused.
    pub refused_tasks: u64,
}

impl Delegation {
    /// The control group of this process, if a child can be made in it.
    ///
    /// A group that holds other programs, too, is theirs as much as ours, and is left alone. Only at the top of the tree
    /// (root in a container or on a machine without a service manager) nobody else divides it.
    ///
    /// # Errors
    /// [`CgroupError::NoTree`], [`CgroupError::Shared`], and those of [`Delegation::at`].
    pub fn of_this_process() -> Result<Self, CgroupError> {
        let own = own::group().ok_or(CgroupError::NoTree)?;
        let own::Own { mut path, top } = own;
        // Started by a daemon that has settled: its neighbour.
        let is_branch = |path: &Path| file_name(path).is_some_and(|name| name.starts_with(BRANCH_PREFIX));
        if path.ends_with(DAEMON)
            && let Some(branch) = path.parent().filter(|parent| is_branch(parent))
        {
            path = branch.parent().unwrap_or(branch).to_owned();
        }
        if path != top && !is_alone_in(&path) {
            return Err(CgroupError::Shared { path });
        }
        Self::at(path)
    }

    /// The control group at `path`, if a child can be made in it.
    ///
    /// # Errors
    /// [`CgroupError::NotDelegated`], [`CgroupError::NoKill`].
    pub fn at(path: PathBuf) -> Result<Self, CgroupError> {
        static TRIALS: AtomicU64 = AtomicU64::new(0);
        let number = TRIALS.fetch_add(1, Ordering::Relaxed);
        let trial = path.join(format!("{BRANCH_PREFIX}trial-{}-{number}", std::process::id()));
        let attempt = fs::create_dir(&trial).and_then(|()| {
            let kills = trial.join(KILL).exists();
            fs::remove_dir(&trial)?;
            Ok(kills)
        });
        match attempt {
            Ok(true) => Ok(Self { path }),
            Ok(false) => Err(CgroupError::NoKill),
            Err(source) => Err(CgroupError::NotDelegated { path, source }),
        }
    }

    /// Makes a branch, moves the process `daemon` into it, and shares out the controllers for limits as far as the tree
    /// above and the other processes here let it. Once, before the daemon starts anything. Removes what daemons that are
    /// gone have left.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn settle(&self, daemon: u32) -> Result<Branch, CgroupError> {
        self.sweep()?;
        let path = self.move_in(daemon)?;
        let controllers = CONTROLLERS
            .into_iter()
            // The daemon is in a leaf now, so that both groups may share out. Whoever else is in ours keeps it from that.
            .filter(|name| [&self.path, &path].into_iter().all(|group| share_out(group, name)))
            .collect();
        Ok(Branch { path, home: self.path.clone(), daemon, controllers, next: AtomicU64::new(0) })
    }

    fn move_in(&self, daemon: u32) -> Result<PathBuf, CgroupError> {
        let mut last = None;
        for number in 0..ATTEMPTS {
            let path = self.path.join(format!("{BRANCH_PREFIX}{daemon}-{number}"));
            let leaf = path.join(DAEMON);
            match make(&path).and_then(|()| make(&leaf)).and_then(|()| move_into(&leaf, daemon)) {
                Ok(()) => return Ok(path),
                Err(error) => last = Some(error),
            }
            // Whatever of it was made.
            fs::remove_dir(&leaf).ok();
            fs::remove_dir(&path).ok();
        }
        Err(last.expect("there was an attempt"))
    }

    /// Kills and removes the leaves of daemons that are gone; tells how many remain because they are not empty yet.
    /// Other programs that such a daemon had started are not touched: they keep the branch until they end.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group cannot be listed.
    pub fn sweep(&self) -> Result<usize, CgroupError> {
        let mut remaining = 0;
        for branch in children(&self.path, BRANCH_PREFIX)?.into_iter().filter(|branch| is_abandoned(branch)) {
            // It may go while it is looked at: another daemon sweeps, too.
            for path in children(&branch, LEAF_PREFIX).unwrap_or_default() {
                let leaf = Leaf { path, limits_memory: false };
                // What cannot be killed or removed now can be the next time.
                let gone = leaf.kill().and_then(|()| leaf.remove());
                remaining += usize::from(gone.is_err());
            }
            fs::remove_dir(branch.join(DAEMON)).ok();
            fs::remove_dir(&branch).ok();
        }
        Ok(remaining)
    }
}

impl Branch {
    /// Makes a leaf. What is asked for and not [lacking](Self::lacks) is set.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn leaf(&self, limits: LeafLimits) -> Result<Leaf, CgroupError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{LEAF_PREFIX}{number}"));
        make(&path)?;
        let limits_memory = self.has("memory") && limits.memory.is_some();
        let leaf = Leaf { path, limits_memory };
        match self.limit(&leaf, limits) {
            Ok(()) => Ok(leaf),
            Err(error) => {
                // Nothing is in it yet, so only a second error could keep it, and the first one says more.
                leaf.remove().ok();
                Err(error)
            }
        }
    }

    /// The limits that leaves cannot have: the controllers that were not delegated.
    pub fn lacks(&self) -> impl Iterator<Item = &'static str> {
        CONTROLLERS.into_iter().filter(|name| !self.has(name))
    }

    /// Whether leaves have any limit at all.
    pub fn has_limits(&self) -> bool {
        !self.controllers.is_empty()
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }

    fn limit(&self, leaf: &Leaf, limits: LeafLimits) -> Result<(), CgroupError> {
        if let (true, Some(bytes)) = (self.has("memory"), limits.memory) {
            write(&leaf.path, "memory.max", &bytes.to_string(), "limit")?;
            write(&leaf.path, "memory.oom.group", "1", "limit")?;
            // Absent where the kernel has no swap to account for.
            if leaf.path.join("memory.swap.max").exists() {
                write(&leaf.path, "memory.swap.max", "0", "limit")?;
            }
        }
        if let (true, Some(tasks)) = (self.has("pids"), limits.tasks) {
            write(&leaf.path, "pids.max", &tasks.to_string(), "limit")?;
        }
        Ok(())
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        // What cannot be removed (systemd's group shares out controllers now, and takes no process back) is removed by
        // the service manager, or when the next daemon settles.
        for path in children(&self.path, LEAF_PREFIX).unwrap_or_default() {
            fs::remove_dir(path).ok();
        }
        let daemon = self.path.join(DAEMON);
        if move_into(&self.home, self.daemon).is_ok() {
            fs::remove_dir(daemon).ok();
            fs::remove_dir(&self.path).ok();
        }
    }
}

impl Leaf {
    /// Whether the kernel keeps its memory within a limit.
    pub fn limits_memory(&self) -> bool {
        self.limits_memory
    }

    /// Moves a process here, with all its threads; what it starts from then on is here, too. Before it runs foreign code.
    /// Takes some milliseconds without using the CPU.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn add(&self, process: u32) -> Result<(), CgroupError> {
        move_into(&self.path, process)
    }

    /// Kills every process in it, however many there are and whatever they do meanwhile.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.path, KILL, "1", "kill")
    }

    /// # Errors
    /// [`CgroupError::Io`].
    pub fn events(&self) -> Result<Events, CgroupError> {
        let read = |file: &str| match fs::read_to_string(self.path.join(file)) {
            // The controller is not here, so it has counted nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            result => result.map_err(|source| failed("read", &self.path, source)),
        };
        Ok(Events {
            populated: field(&read("cgroup.events")?, "populated") == 1,
            oom_kills: field(&read("memory.events")?, "oom_kill"),
            refused_tasks: field(&read("pids.events")?, "max"),
        })
    }

    /// Removes it. Killed processes keep it for a moment more: until then this is an error, and may be called again.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn remove(&self) -> Result<(), CgroupError> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| failed("remove", &self.path, source)),
        }
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> CgroupError {
    CgroupError::Io { what, path: path.to_owned(), source }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir(path).map_err(|source| failed("make", path, source))
}

/// In one write, as the kernel wants it, and to a file that is there: in a tree that goes away meanwhile none is made.
fn write(path: &Path, file: &str, value: &str, what: &'static str) -> Result<(), CgroupError> {
    let opened = fs::OpenOptions::new().write(true).open(path.join(file));
    let written = opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| failed(what, path, source))
}

fn move_into(group: &Path, process: u32) -> Result<(), CgroupError> {
    write(group, PROCESSES, &process.to_string(), "move a process into")
}

/// Gives the children of `group` a controller; false if it has none to give.
fn share_out(group: &Path, controller: &str) -> bool {
    write(group, SHARED_OUT, &format!("+{controller}"), "share out controllers of").is_ok()
}

/// The groups in `group` whose names begin with `prefix`.
fn children(group: &Path, prefix: &str) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = fs::read_dir(group).map_err(|source| failed("list", group, source))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| file_name(path).is_some_and(|name| name.starts_with(prefix))).collect())
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Whether the daemon of a branch, which its name tells, is not in it any more.
fn is_abandoned(branch: &Path) -> bool {
    let name = file_name(branch).and_then(|name| name.strip_prefix(BRANCH_PREFIX)?.split('-').next());
    let daemon = name.and_then(|pid| pid.parse().ok());
    !processes(&branch.join(DAEMON)).any(|process| Some(process) == daemon)
}

fn is_alone_in(group: &Path) -> bool {
    processes(group).all(|process| process == std::process::id())
}

/// The processes of a group itself; none if it is gone.
fn processes(group: &Path) -> impl Iterator<Item = u32> {
    let listed = fs::read_to_string(group.join(PROCESSES)).unwrap_or_default();
    listed.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>().into_iter()
}

/// The number behind `name` in lines of `name number`; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
