//! A control group per worker: what only the outside can do to a whole tree of processes.
//!
//! A worker that may start programs (`run`) can start one that leaves its session, its group and its parent. Its control
//! group it cannot leave: [`Leaf::kill`] reaches everything in it at once, and its limits hold for all together, where
//! resource limits hold for each. This needs a part of the cgroup v2 tree that is ours: systemd delegates one to a service
//! with `Delegate=yes`; in a plain session or container there usually is none, and then [`Delegation::of_this_process`] says so.
//!
//! ```text
//! <ours>/              no process of its own, as the kernel wants it for a group that shares out controllers
//! <ours>/daemon/       the daemon itself, moved here by Delegation::settle
//! <ours>/<leaf>/       one worker and all it starts
//! ```
//!
//! Nothing here waits: files of cgroupfs answer at once. A leaf is removed by its owner once it is empty; one that is left
//! behind by a daemon that was killed goes with [`Delegation::sweep`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const DAEMON: &str = "daemon";
const LEAF_PREFIX: &str = "worker-";

/// Why a control group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("this system has no cgroup v2 tree")]
    NoTree,
    #[error(
        "the cgroup {} is not ours to divide\nhint: run the daemon as a systemd service with Delegate=yes",
        path.display()
    )]
    NotDelegated { path: PathBuf, source: io::Error },
    #[error("cannot {what} the cgroup {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// A part of the tree that this process may divide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    path: PathBuf,
    /// Controllers that its children can have: `memory`, `pids`, …
    controllers: BTreeSet<String>,
}

/// Limits of a leaf, over all its processes. Those whose controller was not delegated are not set; see
/// [`Leaf::is_limited`].
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
    limited: bool,
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
    /// # Errors
    /// [`CgroupError::NoTree`], [`CgroupError::NotDelegated`].
    pub fn of_this_process() -> Result<Self, CgroupError> {
        let read = |path| fs::read_to_string(path).map_err(|_| CgroupError::NoTree);
        let (mounts, membership) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let path = own_path(&mounts, &membership).ok_or(CgroupError::NoTree)?;
        // The daemon may already have settled in a leaf of it.
        match path.file_name().is_some_and(|name| name == DAEMON).then(|| path.parent()).flatten() {
            Some(parent) => Self::at(parent.to_owned()),
            None => Self::at(path),
        }
    }

    /// The control group at `path`, if a child can be made in it.
    ///
    /// # Errors
    /// [`CgroupError::NotDelegated`].
    pub fn at(path: PathBuf) -> Result<Self, CgroupError> {
        let attempt = || {
            let controllers = fs::read_to_string(path.join("cgroup.controllers"))?;
            let trial = path.join(format!("{LEAF_PREFIX}trial-{}", std::process::id()));
            fs::create_dir(&trial)?;
            fs::remove_dir(&trial)?;
            Ok(controllers.split_whitespace().map(str::to_owned).collect())
        };
        match attempt() {
            Ok(controllers) => Ok(Self { path, controllers }),
            Err(source) => Err(CgroupError::NotDelegated { path, source }),
        }
    }

    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }

    /// Moves the process `daemon` into a leaf of its own and shares out the controllers for limits. Once, before the first
    /// worker's leaf.
    ///
    /// # Errors
    /// [`CgroupError::Io`], also when another process stays in the group: the kernel then refuses to share controllers out.
    pub fn settle(&self, daemon: u32) -> Result<(), CgroupError> {
        let leaf = self.path.join(DAEMON);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Io { what: "make", path: leaf, source: error });
            }
            _ => {}
        }
        write(&leaf, "cgroup.procs", &daemon.to_string(), "move the daemon into")?;
        for controller in ["memory", "pids"].into_iter().filter(|controller| self.has(controller)) {
            write(
                &self.path,
                "cgroup.subtree_control",
                &format!("+{controller}"),
                "share out controllers of",
            )?;
        }
        Ok(())
    }

    /// Makes the leaf `worker-<name>`. A limit that is asked for and cannot be set is an error only if its controller was
    /// delegated.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn leaf(&self, name: &str, limits: LeafLimits) -> Result<Leaf, CgroupError> {
        let path = self.path.join(format!("{LEAF_PREFIX}{name}"));
        fs::create_dir(&path).map_err(|source| CgroupError::Io {
            what: "make",
            path: path.clone(),
            source,
        })?;
        let mut leaf = Leaf { path, limited: true };
        match self.limit(&mut leaf, limits) {
            Ok(()) => Ok(leaf),
            Err(error) => {
                // Nothing is in it yet, so only a second error could keep it, and the first one says more.
                leaf.remove().ok();
                Err(error)
            }
        }
    }

    fn limit(&self, leaf: &mut Leaf, limits: LeafLimits) -> Result<(), CgroupError> {
        let mut settings = Vec::new();
        if let Some(bytes) = limits.memory {
            settings.push(("memory", "memory.max", bytes.to_string()));
            settings.push(("memory", "memory.oom.group", "1".to_owned()));
            // Absent where the kernel has no swap to account for.
            if leaf.path.join("memory.swap.max").exists() {
                settings.push(("memory", "memory.swap.max", "0".to_owned()));
            }
        }
        if let Some(tasks) = limits.tasks {
            settings.push(("pids", "pids.max", tasks.to_string()));
        }
        for (controller, file, value) in settings {
            if self.has(controller) {
                write(&leaf.path, file, &value, "limit")?;
            } else {
                leaf.limited = false;
            }
        }
        Ok(())
    }

    /// Kills and removes the leaves of a daemon that is gone; tells how many remain because they are not empty yet.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group cannot be listed.
    pub fn sweep(&self) -> Result<usize, CgroupError> {
        let entries = fs::read_dir(&self.path).map_err(|source| CgroupError::Io {
            what: "list",
            path: self.path.clone(),
            source,
        })?;
        let mut remaining = 0;
        for entry in entries.flatten().filter(|entry| is_leaf(&entry.path())) {
            let leaf = Leaf { path: entry.path(), limited: true };
            // What cannot be killed or removed now can be the next time.
            let gone = leaf.kill().and_then(|()| leaf.remove());
            remaining += usize::from(gone.is_err());
        }
        Ok(remaining)
    }
}

impl Leaf {
    /// Whether every limit that was asked for is set.
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Moves a process here, with all its threads; what it starts from then on is here, too. Before it runs foreign code.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn add(&self, process: u32) -> Result<(), CgroupError> {
        write(&self.path, "cgroup.procs", &process.to_string(), "add a process to")
    }

    /// Kills every process in it, however many there are and whatever they do meanwhile (Linux 5.14).
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.path, "cgroup.kill", "1", "kill")
    }

    /// # Errors
    /// [`CgroupError::Io`].
    pub fn events(&self) -> Result<Events, CgroupError> {
        let read = |file: &str| match fs::read_to_string(self.path.join(file)) {
            // The controller is not here, so it has counted nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            result => {
                result.map_err(|source| CgroupError::Io { what: "read", path: self.path.clone(), source })
            }
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
            result => {
                result.map_err(|source| CgroupError::Io { what: "remove", path: self.path.clone(), source })
            }
        }
    }
}

fn write(path: &Path, file: &str, value: &str, what: &'static str) -> Result<(), CgroupError> {
    fs::write(path.join(file), value).map_err(|source| CgroupError::Io {
        what,
        path: path.to_owned(),
        source,
    })
}

fn is_leaf(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LEAF_PREFIX))
}

/// Where the cgroup v2 group named in `/proc/self/cgroup` is, by `/proc/self/mountinfo`.
fn own_path(mounts: &str, membership: &str) -> Option<PathBuf> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        // In a container only a part of the tree is mounted, and the group may lie outside it.
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(if below.as_os_str().is_empty() { point.into() } else { Path::new(point).join(below) })
    })
}

/// The number behind `name` in lines of `name number`; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
        39 31 0:36 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_among_the_mounts() {
        let service = "1:cpu:/\n0::/user.slice/app.slice/conductor.service\n";
        let table = [
            (HYBRID, "1:cpu:/\n0::/\n", Some("/sys/fs/cgroup/unified")),
            (HYBRID, service, Some("/sys/fs/cgroup/unified/user.slice/app.slice/conductor.service")),
            (
                "30 1 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup ro\n",
                "0::/docker/7/a\n",
                Some("/sys/fs/cgroup/a"),
            ),
            ("30 1 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup ro\n", "0::/\n", None),
            (HYBRID, "1:cpu:/\n", None),
            ("24 1 0:22 / /sys rw - sysfs sysfs rw\n", "0::/\n", None),
            ("garbage\n\n", "0::/\n", None),
        ];
        for (mounts, membership, expected) in table {
            assert_eq!(own_path(mounts, membership), expected.map(PathBuf::from), "{membership:?}");
        }
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((field(events, "oom_kill"), field(events, "oom"), field(events, "max")), (2, 3, 0));
        assert_eq!((field("", "populated"), field("populated x\n", "populated")), (0, 0));
    }

    #[test]
    fn what_is_no_control_group_is_not_delegated() {
        let dir = tempfile::tempdir().unwrap();
        let error = Delegation::at(dir.path().to_owned()).unwrap_err();
        assert!(matches!(error, CgroupError::NotDelegated { .. }), "{error}");
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
}
