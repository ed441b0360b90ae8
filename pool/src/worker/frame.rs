//! The channel between daemon and harness: frames of a u32 little-endian length and that many bytes of JSON.
//!
//! Both sides of it are in this crate (the other is `harness/harness.js`), and one process never talks to a harness of
//! another build, so there is no version. Replies are hostile input: a length is checked before a byte of its frame is
//! kept, and a reply is nothing but a claim about the worker's own run.

use std::collections::BTreeMap;
use std::io;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::net::unix::pipe;

use crate::host::HostError;
use crate::job::{Settled, Thrown};
use crate::worker::sharing::Flaw;

/// The name of the job's code in stack frames.
pub const USER_SCRIPT_URL: &str = "conductor:main.ts";

/// Lines that V8 puts before the first line of the job's code: `(async function anonymous(api` and `) {`.
pub const USER_LINE_OFFSET: u32 = 2;

const HEADER: usize = 4;

/// From the daemon to the worker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command<'a> {
    /// The first frame: what is the same for every job, and which permissions the harness gives back once its channel is
    /// open.
    Boot {
        workspace: &'a str,
        version: &'a str,
        revoke_read: bool,
        revoke_write: bool,
        /// See [`Packages`](crate::spec::Packages), also for the next.
        spellings: &'a BTreeMap<String, String>,
        preload: &'a [String],
        /// What a template imports; its children import `preload`.
        shared: &'a [String],
        /// What a template loads; a worker loads nothing.
        library: Option<&'a str>,
    },
    /// The second: the job.
    Run {
        code: &'a str,
        api_name: &'a str,
        globals: &'a Map<String, Value>,
        /// Specifiers and what is imported in their place.
        imports: &'a BTreeMap<String, String>,
        /// Names of the upstream servers that `mcp` and `mcpFactory` reach; both are missing without.
        upstreams: Option<&'a [String]>,
        /// Bytes of a value's JSON beyond which the harness says so in its place; an inspected value is cut to them.
        max_result: usize,
        /// Bytes of media beyond which the harness sends their size alone.
        max_media: usize,
        /// Calls that the harness has unanswered at one time; it keeps later ones back.
        max_calls_in_flight: usize,
        permissions: &'a Value,
    },
    /// The answer to a call. One of the two is there.
    Reply {
        id: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a HostError>,
    },
}

/// From the worker to the daemon.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// What the warm-up's paths produced; means nothing.
    Warm(IgnoredAny),
    Ready {
        /// The first random number of a forked worker.
        #[serde(default)]
        drawn: Option<u32>,
    },
    /// A template imports this one of [`Command::Boot`]'s `shared` now.
    Importing(usize),
    /// Its children must not share this package, or any.
    Unfit {
        #[serde(default)]
        index: Option<usize>,
        why: Flaw,
    },
    Settled(Settled),
    /// The value's JSON is longer than [`Command::Run`] allows.
    #[serde(rename = "too_large")]
    TooLarge {},
    Open {
        handles: Vec<String>,
    },
    Late(Thrown),
    Call(Call),
    Drained {},
}

/// A question to the daemon, under a number of the worker's own choice.
#[derive(Debug, Deserialize)]
pub struct Call {
    pub id: u64,
    pub method: String,
    /// Read only if the call is admitted.
    pub params: Box<RawValue>,
}

/// Why a worker's channel cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit")]
    TooLarge { bytes: usize },
    #[error("a frame that is not understood: {0}")]
    Garbage(String),
    #[error("{bytes} bytes of a frame whose end never came")]
    Incomplete { bytes: usize },
}

pub(crate) fn encode(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, command).expect("strings, numbers and JSON values always encode");
    let length = u32::try_from(bytes.len() - HEADER).expect("code and globals are limited far below 4 GiB");
    bytes[..HEADER].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Cuts the reply stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that frames already returned were made of.
    used: usize,
    limit: usize,
    call_limit: usize,
}

impl FrameReader {
    /// `limit` is the largest frame without its header.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), used: 0, limit, call_limit: limit }
    }

    /// The largest frame of a call, and of anything else.
    pub(crate) fn set_limits(&mut self, call: usize, other: usize) {
        (self.call_limit, self.limit) = (call, other);
    }

    /// Reads once what the pipe holds, without waiting; 0 at the end of the stream. Call `next` until it is empty before
    /// the next `fill`: that keeps the buffer below one frame and one pipe's content.
    pub(crate) fn fill(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        self.compact();
        match pipe.try_read_buf(&mut self.buffer) {
            // Readiness was stale; not the end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(usize::MAX),
            other => other,
        }
    }

    /// The same, whatever the runtime knows of the pipe's readiness: for the last bytes of a process that has ended.
    pub(crate) fn fill_now(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        self.compact();
        Ok(rustix::io::read(pipe, rustix::buffer::spare_capacity(&mut self.buffer))?)
    }

    /// The same of bytes that were read elsewhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, if there is one.
    ///
    /// # Errors
    /// The stream makes no sense from here on.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, FrameError> {
        let unread = &self.buffer[self.used..];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER>() else { return Ok(None) };
        let bytes = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if bytes > self.limit.max(self.call_limit) {
            return Err(FrameError::TooLarge { bytes });
        }
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let reply = serde_json::from_slice(body).map_err(|error| FrameError::Garbage(visible(&error)))?;
        let limit = if matches!(reply, Reply::Call(_)) { self.call_limit } else { self.limit };
        if bytes > limit {
            return Err(FrameError::TooLarge { bytes });
        }
        self.used += HEADER + bytes;
        Ok(Some(reply))
    }

    /// Bytes of a frame that has begun and not ended.
    pub(crate) fn incomplete(&self) -> usize {
        self.buffer.len() - self.used
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(super::output::CHUNK);
    }
}

/// The parser quotes what the worker wrote: nothing of it may move a terminal's cursor.
fn visible(error: &serde_json::Error) -> String {
    error.to_string().replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests;
