//! Workers made of real Deno processes, one promise per module.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod endings;
mod errors;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod fork_draws;
#[cfg(target_os = "linux")]
mod fork_fallback;
#[cfg(target_os = "linux")]
mod fork_packages;
#[cfg(target_os = "linux")]
mod fork_rotation;
#[cfg(target_os = "linux")]
mod fork_soak;
mod grants;
mod hostile;
mod isolation;
mod jail;
mod leaks;
mod media;
mod packages;
mod programs;
mod stacks;
mod support;
mod upstreams;
mod values;
