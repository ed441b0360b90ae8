//! The kernel jail around a worker.
//!
//! Deno's permissions are the first fence around model-written code; this is the second, and it does not trust the first:
//! it assumes that the code has taken the process over. A [`Jail`] says what such a process may still do. [`Jail::apply`]
//! makes the calling process obey it for ever, its children and the programs it becomes included.
//!
//! | layer | what it takes away |
//! |---|---|
//! | [`Layer::Limits`] | memory, file growth, descriptors, CPU time, core dumps; first victim when memory runs out; low priority |
//! | [`Layer::Capabilities`] | everything root can do |
//! | [`Layer::Landlock`] | files, programs and TCP ports not granted; signals and abstract sockets of others |
//! | [`Layer::Seccomp`] | system calls: new processes, other programs, sockets, other processes, kernel interfaces |
//! | [`Layer::NoNewCode`] | memory that becomes executable (`hardened`; needs V8's `--jitless`) |
//!
//! The crate owns no state and starts nothing: whoever calls [`Jail::apply`] must be a process with one thread that is
//! about to become the jailed program. It never decides what is granted, and never removes one layer because another is
//! there: most things are forbidden twice. [`probe`] shows that, from the inside. [`cgroup`] adds what only the outside can.
//!
//! Linux alone has these layers. Elsewhere [`Jail::apply`] says of each that it is missing, and refuses at
//! [`Level::Strict`]: macOS would need a profile of its deprecated `sandbox-exec`, Windows a job object and an AppContainer.

#[cfg(unix)]
mod args;
pub mod cgroup;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub mod probe;
#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
pub use linux::ForkFilter;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the jailed program may do. Everything not named here is forbidden.
///
/// Granted paths are absolute and *real*: one that leads through a symbolic link, or to nothing, grants nothing. Whoever
/// makes a `Jail` resolves links, so that code cannot widen a grant later by putting a link in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// The program this process is about to become. It and its loader are all that may be executed unless `run`.
    pub program: PathBuf,
    /// What the program needs besides libraries, to read. Not a grant: its owner chose it, so it may lie below
    /// `protected` and lead through links, and it must be there.
    pub needs: Vec<PathBuf>,
    /// Files and directories (with all below) to read.
    pub read: Vec<PathBuf>,
    /// Files and directories (with all below) to change; does not include reading.
    pub write: Vec<PathBuf>,
    /// Directories that stay closed even below a path of `read` or `write`. The kernel has no such rule, so a granted
    /// path above one is replaced by what is beside it at the time of [`Jail::apply`]; what appears there later is closed.
    pub protected: Vec<PathBuf>,
    pub net: Net,
    /// May start processes and signal its own. System programs and libraries become readable and executable.
    pub run: bool,
    /// May load native libraries, which then have all the rights that are granted here.
    pub ffi: bool,
    /// May copy itself, and signal what its Landlock domain reaches: itself and its copies. Each copy takes these two away
    /// from itself with a [`ForkFilter`] before anybody's code runs in it.
    pub forks: bool,
    pub limits: Limits,
    /// The layers to apply: [`Layer::DEFAULT`], `NoNewCode` if wanted, fewer only to test one or to live with a kernel.
    pub layers: BTreeSet<Layer>,
}

/// Network access. Only IPv4 and IPv6, TCP and UDP: other families and raw sockets are never granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Net {
    #[default]
    None,
    /// TCP to and on these ports (where the kernel has Landlock ABI 4), and UDP, which names are resolved with.
    Ports(BTreeSet<u16>),
    Any,
}

/// Resource limits. Each holds per process; none can be raised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Private writable memory in bytes (`RLIMIT_DATA`). See [`Limits::data_for`].
    pub data: Option<u64>,
    /// Size to which files may grow, in bytes.
    pub file_size: Option<u64>,
    /// Highest descriptor number plus one.
    pub descriptors: u64,
    /// Seconds of CPU time, over all threads: a dead-man switch should the daemon hang, not a limit of a run.
    pub cpu_seconds: Option<u64>,
}

impl Limits {
    /// V8 reserves this much writable memory for the machine code of each isolate, however little it uses, and
    /// `RLIMIT_DATA` counts reservations. Without its compiler it reserves none.
    const CODE_RANGE_MIB: u64 = 512;
    /// What an isolate without code takes beside its code range: measured 12 to 13.
    const ISOLATE_MIB: u64 = 14;
    /// Isolates that code may add with `new Worker`. No more, since what they do not reserve, buffers can fill.
    const WORKERS: u64 = 4;

    /// The value for `data` that lets a worker use `memory_mib` MiB, beside what its isolates, four Web Workers' among them,
    /// reserve and do not use. `compiles`: V8 has its compiler.
    pub fn data_for(memory_mib: u32, compiles: bool) -> u64 {
        let code = if compiles { Self::CODE_RANGE_MIB } else { 0 };
        let isolates = code + Self::WORKERS * (code + Self::ISOLATE_MIB);
        (isolates + u64::from(memory_mib)) << 20
    }
}

/// How a missing layer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A layer that this kernel lacks, or has in part, is an error: no code runs.
    Strict,
    /// The layers that exist are applied and the [`Report`] says which.
    #[default]
    BestEffort,
}

/// One mechanism of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    Limits,
    Capabilities,
    Landlock,
    Seccomp,
    NoNewCode,
}

impl Layer {
    pub const ALL: [Self; 5] =
        [Self::Limits, Self::Capabilities, Self::Landlock, Self::Seccomp, Self::NoNewCode];

    /// Every layer under which V8 keeps its compiler.
    pub const DEFAULT: [Self; 4] = [Self::Limits, Self::Capabilities, Self::Landlock, Self::Seccomp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::NoNewCode => "no-new-code",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum State {
    Active,
    /// Applied, but the kernel cannot enforce all of it.
    Partial(String),
    /// The kernel does not have it.
    Missing(String),
    /// Not among [`Jail::layers`].
    Off,
}

/// Which layers hold, as [`Jail::apply`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub layers: BTreeMap<Layer, State>,
    /// The version of Landlock's interface in use; 0 if none.
    pub landlock_abi: u32,
}

impl Report {
    /// The layers that were asked for and do not hold in full, each with the reason.
    pub fn gaps(&self) -> impl Iterator<Item = (Layer, &str)> {
        self.layers.iter().filter_map(|(layer, state)| match state {
            State::Partial(reason) | State::Missing(reason) => Some((*layer, reason.as_str())),
            State::Active | State::Off => None,
        })
    }
}

/// The process is not jailed as asked, and must not go on.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("cannot set the limit on {what}")]
    Limit { what: &'static str, source: io::Error },
    #[error("cannot give up capabilities")]
    Capabilities(#[source] io::Error),
    #[error("cannot give up new privileges")]
    NoNewPrivileges(#[source] io::Error),
    #[error("cannot restrict files and ports")]
    Landlock(#[source] io::Error),
    #[error("cannot restrict system calls")]
    Seccomp(#[source] io::Error),
    #[error(
        "the jail's layer {layer} is not complete on this machine: {reason}\nhint: use a kernel that has it, or \
         the level best-effort, which runs code without it and says so"
    )]
    Incomplete { layer: Layer, reason: String },
}

impl Jail {
    /// A jail that grants nothing but to become `program`, with room for 704 MiB of memory.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            needs: Vec::new(),
            read: Vec::new(),
            write: Vec::new(),
            protected: Vec::new(),
            net: Net::None,
            run: false,
            ffi: false,
            forks: false,
            limits: Limits {
                data: Some(Limits::data_for(704, true)),
                file_size: Some(0),
                descriptors: 128,
                cpu_seconds: None,
            },
            layers: Layer::DEFAULT.into(),
        }
    }
}
