//! Starts the fetching process, reads what it says, and leaves nothing of it behind.
//!
//! A thread of its own starts the process, because two things hang on the thread that does: Linux kills the process when
//! that thread ends (`PR_SET_PDEATHSIG`, prctl(2)), so a daemon that dies takes it along; and a Landlock domain that the
//! thread enters binds the process and nothing else of the daemon (landlock(7)).

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot};

/// Lines on their way to the reader. A reader that is behind slows Deno down, by its full pipe.
const LINES: usize = 64;

/// Bytes of one line that are read; what follows is taken for the next line.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// Between looks at a process that has closed its output and not ended yet.
const TICK: Duration = Duration::from_millis(5);

/// Runs `command` to its end and gives every line that it prints on standard error to `line`. It can write below `writable`
/// only, where the kernel has Landlock.
///
/// # Cancel safety
/// Dropping the future kills the process group.
pub(super) async fn run(
    command: Command,
    writable: &Path,
    mut line: impl FnMut(&str),
) -> io::Result<ExitStatus> {
    let group = Arc::new(Group::default());
    let _killer = Killer(Arc::clone(&group));
    let (lines, mut printed) = mpsc::channel(LINES);
    let (ended, end) = oneshot::channel();
    let writable = writable.to_owned();
    thread::Builder::new().name("package-fetch".to_owned()).spawn(move || {
        // receiver gone: the caller gave up, and the group was killed
        let _given_up = ended.send(group.run(command, writable, &lines)).is_err();
    })?;
    while let Some(text) = printed.recv().await {
        line(&text);
    }
    end.await.map_err(io::Error::other)?
}

/// Kills the group when the one who waits for it goes away.
struct Killer(Arc<Group>);

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.kill();
    }
}

#[derive(Default)]
struct Group {
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    NotStarted,
    Running(Child),
    Ended,
}

impl Group {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(
        &self,
        mut command: Command,
        writable: PathBuf,
        lines: &mpsc::Sender<String>,
    ) -> io::Result<ExitStatus> {
        confine(&writable);
        die_with_this_thread(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = {
            let mut state = self.lock();
            if matches!(*state, State::Ended) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut child = command.spawn()?;
            let output = child.stderr.take();
            *state = State::Running(child);
            output.ok_or_else(|| io::Error::other("the process has no standard error"))?
        };
        read_lines(&mut child, lines);
        self.wait()
    }

    /// Waits without holding the lock, so that the group can be killed meanwhile; and reaps under it, so that a killer
    /// never names a process number that means somebody else by now.
    fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            {
                let mut state = self.lock();
                let State::Running(child) = &mut *state else {
                    return Err(io::ErrorKind::Interrupted.into());
                };
                if let Some(status) = child.try_wait()? {
                    *state = State::Ended;
                    return Ok(status);
                }
            }
            thread::sleep(TICK);
        }
    }

    fn kill(&self) {
        let mut state = self.lock();
        match &mut *state {
            State::NotStarted => *state = State::Ended,
            State::Running(child) => {
                let group = Pid::from_raw(child.id().cast_signed());
                if let Err(error) = killpg(group, Signal::SIGKILL) {
                    tracing::warn!(%group, %error, "cannot kill the fetching process");
                }
            }
            State::Ended => {}
        }
    }
}

fn read_lines(output: &mut impl io::Read, lines: &mpsc::Sender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = output.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        // receiver gone: go on reading, so that the process ends by the signal and not by its pipe
        let _given_up = lines.blocking_send(text).is_err();
    }
}

/// Holds this thread, and what it starts from now on, to writing below `writable`.
#[cfg(target_os = "linux")]
fn confine(writable: &Path) {
    use landlock::{ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, path_beneath_rules};

    let writes = AccessFs::from_write(ABI::V3);
    let confined = Ruleset::default()
        .handle_access(writes)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules([writable], writes)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile)))
        .and_then(landlock::RulesetCreated::restrict_self);
    if let Err(error) = confined {
        tracing::debug!(%error, "packages are fetched without Landlock");
    }
}

#[cfg(not(target_os = "linux"))]
fn confine(_writable: &Path) {}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no safe way to run code between fork and exec")]
fn die_with_this_thread(command: &mut Command) {
    // SAFETY: the closure makes one system call and touches no memory, lock or allocator, which is what is allowed in the
    // child of a process with threads (fork(2), signal-safety(7)).
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_thread(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_the_end_is_known() {
        let mut lines = Vec::new();
        let place = tempfile::tempdir().unwrap();
        let script = "echo one >&2; echo ignored; printf 'two' >&2; exit 3";
        let status = run(shell(script), place.path(), |line| lines.push(line.to_owned())).await.unwrap();
        assert_eq!((lines, status.code()), (vec!["one".to_owned(), "two".to_owned()], Some(3)));
        assert!(run(Command::new("/nonexistent"), place.path(), |_| {}).await.is_err());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn nothing_can_be_written_outside_the_staging_directory() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("there"), "").unwrap();
        let attempts =
            ["echo x > new", "echo x >> there", "rm there", "mkdir dir", "ln -s x link", "mv there gone"];
        for attempt in attempts {
            for (place, may) in [(inside.path(), true), (outside.path(), false)] {
                std::fs::write(place.join("there"), "").unwrap();
                let mut command = shell(attempt);
                command.current_dir(place);
                let status = run(command, inside.path(), |_| {}).await.unwrap();
                assert_eq!(status.success(), may, "{attempt}");
            }
        }
        // Only the thread that started the process was confined.
        std::fs::write(outside.path().join("new"), "").unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_leaves_takes_the_whole_group_along() {
        let place = tempfile::tempdir().unwrap();
        let (seen, started) = oneshot::channel();
        let path = place.path().to_owned();
        let task = tokio::spawn(async move {
            let mut seen = Some(seen);
            run(shell("sleep 1000 & echo $! >&2; wait"), &path, |line| {
                seen.take().unwrap().send(line.parse::<i32>().unwrap()).unwrap();
            })
            .await
        });
        let grandchild = Pid::from_raw(started.await.unwrap());
        task.abort();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        // A zombie that nobody in this container reaps is dead, too.
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
        };
        while is_alive() {
            assert!(std::time::Instant::now() < deadline, "the grandchild lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
