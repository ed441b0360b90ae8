//! The C library, as far as it is needed: declarations by hand, since the library is compiled without dependencies, and
//! safe functions around them. A test compares the layouts with those of the `libc` crate.
//!
//! All 64-bit Linux with glibc, which is where Deno runs.

#![expect(unsafe_code, reason = "the module is the boundary to the C library")]

use std::ffi::{CStr, c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr::null_mut;

use crate::wire::OF_A_CHILD;

/// An `errno`.
pub(crate) type Errno = i32;

pub(crate) const EINTR: Errno = 4;
pub(crate) const EPROTO: Errno = 71;

const AF_UNIX: c_int = 1;
const SOCK_STREAM: c_int = 1;
const CLOEXEC: c_int = 0o2_000_000;
const NONBLOCK: c_int = 0o4_000;
const ACCESS_MODE: c_int = 0o3;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const MSG_NOSIGNAL: c_int = 0x4000;
const MADV_DOFORK: c_int = 11;
const EPOLL_CTL_ADD: c_int = 1;
const F_GETFL: c_int = 3;
const PR_SET_PDEATHSIG: c_int = 1;
const SIGKILL: c_ulong = 9;
const WNOHANG: c_int = 1;
const AT_EMPTY_PATH: c_int = 0x1000;
/// `O_PATH`
const PATH_ONLY: c_int = 0o10_000_000;
const STATX_NLINK: c_uint = 4;
const SECCOMP_SET_MODE_FILTER: c_ulong = 1;
const SYS_PIDFD_OPEN: c_long = 434;
const SYS_CLOSE_RANGE: c_long = 436;
const SYS_LANDLOCK_CREATE_RULESET: c_long = 444;
const SYS_LANDLOCK_ADD_RULE: c_long = 445;
const SYS_LANDLOCK_RESTRICT_SELF: c_long = 446;
const LANDLOCK_RULE_PATH_BENEATH: c_long = 1;
/// To move a file to another directory: the one right that a domain takes away without being asked.
const LANDLOCK_REFER: u64 = 1 << 13;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const LANDLOCK_SCOPES: u64 = 3;
#[cfg(target_arch = "x86_64")]
const SYS_SECCOMP: c_long = 317;
#[cfg(not(target_arch = "x86_64"))]
const SYS_SECCOMP: c_long = 277;

#[repr(C)]
pub(crate) struct IoVec {
    base: *mut c_void,
    length: usize,
}

#[repr(C)]
pub(crate) struct MsgHdr {
    name: *mut c_void,
    name_length: c_uint,
    vectors: *mut IoVec,
    vector_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}

/// `struct cmsghdr` and room for as many descriptors as any packet carries.
#[repr(C)]
pub(crate) struct Rights {
    length: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; OF_A_CHILD + 1],
}

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
pub(crate) struct EpollEvent {
    events: u32,
    data: u64,
}

#[repr(C)]
pub(crate) struct SockFprog {
    length: u16,
    filter: *const u64,
}

/// `struct landlock_ruleset_attr`, as of version 6 of the interface.
#[repr(C)]
struct Ruleset {
    handled_files: u64,
    handled_network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: c_int,
}

unsafe extern "C" {
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
    fn sendmsg(fd: c_int, message: *const MsgHdr, flags: c_int) -> isize;
    fn read(fd: c_int, buffer: *mut c_void, length: usize) -> isize;
    fn open(path: *const i8, flags: c_int, ...) -> c_int;
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
    fn eventfd(value: c_uint, flags: c_int) -> c_int;
    fn socketpair(family: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int;
    fn statx(fd: c_int, path: *const i8, flags: c_int, mask: c_uint, result: *mut [u32; 64]) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    safe fn getpid() -> c_int;
    safe fn getppid() -> c_int;
    safe fn _exit(status: c_int) -> !;
    #[link_name = "fork"]
    fn c_fork() -> c_int;
}

fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(EPROTO)
}

fn check(result: impl Into<i64>) -> Result<i64, Errno> {
    let result = result.into();
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// For calls that come by [`syscall`].
fn check_fd_of(result: c_long) -> Result<c_int, Errno> {
    c_int::try_from(check(result)?).map_err(|_| EPROTO)
}

fn check_fd(result: c_int) -> Result<c_int, Errno> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Ends the process at once, without running anything of Deno's or the C library's.
pub(crate) fn exit(status: i32) -> ! {
    _exit(status)
}

pub(crate) fn own_pid() -> i32 {
    getpid()
}

pub(crate) fn parent_pid() -> i32 {
    getppid()
}

/// Receives one packet and the descriptors that come with it: how many bytes, how many descriptors. No bytes: the other
/// end is closed.
pub(crate) fn receive(
    socket: c_int,
    packet: &mut [u8],
    fds: &mut [c_int; OF_A_CHILD],
) -> Result<(usize, usize), Errno> {
    let mut vector = IoVec { base: packet.as_mut_ptr().cast(), length: packet.len() };
    let mut rights = Rights { length: 0, level: 0, kind: 0, fds: [-1; OF_A_CHILD + 1] };
    // Room for no more than a packet may carry: the kernel closes the rest.
    let room = size_of::<Rights>() - (rights.fds.len() - OF_A_CHILD) * size_of::<c_int>();
    let mut message = header(&mut vector, (&raw mut rights).cast(), room);
    // SAFETY: the header points to `packet` and to `rights`, with their sizes, and both outlive the call.
    let received = check(unsafe { recvmsg(socket, &mut message, MSG_CMSG_CLOEXEC) } as i64)?;
    let has_rights = message.control_length >= Rights::LENGTH_OF_HEADER
        && (rights.level, rights.kind) == (SOL_SOCKET, SCM_RIGHTS);
    let count = if has_rights { (rights.length - Rights::LENGTH_OF_HEADER) / size_of::<c_int>() } else { 0 };
    let count = count.min(OF_A_CHILD);
    fds[..count].copy_from_slice(&rights.fds[..count]);
    Ok((usize::try_from(received).map_err(|_| EPROTO)?, count))
}

/// Sends one packet, with one descriptor or none.
pub(crate) fn send(socket: c_int, packet: &[u8], fd: Option<c_int>) -> Result<(), Errno> {
    let mut vector = IoVec { base: packet.as_ptr().cast_mut().cast(), length: packet.len() };
    let mut rights = Rights {
        length: Rights::LENGTH_OF_HEADER + size_of::<c_int>(),
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        fds: [fd.unwrap_or(-1); OF_A_CHILD + 1],
    };
    // A header with one descriptor, up to the next multiple of eight.
    let room = Rights::LENGTH_OF_HEADER + size_of::<usize>();
    let message = match fd {
        Some(_) => header(&mut vector, (&raw mut rights).cast(), room),
        None => header(&mut vector, null_mut(), 0),
    };
    // SAFETY: the header points to `packet`, which is only read, and to `rights`, with their sizes.
    check(unsafe { sendmsg(socket, &message, MSG_NOSIGNAL) } as i64).map(drop)
}

impl Rights {
    const LENGTH_OF_HEADER: usize = size_of::<usize>() + 2 * size_of::<c_int>();
}

fn header(vector: &mut IoVec, control: *mut c_void, control_length: usize) -> MsgHdr {
    MsgHdr {
        name: null_mut(),
        name_length: 0,
        vectors: vector,
        vector_count: 1,
        control,
        control_length,
        flags: 0,
    }
}

/// Fills `buffer` as far as the file reaches; tells how far.
pub(crate) fn read_fully(fd: c_int, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut at = 0;
    while at < buffer.len() {
        let rest = &mut buffer[at..];
        // SAFETY: `rest` is writable for its length.
        match check(unsafe { read(fd, rest.as_mut_ptr().cast(), rest.len()) } as i64) {
            Ok(0) => break,
            Ok(n) => at += usize::try_from(n).map_err(|_| EPROTO)?,
            Err(EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Lets a mapping be copied to children, whatever was said before. Refused for the kernel's own, which need no telling.
pub(crate) fn allow_fork(start: usize, length: usize) {
    // SAFETY: the advice only decides what a later fork copies. It changes no memory of this process.
    unsafe { madvise(start as *mut c_void, length, MADV_DOFORK) };
}

/// Threads of the process whose `/proc/PID/task` this is.
pub(crate) fn threads(task: c_int) -> Result<u32, Errno> {
    let mut status = [0u32; 64];
    // SAFETY: the path is a C string, and `status` has the 256 bytes of `struct statx`.
    check(unsafe { statx(task, c"".as_ptr(), AT_EMPTY_PATH, STATX_NLINK, &mut status) })?;
    // `stx_nlink`: a directory of proc has two links, and one for each entry.
    status[4].checked_sub(2).ok_or(EPROTO)
}

/// Zero in the child.
pub(crate) fn fork() -> Result<c_int, Errno> {
    // SAFETY: the caller has made sure that this process has one thread, so the child lacks nobody who could hold a lock,
    // and may do whatever this process may. The C library's function, since libraries in this process have asked it to
    // be told: random number generators seed themselves anew.
    check_fd(unsafe { c_fork() })
}

pub(crate) fn open_pidfd(pid: c_int) -> Result<c_int, Errno> {
    // SAFETY: the call takes two integers.
    check_fd_of(unsafe { syscall(SYS_PIDFD_OPEN, c_long::from(pid), 0 as c_long) })
}

/// Forgets a dead child. One that lives stays.
pub(crate) fn collect(pid: c_int) {
    // SAFETY: no status is asked for.
    unsafe { waitpid(pid, null_mut(), WNOHANG) };
}

/// Has the kernel kill this process when its parent ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: the option takes one integer.
    check(unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) }).map(drop)
}

/// Puts `from` in the place of `to`. Standard streams and the channel stay open at exec, as they are in a spawned worker.
pub(crate) fn replace(from: c_int, to: c_int) -> Result<(), Errno> {
    let flags = if to < crate::wire::SOCKET { 0 } else { CLOEXEC };
    // SAFETY: what was open as `to` is closed. Deno keeps using the number, for what is there now.
    check_fd(unsafe { dup3(from, to, flags) }).map(drop)
}

/// Closes all descriptors from `first` to `last`.
pub(crate) fn close_all(first: c_int, last: c_uint) -> Result<(), Errno> {
    // SAFETY: three integers. The daemon has found that no descriptor in this range is one that the child needs.
    check(unsafe { syscall(SYS_CLOSE_RANGE, c_long::from(first), c_long::from(last), 0 as c_long) }).map(drop)
}

pub(crate) fn new_epoll() -> Result<c_int, Errno> {
    // SAFETY: one integer.
    check_fd(unsafe { epoll_create1(CLOEXEC) })
}

pub(crate) fn new_event() -> Result<c_int, Errno> {
    // SAFETY: two integers. It begins signalled: to be woken once for nothing is harmless, to miss a wake-up is not.
    check_fd(unsafe { eventfd(1, CLOEXEC | NONBLOCK) })
}

pub(crate) fn new_pair() -> Result<[c_int; 2], Errno> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` has room for the two that are written.
    check_fd(unsafe { socketpair(AF_UNIX, SOCK_STREAM | CLOEXEC | NONBLOCK, 0, pair.as_mut_ptr()) })?;
    Ok(pair)
}

pub(crate) fn watch(epoll: c_int, fd: c_int, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = EpollEvent { events, data };
    // SAFETY: the event is only read.
    check_fd(unsafe { epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
}

/// Opens the file of `fd` anew, for the same access.
pub(crate) fn reopen(fd: c_int) -> Result<c_int, Errno> {
    // SAFETY: one integer.
    let flags = check_fd(unsafe { fcntl(fd, F_GETFL) })?;
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0";
    write_decimal(fd, &mut path[14..24]);
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| EPROTO)?;
    // SAFETY: the path is a C string.
    check_fd(unsafe { open(path.as_ptr(), (flags & ACCESS_MODE) | CLOEXEC) })
}

/// `into` has room for ten digits.
fn write_decimal(number: c_int, into: &mut [u8]) {
    let mut digits = [0; 10];
    let mut rest = number.unsigned_abs();
    let mut count = 0;
    while count == 0 || rest > 0 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        into[at] = *digit;
    }
}

/// Puts this process into a Landlock domain of its own inside the one it is in: processes that are not in it, its parent
/// and its siblings among them, it can neither signal nor inspect, whatever files it may open. Forbids nothing else.
pub(crate) fn enter_domain() -> Result<(), Errno> {
    let ruleset = Ruleset { handled_files: LANDLOCK_REFER, handled_network: 0, scoped: LANDLOCK_SCOPES };
    // SAFETY: the ruleset is only read, and its size is that of the structure.
    let domain = check_fd_of(unsafe {
        syscall(SYS_LANDLOCK_CREATE_RULESET, &raw const ruleset, size_of::<Ruleset>(), 0 as c_long)
    })?;
    // SAFETY: the path is a C string.
    let parent = check_fd(unsafe { open(c"/".as_ptr(), PATH_ONLY | CLOEXEC) })?;
    let everywhere = PathBeneath { allowed: LANDLOCK_REFER, parent };
    let (number, rule) = (c_long::from(domain), &raw const everywhere);
    // SAFETY: the rule is only read.
    check(unsafe { syscall(SYS_LANDLOCK_ADD_RULE, number, LANDLOCK_RULE_PATH_BENEATH, rule, 0 as c_long) })?;
    // SAFETY: two integers.
    check(unsafe { syscall(SYS_LANDLOCK_RESTRICT_SELF, number, 0 as c_long) })?;
    close_all(parent, parent.unsigned_abs())?;
    close_all(domain, domain.unsigned_abs())
}

/// Filters this process's system calls for good. `filter` is an array of `struct sock_filter`.
pub(crate) fn install_filter(filter: &[u64]) -> Result<(), Errno> {
    let length = u16::try_from(filter.len()).map_err(|_| EPROTO)?;
    let program = SockFprog { length, filter: filter.as_ptr() };
    // SAFETY: `program` and the filter that it points to are only read, during the call.
    check(unsafe { syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, 0 as c_ulong, &raw const program) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use nix::libc;

    use super::*;

    #[test]
    fn layouts_and_numbers_are_those_of_the_c_library() {
        assert_eq!(size_of::<MsgHdr>(), size_of::<libc::msghdr>());
        assert_eq!(offset_of!(MsgHdr, vectors), offset_of!(libc::msghdr, msg_iov));
        assert_eq!(offset_of!(MsgHdr, control), offset_of!(libc::msghdr, msg_control));
        assert_eq!(offset_of!(MsgHdr, control_length), offset_of!(libc::msghdr, msg_controllen));
        assert_eq!(size_of::<IoVec>(), size_of::<libc::iovec>());
        assert_eq!(size_of::<EpollEvent>(), size_of::<libc::epoll_event>());
        assert_eq!(offset_of!(EpollEvent, data), offset_of!(libc::epoll_event, u64));
        assert_eq!(size_of::<SockFprog>(), size_of::<libc::sock_fprog>());
        assert_eq!(size_of::<u64>(), size_of::<libc::sock_filter>());
        assert_eq!(offset_of!(Rights, fds), size_of::<libc::cmsghdr>());
        assert_eq!(256, size_of::<libc::statx>());
        assert_eq!(4 * size_of::<u32>(), offset_of!(libc::statx, stx_nlink));
        let numbers = [
            (SYS_SECCOMP, libc::SYS_seccomp),
            (SYS_PIDFD_OPEN, libc::SYS_pidfd_open),
            (SYS_CLOSE_RANGE, libc::SYS_close_range),
            (SYS_LANDLOCK_CREATE_RULESET, libc::SYS_landlock_create_ruleset),
            (SYS_LANDLOCK_ADD_RULE, libc::SYS_landlock_add_rule),
            (SYS_LANDLOCK_RESTRICT_SELF, libc::SYS_landlock_restrict_self),
        ];
        assert!(numbers.iter().all(|(ours, theirs)| ours == theirs));
        let constants = [
            (CLOEXEC, libc::O_CLOEXEC),
            (CLOEXEC, libc::SOCK_CLOEXEC),
            (NONBLOCK, libc::O_NONBLOCK),
            (MSG_CMSG_CLOEXEC, libc::MSG_CMSG_CLOEXEC),
            (MSG_NOSIGNAL, libc::MSG_NOSIGNAL),
            (MADV_DOFORK, libc::MADV_DOFORK),
            (PR_SET_PDEATHSIG, libc::PR_SET_PDEATHSIG),
            (AT_EMPTY_PATH, libc::AT_EMPTY_PATH),
            (EPROTO, libc::EPROTO),
            (PATH_ONLY, libc::O_PATH),
        ];
        assert!(constants.iter().all(|(ours, theirs)| ours == theirs));
    }

    #[test]
    fn a_descriptor_is_opened_anew_under_its_number() {
        for number in [0, 7, 10, 2_147_483_647] {
            let mut text = [0; 10];
            write_decimal(number, &mut text);
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert_eq!(text.trim_end_matches('\0'), number.to_string());
        }
    }

    #[test]
    fn a_child_in_a_domain_of_its_own_reaches_no_other_process() {
        use nix::sys::signal::kill;
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{Pid, getppid};
        let reach = || {
            let parent = getppid();
            let signalled = kill(parent, None).is_ok();
            let read = std::fs::File::open(format!("/proc/{parent}/mem")).is_ok();
            let inspected = std::fs::read_link(format!("/proc/{parent}/fd/0")).is_ok();
            i32::from(signalled) + 2 * i32::from(read) + 4 * i32::from(inspected)
        };
        let dir = std::env::temp_dir().join(format!("conductor-fork-{}", std::process::id()));
        for name in ["from", "to"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("from/x"), "").unwrap();
        let child = fork().unwrap();
        if child == 0 {
            let directories = ["from", "to"].map(|name| dir.join(name));
            let before = reach();
            let entered = nix::sys::prctl::set_no_new_privs().is_ok() && enter_domain().is_ok();
            let moved = std::fs::rename(directories[0].join("x"), directories[1].join("x")).is_ok();
            let itself = std::fs::File::open("/proc/self/mem").is_ok() && kill(Pid::this(), None).is_ok();
            // As before the domain, it must have been able to.
            exit(if before == 7 && entered && itself && moved { reach() } else { 100 });
        }
        let ended = waitpid(Pid::from_raw(child), None).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        assert_eq!(ended, WaitStatus::Exited(Pid::from_raw(child), 0));
    }

    /// Threads of other tests begin and end between two looks, so the counts agree at some moment.
    #[test]
    fn threads_are_counted() {
        use std::os::fd::AsRawFd as _;
        use std::time::{Duration, Instant};
        let task = std::fs::File::open("/proc/self/task").unwrap();
        let counted = || threads(task.as_raw_fd()).unwrap() as usize;
        let listed = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let deadline = Instant::now() + Duration::from_secs(10);
        while counted() != listed() {
            assert!(Instant::now() < deadline, "{} counted, {} listed", counted(), listed());
        }
    }
}
