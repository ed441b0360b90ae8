//! Attempts on processes: making them, reaching others, and getting out of what holds this one.

use nix::libc::*;
use rustix::process::Resource;

use super::attempt::{Errno, call, call_with, code_memory, make_process, number, reserve, unless, word};
use super::{Attempt, Probe};
use crate::Layer::{Capabilities, Landlock, Limits, NoNewCode, Seccomp};

const CALL: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM)];
/// Other processes are out of reach twice.
const OTHERS: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM), (Landlock, EPERM)];
const UNKNOWN: &[(crate::Layer, Errno)] = &[(Seccomp, ENOSYS)];
const LIMIT: &[(crate::Layer, Errno)] = &[(Limits, EPERM)];
const ROOT: &[(crate::Layer, Errno)] = &[(Capabilities, EPERM)];

macro_rules! probe {
    ($name:literal, $stopped_by:expr, $attempt:expr) => {
        Probe { name: $name, stopped_by: $stopped_by, attempt: Attempt::Do($attempt) }
    };
}

pub(super) const PROBES: &[Probe] = &[
    // Controls: what V8 and its C library live on.
    probe!("start a thread", &[], |_, _| std::thread::Builder::new()
        .spawn(|| {})
        .map_err(|error| super::attempt::raw(&error))?
        .join()
        .map_err(|_| EIO)),
    probe!("signal the own thread", &[], |_, _| {
        let (pid, thread) = (me(), rustix::thread::gettid().as_raw_nonzero().get());
        call_with(SYS_tgkill, [word(pid), word(thread), 0]).map(drop)
    }),
    probe!("signal the own process", &[], |_, _| call_with(SYS_kill, [word(me()), 0]).map(drop)),
    probe!("lower an own limit", &[], |_, _| {
        let limit = rustix::process::getrlimit(Resource::Stack);
        rustix::process::setrlimit(Resource::Stack, limit).map_err(|errno| errno.raw_os_error())
    }),
    // New processes.
    probe!("fork", CALL, |_, _| make_process(SYS_clone, 0)),
    probe!("fork into a new user namespace", CALL, |_, _| make_process(SYS_clone, CLONE_NEWUSER)),
    #[cfg(target_arch = "x86_64")]
    probe!("fork by the old call", CALL, |_, _| make_process(SYS_fork, 0)),
    probe!("fork by the new call", UNKNOWN, |_, _| call(SYS_clone3, [0; 6]).map(drop)),
    // Other processes.
    probe!("signal the parent", OTHERS, |_, _| call_with(SYS_kill, [word(parent()), 0]).map(drop)),
    // Landlock refuses each of them, and the call succeeds.
    probe!("signal every process", CALL, |_, _| call_with(SYS_kill, [word(-1), 0]).map(drop)),
    probe!("signal the own group", CALL, |_, _| call_with(SYS_kill, [0, 0]).map(drop)),
    probe!("signal the parent's thread", OTHERS, |_, _| {
        call_with(SYS_tgkill, [word(parent()), word(parent()), 0]).map(drop)
    }),
    probe!("signal a thread of any process", OTHERS, |_, _| call_with(SYS_tkill, [word(parent()), 0])
        .map(drop)),
    probe!("trace the parent", OTHERS, |_, _| {
        // Seizing does not stop it, and ends with this process.
        call_with(SYS_ptrace, [PTRACE_SEIZE as usize, word(parent()), 0, 0]).map(drop)
    }),
    probe!("read the parent's memory", OTHERS, |_, _| {
        let mut byte = 0u8;
        let local = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
        let vectors = [(&raw const local) as usize, 1, (&raw const remote) as usize, 1];
        call_with(SYS_process_vm_readv, [word(parent()), vectors[0], 1, vectors[2], 1, 0]).map(drop)
    }),
    probe!("open the parent as a descriptor", CALL, |_, _| call_with(SYS_pidfd_open, [word(parent()), 0])
        .map(drop)),
    probe!("look at the parent's limits", CALL, |_, _| {
        let mut limit = rlimit64 { rlim_cur: 0, rlim_max: 0 };
        let old = (&raw mut limit) as usize;
        call_with(SYS_prlimit64, [word(parent()), RLIMIT_NOFILE as usize, 0, old]).map(drop)
    }),
    probe!("set the parent's priority", CALL, |_, _| {
        // To the one it has; the call gives twenty less that.
        let now = call_with(SYS_getpriority, [PRIO_PROCESS as usize, word(parent())])?;
        let same = i32::try_from(20 - now).map_err(|_| EIO)?;
        call_with(SYS_setpriority, [PRIO_PROCESS as usize, word(parent()), word(same)]).map(drop)
    }),
    probe!("set the disk priority of all that is the user's", CALL, |_, _| {
        // To one that does not exist.
        call_with(SYS_ioprio_set, [3, 0, 0xffff]).map(drop)
    }),
    probe!("set the parent's processors", CALL, |_, _| {
        let mut processors = [0u64; 16];
        let (length, set) = (size_of_val(&processors), processors.as_mut_ptr() as usize);
        call_with(SYS_sched_getaffinity, [word(parent()), length, set])?;
        call_with(SYS_sched_setaffinity, [word(parent()), length, set]).map(drop)
    }),
    // What holds this process.
    probe!("outlive the daemon", CALL, |_, _| call_with(SYS_prctl, [PR_SET_PDEATHSIG as usize, 0]).map(drop)),
    probe!("weaken the address space", CALL, |_, _| call_with(SYS_personality, [ADDR_NO_RANDOMIZE as usize])
        .map(drop)),
    probe!("find a message queue", CALL, |_, _| call_with(SYS_msgget, [0x636f_6e64, 0]).map(drop)),
    probe!("use a call from the future", UNKNOWN, |_, _| call(2000, [0; 6]).map(drop)),
    probe!("type into a terminal", CALL, |_, _| call_with(SYS_ioctl, [0, 0x5412, usize::MAX]).map(drop)),
    probe!("send a descriptor's signals elsewhere", CALL, |_, handles| {
        call_with(SYS_fcntl, [number(&handles.sink), F_SETOWN as usize, word(me())]).map(drop)
    }),
    probe!("change the own groups", ROOT, |_, _| call_with(SYS_setgroups, [0, 0]).map(drop)),
    probe!("have a capability", ROOT, |_, _| {
        let sets = rustix::thread::capabilities(None).map_err(|errno| errno.raw_os_error())?;
        unless((sets.effective | sets.permitted | sets.inheritable).is_empty())
    }),
    probe!("use more memory than granted", &[(Limits, ENOMEM)], |_, _| reserve(8 << 30)),
    probe!("use more descriptors than granted", &[(Limits, EINVAL)], |_, handles| {
        let least = usize::try_from(handles.descriptors).map_err(|_| EIO)?;
        call_with(SYS_fcntl, [number(&handles.sink), F_DUPFD as usize, least]).map(drop)
    }),
    probe!("leave a core dump", LIMIT, |_, _| unless(at_most(Resource::Core, 1))),
    probe!("compute for ever", LIMIT, |_, _| unless(at_most(Resource::Cpu, 61))),
    probe!("come before the user's own programs", LIMIT, |_, handles| {
        let priority = rustix::process::getpriority_process(None).map_err(|errno| errno.raw_os_error())?;
        unless(priority > handles.priority)
    }),
    probe!("raise the own priority", &[(Capabilities, EACCES)], |_, _| {
        call_with(SYS_setpriority, [PRIO_PROCESS as usize, 0, word(-1)]).map(drop)
    }),
    probe!("make written memory executable", &[(NoNewCode, EACCES)], |_, _| code_memory()),
];

fn me() -> i32 {
    nix::unistd::getpid().as_raw()
}

fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

fn at_most(resource: Resource, value: u64) -> bool {
    rustix::process::getrlimit(resource).maximum.is_some_and(|maximum| maximum <= value)
}
