//! Telling a client what its call is doing while it waits: progress notifications if it sent a token, log messages if it
//! asked for a level. In order, and none after the result: the caller waits for each before it goes on.

#![expect(deprecated, reason = "logging is on its way out of MCP (SEP-2577), and clients of today use it")]

use conductor_pool::{RunEvent, Stream};
use rmcp::RoleServer;
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use serde_json::json;

use crate::exec::CallEvent;

/// Longest text in one notification, bytes; the whole output is in the result.
const MAX_TOLD_BYTES: usize = 4096;

/// Who wants to be told, and what was not told yet.
#[derive(Debug)]
pub(crate) struct Follower {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    level: Option<Severity>,
    told: f64,
    stdout: Lines,
    stderr: Lines,
}

impl Follower {
    /// `None` when the client wants to hear nothing. `level` is what the session asked for.
    pub(crate) fn new(context: &RequestContext<RoleServer>, level: Option<Severity>) -> Option<Self> {
        let token = context.meta.get_progress_token();
        let level =
            context.meta.log_level().map(Severity::from).or(level).filter(|least| *least <= Severity::STDERR);
        (token.is_some() || level.is_some()).then(|| Self {
            peer: context.peer.clone(),
            token,
            level,
            told: 0.0,
            stdout: Lines::default(),
            stderr: Lines::default(),
        })
    }

    /// Tells one event.
    pub(crate) async fn tell(&mut self, event: CallEvent) {
        match event {
            CallEvent::Phase(text) => self.progress(text).await,
            CallEvent::Output(RunEvent::Output { stream, bytes }) => {
                if let Some(text) = self.lines(stream).add(&bytes) {
                    self.output(stream, text).await;
                }
            }
        }
    }

    /// Tells what is left of output that did not end with a line end.
    pub(crate) async fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(text) = self.lines(stream).rest() {
                self.output(stream, text).await;
            }
        }
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    async fn output(&mut self, stream: Stream, text: String) {
        let severity = match stream {
            Stream::Stdout => Severity::STDOUT,
            Stream::Stderr => Severity::STDERR,
        };
        if self.level.is_some_and(|least| least <= severity) {
            self.log(severity, &text).await;
        }
        self.progress(text).await;
    }

    async fn progress(&mut self, message: String) {
        let Some(token) = self.token.clone() else { return };
        self.told += 1.0;
        let progress = ProgressNotificationParam::new(token, self.told).with_message(message);
        // client gone: the session's token ends the call
        let _gone = self.peer.notify_progress(progress).await;
    }

    async fn log(&self, severity: Severity, text: &str) {
        let message =
            LoggingMessageNotificationParam::new(severity.level(), json!(text)).with_logger("run_deno_code");
        // client gone: the session's token ends the call
        let _gone = self.peer.notify_logging_message(message).await;
    }
}

/// How severe a message must be for a client to want it, from the least on; the levels of RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Severity(u8);

impl Severity {
    const STDOUT: Self = Self(1);
    const STDERR: Self = Self(3);

    pub(super) fn level(self) -> LoggingLevel {
        match self.0 {
            0 => LoggingLevel::Debug,
            1 => LoggingLevel::Info,
            2 => LoggingLevel::Notice,
            3 => LoggingLevel::Warning,
            4 => LoggingLevel::Error,
            5 => LoggingLevel::Critical,
            6 => LoggingLevel::Alert,
            _ => LoggingLevel::Emergency,
        }
    }
}

impl From<LoggingLevel> for Severity {
    fn from(level: LoggingLevel) -> Self {
        Self(match level {
            LoggingLevel::Debug => 0,
            LoggingLevel::Info => 1,
            LoggingLevel::Notice => 2,
            LoggingLevel::Warning => 3,
            LoggingLevel::Error => 4,
            LoggingLevel::Critical => 5,
            LoggingLevel::Alert => 6,
            LoggingLevel::Emergency => 7,
        })
    }
}

/// Cuts chunks of output into whole lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come, at most [`MAX_TOLD_BYTES`].
    partial: Vec<u8>,
}

impl Lines {
    /// The whole lines that are there now, without the last line end; `None` when there is none.
    fn add(&mut self, bytes: &[u8]) -> Option<String> {
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.partial.extend_from_slice(bytes);
            self.partial.truncate(MAX_TOLD_BYTES);
            return None;
        };
        let mut lines = std::mem::take(&mut self.partial);
        lines.extend_from_slice(&bytes[..end]);
        self.partial.extend_from_slice(&bytes[end + 1..]);
        self.partial.truncate(MAX_TOLD_BYTES);
        Some(told(&lines))
    }

    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| told(&rest))
    }
}

fn told(bytes: &[u8]) -> String {
    let mut text = crate::exec::printable(bytes);
    if text.len() > MAX_TOLD_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TOLD_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whole_lines_however_the_output_was_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"one"), None);
        assert_eq!(lines.add(b" and\ntwo\nthr"), Some("one and\ntwo".into()));
        assert_eq!(lines.add(b"ee\n"), Some("three".into()));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.add(b"end"), None);
        assert_eq!(lines.rest(), Some("end".into()));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn endless_lines_take_no_endless_memory() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert_eq!(lines.add(&[b'x'; 1000]), None);
        }
        assert_eq!(lines.partial.len(), MAX_TOLD_BYTES);
        assert!(lines.add(b"\n").is_some_and(|told| told.len() <= MAX_TOLD_BYTES + '…'.len_utf8()));
    }
}
