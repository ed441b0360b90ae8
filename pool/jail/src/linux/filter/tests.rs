//! The compiled filter, run on every call by an interpreter of the kernel's small machine. What the kernel then makes of
//! it, the probes show.

use seccompiler::sock_filter;

use super::*;

const PID: u64 = 4242;
const PROGRAM: u64 = 0x7fff_1234_5678;

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const DENY: u32 = libc::SECCOMP_RET_ERRNO | 1;
pub(super) const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | 38;

const ARCHITECTURE: u32 = super::tables::ARCHITECTURE.unwrap();

/// One call as the kernel shows it to a filter.
pub(super) fn data(architecture: u32, number: u32, args: &[u64]) -> Vec<u8> {
    let mut data = number.to_le_bytes().to_vec();
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    let args = args.iter().copied().chain(std::iter::repeat(0)).take(6);
    data.extend(args.flat_map(u64::to_le_bytes));
    data
}

pub(super) fn execute(program: &[sock_filter], data: &[u8]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let holds = match code {
            0x20 => {
                let offset = k as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            other => panic!("instruction {other:#x} is not expected"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fn nothing() -> Jail {
    Jail::new("/deno".into())
}

fn everything() -> Jail {
    Jail { write: vec!["/".into()], net: Net::Any, run: true, ffi: true, ..nothing() }
}

struct Filter(BpfProgram);

impl Filter {
    fn of(jail: &Jail) -> Self {
        Self(compile(jail, PID, Some(PROGRAM)).unwrap().unwrap())
    }

    fn call(&self, number: i64, args: &[u64]) -> u32 {
        execute(&self.0, &data(ARCHITECTURE, u32::try_from(number).unwrap(), args))
    }
}

const fn arg(value: i32) -> u64 {
    value.unsigned_abs() as u64
}

#[test]
fn calls_of_another_interface_get_nowhere() {
    for jail in [nothing(), everything()] {
        let filter = Filter::of(&jail);
        // The 32-bit interface of this processor, and one of another.
        for architecture in [0x4000_0003, 0x4000_0028, 0xc000_00f3] {
            let end = execute(&filter.0, &data(architecture, 1, &[]));
            assert_eq!(end, libc::SECCOMP_RET_KILL_PROCESS, "{architecture:#x}");
        }
        // x32, calls from the future, and no call at all.
        for number in [0x4000_0000, 0x4000_0001 + 56, FIRST_UNKNOWN.try_into().unwrap(), 512, 547, u32::MAX] {
            assert_eq!(execute(&filter.0, &data(ARCHITECTURE, number, &[])), UNKNOWN, "{number:#x}");
        }
        assert_eq!(filter.call(libc::SYS_clone3, &[]), UNKNOWN);
    }
}

#[test]
fn what_a_worker_lives_on_passes() {
    let filter = Filter::of(&nothing());
    for number in [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_openat,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_futex,
        libc::SYS_epoll_pwait,
        libc::SYS_getrandom,
        libc::SYS_sched_yield,
        libc::SYS_rseq,
        libc::SYS_exit_group,
    ] {
        assert_eq!(filter.call(number, &[]), ALLOW, "{number}");
    }
}

#[test]
fn the_filter_of_a_copy_is_that_of_a_worker() {
    let jail = Jail { write: vec!["/w".into()], net: Net::Ports([443].into()), ..nothing() };
    for (jail, pid) in [(nothing(), 1), (jail, 4_194_303)] {
        let template = Jail { forks: true, ..jail.clone() };
        let copy = template.fork_filter().unwrap().unwrap().for_pid(pid);
        let worker = compile(&jail, pid.into(), None).unwrap().unwrap();
        assert_eq!(copy.len(), worker.len() * 8);
        let (copy, _) = copy.as_chunks::<8>();
        let copy = copy.iter().map(|bytes| sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        });
        assert!(copy.eq(worker), "pid {pid}");
    }
    let unfiltered = Jail { layers: [crate::Layer::Landlock].into(), ..nothing() };
    assert!(unfiltered.fork_filter().unwrap().is_none());
}

#[test]
fn a_template_may_copy_itself_and_little_else() {
    let (worker, template) = (Filter::of(&nothing()), Filter::of(&Jail { forks: true, ..nothing() }));
    let copy = arg(libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD);
    let set_death_signal = arg(libc::PR_SET_PDEATHSIG);
    for (call, args) in [
        (libc::SYS_clone, vec![copy]),
        (libc::SYS_sendmsg, vec![]),
        (libc::SYS_pidfd_open, vec![PID + 1]),
        (libc::SYS_prctl, vec![set_death_signal]),
        (libc::SYS_kill, vec![PID + 1]),
        (libc::SYS_tgkill, vec![PID + 1]),
    ] {
        assert_eq!((worker.call(call, &args), template.call(call, &args)), (DENY, ALLOW), "{call}");
    }
    for (call, args) in [
        (libc::SYS_clone, vec![arg(libc::SIGCHLD)]),
        (libc::SYS_clone, vec![copy | arg(libc::CLONE_NEWUSER)]),
        (libc::SYS_execve, vec![PROGRAM + 1]),
        (libc::SYS_socket, vec![1, 1, 0]),
        (libc::SYS_connect, vec![]),
        (libc::SYS_setsid, vec![]),
        (libc::SYS_setpgid, vec![]),
        (libc::SYS_pidfd_send_signal, vec![]),
        (libc::SYS_ptrace, vec![]),
    ] {
        assert_eq!(template.call(call, &args), DENY, "{call}");
    }
}

/// (call, arguments, with no grant, with every grant)
type Case = (i64, Vec<u64>, u32, u32);

fn cases() -> Vec<Case> {
    let (inet, inet6, unix) = (arg(libc::AF_INET), arg(libc::AF_INET6), arg(libc::AF_UNIX));
    let (stream, datagram) = (arg(libc::SOCK_STREAM), arg(libc::SOCK_DGRAM));
    let flags = arg(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let thread = arg(libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID);
    let fork = arg(libc::SIGCHLD);
    let mut cases = vec![
        (libc::SYS_clone, vec![thread], ALLOW, ALLOW),
        (libc::SYS_clone, vec![thread | arg(libc::CLONE_DETACHED)], ALLOW, ALLOW),
        (libc::SYS_clone, vec![arg(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND)], DENY, ALLOW),
        (libc::SYS_clone, vec![fork], DENY, ALLOW),
        (libc::SYS_clone, vec![arg(libc::CLONE_VM | libc::CLONE_VFORK) | fork], DENY, ALLOW),
        (libc::SYS_execve, vec![PROGRAM], ALLOW, ALLOW),
        (libc::SYS_execve, vec![PROGRAM + 1], DENY, ALLOW),
        (libc::SYS_execve, vec![PROGRAM + (1 << 32)], DENY, ALLOW),
        (libc::SYS_execveat, vec![PROGRAM], DENY, ALLOW),
        (libc::SYS_kill, vec![PID, 9], ALLOW, ALLOW),
        (libc::SYS_kill, vec![0, 9], DENY, ALLOW),
        (libc::SYS_kill, vec![u64::MAX, 9], DENY, ALLOW),
        (libc::SYS_kill, vec![u64::from(u32::MAX), 9], DENY, ALLOW),
        (libc::SYS_kill, vec![1, 9], DENY, ALLOW),
        (libc::SYS_tgkill, vec![PID, 1, 6], ALLOW, ALLOW),
        (libc::SYS_tgkill, vec![PID + 1, 1, 6], DENY, ALLOW),
        (libc::SYS_prctl, vec![arg(libc::PR_SET_NAME)], ALLOW, ALLOW),
        (libc::SYS_prctl, vec![arg(libc::PR_SET_PDEATHSIG)], DENY, ALLOW),
        (libc::SYS_prlimit64, vec![0], ALLOW, ALLOW),
        (libc::SYS_prlimit64, vec![PID], ALLOW, ALLOW),
        (libc::SYS_prlimit64, vec![1], DENY, DENY),
        (libc::SYS_setpriority, vec![0, 0], ALLOW, ALLOW),
        (libc::SYS_setpriority, vec![0, 1], DENY, DENY),
        (libc::SYS_setpriority, vec![arg(2), 0], DENY, DENY),
        (libc::SYS_ioprio_set, vec![1, 0], ALLOW, ALLOW),
        (libc::SYS_ioprio_set, vec![1, 1], DENY, DENY),
        (libc::SYS_ioprio_set, vec![3, 0], DENY, DENY),
        (libc::SYS_personality, vec![u64::from(u32::MAX)], ALLOW, ALLOW),
        (libc::SYS_personality, vec![0x0040_0000], DENY, DENY),
        (libc::SYS_fcntl, vec![3, arg(libc::F_GETFL)], ALLOW, ALLOW),
        (libc::SYS_fcntl, vec![3, arg(libc::F_SETOWN)], DENY, DENY),
        (libc::SYS_fcntl, vec![3, 15], DENY, DENY),
        (libc::SYS_ioctl, vec![0, 0x5401], ALLOW, ALLOW),
        (libc::SYS_ioctl, vec![0, 0x5412], DENY, DENY),
        (libc::SYS_socketpair, vec![unix, stream | flags], ALLOW, ALLOW),
        (libc::SYS_socketpair, vec![unix, datagram | flags], DENY, DENY),
        (libc::SYS_socketpair, vec![unix, arg(libc::SOCK_SEQPACKET)], DENY, DENY),
        (libc::SYS_socketpair, vec![arg(libc::AF_TIPC), stream], DENY, DENY),
        (libc::SYS_sendto, vec![3, 1, 1, 0, 0], ALLOW, ALLOW),
        (libc::SYS_sendto, vec![3, 1, 1, 0, 1 << 40], DENY, ALLOW),
        (libc::SYS_socket, vec![inet, stream | flags, 0], DENY, ALLOW),
        (libc::SYS_socket, vec![inet6, stream, 6], DENY, ALLOW),
        (libc::SYS_socket, vec![inet, datagram | flags, 17], DENY, ALLOW),
        (libc::SYS_socket, vec![inet, stream, 262], DENY, DENY),
        (libc::SYS_socket, vec![inet, stream, 132], DENY, DENY),
        (libc::SYS_socket, vec![inet, datagram, 1], DENY, DENY),
        (libc::SYS_socket, vec![inet, arg(libc::SOCK_RAW), 255], DENY, DENY),
        (libc::SYS_socket, vec![inet, arg(libc::SOCK_SEQPACKET) | flags, 0], DENY, DENY),
    ];
    for family in
        [unix, arg(libc::AF_NETLINK), arg(libc::AF_PACKET), arg(libc::AF_VSOCK), arg(libc::AF_ALG), 44]
    {
        cases.push((libc::SYS_socket, vec![family, stream | flags, 0], DENY, DENY));
    }
    for flag in NAMESPACES {
        cases.push((libc::SYS_clone, vec![fork | arg(flag)], DENY, DENY));
        cases.push((libc::SYS_clone, vec![thread | arg(flag)], DENY, DENY));
    }
    for table in [KERNEL, KERNEL_OF_THIS_PROCESSOR, SHARED_MEMORY] {
        cases.extend(table.iter().map(|call| (*call, vec![], DENY, DENY)));
    }
    let granted = [
        PROCESSES,
        PROCESSES_OF_THIS_PROCESSOR,
        SOCKETS,
        CHANGES,
        CHANGES_OF_THIS_PROCESSOR,
        &[libc::SYS_memfd_create],
    ];
    for call in granted.into_iter().flatten().filter(|call| **call != libc::SYS_socket) {
        cases.push((*call, vec![], DENY, ALLOW));
    }
    cases
}

#[test]
fn every_rule_denies_what_it_says_and_nothing_beside() {
    let (none, all) = (Filter::of(&nothing()), Filter::of(&everything()));
    for (call, args, without, with) in cases() {
        assert_eq!(none.call(call, &args), without, "call {call} {args:x?} without grants");
        assert_eq!(all.call(call, &args), with, "call {call} {args:x?} with every grant");
    }
}

#[test]
fn each_grant_opens_its_own_calls_only() {
    let inet = [arg(libc::AF_INET), arg(libc::SOCK_STREAM), 0];
    let fork = [arg(libc::SIGCHLD)];
    let opens = |jail: Jail| {
        let filter = Filter::of(&jail);
        [
            filter.call(libc::SYS_socket, &inet) == ALLOW,
            filter.call(libc::SYS_clone, &fork) == ALLOW,
            filter.call(libc::SYS_unlinkat, &[]) == ALLOW,
            filter.call(libc::SYS_memfd_create, &[]) == ALLOW,
        ]
    };
    assert_eq!(opens(nothing()), [false, false, false, false]);
    assert_eq!(opens(Jail { read: vec!["/".into()], ..nothing() }), [false, false, false, false]);
    assert_eq!(opens(Jail { net: Net::Any, ..nothing() }), [true, false, false, false]);
    assert_eq!(opens(Jail { net: Net::Ports([1].into()), ..nothing() }), [true, false, false, false]);
    assert_eq!(opens(Jail { write: vec!["/w".into()], ..nothing() }), [false, false, true, false]);
    assert_eq!(opens(Jail { ffi: true, ..nothing() }), [false, false, false, true]);
    assert_eq!(opens(Jail { run: true, ..nothing() }), [false, true, false, true]);
}

#[test]
fn the_filter_fits_the_kernel() {
    for jail in [nothing(), everything(), Jail { net: Net::Any, ..nothing() }] {
        let length = Filter::of(&jail).0.len();
        assert!(length < 400, "{length} instructions; each costs a third of a microsecond of every boot");
    }
}

#[test]
fn a_process_that_becomes_no_other_program_may_exec_none() {
    let filter = compile(&Jail::new("/deno".into()), PID, None).unwrap().unwrap();
    for path in [PROGRAM, 0, u64::MAX] {
        let call = data(ARCHITECTURE, libc::SYS_execve.try_into().unwrap(), &[path]);
        assert_eq!(execute(&filter, &call), DENY, "{path:x}");
    }
}
