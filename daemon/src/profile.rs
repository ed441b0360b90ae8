//! Profiles: what the code of one session may do. How one comes about is in [`resolve`]. Owns nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_pool::status::profile_id;
use conductor_pool::{Grant, Grants, Packages, RunLimits, WorkerChoice, WorkerSpec};
use conductor_protocol::status::LimitsStatus;
use conductor_upstream::config::ServerDefaults;
use serde_json::Value;

use crate::dirs::Dirs;
use crate::exec::MAX_MEDIA_BYTES;
pub use mcp_config::McpConfig;
pub use origin::{Origin, Origins};
use packages::PackageRules;
pub(crate) use resolve::PROFILE;
pub use resolve::{NamedBy, ProfileError, explain, missing_variables, resolve, resolve_tenant};

pub mod expand;
mod limits;
pub mod mcp_config;
mod origin;
pub mod packages;
mod policy;
mod resolve;
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

#[cfg(test)]
mod tests;
