//! Tables of open descriptors, of the daemon and of workers that wait: number, where it leads, flags. And descriptors that
//! the daemon was started with by mistake, which must not get any further.
//!
//! Reads `/proc`, where the table of a daemon is closed to all but root; owns the other ends of what is leaked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use conductor_tests::{Daemon, Home, Process};

/// Descriptors that a worker is given: input, output, errors, commands, replies.
const GIVEN: RangeInclusive<i32> = 0..=4;

const CLOSE_ON_EXEC: u32 = 0o200_0000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Where the link in `/proc/PID/fd` leads, such as `socket:[4711]`.
    target: String,
    /// Those of open(2), close-on-exec among them: proc_pid_fdinfo(5).
    flags: u32,
}

/// Every open descriptor of a process, by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Table(BTreeMap<i32, Entry>);

/// A worker's table without what differs between two of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outline {
    given: Vec<(i32, Entry)>,
    others: BTreeSet<Entry>,
}

/// The tables of a daemon and of its workers at a moment.
#[derive(Debug)]
pub(super) struct Look {
    daemon: Table,
    workers: Vec<Table>,
}

/// What is the same at any two moments in which nothing runs.
#[derive(Debug)]
pub(super) struct Steady {
    /// The daemon's, but for pipes and pidfds: those are of workers, each of which is replaced after one call, and so
    /// have other numbers and inodes then.
    daemon: Table,
    /// How many pipes and pidfds it has, of each kind and flags.
    of_workers: BTreeMap<Entry, usize>,
    /// Outlines of workers that nobody has used.
    workers: BTreeSet<Outline>,
}

impl Entry {
    /// `pipe` for `pipe:[4711]`: without what is different in each process.
    fn kind(&self) -> Self {
        let numbered =
            ["pipe", "socket"].into_iter().find(|kind| self.target.starts_with(&format!("{kind}:[")));
        Self { target: numbered.unwrap_or(&self.target).to_owned(), flags: self.flags }
    }

    fn closes_on_exec(&self) -> bool {
        self.flags & CLOSE_ON_EXEC != 0
    }

    fn is_of_a_worker(&self) -> bool {
        self.target.starts_with("pipe:") || self.target == "anon_inode:[pidfd]"
    }
}

impl Table {
    /// `None` for a process that is gone or may not be looked into. What is closed meanwhile is left out.
    fn of(pid: i32) -> Option<Self> {
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
            let number = entry.ok()?.file_name();
            let number = number.to_str()?;
            let target = fs::read_link(format!("/proc/{pid}/fd/{number}"));
            let fields = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let (Ok(target), Ok(fields)) = (target, fields) else { continue };
            let flags = fields.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
            let flags = u32::from_str_radix(flags, 8).expect("flags are octal");
            let number = number.parse().expect("descriptors are numbers");
            entries.insert(number, Entry { target: target.display().to_string(), flags });
        }
        Some(Self(entries))
    }

    /// What two workers that are alike have alike. Deno opens event queues and pairs of sockets for itself when it first
    /// needs them, and everything from several threads in any order: of what it was not given, pipes and files count, once.
    fn outline(&self) -> Outline {
        let kinds = self.0.iter().map(|(fd, entry)| (*fd, entry.kind()));
        let (given, others): (Vec<_>, Vec<_>) = kinds.partition(|(fd, _)| GIVEN.contains(fd));
        let is_own = |entry: &Entry| entry.target == "socket" || entry.target.starts_with("anon_inode:");
        let others = others.into_iter().map(|(_, entry)| entry).filter(|entry| !is_own(entry));
        Outline { given, others: others.collect() }
    }

    /// Those that two processes may have in common.
    fn channels(&self) -> impl Iterator<Item = (i32, &str)> {
        let entries = self.0.iter().map(|(fd, entry)| (*fd, entry.target.as_str()));
        entries.filter(|(_, target)| target.starts_with("pipe:[") || target.starts_with("socket:["))
    }
}

impl Look {
    /// `None` where only root may look.
    pub(super) fn at(daemon: &Daemon) -> Option<Self> {
        let home = daemon.home().path("");
        let workers = Process::all().into_iter().filter(|process| process.is_worker_below(&home));
        let workers = workers.filter_map(|worker| Table::of(worker.pid)).collect();
        Some(Self { daemon: Table::of(daemon.pid())?, workers })
    }

    /// Pipes and sockets of the daemon or of another worker that a worker has. Of its own five, Deno has further views.
    fn leaks(&self) -> Vec<String> {
        let of_daemon: BTreeSet<&str> = self.daemon.channels().map(|(_, target)| target).collect();
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for worker in &self.workers {
            let targets: BTreeSet<_> = worker.channels().map(|(_, target)| target).collect();
            targets.into_iter().for_each(|target| *holders.entry(target).or_default() += 1);
        }
        let mut leaks = Vec::new();
        for worker in &self.workers {
            let given = worker.channels().filter(|(fd, _)| GIVEN.contains(fd));
            let given: BTreeSet<_> = given.map(|(_, target)| target).collect();
            let leaked = worker.channels().filter(|(_, target)| {
                holders[target] > 1 || (of_daemon.contains(target) && !given.contains(target))
            });
            leaks.extend(leaked.map(|leak| format!("a worker has {leak:?}")));
            let kept = worker.0.iter().filter(|(fd, entry)| !GIVEN.contains(fd) && !entry.closes_on_exec());
            leaks.extend(kept.map(|kept| format!("a worker would pass {kept:?} on")));
        }
        leaks
    }
}

impl Steady {
    /// What two looks have alike: the rest was being opened or closed in one of them.
    pub(super) fn of(first: &Look, second: &Look) -> Self {
        let is_steady =
            |(fd, entry): &(&i32, &Entry)| !entry.is_of_a_worker() && second.daemon.0.get(fd) == Some(entry);
        let daemon = first.daemon.0.iter().filter(is_steady).map(|(fd, entry)| (*fd, entry.clone()));
        let workers = first.workers.iter().chain(&second.workers).map(Table::outline);
        Self {
            daemon: Table(daemon.collect()),
            of_workers: of_workers(&second.daemon),
            workers: workers.collect(),
        }
    }

    /// What is not as it was.
    pub(super) fn differences(&self, now: &Look) -> Vec<String> {
        let mut found = now.leaks();
        let own = now.daemon.0.iter().filter(|(_, entry)| !entry.is_of_a_worker());
        let new = own.filter(|(fd, entry)| self.daemon.0.get(fd) != Some(entry));
        found.extend(new.map(|(fd, entry)| format!("descriptor {fd} of the daemon is {entry:?}")));
        let gone = self.daemon.0.iter().filter(|(fd, _)| !now.daemon.0.contains_key(fd));
        found.extend(
            gone.map(|(fd, entry)| format!("descriptor {fd} of the daemon was {entry:?}, and is closed")),
        );
        let of_workers = of_workers(&now.daemon);
        if of_workers != self.of_workers {
            found.push(format!("the daemon has {of_workers:?}, before {:?}", self.of_workers));
        }
        let others = now.workers.iter().map(Table::outline).filter(|outline| !self.workers.contains(outline));
        found.extend(others.map(|outline| format!("a new worker has {outline:?}")));
        found
    }
}

fn of_workers(table: &Table) -> BTreeMap<Entry, usize> {
    let mut counts = BTreeMap::new();
    for entry in table.0.values().filter(|entry| entry.is_of_a_worker()) {
        *counts.entry(entry.kind()).or_default() += 1;
    }
    counts
}

/// Descriptors that the daemon was given without wanting them, as by an editor that forgot to close its own: a socket, and a
/// listener with a client that waits.
pub(super) struct Leaks {
    stream: UnixStream,
    listener: UnixListener,
    client: UnixStream,
    path: PathBuf,
}

impl Leaks {
    /// Makes them, and has `command` start with them at 8 and 9.
    pub(super) fn into(command: &mut Command, home: &Home) -> Self {
        let path = home.path("leaked");
        let listener = UnixListener::bind(&path).expect("binds");
        let (stream, leaked) = UnixStream::pair().expect("two sockets");
        stream.set_nonblocking(true).expect("sets it");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "exec \"$0\" \"$@\" 8<&0 9<&1 </dev/null >/dev/null"]);
        shell.arg(command.get_program()).args(command.get_args()).env_clear();
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(command.get_current_dir().expect("a home"));
        let stderr =
            fs::OpenOptions::new().append(true).open(home.path("stderr")).expect("the daemon has one");
        shell.stdin(OwnedFd::from(leaked));
        shell.stdout(OwnedFd::from(listener.try_clone().expect("a second handle"))).stderr(stderr);
        *command = shell;
        listener.set_nonblocking(true).expect("sets it");
        let client = UnixStream::connect(&path).expect("there is room in the queue");
        Self { stream, listener, client, path }
    }

    /// Nobody has written to the one or taken the client from the other since the last look.
    pub(super) fn are_untouched(&mut self) -> bool {
        let is_waiting = self.listener.accept().is_ok();
        self.client = UnixStream::connect(&self.path).expect("there is room in the queue");
        is_waiting
            && (&self.stream)
                .read(&mut [0])
                .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}
