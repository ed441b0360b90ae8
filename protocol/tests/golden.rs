//! Frames of protocol version 1, written once and kept in `data/v1`: every build must read them, and write the same bytes.
//!
//! A new message gets a new file: `cargo test -p conductor-protocol --test golden -- --ignored`. A file that is there is
//! never written again; a layout that changes is a new protocol version with a new directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use conductor_protocol::handshake::Welcome;
use conductor_protocol::{
    AdminReply, AdminRequest, ClientKind, EnvReply, FrameDecoder, Greeting, Hello, RejectCode, SessionFrame,
    codec, frame,
};

/// Everything that crosses the wire in a frame.
#[derive(Debug, PartialEq)]
enum Message {
    Hello(Hello),
    Greeting(Greeting),
    EnvReply(EnvReply),
    Session(SessionFrame),
    AdminRequest(AdminRequest),
    AdminReply(AdminReply),
}

impl Message {
    /// The file. A new message does not compile until it has one.
    fn file(&self) -> PathBuf {
        let name = match self {
            Self::Hello(hello) => match hello.kind {
                ClientKind::Shim => "hello-shim",
                ClientKind::Ctl => "hello-ctl",
                ClientKind::Admin => "hello-admin",
            },
            Self::Greeting(Greeting::Welcome { .. }) => "greeting-welcome",
            Self::Greeting(Greeting::NeedEnv { .. }) => "greeting-need-env",
            Self::Greeting(Greeting::Reject { code, .. }) => match code {
                RejectCode::Version => "greeting-reject-version",
                RejectCode::Malformed => "greeting-reject-malformed",
                RejectCode::Draining => "greeting-reject-draining",
                RejectCode::Busy => "greeting-reject-busy",
                RejectCode::Forbidden => "greeting-reject-forbidden",
                RejectCode::Other(_) => "greeting-reject-other",
            },
            Self::EnvReply(_) => "env-reply",
            Self::Session(SessionFrame::Mcp(_)) => "session-mcp",
            Self::Session(SessionFrame::Goodbye { .. }) => "session-goodbye",
            Self::Session(SessionFrame::Draining) => "session-draining",
            Self::Session(SessionFrame::Returned(_)) => "session-returned",
            Self::AdminRequest(AdminRequest::Status) => "admin-request-status",
            Self::AdminRequest(AdminRequest::Reload) => "admin-request-reload",
            Self::AdminRequest(AdminRequest::Stop) => "admin-request-stop",
            Self::AdminRequest(AdminRequest::Cancel { .. }) => "admin-request-cancel",
            Self::AdminRequest(AdminRequest::Result { .. }) => "admin-request-result",
            Self::AdminRequest(AdminRequest::Operate { .. }) => "admin-request-operate",
            Self::AdminReply(AdminReply::Json(_)) => "admin-reply-json",
            Self::AdminReply(AdminReply::Done { .. }) => "admin-reply-done",
            Self::AdminReply(AdminReply::Failed { .. }) => "admin-reply-failed",
            Self::AdminReply(AdminReply::Text { .. }) => "admin-reply-text",
        };
        directory().join(name).with_extension("bin")
    }

    fn encode(&self) -> Vec<u8> {
        let payload = match self {
            Self::Hello(hello) => hello.encode(),
            Self::Greeting(greeting) => greeting.encode(),
            Self::EnvReply(reply) => codec::encode(reply),
            Self::Session(frame) => codec::encode(frame),
            Self::AdminRequest(request) => codec::encode(request),
            Self::AdminReply(reply) => codec::encode(reply),
        };
        frame::encode(&payload.expect("encodes")).expect("fits a frame")
    }

    /// Reads the frame as a message of this one's type.
    fn decode_alike(&self, frame: &[u8]) -> Self {
        let mut decoder = FrameDecoder::default();
        decoder.push(frame);
        let payload = decoder.next_frame().expect("a frame").expect("a whole frame");
        decoder.finish().expect("one frame");
        match self {
            Self::Hello(_) => {
                let (version, hello) = Hello::decode(&payload).expect("a hello");
                assert_eq!(version, 1);
                Self::Hello(hello.expect("of a known version"))
            }
            Self::Greeting(_) => Self::Greeting(Greeting::decode(&payload).expect("a greeting")),
            Self::EnvReply(_) => Self::EnvReply(codec::decode(&payload).expect("a reply")),
            Self::Session(_) => Self::Session(codec::decode(&payload).expect("a session's frame")),
            Self::AdminRequest(_) => Self::AdminRequest(codec::decode(&payload).expect("a request")),
            Self::AdminReply(_) => Self::AdminReply(codec::decode(&payload).expect("a reply")),
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1")
}

fn messages() -> Vec<Message> {
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let hello = |kind| {
        Message::Hello(Hello {
            min_version: 1,
            build: "0.1.0".into(),
            kind,
            pid: 70_000,
            cwd: "/home/müller/project".into(),
            env: env(&[("MCP_CONDUCTOR_WORKSPACE", "/ws"), ("PATH", "/usr/bin:/bin"), ("HOME", "")]),
        })
    };
    let reject = |code| {
        let text = "what failed\nhint: the cure".into();
        Message::Greeting(Greeting::Reject { version: 1, code, text })
    };
    let welcome = Welcome { build: "0.1.0".into(), pid: 300, session: 1 << 40 };
    // Longer than one length byte holds, so that the length's layout is in it.
    let json = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "é".repeat(200));
    vec![
        hello(ClientKind::Shim),
        hello(ClientKind::Ctl),
        hello(ClientKind::Admin),
        Message::Greeting(Greeting::Welcome { version: 1, welcome }),
        Message::Greeting(Greeting::NeedEnv { version: 1, names: vec!["A".into(), "B_2".into()] }),
        reject(RejectCode::Version),
        reject(RejectCode::Malformed),
        reject(RejectCode::Draining),
        reject(RejectCode::Busy),
        reject(RejectCode::Forbidden),
        reject(RejectCode::Other(999)),
        Message::EnvReply(EnvReply { env: env(&[("A", "1"), ("Z", "ü\n")]) }),
        Message::Session(SessionFrame::Mcp(json.into_bytes())),
        Message::Session(SessionFrame::Goodbye { reason: "shutting down".into() }),
        Message::Session(SessionFrame::Draining),
        Message::Session(SessionFrame::Returned(br#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#.to_vec())),
        Message::AdminRequest(AdminRequest::Status),
        Message::AdminRequest(AdminRequest::Reload),
        Message::AdminRequest(AdminRequest::Stop),
        Message::AdminRequest(AdminRequest::Cancel { execution: "1-7".into() }),
        Message::AdminRequest(AdminRequest::Result { id: "r-9".into() }),
        Message::AdminRequest(AdminRequest::Operate { json: br#"{"operation":"packages-list"}"#.to_vec() }),
        Message::AdminReply(AdminReply::Json(br#"{"daemon":{"pid":1}}"#.to_vec())),
        Message::AdminReply(AdminReply::Done { text: "reloaded".into() }),
        Message::AdminReply(AdminReply::Failed { text: "no".into() }),
        Message::AdminReply(AdminReply::Text { text: "all of it".into() }),
    ]
}

#[test]
fn every_kept_frame_is_read_and_written_as_ever() {
    let mut known = BTreeSet::new();
    for message in messages() {
        let file = message.file();
        let kept = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(message.decode_alike(&kept), message, "{}", file.display());
        assert_eq!(message.encode(), kept, "{}", file.display());
        known.insert(file);
    }
    let kept: BTreeSet<_> =
        fs::read_dir(directory()).expect("there").map(|entry| entry.expect("one").path()).collect();
    assert_eq!(known, kept, "each file has its message and each message its file");
}

#[test]
#[ignore = "writes the files of new messages"]
fn write_new_frames() {
    for message in messages() {
        match OpenOptions::new().write(true).create_new(true).open(message.file()) {
            Ok(mut file) => file.write_all(&message.encode()).expect("writes"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists),
        }
    }
}
