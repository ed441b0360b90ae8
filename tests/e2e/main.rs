//! End-to-end tests: real daemon, real shim, real Deno, real sockets. One module for each promise.
//!
//! Each test has a home and a daemon of its own, so tests cannot disturb each other; cargo runs as many at once as there are
//! CPUs.

mod at_once;
mod cache;
mod cancellation;
mod config;
mod diagnosis;
mod edit;
mod expose;
mod faults;
#[cfg(target_os = "linux")]
mod fork;
mod http;
mod input;
#[cfg(target_os = "linux")]
mod jail;
mod lifecycle;
mod limits;
mod packages;
mod parallel;
mod passed_on;
mod profile;
mod progress;
mod recovery;
mod server_requests;
mod servers;
mod service;
mod status;
mod systemd;
mod tool;
mod upstreams;
mod values;
