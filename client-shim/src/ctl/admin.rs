//! What is asked of a running daemon in a word: `conductorctl stop`, `reload`, `cancel`, `result` and `version`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use conductor_deno::Search;
use conductor_protocol::{AdminRequest, ClientKind, PROTOCOL_VERSION};

use super::client::{Admin, ClientError};
use super::doctor::places;
use super::failure::Failure;
use super::paint::printable;
use super::progress::Spinner;
use super::{BUILD, GlobalOptions, exit_code};
use crate::reach::Route;

/// The daemon gives running calls 30 seconds; what is added is for ending them and itself.
const STOP_LIMIT: Duration = Duration::from_secs(40);

pub(super) fn stop(global: &GlobalOptions) -> Result<u8, Failure> {
    match stop_daemon(&global.route_to_running(ClientKind::Admin))? {
        Some(pid) => writeln!(io::stdout(), "conductord (pid {pid}) has stopped")?,
        None => writeln!(io::stdout(), "conductord is not running")?,
    }
    Ok(exit_code::OK)
}

/// Stops the daemon and waits until it is gone; gives its pid, if there was one.
pub(super) fn stop_daemon(route: &Route) -> Result<Option<u32>, Failure> {
    let deadline = Instant::now() + STOP_LIMIT;
    let spinner = Spinner::new("waiting for running calls");
    // One that is going down already turns us away until it is gone.
    let mut admin = match Admin::connect_within(route, STOP_LIMIT) {
        Ok(admin) => admin,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let pid = admin.welcome.pid;
    let process = Process::open(pid);
    match admin.command(AdminRequest::Stop) {
        // It may be gone before its answer is sent.
        Ok(_) | Err(ClientError::Lost) => {}
        Err(error) => return Err(error.into()),
    }
    // A connection that is open is one more the daemon would wait for.
    drop(admin);
    let is_gone = process.wait(deadline.saturating_duration_since(Instant::now()));
    drop(spinner);
    if !is_gone {
        let text = format!(
            "conductord (pid {pid}) was asked to stop and still runs after {} s\nhint: kill -9 {pid}",
            STOP_LIMIT.as_secs()
        );
        return Err(ClientError::Refused { text }.into());
    }
    Ok(Some(pid))
}

pub(super) fn reload(global: &GlobalOptions) -> Result<u8, Failure> {
    command(global, AdminRequest::Reload)
}

pub(super) fn cancel(global: &GlobalOptions, execution: &str) -> Result<u8, Failure> {
    command(global, AdminRequest::Cancel { execution: execution.to_owned() })
}

fn command(global: &GlobalOptions, request: AdminRequest) -> Result<u8, Failure> {
    let mut admin = Admin::connect(&global.route_to_running(ClientKind::Admin))?;
    let text = admin.command(request)?;
    writeln!(io::stdout(), "{}", printable(&text))?;
    Ok(exit_code::OK)
}

/// Prints a stored result as it is; its address will do for its id.
pub(super) fn result(global: &GlobalOptions, id: &str) -> Result<u8, Failure> {
    let id = id.strip_prefix("conductor://result/").unwrap_or(id);
    let mut admin = Admin::connect(&global.route_to_running(ClientKind::Admin))?;
    let text = admin.result(id.to_owned())?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(exit_code::OK)
}

pub(super) fn version(global: &GlobalOptions) -> Result<u8, Failure> {
    let daemon = match Admin::connect(&global.route_to_running(ClientKind::Admin)) {
        Ok(admin) => format!("{} (running, pid {})", admin.welcome.build, admin.welcome.pid),
        Err(error) if error.is_absent() => "not running".into(),
        Err(_) => "not usable (see conductorctl doctor)".into(),
    };
    let deno = match conductor_deno::find(&Search::from_env(places::data_dir().unwrap_or_default())) {
        Ok(found) => format!("{} ({})", found.deno.version, found.deno.path.display()),
        Err(_) => format!("none yet; {} is fetched when code first runs", conductor_deno::PINNED),
    };
    let mut stdout = io::stdout();
    writeln!(stdout, "conductorctl  {BUILD} (protocol {PROTOCOL_VERSION})")?;
    writeln!(stdout, "conductord    {}", printable(&daemon))?;
    writeln!(stdout, "deno          {deno}")?;
    Ok(exit_code::OK)
}

/// A process to be waited for that is not our child.
#[cfg(target_os = "linux")]
struct Process(Option<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Process {
    /// Held from before it is told to end, so that its number cannot come to mean another process.
    fn open(pid: u32) -> Self {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()))
    }

    /// True when it has ended within `limit`.
    fn wait(&self, limit: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        // It ended before it was looked at.
        let Some(process) = &self.0 else { return true };
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
    }
}

/// A process to be waited for that is not our child. Not built or tested here.
#[cfg(not(target_os = "linux"))]
struct Process(Option<nix::unistd::Pid>);

#[cfg(not(target_os = "linux"))]
impl Process {
    fn open(pid: u32) -> Self {
        Self(i32::try_from(pid).ok().map(nix::unistd::Pid::from_raw))
    }

    /// True when it has ended within `limit`.
    fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let Some(pid) = self.0 else { return true };
        while nix::sys::signal::kill(pid, None).is_ok() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}
