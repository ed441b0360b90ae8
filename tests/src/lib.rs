//! Fixtures for tests that drive the real binaries: real daemon, real shim, real Deno, real sockets.
//!
//! ```text
//! Home      a temporary home directory with its own socket, configuration and log; checks that no process outlives it
//! Daemon    one `conductord` in a Home: ready when it answers a status request; killed in the end
//! Shim      one `conductor-shim` as an IDE would run it: requests, answers by id, everything it ever printed
//! Answer    what a call of `run_deno_code` came to
//! Held      what a daemon holds at a moment, to compare with another moment
//! ends      when processes end
//! forks     the same tests with forked workers
//! Noise     chance that can be had again from a seed
//! Operator  an operator's connection to a daemon's socket, and bytes that are none
//! kernel    a kernel that is out of something
//! http      a client of the HTTP endpoint, byte for byte
//! clients   MCP clients written by others, fetched into the build directory
//! conformance  the server that the official conformance suite asks for
//! bench     the benchmark
//! mutants   the check that the tests notice mistakes
//! parsers   what must hold for any bytes that a parser is given
//! wait_for  the only way to wait: for a condition, up to a deadline, telling the last state seen
//! ```
//!
//! Every wait has a deadline, and a fixture that is dropped leaves nothing behind, or fails the test.

pub mod answer;
pub mod bench;
pub mod binaries;
pub mod clients;
pub mod conformance;
pub mod daemon;
#[cfg(target_os = "linux")]
pub mod ends;
pub mod forks;
pub mod held;
pub mod home;
pub mod http;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod manager;
pub mod mutants;
pub mod noise;
pub mod operator;
pub mod parsers;
pub mod process;
pub mod shim;
pub mod wait;

pub use answer::Answer;
pub use daemon::Daemon;
pub use held::Held;
pub use home::Home;
#[cfg(target_os = "linux")]
pub use kernel::Kernel;
pub use manager::Manager;
pub use noise::Noise;
pub use operator::Operator;
pub use process::Process;
pub use shim::Shim;
pub use wait::wait_for;

use std::time::Duration;

/// How long anything may take that usually takes milliseconds: a loaded machine is slow, a hang is for ever.
pub const DEADLINE: Duration = Duration::from_secs(30);
