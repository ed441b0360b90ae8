//! What a daemon holds at a moment: after any number of faults it must be what it was before them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::home::Home;
use crate::wait::wait_for;

/// How long what is no longer needed may take to go: an unused thread of tokio waits ten seconds for more work, and a server
/// whose calls are over is asked twice before it is killed.
const SETTLE_TIME: Duration = Duration::from_secs(40);

/// How much more memory of its own a daemon may have than at the start, in percent.
const DRIFT_PERCENT: u64 = 5;

/// The same in bytes where that is more: one arena of the allocator, or one thread's stack. In a long storm a leak is far more.
const DRIFT_BYTES: u64 = 1 << 20;

/// What the daemon knows of servers, one file that is written now and then.
const KEPT: &str = "learnt.json";

/// Counts of everything that could pile up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub threads: usize,
    /// Every process of the home: daemon, shims, workers, servers and what they start.
    pub processes: usize,
    /// Control groups for single workers, where the daemon has its own.
    pub cgroups: usize,
    /// Files of the home but logs, the workspace and [`KEPT`], with their sizes; the workers' DENO_DIR and temporary files
    /// among them.
    pub files: BTreeMap<PathBuf, u64>,
    /// Memory that is the daemon's alone, bytes.
    pub memory: u64,
}

impl Held {
    pub fn of(daemon: &Daemon) -> Self {
        let home = daemon.home();
        Self {
            descriptors: daemon.descriptors(),
            threads: daemon.threads(),
            processes: home.processes().into_iter().filter(|process| !process.is_zombie()).count()
                + daemon.children().iter().filter(|child| child.is_zombie()).count(),
            cgroups: leaves(daemon.pid()),
            files: files(home),
            memory: memory(daemon.pid()),
        }
    }

    /// Waits until nothing is held that was not held then.
    ///
    /// # Panics
    /// Something still is.
    #[track_caller]
    pub fn is_back(&self, daemon: &Daemon, what: &str) {
        wait_for(&format!("{what}: everything is as at the start"), SETTLE_TIME, || {
            let now = Self::of(daemon);
            if now.is_within(self) {
                Ok(())
            } else {
                Err(format!("{now}\nat the start {self}\n{}", self.news(&now)))
            }
        });
    }

    /// Fewer than before are none left behind: at the first look something may just have been closing.
    fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.processes <= before.processes
            && self.cgroups <= before.cgroups
            && self.files.keys().all(|file| before.files.contains_key(file))
    }

    fn news(&self, now: &Self) -> String {
        let new: Vec<_> = now.files.keys().filter(|file| !self.files.contains_key(*file)).collect();
        format!("new files {new:?}")
    }

    /// # Panics
    /// The daemon has grown by more than the drift that chance explains.
    #[track_caller]
    pub fn has_not_grown(&self, daemon: &Daemon, what: &str) {
        let now = memory(daemon.pid());
        let most = self.memory + DRIFT_BYTES.max(self.memory * DRIFT_PERCENT / 100);
        assert!(now <= most, "{what}: {now} bytes of memory, {} at the start", self.memory);
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, threads, processes, cgroups, files, memory } = self;
        let bytes: u64 = files.values().sum();
        write!(
            f,
            "{descriptors} descriptors, {threads} threads, {processes} processes, {cgroups} cgroups, {} files of {bytes} bytes, \
             {} KiB of memory",
            files.len(),
            memory >> 10
        )
    }
}

/// Control groups that were made for single workers, wherever this daemon's are.
fn leaves(pid: i32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return 0 };
    let own = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    // Its own group may be beside theirs.
    let places = [Some(own.as_path()), own.parent()];
    let entries =
        places.into_iter().flatten().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("worker-")).count()
}

/// `RssAnon` of proc_pid_status(5): without the pages of files, which come and go with the machine's memory.
fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

fn files(home: &Home) -> BTreeMap<PathBuf, u64> {
    let without = ["log", "stderr", "shim-stderr", "ws"].map(|name| home.path(name));
    let mut found = BTreeMap::new();
    let mut left = vec![home.path("")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            match meta.is_dir() {
                _ if without.contains(&path) => {}
                _ if path.ends_with(KEPT) => {}
                true => left.push(path),
                false => drop(found.insert(path, meta.size())),
            }
        }
    }
    found
}
