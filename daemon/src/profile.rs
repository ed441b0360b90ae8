//! Profiles: what the code of one session may do. Pure, but for reading whether a granted path exists.
//!
//! Sources, later wins: built-in defaults, `[profiles.NAME]` of the configuration file, the `MCP_CONDUCTOR_*` variables the
//! client sent. What the variables ask for is then held against `[policy]`: more than it offers is refused or cut, never in
//! silence, and no limit is above the policy's. The model can change none of this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_pool::status::profile_id;
use conductor_pool::{Grant, Grants, Packages, RunLimits, WorkerChoice, WorkerSpec};
use conductor_protocol::status::LimitsStatus;
use conductor_upstream::config::ServerDefaults;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::config::{Config, PolicySection, ProfileSection};
use crate::dirs::Dirs;
use crate::exec::MAX_MEDIA_BYTES;
use expand::{ExpandError, Scope, expand, references};
use mcp_config::MCP_CONFIG;
pub use mcp_config::McpConfig;
use origin::{Notes, Sources};
pub use origin::{Origin, Origins};
use packages::{ALLOWED_PACKAGES, PackageRules};
use policy::Offer;
use run_args::RunArgsError;

pub mod expand;
pub mod mcp_config;
mod origin;
pub mod packages;
mod policy;
pub mod run_args;

/// Settings when nothing says otherwise; `docs/ENV_VARS.md` names them.
pub mod defaults {
    use std::time::Duration;

    pub const TIMEOUT: Duration = Duration::from_secs(30);
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(300);
    /// As long as the longest call by default: code on one thread meets its time limit first, and only code that keeps
    /// several CPUs busy at once, in Web Workers, meets this one.
    pub const MAX_COMPUTE: Duration = Duration::from_secs(300);
    pub const LINGER: Duration = Duration::from_secs(5);
    pub const HEAP_MIB: u32 = 256;
    pub const MAX_OUTPUT_BYTES: usize = 4 << 20;
    pub const MAX_RESULT_BYTES: usize = 32 << 20;
    pub const MAX_INLINE_BYTES: usize = 256 << 10;
    pub const MAX_CALLS_IN_FLIGHT: usize = 64;
    /// Far more than a program needs, few enough that a loop does not go on for ever.
    pub const MAX_UPSTREAM_CALLS: usize = 10_000;
    pub const MAX_UPSTREAM_CALLS_IN_FLIGHT: usize = 64;
}

/// The effective configuration of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// The user that it is of, where several share the daemon: nothing that is kept or runs for one is another's.
    pub tenant: Option<Arc<str>>,
    pub workspace: PathBuf,
    pub grants: Grants,
    /// Variables the code may read, with their values.
    pub env: BTreeMap<String, String>,
    pub default_timeout: Duration,
    pub max_timeout: Duration,
    /// CPU time of one call, all threads together.
    pub max_compute: Duration,
    pub linger: Duration,
    pub heap_mib: u32,
    /// Of a worker's whole process.
    pub max_memory_mib: u32,
    pub worker: WorkerChoice,
    pub max_output_bytes: usize,
    pub max_result_bytes: usize,
    /// Bytes of the value, of stdout and of stderr that an answer holds; the rest is kept in the store.
    pub max_inline_bytes: usize,
    /// Calls of one session at one time, running or waiting.
    pub max_calls_in_flight: usize,
    /// Calls of one session; no limit when absent.
    pub max_calls_per_minute: Option<u32>,
    /// Workers that all sessions of the profile keep busy at one time; the pool's own limit alone when absent.
    pub max_workers: Option<usize>,
    /// The same for one session.
    pub max_workers_per_session: Option<usize>,
    /// Calls of one run to upstream servers and to what is kept of earlier results.
    pub max_upstream_calls: usize,
    /// Such calls that one run waits for at one time; later ones wait.
    pub max_upstream_calls_in_flight: usize,
    pub packages: PackageRules,
    /// Where its upstream servers are configured.
    pub mcp_config: Option<McpConfig>,
    /// What holds for servers whose entry says nothing else.
    pub server_defaults: ServerDefaults,
    /// What an administrator should know.
    pub warnings: Vec<String>,
}

/// Why a session's configuration is refused. The session lives; each call answers with this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("{} `{name}`, which is not in the configuration file{near}", .by.in_words())]
    UnknownProfile { by: NamedBy, name: String, near: String },
    #[error(
        "{} `{name}`, which [policy] does not offer to sessions\nhint: offered are {offered}; an administrator adds others to \
         profiles in [policy]",
        .by.in_words()
    )]
    ProfileRefused { by: NamedBy, name: String, offered: String },
    #[error("{variable}: {why}")]
    Value { variable: &'static str, why: String },
    #[error(
        "{variable} asks for `allow-{kind}`, which sessions may not grant here\nhint: an administrator can offer it: \
         add \"{kind}\" to session-grants in [policy] of {config}, or grant it in a named profile"
    )]
    KindRefused { variable: &'static str, kind: String, config: String },
    #[error(
        "{variable} asks for `allow-{kind}={value}`, which is outside what [policy] offers\nhint: offered is {offered}"
    )]
    ValueRefused { variable: &'static str, kind: &'static str, value: String, offered: String },
    #[error("{variable}: `{path}` is one of conductor's own directories, which no code may touch")]
    OwnDirectory { variable: &'static str, path: String },
}

/// What names a session's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    Environment,
    Token,
}

impl NamedBy {
    fn in_words(self) -> &'static str {
        match self {
            Self::Environment => "MCP_CONDUCTOR_PROFILE names",
            Self::Token => "the token is for the profile",
        }
    }
}

impl ProfileError {
    /// The same where no environment named the profile.
    fn of_token(self) -> Self {
        let by = NamedBy::Token;
        match self {
            Self::UnknownProfile { name, near, .. } => Self::UnknownProfile { by, name, near },
            Self::ProfileRefused { name, offered, .. } => Self::ProfileRefused { by, name, offered },
            other => other,
        }
    }
}

const RUN_ARGS: &str = "MCP_CONDUCTOR_RUN_ARGS";
const WORKSPACE: &str = "MCP_CONDUCTOR_WORKSPACE";
const DEFAULT_TIMEOUT: &str = "MCP_CONDUCTOR_DEFAULT_TIMEOUT";
const MAX_TIMEOUT: &str = "MCP_CONDUCTOR_MAX_TIMEOUT";
pub(crate) const PROFILE: &str = "MCP_CONDUCTOR_PROFILE";

/// Variables a profile refers to that the client has not sent yet: asked for in the handshake's second round.
pub fn missing_variables(
    config: &Config,
    env: &BTreeMap<String, String>,
    cwd: &str,
    dirs: &Dirs,
) -> Vec<String> {
    let section = named_section(config, env).ok().flatten();
    let own =
        env.iter().filter(|(name, _)| name.starts_with("MCP_CONDUCTOR_")).map(|(_, value)| value.as_str());
    let file = section
        .iter()
        .flat_map(|section| [section.workspace.as_deref(), section.run_args.as_deref()])
        .flatten();
    let mut names: BTreeSet<String> = own.chain(file).flat_map(references).collect();
    let granted =
        [env.get(RUN_ARGS).map(String::as_str), section.and_then(|section| section.run_args.as_deref())];
    for text in granted.into_iter().flatten() {
        // Wrong arguments are reported when the profile is resolved.
        if let Ok(Grants { env: Grant::Only(variables), .. }) = run_args::parse(text) {
            names.extend(variables);
        }
    }
    let home = dirs.home.to_string_lossy();
    let scope = Scope { home: &home, project: project_dir(env, cwd), env };
    let default_section = ProfileSection::default();
    let section = section.unwrap_or(&default_section);
    let mcp_config = McpConfig::resolve(section, &config.policy, scope, &mut Notes::default());
    names.extend(mcp_config.ok().flatten().iter().flat_map(McpConfig::references));
    names.into_iter().filter(|name| !env.contains_key(name)).collect()
}

/// Works out what a session may do. `env` is what the client sent, in both rounds.
///
/// # Errors
/// The first thing that is wrong or refused, by the name of its variable.
pub fn resolve(
    config: &Config,
    env: &BTreeMap<String, String>,
    cwd: &str,
    dirs: &Dirs,
) -> Result<Profile, ProfileError> {
    explain(config, env, cwd, dirs).map(|(profile, _)| profile)
}

/// What a name loses to be one plain component of a path.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// As [`resolve`], for a user beside the daemon's own: whoever comes with a token for the named profile `tenant`. He gets what
/// that profile says, a workspace of his own where it says none, and no upstream servers where it names none.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_tenant(config: &Config, tenant: &str, dirs: &Dirs) -> Result<Profile, ProfileError> {
    let mut config = config.clone();
    if let Some(section) = config.profiles.get_mut(tenant) {
        let directory = utf8_percent_encode(tenant, NOT_PLAIN).to_string();
        let workspace = dirs.home.join(".mcp-conductor/workspaces").join(directory);
        section.workspace.get_or_insert(workspace.to_string_lossy().into_owned());
        section.mcp_config.get_or_insert("none".to_owned());
    }
    let env = BTreeMap::from([(PROFILE.to_owned(), tenant.to_owned())]);
    let profile = resolve(&config, &env, "", dirs).map_err(ProfileError::of_token)?;
    Ok(Profile { tenant: Some(tenant.into()), ..profile })
}

/// As [`resolve`], and where each value comes from.
///
/// # Errors
/// As [`resolve`].
pub fn explain(
    config: &Config,
    env: &BTreeMap<String, String>,
    cwd: &str,
    dirs: &Dirs,
) -> Result<(Profile, Origins), ProfileError> {
    let default_section = ProfileSection::default();
    let section = named_section(config, env)?.unwrap_or(&default_section);
    let home = dirs.home.to_string_lossy();
    let scope = Scope { home: &home, project: project_dir(env, cwd), env };
    let offer = Offer { policy: &config.policy, dirs };
    let mut notes = Notes::default();

    let workspace = workspace(section, offer, scope, &mut notes)?;
    let grants = grants(section, offer, scope, &workspace, &mut notes)?;
    let packages = PackageRules::resolve(section, env, &config.policy, &mut notes)?;
    let mcp_config = McpConfig::resolve(section, &config.policy, scope, &mut notes)?;
    let limits = Limits::resolve(section, env, &config.policy, &mut notes)?;
    notes.origin("worker", if section.worker.is_some() { Origin::File } else { Origin::Default });
    notes.warnings.extend(warnings(&grants, env));
    notes.warnings.extend(packages.warning());
    let profile = Profile {
        name: env.get(PROFILE).cloned().unwrap_or_else(|| "default".into()),
        tenant: None,
        env: granted_env(&grants, env),
        workspace,
        grants,
        default_timeout: limits.default_timeout,
        max_timeout: limits.max_timeout,
        max_compute: limits.max_compute,
        linger: limits.linger,
        heap_mib: limits.heap_mib,
        max_memory_mib: limits.max_memory_mib,
        worker: section.worker.unwrap_or_default(),
        max_output_bytes: limits.max_output_bytes,
        max_result_bytes: limits.max_result_bytes,
        max_inline_bytes: limits.max_inline_bytes,
        max_calls_in_flight: limits.max_calls_in_flight,
        max_calls_per_minute: limits.max_calls_per_minute,
        max_workers: limits.max_workers,
        max_workers_per_session: limits.max_workers_per_session,
        max_upstream_calls: limits.max_upstream_calls,
        max_upstream_calls_in_flight: limits.max_upstream_calls_in_flight,
        packages,
        mcp_config,
        server_defaults: config.upstreams.settings(),
        warnings: notes.warnings,
    };
    Ok((profile, notes.origins))
}

/// The limits of a profile, none above the policy's.
struct Limits {
    default_timeout: Duration,
    max_timeout: Duration,
    max_compute: Duration,
    linger: Duration,
    heap_mib: u32,
    max_memory_mib: u32,
    max_output_bytes: usize,
    max_result_bytes: usize,
    max_inline_bytes: usize,
    max_calls_in_flight: usize,
    max_calls_per_minute: Option<u32>,
    max_workers: Option<usize>,
    max_workers_per_session: Option<usize>,
    max_upstream_calls: usize,
    max_upstream_calls_in_flight: usize,
}

impl Limits {
    fn resolve(
        section: &ProfileSection,
        env: &BTreeMap<String, String>,
        policy: &PolicySection,
        notes: &mut Notes,
    ) -> Result<Self, ProfileError> {
        let asked = |variable| -> Result<_, ProfileError> {
            Ok(milliseconds(env, variable)?.map(|value| (variable, value)))
        };
        let sources = Sources {
            environment: asked(MAX_TIMEOUT)?,
            file: section.max_timeout,
            default: defaults::MAX_TIMEOUT,
        };
        let max_timeout = notes.limit("max-timeout", sources, "policy.max-timeout", policy.max_timeout);
        let sources = Sources {
            environment: asked(DEFAULT_TIMEOUT)?,
            file: section.default_timeout,
            default: defaults::TIMEOUT,
        };
        let default_timeout = notes.limit("default-timeout", sources, "max-timeout", Some(max_timeout));
        let file = Sources::file(section.max_compute, defaults::MAX_COMPUTE);
        let max_compute = notes.limit("max-compute", file, "policy.max-compute", policy.max_compute);
        let file = Sources::file(section.linger, defaults::LINGER);
        let linger = notes.limit("linger", file, "policy.max-linger", policy.max_linger);
        let file = Sources::file(section.heap_mib, defaults::HEAP_MIB);
        let heap_mib = notes.limit("heap-mib", file, "policy.max-heap-mib", policy.max_heap_mib);
        let file = Sources::file(section.max_memory_mib, WorkerSpec::memory_for_heap(heap_mib));
        let by = "policy.max-memory-mib";
        let max_memory_mib = notes.limit("max-memory-mib", file, by, policy.max_memory_mib);
        // As good as none.
        let file = Sources::file(section.max_calls_per_minute, u32::MAX);
        let by = "policy.max-calls-per-minute";
        let per_minute = notes.limit("max-calls-per-minute", file, by, policy.max_calls_per_minute);
        let mut workers = |key, file, by, cap| {
            let limit = notes.limit(key, Sources::file(file, usize::MAX), by, cap);
            (limit != usize::MAX).then_some(limit)
        };
        let max_workers =
            workers("max-workers", section.max_workers, "policy.max-workers", policy.max_workers);
        let max_workers_per_session = workers(
            "max-workers-per-session",
            section.max_workers_per_session,
            "policy.max-workers-per-session",
            policy.max_workers_per_session,
        );
        let mut count = |key, file, default, by, cap| notes.limit(key, Sources::file(file, default), by, cap);
        Ok(Self {
            default_timeout,
            max_timeout,
            max_compute,
            linger,
            heap_mib,
            max_memory_mib,
            max_output_bytes: count(
                "max-output-bytes",
                section.max_output_bytes,
                defaults::MAX_OUTPUT_BYTES,
                "policy.max-output-bytes",
                policy.max_output_bytes,
            ),
            max_result_bytes: count(
                "max-result-bytes",
                section.max_result_bytes,
                defaults::MAX_RESULT_BYTES,
                "policy.max-result-bytes",
                policy.max_result_bytes,
            ),
            max_inline_bytes: count(
                "max-inline-bytes",
                section.max_inline_bytes,
                defaults::MAX_INLINE_BYTES,
                "policy.max-inline-bytes",
                policy.max_inline_bytes,
            ),
            max_calls_in_flight: count(
                "max-calls-in-flight",
                section.max_calls_in_flight,
                defaults::MAX_CALLS_IN_FLIGHT,
                "policy.max-calls-in-flight",
                policy.max_calls_in_flight,
            ),
            max_calls_per_minute: (per_minute != u32::MAX).then_some(per_minute),
            max_workers,
            max_workers_per_session,
            max_upstream_calls: count(
                "max-upstream-calls",
                section.max_upstream_calls,
                defaults::MAX_UPSTREAM_CALLS,
                "policy.max-upstream-calls",
                policy.max_upstream_calls,
            ),
            max_upstream_calls_in_flight: count(
                "max-upstream-calls-in-flight",
                section.max_upstream_calls_in_flight,
                defaults::MAX_UPSTREAM_CALLS_IN_FLIGHT,
                "policy.max-upstream-calls-in-flight",
                policy.max_upstream_calls_in_flight,
            ),
        })
    }
}

fn workspace(
    section: &ProfileSection,
    offer: Offer<'_>,
    scope: Scope<'_>,
    notes: &mut Notes,
) -> Result<PathBuf, ProfileError> {
    if let Some(text) = scope.env.get(WORKSPACE).filter(|value| !value.trim().is_empty()) {
        let workspace = absolute(WORKSPACE, text, scope, None)?;
        refuse_own_directory(WORKSPACE, &workspace, offer.dirs)?;
        if offer.workspace(&workspace, &mut notes.warnings)? {
            notes.origin("workspace", Origin::Environment(WORKSPACE));
            return Ok(workspace);
        }
    }
    let (workspace, origin) = match &section.workspace {
        Some(text) => (absolute(WORKSPACE, text, scope, None)?, Origin::File),
        None => (offer.dirs.default_workspace(), Origin::Default),
    };
    refuse_own_directory(WORKSPACE, &workspace, offer.dirs)?;
    notes.origin("workspace", origin);
    Ok(workspace)
}

fn grants(
    section: &ProfileSection,
    offer: Offer<'_>,
    scope: Scope<'_>,
    workspace: &Path,
    notes: &mut Notes,
) -> Result<Grants, ProfileError> {
    let (grants, origin) = match (scope.env.get(RUN_ARGS), &section.run_args) {
        (Some(text), _) => {
            let asked = grants_from(text, scope, workspace)?;
            let granted = offer.grants(asked.clone(), &mut notes.warnings)?;
            let origin = Origin::Environment(RUN_ARGS);
            let cut =
                Origin::Cut { by: "policy", asked: text.as_str().into(), from: Box::new(origin.clone()) };
            let is_cut = granted != asked;
            (granted, if is_cut { cut } else { origin })
        }
        (None, Some(text)) => (grants_from(text, scope, workspace)?, Origin::File),
        (None, None) => (Grants::default(), Origin::Default),
    };
    for path in [&grants.read, &grants.write].into_iter().flat_map(values_of) {
        refuse_own_directory(RUN_ARGS, Path::new(path), offer.dirs)?;
    }
    notes.origin("run-args", origin);
    Ok(grants)
}

impl Profile {
    /// What a worker for this profile is, with this Deno and these packages.
    pub fn worker_spec(&self, deno: &Path, dirs: &Dirs, packages: Option<Packages>) -> WorkerSpec {
        WorkerSpec {
            deno: deno.to_owned(),
            workspace: self.workspace.clone(),
            grants: self.grants.clone(),
            protected: self.protected(dirs),
            heap_mib: self.heap_mib,
            max_memory_mib: self.max_memory_mib,
            max_wall: coarse(self.max_timeout),
            env: self.env.clone(),
            worker: self.worker,
            packages,
        }
    }

    /// What stays denied below any grant: conductor's own directories, and the file that says which programs it starts.
    fn protected(&self, dirs: &Dirs) -> BTreeSet<PathBuf> {
        let own = dirs.protected().map(Path::to_owned).into_iter();
        own.chain(self.mcp_config.iter().map(|config| config.path.clone())).collect()
    }

    /// True when code may write to `path`.
    pub fn may_write(&self, path: &Path) -> bool {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let covers = |granted: &String| path.starts_with(granted) || real.starts_with(granted);
        match &self.grants.write {
            _ if self.grants.is_unsandboxed() => false,
            Grant::None => false,
            Grant::Only(paths) => paths.iter().any(covers),
            Grant::All => true,
        }
    }

    pub fn limits(&self, wall: Duration) -> RunLimits {
        RunLimits {
            wall,
            compute: self.max_compute,
            linger: self.linger,
            max_output_bytes: self.max_output_bytes,
            max_result_bytes: self.max_result_bytes,
            max_media_bytes: MAX_MEDIA_BYTES,
            max_calls: self.max_upstream_calls,
            max_calls_in_flight: self.max_upstream_calls_in_flight,
        }
    }

    /// The limits as `status` shows them.
    pub fn limits_status(&self) -> LimitsStatus {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        LimitsStatus {
            timeout_ms: millis(self.max_timeout),
            compute_ms: millis(self.max_compute),
            heap_mib: u64::from(self.heap_mib),
            output_bytes: count(self.max_output_bytes),
            result_bytes: count(self.max_result_bytes),
            upstream_calls: count(self.max_upstream_calls),
            upstream_calls_in_flight: count(self.max_upstream_calls_in_flight),
            calls_in_flight: count(self.max_calls_in_flight),
            calls_per_minute: self.max_calls_per_minute.map(u64::from),
            workers: self.max_workers.map(count),
            workers_per_session: self.max_workers_per_session.map(count),
        }
    }

    /// The grants as code sees them in `PERMISSIONS`: by kind `false`, `true`, or the list.
    pub fn permissions(&self) -> Value {
        let mut grants = self.grants.clone();
        let kinds = run_args::KINDS.iter().map(|kind| {
            let granted = match run_args::grant_mut(&mut grants, kind) {
                None => Value::from(self.grants.all),
                Some(_) if self.grants.all => Value::from(true),
                Some(Grant::None) => Value::from(false),
                Some(Grant::All) => Value::from(true),
                Some(Grant::Only(values)) => Value::from_iter(values.iter().cloned()),
            };
            ((*kind).to_owned(), granted)
        });
        Value::Object(kinds.collect())
    }

    /// Names the code of this profile as the owner of what it leaves in the store.
    pub fn owner(&self, dirs: &Dirs) -> String {
        let profile = profile_id(&self.worker_spec(Path::new(""), dirs, None));
        self.tenant.as_ref().map_or_else(|| profile.clone(), |tenant| format!("{profile} of {tenant}"))
    }

    /// The grants in words, for people: `read /ws; net api.github.com`, or `nothing`.
    pub fn grants_in_words(&self) -> String {
        if self.grants.all {
            return "everything".into();
        }
        let mut grants = self.grants.clone();
        let words = run_args::KINDS.iter().filter_map(|kind| match run_args::grant_mut(&mut grants, kind)? {
            Grant::None => None,
            Grant::All => Some(format!("{kind} (all)")),
            Grant::Only(values) => {
                Some(format!("{kind} {}", Vec::from_iter(values.iter().cloned()).join(", ")))
            }
        });
        let words = Vec::from_iter(words);
        if words.is_empty() { "nothing".into() } else { words.join("; ") }
    }
}

/// Not below `time`. Workers are shared by sessions that agree in this, so it has few values.
fn coarse(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().saturating_add(1).checked_next_power_of_two().unwrap_or(u64::MAX))
}

fn named_section<'a>(
    config: &'a Config,
    env: &BTreeMap<String, String>,
) -> Result<Option<&'a ProfileSection>, ProfileError> {
    let Some(name) = env.get(PROFILE) else { return Ok(config.profiles.get("default")) };
    if let Some(offered) = config.policy.profiles.as_ref().filter(|offered| !offered.contains(name)) {
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        return Err(ProfileError::ProfileRefused { by: NamedBy::Environment, name: name.clone(), offered });
    }
    match config.profiles.get(name) {
        Some(section) => Ok(Some(section)),
        None if name == "default" => Ok(None),
        None => {
            let known = Vec::from_iter(config.profiles.keys().map(String::as_str)).join(", ");
            let near = if known.is_empty() { String::new() } else { format!("\nhint: it has {known}") };
            Err(ProfileError::UnknownProfile { by: NamedBy::Environment, name: name.clone(), near })
        }
    }
}

/// The directory the user works in, as far as the client tells.
fn project_dir<'a>(env: &'a BTreeMap<String, String>, cwd: &'a str) -> &'a str {
    ["CLAUDE_PROJECT_DIR", "GEMINI_PROJECT_DIR", "WORKSPACE_FOLDER_PATHS", "VSCODE_CWD"]
        .iter()
        .find_map(|name| env.get(*name))
        .map_or(cwd, |paths| paths.split(',').next().unwrap_or(paths))
}

fn grants_from(text: &str, scope: Scope<'_>, workspace: &Path) -> Result<Grants, ProfileError> {
    let mut grants = run_args::parse(text)
        .map_err(|error: RunArgsError| ProfileError::Value { variable: RUN_ARGS, why: error.to_string() })?;
    for grant in [&mut grants.read, &mut grants.write] {
        if let Grant::Only(paths) = grant {
            let paths = std::mem::take(paths);
            let absolute = paths.iter().map(|path| absolute(RUN_ARGS, path, scope, Some(workspace)));
            let absolute: Result<BTreeSet<String>, _> =
                absolute.map(|path| path.map(|path| path.to_string_lossy().into_owned())).collect();
            *grant = Grant::Only(absolute?);
        }
    }
    for grant in [&mut grants.net, &mut grants.run, &mut grants.ffi] {
        if let Grant::Only(values) = grant {
            let values = std::mem::take(values);
            let expanded: Result<BTreeSet<String>, _> =
                values.iter().map(|value| expanded(RUN_ARGS, value, scope)).collect();
            *grant = Grant::Only(expanded?);
        }
    }
    Ok(grants)
}

fn expanded(variable: &'static str, text: &str, scope: Scope<'_>) -> Result<String, ProfileError> {
    expand(text, scope).map_err(|error: ExpandError| ProfileError::Value { variable, why: error.to_string() })
}

fn absolute(
    variable: &'static str,
    text: &str,
    scope: Scope<'_>,
    base: Option<&Path>,
) -> Result<PathBuf, ProfileError> {
    let text = expanded(variable, text.trim(), scope)?;
    let path = Path::new(&text);
    let why = match base {
        _ if text.is_empty() => "an empty path",
        _ if text.contains('\0') => "a path with a NUL character",
        _ if text.contains(',') => "a path with a comma, which Deno's flags cannot hold",
        _ if path.is_absolute() => return Ok(without_dots(path)),
        Some(base) => return Ok(without_dots(&base.join(path))),
        None => "must be an absolute path\nhint: begin it with / or ~/",
    };
    Err(ProfileError::Value { variable, why: format!("`{text}`: {why}") })
}

/// Removes `.` and resolves `..` by name, so that `/ws/../etc` cannot pass for something in `/ws`.
fn without_dots(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn refuse_own_directory(variable: &'static str, path: &Path, dirs: &Dirs) -> Result<(), ProfileError> {
    // Compared as real paths too: a symbolic link must not lead in.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inside = dirs.protected().iter().any(|own| path.starts_with(own) || real.starts_with(own));
    if !inside {
        return Ok(());
    }
    Err(ProfileError::OwnDirectory { variable, path: path.display().to_string() })
}

fn milliseconds(
    env: &BTreeMap<String, String>,
    variable: &'static str,
) -> Result<Option<Duration>, ProfileError> {
    let Some(text) = env.get(variable).map(|text| text.trim()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse::<u32>() {
        Ok(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis.into()))),
        _ => Err(ProfileError::Value {
            variable,
            why: format!("`{text}` is no whole number of milliseconds from 1 to {}", u32::MAX),
        }),
    }
}

fn values_of(grant: &Grant) -> impl Iterator<Item = &String> {
    match grant {
        Grant::Only(values) => Some(values.iter()),
        Grant::None | Grant::All => None,
    }
    .into_iter()
    .flatten()
}

fn granted_env(grants: &Grants, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let granted = values_of(&grants.env).filter_map(|name| env.get_key_value(name));
    granted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn warnings(grants: &Grants, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if grants.is_unsandboxed() {
        warnings.push("unsandboxed: code with `run`, `ffi` or `all` can do whatever you can".into());
    }
    for name in env.keys().filter(|name| name.starts_with("MCP_CONDUCTOR_")) {
        if ![RUN_ARGS, WORKSPACE, DEFAULT_TIMEOUT, MAX_TIMEOUT, PROFILE, ALLOWED_PACKAGES, MCP_CONFIG]
            .contains(&name.as_str())
        {
            warnings.push(format!("{name} is not a variable conductor knows"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
