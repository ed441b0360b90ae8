//! Upstream MCP servers for sessions: which configuration a session has, and who still needs its servers.
//!
//! A session's configuration file becomes a [`Registration`]: the same text with the same references is the same
//! registration, so IDE windows share servers, and a file that was edited is a new one, whose unchanged servers go on.
//! Owns the registrations and what was learnt of tools' answers. The servers themselves belong to `conductor_upstream`.

pub(crate) mod calls;
mod learnt;
pub(crate) mod references;
pub(crate) mod report;
mod watched;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use learnt::Learnt;
use watched::WatchedFiles;

/// How long the servers of a configuration stay when its last session is gone: an IDE that is started again finds them.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// Between two looks for registrations that nobody needs.
const SWEEP: Duration = Duration::from_secs(60);

/// Looks after the upstream servers of all sessions.
#[derive(Debug)]
pub struct UpstreamService {
    upstreams: Upstreams,
    registrations: Mutex<HashMap<ProfileId, Held>>,
    checkers: CheckerCache,
    learnt: Learnt,
    home: PathBuf,
    files: WatchedFiles,
}

#[derive(Debug)]
struct Held {
    registration: Arc<Registration>,
    source: Source,
    /// When somebody last asked for it or was seen to have it.
    needed_at: Instant,
    /// The file says something else now: it goes with its last user.
    is_outdated: bool,
}

/// What a registration was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    text: [u8; 32],
}

/// A configuration that was read.
struct Loaded {
    id: ProfileId,
    source: Source,
    set: ServerSet,
}

/// The servers of one configuration, ready to be used.
#[derive(Debug, PartialEq, Eq)]
pub struct Registration {
    pub id: ProfileId,
    /// Every server of the file, disabled ones among them.
    pub names: Vec<String>,
    /// What looks like a mistake in the file and disables nothing.
    pub warnings: Vec<String>,
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
            _ => None,
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
            learnt: Learnt::open(dirs.state.join("upstreams/learnt.json")),
            home: dirs.home.clone(),
            files: WatchedFiles::default(),
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
        let Loaded { id, source, set } = match self.read(profile, config, env).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                self.outdate(&config.path, None);
                return Servers::None;
            }
            // Its servers stay a while: who writes a file by hand makes a mistake and corrects it.
            Err(error) => return Servers::Failed(error_chain(&error).into()),
        };
        self.outdate(&config.path, Some(&source));
        let names: Vec<String> = set.iter().map(|(name, _)| name.to_owned()).collect();
        if names.is_empty() {
            return Servers::None;
        }
        let known = self.registrations().get(&id).map(|held| held.registration.clone());
        // Held from here on, so it is not swept meanwhile.
        let registration = known.unwrap_or_else(|| {
            Arc::new(Registration { id: id.clone(), names, warnings: set.warnings.clone() })
        });
        // A known one too: secrets in files and keyrings change without the configuration.
        self.upstreams.set(&id, set).await;
        let mut registrations = self.registrations();
        let held = registrations.entry(id).or_insert_with(|| Held {
            registration,
            source,
            needed_at: Instant::now(),
            is_outdated: false,
        });
        (held.needed_at, held.is_outdated) = (Instant::now(), false);
        Servers::Ready(held.registration.clone())
    }

    /// What was read from a file that says something else now is kept for its users alone.
    fn outdate(&self, path: &Path, current: Option<&Source>) {
        for held in self.registrations().values_mut().filter(|held| held.source.path == path) {
            held.is_outdated = current != Some(&held.source);
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
        let id = identity(&config.path, &text, &env, &workspace);
        let source = Source { path: config.path.clone(), text: Sha256::digest(&text).into() };
        // A keyring may ask its user, and files are read.
        let parsed = tokio::task::spawn_blocking(move || {
            let expansion = Expansion {
                env: &|name| env.get(name).cloned(),
                home: &home,
                workspace: Some(&workspace),
                keyring: &SystemKeyring,
            };
            let mut set = ServerSet::parse(&text, &expansion).map_err(|error| error_chain(&error))?;
            set.session_path = env.get("PATH").map(Into::into);
            Ok::<_, String>(set)
        });
        let parsed = parsed.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        match parsed {
            Ok(set) => Ok(Some(Loaded { id, source, set })),
            Err(why) => Err(LoadError::Parse { path: source.path, why }),
        }
    }

    /// The tools of a server as far as they are known, with the types of their answers.
    pub fn tools(&self, server: &ServerRef, manifest: &Manifest) -> Vec<ToolEntry> {
        let listed = manifest.tools.iter().filter_map(|tool| ToolEntry::from_listed(&server.name, tool));
        listed
            .map(|tool| match tool.output_schema {
                Some(_) => tool,
                None => ToolEntry { observed: self.learnt.of(&tool), ..tool },
            })
            .collect()
    }

    fn learn(&self, server: &str, tool: &str, value: &serde_json::Value) {
        self.learnt.learn(server, tool, value);
    }

    /// Removes what nobody needs any more, for as long as the daemon runs.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            self.learnt.save();
            self.prune();
        }
    }

    /// Removes configurations that are outdated and unused, or unused for long, and ends what only they had.
    pub fn prune(&self) {
        let now = Instant::now();
        self.registrations().retain(|id, held| {
            let is_used = Arc::strong_count(&held.registration) > 1;
            if is_used {
                held.needed_at = now;
            }
            let lingers = !held.is_outdated && now.duration_since(held.needed_at) < LINGER;
            if !is_used && !lingers {
                self.upstreams.remove(id);
            }
            is_used || lingers
        });
    }

    /// Ends all servers: calls may finish until `deadline`.
    pub async fn shutdown(&self, deadline: Instant) {
        self.learnt.save();
        self.upstreams.shutdown(deadline.into()).await;
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<ProfileId, Held>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Equal for sessions that get the same servers.
fn identity(path: &Path, text: &str, env: &BTreeMap<String, String>, workspace: &Path) -> ProfileId {
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
    let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    ProfileId::new(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_share_servers_unless_a_reference_tells_them_apart() {
        let env = |list: &[(&str, &str)]| {
            list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let id = |text: &str, variables: &[(&str, &str)], workspace: &str| {
            identity(Path::new("/c.json"), text, &env(variables), Path::new(workspace))
        };
        let plain = r#"{"mcpServers":{"a":{"command":"a"}}}"#;
        assert_eq!(id(plain, &[("X", "1")], "/a"), id(plain, &[("X", "2")], "/b"));
        assert_ne!(id(plain, &[("PATH", "/a")], "/a"), id(plain, &[("PATH", "/b")], "/a"));
        let token = r#"{"mcpServers":{"a":{"command":"a","env":{"T":"${env:X}"}}}}"#;
        assert_ne!(id(token, &[("X", "1")], "/a"), id(token, &[("X", "2")], "/a"));
        let folder = r#"{"mcpServers":{"a":{"command":"a","args":["${workspaceFolder}"]}}}"#;
        assert_ne!(id(folder, &[], "/a"), id(folder, &[], "/b"));
    }
}
