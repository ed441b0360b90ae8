//! What a worker writes on its reply pipe: hostile, always.

use conductor_pool::worker::frame::FrameReader;

pub(super) const REPLY_WORDS: &[&str] = &[
    "{\"ready\":{}}",
    "{\"settled\":",
    "{\"kind\":\"json\",\"value\":",
    "{\"kind\":\"thrown\"",
    "{\"late\":",
    "{\"open\":",
    "{\"handles\":[",
    "{\"call\":{\"id\":1,\"method\":\"m\",\"params\":",
    "{\"drained\":{}}",
    "{\"warm\":",
    "null",
    "[[[[[[",
    "\u{0}\u{0}\u{0}",
    "\\ud800",
];

/// The largest frame that the check allows.
const MAX_FRAME_BYTES: usize = 2000;

/// A stream of replies: the same however it is cut, up to the first fault, which is told.
pub(super) fn frames(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let replies = read(stream, stream.len());
    assert_eq!(replies, read(stream, usize::from(cut)));
}

fn read(stream: &[u8], piece: usize) -> Vec<String> {
    let mut reader = FrameReader::new(MAX_FRAME_BYTES);
    let mut told = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        reader.push(piece);
        loop {
            match reader.next_reply() {
                Ok(Some(reply)) => told.push(format!("{reply:?}")),
                Ok(None) => break,
                Err(error) => {
                    super::assert_told(&error.to_string());
                    told.push(error.to_string());
                    return told;
                }
            }
        }
    }
    told
}
