//! What calls cost the machine: CPU time when there is always another call waiting, and memory.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::bed::Bed;
use super::report::{Report, Unit};
use super::session::Session;

/// Calls that each session keeps under way: enough that no worker waits for a client.
const IN_FLIGHT: usize = 4;

/// Calls, or runs, of each caller in one turn.
const TURN: usize = 25;

/// Sizes at rest, with two profiles and all their idle workers.
pub(super) fn memory(bed: &Bed, report: &mut Report) {
    let mut sessions = [bed.session(), bed.session_of_new_profile("second")];
    for session in &mut sessions {
        session.call("1 + 1");
    }
    bed.settle();
    let shim = mebibytes(sessions[0].pid(), "status", "VmRSS");
    report.budgeted("shim, RSS", shim, Unit::Mebibytes, 4.0);
    report.budgeted("shim, file", file_mebibytes(&bed.shim), Unit::Mebibytes, 1.0);
    report.budgeted("daemon, RSS", mebibytes(bed.daemon_pid(), "status", "VmRSS"), Unit::Mebibytes, 20.0);
    let workers = bed.home.workers();
    let shares: Vec<f64> =
        workers.iter().map(|worker| mebibytes(worker.pid, "smaps_rollup", "Pss")).collect();
    let name = format!("idle worker, PSS with {} idle", shares.len());
    report.budgeted(&name, shares.iter().sum::<f64>() / number(shares.len()), Unit::Mebibytes, 22.0);
}

/// The daemon's size after everything else.
pub(super) fn after(bed: &Bed, report: &mut Report) {
    bed.settle();
    let rss = mebibytes(bed.daemon_pid(), "status", "VmRSS");
    report.budgeted("daemon, RSS after all calls", rss, Unit::Mebibytes, 20.0);
}

/// CPU time and rate of calls while all CPUs are busy, against those of `deno run` with an empty script.
pub(super) fn saturation(bed: &Bed, turns: usize, report: &mut Report) {
    let callers = thread::available_parallelism().map_or(1, usize::from);
    let empty = bed.cold.script("empty.js", "");
    let mut sessions: Vec<Session> = (0..callers).map(|_| bed.session()).collect();
    let (mut calls, mut runs) = (Cost::default(), Cost::default());
    for _ in 0..turns {
        bed.wait_until_quiet();
        runs.add(children_cpu, || {
            in_parallel(vec![(); callers], |()| {
                (0..TURN).for_each(|_| {
                    bed.cold.run(&empty);
                })
            })
        });
        let shims: Vec<i32> = sessions.iter().map(Session::pid).collect();
        // Idle workers have cost the same before and after; those in between have ended and count for the daemon.
        let cpu = || {
            bed.wait_until_quiet();
            shims.iter().chain([&bed.daemon_pid()]).map(|pid| cpu_time(*pid)).sum()
        };
        calls.add(cpu, || in_parallel(sessions.iter_mut().collect(), keep_busy));
    }
    let n = number(turns * callers * TURN);
    let milliseconds = |cost: &Cost| cost.cpu.as_secs_f64() * 1e3 / n;
    report.figure("deno run of an empty script, CPU", milliseconds(&runs), Unit::Milliseconds);
    report.figure("call, CPU of all processes", milliseconds(&calls), Unit::Milliseconds);
    let ratio = milliseconds(&calls) / milliseconds(&runs);
    report.budgeted("call / deno run of an empty script, CPU", ratio, Unit::Times, 1.3);
    report.figure("deno run of an empty script, rate", n / runs.wall.as_secs_f64(), Unit::PerSecond);
    report.figure("call, rate", n / calls.wall.as_secs_f64(), Unit::PerSecond);
}

/// What several turns took together.
#[derive(Debug, Default)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

impl Cost {
    fn add(&mut self, cpu: impl Fn() -> Duration, turn: impl FnOnce()) {
        let before = cpu();
        let started = Instant::now();
        turn();
        self.wall += started.elapsed();
        self.cpu += cpu().saturating_sub(before);
    }
}

fn in_parallel<T: Send>(callers: Vec<T>, turn: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for caller in callers {
            scope.spawn(|| turn(caller));
        }
    });
}

/// One session's turn: the next call leaves when an answer comes.
fn keep_busy(session: &mut Session) {
    for sent in 0..TURN + IN_FLIGHT {
        if sent >= IN_FLIGHT {
            session.next();
        }
        if sent < TURN {
            session.start("1 + 1");
        }
    }
}

/// CPU time of this program's children that have ended.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a valid question");
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.unsigned_abs())
}

/// CPU time of a process and of all its children that have ended.
fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses: proc_pid_stat(5)");
    // After the name comes field 3; 14 to 17 are utime, stime, cutime and cstime.
    let times = fields.split_ascii_whitespace().skip(11).take(4);
    let ticks: u64 = times.filter_map(|field| field.parse::<u64>().ok()).sum();
    // Ticks of /proc are hundredths of a second on every Linux that Rust supports.
    Duration::from_millis(ticks * 10)
}

/// This field of a file of `/proc/PID`, which counts in kB.
fn mebibytes(pid: i32, file: &str, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process is there");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kb = value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or_else(|| panic!("no {field} in /proc/{pid}/{file}")) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "files are small")]
fn file_mebibytes(path: &Path) -> f64 {
    fs::metadata(path).expect("the program is there").len() as f64 / (1024.0 * 1024.0)
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("counts are small"))
}
