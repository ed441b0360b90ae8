//! The sections of `config.toml`. Pure data.
//!
//! One declaration of each key makes the parser, the JSON Schema and the reference: its documentation comment is the text that
//! users read, its bounds and default are those of the attributes. A default that depends on the machine is told in words, as
//! `x-default`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conductor_pool::spawn::Level;
use conductor_pool::{PoolConfig, WorkerChoice};
use conductor_upstream::config::{Scope, ServerDefaults, Start};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{self, DurationOrNever, DurationText};
use super::http::HttpSection;
use crate::profile::defaults;

/// The configuration of conductord. Everything is optional: what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(title = "conductor's config.toml")]
pub struct Config {
    /// The Deno executable. `--deno` goes before it, `CONDUCTOR_DENO` after it.
    #[schemars(extend("x-default" = "the first of PATH, `~/.deno/bin` and the data directory; fetched if there is none"))]
    pub deno: Option<PathBuf>,
    pub pool: PoolSection,
    pub jail: JailSection,
    pub upstreams: UpstreamsSection,
    /// Named profiles. `default` serves sessions that name none; `MCP_CONDUCTOR_PROFILE` names another.
    #[schemars(extend("x-each" = "NAME"))]
    pub profiles: BTreeMap<String, ProfileSection>,
    pub policy: PolicySection,
    pub http: HttpSection,
}

/// Workers of all profiles together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PoolSection {
    /// Idle workers kept for each profile.
    #[schemars(range(min = 0, max = 64), extend("x-unit" = "workers", "x-default" = "the number of CPUs, from 2 to 4"))]
    pub idle_per_profile: Option<usize>,
    /// Idle workers over all profiles; beyond it the profile that was not used for longest loses its own first.
    #[schemars(range(min = 0, max = 512), extend("x-unit" = "workers", "x-default" = "four times `idle-per-profile`"))]
    pub max_idle: Option<usize>,
    /// Worker processes at one time, from the start of their boot until they are gone.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "workers", "x-default" = "eight per CPU, at least 16"))]
    pub max_workers: Option<usize>,
    /// Boots at one time.
    #[schemars(range(min = 1, max = 64), extend("x-unit" = "boots", "x-default" = "the number of CPUs"))]
    pub parallel_boots: Option<usize>,
    /// Calls that may wait for a worker. One more is refused as busy at once.
    #[schemars(range(min = 1, max = 4096), extend("x-unit" = "calls", "default" = 512))]
    pub queue_capacity: Option<usize>,
    /// How long a call waits for a worker before it is refused as busy.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "10ms", "x-most" = "10m", "default" = "30s"))]
    pub queue_wait: Option<Duration>,
    /// How long the boot of a worker may take.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "5m", "default" = "10s"))]
    pub boot_timeout: Option<Duration>,
    /// An idle worker older than this is replaced.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1s", "x-most" = "1w", "default" = "30m"))]
    pub max_idle_age: Option<Duration>,
    /// A profile that nobody uses loses its workers after this time.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1s", "x-most" = "1w", "default" = "10m"))]
    pub unused_after: Option<Duration>,
}

impl PoolSection {
    /// The section with every default filled in.
    pub(crate) fn settings(&self) -> PoolConfig {
        let mut settings = PoolConfig::default();
        let set = |to: &mut usize, from: Option<usize>| *to = from.unwrap_or(*to);
        set(&mut settings.max_workers, self.max_workers);
        // Limits that were not set follow the one that was, instead of making it an error.
        settings.max_idle = self.max_idle.unwrap_or(settings.max_idle.min(settings.max_workers));
        settings.idle_per_profile =
            self.idle_per_profile.unwrap_or(settings.idle_per_profile.min(settings.max_workers));
        set(&mut settings.parallel_boots, self.parallel_boots);
        set(&mut settings.queue_capacity, self.queue_capacity);
        let set = |to: &mut Duration, from: Option<Duration>| *to = from.unwrap_or(*to);
        set(&mut settings.queue_wait, self.queue_wait);
        set(&mut settings.boot_timeout, self.boot_timeout);
        set(&mut settings.max_idle_age, self.max_idle_age);
        set(&mut settings.unused_after, self.unused_after);
        settings
    }
}

/// What the kernel keeps workers from. Read when the daemon starts: a change needs `conductorctl stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(extend("x-restart" = true))]
pub struct JailSection {
    /// Whether code runs where a layer of the jail is missing, or does not hold.
    #[schemars(with = "JailLevel", extend("default" = "best-effort"))]
    pub level: Level,
    /// Takes V8's compiler away, and with it WebAssembly: loops are several times slower.
    #[schemars(extend("default" = false))]
    pub hardened: bool,
}

/// [`Level`] as the schema tells it.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used; a test holds it against the real type")]
enum JailLevel {
    /// What the kernel lacks is left out, and `status` says so.
    BestEffort,
    /// No code runs unless the whole jail holds.
    Strict,
}

/// What holds for upstream MCP servers whose own entry says nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct UpstreamsSection {
    /// Who shares a connection.
    #[schemars(with = "UpstreamScope", extend("default" = "shared"))]
    pub scope: Scope,
    /// When a server is started.
    #[schemars(with = "UpstreamStart", extend("default" = "lazy"))]
    pub start: Start,
    /// How long a connection may lie unused before it is closed.
    #[serde(deserialize_with = "duration::deserialize_or_never")]
    #[schemars(with = "DurationOrNever", extend("x-least" = "1s", "x-most" = "1w", "default" = "10m"))]
    pub idle_timeout: Option<Option<Duration>>,
    /// A connection older than this is replaced by a fresh one.
    #[serde(deserialize_with = "duration::deserialize_or_never")]
    #[schemars(with = "DurationOrNever", extend("x-least" = "1s", "x-most" = "52w", "default" = "never"))]
    pub max_lifetime: Option<Option<Duration>>,
    /// How long a request may take without progress.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "10ms", "x-most" = "1d", "default" = "1m"))]
    pub timeout: Option<Duration>,
}

impl UpstreamsSection {
    /// The section with every default filled in.
    pub(crate) fn settings(self) -> ServerDefaults {
        let built_in = ServerDefaults::default();
        ServerDefaults {
            scope: self.scope,
            start: self.start,
            idle_timeout: self.idle_timeout.unwrap_or(built_in.idle_timeout),
            max_lifetime: self.max_lifetime.unwrap_or(built_in.max_lifetime),
            timeout: self.timeout.unwrap_or(built_in.timeout),
        }
    }
}

/// [`Scope`] as the schema tells it.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used; a test holds it against the real type")]
enum UpstreamScope {
    /// Everybody whose configuration of the server is the same.
    Shared,
    /// One connection for each session.
    Session,
    /// A fresh connection for each call.
    Call,
}

/// [`Start`] as the schema tells it.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used; a test holds it against the real type")]
enum UpstreamStart {
    /// When it is first used.
    Lazy,
    /// At once, and again when it ends.
    Eager,
}

/// [`WorkerChoice`] as the schema tells it.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used; a test holds it against the real type")]
enum ProfileWorker {
    /// Each boots a Deno of its own.
    Spawn,
    /// Experimental: each is a copy of a Deno that has booted, in the same jail; see [SECURITY.md](SECURITY.md).
    Fork,
    /// Experimental: `"spawn"` for the first few workers, then `"fork"`, once a profile is used so much that it pays.
    Auto,
}

/// What sessions of this profile may do. Paths and grants may hold `~`, `${HOME}`, `${workspaceFolder}` and `${env:NAME}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ProfileSection {
    /// The directory that code works in; made if it is missing. `MCP_CONDUCTOR_WORKSPACE` goes before it.
    #[schemars(length(min = 1), extend("default" = "~/.mcp-conductor/workspace"))]
    pub workspace: Option<String>,
    /// Deno permission flags, comma-separated, as in `MCP_CONDUCTOR_RUN_ARGS`, which goes before it.
    #[schemars(extend("default" = ""))]
    pub run_args: Option<String>,
    /// Time limit of a call that names none. `MCP_CONDUCTOR_DEFAULT_TIMEOUT` goes before it.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1w", "default" = duration::text(defaults::TIMEOUT)))]
    pub default_timeout: Option<Duration>,
    /// The longest time limit a call may ask for; a longer one is cut. `MCP_CONDUCTOR_MAX_TIMEOUT` goes before it.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1w", "default" = duration::text(defaults::MAX_TIMEOUT)))]
    pub max_timeout: Option<Duration>,
    /// CPU time of one call, all its threads together.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1w", "default" = duration::text(defaults::MAX_COMPUTE)))]
    pub max_compute: Option<Duration>,
    /// How long open timers and handles may outlive the value.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1h", "default" = duration::text(defaults::LINGER)))]
    pub linger: Option<Duration>,
    /// Memory of the code's JavaScript objects.
    #[schemars(range(min = 32, max = 16_384), extend("x-unit" = "MiB", "default" = defaults::HEAP_MIB))]
    pub heap_mib: Option<u32>,
    /// Memory of the whole process: JavaScript objects, buffers, WebAssembly, Web Workers. Not below `heap-mib`.
    #[schemars(range(min = 64, max = 65_536), extend("x-unit" = "MiB", "x-default" = "448 above `heap-mib`"))]
    pub max_memory_mib: Option<u32>,
    /// How the workers are made. What cannot be forked on this machine is spawned, and `conductorctl status` says why.
    #[schemars(with = "ProfileWorker", extend("default" = "spawn"))]
    pub worker: Option<WorkerChoice>,
    /// Code that prints more is ended.
    #[schemars(range(min = 1024, max = 268_435_456), extend("x-unit" = "bytes", "default" = defaults::MAX_OUTPUT_BYTES))]
    pub max_output_bytes: Option<usize>,
    /// A larger value is an error.
    #[schemars(range(min = 1024, max = 67_108_864), extend("x-unit" = "bytes", "default" = defaults::MAX_RESULT_BYTES))]
    pub max_result_bytes: Option<usize>,
    /// A larger value, stdout or stderr is kept for an hour and linked.
    #[schemars(range(min = 1024, max = 8_388_608), extend("x-unit" = "bytes", "default" = defaults::MAX_INLINE_BYTES))]
    pub max_inline_bytes: Option<usize>,
    /// Calls of one session at one time, running or waiting.
    #[schemars(range(min = 1, max = 4096), extend("x-unit" = "calls", "default" = defaults::MAX_CALLS_IN_FLIGHT))]
    pub max_calls_in_flight: Option<usize>,
    /// Calls of one session per minute.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-unit" = "calls", "x-default" = "no limit"))]
    pub max_calls_per_minute: Option<u32>,
    /// Workers that all sessions of the profile keep busy at one time; further calls wait, for at most 30 seconds.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "workers", "x-default" = "no limit of its own"))]
    pub max_workers: Option<usize>,
    /// The same for each session.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "workers", "x-default" = "no limit of its own"))]
    pub max_workers_per_session: Option<usize>,
    /// Calls of one run to upstream servers, and of `conductor.result`. 0 forbids them.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-unit" = "calls", "default" = defaults::MAX_UPSTREAM_CALLS))]
    pub max_upstream_calls: Option<usize>,
    /// Such calls of one run at one time; later ones wait.
    #[schemars(range(min = 1, max = 1024), extend("x-unit" = "calls", "default" = defaults::MAX_UPSTREAM_CALLS_IN_FLIGHT))]
    pub max_upstream_calls_in_flight: Option<usize>,
    /// The file with the upstream MCP servers, or `none`. `MCP_CONDUCTOR_MCP_CONFIG` goes before it.
    #[schemars(length(min = 1), extend("default" = "~/.mcp-conductor/mcp-config.json"))]
    pub mcp_config: Option<String>,
    /// Packages that code may import, each like `npm:axios@^1`; `all` for any. `MCP_CONDUCTOR_ALLOWED_PACKAGES` goes before it.
    #[schemars(extend("x-default" = "a list of common ones, see [PACKAGES.md](PACKAGES.md)"))]
    pub packages: Option<Vec<String>>,
    /// A `deno.lock` that says every version; nothing outside it is ever fetched. An absolute path.
    #[schemars(length(min = 1), extend("x-default" = "none"))]
    pub packages_lock: Option<PathBuf>,
    /// Packages that are imported while workers boot.
    #[schemars(extend("x-default" = "learned from use"))]
    pub preload: Option<Vec<String>>,
}

/// What an administrator lets sessions have. The lists bound what a session's environment may ask for: profiles of this file
/// are the administrator's own word and may go beyond them. The limits, `max-…`, bound every session, whatever its profile
/// says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PolicySection {
    /// What becomes of a session whose environment asks for more than is offered. Limits are always cut.
    #[schemars(extend("default" = "refuse"))]
    pub excess: Excess,
    /// Kinds of permission that a session's environment may ask for. `run`, `ffi`, `sys` and `all` let code act as the user.
    #[schemars(extend("default" = ["read", "write", "net", "env"]))]
    pub session_grants: Vec<GrantKind>,
    /// Directories in which the environment may ask for `read`.
    #[schemars(extend("x-default" = "everywhere"))]
    pub read: Option<Vec<String>>,
    /// Directories in which the environment may ask for `write`.
    #[schemars(extend("x-default" = "everywhere"))]
    pub write: Option<Vec<String>>,
    /// Hosts, or `host:port`, that the environment may ask for. A host alone offers all its ports.
    #[schemars(extend("x-default" = "every host"))]
    pub net: Option<Vec<String>>,
    /// Variables that the environment may ask for.
    #[schemars(extend("x-default" = "every variable"))]
    pub env: Option<Vec<String>>,
    /// Programs that the environment may ask for, if `session-grants` has `run`.
    #[schemars(extend("x-default" = "every program"))]
    pub run: Option<Vec<String>>,
    /// Libraries, or directories of them, that the environment may ask for, if `session-grants` has `ffi`.
    #[schemars(extend("x-default" = "every library"))]
    pub ffi: Option<Vec<String>>,
    /// System descriptors that the environment may ask for, if `session-grants` has `sys`.
    #[schemars(extend("x-default" = "every one"))]
    pub sys: Option<Vec<String>>,
    /// Packages, in these versions, that the environment may ask for; also the list of a session that asks for none.
    #[schemars(extend("x-default" = "every package"))]
    pub packages: Option<Vec<String>>,
    /// Profiles that the environment may name, and that tokens of HTTP may be for. Another is refused even if excess is cut.
    #[schemars(extend("x-default" = "every profile"))]
    pub profiles: Option<Vec<String>>,
    /// Directories in which the environment may put a workspace.
    #[schemars(extend("x-default" = "everywhere"))]
    pub workspaces: Option<Vec<String>>,
    /// Whether the environment may name its own file of upstream servers, whose commands run as the user.
    #[schemars(extend("default" = true))]
    pub session_mcp_config: bool,
    /// The longest time limit of any call.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1w", "x-default" = "no limit"))]
    pub max_timeout: Option<Duration>,
    /// The most CPU time of any call.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1w", "x-default" = "no limit"))]
    pub max_compute: Option<Duration>,
    /// The longest `linger` of any profile.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "1ms", "x-most" = "1h", "x-default" = "no limit"))]
    pub max_linger: Option<Duration>,
    /// The largest `heap-mib` of any profile.
    #[schemars(range(min = 32, max = 16_384), extend("x-unit" = "MiB", "x-default" = "no limit"))]
    pub max_heap_mib: Option<u32>,
    /// The largest `max-memory-mib` of any profile.
    #[schemars(range(min = 64, max = 65_536), extend("x-unit" = "MiB", "x-default" = "no limit"))]
    pub max_memory_mib: Option<u32>,
    /// The largest `max-output-bytes` of any profile.
    #[schemars(range(min = 1024, max = 268_435_456), extend("x-unit" = "bytes", "x-default" = "no limit"))]
    pub max_output_bytes: Option<usize>,
    /// The largest `max-result-bytes` of any profile.
    #[schemars(range(min = 1024, max = 67_108_864), extend("x-unit" = "bytes", "x-default" = "no limit"))]
    pub max_result_bytes: Option<usize>,
    /// The largest `max-inline-bytes` of any profile.
    #[schemars(range(min = 1024, max = 8_388_608), extend("x-unit" = "bytes", "x-default" = "no limit"))]
    pub max_inline_bytes: Option<usize>,
    /// The largest `max-calls-in-flight` of any profile.
    #[schemars(range(min = 1, max = 4096), extend("x-unit" = "calls", "x-default" = "no limit"))]
    pub max_calls_in_flight: Option<usize>,
    /// The largest `max-calls-per-minute` of any profile; also for those that set none.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-unit" = "calls", "x-default" = "no limit"))]
    pub max_calls_per_minute: Option<u32>,
    /// The largest `max-workers` of any profile; also for those that set none.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "workers", "x-default" = "no limit"))]
    pub max_workers: Option<usize>,
    /// The largest `max-workers-per-session` of any profile; also for those that set none.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "workers", "x-default" = "no limit"))]
    pub max_workers_per_session: Option<usize>,
    /// The largest `max-upstream-calls` of any profile.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-unit" = "calls", "x-default" = "no limit"))]
    pub max_upstream_calls: Option<usize>,
    /// The largest `max-upstream-calls-in-flight` of any profile.
    #[schemars(range(min = 1, max = 1024), extend("x-unit" = "calls", "x-default" = "no limit"))]
    pub max_upstream_calls_in_flight: Option<usize>,
}

/// What becomes of what a session asks for beyond the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Excess {
    /// Each call of the session is answered with what was asked and what is offered.
    #[default]
    Refuse,
    /// The session gets what is offered of it; `status` says what was cut.
    Cut,
}

/// A kind of permission, as Deno's flags name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GrantKind {
    Read,
    Write,
    Net,
    Env,
    Run,
    Ffi,
    Sys,
    All,
}

impl GrantKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Net => "net",
            Self::Env => "env",
            Self::Run => "run",
            Self::Ffi => "ffi",
            Self::Sys => "sys",
            Self::All => "all",
        }
    }
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            excess: Excess::Refuse,
            // `run`, `ffi`, `sys` and `all` let code act as the user: only an administrator may offer them.
            session_grants: vec![GrantKind::Read, GrantKind::Write, GrantKind::Net, GrantKind::Env],
            read: None,
            write: None,
            net: None,
            env: None,
            run: None,
            ffi: None,
            sys: None,
            packages: None,
            profiles: None,
            workspaces: None,
            session_mcp_config: true,
            max_timeout: None,
            max_compute: None,
            max_linger: None,
            max_heap_mib: None,
            max_memory_mib: None,
            max_output_bytes: None,
            max_result_bytes: None,
            max_inline_bytes: None,
            max_calls_in_flight: None,
            max_calls_per_minute: None,
            max_workers: None,
            max_workers_per_session: None,
            max_upstream_calls: None,
            max_upstream_calls_in_flight: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_schema_names_is_what_the_types_read() {
        let schema = crate::config::schema::schema();
        let names = |pointer: &str| {
            schema.pointer(pointer).and_then(|names| names.as_array()).expect(pointer).clone()
        };
        for name in names("/properties/jail/properties/level/enum") {
            serde_json::from_value::<Level>(name).expect("is a level");
        }
        for name in names("/properties/upstreams/properties/scope/enum") {
            serde_json::from_value::<Scope>(name).expect("is a scope");
        }
        for name in names("/properties/upstreams/properties/start/enum") {
            serde_json::from_value::<Start>(name).expect("is a start");
        }
        for name in names("/properties/profiles/additionalProperties/properties/worker/enum") {
            serde_json::from_value::<WorkerChoice>(name).expect("is a choice of worker");
        }
        let kinds = names("/properties/policy/properties/session-grants/items/enum");
        assert_eq!(json!(crate::profile::run_args::KINDS), json!(kinds));
    }
}
