//! The limits of a profile, from the configuration file and the environment. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use conductor_pool::WorkerSpec;

use super::origin::{Notes, Sources};
use super::resolve::{DEFAULT_TIMEOUT, MAX_TIMEOUT};
use super::{ProfileError, defaults};
use crate::config::{PolicySection, ProfileSection};

/// None above the policy's.
pub(super) struct Limits {
    pub(super) default_timeout: Duration,
    pub(super) max_timeout: Duration,
    pub(super) max_compute: Duration,
    pub(super) linger: Duration,
    pub(super) heap_mib: u32,
    pub(super) max_memory_mib: u32,
    pub(super) max_output_bytes: usize,
    pub(super) max_result_bytes: usize,
    pub(super) max_inline_bytes: usize,
    pub(super) max_calls_in_flight: usize,
    pub(super) max_calls_per_minute: Option<u32>,
    pub(super) max_workers: Option<usize>,
    pub(super) max_workers_per_session: Option<usize>,
    pub(super) max_upstream_calls: usize,
    pub(super) max_upstream_calls_in_flight: usize,
}

impl Limits {
    pub(super) fn resolve(
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
