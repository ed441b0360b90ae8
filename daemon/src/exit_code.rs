//! Exit codes of `conductord`, from sysexits(3). Documented in `conductord --help`; scripts and service managers rely on them.

/// Stopped as asked.
pub const OK: u8 = 0;
/// Wrong command line.
pub const USAGE: u8 = 64;
/// A part of the daemon failed in a way that should not happen.
pub const SOFTWARE: u8 = 70;
/// The socket, a directory or the log could not be set up.
pub const OS: u8 = 71;
/// Another daemon serves this socket.
pub const ALREADY_RUNNING: u8 = 75;
/// The configuration is wrong; starting again does not help before it is repaired.
pub const CONFIG: u8 = 78;
