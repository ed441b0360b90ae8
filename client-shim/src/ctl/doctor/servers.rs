//! Upstream MCP servers: whether the configuration can be read, and where the command of each is found.

use conductor_protocol::ClientKind;
use conductor_protocol::operation::{Operation, ServersReport};
use conductor_protocol::status::UpstreamStatus;
use serde::Deserialize as _;

use super::super::GlobalOptions;
use super::super::client::Admin;
use super::super::failure::Failure;
use super::{Check, Verdict};

const CONFIG: &str = "mcp config";
const SERVER: &str = "mcp server";

/// Asks a daemon that runs; without one there is nothing to tell.
pub(super) fn checks(global: &GlobalOptions) -> Vec<Check> {
    let Ok(mut admin) = Admin::connect(&global.route_to_running(ClientKind::Admin)) else {
        return Vec::new();
    };
    match admin.operate(&Operation::ServersList) {
        Ok(document) => of(&ServersReport::deserialize(document).unwrap_or_default()),
        Err(error) => {
            let words = Failure::Client(error).text().unwrap_or_default();
            vec![Check { verdict: Verdict::Warn, ..Check::fail_in_words(CONFIG, &words) }]
        }
    }
}

fn of(report: &ServersReport) -> Vec<Check> {
    let file = report.config.as_deref().unwrap_or("none");
    let config = match &report.error {
        Some(error) => Check::fail_in_words(CONFIG, error),
        None if report.servers.is_empty() => Check::ok(CONFIG, format!("{file}, no servers")),
        None => Check::ok(CONFIG, file),
    };
    let warnings = report.warnings.iter();
    let warnings = warnings.map(|warning| Check::warn(CONFIG, warning, format!("repair {file}")));
    std::iter::once(config).chain(warnings).chain(report.servers.iter().map(server)).collect()
}

fn server(server: &UpstreamStatus) -> Check {
    let name = &server.name;
    let target = server.target.as_deref().unwrap_or_default();
    let found = match &server.command {
        Some(command) => format!("{name}: {} (from {})", command.program, command.place),
        None => format!("{name}: {target}"),
    };
    match (&server.reason, server.state.as_str()) {
        (None, "disabled") => Check::ok(SERVER, format!("{name}: switched off")),
        (None, _) => Check::ok(SERVER, found),
        (Some(reason), _) => {
            let words = match &server.command {
                Some(_) => format!("{found}: {reason}"),
                None => format!("{name}: {reason}"),
            };
            let check = Check::fail_in_words(SERVER, &words);
            let fix = check.fix.or_else(|| match server.state.as_str() {
                "disabled" => Some("repair its entry; the others work".to_owned()),
                _ => Some(format!("conductorctl servers logs {name}")),
            });
            // Code runs without it.
            Check { verdict: Verdict::Warn, fix, ..check }
        }
    }
}

#[cfg(test)]
mod tests {
    use conductor_protocol::status::CommandStatus;

    use super::*;

    #[test]
    fn each_server_says_where_its_command_is_or_how_to_get_it() {
        let named = |name: &str| UpstreamStatus {
            name: name.into(),
            state: "idle".into(),
            ..UpstreamStatus::default()
        };
        let command = CommandStatus { program: "/n/npx".into(), place: "the login shell's PATH".into() };
        let report = ServersReport {
            config: Some("/c.json".into()),
            servers: vec![
                UpstreamStatus { command: Some(command), ..named("found") },
                UpstreamStatus { reason: Some("no uvx\nhint: install it".into()), ..named("missing") },
                UpstreamStatus { state: "disabled".into(), reason: Some("no url".into()), ..named("broken") },
                UpstreamStatus { target: Some("https://x/mcp".into()), ..named("web") },
            ],
            ..ServersReport::default()
        };
        let told: Vec<_> = of(&report).into_iter().map(|it| (it.verdict, it.text, it.fix)).collect();
        let ok = |text: &str| (Verdict::Ok, text.to_owned(), None);
        let warn = |text: &str, fix: &str| (Verdict::Warn, text.to_owned(), Some(fix.to_owned()));
        let expected = [
            ok("/c.json"),
            ok("found: /n/npx (from the login shell's PATH)"),
            warn("missing: no uvx", "install it"),
            warn("broken: no url", "repair its entry; the others work"),
            ok("web: https://x/mcp"),
        ];
        assert_eq!(told, expected);
        let failed = ServersReport { error: Some("line 1".into()), ..ServersReport::default() };
        assert_eq!(of(&failed)[0].verdict, Verdict::Fail);
    }
}
