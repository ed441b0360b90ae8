//! launchd's activation: launch_activate_socket(3). Not built or tested here.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use super::Passed;

/// The key in the agent's `Sockets` dictionary.
const NAME: &std::ffi::CStr = c"Listener";

unsafe extern "C" {
    fn launch_activate_socket(
        name: *const nix::libc::c_char,
        descriptors: *mut *mut nix::libc::c_int,
        count: *mut nix::libc::size_t,
    ) -> nix::libc::c_int;
}

/// The sockets of the agent that started this process; none when launchd did not.
pub(super) fn sockets() -> io::Result<Vec<Passed>> {
    let mut descriptors = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: the three pointers are valid for the call; on success the array is ours to free.
    #[expect(unsafe_code, reason = "an interface of the operating system that no library of ours wraps")]
    let outcome = unsafe { launch_activate_socket(NAME.as_ptr(), &mut descriptors, &mut count) };
    match outcome {
        0 => {}
        // Not a service at all, or one without this socket.
        nix::libc::ESRCH | nix::libc::ENOENT => return Ok(Vec::new()),
        code => return Err(io::Error::from_raw_os_error(code)),
    }
    // SAFETY: launchd filled the array with `count` descriptors; each is open and owned by us from here on.
    #[expect(unsafe_code, reason = "the array was allocated by the operating system's library")]
    let numbers = unsafe {
        let numbers = std::slice::from_raw_parts(descriptors, count).to_vec();
        nix::libc::free(descriptors.cast());
        numbers
    };
    numbers
        .into_iter()
        .map(|number| {
            // SAFETY: see above.
            #[expect(unsafe_code, reason = "launchd passes ownership by number")]
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            use nix::fcntl::{FcntlArg, FdFlag, fcntl};
            fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            Ok(Passed { name: NAME.to_string_lossy().into_owned(), descriptor })
        })
        .collect()
}
