//! Processes of stdio servers: started so that they end with the daemon, and ended whole.
//!
//! A server is the leader of a session and process group of its own. What it starts may leave that group, so a server and
//! everything below it also carry a mark in their environment, by which they are found whatever became of their parents.
//! Ending: stdin is closed, then SIGTERM to the group, then SIGKILL to all of them, with bounded times between.
//!
//! A dead daemon leaves no server: the kernel kills the leader (`PR_SET_PDEATHSIG`, armed in a thread that never ends,
//! because it follows the thread that started the process), and a guard, which reads a pipe that only the daemon holds
//! open, kills everything that carries the daemon's mark.

mod guard;
mod spawn;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::timeout;

pub(crate) use crate::process::spawn::{Launch, new_mark, new_session};
pub use crate::process::tree::is_of_a_server;

/// How long a server may take to end after its stdin was closed. Most do so at once.
const AFTER_EOF: Duration = Duration::from_secs(2);

/// How long it may take after SIGTERM.
const AFTER_TERM: Duration = Duration::from_secs(2);

/// A running server process. Dropping it kills the whole tree.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    group: Group,
    mark: String,
}

/// Its ends of the pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// A process group that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl ServerProcess {
    /// # Errors
    /// The program cannot be started.
    ///
    /// # Cancel safety
    /// A process that nobody waits for any more is killed.
    pub(crate) async fn start(launch: Launch) -> io::Result<(Self, Pipes)> {
        let mark = launch.mark.clone();
        let mut child = launch.run().await?;
        let group = Group::of(&child);
        let pipe = || io::Error::other("a pipe of the process is missing");
        let pipes = Pipes {
            stdin: child.stdin.take().ok_or_else(pipe)?,
            stdout: child.stdout.take().ok_or_else(pipe)?,
            stderr: child.stderr.take().ok_or_else(pipe)?,
        };
        Ok((Self { child, group, mark }, pipes))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.group.0.and_then(|pid| u32::try_from(pid.as_raw()).ok())
    }

    /// Waits until the leader ends.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the whole tree: waits after stdin was closed, asks, kills. Gives how the leader ended.
    ///
    /// # Cancel safety
    /// Dropped before its end it kills at once.
    pub(crate) async fn end(mut self) -> Option<ExitStatus> {
        if timeout(AFTER_EOF, self.child.wait()).await.is_err() {
            self.group.signal(Signal::SIGTERM);
            timeout(AFTER_TERM, self.child.wait()).await.ok();
        }
        self.kill();
        self.child.wait().await.ok()
    }

    fn kill(&mut self) {
        self.group.kill();
        tree::kill_marked(&self.mark);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Group {
    /// The group that `child` leads; it must have been made its leader.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // ESRCH: all of it has ended.
            killpg(leader, signal).ok();
        }
    }

    /// The group's number stays reserved while a member lives, and is not used again by us afterwards.
    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What helps where a process could not be started: a line to append, or nothing.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEM | Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE) => {
            "\nhint: the machine or a limit is short of memory, processes or descriptors: end what is not needed, and call again"
        }
        _ => "",
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "it ended".to_owned(), |status| format!("it ended with {status}"))
}
