//! The upstream servers of a session: `mcpServers` as IDEs write it, read, expanded and checked.
//!
//! In: the text of the file and where its references take their values from. Out: a [`ServerSet`], in which a bad entry
//! is disabled with its reason and the others stand. Nothing is started here.

mod entry;
pub(crate) mod expand;
mod jsonc;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use crate::config::expand::Expansion;
pub use crate::config::parse::ParseError;
use crate::secret::{Redactor, Secret};

/// How long a request may take if the entry does not say, unless the server reports progress.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may lie unused if the entry does not say: long enough for a pause at the keyboard, short enough
/// that a night costs nothing.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// All servers of one configuration.
#[derive(Debug, Clone, Default)]
pub struct ServerSet {
    servers: BTreeMap<String, Server>,
    /// What looks like a mistake and disables nothing, one line each.
    pub warnings: Vec<String>,
    /// PATH of the session that the set belongs to, for finding commands.
    pub session_path: Option<OsString>,
}

/// One entry of a configuration.
#[derive(Debug, Clone)]
pub struct Server {
    pub description: Option<String>,
    pub config: Result<Arc<ServerConfig>, Disabled>,
}

/// Why an entry cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disabled {
    /// `"disabled": true`.
    Off,
    /// What is wrong with the entry.
    Invalid(String),
}

/// A server that can be used.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub(crate) endpoint: Endpoint,
    pub(crate) life: Life,
    pub scope: Scope,
    /// How long a request may take without progress.
    pub timeout: Duration,
    pub tools: ToolFilter,
    pub expose: BTreeSet<Expose>,
    /// What the names of exposed tools and prompts begin with; may be empty.
    pub expose_prefix: Option<String>,
    /// Whose it is, where users share the daemon; see [`ServerSet::for_tenant`].
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) redactor: Redactor,
}

/// How a server is reached. Everything is expanded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Stdio(Stdio),
    /// Streamable HTTP; tries the older transport where that was not named and the server refuses this one.
    Http {
        remote: Remote,
        named: bool,
    },
    /// HTTP with server-sent events, of protocol revision 2024-11-05.
    Sse(Remote),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stdio {
    /// As the user wrote it, for messages: arguments may hold secrets.
    pub(crate) shown: String,
    pub(crate) command: Secret,
    pub(crate) args: Vec<Secret>,
    pub(crate) env: BTreeMap<String, Secret>,
    pub(crate) cwd: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Remote {
    /// Scheme, host and path: what may be shown of the URL.
    pub(crate) shown: String,
    pub(crate) url: Secret,
    pub(crate) headers: BTreeMap<String, Secret>,
}

/// When a connection starts and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    pub(crate) start: Start,
    /// `None`: never stopped for being idle.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
}

/// What holds for servers whose entry does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerDefaults {
    pub scope: Scope,
    pub start: Start,
    /// `None`: never stopped for being idle.
    pub idle_timeout: Option<Duration>,
    /// `None`: never replaced for its age.
    pub max_lifetime: Option<Duration>,
    /// How long a request may take without progress.
    pub timeout: Duration,
}

/// Who shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everybody whose configuration is the same.
    #[default]
    Shared,
    /// One for each session.
    Session,
    /// A fresh one for each call of a tool.
    Call,
}

/// When a server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// When it is first used.
    #[default]
    Lazy,
    /// At once, and again when it ends.
    Eager,
}

/// What of a server the client sees as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expose {
    Tools,
    Resources,
    Prompts,
}

/// Which tools of a server may be called: those that match `allow_tools`, if it is given, and do not match `deny_tools`.
#[derive(Debug, Clone, Default)]
pub struct ToolFilter {
    pub(crate) allow: Option<GlobSet>,
    pub(crate) deny: Option<GlobSet>,
}

/// What distinguishes one connection's configuration from another's, resolved secrets included. Says nothing of them: it
/// is a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; 16]);

/// What two configurations differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Their entry changed, or a secret that it names.
    pub changed: Vec<String>,
}

impl Default for ServerDefaults {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            start: Start::default(),
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            max_lifetime: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl ServerSet {
    /// Reads the text of a configuration. It may have comments and trailing commas, as editors allow.
    ///
    /// # Errors
    /// The text is no JSON, or no object with `mcpServers` (or VS Code's `servers`) in it.
    pub fn parse(text: &str, expansion: &Expansion<'_>) -> Result<Self, ParseError> {
        Self::parse_with(text, expansion, &ServerDefaults::default())
    }

    /// The same, with other defaults than the built-in ones.
    ///
    /// # Errors
    /// As [`ServerSet::parse`].
    pub fn parse_with(
        text: &str,
        expansion: &Expansion<'_>,
        defaults: &ServerDefaults,
    ) -> Result<Self, ParseError> {
        parse::parse(text, expansion, defaults)
    }

    /// Makes the servers those of one user alone: connections, logins and what is remembered of them are shared with no
    /// other, however equal the configuration is.
    pub fn for_tenant(&mut self, tenant: &Arc<str>) {
        for server in self.servers.values_mut() {
            if let Ok(config) = &mut server.config {
                Arc::make_mut(config).tenant = Some(tenant.clone());
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Server> {
        self.servers.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.servers.iter().map(|(name, server)| (name.as_str(), server))
    }

    /// Which servers are others in `newer`. Only these need to restart.
    pub fn changes(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        for name in self.servers.keys().chain(newer.servers.keys()).collect::<BTreeSet<_>>() {
            let list = match (self.get(name), newer.get(name)) {
                (None, _) => &mut changes.added,
                (_, None) => &mut changes.removed,
                (Some(old), Some(new)) if old.fingerprint() != new.fingerprint() => &mut changes.changed,
                _ => continue,
            };
            list.push(name.clone());
        }
        changes
    }
}

impl Server {
    fn fingerprint(&self) -> Result<(Identity, Life, Scope), Disabled> {
        let config = self.config.as_ref().map_err(Clone::clone)?;
        Ok((config.identity(None), config.life, config.scope))
    }
}

impl ServerConfig {
    /// The identity of a connection to this server, whose command was found at `program`.
    pub fn identity(&self, program: Option<&Path>) -> Identity {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let mut map = |kind: &str, map: &BTreeMap<String, Secret>| {
            part(kind.as_bytes());
            part(&map.len().to_le_bytes());
            for (name, value) in map {
                part(name.as_bytes());
                part(value.expose().as_bytes());
            }
        };
        match &self.endpoint {
            Endpoint::Stdio(stdio) => {
                map("stdio", &stdio.env);
                part(stdio.command.expose().as_bytes());
                part(&stdio.args.len().to_le_bytes());
                for arg in &stdio.args {
                    part(arg.expose().as_bytes());
                }
                part(stdio.cwd.as_deref().map_or(b"".as_slice(), |cwd| cwd.as_os_str().as_encoded_bytes()));
                part(program.map_or(b"".as_slice(), |program| program.as_os_str().as_encoded_bytes()));
            }
            Endpoint::Http { remote, named } => {
                map(if *named { "http" } else { "http or sse" }, &remote.headers);
                part(remote.url.expose().as_bytes());
            }
            Endpoint::Sse(remote) => {
                map("sse", &remote.headers);
                part(remote.url.expose().as_bytes());
            }
        }
        if let Some(tenant) = &self.tenant {
            part(b"tenant");
            part(tenant.as_bytes());
        }
        let digest = hash.finalize();
        Identity(digest[..16].try_into().expect("a digest has 32 bytes"))
    }

    /// What may be shown of how the server is reached.
    pub fn shown(&self) -> &str {
        match &self.endpoint {
            Endpoint::Stdio(stdio) => &stdio.shown,
            Endpoint::Http { remote, .. } | Endpoint::Sse(remote) => &remote.shown,
        }
    }

    /// Takes this server's secrets out of texts.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

impl ToolFilter {
    /// Why `tool` may not be called, if so: the key of the entry that forbids it.
    pub fn denies(&self, tool: &str) -> Option<&'static str> {
        match self {
            Self { deny: Some(deny), .. } if deny.is_match(tool) => Some("deny_tools"),
            Self { allow: Some(allow), .. } if !allow.is_match(tool) => Some("allow_tools"),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

impl fmt::Display for Disabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it is disabled in the configuration"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}
