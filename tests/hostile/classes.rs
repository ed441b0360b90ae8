//! The table, in sections that each have a daemon of their own.

pub(crate) mod escalation;
pub(crate) mod files;
pub(crate) mod forks;
pub(crate) mod harness;
pub(crate) mod imports;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod output;
pub(crate) mod processes;
pub(crate) mod results;
pub(crate) mod time;
