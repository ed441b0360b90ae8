//! `conductorctl packages`: what code may import, and the read-only layers it imports from.
//!
//! The daemon answers for the profile that a session started here would have, or for the one named with `--profile`; `add`
//! alone works on the configuration file, and asks the daemon to read it again.

mod edit;
mod render;

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::{Args, Subcommand};
use conductor_protocol::operation::{LayerFaults, Operation};
use conductor_protocol::{AdminRequest, ClientKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Admin, ClientError};
use super::failure::Failure;
use super::paint::{Paint, printable};
use super::progress::Spinner;
use super::run::PROFILE_VARIABLE;
use super::{GlobalOptions, exit_code};

pub(super) use edit::EditError;

/// The daemon gives a build ten minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(11 * 60);

/// Between two looks at a build that is waited for.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, Args)]
pub(super) struct PackagesOptions {
    #[command(subcommand)]
    command: Command,
    /// The profile that is meant [env: MCP_CONDUCTOR_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the packages that code may import, their versions, and what they cost
    List(JsonOutput),
    /// Allow packages in the configuration file
    Add {
        /// Like npm:zod@^4 or jsr:@std/path
        #[arg(required = true, value_name = "PACKAGE")]
        packages: Vec<String>,
    },
    /// Use the newest versions that the list allows
    Update(JsonOutput),
    /// Compare the versions in use with the newest ones
    Outdated(JsonOutput),
    /// Show which allowed packages bring one in
    Why {
        /// Like npm:debug
        package: String,
        #[command(flatten)]
        output: JsonOutput,
    },
    /// Compare every file of every layer with its recorded hash
    Verify(JsonOutput),
    /// Remove layers that nobody uses
    Prune,
}

#[derive(Clone, Copy, Debug, Args)]
struct JsonOutput {
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn packages(global: &GlobalOptions, options: &PackagesOptions) -> Result<u8, Failure> {
    let asking = Asking { global, profile: options.profile.as_deref() };
    match &options.command {
        Command::List(output) => asking.show(&Operation::PackagesList, *output, render::list),
        Command::Add { packages } => add(&asking, packages),
        Command::Update(output) => asking.show(&Operation::PackagesUpdate, *output, render::changes),
        Command::Outdated(output) => asking.show(&Operation::PackagesOutdated, *output, render::ages),
        Command::Why { package, output } => {
            asking.show(&Operation::PackagesWhy { package: package.clone() }, *output, render::reasons)
        }
        Command::Verify(output) => verify(&asking, *output),
        Command::Prune => prune(&asking),
    }
}

/// How the daemon is asked.
struct Asking<'a> {
    global: &'a GlobalOptions,
    profile: Option<&'a str>,
}

impl Asking<'_> {
    fn connect(&self) -> Result<Admin, ClientError> {
        let mut route = self.global.route(ClientKind::Admin);
        if let Some(profile) = self.profile {
            route.caller.env.insert(PROFILE_VARIABLE.into(), profile.to_owned());
        }
        Admin::connect(&route)
    }

    /// The document that answers. A build that is waited for is shown.
    fn document(&self, operation: &Operation) -> Result<Value, Failure> {
        let mut admin = self.connect()?;
        let spinner = Spinner::new("asking");
        std::thread::scope(|scope| {
            let (answered, waiting) = mpsc::channel::<()>();
            let spinner = &spinner;
            scope.spawn(move || {
                while waiting.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    // Only for show: what fails here fails below, too.
                    let report = self.connect().and_then(|mut admin| admin.operate(&Operation::PackagesList));
                    if let Some(build) = report.ok().and_then(|report| render::build(&report)) {
                        spinner.tell(&build);
                    }
                }
            });
            let document = admin.operate_within(operation, BUILD_LIMIT);
            drop(answered);
            Ok(document?)
        })
    }

    fn show<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        output: JsonOutput,
        render: fn(&T, Paint) -> String,
    ) -> Result<u8, Failure> {
        let document = self.document(operation)?;
        write_document(&document, output, render)?;
        Ok(exit_code::OK)
    }
}

fn write_document<T: DeserializeOwned>(
    document: &Value,
    output: JsonOutput,
    render: fn(&T, Paint) -> String,
) -> Result<(), Failure> {
    if output.json {
        writeln!(io::stdout(), "{document:#}")?;
    } else {
        write!(io::stdout(), "{}", render(&read(document)?, Paint::stdout()))?;
    }
    Ok(())
}

fn read<T: DeserializeOwned>(document: &Value) -> Result<T, ClientError> {
    T::deserialize(document).map_err(|_| ClientError::Protocol { expected: "a report on packages" })
}

fn verify(asking: &Asking<'_>, output: JsonOutput) -> Result<u8, Failure> {
    let document = asking.document(&Operation::PackagesVerify)?;
    write_document(&document, output, render::faults)?;
    let faults: LayerFaults = read(&document)?;
    Ok(if faults.faults.is_empty() { exit_code::OK } else { exit_code::FAILED })
}

fn prune(asking: &Asking<'_>) -> Result<u8, Failure> {
    let text = asking.connect()?.perform(&Operation::PackagesPrune)?;
    writeln!(io::stdout(), "{}", printable(&text))?;
    Ok(exit_code::OK)
}

/// Writes the configuration file, then tells a daemon that runs.
fn add(asking: &Asking<'_>, packages: &[String]) -> Result<u8, Failure> {
    let profile = asking.profile.map(str::to_owned).or_else(|| std::env::var(PROFILE_VARIABLE).ok());
    let added = edit::add(profile.as_deref().unwrap_or("default"), packages)?;
    writeln!(io::stdout(), "{}", printable(&added.text()))?;
    match Admin::connect(&asking.global.route_to_running(ClientKind::Admin)) {
        Ok(mut admin) => {
            let text = admin.command(AdminRequest::Reload)?;
            writeln!(io::stdout(), "{}", printable(&text))?;
        }
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(exit_code::OK)
}
