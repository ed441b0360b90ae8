//! A process that does not belong to this one: own session, no terminal, reparented at once.
//!
//! It is forked twice. With one fork it would be this process's child: a zombie when it ends first, and killed with the
//! tree when an IDE kills its servers by parent id.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{ForkResult, Pid};

/// Runs `command` detached; an error of its exec is an error here.
pub(super) fn spawn(mut command: Command) -> io::Result<Pid> {
    let (mut reader, writer) = io::pipe()?;
    keep_descriptors_from_children()?;
    let report = writer.as_raw_fd();
    // SAFETY: `detach` only makes async-signal-safe calls and allocates nothing, as a forked child of a threaded process
    // must. Needed because std has no way to start a process that is not a child.
    #[expect(unsafe_code, reason = "a second fork and setsid before exec")]
    unsafe {
        command.pre_exec(move || detach(report));
    }
    let mut between = command.spawn()?;
    between.wait()?;
    drop(writer);
    let mut pid = [0; 4];
    reader.read_exact(&mut pid)?;
    Ok(Pid::from_raw(i32::from_ne_bytes(pid)))
}

/// IDEs leak descriptors into what they start. A daemon that held them would keep the IDE's pipes from ever ending.
fn keep_descriptors_from_children() -> io::Result<()> {
    for entry in fs::read_dir("/dev/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if number > 2 {
            // SAFETY: only the flag is set that std sets on all it opens; a number closed meanwhile is an error, ignored.
            #[expect(unsafe_code, reason = "nobody in this process owns what it inherited")]
            let inherited = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(inherited, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok();
        }
    }
    Ok(())
}

/// In the first child: forks the second, which goes on to exec, and ends after telling its pid.
fn detach(report: RawFd) -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: this process has one thread, being the child of a fork; the grandchild only returns to std's exec.
    #[expect(unsafe_code, reason = "std has no fork")]
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child } => {
            // SAFETY: the descriptor is open, `spawn` holds it; it is not closed here.
            #[expect(unsafe_code, reason = "a descriptor number is all that crosses into this closure")]
            let mut report = ManuallyDrop::new(unsafe { io::PipeWriter::from_raw_fd(report) });
            let told = report.write_all(&child.as_raw().to_ne_bytes());
            // SAFETY: `_exit` is async-signal-safe, and right where destructors and exit handlers of the parent must not run.
            #[expect(unsafe_code, reason = "std's exit runs the parent's exit handlers")]
            unsafe {
                nix::libc::_exit(i32::from(told.is_err()))
            }
        }
    }
}

/// False once the process has ended, even if nobody has reaped it.
pub(super) fn is_alive(pid: Pid) -> bool {
    nix::sys::signal::kill(pid, None).is_ok() && !is_zombie(pid)
}

/// The state is the field after the command's name, which stands in parentheses: proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('Z'))
}

/// Not built or tested here: launchd reaps what it adopts.
#[cfg(not(target_os = "linux"))]
fn is_zombie(_pid: Pid) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    #[test]
    fn the_process_is_nobodys_child_and_in_its_own_session() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read _ stat < /proc/$$/stat; echo $stat; exec sleep 1000"]).stdin(Stdio::null());
        command.stdout(writer);
        let pid = spawn(command).expect("spawns");
        let mut stat = [0; 256];
        let n = reader.read(&mut stat).expect("its words");
        let stat = String::from_utf8_lossy(&stat[..n]).into_owned();
        // After "(sh)": state, parent, group, session.
        let fields: Vec<_> = stat.split(' ').skip(2).map(str::to_owned).collect();
        let us = std::process::id().to_string();
        let our_session = nix::unistd::getsid(None).expect("ours").to_string();
        assert_ne!(fields[0], us, "{stat}");
        assert_ne!(fields[2], our_session, "{stat}");
        assert!(is_alive(pid));
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("kills");
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "a killed process is seen to end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert_eq!(
            spawn(Command::new("/nonexistent/x")).expect_err("no exec").kind(),
            io::ErrorKind::NotFound
        );
    }
}
