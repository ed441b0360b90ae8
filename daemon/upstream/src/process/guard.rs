//! The process that outlives the daemon for a moment, to end the servers that the daemon could not.
//!
//! A shell reads a pipe whose other end only the daemon holds. When the daemon dies, however it dies, the pipe ends, and
//! the shell kills every process with the daemon's mark. It holds nothing, listens to nothing and has no terminal.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::process::spawn;
use crate::process::tree::MARK;

/// Several rounds: a process that is just being started may be missed by the first.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT
while read -r _; do :; done
for round in 1 2 3; do
  for file in $(grep -lz "^$0=$1-" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/}
    kill -KILL "${pid%/environ}" 2>/dev/null
  done
done
"#;

static GUARD: Mutex<Option<Child>> = Mutex::new(None);

/// The mark of this process: its servers' marks begin with it.
pub(crate) fn daemon_mark() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| format!("{:x}.{:x}", std::process::id(), fastrand::u64(..)))
}

/// Starts the guard if there is none. Must run in the thread that starts servers, before it starts one.
pub(crate) fn ensure() -> io::Result<()> {
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(child) = guard.as_mut()
        && child.try_wait()?.is_none()
    {
        return Ok(());
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, MARK, daemon_mark()]).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn::new_session(&mut command);
    *guard = Some(command.spawn()?);
    Ok(())
}
