//! `conductord`: a long-lived daemon that runs model-written TypeScript in one-shot Deno workers.
//!
//! # Tasks
//! | task | owns | hears | publishes |
//! |---|---|---|---|
//! | [`supervisor`] | the configuration in use, the phase, all other tasks | signals, admin requests | exit code |
//! | [`listener`] | the socket and its lock | connections | sessions |
//! | [`session`], one per connection | its frames, its calls in flight | frames | answers |
//! | [`deno`] | the search for the Deno executable | requests to search again | `watch<DenoState>` |
//! | `conductor_pool` | all workers and the queue for them | leases, ends of runs | `PoolStatus` |
//!
//! [`exec`] is one call's way through them; [`profile`] and [`config`] decide what it may do.

use std::error::Error;

pub mod admin;
pub mod cli;
pub mod config;
pub mod deno;
pub mod dirs;
pub mod exec;
pub mod exit_code;
pub mod listener;
pub mod profile;
pub mod session;
pub mod signals;
pub mod stats;
pub mod store;
pub mod supervisor;
pub mod telemetry;

/// The build's version, as `--version` and status show it.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Everything `conductord` does; `main` only calls this. The result is the process's exit code.
pub fn main_impl() -> u8 {
    // First of all: a worker's launcher must not have threads, a runtime or logs.
    conductor_pool::launcher::run_if_asked();
    cli::run()
}

/// An error and its causes on one line, for logs and users.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
