//! `conductorctl servers`: the upstream MCP servers that code may call, and what they say.
//!
//! `list` tells those of the profile that a session started here would have, and the other ones there are. The other commands
//! mean every server of the name: the environment here need not be that of an IDE.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use conductor_protocol::ClientKind;
use conductor_protocol::operation::{Operation, ServerLog, ServerLogs, ServersReport};
use serde::de::DeserializeOwned;

use super::client::{Admin, ClientError};
use super::failure::Failure;
use super::paint::{Paint, printable};
use super::render::Page;
use super::run::PROFILE_VARIABLE;
use super::{GlobalOptions, exit_code};

#[derive(Clone, Debug, Args)]
pub(super) struct ServersOptions {
    #[command(subcommand)]
    command: Command,
    /// The profile that is meant [env: MCP_CONDUCTOR_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the servers, how they do, and who uses them
    List(JsonOutput),
    /// Show the last lines that a server wrote, and what became of it
    Logs {
        server: String,
        #[command(flatten)]
        output: JsonOutput,
    },
    /// Replace a server by a fresh one; calls in flight finish
    Restart { server: String },
    /// End a server once its calls are done; it starts again when it is used
    Stop { server: String },
}

#[derive(Clone, Copy, Debug, Args)]
struct JsonOutput {
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn servers(global: &GlobalOptions, options: &ServersOptions) -> Result<u8, Failure> {
    let mut route = global.route(ClientKind::Admin);
    if let Some(profile) = &options.profile {
        route.caller.env.insert(PROFILE_VARIABLE.into(), profile.clone());
    }
    let mut admin = Admin::connect(&route)?;
    match &options.command {
        Command::List(output) => show(&mut admin, &Operation::ServersList, *output, list),
        Command::Logs { server, output } => {
            show(&mut admin, &Operation::ServersLogs { server: server.clone() }, *output, logs)
        }
        Command::Restart { server } => {
            perform(&mut admin, &Operation::ServersRestart { server: server.clone() })
        }
        Command::Stop { server } => perform(&mut admin, &Operation::ServersStop { server: server.clone() }),
    }
}

fn show<T: DeserializeOwned>(
    admin: &mut Admin,
    operation: &Operation,
    output: JsonOutput,
    render: fn(&T, Paint) -> String,
) -> Result<u8, Failure> {
    let document = admin.operate(operation)?;
    if output.json {
        writeln!(io::stdout(), "{document:#}")?;
    } else {
        let report = serde_json::from_value(document)
            .map_err(|_| ClientError::Protocol { expected: "a report on servers" })?;
        write!(io::stdout(), "{}", render(&report, Paint::stdout()))?;
    }
    Ok(exit_code::OK)
}

fn perform(admin: &mut Admin, operation: &Operation) -> Result<u8, Failure> {
    let text = admin.perform(operation)?;
    writeln!(io::stdout(), "{}", printable(&text))?;
    Ok(exit_code::OK)
}

fn list(report: &ServersReport, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let file = report.config.as_deref().unwrap_or("none is configured");
    page.heading("Servers", &printable(file));
    if let Some(error) = &report.error {
        page.failure(error);
    }
    if report.servers.is_empty() && report.error.is_none() {
        page.line("  there are none; docs/MCP_PROXY.md tells how to write the file");
    }
    for warning in &report.warnings {
        page.warning(warning);
    }
    page.servers(&report.servers);
    if !report.others.is_empty() {
        page.heading("Of other configurations", &report.others.len().to_string());
        page.servers(&report.others);
    }
    page.text()
}

fn logs(report: &ServerLogs, paint: Paint) -> String {
    let mut text = String::new();
    for log in &report.servers {
        if report.servers.len() > 1 {
            let target = printable(log.target.as_deref().unwrap_or_default());
            writeln!(text, "{}", paint.bold(&format!("{} ({target})", printable(&log.name))))
                .expect("a String takes everything");
        }
        text.push_str(&lines(log, paint));
    }
    text
}

fn lines(log: &ServerLog, paint: Paint) -> String {
    if log.lines.is_empty() {
        return format!("{} has said nothing\n", printable(&log.name));
    }
    let line = |line: &conductor_protocol::operation::ServerLogLine| {
        let head = paint.dim(&format!("{} {:<9}", printable(&line.at), printable(&line.source)));
        format!("{head} {}\n", printable(&line.text).replace('\n', "\n  "))
    };
    log.lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use conductor_protocol::operation::ServerLogLine;
    use conductor_protocol::status::{CommandStatus, UpstreamStatus};

    use super::*;

    #[test]
    fn a_list_tells_how_each_server_does_and_what_is_wrong() {
        let ready = UpstreamStatus {
            name: "github".into(),
            state: "ready".into(),
            transport: Some("stdio".into()),
            target: Some("npx github-mcp".into()),
            command: Some(CommandStatus {
                program: "/usr/bin/npx".into(),
                place: "the session's PATH".into(),
            }),
            tools: Some(26),
            sessions: vec![1, 2],
            pids: vec![42],
            ..UpstreamStatus::default()
        };
        let broken = UpstreamStatus {
            name: "typo".into(),
            state: "disabled".into(),
            reason: Some("it has neither `command` nor `url`".into()),
            ..UpstreamStatus::default()
        };
        let report = ServersReport {
            config: Some("/h/mcp.json".into()),
            servers: vec![ready, broken],
            others: vec![UpstreamStatus { name: "other".into(), ..UpstreamStatus::default() }],
            ..ServersReport::default()
        };
        let text = list(&report, Paint::Plain);
        for says in [
            "/h/mcp.json",
            "github",
            "ready",
            "26",
            "42",
            "typo: it has neither",
            "Of other configurations: 1",
        ] {
            assert!(text.contains(says), "{says} is not in:\n{text}");
        }
        let failed =
            ServersReport { error: Some("line 3\nhint: mend it".into()), ..ServersReport::default() };
        assert!(list(&failed, Paint::Plain).contains("line 3"));
        assert!(list(&ServersReport::default(), Paint::Plain).contains("there are none"));
    }

    #[test]
    fn logs_of_several_servers_of_a_name_are_told_apart_and_draw_nothing() {
        let line = ServerLogLine { at: "2026".into(), source: "stderr".into(), text: "a\u{1b}[2J".into() };
        let log =
            ServerLog { name: "s".into(), target: Some("cmd".into()), sessions: vec![], lines: vec![line] };
        let one = ServerLogs { servers: vec![log.clone()] };
        assert_eq!(logs(&one, Paint::Plain), "2026 stderr    a\u{fffd}[2J\n");
        let two = ServerLogs { servers: vec![log, ServerLog { name: "s".into(), ..ServerLog::default() }] };
        assert!(logs(&two, Paint::Plain).contains("s (cmd)\n"));
        assert!(logs(&two, Paint::Plain).contains("s has said nothing\n"));
    }
}
