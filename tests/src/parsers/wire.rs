//! The wire of shim, operator and daemon.

use conductor_protocol::operation::{
    LayerFaults, LoginsReport, Operation, PackageAges, PackageChanges, PackageReasons, PackagesReport,
    ServerLogs, ServersReport,
};
use conductor_protocol::status::StatusReport;
use conductor_protocol::{
    AdminReply, AdminRequest, EnvReply, FrameDecoder, Greeting, Hello, MAX_HELLO_BYTES, SessionFrame, codec,
    frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) const DOCUMENT_WORDS: &[&str] = &[
    "{\"operation\":\"",
    "packages-why",
    "servers-logs",
    "auth-login",
    "\"package\":",
    "\"server\":",
    "\"scopes\":[",
    "\"port\":65536",
    "null",
    "[]",
    "{}",
    "\"sessions\":",
    "\"upstreams\":",
    "1e999",
    "-1",
    "\\ud800",
];

/// A stream of frames: however it is cut, the same payloads come out, and written again they are the same stream.
pub(super) fn frame(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let (whole, whole_end) = decode_in_pieces(stream, stream.len());
    let (cut, cut_end) = decode_in_pieces(stream, usize::from(cut));
    assert_eq!((&whole, whole_end), (&cut, cut_end));
    let again: Vec<u8> =
        whole.iter().flat_map(|payload| frame::encode(payload).expect("it was a frame")).collect();
    assert!(stream.starts_with(&again));
    for payload in &whole {
        decode_as_anything(payload);
    }
}

/// The payloads, and whether the stream may end where it does.
fn decode_in_pieces(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = FrameDecoder::default();
    let mut payloads = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => payloads.push(payload),
                Ok(None) => break,
                Err(_) => return (payloads, false),
            }
        }
    }
    let may_end = decoder.finish().is_ok();
    (payloads, may_end)
}

fn decode_as_anything(payload: &[u8]) {
    hello(payload);
    // What can be read can be written, and is then read as the same.
    macro_rules! check {
        ($($message:ty),*) => {$(
            if let Ok(message) = codec::decode::<$message>(payload) {
                let again = codec::encode(&message).expect("it was encoded before");
                assert_eq!(codec::decode::<$message>(&again).expect("just encoded"), message);
            }
        )*};
    }
    check!(EnvReply, SessionFrame, AdminRequest, AdminReply);
    if let Ok(AdminRequest::Operate { json }) = codec::decode(payload) {
        operate(&json);
    }
}

/// A handshake's payload, from either side.
pub(super) fn hello(payload: &[u8]) {
    if let Ok((_, Some(hello))) = Hello::decode(payload) {
        let again = hello.encode().expect("it was encoded before");
        assert_eq!(Hello::decode(&again).expect("just encoded").1, Some(hello));
    }
    if let Ok(greeting) = Greeting::decode(payload) {
        let again = greeting.encode().expect("it was encoded before");
        assert_eq!(Greeting::decode(&again).expect("just encoded"), greeting);
    }
}

/// What a daemon reads from a connection: a hello within its limit, then the session's frames until the first fault.
pub(super) fn session(stream: &[u8]) {
    let mut decoder = FrameDecoder::with_limit(MAX_HELLO_BYTES);
    decoder.push(stream);
    let Ok(Some(first)) = decoder.next_frame() else { return };
    assert!(first.len() <= MAX_HELLO_BYTES);
    let Ok((_, Some(_))) = Hello::decode(&first) else { return };
    decoder.lift_limit();
    let mut used = first.len() + frame::PREFIX_BYTES;
    while let Ok(Some(payload)) = decoder.next_frame() {
        used += payload.len() + frame::PREFIX_BYTES;
        assert!(used <= stream.len());
        match codec::decode(&payload) {
            Ok(SessionFrame::Mcp(json)) => {
                assert_eq!(
                    SessionFrame::encode_mcp(&json).expect("fits"),
                    codec::encode(&SessionFrame::Mcp(json)).expect("fits")
                );
            }
            Ok(SessionFrame::Draining | SessionFrame::Returned(_)) => {}
            Ok(SessionFrame::Goodbye { .. }) | Err(_) => return,
        }
    }
}

/// The JSON of an operation, and of the documents that answer operations and the request for the status.
pub(super) fn operate(json: &[u8]) {
    survives::<Operation>(json);
    survives::<StatusReport>(json);
    survives::<PackagesReport>(json);
    survives::<PackageChanges>(json);
    survives::<PackageAges>(json);
    survives::<PackageReasons>(json);
    survives::<LayerFaults>(json);
    survives::<ServersReport>(json);
    survives::<ServerLogs>(json);
    survives::<LoginsReport>(json);
}

/// What is read is written and read again without a loss; what is not, is refused with a text.
fn survives<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(json: &[u8]) {
    match serde_json::from_slice::<T>(json) {
        Ok(document) => {
            let again = serde_json::to_vec(&document).expect("it is JSON");
            assert_eq!(serde_json::from_slice::<T>(&again).expect("just written"), document);
        }
        Err(error) => assert!(error.line() > 0 || !error.to_string().is_empty()),
    }
}
