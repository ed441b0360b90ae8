//! End-to-end tests: real daemon, real shim, real Deno, real sockets. One module for each promise.
//!
//! Cargo runs as many tests at once as there are CPUs, and each daemon keeps a few Deno processes; where a test only reads,
//! daemons are shared.

mod tool;
