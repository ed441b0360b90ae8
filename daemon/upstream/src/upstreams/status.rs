//! What can be said of the servers, for `list_mcp_servers` and `conductorctl status`.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::command::Found;
use crate::config::{Disabled, Endpoint, Scope, Server};
use crate::connection::open::OpenError;
use crate::connection::state::PhaseStatus;
use crate::error::CallError;
use crate::manifest::Manifest;
use crate::session::{ProfileId, ServerRef};
use crate::upstreams::Upstreams;
use crate::upstreams::registry::{Connection, Entry};

/// Requests of a server that could not be answered, from which on a remedy is recommended.
const ADVISE_FROM: usize = 1;

/// One server of one profile.
#[derive(Debug, Clone, Serialize)]
pub struct ServerStatus {
    pub profile: ProfileId,
    pub name: String,
    pub description: Option<String>,
    pub state: ServerState,
    /// Why it is disabled, or what failed last.
    pub reason: Option<String>,
    /// `stdio`, `http` or `sse`.
    pub transport: Option<&'static str>,
    /// The command or the URL, as far as it may be shown.
    pub target: Option<String>,
    /// Where the command was found.
    pub command: Option<Found>,
    pub scope: Option<Scope>,
    /// Equal for entries that share their connections, whatever they are called.
    #[serde(skip)]
    pub connection: Option<String>,
    pub protocol_version: Option<String>,
    pub n_tools: Option<usize>,
    pub n_prompts: Option<usize>,
    pub n_resources: Option<usize>,
    /// What is wrong with its lists.
    pub problems: Vec<String>,
    /// One for each connection that is open.
    pub pids: Vec<u32>,
    pub n_connections: usize,
    pub n_in_flight: usize,
    /// Processes or connections that were started since the configuration was read.
    pub n_starts: u64,
    pub failures: u32,
    /// Seconds since the youngest connection became ready.
    pub ready_secs: Option<u64>,
    /// Requests of the server that could not be attributed to a session.
    pub n_declined: usize,
    /// What would help.
    pub advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    Disabled,
    /// Not running; starts when it is used.
    Idle,
    Starting,
    Ready,
    /// Failed; the next attempt waits.
    Paused,
    /// Failed so often that calls are refused for a while.
    Unavailable,
}

/// What a profile's code may know of a server without starting it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub name: String,
    pub description: Option<String>,
    pub instructions: Option<String>,
    pub state: ServerState,
    pub reason: Option<String>,
    pub n_tools: Option<usize>,
}

impl Upstreams {
    /// Every server of every profile, by profile and name.
    pub fn status(&self) -> Vec<ServerStatus> {
        let mut profiles: Vec<_> = self.registry().profiles.keys().cloned().collect();
        profiles.sort();
        profiles.iter().flat_map(|profile| self.status_of(profile)).collect()
    }

    /// Names what a server is: equal for equal configurations with equal secrets, whatever the servers are called.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn identity(&self, server: &ServerRef) -> Result<String, CallError> {
        Ok(self.entry(server)?.identity.to_string())
    }

    /// The servers of a profile, by name.
    pub fn status_of(&self, profile: &ProfileId) -> Vec<ServerStatus> {
        let mut registry = self.registry();
        let Some(servers) = registry.profiles.get(profile).cloned() else { return Vec::new() };
        let mut all = Vec::new();
        for (name, server) in servers.set.iter() {
            let mut status = ServerStatus::new(profile, name, server);
            if let Some(entry) = servers.entries.get(name) {
                let manifest = registry.known(&self.0, entry).manifests.current();
                status.fill(entry, &registry.connections_of(entry), manifest.as_deref());
            }
            all.push(status);
        }
        all
    }

    /// The same in short, as a profile's code may see it.
    pub fn summaries(&self, profile: &ProfileId) -> Vec<Summary> {
        let instructions = |name: &str| {
            let server = crate::session::ServerRef::new(profile.clone(), name);
            self.manifest(&server).ok().flatten().and_then(|manifest| manifest.instructions.clone())
        };
        let summary = |status: ServerStatus| Summary {
            instructions: instructions(&status.name),
            name: status.name,
            description: status.description,
            state: status.state,
            reason: status.reason,
            n_tools: status.n_tools,
        };
        self.status_of(profile).into_iter().map(summary).collect()
    }
}

impl ServerStatus {
    fn new(profile: &ProfileId, name: &str, server: &Server) -> Self {
        let reason = match &server.config {
            Err(Disabled::Off) | Ok(_) => None,
            Err(Disabled::Invalid(why)) => Some(why.clone()),
        };
        Self {
            profile: profile.clone(),
            name: name.to_owned(),
            description: server.description.clone(),
            state: if server.config.is_ok() { ServerState::Idle } else { ServerState::Disabled },
            reason,
            transport: None,
            target: None,
            command: None,
            scope: None,
            connection: None,
            protocol_version: None,
            n_tools: None,
            n_prompts: None,
            n_resources: None,
            problems: Vec::new(),
            pids: Vec::new(),
            n_connections: 0,
            n_in_flight: 0,
            n_starts: 0,
            failures: 0,
            ready_secs: None,
            n_declined: 0,
            advice: None,
        }
    }

    fn fill(&mut self, entry: &Entry, connections: &[Connection], manifest: Option<&Manifest>) {
        let config = &entry.config;
        self.transport = Some(match config.endpoint {
            Endpoint::Stdio(_) => "stdio",
            Endpoint::Http { .. } => "http",
            Endpoint::Sse(_) => "sse",
        });
        self.target = Some(config.shown().to_owned());
        self.scope = Some(config.scope);
        self.connection = Some(format!("{} {:?} {:?}", entry.identity, config.life, config.scope));
        match &entry.found {
            Some(Ok(found)) => self.command = Some(found.clone()),
            Some(Err(why)) => self.reason = Some(why.clone()),
            None => {}
        }
        if let Some(manifest) = manifest {
            self.protocol_version = Some(manifest.protocol_version.clone());
            self.n_tools =
                Some(manifest.tool_names().filter(|name| config.tools.denies(name).is_none()).count());
            self.n_prompts = Some(manifest.prompts.len());
            self.n_resources = Some(manifest.resources.len());
            self.problems = manifest.problems.clone();
        }
        for connection in connections {
            self.add(entry, connection);
        }
        if self.n_declined >= ADVISE_FROM && config.scope == Scope::Shared {
            self.advice = Some(format!(
                "it asked its users {} times while several sessions used it; set \"scope\": \"session\" for {}",
                self.n_declined, self.name
            ));
        }
    }

    fn add(&mut self, entry: &Entry, connection: &Connection) {
        let status = connection.status.borrow();
        let state = match status.phase {
            PhaseStatus::Idle => ServerState::Idle,
            PhaseStatus::Starting => ServerState::Starting,
            PhaseStatus::Ready { .. } => ServerState::Ready,
            PhaseStatus::Paused { until, .. } if until <= Instant::now() => ServerState::Idle,
            PhaseStatus::Paused { open: false, .. } => ServerState::Paused,
            PhaseStatus::Paused { open: true, .. } => ServerState::Unavailable,
        };
        if self.n_connections == 0 || state == ServerState::Ready {
            self.state = state;
        }
        self.n_starts += status.n_starts;
        self.failures = self.failures.max(status.failures);
        self.n_declined += connection.declined.load(Ordering::Relaxed);
        if let Some(live) = &status.live {
            self.n_connections += 1;
            self.pids.extend(live.pid);
            self.n_in_flight += live.users.n_calls();
            let age = status.ready_since.and_then(|since| SystemTime::now().duration_since(since).ok());
            self.ready_secs =
                age.map(|age| self.ready_secs.map_or(age.as_secs(), |other| other.min(age.as_secs())));
        }
        match &status.last_failure {
            Some(OpenError::Auth) => self.reason = Some("it wants authorisation".to_owned()),
            Some(OpenError::Failed { reason, .. }) => {
                self.reason = Some(entry.config.redactor.redact(reason))
            }
            None => {}
        }
    }
}
