//! What the kernel counts of processes.

use std::fs;
use std::time::Duration;

use crate::Process;

/// Counts of one process from its start on.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// Page faults that took no disk.
    pub(super) faults: u64,
    pub(super) cpu: Duration,
    /// The same of its children that have ended and were waited for.
    pub(super) faults_of_children: u64,
    pub(super) cpu_of_children: Duration,
}

impl Counts {
    /// `None` when it is gone.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything; the first of `fields` is the third: proc_pid_stat(5).
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
        // Ticks of /proc are hundredths of a second on every Linux that Rust supports.
        let time = |user, system| Some(Duration::from_millis((number(user)? + number(system)?) * 10));
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            faults: number(10)?,
            cpu: time(14, 15)?,
            faults_of_children: number(11)?,
            cpu_of_children: time(16, 17)?,
        })
    }

    /// Of this process and everything that it has started, directly or not.
    pub(super) fn of_tree(root: i32) -> Vec<Self> {
        let all: Vec<Self> = Process::all().iter().filter_map(|process| Self::of(process.pid)).collect();
        let mut tree: Vec<Self> = all.iter().filter(|counts| counts.pid == root).cloned().collect();
        let mut next = 0;
        while let Some(parent) = tree.get(next).map(|counts| counts.pid) {
            tree.extend(all.iter().filter(|counts| counts.parent == parent).cloned());
            next += 1;
        }
        tree
    }

    pub(super) fn all_cpu(&self) -> Duration {
        self.cpu + self.cpu_of_children
    }
}

/// CPU time of the main thread, finer than ticks. All there is, for a process that has one thread.
pub(super) fn cpu_of_main_thread(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The sum of these fields of a file of `/proc/PID`, which counts in kB.
pub(super) fn mebibytes(pid: i32, file: &str, fields: &[&str]) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process is there");
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kb = value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<f64>().ok());
        kb.unwrap_or_else(|| panic!("no {name} in /proc/{pid}/{file}")) / 1024.0
    };
    fields.iter().map(|name| field(name)).sum()
}
