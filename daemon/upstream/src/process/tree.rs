//! Everything that a server started, found by the mark in its environment.

use std::fs::{self, File};
use std::io::Read as _;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::guard;

/// The variable that carries the mark.
pub(crate) const MARK: &str = "MCP_CONDUCTOR_UPSTREAM";

/// More than most environments have, in bytes.
const USUAL_BYTES: usize = 32 * 1024;

/// Rounds of looking: whoever is killed in one may have started another just before.
const MAX_ROUNDS: usize = 10;

/// Rounds after these, for a process that a busy machine gives no time to show what it carries, and the pause before each.
const LATE_ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Kills every process that carries `mark`, and what those start meanwhile. Blocks for some milliseconds; a thread sees to what
/// takes longer.
pub(crate) fn kill_marked(mark: &str) {
    let entry = format!("{MARK}={mark}");
    if (0..MAX_ROUNDS).any(|_| kill_carriers(entry.as_bytes())) {
        return;
    }
    let later = move || {
        (0..LATE_ROUNDS).any(|_| {
            thread::sleep(PAUSE);
            kill_carriers(entry.as_bytes())
        })
    };
    if let Err(error) = thread::Builder::new().name("upstream-kill".to_owned()).spawn(later) {
        tracing::warn!(%error, "a process of a server may be left");
    }
}

/// One round; true when there was none to kill, and none that could not be told.
fn kill_carriers(entry: &[u8]) -> bool {
    let mut is_over = true;
    for pid in processes() {
        match look(pid, entry) {
            Look::Carries => {
                // ESRCH: it has ended meanwhile.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                is_over = false;
            }
            Look::Unclear => is_over = false,
            Look::CarriesNot => {}
        }
    }
    is_over
}

/// Living processes with exactly this mark.
#[cfg(test)]
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let entry = format!("{MARK}={mark}");
    processes().filter(|pid| look(*pid, entry.as_bytes()) == Look::Carries).collect()
}

/// What a process shows of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Carries,
    /// It shows another one or none, or is another user's.
    CarriesNot,
    /// It is becoming another program, and shows none for a moment.
    Unclear,
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

fn look(pid: i32, entry: &[u8]) -> Look {
    match environment(pid) {
        None => Look::CarriesNot,
        Some(bytes) if bytes.is_empty() && has_environment(pid) => Look::Unclear,
        Some(bytes) if bytes.split(|&byte| byte == 0).any(|variable| variable == entry) => Look::Carries,
        Some(_) => Look::CarriesNot,
    }
}

/// Whether a process that showed no environment has one by now, or will have: a zombie and a thread of the kernel have no memory,
/// and where one that was started without any variables begins and ends is known.
fn has_environment(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in field 2 may hold anything, so fields count from its closing parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let field = |number: usize| fields.split_whitespace().nth(number - 3).unwrap_or("0");
    let (memory, begin, end) = (field(23), field(50), field(51));
    memory != "0" && (end == "0" || begin != end)
}

/// Whether a process carries the mark of a server that this process has started, as everything does that a server starts
/// and that has not taken it off.
pub fn is_of_a_server(pid: i32) -> bool {
    let start = format!("{MARK}={}-", guard::daemon_mark());
    environment(pid).is_some_and(|bytes| {
        bytes.split(|&byte| byte == 0).any(|variable| variable.starts_with(start.as_bytes()))
    })
}

/// What fits is read at once: between two reads the process may become another program, and the rest is then cut off.
fn environment(pid: i32) -> Option<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut bytes = vec![0; USUAL_BYTES];
    let length = file.read(&mut bytes).ok()?;
    bytes.truncate(length);
    if length == USUAL_BYTES {
        file.read_to_end(&mut bytes).ok()?;
    }
    Some(bytes)
}
