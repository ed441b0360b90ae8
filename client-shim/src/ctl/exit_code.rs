//! Exit codes of `conductorctl`, from sysexits(3). Documented in `conductorctl --help`; scripts rely on them.

/// Done.
pub(super) const OK: u8 = 0;
/// The code that was run failed, a check failed, or the daemon refused what it was asked.
pub(super) const FAILED: u8 = 1;
/// Wrong command line.
pub(super) const USAGE: u8 = 64;
/// The code to run cannot be read.
pub(super) const NO_INPUT: u8 = 66;
/// No daemon can be reached, or it went away.
pub(super) const UNAVAILABLE: u8 = 69;
/// Something failed that should not.
pub(super) const SOFTWARE: u8 = 70;
/// The output cannot be written.
pub(super) const IO: u8 = 74;
/// The daemon speaks another protocol.
pub(super) const PROTOCOL: u8 = 76;
