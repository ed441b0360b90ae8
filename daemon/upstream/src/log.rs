//! The last things that a server said, for whoever asks why it does not work.
//!
//! Lines of its stderr, its log messages, and what became of its processes, without its secrets. Bounded: what is old goes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::secret::Redactor;

/// Bytes of text that are kept of one server: a few screens, which hold the end of any stack trace.
const MAX_BYTES: usize = 64 * 1024;

/// Longest line, in bytes; the rest of a longer one is dropped.
const MAX_LINE_BYTES: usize = 4096;

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct LogLine {
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    pub source: LogSource,
    pub text: String,
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    Stderr,
    /// On stdout, where only messages of the protocol belong.
    Stdout,
    /// A log message of the protocol.
    Message,
    /// Conductor: starts, ends, failures.
    Conductor,
}

/// The lines of one server.
#[derive(Debug)]
pub(crate) struct LogRing {
    lines: Mutex<Lines>,
    redactor: Redactor,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

impl LogRing {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self { lines: Mutex::default(), redactor }
    }

    pub(crate) fn push(&self, source: LogSource, text: &str) {
        let text = self.redactor.redact(truncated(text.trim_end()));
        let mut lines = self.lock();
        lines.bytes += text.len();
        lines.lines.push_back(LogLine { at: SystemTime::now(), source, text });
        while lines.bytes > MAX_BYTES {
            let Some(oldest) = lines.lines.pop_front() else { break };
            lines.bytes -= oldest.text.len();
        }
    }

    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.lock().lines.iter().cloned().collect()
    }

    pub(crate) fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    /// The last `n` lines that the server itself wrote.
    pub(crate) fn tail(&self, n: usize) -> Vec<String> {
        let lines = self.lock();
        let own = lines
            .lines
            .iter()
            .rev()
            .filter(|line| matches!(line.source, LogSource::Stderr | LogSource::Stdout));
        let mut tail: Vec<_> =
            own.filter(|line| !line.text.trim().is_empty()).take(n).map(|line| line.text.clone()).collect();
        tail.reverse();
        tail
    }

    /// Reads stderr to its end.
    pub(crate) async fn pump(&self, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while let Ok(part) = reader.fill_buf().await {
            if part.is_empty() {
                break;
            }
            let end = part.iter().position(|&byte| byte == b'\n');
            let text = &part[..end.unwrap_or(part.len())];
            // One byte more than is kept tells a cut line from one of just that length.
            let room = (MAX_LINE_BYTES + 1).saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            let length = end.map_or(part.len(), |end| end + 1);
            reader.consume(length);
            if end.is_some() {
                self.push(LogSource::Stderr, &String::from_utf8_lossy(&std::mem::take(&mut line)));
            }
        }
        if !line.is_empty() {
            self.push(LogSource::Stderr, &String::from_utf8_lossy(&line));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn truncated(text: &str) -> &str {
    let mut end = text.len().min(MAX_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[tokio::test]
    async fn stderr_is_kept_without_secrets_and_within_bounds() {
        let ring = LogRing::new(Redactor::new([&Secret::new("hunter22")]));
        let mut text = format!("token hunter22\n{}\n", "é".repeat(10_000));
        (0..1000).for_each(|n| text.push_str(&format!("line {n} {}\n", "x".repeat(100))));
        text.push_str("the end");
        ring.pump(text.as_bytes()).await;
        let lines = ring.lines();
        assert!(lines.iter().map(|line| line.text.len()).sum::<usize>() <= MAX_BYTES);
        assert!(lines.len() > 500);
        assert_eq!(ring.tail(1), ["the end"]);

        let ring = LogRing::new(Redactor::new([&Secret::new("hunter22")]));
        ring.pump(text.as_bytes().split_at(30_000).0).await;
        let lines = ring.lines();
        assert_eq!(lines[0].text, "token [redacted]");
        assert!(lines[1].text.len() <= MAX_LINE_BYTES);
    }
}
