//! `conductorctl token`: who may call the daemon over HTTP.
//!
//! The daemon makes tokens and keeps hashes of them; a token is seen once, here, when it is made.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use conductor_protocol::ClientKind;
use conductor_protocol::operation::{Operation, TokenAdded};
use conductor_protocol::status::{HttpStatus, TokenStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Admin, ClientError};
use super::failure::Failure;
use super::paint::{Paint, printable, span};
use super::render::{Page, count};
use super::{GlobalOptions, exit_code};

#[derive(Clone, Debug, Args)]
pub(super) struct TokenOptions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a token and print it, this once; its sessions may do what its profile may
    Add {
        /// For whom it is, such as `laptop`
        name: String,
        /// The profile of the configuration file that its sessions have [default: default]
        #[arg(long, value_name = "PROFILE")]
        profile: Option<String>,
        /// Write it into this new file, for your eyes only, in place of printing it
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Show the tokens, but for their values, which nobody knows
    List {
        /// Print a JSON document
        #[arg(long)]
        json: bool,
    },
    /// End a token and all that it began
    Revoke { name: String },
}

pub(super) fn tokens(global: &GlobalOptions, options: &TokenOptions) -> Result<u8, Failure> {
    let mut admin = Admin::connect(&global.route(ClientKind::Admin))?;
    match options.command.clone() {
        Command::Add { name, profile, file } => {
            // Before the token is made: one that cannot be written down would be lost.
            let mut out: Box<dyn Write> = match &file {
                Some(path) => Box::new(private(path)?),
                None => Box::new(io::stdout()),
            };
            let added = admin.operate(&Operation::TokensAdd { name, profile });
            let added: TokenAdded = match added {
                Ok(document) => read(document)?,
                Err(error) => {
                    // It is empty and ours.
                    file.iter().for_each(|path| drop(std::fs::remove_file(path)));
                    return Err(error.into());
                }
            };
            writeln!(out, "{}", added.token)?;
            write!(io::stderr(), "{}", advice(&added, file.as_deref()))?;
        }
        Command::List { json } => {
            let document = admin.operate(&Operation::TokensList)?;
            if json {
                writeln!(io::stdout(), "{:#}", document["tokens"])?;
            } else {
                write!(io::stdout(), "{}", list(&read(document)?, Paint::stdout()))?;
            }
        }
        Command::Revoke { name } => {
            let text = admin.perform(&Operation::TokensRevoke { name })?;
            writeln!(io::stdout(), "{}", printable(&text))?;
        }
    }
    Ok(exit_code::OK)
}

/// A new file that nobody else can read.
fn private(path: &Path) -> io::Result<impl Write + 'static> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read<T: DeserializeOwned>(document: Value) -> Result<T, ClientError> {
    serde_json::from_value(document).map_err(|_| ClientError::Protocol { expected: "a report on tokens" })
}

/// What to do with a token that was made.
fn advice(added: &TokenAdded, file: Option<&Path>) -> String {
    let place = match file {
        Some(path) => format!("It is in {}.", path.display()),
        None => "It is not shown again.".to_owned(),
    };
    let use_it = match added.urls.first() {
        Some(url) => format!("Clients call {url} with the header `Authorization: Bearer TOKEN`."),
        None => "The daemon does not listen for HTTP; set `enabled = true` in [http] of its configuration."
            .to_owned(),
    };
    printable(&format!("token {} for profile {}\n{place} {use_it}", added.name, added.profile)) + "\n"
}

fn list(http: &HttpStatus, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.heading("Tokens", &http.tokens.len().to_string());
    if http.tokens.is_empty() {
        page.line("  none; `conductorctl token add NAME` makes one");
    }
    page.tokens(http);
    page.text()
}

/// One token in a line.
pub(super) fn row(token: &TokenStatus, paint: Paint) -> String {
    let used = match token.unused_ms {
        Some(ms) => format!("used {} ago", span(ms)),
        None => "not used since the daemon started".to_owned(),
    };
    let (name, profile) = (paint.bold(&printable(&token.name)), printable(&token.profile));
    let sessions = count(token.sessions, "session");
    format!("  {name}  profile {profile}, {}, {sessions}, {used}", count(token.requests, "request"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_without_their_values() {
        let token = |name: &str, unused_ms| TokenStatus {
            name: name.into(),
            profile: "p".into(),
            sessions: 1,
            requests: 7,
            unused_ms,
            ..TokenStatus::default()
        };
        let tokens = vec![token("a", Some(60_000)), token("b\u{1b}[2J", None)];
        let text = list(&HttpStatus { tokens, ..HttpStatus::default() }, Paint::Plain);
        for says in ["a  profile p, 7 requests, 1 session, used 1m ago", "b\u{fffd}[2J", "not used since"] {
            assert!(text.contains(says), "{says} is not in:\n{text}");
        }
        assert!(list(&HttpStatus::default(), Paint::Plain).contains("conductorctl token add NAME"));
    }

    #[test]
    fn a_new_token_comes_with_what_to_do() {
        let added =
            TokenAdded { name: "a".into(), profile: "p".into(), token: "cnd_x".into(), urls: Vec::new() };
        assert!(advice(&added, None).contains("enabled = true"));
        let urls = vec!["http://127.0.0.1:7780/mcp".to_owned()];
        let text = advice(&TokenAdded { urls, ..added }, None);
        assert!(text.contains("http://127.0.0.1:7780/mcp") && !text.contains("cnd_x"), "{text}");
    }
}
