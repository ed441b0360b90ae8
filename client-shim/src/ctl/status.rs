//! `conductorctl status`: asks for the document and shows it, once or again and again.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use conductor_protocol::ClientKind;
use conductor_protocol::status::StatusReport;
use console::Term;
use serde_json::{Value, json};

use super::client::{Admin, ClientError};
use super::failure::Failure;
use super::paint::Paint;
use super::{GlobalOptions, exit_code, render};
use crate::reach::Route;

pub(super) fn show(global: &GlobalOptions, json: bool, watch: Option<Duration>) -> Result<u8, Failure> {
    let route = global.route_to_running(ClientKind::Admin);
    match watch {
        Some(interval) => show_for_ever(&route, json, interval),
        None => show_once(&route, json),
    }
}

fn show_once(route: &Route, json: bool) -> Result<u8, Failure> {
    match Admin::connect(route).and_then(|mut admin| admin.status()) {
        Ok(document) if json => writeln!(io::stdout(), "{document:#}")?,
        Ok(document) => write!(io::stdout(), "{}", render::status(&report(&document)?, Paint::stdout()))?,
        Err(error) => {
            if json && error.is_absent() {
                writeln!(io::stdout(), "{:#}", not_running())?;
            }
            return Err(error.into());
        }
    }
    Ok(exit_code::OK)
}

/// Ends only with the user's Ctrl-C or the reader's end: a daemon that stops may come back.
fn show_for_ever(route: &Route, json: bool, interval: Duration) -> Result<u8, Failure> {
    let mut admin = None;
    loop {
        let outcome = ask(route, &mut admin);
        if outcome.is_err() {
            admin = None;
        }
        match (outcome, json) {
            (Ok(document), true) => writeln!(io::stdout(), "{document}")?,
            (Ok(document), false) => redraw(&render::status(&report(&document)?, Paint::stdout()))?,
            (Err(error), true) if error.is_absent() => writeln!(io::stdout(), "{}", not_running())?,
            (Err(error), false) if error.is_absent() => redraw("conductord is not running\n")?,
            (Err(ClientError::Lost), _) => {}
            (Err(error), _) => return Err(error.into()),
        }
        std::thread::sleep(interval);
    }
}

fn ask(route: &Route, admin: &mut Option<Admin>) -> Result<Value, ClientError> {
    let admin = match admin {
        Some(admin) => admin,
        None => admin.insert(Admin::connect(route)?),
    };
    admin.status()
}

fn report(document: &Value) -> Result<StatusReport, ClientError> {
    serde_json::from_value(document.clone())
        .map_err(|_| ClientError::Protocol { expected: "a status document" })
}

fn not_running() -> Value {
    json!({ "running": false })
}

/// Puts `text` in place of what was drawn before. What does not fit the screen is cut: it would scroll.
fn redraw(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    if !stdout.is_terminal() {
        return writeln!(stdout, "{text}");
    }
    let (rows, columns) = Term::stdout().size();
    let lines = text.lines().take(usize::from(rows).saturating_sub(1));
    // Home; each line erased to its end; the rest erased.
    let mut screen = String::from("\u{1b}[H");
    for line in lines {
        screen.push_str(&console::truncate_str(line, columns.into(), "…"));
        screen.push_str("\u{1b}[K\n");
    }
    screen.push_str("\u{1b}[J");
    stdout.write_all(screen.as_bytes())?;
    stdout.flush()
}
