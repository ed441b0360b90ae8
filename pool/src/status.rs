//! What the pool shows of itself. Plain data, made by the pool's state machine; ages are as of the moment it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::spec::WorkerSpec;
use crate::state::RetireReason;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    pub draining: bool,
    pub max_workers: usize,
    pub max_idle: usize,
    pub queue_capacity: usize,
    /// Every process that is not reaped yet: booting, idle, busy or ending.
    pub workers: usize,
    pub idle: usize,
    pub queued: usize,
    pub totals: Totals,
    pub profiles: Vec<ProfileStatus>,
}

/// One set of interchangeable workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// See [`profile_id`].
    pub id: String,
    /// How its latest worker was made, or would be: `spawn`, `fork`.
    pub source: String,
    /// Why it was not made as the profile asks for.
    pub fallback: Option<String>,
    /// Sessions that keep it warm.
    pub registrations: usize,
    pub booting: usize,
    pub idle: usize,
    /// Leased, until reaped.
    pub busy: usize,
    /// Killed while idle or booting, not reaped yet.
    pub ending: usize,
    pub queued: usize,
    /// Time since each idle worker became ready, oldest first.
    pub idle_ages_ms: Vec<u64>,
    pub breaker: BreakerStatus,
    pub boot_failures_in_a_row: u32,
    /// The latest boot failure with its causes, also when later boots went well.
    pub last_boot_error: Option<String>,
    pub boot_last_us: Option<u64>,
    /// Median of the last 64 boots.
    pub boot_p50_us: Option<u64>,
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum BreakerStatus {
    Closed,
    /// No boots; calls that find no idle worker are refused.
    Open {
        retry_in_ms: u64,
    },
    /// One boot is tried; it decides.
    HalfOpen,
}

/// Counters since the pool started; a profile's since the pool last met it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub booted: u64,
    /// Those among them that were forked.
    #[serde(default)]
    pub forked: u64,
    pub boot_failures: u64,
    pub leased: u64,
    /// Refused for a full queue or a wait that was over.
    pub refused_busy: u64,
    pub refused_broken: u64,
    /// Workers that ended without a run, by reason; `died` are those that ended by themselves.
    pub retired: BTreeMap<RetireReason, u64>,
}

impl Totals {
    pub fn retired(&self, reason: RetireReason) -> u64 {
        self.retired.get(&reason).copied().unwrap_or(0)
    }
}

/// A short name for a profile in status and logs: the same for equal specs, in every run of the daemon.
pub fn profile_id(spec: &WorkerSpec) -> String {
    let bytes = serde_json::to_vec(spec).expect("a spec has only string keys");
    Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
