//! Capabilities, `no_new_privs` and the refusal of new executable memory.

use std::io;

use nix::libc;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::State;

pub(super) fn drop_capabilities() -> io::Result<()> {
    // The bounding set needs CAP_SETPCAP, which an ordinary user lacks; for him and for a root without it,
    // no_new_privs keeps exec from adding anything to the empty sets below.
    if rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        drop_bounding_set()?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn drop_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor any above.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn forbid_new() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Forbids memory that was writable to become executable, also in the program this process becomes (Linux 6.3).
pub(super) fn forbid_new_code() -> State {
    let refuse_gain = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    let zero: libc::c_ulong = 0;
    #[expect(unsafe_code, reason = "no safe wrapper of this option exists in the libraries used here")]
    // SAFETY: the option takes integers only.
    let result = unsafe { libc::prctl(libc::PR_SET_MDWE, refuse_gain, zero, zero, zero) };
    if result == 0 { State::Active } else { State::Missing(io::Error::last_os_error().to_string()) }
}
