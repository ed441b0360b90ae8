//! What a worker is, fixed before any code reaches it: permissions, limits, directories. Pure data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything about a worker that is decided before it boots.
///
/// Workers of equal specs are interchangeable, and only those: the pool keeps one set of idle workers per distinct spec.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WorkerSpec {
    /// Absolute path of the Deno executable.
    pub deno: PathBuf,
    /// The session's workspace: the worker's working directory if `grants` let it read there, else an empty directory is.
    pub workspace: PathBuf,
    pub grants: Grants,
    /// Directories that stay denied even below a granted one: conductor's own.
    pub protected: BTreeSet<PathBuf>,
    /// V8 old-space limit in MiB.
    pub heap_mib: u32,
    /// Memory of the whole process in MiB, from which a run is ended. See [`WorkerSpec::memory_for_heap`].
    pub max_memory_mib: u32,
    /// The longest that a run may take. Runs have limits of their own; this is what the kernel's last one follows from.
    pub max_wall: Duration,
    /// Environment the code may see, already resolved; only names that `grants.env` covers.
    pub env: BTreeMap<String, String>,
    /// How its workers are to be made; another way serves where this one cannot.
    #[serde(skip_serializing_if = "WorkerChoice::is_spawn")]
    pub worker: WorkerChoice,
    /// Packages the code may import; without them Deno refuses every `npm:` and `jsr:` specifier.
    pub packages: Option<Packages>,
}

impl WorkerSpec {
    /// What a worker has beside the heap, in MiB: buffers, WebAssembly, blobs, the heaps of Web Workers, Deno itself.
    const BESIDE_HEAP_MIB: u32 = 448;

    /// The memory that leaves a heap of `heap_mib` its whole size, and as much beside it as a run may need.
    pub fn memory_for_heap(heap_mib: u32) -> u32 {
        heap_mib.saturating_add(Self::BESIDE_HEAP_MIB)
    }
}

/// Which kind of worker a spec asks for. What cannot be forked is spawned, whatever is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerChoice {
    #[default]
    Spawn,
    /// From the first worker on, as soon as there is a template.
    Fork,
    /// Like `Fork` for a spec that is used so much that it is worth a template; until then like `Spawn`.
    Auto,
}

impl WorkerChoice {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Fork => "fork",
            Self::Auto => "auto",
        }
    }

    pub const fn is_spawn(&self) -> bool {
        matches!(self, Self::Spawn)
    }
}

/// A read-only set of packages that a worker imports from, complete: nothing is ever fetched for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Packages {
    /// The `DENO_DIR` that holds them and Deno's caches. Nobody writes there while workers use it.
    pub deno_dir: PathBuf,
    /// A `deno.lock`, used frozen: what is not in it cannot be imported. The worker may read its directory.
    pub lock: PathBuf,
    /// Variables by which Deno finds packages that came from other than the usual registries. Nothing secret.
    pub env: BTreeMap<String, String>,
    /// The host of jsr if packages came from there: Deno looks into its cache only if it may import from the host.
    pub allow_import: Option<String>,
    /// The one spelling under which each package is locked, by its name with registry: `npm:axios` is `npm:axios@^1`.
    pub spellings: BTreeMap<String, String>,
    /// Specifiers, as the lock spells them, that a worker imports while it boots.
    pub preload: Vec<String>,
}

/// Deno permissions, in Deno's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Grants {
    /// Absolute paths.
    pub read: Grant,
    /// Absolute paths.
    pub write: Grant,
    /// `host`, `host:port`.
    pub net: Grant,
    /// Variable names.
    pub env: Grant,
    /// Programs. Any grant here means the worker is not sandboxed.
    pub run: Grant,
    /// Libraries. Any grant here means the worker is not sandboxed.
    pub ffi: Grant,
    /// Names of `Deno.permissions` system descriptors.
    pub sys: Grant,
    /// Every permission at once (`--allow-all`).
    pub all: bool,
}

/// One permission: nothing, a list, or everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    #[default]
    None,
    Only(BTreeSet<String>),
    All,
}

impl Grant {
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl Grants {
    /// True when code under these grants can start programs.
    pub fn starts_programs(&self) -> bool {
        self.all || !self.run.is_none()
    }

    /// True when code under these grants can leave the sandbox by design (`run`, `ffi`, everything).
    pub fn is_unsandboxed(&self) -> bool {
        self.all || !self.run.is_none() || !self.ffi.is_none()
    }
}
