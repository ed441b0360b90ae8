//! `conductorctl client list`: which clients are on this machine, and what of conductor they know.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use serde::Serialize;

use super::client::{Client, Platform, Roots, Scope};
use super::document::Document;
use super::file::ConfigFile;
use super::registration::{command, is_ours};
use crate::ctl::exit_code;
use crate::ctl::failure::Failure;
use crate::ctl::paint::{Paint, printable};
use crate::error::chain;

/// What one file of a client says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    client: String,
    #[serde(skip)]
    title: &'static str,
    scope: &'static str,
    file: PathBuf,
    /// The client has run for this user, or the file is there.
    found: bool,
    /// Entries that run conductor's shim.
    registered: Vec<Registered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    name: String,
    command: String,
    command_exists: bool,
}

pub(super) fn list(roots: &Roots, project: &Path, json: bool) -> Result<u8, Failure> {
    let findings = findings(Platform::here(), roots, project);
    let mut stdout = io::stdout();
    if json {
        writeln!(stdout, "{:#}", serde_json::json!({ "clients": findings }))?;
        return Ok(exit_code::OK);
    }
    for finding in &findings {
        stdout.write_all(shown(finding, Paint::stdout()).as_bytes())?;
    }
    Ok(exit_code::OK)
}

/// The user's file of every client, and the project's where there is one.
fn findings(platform: Platform, roots: &Roots, project: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    for &client in Client::value_variants() {
        for (scope, scope_name) in [(Scope::User, "user"), (Scope::Project, "project")] {
            let Some(file) = client.file(platform, scope, roots, project) else { continue };
            let is_there = file.symlink_metadata().is_ok();
            // In the home directory some clients' two files are one.
            let is_users = client.file(platform, Scope::User, roots, project).as_ref() == Some(&file);
            if scope == Scope::Project && (!is_there || is_users) {
                continue;
            }
            let (registered, problem) = match entries(client, &file) {
                Ok(registered) => (registered, None),
                Err(problem) => (Vec::new(), Some(problem)),
            };
            found.push(Finding {
                client: client.name(),
                title: client.title(),
                scope: scope_name,
                found: is_there || client.directory(platform, roots).is_dir(),
                file,
                registered,
                problem,
            });
        }
    }
    found
}

fn entries(client: Client, path: &Path) -> Result<Vec<Registered>, String> {
    let file = ConfigFile::read(path).map_err(|error| chain(&error))?;
    let document = Document::parse(client.format(), file.bytes()).map_err(|error| error.to_string())?;
    let ours = document.servers().iter().filter(|(_, entry)| is_ours(entry));
    let registered = ours.map(|(name, entry)| {
        let command = command(entry).unwrap_or_default().to_owned();
        let command_exists = Path::new(&command).is_absolute() && Path::new(&command).is_file();
        Registered { name: name.clone(), command, command_exists }
    });
    Ok(registered.collect())
}

fn shown(finding: &Finding, paint: Paint) -> String {
    let file = printable(&finding.file.display().to_string());
    let (scope, flag) =
        if finding.scope == "project" { (" (project)", " --scope project") } else { ("", "") };
    let label = format!("{:<15}", finding.title);
    let add = format!("conductorctl client add {}{flag}", finding.client);
    let mut lines = Vec::new();
    match &finding.problem {
        Some(problem) => {
            lines.push(format!("{} {file}{scope}: {}", paint.bad("unreadable:"), printable(problem)))
        }
        None if !finding.found => lines.push(paint.dim("not found")),
        None if finding.registered.is_empty() => {
            lines.push(format!("no conductor in {file}{scope}; to add it: {}", paint.bold(&add)));
        }
        None => {
            for entry in &finding.registered {
                let (name, command) = (printable(&entry.name), printable(&entry.command));
                lines.push(match entry.command_exists {
                    true => format!("{} {name} runs {command}", paint.good("registered:")),
                    false => format!(
                        "{} {name} runs {command}, which is not there; to repair it: {}",
                        paint.warning("broken:"),
                        paint.bold(&add)
                    ),
                });
            }
            lines.push(format!("in {file}{scope}"));
        }
    }
    let margin = " ".repeat(label.len());
    let firsts = std::iter::once(paint.bold(&label)).chain(std::iter::repeat(margin));
    firsts.zip(lines).map(|(first, line)| format!("{first} {line}\n")).collect()
}
