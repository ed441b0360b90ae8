//! Processes as `/proc` shows them.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process at the time it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// Field 22 of `/proc/PID/stat`: with the pid it names one process for ever.
    pub start_ticks: u64,
    /// `R`, `S`, `T`, `Z` and so on.
    pub state: char,
    /// Arguments, separated by spaces; empty for a zombie.
    pub command: String,
    environment: Vec<u8>,
}

impl Process {
    /// The process with this pid, unless it is gone.
    pub fn get(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything; the state is the field after it: proc_pid_stat(5).
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
            environment: fs::read(format!("/proc/{pid}/environ")).unwrap_or_default(),
        })
    }

    /// Every process that can be seen.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("Linux has /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::get).collect()
    }

    /// True when the command line or the environment holds `path`.
    pub fn names(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        holds(self.command.as_bytes(), path) || holds(&self.environment, path)
    }

    /// True for a Deno of ours, from its launcher on: its cache lies below `path`.
    pub fn is_worker_below(&self, path: &Path) -> bool {
        holds(&self.environment, &[b"DENO_DIR=", path.as_os_str().as_bytes()].concat())
    }

    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    /// True while this very process is there, even as a zombie.
    pub fn exists(&self) -> bool {
        Self::get(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks)
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: Signal) {
        if self.exists() {
            // It may have ended in between.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }
}

/// Clock ticks since the machine booted, as [`Process::start_ticks`] counts them.
///
/// # Panics
/// This is no Linux.
pub fn now_ticks() -> u64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let uptime = fs::read_to_string("/proc/uptime").expect("Linux has it");
    let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time since the start is small and positive"
    )]
    let ticks = (seconds * TICKS_PER_SECOND) as u64;
    ticks
}

/// Open descriptors of a process; none when it is gone.
///
/// # Panics
/// It is one that nobody but root may look into, as a daemon is: [`crate::Daemon::descriptors`] asks it instead.
pub fn descriptors(pid: i32) -> usize {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            panic!("the descriptors of process {pid} cannot be counted: {error}")
        }
        Err(_) => 0,
    }
}

/// Threads of a process; none when it is gone.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
