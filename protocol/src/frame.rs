//! Length-prefixed frames: bytes in, payloads out. Owns only its own buffer.

use crate::MAX_FRAME_BYTES;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// How much more than one frame's worth of spare capacity a decoder keeps between frames.
const KEPT_CAPACITY: usize = 64 * 1024;

/// The stream cannot be read on: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is over the limit of {limit} bytes")]
    TooLarge { len: usize, limit: usize },
    #[error("the stream ended inside a frame: {have} of {want} bytes")]
    Truncated { have: usize, want: usize },
}

/// Prefixes `payload` with its length.
///
/// # Errors
/// [`FrameError::TooLarge`] when no decoder would accept it.
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let prefix = prefix(payload.len())?;
    let mut frame = Vec::with_capacity(PREFIX_BYTES + payload.len());
    frame.extend_from_slice(&prefix);
    frame.extend_from_slice(payload);
    Ok(frame)
}

fn prefix(len: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    match u32::try_from(len) {
        Ok(n) if len <= MAX_FRAME_BYTES => Ok(n.to_le_bytes()),
        _ => Err(FrameError::TooLarge { len, limit: MAX_FRAME_BYTES }),
    }
}

/// Cuts a byte stream into payloads.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::with_limit(MAX_FRAME_BYTES)
    }
}

impl FrameDecoder {
    /// A decoder for payloads of at most `limit` bytes; the handshake uses a smaller one than the session.
    pub fn with_limit(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, limit: limit.min(MAX_FRAME_BYTES) }
    }

    /// Allows payloads up to [`MAX_FRAME_BYTES`] from now on, keeping what is buffered.
    pub fn lift_limit(&mut self) {
        self.limit = MAX_FRAME_BYTES;
    }

    /// Takes bytes as they arrived. Memory is bounded if [`Self::next_frame`] is drained between calls.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.shrink_to(KEPT_CAPACITY);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole payload, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as a length prefix says so; the decoder stays in that state.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > self.limit {
            return Err(FrameError::TooLarge { len, limit: self.limit });
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        let payload = payload.to_vec();
        self.start += PREFIX_BYTES + len;
        Ok(Some(payload))
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ends inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        let pending = &self.buffer[self.start..];
        let want = match pending.split_first_chunk::<PREFIX_BYTES>() {
            _ if pending.is_empty() => return Ok(()),
            Some((prefix, _)) => PREFIX_BYTES + u32::from_le_bytes(*prefix) as usize,
            None => PREFIX_BYTES,
        };
        if pending.len() >= want { Ok(()) } else { Err(FrameError::Truncated { have: pending.len(), want }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(decoder: &mut FrameDecoder) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| decoder.next_frame().expect("within the limit")).collect()
    }

    #[test]
    fn refuses_a_length_before_the_bytes_are_there() {
        let mut decoder = FrameDecoder::with_limit(8);
        decoder.push(&9u32.to_le_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { len: 9, limit: 8 }));
        let mut decoder = FrameDecoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge { .. })));
        assert!(decoder.buffer.capacity() < 1024, "nothing was allocated for the claimed length");
    }

    #[test]
    fn refuses_to_encode_what_no_decoder_accepts() {
        let payload = vec![0; MAX_FRAME_BYTES + 1];
        assert!(matches!(encode(&payload), Err(FrameError::TooLarge { .. })));
        assert!(encode(&payload[1..]).is_ok());
    }

    #[test]
    fn tells_a_clean_end_from_a_cut_frame() {
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.finish(), Ok(()));
        decoder.push(&[3, 0]);
        assert_eq!(decoder.finish(), Err(FrameError::Truncated { have: 2, want: 4 }));
        decoder.push(&[0, 0, b'a']);
        assert_eq!(decoder.finish(), Err(FrameError::Truncated { have: 5, want: 7 }));
        decoder.push(b"bc");
        assert_eq!(drain(&mut decoder), [b"abc"]);
        assert_eq!(decoder.finish(), Ok(()));
    }

    proptest! {
        /// Whatever way the network cuts the stream, the same payloads come out.
        #[test]
        fn any_cut_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(1usize..64, 1..200),
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| encode(p).expect("small")).collect();
            let mut decoder = FrameDecoder::default();
            let (mut got, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().expect("endless")));
                decoder.push(now);
                got.extend(drain(&mut decoder));
                rest = later;
            }
            prop_assert_eq!(got, payloads);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut decoder = FrameDecoder::with_limit(1024);
            decoder.push(&bytes);
            while let Ok(Some(payload)) = decoder.next_frame() {
                prop_assert!(payload.len() <= 1024);
            }
        }
    }
}
