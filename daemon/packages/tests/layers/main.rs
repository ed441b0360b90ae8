//! Layers built with the real Deno: from the real npm registry, and from registries on loopback that fail in every way.

#![allow(clippy::unwrap_used, reason = "a failed test is what a panic is for")]

mod disk;
mod faults;
mod jsr;
mod lifecycle;
mod private;
mod real;
mod registry;
mod support;
