//! `conductorctl service`: conductord as a service of the user, looked after by systemd or launchd.
//!
//! In: which command. Out: unit files in the user's directory, and the manager's own commands. Everything that differs
//! between managers is behind [`manager`](super::manager). A service is a convenience: without one, clients start the daemon
//! by themselves.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use conductor_protocol::ClientKind;

use super::client::Admin;
use super::failure::Failure;
use super::manager::{Manager, ManagerError};
use super::{GlobalOptions, admin, exit_code};

/// How long the first daemon may take to answer through the manager's socket.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Install conductord as a service that starts when a client first connects, from each login on
    Install,
    /// Stop the service and remove what `install` has written
    Uninstall,
    /// Listen, and start the daemon at once
    Start,
    /// Let running calls finish, and stop the daemon and its socket; clients that need it start it again
    Stop,
    /// Replace the daemon by a new one, as after an upgrade; no call is lost
    Restart,
    /// Show what the service manager knows
    Status,
    /// Show what the daemon has logged
    Logs(LogOptions),
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LogOptions {
    /// Go on with what is logged from now on
    #[arg(long, short)]
    pub(super) follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(super) lines: u32,
}

pub(super) fn run(global: &GlobalOptions, command: &ServiceCommand) -> Result<u8, Failure> {
    let manager = Manager::of_this_user()?;
    match command {
        ServiceCommand::Install => return install(global, &manager),
        ServiceCommand::Uninstall => return uninstall(&manager),
        ServiceCommand::Start => say(&manager.start()?)?,
        ServiceCommand::Stop => say(&manager.stop()?)?,
        ServiceCommand::Restart => say(&manager.restart()?)?,
        ServiceCommand::Status => return Ok(code(manager.status()?)),
        ServiceCommand::Logs(options) => return Ok(code(manager.logs(*options)?)),
    }
    Ok(exit_code::OK)
}

fn install(global: &GlobalOptions, manager: &Manager) -> Result<u8, Failure> {
    for file in manager.write()? {
        say(&format!("wrote {}", file.display()))?;
    }
    let mut route = global.route_to_running(ClientKind::Admin);
    // The service listens where the rule says, and not where this program was told to look.
    let elsewhere = route.at.explicit.take();
    // The manager's socket takes the place of the one before, whose daemon would serve nobody from then on.
    if !manager.is_listening()?
        && let Some(pid) = admin::stop_daemon(&route)?
    {
        say(&format!("conductord (pid {pid}), which ran without a service, has stopped"))?;
    }
    manager.enable()?;
    let admin = Admin::connect_within(&route, FIRST_ANSWER)?;
    say(&format!("conductord {} (pid {}) serves", admin.welcome.build, admin.welcome.pid))?;
    if let Some(path) = elsewhere {
        say(&format!(
            "note: --socket or CONDUCTOR_SOCKET names {}, where the service does not listen",
            path.display()
        ))?;
    }
    Ok(exit_code::OK)
}

fn uninstall(manager: &Manager) -> Result<u8, Failure> {
    let removed = manager.remove()?;
    if removed.is_empty() {
        say("the service is not installed")?;
    }
    for file in removed {
        say(&format!("removed {}", file.display()))?;
    }
    Ok(exit_code::OK)
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn code(is_well: bool) -> u8 {
    if is_well { exit_code::OK } else { exit_code::FAILED }
}

impl From<ManagerError> for Failure {
    fn from(error: ManagerError) -> Self {
        Self::Manager(error)
    }
}
