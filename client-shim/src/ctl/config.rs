//! `conductorctl config`: the configuration file, looked at and changed without a daemon.
//!
//! The daemon's program reads the file for us, so there is one parser, and it is the one that will read it in earnest.

mod edit;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use clap::{Args, Subcommand};
use conductor_protocol::ClientKind;
use conductor_protocol::configuration::{ConfigOrigin, ConfigReport, ConfigSetting};
use conductor_protocol::status::StatusReport;
use serde::Deserialize as _;
use serde_json::Value;

use super::client::Admin;
use super::clients::file::FileError;
use super::doctor::{places, programs};
use super::failure::Failure;
use super::paint::{Paint, printable};
use super::{GlobalOptions, exit_code};

/// Where the comments with the origins begin, in characters; longer values push theirs further.
const COMMENT_COLUMN: usize = 46;

#[derive(Debug, Args)]
pub(super) struct ConfigOptions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in effect, each value with where it comes from
    ///
    /// Values that a session's environment can set are taken from this one, as if a client had started the shim here.
    Show {
        /// The profile to show [default: MCP_CONDUCTOR_PROFILE, else `default`]
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// Another file than the one that is used
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
    },
    /// Say everything that is wrong with the file; exit code 1 if anything is
    Check {
        /// Another file than the one that is used
        file: Option<PathBuf>,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Edit a copy of the file with $VISUAL or $EDITOR, and put it in place once it is right
    Edit {
        /// Another file than the one that is used
        file: Option<PathBuf>,
    },
    /// Print where the file is
    Path,
}

/// Why a configuration was not shown or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFailure {
    #[error("conductord, which reads the configuration, is not beside this program and not on PATH")]
    NoDaemon,
    #[error("cannot run {}", .program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("{} gave no report: {said}", .program.display())]
    Report { program: PathBuf, said: String },
    #[error("it is not known where your home directory is")]
    NoHome,
    #[error("cannot make a copy to edit in {}", .directory.display())]
    Copy { directory: PathBuf, source: io::Error },
    #[error("the editor, `{editor}`, {how}")]
    Editor { editor: String, how: String },
    #[error("the configuration is as it was; what you wrote is kept in {}", .copy.display())]
    Wrong { copy: PathBuf },
    #[error("{source}; what you wrote is kept in {}", .copy.display())]
    Place { copy: PathBuf, source: FileError },
    #[error(transparent)]
    File(#[from] FileError),
}

impl ConfigFailure {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoDaemon => {
                Some("install it beside this program, or set CONDUCTOR_DAEMON to its path".into())
            }
            Self::Run { .. } | Self::Report { .. } => {
                Some("install conductor's programs again, all of one build".into())
            }
            Self::NoHome => Some("set HOME".into()),
            Self::Copy { .. } => Some("check the directory's permissions and the space on the disk".into()),
            Self::Editor { .. } => Some("set VISUAL or EDITOR to the editor you want".into()),
            Self::Wrong { copy } => {
                let copy = copy.display();
                Some(format!("`conductorctl config check {copy}` says what is wrong with it"))
            }
            Self::Place { source, .. } | Self::File(source) => Some(source.hint()),
        }
    }
}

pub(super) fn config(global: &GlobalOptions, options: &ConfigOptions) -> Result<u8, Failure> {
    match &options.command {
        Command::Show { profile, file, json } => show(file.as_deref(), profile.as_deref(), *json),
        Command::Check { file, json } => check(file.as_deref(), *json),
        Command::Schema => {
            io::stdout().write_all(&ask("schema", None, None)?)?;
            Ok(exit_code::OK)
        }
        Command::Edit { file } => edit::edit(global, file.as_deref()),
        Command::Path => path(global),
    }
}

fn show(file: Option<&Path>, profile: Option<&str>, json: bool) -> Result<u8, Failure> {
    let report = report(file, profile)?;
    if json {
        writeln!(io::stdout(), "{:#}", serde_json::json!(report))?;
    } else if is_right(&report) {
        io::stdout().write_all(shown(&report, Paint::stdout()).as_bytes())?;
    } else {
        io::stderr().write_all(wrongs(&report).as_bytes())?;
    }
    Ok(if is_right(&report) && report.refusal.is_none() { exit_code::OK } else { exit_code::FAILED })
}

fn check(file: Option<&Path>, json: bool) -> Result<u8, Failure> {
    let report = report(file, None)?;
    let code = if is_right(&report) { exit_code::OK } else { exit_code::FAILED };
    if json {
        writeln!(io::stdout(), "{:#}", serde_json::json!(report))?;
    } else if is_right(&report) {
        let what = if report.exists { "is right" } else { "is not there; the built-in defaults are used" };
        writeln!(io::stdout(), "{} {what}", printable(&report.path))?;
    } else {
        io::stdout().write_all(wrongs(&report).as_bytes())?;
    }
    Ok(code)
}

fn path(global: &GlobalOptions) -> Result<u8, Failure> {
    let own = places::config_file().ok_or(ConfigFailure::NoHome)?;
    writeln!(io::stdout(), "{}", own.display())?;
    let running =
        Admin::connect(&global.route_to_running(ClientKind::Admin)).and_then(|mut admin| admin.status());
    let status = running.ok().and_then(|document| StatusReport::deserialize(document).ok());
    if let Some(other) = status.and_then(|status| status.daemon.config).filter(|used| Path::new(used) != own)
    {
        writeln!(io::stderr(), "conductorctl: the daemon that runs uses {}", printable(&other))?;
    }
    Ok(exit_code::OK)
}

fn is_right(report: &ConfigReport) -> bool {
    report.error.is_none() && report.problems.is_empty()
}

/// Everything that is wrong, for people.
fn wrongs(report: &ConfigReport) -> String {
    let problems = report.problems.iter().map(|problem| problem.text.as_str());
    let lines = report.error.as_deref().into_iter().chain(problems).map(|text| printable(text) + "\n");
    let mut text: String = lines.collect();
    match report.problems.len() {
        0 => {}
        1 => text.push_str("1 mistake\n"),
        n => text.push_str(&format!("{n} mistakes\n")),
    }
    text
}

fn report(file: Option<&Path>, profile: Option<&str>) -> Result<ConfigReport, ConfigFailure> {
    let json = ask("report", file, profile)?;
    serde_json::from_slice(&json).map_err(|error| ConfigFailure::Report {
        program: programs::daemon_path().unwrap_or_default(),
        said: error.to_string(),
    })
}

/// What the daemon's program says of a configuration; `file` must be there if it is named.
fn ask(question: &str, file: Option<&Path>, profile: Option<&str>) -> Result<Vec<u8>, ConfigFailure> {
    let program = programs::daemon_path().ok_or(ConfigFailure::NoDaemon)?;
    let mut command = Program::new(&program);
    command.args(["--configuration", question]).stdin(Stdio::null());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    if let Some(profile) = profile {
        command.env("MCP_CONDUCTOR_PROFILE", profile);
    }
    match command.output() {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(ConfigFailure::Report { program, said })
        }
        Err(source) => Err(ConfigFailure::Run { program, source }),
    }
}

/// The settings as TOML, each with its origin as a comment.
fn shown(report: &ConfigReport, paint: Paint) -> String {
    let there = if report.exists { "" } else { " (not there: defaults)" };
    let mut text = paint.dim(&format!("# {}{there}", printable(&report.path))) + "\n";
    let mut section = "";
    for setting in &report.settings {
        if setting.section != section {
            section = &setting.section;
            text.push_str(&format!("\n{}\n", paint.bold(&format!("[{}]", heading(section)))));
        }
        text.push_str(&line(setting, paint));
    }
    for warning in &report.warnings {
        text.push_str(&format!("\n{}", paint.warning(&format!("# warning: {}", comment(warning)))));
    }
    if let Some(refusal) = &report.refusal {
        let what = format!("# a session with this environment is refused: {}", comment(refusal));
        text.push_str(&format!("\n{}", paint.bad(&what)));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn line(setting: &ConfigSetting, paint: Paint) -> String {
    let key = &setting.key;
    let value = match (&setting.value, &setting.words) {
        (Some(value), _) => format!("{key} = {}", toml(value)),
        (None, _) if setting.secret => format!("# {key}: not shown"),
        (None, words) => format!("# {key}: {}", comment(words.as_deref().unwrap_or("not set"))),
    };
    let width = value.chars().count().max(COMMENT_COLUMN);
    format!(
        "{}  {}\n",
        format_args!("{:width$}", printable(&value)),
        paint.dim(&format!("# {}", origin(&setting.origin)))
    )
}

fn origin(origin: &ConfigOrigin) -> String {
    let name = origin.name.as_deref().unwrap_or_default();
    let line = origin.line.map(|line| format!("line {line}"));
    let place = match (origin.kind.as_str(), line) {
        ("file", Some(line)) => line,
        ("environment", _) => format!("environment: {name}"),
        ("policy" | "limit", Some(line)) => format!("{name}, {line}"),
        ("policy" | "limit", None) => name.to_owned(),
        (kind, _) => kind.to_owned(),
    };
    match (&origin.asked, &origin.asked_by) {
        (Some(asked), Some(by)) => {
            format!("{place}; asked: {} ({})", comment(&toml(asked)), self::origin(by))
        }
        _ => comment(&place),
    }
}

/// A text on one line of a comment.
fn comment(text: &str) -> String {
    printable(text).replace('\n', " ")
}

fn heading(section: &str) -> String {
    section.splitn(2, '.').map(|part| toml_edit::Key::new(part).to_string()).collect::<Vec<_>>().join(".")
}

fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members =
                members.iter().map(|(key, value)| format!("{} = {}", toml_edit::Key::new(key), toml(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_has_its_origin_beside_it_and_the_whole_is_toml() {
        let of = |kind: &str, line, name: Option<&str>| ConfigOrigin {
            kind: kind.into(),
            line,
            name: name.map(str::to_owned),
            ..ConfigOrigin::default()
        };
        let setting = |section: &str, key: &str, value: Value, origin| ConfigSetting {
            section: section.into(),
            key: key.into(),
            value: Some(value),
            origin,
            ..ConfigSetting::default()
        };
        let cut = ConfigOrigin {
            asked: Some(json!("5m")),
            asked_by: Some(Box::new(of("environment", None, Some("MCP_CONDUCTOR_MAX_TIMEOUT")))),
            ..of("policy", Some(9), Some("policy.max-timeout"))
        };
        let none = ConfigSetting {
            value: None,
            words: Some("found".into()),
            ..setting("", "deno", json!(1), of("default", None, None))
        };
        let report = ConfigReport {
            path: "/c.toml".into(),
            exists: true,
            settings: vec![
                none,
                setting("pool", "max-idle", json!(3), of("file", Some(2), None)),
                setting("profiles.a b", "max-timeout", json!("2s"), cut),
                setting("profiles.a b", "packages", json!(["npm:zod", "x\ny"]), of("default", None, None)),
            ],
            warnings: vec!["two\nlines".into()],
            ..ConfigReport::default()
        };
        let text = shown(&report, Paint::Plain);
        let squeezed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "# /c.toml",
            "# deno: found # default",
            "",
            "[pool]",
            "max-idle = 3 # line 2",
            "",
            "[profiles.\"a b\"]",
            "max-timeout = \"2s\" # policy.max-timeout, line 9; asked: \"5m\" (environment: MCP_CONDUCTOR_MAX_TIMEOUT)",
        ];
        assert_eq!(squeezed[..8], expected);
        assert!(text.ends_with("# warning: two lines\n"), "{text}");
        let read: toml_edit::DocumentMut = text.parse().expect("is TOML");
        assert_eq!(read["profiles"]["a b"]["packages"][1].as_str(), Some("x\ny"));
    }
}
