//! Seccomp: the system calls that do not get through.
//!
//! A list of what is denied, not of what is allowed: V8 and Deno use most of the rest, and each of their releases may use
//! more; a worker that dies for a harmless call is no sandbox anybody keeps switched on. What the kernel has gained since
//! the list was written does not exist for the worker, either ([`FIRST_UNKNOWN`]).
//!
//! Denied calls give `EPERM`, which Deno reports as a missing permission. Three kinds give `ENOSYS`, since callers have a
//! second way for a kernel without them: `clone3` (its flags lie in memory that a filter cannot see; the C library falls
//! back to `clone`, whose flags it can), calls unknown here, and those of the x32 interface. A call through the 32-bit
//! interface of a 64-bit kernel kills the process.

mod dispatch;
mod tables;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use crate::{Jail, Net, State};
use dispatch::{Decision, dispatch};
use tables::*;

/// The first call that Linux 6.18 does not have; the numbers are the same on every architecture from 424 on. On x86_64
/// everything above is either newer or x32 (bit 30).
const FIRST_UNKNOWN: usize = 470;

/// The same number on every architecture.
const CLONE3: usize = 435;

/// Filters this thread's calls; `program` is the path of the one exec to come, if one is.
pub(super) fn install(jail: &Jail, program: Option<&CStr>) -> io::Result<State> {
    let pid = u64::from(std::process::id());
    let Some(filter) = compile(jail, pid, program.map(|program| program.as_ptr() as u64))? else {
        return Ok(State::Missing("there is no table of this processor's system calls".to_owned()));
    };
    match seccompiler::apply_filter(&filter) {
        Ok(()) => Ok(State::Active),
        Err(seccompiler::Error::Seccomp(error)) => {
            Ok(State::Missing(format!("this kernel has no seccomp filters: {error}")))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The filter of a process that was copied from one with [`Jail::forks`], and runs no other program any more.
#[derive(Clone, Debug)]
pub struct ForkFilter {
    /// For a process of the number [`NOBODY`].
    program: BpfProgram,
}

/// In place of the pid of a copy, which is known only when there is one. Above all pids (`PID_MAX_LIMIT`), and no other
/// number of the tables.
const NOBODY: u32 = 0x7fff_ff05;

impl ForkFilter {
    pub(super) fn of(jail: &Jail) -> io::Result<Option<Self>> {
        let jail = Jail { forks: false, ..jail.clone() };
        Ok(compile(&jail, NOBODY.into(), None)?.map(|program| Self { program }))
    }

    /// Filters this thread's calls, if it is that of the copy.
    ///
    /// # Errors
    /// The kernel refuses the filter.
    pub(crate) fn install(&self) -> io::Result<()> {
        let bytes = self.for_pid(std::process::id());
        let (instructions, _) = bytes.as_chunks::<{ size_of::<sock_filter>() }>();
        let program: BpfProgram = instructions
            .iter()
            .map(|[c0, c1, jt, jf, k @ ..]| sock_filter {
                code: u16::from_ne_bytes([*c0, *c1]),
                jt: *jt,
                jf: *jf,
                k: u32::from_ne_bytes(*k),
            })
            .collect();
        seccompiler::apply_filter(&program).map_err(io::Error::other)
    }

    /// For the copy `pid`: an array of `struct sock_filter`.
    pub fn for_pid(&self, pid: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.program.len() * size_of::<sock_filter>());
        for sock_filter { code, jt, jf, k } in &self.program {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*jt, *jf]);
            bytes.extend(if *k == NOBODY { pid } else { *k }.to_ne_bytes());
        }
        bytes
    }
}

/// The filter's program; `None` on a processor without a table.
fn compile(jail: &Jail, pid: u64, program: Option<u64>) -> io::Result<Option<BpfProgram>> {
    let (Ok(target), Some(architecture)) = (std::env::consts::ARCH.try_into(), ARCHITECTURE) else {
        return Ok(None);
    };
    let rules = Rules::new(jail, pid, program).calls;
    let mut decisions = vec![Decision::Allow; FIRST_UNKNOWN];
    let mut by_arguments = BTreeMap::new();
    for (call, rules) in rules {
        // What would be beyond the end does not exist for the worker in any case.
        let Some(place) = usize::try_from(call).ok().and_then(|call| decisions.get_mut(call)) else {
            continue;
        };
        if rules.is_empty() {
            *place = Decision::Deny;
        } else {
            *place = Decision::Arguments;
            by_arguments.insert(call, rules);
        }
    }
    decisions[CLONE3] = Decision::Unknown;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let compiled: BpfProgram = SeccompFilter::new(by_arguments, SeccompAction::Allow, denied, target)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    Ok(Some(dispatch(architecture, &decisions, compiled)))
}

/// What is denied: per call always (no rule), or if one of its rules matches.
struct Rules {
    calls: BTreeMap<i64, Vec<SeccompRule>>,
}

impl Rules {
    fn new(jail: &Jail, pid: u64, program: Option<u64>) -> Self {
        let mut rules = Self { calls: BTreeMap::new() };
        rules.deny(KERNEL);
        rules.deny(KERNEL_OF_THIS_PROCESSOR);
        rules.deny(SHARED_MEMORY);
        rules.restrict_others(pid);
        rules.restrict_sockets(&jail.net);
        if jail.run {
            rules.restrict_namespaces();
        } else {
            rules.deny(PROCESSES);
            rules.deny(PROCESSES_OF_THIS_PROCESSOR);
            rules.restrict_processes(pid, program, jail.forks);
            if !jail.ffi {
                // A file without a path: to load native code that no file rule has seen.
                rules.deny(&[libc::SYS_memfd_create]);
            }
        }
        if jail.write.is_empty() {
            rules.deny(CHANGES);
            rules.deny(CHANGES_OF_THIS_PROCESSOR);
        }
        if jail.forks {
            rules.allow(OF_A_TEMPLATE);
        }
        rules
    }

    fn deny(&mut self, calls: &[i64]) {
        for call in calls {
            self.calls.insert(*call, Vec::new());
        }
    }

    fn allow(&mut self, calls: &[i64]) {
        for call in calls {
            self.calls.remove(call);
        }
    }

    /// Denies `call` where all `conditions` hold. A call that is denied always stays so.
    fn deny_if(&mut self, call: i64, conditions: &[SeccompCondition]) {
        let rule = SeccompRule::new(conditions.to_vec()).expect("a rule here has conditions");
        match self.calls.get_mut(&call) {
            None => {
                self.calls.insert(call, vec![rule]);
            }
            Some(rules) if rules.is_empty() => {}
            Some(rules) => rules.push(rule),
        }
    }

    /// Calls that reach any process of the same user, which Landlock does not restrict: allowed on this one.
    fn restrict_others(&mut self, pid: u64) {
        // The same number means the same in every process, and 0 is the caller.
        self.deny_if(libc::SYS_prlimit64, &[differs(0, 0), differs(0, pid)]);
        for call in [
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            self.deny_if(call, &[differs(0, 0)]);
        }
        // With 0 for whom, a process is the caller, but a user is everything that is the user's.
        for (call, process) in [(libc::SYS_setpriority, libc::PRIO_PROCESS.into()), (libc::SYS_ioprio_set, 1)]
        {
            self.deny_if(call, &[differs(0, process)]);
            self.deny_if(call, &[differs(1, 0)]);
        }
        // Who gets a descriptor's signals, and typing into a terminal.
        for command in [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG] {
            self.deny_if(libc::SYS_fcntl, &[equals(1, command.unsigned_abs().into())]);
        }
        for request in [TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP] {
            self.deny_if(libc::SYS_ioctl, &[equals(1, request)]);
        }
        // Compatibility modes weaken the address space; asking for the current one does not.
        self.deny_if(libc::SYS_personality, &[differs(0, u32::MAX.into())]);
    }

    fn restrict_namespaces(&mut self) {
        for flag in NAMESPACES {
            let flag = u64::from(flag.unsigned_abs());
            self.deny_if(libc::SYS_clone, &[masked(0, flag, flag)]);
        }
    }

    fn restrict_sockets(&mut self, net: &Net) {
        let kind = |kind: u32| SOCKET_FLAGS.map(|flags| differs(1, (kind | flags).into()));
        let (stream, datagram) = (libc::SOCK_STREAM.unsigned_abs(), libc::SOCK_DGRAM.unsigned_abs());
        // A pair of streams is connected to itself for good (Deno's signal handling is one); a pair of datagram sockets
        // could be connected again, to any socket in the file system.
        self.deny_if(libc::SYS_socketpair, &[differs(0, family(libc::AF_UNIX))]);
        self.deny_if(libc::SYS_socketpair, &kind(stream));
        if *net == Net::None {
            self.deny(SOCKETS);
            // Without an address it is a write.
            self.deny_if(libc::SYS_sendto, &[differs_64(4, 0)]);
            return;
        }
        let socket = libc::SYS_socket;
        self.deny_if(socket, &[differs(0, family(libc::AF_INET)), differs(0, family(libc::AF_INET6))]);
        let kinds = [stream, datagram].map(kind);
        self.deny_if(socket, kinds.as_flattened());
        // Other protocols of the same kind (MPTCP, SCTP, ping) go past Landlock's ports.
        for (kind, protocol) in [(stream, libc::IPPROTO_TCP), (datagram, libc::IPPROTO_UDP)] {
            let kind = masked(1, SOCKET_KIND, kind.into());
            self.deny_if(socket, &[kind, differs(2, 0), differs(2, protocol.unsigned_abs().into())]);
        }
    }

    /// Threads, signals to itself and the exec that makes it the worker are what a worker needs.
    fn restrict_processes(&mut self, pid: u64, program: Option<u64>, forks: bool) {
        let copies = forks.then_some(COPY);
        let clones: Vec<_> = THREADS.into_iter().chain(copies).map(|flags| differs(0, flags)).collect();
        self.deny_if(libc::SYS_clone, &clones);
        match program {
            Some(program) => self.deny_if(libc::SYS_execve, &[differs_64(0, program)]),
            None => self.deny(&[libc::SYS_execve]),
        }
        if forks {
            // A copy signals itself under its own number, and its filter knows that.
            return;
        }
        for call in [libc::SYS_kill, libc::SYS_tgkill] {
            self.deny_if(call, &[differs(0, pid)]);
        }
        // To outlive the daemon.
        self.deny_if(libc::SYS_prctl, &[equals(0, libc::PR_SET_PDEATHSIG.unsigned_abs().into())]);
    }
}

fn family(family: libc::c_int) -> u64 {
    family.unsigned_abs().into()
}

fn equals(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn differs(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn differs_64(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn condition(argument: u8, length: SeccompCmpArgLen, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, length, operator, value).expect("a call has six arguments")
}

#[cfg(test)]
mod tests;
