//! Frames over a connected socket, blocking.
//!
//! A [`Connection`] owns the read side and its buffer; [`Connection::writer`] gives the write side to another thread. What
//! the frames mean is not known here.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::{CodecError, FrameDecoder, FrameError, MAX_HELLO_BYTES, codec, frame};
use serde::{Serialize, de::DeserializeOwned};

/// How much is read at once: a pipe's or socket's worth.
const READ_BYTES: usize = 64 * 1024;

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the connection to the conductor daemon failed")]
    Io(#[from] io::Error),
    #[error("the conductor daemon sent a frame that cannot be read")]
    Frame(#[from] FrameError),
    #[error("the conductor daemon and this program do not understand each other")]
    Codec(#[from] CodecError),
}

impl ConnectionError {
    /// The other side did not answer, or did not read, within the timeout that was set.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<UnixStream>,
    decoder: FrameDecoder,
    chunk: Vec<u8>,
}

impl Connection {
    /// A fresh connection: until [`Self::lift_limit`], frames are as small as a handshake's.
    pub fn new(stream: UnixStream) -> Self {
        let decoder = FrameDecoder::with_limit(MAX_HELLO_BYTES);
        Self { stream: Arc::new(stream), decoder, chunk: vec![0; READ_BYTES] }
    }

    /// The handshake is over.
    pub fn lift_limit(&mut self) {
        self.decoder.lift_limit();
    }

    /// The stream, for whoever writes to it and closes it.
    pub fn writer(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    /// Bounds how long a read or a write may wait from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ConnectionError> {
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)?;
        Ok(())
    }

    /// Sends one value in a frame.
    ///
    /// # Errors
    /// The value does not fit a frame, or the other side is gone.
    pub fn send<T: Serialize>(&self, value: &T) -> Result<(), ConnectionError> {
        self.send_payload(&codec::encode(value)?)
    }

    /// Sends one encoded value in a frame.
    ///
    /// # Errors
    /// The payload does not fit a frame, or the other side is gone.
    pub fn send_payload(&self, payload: &[u8]) -> Result<(), ConnectionError> {
        (&*self.stream).write_all(&frame::encode(payload)?)?;
        Ok(())
    }

    /// The next value; `None` when the other side has closed between two frames.
    ///
    /// # Errors
    /// The connection broke, or what came is no such value. Nothing can be read after that.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ConnectionError> {
        Ok(self.receive_payload()?.map(|payload| codec::decode(&payload)).transpose()?)
    }

    /// The next frame's payload; `None` when the other side has closed between two frames.
    ///
    /// # Errors
    /// The connection broke, or what came is no frame.
    pub fn receive_payload(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        loop {
            if let Some(payload) = self.decoder.next_frame()? {
                return Ok(Some(payload));
            }
            match (&*self.stream).read(&mut self.chunk) {
                Ok(0) => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                Ok(n) => self.decoder.push(&self.chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
