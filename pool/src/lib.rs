//! Warm, single-use Deno workers.
//!
//! A *worker* is one Deno process. It boots before any code arrives, warms itself, waits idle without using CPU, is
//! *leased* once, runs one *job*, and is killed. There is no path from leased back to idle.
//!
//! ```text
//! PoolHandle ──lease──► PoolTask (owns every worker's state) ──boot──► WorkerSource ──► Box<dyn Worker>
//!     │                     ▲ worker died, booted, retired                                   │
//!     └──── Lease ──run(job)─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! This crate knows neither MCP nor sockets, and never decides who may do what: it gets a [`WorkerSpec`] and obeys it.

use std::error::Error;

pub mod config;
#[cfg(target_os = "linux")]
pub mod fork;
pub mod host;
pub mod job;
pub mod launcher;
pub mod lease;
pub mod source;
pub mod spawn;
pub mod spec;
pub mod state;
pub mod status;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod worker;

pub use config::{ConfigError, PoolConfig};
#[cfg(target_os = "linux")]
pub use fork::{DenoWorkers, ForkLimits, TemplateTask, TrialLimits};
pub use host::{CALL_LIMIT_ERROR, Host, HostCalls, HostError};
pub use job::{Job, Media, MediaKind, RunEvent, RunLimits, RunReport, Settled, Stream, Thrown, Verdict};
pub use lease::{Lease, LeaseError};
pub use source::{SpawnError, Worker, WorkerIdentity, WorkerKind, WorkerSource};
pub use spawn::{DenoSpawn, Rehearsal, SpawnConfig};
pub use spec::{Grant, Grants, Packages, WorkerChoice, WorkerSpec};
pub use state::RetireReason;
pub use status::{ForkFailure, PoolStatus, TemplateEnd, TemplateStatus};
pub use task::{PoolHandle, PoolTask, pool};
pub use worker::{USER_LINE_OFFSET, USER_SCRIPT_URL};

/// An error and its causes on one line, for logs and users.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The beginning of a text that holds what a worker has said, for a status: on one line.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 200;
    let line: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() { format!("{line}…") } else { line }
}
