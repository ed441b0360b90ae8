//! Resource limits, and the worker's place behind everything else when memory or CPU is short.

use std::io;

use rustix::process::{Resource, Rlimit};

use crate::{JailError, Limits};

/// Not 0: where a program takes core dumps (systemd-coredump, apport), the kernel ignores 0 and pipes the whole memory,
/// user data included, to it; 1 it obeys there too. As a file, a core of at most one byte is none.
const CORE_BYTES: u64 = 1;

/// Behind interactive programs, ahead of nothing that matters.
const NICER: i32 = 5;

pub(super) fn apply(limits: &Limits) -> Result<(), JailError> {
    let cpu = limits.cpu_seconds;
    let each = [
        ("core dumps", Resource::Core, Some(CORE_BYTES), 0),
        ("descriptors", Resource::Nofile, Some(limits.descriptors), 0),
        ("file size", Resource::Fsize, limits.file_size, 0),
        ("memory", Resource::Data, limits.data, 0),
        // The signal at the soft limit can be caught; the one a second later cannot.
        ("CPU time", Resource::Cpu, cpu, 1),
    ];
    for (what, resource, value, grace) in each {
        let Some(value) = value else { continue };
        lower(resource, value, grace).map_err(|source| JailError::Limit { what, source })?;
    }
    volunteer_for_the_killer();
    // Refused only below the least priority, which is where it would lead.
    rustix::process::nice(NICER).ok();
    Ok(())
}

/// Lowers a limit for good; one that is already lower stays.
fn lower(resource: Resource, value: u64, grace: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let maximum = value.saturating_add(grace).min(most);
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit { current: Some(value.min(most)), maximum: Some(maximum) },
    )?)
}

/// Makes this process the first that the out-of-memory killer takes: it has nothing to lose, unlike the user's editor.
fn volunteer_for_the_killer() {
    // Refused only where /proc is read-only or hidden, and then the worker is as safe as any other program.
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
}
