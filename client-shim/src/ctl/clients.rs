//! `conductorctl client`: registers conductor with the MCP clients of this machine, and takes it out again.
//!
//! In: the command line, the clients' configuration files. Out: the same files with one entry more or less, shown as a diff
//! before anything is written. Owns no state. It never writes a file it could not read whole, and never a byte of an entry
//! that is not conductor's, except where `--import` moves entries into conductor's own file.

mod change;
mod client;
mod document;
pub(super) mod file;
mod import;
mod json;
mod list;
mod program;
mod registration;
mod takeover;
mod toml;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::change::{Change, ChangeError, Consent, Outcome};
use self::client::{Client, Platform, Roots, Scope};
use self::document::{Document, DocumentError};
use self::file::{Access, ConfigFile, FileError};
use self::program::ProgramError;
use self::registration::RegistrationError;
use self::takeover::{TakeoverError, UpstreamFile};
use super::client::ClientError;
use super::failure::Failure;
use super::paint::printable;
use super::{GlobalOptions, exit_code};
use crate::error::chain;

#[derive(Debug, Args)]
pub(super) struct ClientOptions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which clients are on this machine, and where conductor is registered
    List(ListOptions),
    /// Register conductor with a client
    Add(AddOptions),
    /// Take conductor out of a client's configuration
    Remove(RemoveOptions),
}

#[derive(Debug, Args)]
struct ListOptions {
    /// The project whose files are looked at too [default: the current directory]
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AddOptions {
    #[command(flatten)]
    entry: EntryOptions,
    /// Move the client's other servers behind conductor
    #[arg(long)]
    import: bool,
}

#[derive(Debug, Args)]
struct RemoveOptions {
    #[command(flatten)]
    entry: EntryOptions,
}

#[derive(Debug, Args)]
struct EntryOptions {
    /// Which client
    #[arg(value_name = "NAME")]
    client: Client,
    /// For all projects of this user, or for one [default: user; project if --project is given]
    #[arg(long)]
    scope: Option<Scope>,
    /// The project's directory [default: the current directory]
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// What conductor is called there
    #[arg(long, value_name = "NAME", default_value = "conductor", value_parser = server_name)]
    name: String,
    /// Show what would be written, and write nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Write without asking
    #[arg(long, short)]
    yes: bool,
}

/// Clients make tools' names of it, which have few characters and a limit.
fn server_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match text {
        "" => Err("it is empty".into()),
        text if text.len() > 32 => Err("it is longer than 32 characters".into()),
        text if !text.chars().all(is_allowed) => {
            Err("only letters, digits, - and _ are understood by all clients".into())
        }
        text => Ok(text.to_owned()),
    }
}

/// Why a client's configuration was not changed.
#[derive(Debug, thiserror::Error)]
enum ClientsError {
    #[error("it is not known where your home directory is")]
    NoHome,
    #[error("{} has no configuration of its own for a project", client.title())]
    NoProjectScope { client: Client },
    #[error("{} is not a directory", path.display())]
    NoProject { path: PathBuf },
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot edit {}", path.display())]
    Document { path: PathBuf, source: DocumentError },
    #[error("cannot edit {}", path.display())]
    Registration { path: PathBuf, source: RegistrationError },
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl ClientsError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHome => "set HOME".into(),
            Self::NoProjectScope { .. } => "leave out --scope and --project".into(),
            Self::NoProject { .. } => "give the project's directory with --project".into(),
            Self::Program(error) => error.hint(),
            Self::File(error) | Self::Change(ChangeError::File(error)) => error.hint(),
            Self::Document { source, .. } => source.hint().into(),
            Self::Registration { source, .. } => source.hint(),
            Self::Takeover(error) => error.hint(),
            Self::Change(ChangeError::NobodyToAsk) => {
                "add --yes to write it, or --dry-run to only see it".into()
            }
            Self::Change(ChangeError::Output(_)) => return None,
        })
    }
}

impl From<ClientsError> for Failure {
    fn from(error: ClientsError) -> Self {
        let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        match error {
            ClientsError::Change(ChangeError::Output(error)) => error.into(),
            error => ClientError::Refused { text: chain(&error) + &hint }.into(),
        }
    }
}

/// Does what `options` say.
pub(super) fn clients(global: &GlobalOptions, options: &ClientOptions) -> Result<u8, Failure> {
    let roots = roots()?;
    match &options.command {
        Command::List(options) => list::list(&roots, &project(options.project.as_deref())?, options.json),
        Command::Add(options) => add(global, &roots, options),
        Command::Remove(options) => remove(&roots, &options.entry),
    }
}

fn roots() -> Result<Roots, ClientsError> {
    let home = std::env::home_dir().filter(|home| home.is_absolute()).ok_or(ClientsError::NoHome)?;
    Ok(Roots::new(home, |name| std::env::var_os(name)))
}

fn project(given: Option<&Path>) -> Result<PathBuf, ClientsError> {
    let path = given.unwrap_or(Path::new("."));
    let absolute = std::path::absolute(path).ok().filter(|path| path.is_dir());
    absolute.ok_or_else(|| ClientsError::NoProject { path: path.to_owned() })
}

impl EntryOptions {
    fn consent(&self) -> Consent {
        match (self.dry_run, self.yes) {
            (true, _) => Consent::DryRun,
            (_, true) => Consent::Given,
            _ => Consent::Asked,
        }
    }

    /// The client's file, read, and who may read it if it is made.
    fn open(&self, roots: &Roots) -> Result<(ConfigFile, Document, Access), ClientsError> {
        let unasked = if self.project.is_some() { Scope::Project } else { Scope::User };
        let (scope, client) = (self.scope.unwrap_or(unasked), self.client);
        let project = match scope {
            Scope::Project => project(self.project.as_deref())?,
            Scope::User => PathBuf::new(),
        };
        let path = client.file(Platform::here(), scope, roots, &project);
        let path = path.ok_or(ClientsError::NoProjectScope { client })?;
        let file = ConfigFile::read(&path)?;
        let document = Document::parse(client.format(), file.bytes())
            .map_err(|source| ClientsError::Document { path, source })?;
        let access = if scope == Scope::Project { Access::Shared } else { Access::New };
        Ok((file, document, access))
    }
}

fn add(global: &GlobalOptions, roots: &Roots, options: &AddOptions) -> Result<u8, Failure> {
    let AddOptions { entry: options, import } = options;
    let (client, name) = (options.client, options.name.as_str());
    let (file, old, access) = options.open(roots)?;
    let program = program::of_this_installation(global.socket.as_deref()).map_err(ClientsError::from)?;
    let at = |source| ClientsError::Registration { path: file.path().to_owned(), source };
    let mut new = registration::added(client, &old, name, &program).map_err(at)?;
    let mut changes = Vec::with_capacity(2);
    let mut notes = Vec::new();
    if *import {
        let variable = std::env::var_os(takeover::VARIABLE);
        let upstream =
            UpstreamFile::of(new.server(name), variable, &roots.home).map_err(ClientsError::from)?;
        let takeover = takeover::plan(client, &new, name, &upstream).map_err(ClientsError::from)?;
        new = takeover.client;
        notes.extend(takeover.moved.iter().map(|server| format!("moves   {server}")));
        notes.extend(takeover.stays.iter().map(|(server, reason)| format!("stays   {server}: {reason}")));
        // First, so that a server is in both files rather than in none if the second cannot be written.
        changes.push(takeover.upstream);
    }
    if !file.exists() && !client.directory(Platform::here(), roots).is_dir() && options.project.is_none() {
        notes.push(format!("note    {} has not run here yet; it will find the file", client.title()));
    }
    let path = file.path().display().to_string();
    changes.push(Change { file, old, new, access });
    for note in &notes {
        writeln!(io::stdout(), "{}", printable(note))?;
    }
    let outcome = change::make(&changes, options.consent()).map_err(ClientsError::from)?;
    let nothing = format!("nothing to do: {name} is registered in {path} and runs {}", program.command);
    let next = format!("next    {}; `conductorctl doctor` checks the rest", client.refresh());
    conclude(outcome, &nothing, &next)
}

fn remove(roots: &Roots, options: &EntryOptions) -> Result<u8, Failure> {
    let (file, old, access) = options.open(roots)?;
    let format = options.client.format();
    let earlier = file.backups().filter_map(|bytes| Document::parse(format, &bytes).ok());
    let new = registration::removed(&old, &options.name, earlier)
        .map_err(|source| ClientsError::Registration { path: file.path().to_owned(), source })?;
    let nothing = format!("nothing to do: {} has no server named {}", file.path().display(), options.name);
    let outcome =
        change::make(&[Change { file, old, new, access }], options.consent()).map_err(ClientsError::from)?;
    conclude(outcome, &nothing, "next    restart the client if it runs")
}

fn conclude(outcome: Outcome, nothing: &str, next: &str) -> Result<u8, Failure> {
    let (text, code) = match outcome {
        Outcome::NothingToDo => (nothing, exit_code::OK),
        Outcome::Written => (next, exit_code::OK),
        Outcome::Shown => ("nothing was written (--dry-run)", exit_code::OK),
        Outcome::Declined => ("nothing was written", exit_code::FAILED),
    };
    writeln!(io::stdout(), "{}", printable(text))?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_all_clients_take() {
        assert_eq!(server_name("my-conductor_2"), Ok("my-conductor_2".into()));
        for wrong in ["", "a b", "a.b", "ä", &"x".repeat(33)] {
            assert!(server_name(wrong).is_err(), "{wrong}");
        }
    }
}
