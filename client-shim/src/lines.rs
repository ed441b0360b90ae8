//! The client's lines: bytes of standard input to messages.
//!
//! Each line is looked at while it is read, so a line over the limit is never held: it is scanned to its end, for its id, and
//! refused.

use std::io::{self, Read};

use conductor_protocol::MAX_MESSAGE_BYTES;

use crate::envelope::{self, Envelope, Kind, Refusal};
use crate::scan::{Scan, Scanner};

/// How much is read at once: a pipe's worth.
const READ_BYTES: usize = 64 * 1024;

/// One line of the client.
#[derive(Debug)]
pub enum Line {
    /// A message, without its line break.
    Message(Envelope, Vec<u8>),
    /// Something that is answered, not forwarded.
    Refused(Refusal),
    /// A notification over the limit: nobody can be answered, and it is not forwarded.
    Dropped { method: String, len: usize },
}

/// See the module.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    limit: usize,
    chunk: Vec<u8>,
    /// What of `chunk` is not yet taken.
    at: usize,
    end: usize,
}

/// A line that is being read.
#[derive(Default)]
struct Partial {
    scanner: Scanner,
    /// The line so far, as long as it is within the limit.
    json: Vec<u8>,
    len: usize,
}

impl<R: Read> Lines<R> {
    pub fn new(input: R) -> Self {
        Self::with_limit(input, MAX_MESSAGE_BYTES)
    }

    fn with_limit(input: R, limit: usize) -> Self {
        Self { input, limit, chunk: vec![0; READ_BYTES], at: 0, end: 0 }
    }

    /// The next line that is not blank; `None` at the end of the input. The last line needs no line break.
    ///
    /// # Errors
    /// The input's.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut partial = Partial::default();
        loop {
            if self.at == self.end && !self.refill()? {
                return Ok(self.judge(partial));
            }
            let fresh = &self.chunk[self.at..self.end];
            let line_break = fresh.iter().position(|&byte| byte == b'\n');
            let piece = &fresh[..line_break.unwrap_or(fresh.len())];
            partial.push(piece, self.limit);
            self.at += piece.len() + usize::from(line_break.is_some());
            if line_break.is_some()
                && let Some(line) = self.judge(std::mem::take(&mut partial))
            {
                return Ok(Some(line));
            }
        }
    }

    fn refill(&mut self) -> io::Result<bool> {
        loop {
            match self.input.read(&mut self.chunk) {
                Ok(n) => {
                    (self.at, self.end) = (0, n);
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn judge(&self, line: Partial) -> Option<Line> {
        let Partial { scanner, json, len } = line;
        let scan = scanner.finish();
        if scan.top.is_none() && scan.fault.is_none() {
            return None;
        }
        if len > self.limit {
            return Some(refuse_length(&scan, len, self.limit));
        }
        if std::str::from_utf8(&json).is_err() {
            let text = "the message is not UTF-8".to_owned();
            return Some(Line::Refused(Refusal { id: b"null".to_vec(), code: envelope::PARSE_ERROR, text }));
        }
        Some(match Envelope::new(&scan) {
            Ok(envelope) => Line::Message(envelope, json),
            Err(refusal) => Line::Refused(refusal),
        })
    }
}

impl Partial {
    fn push(&mut self, piece: &[u8], limit: usize) {
        self.scanner.feed(piece);
        self.len += piece.len();
        if self.len <= limit {
            self.json.extend_from_slice(piece);
        } else {
            self.json = Vec::new();
        }
    }
}

fn refuse_length(scan: &Scan, len: usize, limit: usize) -> Line {
    let refusal = Envelope::refuse_length(scan, len, limit);
    match Envelope::new(scan) {
        Ok(Envelope { kind: Kind::Notification, method, .. }) => Line::Dropped { method, len },
        // The client's answer to a question of the daemon: the daemon gets the refusal as its answer.
        Ok(Envelope { kind: Kind::Response, .. }) => {
            let answer = refusal.answer();
            let mut scanner = Scanner::default();
            scanner.feed(&answer);
            let envelope = Envelope::new(&scanner.finish()).expect("our own answer is a message");
            Line::Message(envelope, answer)
        }
        _ => Line::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that gives `piece` bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn lines(input: &[u8], limit: usize, piece: usize) -> Vec<String> {
        let mut lines = Lines::with_limit(Pieces(input, piece), limit);
        std::iter::from_fn(|| lines.next_line().expect("no I/O error"))
            .map(|line| match line {
                Line::Message(_, json) => String::from_utf8(json).expect("UTF-8"),
                Line::Refused(refusal) => {
                    let id = String::from_utf8(refusal.id).expect("UTF-8");
                    format!(
                        "refused {id} {}: {}",
                        refusal.code,
                        refusal.text.lines().next().unwrap_or_default()
                    )
                }
                Line::Dropped { method, len } => format!("dropped {method} {len}"),
            })
            .collect()
    }

    #[test]
    fn reads_lines_as_clients_write_them() {
        let input = b"\n{\"method\":\"a\"}\r\n  \n\r\n{\"method\":\"b\"}\n{\"method\":\"c\"}";
        for piece in 1..20 {
            assert_eq!(
                lines(input, 1000, piece),
                ["{\"method\":\"a\"}\r", "{\"method\":\"b\"}", "{\"method\":\"c\"}"]
            );
        }
    }

    #[test]
    fn answers_what_is_no_message_and_goes_on() {
        let input = b"nonsense\n{\"method\":\"a\xff\"}\n[]\n{\"method\":\"a\"}\n{\"method\":";
        let expected = [
            "refused null -32700: the message is not JSON (at byte 1)",
            "refused null -32700: the message is not UTF-8",
            "refused null -32600: batches are not supported",
            "{\"method\":\"a\"}",
            "refused null -32700: the message is not JSON (at byte 10)",
        ];
        assert_eq!(lines(input, 1000, 7), expected);
    }

    #[test]
    fn a_line_over_the_limit_is_answered_by_its_kind() {
        let long = "x".repeat(200);
        let input = format!(
            "{{\"params\":\"{long}\",\"id\":\"7\",\"method\":\"m\"}}\n{{\"method\":\"n\",\"params\":\"{long}\"}}\n\
             {{\"id\":3,\"result\":\"{long}\"}}\n{{\"id\":1,{long}\n{{\"method\":\"a\"}}\n"
        );
        assert_eq!(
            lines(input.as_bytes(), 100, 33),
            [
                "refused \"7\" -32600: the message is 235 bytes long, the limit is 100 bytes",
                "dropped n 226",
                "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32600,\"message\":\"the message is 220 bytes long, the \
                 limit is 100 bytes\\nhint: pass large data through a file\"}}",
                "refused null -32600: the message is 208 bytes long, the limit is 100 bytes",
                "{\"method\":\"a\"}",
            ]
        );
    }

    proptest! {
        #[test]
        fn noise_never_panics_nor_stops_the_next_line(noise in prop::collection::vec(any::<u8>(), 0..500), piece in 1usize..99) {
            let input = [&noise[..], b"\n{\"method\":\"end\"}\n"].concat();
            let lines = lines(&input, 64, piece);
            prop_assert_eq!(lines.last().map(String::as_str), Some("{\"method\":\"end\"}"));
        }
    }
}
