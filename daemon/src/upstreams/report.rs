//! What operators see of upstream servers, and what they can do to them.
//!
//! Registrations differ where sessions' environments do; servers that share their connections are one row all the same. An
//! operator names servers by their name alone and means all of that name: his own environment need not be an IDE's.

use std::collections::BTreeMap;

use conductor_protocol::operation::{ServerLog, ServerLogLine, ServerLogs};
use conductor_protocol::status::{CommandStatus, UpstreamStatus};
use conductor_upstream::{CallError, LogLine, ProfileId, ServerRef, ServerStatus};
use serde::Serialize;

use super::UpstreamService;
use super::calls::did_you_mean;

/// Who has which registration: sessions by the registration they have.
pub(crate) type Users = BTreeMap<ProfileId, Vec<u64>>;

/// Why nothing was done to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("there is no MCP server named `{name}`{near}")]
    Unknown { name: String, near: String },
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A distinct server, with every registration that has it.
struct Distinct {
    status: ServerStatus,
    profiles: Vec<ProfileId>,
}

impl UpstreamService {
    /// One row for each distinct server, by name; those of one registration, or all.
    pub(crate) fn rows(&self, users: &Users, only: Option<&ProfileId>) -> Vec<UpstreamStatus> {
        let all = self.distinct().into_iter();
        let chosen = all.filter(|it| only.is_none_or(|only| it.profiles.contains(only)));
        chosen.map(|it| it.row(users)).collect()
    }

    /// The rows that a registration does not have.
    pub(crate) fn rows_without(&self, users: &Users, without: Option<&ProfileId>) -> Vec<UpstreamStatus> {
        let all = self.distinct().into_iter();
        let chosen = all.filter(|it| without.is_none_or(|without| !it.profiles.contains(without)));
        chosen.map(|it| it.row(users)).collect()
    }

    /// The last lines of every server of this name.
    pub(crate) fn logs(&self, name: &str, users: &Users) -> Result<ServerLogs, ServerError> {
        let log = |it: &Distinct| {
            let lines = self.upstreams().logs(&it.server())?;
            Ok(ServerLog {
                name: it.status.name.clone(),
                target: it.status.target.clone(),
                sessions: it.sessions(users),
                lines: lines.iter().map(line).collect(),
            })
        };
        let logs: Result<Vec<_>, CallError> = self.named(name)?.iter().map(log).collect();
        Ok(ServerLogs { servers: logs? })
    }

    /// Does something to every server of this name; gives how many there are.
    pub(crate) fn each(
        &self,
        name: &str,
        act: impl Fn(&ServerRef) -> Result<(), CallError>,
    ) -> Result<usize, ServerError> {
        let named = self.named(name)?;
        named.iter().try_for_each(|it| act(&it.server()))?;
        Ok(named.len())
    }

    fn named(&self, name: &str) -> Result<Vec<Distinct>, ServerError> {
        let (named, others): (Vec<_>, Vec<_>) =
            self.distinct().into_iter().partition(|it| it.status.name == name);
        if named.is_empty() {
            let near = did_you_mean(name, others.iter().map(|it| it.status.name.as_str()));
            return Err(ServerError::Unknown { name: name.to_owned(), near });
        }
        Ok(named)
    }

    fn distinct(&self) -> Vec<Distinct> {
        let mut all: BTreeMap<_, Distinct> = BTreeMap::new();
        for status in self.upstreams().status() {
            let key = (status.name.clone(), status.connection.clone(), status.target.clone());
            let profile = status.profile.clone();
            all.entry(key)
                .or_insert_with(|| Distinct { status, profiles: Vec::new() })
                .profiles
                .push(profile);
        }
        all.into_values().collect()
    }
}

impl Distinct {
    fn server(&self) -> ServerRef {
        ServerRef::new(self.status.profile.clone(), self.status.name.clone())
    }

    fn sessions(&self, users: &Users) -> Vec<u64> {
        let mut sessions: Vec<u64> =
            self.profiles.iter().filter_map(|profile| users.get(profile)).flatten().copied().collect();
        sessions.sort_unstable();
        sessions
    }

    fn row(&self, users: &Users) -> UpstreamStatus {
        let status = &self.status;
        let count = |n: Option<usize>| n.map(|n| n as u64);
        UpstreamStatus {
            name: status.name.clone(),
            description: status.description.clone(),
            state: word(&status.state),
            reason: status.reason.clone(),
            transport: status.transport.map(str::to_owned),
            target: status.target.clone(),
            command: status.command.as_ref().map(|found| CommandStatus {
                program: found.program.display().to_string(),
                place: found.place.to_string(),
            }),
            scope: status.scope.as_ref().map(word),
            protocol_version: status.protocol_version.clone(),
            tools: count(status.n_tools),
            prompts: count(status.n_prompts),
            resources: count(status.n_resources),
            problems: status.problems.clone(),
            sessions: self.sessions(users),
            pids: status.pids.clone(),
            connections: status.n_connections as u64,
            in_flight: status.n_in_flight as u64,
            starts: status.n_starts,
            failures: status.failures.into(),
            ready_ms: status.ready_secs.map(|secs| secs.saturating_mul(1000)),
            declined: status.n_declined as u64,
            advice: status.advice.clone(),
        }
    }
}

fn line(line: &LogLine) -> ServerLogLine {
    ServerLogLine {
        at: humantime::format_rfc3339_millis(line.at).to_string(),
        source: word(&line.source),
        text: line.text.clone(),
    }
}

/// The word that stands for a value without fields.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
