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
    /// What its forked workers come from, once one has been asked for.
    #[serde(default)]
    pub templates: Option<TemplateStatus>,
    /// See [`WorkerSource::left_out`](crate::source::WorkerSource::left_out).
    #[serde(default)]
    pub left_out: BTreeMap<String, String>,
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

/// The templates of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateStatus {
    /// The one whose forks serve.
    pub serving: Option<ServingTemplate>,
    pub totals: TemplateTotals,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingTemplate {
    pub pid: i32,
    pub age_ms: u64,
    pub forks: u32,
    /// Bytes that it shares with no other process, at the latest look; 0 before the first.
    pub memory_bytes: u64,
}

/// Counters since the profile was first used; forgotten when nobody has used it for a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateTotals {
    /// Templates that have proved themselves and served.
    pub built: u64,
    /// Those among them that serve no longer, by reason.
    pub ended: BTreeMap<TemplateEnd, u64>,
    /// What went wrong, by kind.
    pub failures: BTreeMap<ForkFailure, u64>,
    /// The latest of these, in words.
    pub last_failure: Option<String>,
    /// Times that crashes were a pattern, so that workers were spawned for a while.
    pub gave_up: u64,
}

impl TemplateTotals {
    pub(crate) fn ended(&mut self, end: TemplateEnd) {
        *self.ended.entry(end).or_default() += 1;
    }

    pub(crate) fn failed(&mut self, failure: ForkFailure, why: &str) {
        *self.failures.entry(failure).or_default() += 1;
        self.last_failure = Some(why.to_owned());
    }
}

/// Why a template serves no longer. Its children run on, unless it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateEnd {
    /// Replaced after as many forks as may share an address layout.
    Forks,
    /// Replaced at its age, for the same reason.
    Age,
    /// Replaced because it had grown.
    Memory,
    /// Replaced by one that may have the packages for which there was no time.
    Hurried,
    /// Made from a Deno or from files that have been replaced.
    Outdated,
    /// Nobody wanted its workers any more.
    Unused,
    /// It did not do what it was asked, or its forks kept crashing.
    Failed,
    /// It ended by itself, or somebody killed it.
    Died,
}

impl TemplateEnd {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forks => "forks",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Hurried => "hurried",
            Self::Outdated => "outdated",
            Self::Unused => "unused",
            Self::Failed => "failed",
            Self::Died => "died",
        }
    }
}

/// What went wrong with a template or a fork, by where the cure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForkFailure {
    /// The profile or the machine rules forks out; nothing was tried.
    Unsuitable,
    /// This build or processor has no part that forking needs.
    Unsupported,
    /// The template did not start.
    Start,
    /// It ended, did not answer, answered nonsense, or could not do what it was asked.
    Template,
    /// It holds a descriptor of which its children could not have their own.
    Descriptors,
    /// Its threads did not end.
    Threads,
    /// It named a process that is not its child.
    ForeignProcess,
    /// One fork did not become a worker. The call got a spawned one.
    Child,
    /// A forked worker ended by a signal that no program dies of by its own doing.
    Crash,
    SelfTest,
    Trial,
    /// The daemon itself: out of descriptors, or a fault of its own.
    Daemon,
}

impl ForkFailure {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsuitable => "unsuitable",
            Self::Unsupported => "unsupported",
            Self::Start => "start",
            Self::Template => "template",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::ForeignProcess => "foreign-process",
            Self::Child => "child",
            Self::Crash => "crash",
            Self::SelfTest => "self-test",
            Self::Trial => "trial",
            Self::Daemon => "daemon",
        }
    }
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
