//! `conductord`: a long-lived daemon that runs model-written TypeScript in one-shot Deno workers.
//!
//! # Tasks
//! | task | owns | hears | publishes |
//! |---|---|---|---|
//! | [`supervisor`] | the configuration in use, the phase, all other tasks | signals, admin requests | exit code |
//! | [`listener`] | the socket and its lock | connections | sessions |
//! | [`http`], where it is configured | the HTTP listeners and their sessions | connections, the configuration | sessions |
//! | [`service`], under a service manager | its address | the phase, the clock | readiness, signs of life |
//! | [`session`], one per connection | its frames, its calls in flight | frames | answers |
//! | [`deno`] | the search for the Deno executable | requests to search again | `watch<DenoState>` |
//! | `conductor_packages` | builds of package layers | requests for layers | layers |
//! | `conductor_pool` | all workers and the queue for them | leases, ends of runs | `PoolStatus` |
//!
//! [`exec`] is one call's way through them; [`profile`] and [`config`] decide what it may do.

pub mod admin;
pub mod cli;
pub mod config;
pub mod deno;
mod descriptors;
pub mod dirs;
pub mod exec;
pub mod exit_code;
pub mod http;
pub mod jail;
pub mod listener;
pub mod operations;
pub mod packages;
pub mod profile;
mod random;
pub mod service;
pub mod session;
pub mod signals;
pub mod stats;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod upstreams;
mod watched;

pub use conductor_pool::error_chain;

/// The build's version, as `--version` and status show it.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Everything `conductord` does; `main` only calls this. The result is the process's exit code.
pub fn main_impl() -> u8 {
    // First of all: a worker's launcher must not have threads, a runtime or logs.
    conductor_pool::launcher::run_if_asked();
    // Then, before anything opens a descriptor or starts a thread, what a service manager left.
    cli::run(service::Service::take())
}
