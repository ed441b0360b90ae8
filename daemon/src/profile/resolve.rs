//! How a profile comes about. Pure, but for reading whether a granted path exists.
//!
//! Sources, later wins: built-in defaults, `[profiles.NAME]` of the configuration file, the `MCP_CONDUCTOR_*` variables the
//! client sent. What the variables ask for is then held against `[policy]`: more than it offers is refused or cut, never in
//! silence, and no limit is above the policy's. The model can change none of this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use conductor_pool::{Grant, Grants};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Profile;
use super::expand::{ExpandError, Scope, expand, references};
use super::limits::Limits;
use super::mcp_config::{MCP_CONFIG, McpConfig};
use super::origin::{Notes, Origin, Origins};
use super::packages::{ALLOWED_PACKAGES, PackageRules};
use super::policy::Offer;
use super::run_args::{self, RunArgsError};
use crate::config::{Config, ProfileSection};
use crate::dirs::Dirs;

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

pub(super) const RUN_ARGS: &str = "MCP_CONDUCTOR_RUN_ARGS";
pub(super) const WORKSPACE: &str = "MCP_CONDUCTOR_WORKSPACE";
pub(super) const DEFAULT_TIMEOUT: &str = "MCP_CONDUCTOR_DEFAULT_TIMEOUT";
pub(super) const MAX_TIMEOUT: &str = "MCP_CONDUCTOR_MAX_TIMEOUT";
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

pub(super) fn absolute(
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
