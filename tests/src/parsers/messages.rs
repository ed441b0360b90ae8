//! What travels in messages: JSON-RPC as the shim reads it without decoding, and server-sent events.

use conductor_client::envelope::{Envelope, Id, Kind};
use conductor_client::scan::{Fault, Scan, Scanner};
use conductor_daemon::session::answer_to_malformed;
use conductor_upstream::sse_decoder::{Decoded, Decoder};
use serde::Deserialize;
use serde::de::IgnoredAny;

pub(super) const MESSAGE_WORDS: &[&str] = &[
    "{\"jsonrpc\":\"2.0\",",
    "\"id\":",
    "\"method\":",
    "\"params\":{",
    "\"result\":",
    "\"error\":",
    "\"requestId\":",
    "\"uri\":",
    "\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":",
    "\"\\u0069d\":",
    "\\ud83d\\ude00",
    "\\ud800",
    "null",
    "true",
    "-0.0",
    "1e400",
    "9007199254740993",
    "[",
    "]",
    "}",
    ",",
    "\r\n",
    "[[[[[[[[[[[[[[[[",
];

pub(super) const EVENT_WORDS: &[&str] = &[
    "data:",
    "data: ",
    "event: message\n",
    "id: ",
    "retry: 10\n",
    "\n\n",
    "\r\n",
    "\r",
    ": ",
    "{\"id\":1}",
    "\u{feff}",
];

/// As much of an answer as is read: its id may be half of a surrogate pair, as the client's was.
#[derive(Deserialize)]
struct Answer {
    error: AnswerError,
}

#[derive(Deserialize)]
struct AnswerError {
    message: String,
}

/// The largest event that the check allows.
const MAX_EVENT_BYTES: usize = 200;

/// One line of JSON-RPC: the scanner agrees with serde_json on what is JSON, however the line is cut; another id changes
/// nothing but the id; a refusal is an answer; and a request that the shim forwards gets its answer from the daemon, even if
/// the daemon cannot read it.
pub(super) fn message(bytes: &[u8]) {
    let Some((&cut, line)) = bytes.split_first() else { return };
    let scan = scanned(line, line.len());
    assert_eq!(format!("{scan:?}"), format!("{:?}", scanned(line, usize::from(cut))));
    if std::str::from_utf8(line).is_ok() && scan.fault != Some(Fault::Depth) {
        let is_json = !matches!(scan.fault, Some(Fault::Grammar { .. })) && scan.top.is_some();
        assert_eq!(is_json, serde_json::from_slice::<IgnoredAny>(line).is_ok());
    }
    if scan.top.is_none() {
        return;
    }
    match Envelope::new(&scan) {
        Ok(envelope) => {
            assert_id_is_replaced(&envelope, line);
            if std::str::from_utf8(line).is_ok() {
                assert_is_answered(&envelope, line);
            }
        }
        Err(refusal) => {
            let answer = refusal.answer();
            assert!(!answer.contains(&b'\n'));
            // An id is spelled as the client spelled it, and the bytes of its strings are not checked.
            if std::str::from_utf8(&refusal.id).is_ok() {
                let answer: Answer = serde_json::from_slice(&answer).expect("an answer is JSON");
                super::assert_told(&answer.error.message);
            }
        }
    }
}

fn assert_id_is_replaced(envelope: &Envelope, line: &[u8]) {
    if envelope.kind == Kind::Notification {
        return assert_eq!(envelope.id, None);
    }
    let other = Id::of_text("another");
    let changed = envelope.with_id(line, &other);
    let again = Envelope::new(&scanned(&changed, changed.len())).expect("nothing but the id is another");
    assert_eq!(again.id, Some(other));
    assert_eq!((again.kind, &again.method, &again.uri), (envelope.kind, &envelope.method, &envelope.uri));
    assert_eq!(
        (again.request_id, again.subscription_id),
        (envelope.request_id.clone(), envelope.subscription_id.clone())
    );
}

fn assert_is_answered(envelope: &Envelope, line: &[u8]) {
    let (Kind::Request, Some(id)) = (envelope.kind, &envelope.id) else { return };
    if let Some(answer) = answer_to_malformed(line) {
        let answered = Id::new(answer["id"].to_string().as_bytes());
        assert!(answered.as_ref() == Some(id) || id.raw() == b"null", "{answer}");
    }
}

fn scanned(line: &[u8], piece: usize) -> Scan {
    let mut scanner = Scanner::default();
    line.chunks(piece.max(1)).for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

/// A stream of events: the same however it is cut, and no event is larger than it may be.
pub(super) fn event_stream(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let events = decoded(stream, stream.len());
    assert_eq!(events, decoded(stream, usize::from(cut)));
    for event in events {
        match event {
            // Bytes that are no text become replacement characters, of three bytes each.
            Decoded::Event(event) => {
                assert!(event.data.is_none_or(|data| data.len() <= 3 * MAX_EVENT_BYTES));
            }
            Decoded::TooLarge { bytes, .. } => assert!(bytes > MAX_EVENT_BYTES as u64),
        }
    }
}

fn decoded(stream: &[u8], piece: usize) -> Vec<Decoded> {
    let mut decoder = Decoder::new(MAX_EVENT_BYTES);
    let mut events = Vec::new();
    stream.chunks(piece.max(1)).for_each(|piece| decoder.push(piece, &mut events));
    events
}
