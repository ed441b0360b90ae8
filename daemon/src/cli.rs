//! The command line of `conductord`, and how its outcome becomes an exit code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, ValueEnum};

use crate::exit_code;
use crate::service::{Service, ServiceError};
use crate::supervisor::{self, StartError};

/// Runs TypeScript written by language models in locked-down, one-shot Deno workers.
///
/// Started by conductor-shim or conductorctl when it is needed, or as a service (`conductorctl service install`); runs in
/// the foreground, logs to stderr. Takes its socket from systemd or launchd if they have it, and tells systemd how it is.
#[derive(Clone, Debug, Parser)]
#[command(name = "conductord", version, after_help = AFTER_HELP)]
pub struct Options {
    /// Unix socket to listen on [default: $XDG_RUNTIME_DIR/conductor/conductord.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file [default: ~/.config/conductor/config.toml, which may be missing]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Deno executable [default: found, or fetched once]
    #[arg(long, value_name = "PATH")]
    pub deno: Option<PathBuf>,
    /// End after this long without a connection, like 15m [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub idle_exit: Option<Duration>,
    /// Log to this file instead of stderr
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Read the configuration, say whether it is right, and end
    #[arg(long)]
    pub check: bool,
    /// Print the manual page
    #[arg(long, hide = true)]
    pub man: bool,
    /// Tell `conductorctl config` of the configuration, as JSON, and end
    #[arg(long, hide = true, value_enum, conflicts_with = "check")]
    pub configuration: Option<Question>,
}

/// What can be asked of a configuration without a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// What is wrong with it, or what is in effect.
    Report,
    /// Its JSON Schema.
    Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

const AFTER_HELP: &str = "\
Signals: TERM or INT ends it once running calls are done (a second one at once), HUP reads the configuration again.
Environment: CONDUCTOR_SOCKET, CONDUCTOR_DENO, CONDUCTOR_LOG (a filter like `debug` or `conductor_pool=trace`).
Exit codes: 0 stopped as asked, 64 wrong command line, 70 internal failure, 71 socket, directory or log cannot be set up,
75 another daemon serves this socket, 78 wrong configuration.";

/// Parses the command line, runs the daemon, tells what went wrong.
pub(crate) fn run(service: Result<Service, ServiceError>) -> u8 {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // stdout or stderr closed: there is nobody to tell
            let _told = error.print();
            return if error.use_stderr() { exit_code::USAGE } else { exit_code::OK };
        }
    };
    if options.man {
        return print_manual();
    }
    match service.map_err(StartError::from).and_then(|service| supervisor::run(&options, service)) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            error.exit_code()
        }
    }
}

fn print_manual() -> u8 {
    match clap_mangen::Man::new(Options::command()).render(&mut io::stdout()) {
        Ok(()) => exit_code::OK,
        Err(_reader_gone) => exit_code::OS,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the daemon ends here: stderr is where a user or the service manager looks"
)]
fn report(error: &StartError) {
    eprintln!("conductord: {}", crate::error_chain(error));
}
