//! What a worker printed: two byte strings under one limit.

use std::io;

use tokio::net::unix::pipe;

use crate::job::Stream;

/// One read from a pipe. A pipe holds 64 KiB; a quarter keeps the other arms of a run's loop in turn during a flood.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Everything read from stdout and stderr so far.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    limit: usize,
}

impl Output {
    pub(crate) fn new(limit: usize) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), limit }
    }

    /// Adds what fits; false when something did not.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let room = self.limit - self.stdout.len() - self.stderr.len();
        let kept = &bytes[..bytes.len().min(room)];
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(kept),
            Stream::Stderr => self.stderr.extend_from_slice(kept),
        }
        kept.len() == bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }

    pub(crate) fn stderr(&self) -> &[u8] {
        &self.stderr
    }

    /// (stdout, stderr)
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout, self.stderr)
    }
}

/// Takes what both pipes hold right now; false when it exceeds the limit.
pub(crate) fn drain(output: &mut Output, stdout: &pipe::Receiver, stderr: &pipe::Receiver) -> bool {
    let mut chunk = [0; CHUNK];
    for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
        while let Ok(n @ 1..) = read_now(pipe, &mut chunk) {
            if !output.push(stream, &chunk[..n]) {
                return false;
            }
        }
    }
    true
}

/// A read that does not wait, whatever the runtime believes about the pipe's readiness: tokio learns of new bytes only
/// when its driver runs, and output must not be missed because a result came first.
pub(crate) fn read_now(pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(pipe, buffer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_share_one_limit() {
        let mut output = Output::new(5);
        assert!(output.push(Stream::Stdout, b"abc"));
        assert!(output.push(Stream::Stderr, b"de"));
        assert!(output.push(Stream::Stdout, b""));
        assert!(!output.push(Stream::Stdout, b"f"));
        assert_eq!(output.into_parts(), (b"abc".to_vec(), b"de".to_vec()));
    }

    #[test]
    fn what_fits_of_the_last_bytes_is_kept() {
        let mut output = Output::new(4);
        assert!(!output.push(Stream::Stderr, b"abcdef"));
        assert_eq!(output.stderr(), b"abcd");
    }
}
