//! Everything that a server started, found by the mark in its environment.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::guard;

/// The variable that carries the mark.
pub(crate) const MARK: &str = "MCP_CONDUCTOR_UPSTREAM";

/// Rounds of looking: whoever is killed in one may have started another just before.
const MAX_ROUNDS: usize = 10;

/// Kills every process that carries `mark`, and what those start meanwhile.
pub(crate) fn kill_marked(mark: &str) {
    for _ in 0..MAX_ROUNDS {
        let marked = marked(mark);
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            // ESRCH: it has ended meanwhile.
            kill(pid, Signal::SIGKILL).ok();
        }
    }
}

/// Living processes with exactly this mark. Only our own can be looked at, and only those can be killed.
pub(crate) fn marked(mark: &str) -> Vec<Pid> {
    let entry = format!("{MARK}={mark}");
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| carries(*pid, entry.as_bytes()))
        .map(Pid::from_raw)
        .collect()
}

/// Whether a process carries the mark of a server that this process has started, as everything does that a server starts
/// and that has not taken it off.
pub fn is_of_a_server(pid: i32) -> bool {
    let start = format!("{MARK}={}-", guard::daemon_mark());
    environment(pid).is_some_and(|bytes| {
        bytes.split(|&byte| byte == 0).any(|variable| variable.starts_with(start.as_bytes()))
    })
}

/// A zombie's environment is empty, so it does not count.
fn carries(pid: i32, entry: &[u8]) -> bool {
    environment(pid).is_some_and(|bytes| bytes.split(|&byte| byte == 0).any(|variable| variable == entry))
}

fn environment(pid: i32) -> Option<Vec<u8>> {
    fs::read(PathBuf::from(format!("/proc/{pid}/environ"))).ok()
}
