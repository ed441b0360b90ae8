//! Random bytes that nobody can guess, from the operating system.

use std::fs::File;
use std::io::{self, Read};

/// # Errors
/// The system has no randomness.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// 128 random bits in hexadecimal digits.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn id() -> io::Result<String> {
    Ok(bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
