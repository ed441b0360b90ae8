//! `conductorctl`: the operator's program. Command line and dispatch; each command is a module below.
//!
//! Everything here blocks. Answers go to stdout, everything else to stderr. A command gives back its exit code or a
//! [`Failure`]; only [`main_impl`] prints failures.

mod admin;
mod auth;
mod client;
mod clients;
mod config;
mod doctor;
mod exit_code;
mod failure;
mod man;
mod manager;
mod packages;
mod paint;
mod progress;
mod render;
mod run;
mod servers;
mod service;
mod status;
mod tokens;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use conductor_protocol::ClientKind;

use crate::autostart::Autostart;
use crate::connect;
use crate::handshake::Caller;
use crate::reach::Route;
use failure::Failure;

/// This build, as `--version` and the daemon show it.
const BUILD: &str = env!("CARGO_PKG_VERSION");

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  the code failed or its result is incomplete, a check failed, or the daemon refused
  64  wrong command line
  66  the code to run cannot be read
  69  no daemon can be reached, or it went away
  70  internal failure
  74  the output cannot be written
  76  the daemon speaks another protocol";

/// Looks after conductord, the daemon that runs TypeScript for language models.
#[derive(Debug, Parser)]
#[command(name = "conductorctl", version, after_help = EXIT_CODES)]
struct Options {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Args)]
struct GlobalOptions {
    /// The daemon's Unix socket [env: CONDUCTOR_SOCKET] [default: where conductord listens unasked]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Do not start a daemon when none is running
    #[arg(long, global = true)]
    no_start: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the daemon is doing; never starts one, though a service's socket does
    Status(StatusOptions),
    /// Run TypeScript or JavaScript, as a model's call does
    Run(Box<run::RunOptions>),
    /// Check the whole installation and tell the cure of what is wrong
    Doctor(JsonOption),
    /// Stop the daemon once running calls are done, and wait until it is gone; as a service it starts again when a client
    /// connects (see `service stop`)
    Stop,
    /// Make the daemon read its configuration again
    Reload,
    /// End one running call
    Cancel {
        /// Id of the execution, as the daemon's log names it
        execution: String,
    },
    /// Print a result that was too large for an answer
    Result {
        /// Id or address, as in the `resources` of the answer
        id: String,
    },
    /// Look after the packages that code may import
    Packages(packages::PackagesOptions),
    /// Look after the upstream MCP servers that code may call
    Servers(servers::ServersOptions),
    /// Log in at upstream servers that want it
    Auth(auth::AuthOptions),
    /// Say who may call the daemon over HTTP
    Token(tokens::TokenOptions),
    /// Register conductor with the MCP clients of this machine, or take it out again
    Client(clients::ClientOptions),
    /// Look at the configuration file, check it, and change it; needs no daemon
    Config(config::ConfigOptions),
    /// Look after conductord as a service of systemd or launchd
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Show the versions of this program, the daemon and Deno
    Version,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages of this program into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Args)]
struct JsonOption {
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct StatusOptions {
    /// Print the daemon's document as JSON; with --watch, one line each time
    #[arg(long)]
    json: bool,
    /// Show it again and again, every second or as often as given
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s",
        value_parser = run::duration,
    )]
    watch: Option<Duration>,
}

impl GlobalOptions {
    /// The way to the daemon, starting one if there is none and that is allowed.
    fn route(&self, kind: ClientKind) -> Route {
        Route { autostart: (!self.no_start).then(Autostart::of_this_process), ..self.route_to_running(kind) }
    }

    /// The way to a daemon that runs already.
    fn route_to_running(&self, kind: ClientKind) -> Route {
        Route {
            at: connect::surroundings(self.socket.clone()),
            caller: Caller::this_process(kind),
            autostart: None,
        }
    }
}

/// Everything `conductorctl` does; `main` only calls this. The result is the process's exit code.
pub fn main_impl() -> u8 {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // stdout or stderr closed: there is nobody to tell
            let _told = error.print();
            return if error.use_stderr() { exit_code::USAGE } else { exit_code::OK };
        }
    };
    match dispatch(&options) {
        Ok(code) => code,
        Err(failure) => {
            if let Some(text) = failure.text() {
                // stderr closed: there is nobody to tell
                let _told = writeln!(io::stderr(), "conductorctl: {text}");
            }
            failure.exit_code()
        }
    }
}

fn dispatch(options: &Options) -> Result<u8, Failure> {
    let global = &options.global;
    match &options.command {
        Command::Status(status) => status::show(global, status.json, status.watch),
        Command::Run(run) => run::run(global, run),
        Command::Doctor(JsonOption { json }) => doctor::examine(global, *json),
        Command::Stop => admin::stop(global),
        Command::Reload => admin::reload(global),
        Command::Cancel { execution } => admin::cancel(global, execution),
        Command::Result { id } => admin::result(global, id),
        Command::Packages(options) => packages::packages(global, options),
        Command::Servers(options) => servers::servers(global, options),
        Command::Auth(options) => auth::auth(global, options),
        Command::Token(options) => tokens::tokens(global, options),
        Command::Client(options) => clients::clients(global, options),
        Command::Config(options) => config::config(global, options),
        Command::Service(command) => service::run(global, command),
        Command::Version => admin::version(global),
        Command::Completions { shell } => completions(*shell),
        Command::Man { directory } => man::write(Options::command(), directory),
    }
}

fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "conductorctl", &mut script);
    io::stdout().write_all(&script)?;
    Ok(exit_code::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
