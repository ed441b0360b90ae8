//! The status document: what `conductorctl status --json` prints. Crosses as JSON; fields may be added, never renamed, and
//! a reader fills fields it does not get with their defaults. Units are in the names; times are counted back from now.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    pub daemon: DaemonStatus,
    pub deno: DenoStatus,
    pub jail: JailStatus,
    pub sessions: Vec<SessionStatus>,
    /// Agents that are not on stdio.
    pub http: HttpStatus,
    pub pool: PoolReport,
    /// For each profile in use that may import any.
    pub packages: Vec<PackagesStatus>,
    pub executions: ExecutionTotals,
    pub latency: Vec<LatencyStatus>,
    /// One for each distinct upstream server, by name.
    pub upstreams: Vec<UpstreamStatus>,
    /// Newest last; bounded.
    pub last_errors: Vec<ErrorStatus>,
    /// What an administrator should know: loud grants, a configuration that could not be read, a fallback in use.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonStatus {
    pub build: String,
    pub protocol: u16,
    pub pid: u32,
    pub uptime_ms: u64,
    pub socket: String,
    /// The configuration file in use, absent when there is none.
    pub config: Option<String>,
    /// `running`, `draining`.
    pub phase: String,
    pub rss_bytes: u64,
    /// Open descriptors, those of the connection that asks among them.
    pub descriptors: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DenoStatus {
    /// `searching`, `fetching`, `ready`, `failed`.
    pub state: String,
    pub version: Option<String>,
    pub path: Option<String>,
    /// Where it was found: `explicit`, `CONDUCTOR_DENO`, `PATH`, `home`, `managed`.
    pub origin: Option<String>,
    /// While fetching.
    pub fetched_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub error: Option<String>,
    /// The pinned version, when it is newer than what is used.
    pub update: Option<String>,
}

/// What the kernel keeps every worker from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JailStatus {
    /// `strict`, `best-effort`.
    pub level: String,
    /// `checking`, `holds`, `incomplete`.
    pub state: String,
    pub layers: Vec<LayerStatus>,
    /// The version of Landlock's interface in use; 0 if none.
    pub landlock_abi: u32,
    /// What the jail's own test did, and a layer should have stopped.
    pub broken: Vec<String>,
    /// No code runs, because the level is strict.
    pub refuses: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerStatus {
    /// `limits`, `capabilities`, `landlock`, `seccomp`, `no-new-code`, `cgroup`.
    pub name: String,
    /// `active`, `partial`, `missing`, `off`.
    pub state: String,
    /// Why it is partial or missing.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStatus {
    pub id: u64,
    /// `shim`, `ctl`, `http`.
    pub kind: String,
    /// Name of the token by which it comes over HTTP.
    pub token: Option<String>,
    pub client_pid: u32,
    pub client_build: String,
    /// Name and version the MCP client gave of itself.
    pub client: Option<String>,
    pub cwd: String,
    pub age_ms: u64,
    /// Name of the session's profile; absent while it is not known or when its configuration is wrong.
    pub profile: Option<String>,
    /// Why the session's configuration is refused.
    pub error: Option<String>,
    pub executions: u64,
    pub in_flight: u64,
    /// The calls in flight, running or waiting for a worker.
    pub running: Vec<RunningStatus>,
    /// Those of its profile; absent as `profile` is.
    pub limits: Option<LimitsStatus>,
}

/// How far the code of a session may go. What is absent has no limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsStatus {
    /// The longest that a call may ask for.
    pub timeout_ms: u64,
    pub compute_ms: u64,
    pub heap_mib: u64,
    pub output_bytes: u64,
    pub result_bytes: u64,
    /// Of one run.
    pub upstream_calls: u64,
    pub upstream_calls_in_flight: u64,
    /// Of one session, running or waiting for a worker.
    pub calls_in_flight: u64,
    pub calls_per_minute: Option<u64>,
    /// Busy ones, of all sessions of the profile.
    pub workers: Option<u64>,
    pub workers_per_session: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpStatus {
    pub enabled: bool,
    /// Addresses of the endpoint, while the daemon listens: `http://127.0.0.1:7780/mcp`.
    pub urls: Vec<String>,
    /// Why the daemon does not listen, or not as it should.
    pub error: Option<String>,
    /// What connections are encrypted with; absent where they are not.
    pub certificate: Option<CertificateStatus>,
    /// Why other machines are let in without encryption, in the administrator's words.
    pub plaintext_because: Option<String>,
    /// The file that lists the tokens.
    pub tokens_file: String,
    /// Why that file cannot be used, and so nobody is let in.
    pub tokens_error: Option<String>,
    pub tokens: Vec<TokenStatus>,
    pub connections: u64,
    /// Connections that were closed because there were too many.
    pub turned_away: u64,
    /// Requests that were let in, since the daemon started.
    pub requests: u64,
    /// Those that were not, by reason: `forbidden`, `unauthorized`, `busy`, `unavailable`, `too-large`, `broken`, `no-session`,
    /// `malformed`.
    pub refused: std::collections::BTreeMap<String, u64>,
}

/// The daemon's own certificate. Times are seconds since 1970, absent where they cannot be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateStatus {
    pub path: String,
    pub not_before: Option<u64>,
    pub not_after: Option<u64>,
}

/// A token, but for its value, which is kept nowhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenStatus {
    pub name: String,
    pub profile: String,
    /// Why nothing can be done with it as the configuration is.
    pub problem: Option<String>,
    /// Seconds since 1970.
    pub created_at: u64,
    pub sessions: u64,
    pub in_flight: u64,
    /// Since the daemon started.
    pub requests: u64,
    /// Since its last request; absent if there was none.
    pub unused_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningStatus {
    /// What `conductorctl cancel` takes.
    pub execution: String,
    pub age_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolReport {
    pub max_workers: u64,
    pub max_idle: u64,
    pub profiles: Vec<ProfileStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileStatus {
    pub id: String,
    /// The worker source: `spawn`, `fork`.
    pub source: String,
    /// Why it is not the one that the profile asks for.
    pub fallback: Option<String>,
    /// Absent as long as nobody has asked for forked workers.
    pub templates: Option<TemplatesStatus>,
    /// Packages that are not imported ahead of time as they should be, each with the reason.
    pub left_out: Vec<String>,
    /// What the code may do, in words.
    pub grants: String,
    pub workspace: String,
    pub sessions: u64,
    pub idle: u64,
    pub busy: u64,
    pub booting: u64,
    pub queued: u64,
    /// `closed`, `open`, `half-open`.
    pub breaker: String,
    pub last_boot_error: Option<String>,
    pub booted: u64,
    /// Those among them that were started, and those that were forked.
    pub spawned: u64,
    pub forked: u64,
    pub boot_failures: u64,
    pub boot_p50_ms: Option<f64>,
}

/// What the forked workers of a profile come from. Counters are since the profile was first used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplatesStatus {
    /// The template whose forks serve, if there is one.
    pub pid: Option<i32>,
    pub age_ms: u64,
    pub forks: u64,
    /// Memory of its own, at the latest look.
    pub memory_bytes: u64,
    /// Templates that have served.
    pub built: u64,
    /// Those that serve no longer, by reason: `forks`, `age`, `memory`, `outdated`, `unused`, `failed`, `died`.
    pub ended: std::collections::BTreeMap<String, u64>,
    /// What went wrong, by kind.
    pub failures: std::collections::BTreeMap<String, u64>,
    pub last_failure: Option<String>,
    /// Times that forks were given up for a while because they kept crashing.
    pub gave_up: u64,
}

/// The packages of one profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackagesStatus {
    pub profile: String,
    /// How many the list names; absent when any is allowed.
    pub allowed: Option<u64>,
    /// The layer of the whole list, once it is at hand.
    pub layer: Option<String>,
    /// What the oldest build is doing.
    pub building: Option<String>,
    /// Why there is no layer of the whole list, or what is missing in it.
    pub error: Option<String>,
    /// What workers import while they boot.
    pub preloaded: Vec<PreloadStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreloadStatus {
    pub specifier: String,
    /// What each call that imports it saves, and each boot costs.
    pub import_ms: f64,
    pub memory_bytes: u64,
    /// Decayed count of runs that imported it.
    pub uses: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionTotals {
    pub started: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Failed ones by error type.
    pub by_error: std::collections::BTreeMap<String, u64>,
    /// Those that a worker served, by how it was made: `spawn`, `fork`.
    pub by_worker: std::collections::BTreeMap<String, u64>,
}

/// Distribution since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyStatus {
    /// `total`, `queue`, `run`.
    pub name: String,
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// An upstream MCP server. Secrets of its configuration are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamStatus {
    pub name: String,
    pub description: Option<String>,
    /// `disabled`, `idle`, `starting`, `ready`, `paused`, `unavailable`.
    pub state: String,
    /// Why it is disabled, or what failed last.
    pub reason: Option<String>,
    /// `stdio`, `http`, `sse`.
    pub transport: Option<String>,
    /// The command or the URL as it is configured.
    pub target: Option<String>,
    /// The program that a command was found to be.
    pub command: Option<CommandStatus>,
    /// `shared`, `session`, `call`.
    pub scope: Option<String>,
    pub protocol_version: Option<String>,
    /// Absent while they are not known.
    pub tools: Option<u64>,
    pub prompts: Option<u64>,
    pub resources: Option<u64>,
    /// What is wrong with its lists.
    pub problems: Vec<String>,
    /// Sessions that have it in their configuration.
    pub sessions: Vec<u64>,
    /// Of each connection that is open, where it is a process.
    pub pids: Vec<u32>,
    pub connections: u64,
    pub in_flight: u64,
    pub starts: u64,
    pub failures: u64,
    /// How long the youngest connection has been ready.
    pub ready_ms: Option<u64>,
    /// Questions of the server that could not be put to a client.
    pub declined: u64,
    /// What would help.
    pub advice: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandStatus {
    pub program: String,
    /// Where it was found, in words: `the session's PATH`.
    pub place: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorStatus {
    pub ago_ms: u64,
    /// The part that failed: `execution`, `session`, `pool`, `deno`, `config`.
    pub area: String,
    pub text: String,
}
