//! Upstream MCP servers for sessions: which configuration a session has, and who still needs its servers.
//!
//! A session's configuration file becomes a [`Registration`]: the same text with the same references is the same
//! registration, so IDE windows share servers, and a file that was edited is a new one, whose unchanged servers go on.
//! Owns the registrations and what was learnt of tools' answers. The servers themselves belong to `conductor_upstream`.

pub(crate) mod auth;
pub(crate) mod calls;
mod learnt;
pub(crate) mod references;
pub(crate) mod report;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use conductor_catalog::{CheckerCache, ToolEntry};
use conductor_upstream::config::{Expansion, ServerSet};
use conductor_upstream::keyring::SystemKeyring;
use conductor_upstream::{ClientRequests, Manifest, ProfileId, ServerRef, Upstreams, UpstreamsOptions};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::config::read_trusted;
use crate::dirs::Dirs;
use crate::error_chain;
use crate::profile::{McpConfig, Profile};
use crate::watched::WatchedFiles;
use auth::Logins;
use learnt::Learnt;

/// How long the servers of a configuration stay when its last session is gone: an IDE that is started again finds them.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// Between two looks for registrations that nobody needs.
const SWEEP: Duration = Duration::from_secs(60);

/// Between two looks for files that nobody needs.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks after the upstream servers of all sessions.
#[derive(Debug)]
pub struct UpstreamService {
    upstreams: Upstreams,
    /// By what makes them equal, see [`identity`].
    registrations: Mutex<HashMap<String, Held>>,
    checkers: CheckerCache,
    learnt: Arc<Learnt>,
    home: PathBuf,
    files: WatchedFiles,
    logins: Logins,
}

#[derive(Debug)]
struct Held {
    source: Source,
    registration: Weak<Registration>,
    /// Keeps the servers while nobody has them; `None` when the file says something else now.
    kept: Option<Arc<Registration>>,
    /// When somebody last asked for it or was seen to have it.
    needed_at: Instant,
}

/// What a registration was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    text: [u8; 32],
}

/// A configuration that was read.
struct Loaded {
    identity: String,
    source: Source,
    set: ServerSet,
}

/// The servers of one configuration, ready to be used. Those that nobody else has end when it is dropped.
#[derive(Debug)]
pub struct Registration {
    pub id: ProfileId,
    /// Every server of the file, disabled ones among them.
    pub names: Vec<String>,
    /// What looks like a mistake in the file and disables nothing.
    pub warnings: Vec<String>,
    upstreams: Upstreams,
}

/// What a session has of upstream servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Servers {
    /// The file is being read.
    #[default]
    Pending,
    /// No file, or one without servers.
    None,
    /// Why the file cannot be used.
    Failed(Arc<str>),
    Ready(Arc<Registration>),
}

impl Servers {
    pub fn registration(&self) -> Option<&Arc<Registration>> {
        match self {
            Self::Ready(registration) => Some(registration),
            Self::Pending | Self::None | Self::Failed(_) => None,
        }
    }

    /// What code finds below `mcp`: nothing where the file cannot be used, so that a call can say why; `None` where there are
    /// no servers, and no `mcp`.
    pub(crate) fn names(&self) -> Option<&[String]> {
        match self {
            Self::Ready(registration) => Some(&registration.names),
            Self::Pending | Self::Failed(_) => Some(&[]),
            Self::None => None,
        }
    }
}

/// Why a configuration of servers is not used.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Read(#[from] crate::config::ConfigError),
    #[error("{} is wrong\n{why}", .path.display())]
    Parse { path: PathBuf, why: String },
    #[error(
        "{} can be changed by code of this session, which may write there\nhint: keep it outside of what allow-write grants",
        .0.display()
    )]
    Writable(PathBuf),
}

impl UpstreamService {
    /// `clients` answers what servers ask of sessions' clients.
    pub fn new(dirs: &Dirs, clients: Arc<dyn ClientRequests>) -> Self {
        let mut options = UpstreamsOptions::new(dirs.state.join("upstreams"), dirs.home.clone());
        options.client_requests = Some(clients);
        Self {
            upstreams: Upstreams::new(options),
            registrations: Mutex::default(),
            checkers: CheckerCache::default(),
            learnt: Arc::new(Learnt::open(dirs.state.join("upstreams/learnt.json"))),
            home: dirs.home.clone(),
            files: WatchedFiles::default(),
            logins: Logins::default(),
        }
    }

    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Changes whenever a configuration file does.
    pub fn file_changes(&self) -> watch::Receiver<u64> {
        self.files.changes()
    }

    /// Reads the profile's configuration of servers and makes them usable. `env` is the client's.
    ///
    /// # Cancel safety
    /// Safe; what was registered is swept later.
    pub async fn load(&self, profile: &Profile, env: &BTreeMap<String, String>) -> Servers {
        let Some(config) = &profile.mcp_config else { return Servers::None };
        self.files.watch(&config.path);
        let Loaded { identity, source, set } = match self.read(profile, config, env).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                self.outdate(&config.path, None);
                return Servers::None;
            }
            // Its servers stay a while: who writes a file by hand makes a mistake and corrects it.
            Err(error) => return Servers::Failed(error_chain(&error).into()),
        };
        self.outdate(&config.path, Some(&source));
        if set.iter().next().is_none() {
            return Servers::None;
        }
        let known = self.known(&identity);
        let registration = known.unwrap_or_else(|| Arc::new(Registration::new(&self.upstreams, &set)));
        // For a known one, too: secrets in files and keyrings change without the configuration.
        self.upstreams.set(&registration.id, set).await;
        // Another session may have been faster.
        let registration = self.known(&identity).unwrap_or(registration);
        let (shared, kept) = (Arc::downgrade(&registration), Some(registration.clone()));
        let held = Held { source, registration: shared, kept, needed_at: Instant::now() };
        self.registrations().insert(identity, held);
        Servers::Ready(registration)
    }

    fn known(&self, identity: &str) -> Option<Arc<Registration>> {
        self.registrations().get(identity)?.registration.upgrade()
    }

    /// What was read from a file that says something else now goes with its last user.
    fn outdate(&self, path: &Path, current: Option<&Source>) {
        let mut all = self.registrations();
        let outdated = |held: &&mut Held| held.source.path == path && current != Some(&held.source);
        for held in all.values_mut().filter(outdated) {
            held.kept = None;
        }
    }

    /// `None` when there is no file and nobody asked for one.
    async fn read(
        &self,
        profile: &Profile,
        config: &McpConfig,
        env: &BTreeMap<String, String>,
    ) -> Result<Option<Loaded>, LoadError> {
        let text = match read_trusted(&config.path) {
            Ok(text) => text,
            Err(crate::config::ConfigError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !config.required =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if profile.may_write(&config.path) {
            return Err(LoadError::Writable(config.path.clone()));
        }
        let (env, home, workspace) = (env.clone(), self.home.clone(), profile.workspace.clone());
        let defaults = profile.server_defaults;
        let tenant = profile.tenant.clone();
        let identity = identity(&config.path, &text, &env, &workspace, tenant.as_deref());
        let source = Source { path: config.path.clone(), text: Sha256::digest(&text).into() };
        // A keyring may ask its user, and files are read.
        let parsed = tokio::task::spawn_blocking(move || {
            let expansion = Expansion {
                env: &|name| env.get(name).cloned(),
                home: &home,
                workspace: Some(&workspace),
                keyring: &SystemKeyring,
            };
            let mut set =
                ServerSet::parse_with(&text, &expansion, &defaults).map_err(|error| error_chain(&error))?;
            set.session_path = env.get("PATH").map(Into::into);
            tenant.iter().for_each(|tenant| set.for_tenant(tenant));
            Ok::<_, String>(set)
        });
        let parsed = parsed.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        match parsed {
            Ok(set) => Ok(Some(Loaded { identity, source, set })),
            Err(why) => Err(LoadError::Parse { path: source.path, why }),
        }
    }

    /// The tools of a server as far as they are known, with the types of their answers.
    pub fn tools(&self, server: &ServerRef, manifest: &Manifest) -> Vec<ToolEntry> {
        let identity = self.upstreams.identity(server).ok();
        let observed = |tool: &ToolEntry| self.learnt.of(identity.as_deref()?, &tool.name);
        let listed = manifest.tools.iter().filter_map(|tool| ToolEntry::from_listed(&server.name, tool));
        listed
            .map(|tool| match tool.output_schema {
                Some(_) => tool,
                None => ToolEntry { observed: observed(&tool), ..tool },
            })
            .collect()
    }

    fn learn(&self, server: &ServerRef, tool: &str, value: &serde_json::Value) {
        // Gone in the meantime: nobody will ask.
        if let Ok(identity) = self.upstreams.identity(server) {
            self.learnt.learn(&identity, tool, value);
        }
    }

    /// Forgets what nobody needed for a while, for as long as the daemon runs.
    pub async fn sweep(&self) {
        let (mut ticks, mut days) = (tokio::time::interval(SWEEP), tokio::time::interval(DAY));
        loop {
            tokio::select! {
                // Cancel-safe, both: a tick that is not taken stays.
                _ = ticks.tick() => {}
                _ = days.tick() => {
                    let upstreams = self.upstreams.clone();
                    // Nobody waits for it.
                    drop(tokio::task::spawn_blocking(move || upstreams.prune_manifests()));
                }
            }
            self.save_learnt().await;
            self.prune();
            self.logins.prune();
        }
    }

    fn prune(&self) {
        let now = Instant::now();
        self.registrations().retain(|_, held| match &held.kept {
            Some(kept) => {
                if Arc::strong_count(kept) > 1 {
                    held.needed_at = now;
                }
                now.duration_since(held.needed_at) < LINGER
            }
            None => held.registration.strong_count() > 0,
        });
    }

    /// Writes to the disk, so not on a thread that others wait for.
    async fn save_learnt(&self) {
        let learnt = self.learnt.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || learnt.save()).await {
            tracing::error!(%error, "what was learnt of tools is not kept");
        }
    }

    /// Ends all servers: calls may finish until `deadline`.
    pub async fn shutdown(&self, deadline: Instant) {
        self.save_learnt().await;
        self.upstreams.shutdown(deadline.into()).await;
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    fn new(upstreams: &Upstreams, set: &ServerSet) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Never that of an earlier one with the same content, whose end would take the servers along.
        let id = ProfileId::new(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let names = set.iter().map(|(name, _)| name.to_owned()).collect();
        Self { id, names, warnings: set.warnings.clone(), upstreams: upstreams.clone() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.upstreams.remove(&self.id);
    }
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Registration {}

/// Equal for sessions that get the same servers.
fn identity(
    path: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
    workspace: &Path,
    tenant: Option<&str>,
) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(path.as_os_str().as_encoded_bytes());
    part(text.as_bytes());
    for name in references::of(text).into_iter().chain(["PATH".to_owned()]) {
        part(name.as_bytes());
        part(env.get(&name).map_or(&[][..], String::as_bytes));
    }
    if text.contains("${workspace") {
        part(workspace.as_os_str().as_encoded_bytes());
    }
    if let Some(tenant) = tenant {
        part(b"tenant");
        part(tenant.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_why_a_configuration_cannot_be_used() {
        let failed = Servers::Failed("line 2".into());
        assert_eq!((failed.names(), Servers::None.names()), (Some(&[][..]), None));
        let error = calls::unusable(&failed).expect("a reason");
        assert_eq!((error.name.as_str(), error.message.as_str()), ("McpToolError", "line 2"));
        assert_eq!(calls::unusable(&Servers::None), None);
    }

    #[test]
    fn sessions_share_servers_unless_a_reference_tells_them_apart() {
        let env = |list: &[(&str, &str)]| {
            list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let id = |text: &str, variables: &[(&str, &str)], workspace: &str| {
            identity(Path::new("/c.json"), text, &env(variables), Path::new(workspace), None)
        };
        let plain = r#"{"mcpServers":{"a":{"command":"a"}}}"#;
        assert_eq!(id(plain, &[("X", "1")], "/a"), id(plain, &[("X", "2")], "/b"));
        assert_ne!(id(plain, &[("PATH", "/a")], "/a"), id(plain, &[("PATH", "/b")], "/a"));
        let token = r#"{"mcpServers":{"a":{"command":"a","env":{"T":"${env:X}"}}}}"#;
        assert_ne!(id(token, &[("X", "1")], "/a"), id(token, &[("X", "2")], "/a"));
        let folder = r#"{"mcpServers":{"a":{"command":"a","args":["${workspaceFolder}"]}}}"#;
        assert_ne!(id(folder, &[], "/a"), id(folder, &[], "/b"));
        let of = |tenant| identity(Path::new("/c.json"), plain, &env(&[]), Path::new("/a"), tenant);
        assert_ne!(of(Some("a")), of(Some("b")));
        assert_ne!(of(Some("a")), of(None));
    }
}
