//! The fuzz targets' checks without a fuzzer: over the kept frames, over damaged ones, and over noise.

use std::fs;
use std::path::Path;

use conductor_protocol::{ClientKind, Hello, SessionFrame, frame};
use proptest::prelude::*;

#[path = "../fuzz/checks.rs"]
mod checks;

fn check_all(bytes: &[u8]) {
    checks::decode_frame(bytes);
    checks::hello(bytes);
    checks::session_sequence(bytes);
}

fn kept_frames() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1");
    let files = fs::read_dir(directory).expect("there").map(|entry| entry.expect("one").path());
    files.map(|file| fs::read(file).expect("readable")).collect()
}

/// A hello and what a session may bring after it.
fn connection(messages: &[Vec<u8>]) -> Vec<u8> {
    let hello = Hello {
        min_version: 1,
        build: "b".into(),
        kind: ClientKind::Shim,
        pid: 1,
        cwd: "/".into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
    };
    let mut stream = frame::encode(&hello.encode().expect("encodes")).expect("fits");
    for message in messages {
        let payload = SessionFrame::encode_mcp(message).expect("encodes");
        stream.extend(frame::encode(&payload).expect("fits"));
    }
    stream
}

#[test]
fn kept_frames_pass_whole_and_cut() {
    for kept in kept_frames() {
        for end in 0..=kept.len() {
            check_all(&kept[..end]);
            check_all(&[&[7], &kept[..end]].concat());
        }
        check_all(&kept[frame::PREFIX_BYTES..]);
    }
}

proptest! {
    #[test]
    fn damaged_frames_pass(which: prop::sample::Index, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let kept = kept_frames();
        let mut bytes = [&[3], &which.get(&kept)[..]].concat();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_all(&bytes);
        check_all(&bytes[1..]);
        check_all(&bytes[1 + frame::PREFIX_BYTES..]);
    }

    #[test]
    fn connections_pass(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut stream = connection(&messages);
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        check_all(&stream);
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_all(&bytes);
        check_all(&[&conductor_protocol::MAGIC, &1u16.to_le_bytes()[..], &bytes].concat());
    }
}
