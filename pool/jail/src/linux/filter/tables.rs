//! The calls behind the rules, by purpose. `libc` has the numbers of this processor; the few it lacks are the same on all.

use nix::libc::{self, *};

const SYS_FCHMODAT2: i64 = 452;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_LSM_SET_SELF_ATTR: i64 = 460;
const SYS_SETXATTRAT: i64 = 463;
const SYS_REMOVEXATTRAT: i64 = 466;
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_FILE_SETATTR: i64 = 469;

pub(super) const F_SETSIG: c_int = 10;
pub(super) const F_SETOWN_EX: c_int = 15;
pub(super) const TIOCSTI: u64 = 0x5412;
pub(super) const TIOCLINUX: u64 = 0x541c;
pub(super) const FIOSETOWN: u64 = 0x8901;
pub(super) const SIOCSPGRP: u64 = 0x8902;

/// The bits of a socket's type that are not flags.
pub(super) const SOCKET_KIND: u64 = 0xf;
pub(super) const SOCKET_FLAGS: [u32; 4] = [
    0,
    SOCK_CLOEXEC.unsigned_abs(),
    SOCK_NONBLOCK.unsigned_abs(),
    (SOCK_CLOEXEC | SOCK_NONBLOCK).unsigned_abs(),
];

/// The flags with which glibc and musl make a thread; no other kind of process has them.
pub(super) const THREADS: [u64; 2] = [0x003d_0f00, 0x007d_0f00];

/// The flags with which glibc's `fork` copies a process: `CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD`.
pub(super) const COPY: u64 = 0x0120_0011;

/// What a process that copies itself needs besides: to send its parent a descriptor of each copy.
pub(super) const OF_A_TEMPLATE: &[i64] = &[SYS_pidfd_open, SYS_sendmsg];

pub(super) const NAMESPACES: [c_int; 7] =
    [CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET];

/// The processor's name for itself (`AUDIT_ARCH_*`), if there are tables for it.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const ARCHITECTURE: Option<u32> = None;

/// Kernel interfaces that no script needs, whatever it was granted: other processes' memory, the kernel's own programs
/// and modules, mounts, namespaces, clocks, keys; where most of the kernel's exploited bugs were.
pub(super) const KERNEL: &[i64] = &[
    // Other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_process_mrelease,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_get_robust_list,
    // Programs in the kernel, and asynchronous calls, which filters do not see.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_io_setup,
    SYS_io_submit,
    // Keys.
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_memfd_secret,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    SYS_OPEN_TREE_ATTR,
    SYS_unshare,
    SYS_setns,
    // The machine.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_syslog,
    SYS_vhangup,
    SYS_nfsservctl,
    SYS_lookup_dcookie,
    SYS_LSM_SET_SELF_ATTR,
    // Files past their paths.
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    SYS_fanotify_mark,
    SYS_mknodat,
];

#[cfg(target_arch = "x86_64")]
pub(super) const KERNEL_OF_THIS_PROCESSOR: &[i64] =
    &[SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat, SYS_sysfs, SYS_mknod];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const KERNEL_OF_THIS_PROCESSOR: &[i64] = &[];

/// Memory and queues with names that outlive the process: they would carry data from one run to the next.
pub(super) const SHARED_MEMORY: &[i64] = &[
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_semget,
    SYS_semop,
    SYS_semctl,
    SYS_semtimedop,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_mq_open,
    SYS_mq_unlink,
];

/// Other processes and programs; also leaving the group in which the daemon kills.
pub(super) const PROCESSES: &[i64] = &[
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_execveat,
    SYS_setsid,
    SYS_setpgid,
];

#[cfg(target_arch = "x86_64")]
pub(super) const PROCESSES_OF_THIS_PROCESSOR: &[i64] = &[SYS_fork, SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const PROCESSES_OF_THIS_PROCESSOR: &[i64] = &[];

/// Sockets, also ones that the process was left with. `sendmsg` hides its address from a filter.
pub(super) const SOCKETS: &[i64] = &[
    libc::SYS_socket,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendmsg,
    SYS_sendmmsg,
];

/// Calls that change files by path or descriptor. Landlock has rules for some, and none for modes, owners, times and
/// attributes, which it lets anybody change. And those that keep everybody's disk busy.
pub(super) const CHANGES: &[i64] = &[
    SYS_fchmod,
    SYS_fchmodat,
    SYS_FCHMODAT2,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_SETXATTRAT,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_REMOVEXATTRAT,
    SYS_FILE_SETATTR,
    SYS_truncate,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_renameat,
    SYS_renameat2,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_mkdirat,
    SYS_sync,
    SYS_syncfs,
];

#[cfg(target_arch = "x86_64")]
pub(super) const CHANGES_OF_THIS_PROCESSOR: &[i64] = &[
    SYS_chmod,
    SYS_chown,
    SYS_lchown,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
    SYS_rename,
    SYS_link,
    SYS_symlink,
    SYS_unlink,
    SYS_rmdir,
    SYS_mkdir,
    SYS_creat,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const CHANGES_OF_THIS_PROCESSOR: &[i64] = &[];
