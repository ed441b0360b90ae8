//! `conductorctl auth`: logins at HTTP servers that want one.
//!
//! The daemon listens for the browser and keeps the tokens; here a page is shown and waited for. A browser is started where
//! there is a desktop; otherwise the user opens the page himself, on this machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use conductor_protocol::ClientKind;
use conductor_protocol::operation::{Hidden, LoginBegun, LoginsReport, Operation, ServerLogin};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Admin, ClientError};
use super::failure::Failure;
use super::paint::{Paint, printable, span};
use super::progress::Spinner;
use super::render::Page;
use super::run::PROFILE_VARIABLE;
use super::{GlobalOptions, exit_code};

/// The daemon gives a server 45 s to say how to log in.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// What the daemon may take beyond the user's time, for the exchange of the code.
const FINISH_MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Args)]
pub(super) struct AuthOptions {
    #[command(subcommand)]
    command: Command,
    /// The profile that is meant [env: MCP_CONDUCTOR_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Log in at a server, in the browser; all sessions use the login
    Login {
        server: String,
        /// Id of a client that is registered at the issuer already; otherwise conductor registers itself
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// File with the secret of that client, if it has one; `-` reads it from stdin
        #[arg(long, value_name = "PATH", requires = "client_id")]
        client_secret_file: Option<PathBuf>,
        /// Ask for this scope in place of those that the server names; may be repeated
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Port on 127.0.0.1 that the browser comes back to, for a client registered with one [default: any]
        #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
        port: u16,
        /// Only print the page's address
        #[arg(long)]
        no_browser: bool,
    },
    /// Show at which servers you are logged in
    Status {
        /// Print a JSON document
        #[arg(long)]
        json: bool,
    },
    /// Forget the login at a server
    Logout { server: String },
}

pub(super) fn auth(global: &GlobalOptions, options: &AuthOptions) -> Result<u8, Failure> {
    let mut route = global.route(ClientKind::Admin);
    if let Some(profile) = &options.profile {
        route.caller.env.insert(PROFILE_VARIABLE.into(), profile.clone());
    }
    let mut admin = Admin::connect(&route)?;
    match options.command.clone() {
        Command::Login { server, client_id, client_secret_file, scopes, port, no_browser } => {
            let client_secret = client_secret_file.as_deref().map(secret).transpose()?;
            let begin =
                Operation::AuthLogin { server: server.clone(), client_id, client_secret, scopes, port };
            log_in(&mut admin, &begin, !no_browser)?;
        }
        Command::Status { json } => {
            let document = admin.operate(&Operation::AuthStatus)?;
            if json {
                writeln!(io::stdout(), "{document:#}")?;
            } else {
                write!(io::stdout(), "{}", list(&read(document)?, Paint::stdout()))?;
            }
        }
        Command::Logout { server } => {
            let text = admin.perform(&Operation::AuthLogout { server })?;
            writeln!(io::stdout(), "{}", printable(&text))?;
        }
    }
    Ok(exit_code::OK)
}

/// The line of a file, which no other user sees as he would an argument.
fn secret(path: &Path) -> io::Result<Hidden> {
    let text = if path == Path::new("-") {
        io::read_to_string(io::stdin())?
    } else {
        std::fs::read_to_string(path)?
    };
    Ok(Hidden(text.trim().to_owned()))
}

fn log_in(admin: &mut Admin, begin: &Operation, opens_browser: bool) -> Result<(), Failure> {
    let begun: LoginBegun = read(admin.operate_within(begin, BEGIN_LIMIT)?)?;
    writeln!(io::stdout(), "Log in with a browser on this machine:\n\n  {}\n", printable(&begun.url))?;
    if opens_browser {
        open(&begun.url);
    }
    let limit = Duration::from_millis(begun.within_ms) + FINISH_MARGIN;
    let spinner = Spinner::new("waiting for the browser");
    let finished = admin.operate_within(&Operation::AuthFinish { login: begun.login }, limit);
    drop(spinner);
    let login: ServerLogin = read(finished?)?;
    writeln!(io::stdout(), "{}: {}", printable(&login.name), in_words(&login))?;
    Ok(())
}

/// Shows a page, if there is a desktop to show it on. The user has the address anyway.
fn open(url: &str) {
    let has_desktop = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let is_page = url.starts_with("https://") || url.starts_with("http://");
    if !has_desktop || !is_page {
        return;
    }
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut process = Process::new(opener);
    process.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It may stay as long as the browser does.
    std::thread::spawn(move || process.status().ok());
}

fn read<T: DeserializeOwned>(document: Value) -> Result<T, ClientError> {
    serde_json::from_value(document).map_err(|_| ClientError::Protocol { expected: "a report on logins" })
}

fn list(report: &LoginsReport, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.heading("Logins", &report.servers.len().to_string());
    if report.servers.is_empty() {
        page.line("  no server is one to log in at; docs/MCP_PROXY.md tells which are");
    }
    for login in &report.servers {
        let target = printable(login.target.as_deref().unwrap_or_default());
        page.line(&format!("  {}  {}", paint.bold(&printable(&login.name)), paint.dim(&target)));
        page.line(&format!("    {}", in_words(login)));
    }
    page.text()
}

fn in_words(login: &ServerLogin) -> String {
    let issuer = login.issuer.as_deref().map(|issuer| format!(" by {issuer}")).unwrap_or_default();
    let text = match (login.state.as_str(), login.expires_ms, login.renewable) {
        ("logged-in", _, true) => format!("logged in{issuer}; renewed when it is due"),
        ("logged-in", Some(ms), false) => format!("logged in{issuer} for {}", span(ms)),
        ("logged-in", None, false) => format!("logged in{issuer}"),
        ("login-again", ..) => format!("log in again: conductorctl auth login {}", login.name),
        _ => format!("not logged in; if it wants a login: conductorctl auth login {}", login.name),
    };
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_told_with_what_to_do() {
        let login = |state: &str, expires_ms, renewable| ServerLogin {
            name: "s".into(),
            state: state.into(),
            issuer: Some("https://i\u{1b}[2J".into()),
            expires_ms,
            renewable,
            ..ServerLogin::default()
        };
        let servers = vec![
            login("logged-in", Some(1), true),
            login("logged-in", Some(60_000), false),
            login("login-again", None, false),
            login("logged-out", None, false),
        ];
        let text = list(&LoginsReport { servers }, Paint::Plain);
        for says in [
            "logged in by https://i\u{fffd}[2J; renewed",
            "for 1m",
            "log in again: conductorctl auth login s",
            "not logged in",
        ] {
            assert!(text.contains(says), "{says} is not in:\n{text}");
        }
        assert!(list(&LoginsReport::default(), Paint::Plain).contains("no server"));
    }
}
