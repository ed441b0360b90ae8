//! Upstream servers end to end: real ones, and one that breaks the protocol in every way.

#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, reason = "these are tests")]

mod auth;
mod config;
mod hostile;
mod http;
mod life;
mod real;
mod sharing;
mod support;
mod wire;
