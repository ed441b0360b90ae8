//! The few unsafe steps of a probe, behind safe functions.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno as Nix;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::Scene;

/// An error number, as in `errno`.
pub type Errno = i32;

/// Descriptors that a process could have been left with: opened before the jail closed.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) sink: File,
    pub(super) stream: OwnedFd,
    pub(super) datagram: UdpSocket,
    pub(super) listener: TcpListener,
    pub(super) local: OwnedFd,
    pub(super) descriptors: u64,
    pub(super) priority: i32,
}

impl Handles {
    pub(super) fn open(scene: &Scene) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            sink: File::options().write(true).open(scene.path("sink"))?,
            stream: socket(libc::AF_INET, libc::SOCK_STREAM, 0).map_err(io::Error::from_raw_os_error)?,
            datagram: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            listener,
            local: socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).map_err(io::Error::from_raw_os_error)?,
            descriptors: 128,
            priority: rustix::process::getpriority_process(None)?,
        })
    }
}

/// Makes sure that the probe ends, and that refused writes are answered by an error rather than by death.
pub(super) fn prepare(patience: libc::c_uint) {
    nix::unistd::alarm::set(patience);
    for ignored in [Signal::SIGXFSZ, Signal::SIGPIPE] {
        #[expect(unsafe_code, reason = "changing what a signal does is unsafe by its type")]
        // SAFETY: ignoring a signal runs no handler.
        let result = unsafe { signal(ignored, SigHandler::SigIgn) };
        result.expect("these signals can be ignored");
    }
}

/// Returns in a copy of this process; the process itself ends as its copy does.
pub(super) fn go_on_in_a_copy() -> io::Result<()> {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    #[expect(unsafe_code, reason = "a fork is unsafe by its type")]
    // SAFETY: a probe has one thread, so its copy may do what it may.
    let ForkResult::Parent { child } = unsafe { fork() }? else { return Ok(()) };
    let ended = waitpid(child, None)?;
    let status = if let WaitStatus::Exited(_, status) = ended { status } else { 1 };
    #[expect(clippy::exit, reason = "what it has to do its copy does")]
    std::process::exit(status);
}

/// One system call with plain numbers. An argument that the call takes for an address must be that of live memory, or one
/// that the kernel refuses.
pub(super) fn call(number: i64, args: [usize; 6]) -> Result<i64, Errno> {
    #[expect(unsafe_code, reason = "the probe must reach calls that have no wrapper")]
    // SAFETY: every caller in this module's parent passes numbers, addresses of its own live values, or the highest
    // address, which is never mapped. No call tried here changes memory elsewhere or ends the process's own threads.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result < 0 { Err(Nix::last_raw()) } else { Ok(result) }
}

/// As [`call`] with fewer arguments.
pub(super) fn call_with<const N: usize>(number: i64, args: [usize; N]) -> Result<i64, Errno> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    call(number, all)
}

/// The number as the kernel's register holds it.
pub(super) fn word(value: i32) -> usize {
    usize::from_ne_bytes(i64::from(value).to_ne_bytes())
}

/// Makes a process by `number` with `flags`, which says so by ending, and waits for it.
pub(super) fn make_process(number: i64, flags: i32) -> Result<(), Errno> {
    let child = call_with(number, [word(flags | libc::SIGCHLD)])?;
    if child == 0 {
        #[expect(unsafe_code, reason = "the child of a raw fork may do nothing else")]
        // SAFETY: ends the child at once, without running anything of this process's.
        unsafe {
            libc::_exit(0)
        };
    }
    nix::sys::wait::waitpid(None, None).map(drop).map_err(|errno| errno as Errno)
}

pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let fd = call_with(libc::SYS_socket, [word(family), word(kind), word(protocol)])?;
    let fd = RawFd::try_from(fd).expect("descriptors are small");
    #[expect(unsafe_code, reason = "a raw descriptor has no owner yet")]
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens with exactly these flags.
pub(super) fn open(path: &Path, flags: libc::c_int) -> Result<(), Errno> {
    let flags = nix::fcntl::OFlag::from_bits_retain(flags);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::fcntl::open(path, flags, mode).map(drop).map_err(|errno| errno as Errno)
}

pub(super) fn raw(error: &io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Turns "it is still possible" into an end: `EPERM` if not.
pub(super) fn unless(refused: bool) -> Result<(), Errno> {
    if refused { Err(libc::EPERM) } else { Ok(()) }
}

pub(super) fn number(fd: &impl AsRawFd) -> usize {
    word(fd.as_raw_fd())
}

/// Private writable memory that becomes executable.
pub(super) fn code_memory() -> Result<(), Errno> {
    const LENGTH: usize = 4096;
    let writable = word(libc::PROT_READ | libc::PROT_WRITE);
    let private = word(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let address = call(libc::SYS_mmap, [0, LENGTH, writable, private, usize::MAX, 0])?;
    let address = usize::from_ne_bytes(address.to_ne_bytes());
    let executable = word(libc::PROT_READ | libc::PROT_EXEC);
    let end = call_with(libc::SYS_mprotect, [address, LENGTH, executable]).map(drop);
    call_with(libc::SYS_munmap, [address, LENGTH])?;
    end
}

/// Reserves private writable memory and gives it back untouched.
pub(super) fn reserve(bytes: usize) -> Result<(), Errno> {
    let writable = word(libc::PROT_READ | libc::PROT_WRITE);
    let private = word(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    let address = call(libc::SYS_mmap, [0, bytes, writable, private, usize::MAX, 0])?;
    call_with(libc::SYS_munmap, [usize::from_ne_bytes(address.to_ne_bytes()), bytes]).map(drop)
}
