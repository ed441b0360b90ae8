//! Runs one child process to its end, within a deadline, and keeps the end of what it printed.
//!
//! The child leads a process group of its own, and past the deadline, on cancellation or on a panic the whole group is
//! killed, so nothing that it started goes on. No shell, no standard input.

use std::io::{self, PipeReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a running child is looked at: short enough for a smooth progress bar and an unnoticeable wait.
const TICK: Duration = Duration::from_millis(10);

/// How often the output is looked at, a millisecond apart, that a process which outlives the child keeps open, before the rest
/// of it is given up. Looks and not a time, so that a machine which stands still meanwhile takes none of it.
const OUTPUT_LOOKS: u32 = 500;

/// Bytes of output kept. The end is what says why a package tool failed; a tool that floods costs no memory.
const OUTPUT_KEPT: usize = 16 * 1024;

/// When to give up.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    pub(crate) deadline: Instant,
    pub(crate) cancel: &'a AtomicBool,
}

/// Why something was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    TimedOut,
    Cancelled,
}

impl Until<'_> {
    pub(crate) fn check(&self) -> Result<(), GivenUp> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(GivenUp::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(GivenUp::TimedOut)
        } else {
            Ok(())
        }
    }
}

/// How a child ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The end of what it wrote to standard output and standard error, in the order in which it came.
    pub(crate) output: String,
}

pub(crate) enum RunError {
    Start(io::Error),
    GivenUp(GivenUp),
}

/// Runs `command` and calls `tick` while it runs.
pub(crate) fn run(
    mut command: Command,
    until: Until<'_>,
    tick: &mut dyn FnMut(),
) -> Result<Finished, RunError> {
    let (reader, writer) = io::pipe().map_err(RunError::Start)?;
    let errors = writer.try_clone().map_err(RunError::Start)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut group = Group::start(&mut command, until)?;
    // The command holds the write ends; without them the reader sees the end of the output.
    drop(command);
    let output = Output::collect(reader);
    loop {
        if let Some(status) = group.ended().map_err(RunError::Start)? {
            return Ok(Finished { status, output: output.end() });
        }
        until.check().map_err(RunError::GivenUp)?;
        tick();
        thread::sleep(TICK);
    }
}

/// A child and everything in its process group; dropped before the child has ended, all of it is killed.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    fn start(command: &mut Command, until: Until<'_>) -> Result<Self, RunError> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        loop {
            match command.spawn() {
                Ok(child) => return Ok(Self { child, ended: false }),
                // A file written a moment ago: another thread's fork still holds the descriptor, until its exec.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && until.check().is_ok() => {
                    thread::sleep(TICK);
                }
                Err(error) => return Err(RunError::Start(error)),
            }
        }
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.ended = status.is_some();
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The child has not been reaped, so its number still means this group and no other.
        #[cfg(unix)]
        if let Some(leader) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
            && let Err(error) = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)
        {
            tracing::warn!(pid = leader.as_raw_nonzero(), %error, "cannot kill the process group");
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!(pid = self.child.id(), %error, "cannot reap the child");
        }
    }
}

/// The output of a child, read by a thread of its own so that the child never blocks on a full pipe.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn collect(mut from: PipeReader) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let kept = Arc::clone(&kept);
            move || {
                let mut chunk = [0; 4096];
                while let Ok(count @ 1..) = from.read(&mut chunk) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(&chunk[..count]);
                    let excess = kept.len().saturating_sub(OUTPUT_KEPT);
                    kept.drain(..excess);
                }
            }
        });
        Self { kept, reader }
    }

    /// What the child printed. A process that left the child's group can keep the pipe open for ever; the thread then ends with it.
    fn end(self) -> String {
        for _ in 0..OUTPUT_LOOKS {
            if self.reader.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn run_within(limit: Duration, script: &str) -> Result<Finished, RunError> {
        let cancel = AtomicBool::new(false);
        run(shell(script), Until { deadline: Instant::now() + limit, cancel: &cancel }, &mut || {})
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn keeps_both_streams_in_order_and_gives_no_input() {
        let Ok(finished) = run_within(LONG, "cat; echo one; echo two >&2; echo three; exit 3") else {
            panic!()
        };
        assert_eq!((finished.output.as_str(), finished.status.code()), ("one\ntwo\nthree\n", Some(3)));
    }

    #[test]
    fn a_flood_of_output_neither_blocks_nor_costs_memory() {
        let Ok(finished) = run_within(LONG, "head -c 3000000 /dev/zero; echo; echo the end") else {
            panic!()
        };
        assert_eq!(finished.output.len(), OUTPUT_KEPT);
        assert!(finished.output.ends_with("\nthe end\n"));
    }

    #[test]
    fn a_deadline_and_cancellation_end_what_hangs() {
        let timed_out = run_within(Duration::from_millis(50), "sleep 1000");
        assert!(matches!(timed_out, Err(RunError::GivenUp(GivenUp::TimedOut))));
        let cancel = AtomicBool::new(false);
        let until = Until { deadline: Instant::now() + LONG, cancel: &cancel };
        let cancelled = run(shell("sleep 1000"), until, &mut || cancel.store(true, Ordering::Relaxed));
        assert!(matches!(cancelled, Err(RunError::GivenUp(GivenUp::Cancelled))));
    }

    #[test]
    fn a_process_left_behind_with_the_output_does_not_hold_up_the_result() {
        let started = Instant::now();
        let Ok(finished) = run_within(LONG, "sleep 1000 & echo $!") else { panic!() };
        assert!(started.elapsed() < LONG);
        let left_behind = rustix::process::Pid::from_raw(finished.output.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(left_behind, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_program_that_is_still_open_for_writing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::copy("/bin/sh", &program).unwrap();
        let held = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
        let run_for = |limit| {
            let mut command = Command::new(&program);
            command.args(["-c", "exit 0"]);
            let cancel = AtomicBool::new(false);
            run(command, Until { deadline: Instant::now() + limit, cancel: &cancel }, &mut || {})
        };
        let limit = Duration::from_millis(50);
        let started = Instant::now();
        let Err(RunError::Start(error)) = run_for(limit) else { panic!() };
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        assert!(started.elapsed() >= limit);
        drop(held);
        assert!(matches!(run_for(LONG), Ok(finished) if finished.status.success()));
    }

    #[test]
    fn a_program_that_is_not_there_cannot_be_started() {
        let cancel = AtomicBool::new(false);
        let until = Until { deadline: Instant::now() + LONG, cancel: &cancel };
        let Err(RunError::Start(error)) = run(Command::new("/nonexistent/program"), until, &mut || {}) else {
            panic!()
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
