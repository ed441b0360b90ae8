//! One run of code: what goes into a worker and what comes out. Pure data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::host::Host;
use crate::source::{WorkerIdentity, WorkerKind};

/// One piece of code to run, once.
#[derive(Clone, Debug)]
pub struct Job {
    /// Names this run in logs and errors; unique for the life of the daemon.
    pub execution_id: String,
    /// JavaScript: the body of an async function, as `conductor-script` makes it.
    pub code: String,
    /// The parameter under which `code` gets what a module has and a function lacks (`import`, `meta`).
    pub api_name: String,
    /// Defined as globals before the code runs; names are already validated.
    pub globals: Map<String, Value>,
    /// Module specifiers of the code and what is imported in their place.
    pub imports: BTreeMap<String, String>,
    /// Names of the upstream servers that the code can call through `host`; without them it gets no `mcpFactory`.
    pub upstreams: Option<Vec<String>>,
    /// What the code sees as `PERMISSIONS`: a description, no grant.
    pub permissions: Value,
    /// Answers what the code asks while it runs; without one every question fails.
    pub host: Option<Host>,
    pub limits: RunLimits,
}

/// Bounds of one run. Reaching one ends the run with the verdict of that name, but for those of calls.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Wall time from handing the code over to the end of the event loop.
    pub wall: Duration,
    /// CPU time of the process, all threads together, from handing the code over. Programs that the code starts are not
    /// in it: they are the business of whoever granted `run`.
    pub compute: Duration,
    /// How long open timers and handles may keep a run alive after its value is known.
    pub linger: Duration,
    /// Bytes of stdout and stderr together that are read before the run is ended.
    pub max_output_bytes: usize,
    /// Bytes of the encoded result.
    pub max_result_bytes: usize,
    /// Bytes of a value's images, sounds and files together, before they are encoded.
    pub max_media_bytes: usize,
    /// Calls to the [`Host`]; a further one fails, and the run goes on.
    pub max_calls: usize,
    /// Calls to the [`Host`] that are worked on at one time; the worker keeps further ones back.
    pub max_calls_in_flight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What happens while a job runs, in order within each stream. Nothing comes after the [`RunReport`].
#[derive(Clone, Debug)]
pub enum RunEvent {
    Output { stream: Stream, bytes: Vec<u8> },
}

/// How one run went. Every job that reaches a worker gives exactly one.
#[derive(Clone, Debug)]
pub struct RunReport {
    pub verdict: Verdict,
    pub kind: WorkerKind,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub worker: WorkerIdentity,
    /// Wall time inside the worker.
    pub wall: Duration,
    /// CPU time the worker used for this job, all threads; zero where the platform does not tell.
    pub cpu: Duration,
    /// Part of `wall`: while at least one of its calls was not answered.
    pub waiting: Duration,
}

/// Why a run ended. The daemon decides it from what it saw itself; what code claims is only ever payload.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per run; boxing the usual case would save nothing")]
pub enum Verdict {
    /// The code settled and the event loop drained, or `linger` was over.
    Settled {
        settled: Settled,
        /// The run was ended with handles still open; their kinds, as far as the worker can name them.
        open_handles: Option<Vec<String>>,
        /// An error thrown after the value was known (a timer, a floating rejection).
        late: Option<Thrown>,
    },
    /// The event loop drained although the code still waits for a promise: it can never settle.
    NeverSettles,
    Timeout,
    /// [`RunLimits::compute`] is used up.
    ComputeLimit,
    /// The worker had more memory than [`WorkerSpec::max_memory_mib`](crate::WorkerSpec::max_memory_mib).
    MemoryLimit,
    Cancelled,
    OutputLimit,
    ResultLimit,
    /// The process ended without a result. `out_of_memory` when it died of a memory limit.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
        out_of_memory: bool,
    },
    /// The worker broke its side of the protocol (closed or garbled its result channel).
    BrokenChannel {
        detail: String,
    },
}

/// What the code came to, as the worker encoded it. Hostile input: any field may be a lie about the worker's own run.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "SettledFrame")]
pub enum Settled {
    /// No value (`undefined`).
    None,
    /// A JSON value.
    Json { value: Value },
    /// Anything JSON cannot hold, as `Deno.inspect` shows it.
    Inspect { text: String },
    /// Images, sounds and files, in the order in which the code returned them.
    Media { items: Vec<Media> },
    /// The same, more than [`RunLimits::max_media_bytes`]; how many bytes they have.
    Oversized { bytes: u64 },
    /// The code threw or rejected.
    Thrown { error: Thrown },
    /// The code called `Deno.exit` or `process.exit`.
    Exit { code: i32 },
}

/// [`Settled`] as it comes from the worker. A struct instead of a tagged enum, which serde reads into memory before it knows
/// which it is: a value of a million keys would be built twice.
#[derive(Debug, Deserialize)]
struct SettledFrame {
    kind: SettledKind,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    text: String,
    #[serde(default)]
    items: Vec<Media>,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    error: Thrown,
    #[serde(default)]
    code: i32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SettledKind {
    None,
    Json,
    Inspect,
    Media,
    Oversized,
    Thrown,
    Exit,
}

impl From<SettledFrame> for Settled {
    fn from(frame: SettledFrame) -> Self {
        match frame.kind {
            SettledKind::None => Self::None,
            SettledKind::Json => Self::Json { value: frame.value },
            SettledKind::Inspect => Self::Inspect { text: frame.text },
            SettledKind::Media => Self::Media { items: frame.items },
            SettledKind::Oversized => Self::Oversized { bytes: frame.bytes },
            SettledKind::Thrown => Self::Thrown { error: frame.error },
            SettledKind::Exit => Self::Exit { code: frame.code },
        }
    }
}

/// One image, sound or file that the code returned.
#[derive(Clone, Debug, Deserialize)]
pub struct Media {
    pub kind: MediaKind,
    /// Should be `type/subtype`.
    pub media_type: String,
    pub name: Option<String>,
    /// Should be base64.
    pub data: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    Image,
    Audio,
    File,
}

/// A thrown value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Thrown {
    /// `error.name`, or empty when what was thrown is no Error.
    pub name: String,
    pub message: String,
    /// V8's raw stack; positions refer to the job's code as the worker wraps it, see [`Job::code`].
    pub stack: String,
    pub cause: Option<Box<Thrown>>,
    /// Members of an AggregateError.
    pub errors: Vec<Thrown>,
}
