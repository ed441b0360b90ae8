//! Daemons that go away, refuse, stammer or talk nonsense.

use conductor_protocol::handshake::Welcome;
use conductor_protocol::{Greeting, RejectCode, SessionFrame, codec, frame};
use serde_json::json;

use crate::daemon::Daemon;
use crate::ide::Ide;
use crate::{call, error_of, initialize, result, session, taken_up};

#[test]
fn a_daemon_that_dies_within_a_frame_costs_only_what_it_was_doing() {
    let (daemon, mut ide, mut peer) = session();
    for id in [1, 2] {
        ide.send(&call(id));
        assert_eq!(peer.receive(), call(id));
    }
    peer.send(&result(1));
    let half = frame::encode(&SessionFrame::encode_mcp(result(2).to_string().as_bytes()).expect("encodes"));
    peer.send_raw(&half.expect("fits")[..20]);
    drop(peer);
    assert_eq!(ide.receive(), result(1), "complete frames are forwarded");
    let lost = ide.receive();
    let (id, code, text) = error_of(&lost);
    assert_eq!((id, code), (&json!(2), -32001));
    assert!(text.contains("may have run and was not retried"), "{text}");

    let mut peer = taken_up(&daemon);
    ide.send(&call(2));
    assert_eq!(peer.receive(), call(2), "the id is free again; the lost call was not repeated");
    peer.send(&result(2));
    assert_eq!(ide.receive(), result(2));
}

#[test]
fn a_goodbye_is_the_end_of_a_link_not_of_the_session() {
    let (daemon, mut ide, mut peer) = session();
    ide.send(&json!({"id": "l", "method": "tools/list"}));
    ide.send(&call("c"));
    peer.receive();
    peer.receive();
    peer.0.send(&SessionFrame::Goodbye { reason: "upgrade".into() }).expect("writes");
    assert_eq!(error_of(&ide.receive()).0, "c");
    let mut next = taken_up(&daemon);
    assert_eq!(next.receive()["method"], "tools/list", "a safe request is sent again");
    next.send(&result("l"));
    assert_eq!(ide.receive(), result("l"));
    // Nothing is written to the old link any more.
    peer.sees_the_end();
}

#[test]
fn a_daemon_that_goes_down_in_good_order_costs_no_request() {
    let (daemon, mut ide, mut peer) = session();
    for id in [1, 2] {
        ide.send(&call(id));
        assert_eq!(peer.receive(), call(id));
    }
    peer.0.send(&SessionFrame::Draining).expect("writes");
    // The shim says that it sends no more, and still reads.
    peer.sees_the_end();
    ide.send(&call(3));
    peer.0.send(&SessionFrame::Returned(call(2).to_string().into_bytes())).expect("writes");
    peer.send(&result(1));
    assert_eq!(ide.receive(), result(1), "what it has taken it answers");
    peer.0.send(&SessionFrame::Goodbye { reason: "upgrade".into() }).expect("writes");
    let mut next = taken_up(&daemon);
    for id in [2, 3] {
        assert_eq!(next.receive(), call(id), "in the order in which they came");
        next.send(&result(id));
        assert_eq!(ide.receive(), result(id));
    }
}

#[test]
fn daemons_may_die_again_and_again_while_they_take_the_session_up() {
    let (daemon, mut ide, peer) = session();
    drop(peer);
    drop(daemon.accept_raw());
    drop(daemon.accept());
    let mut third = daemon.accept();
    assert_eq!(third.receive()["method"], "initialize");
    drop(third);
    ide.send(&call(1));
    let mut peer = taken_up(&daemon);
    assert_eq!(peer.receive(), call(1), "sent while there was no daemon");
    peer.send(&result(1));
    assert_eq!(ide.receive(), result(1));
}

#[test]
fn nonsense_from_the_daemon_never_reaches_the_ide() {
    let (daemon, mut ide, peer) = session();
    let mut peer = Some(peer);
    let not_utf8 = SessionFrame::Mcp(b"{\"method\":\"\xff\"}".to_vec());
    let frame_of = |payload: &[u8]| frame::encode(payload).expect("fits");
    for nonsense in [
        u32::MAX.to_le_bytes().to_vec(),
        frame_of(b"\xff\xff\xff"),
        frame_of(&SessionFrame::encode_mcp(b"no JSON").expect("encodes")),
        frame_of(&codec::encode(&not_utf8).expect("encodes")),
    ] {
        peer.take().expect("a peer").send_raw(&nonsense);
        peer = Some(taken_up(&daemon));
    }
    let mut peer = peer.expect("a peer");
    ide.send(&call(1));
    assert_eq!(peer.receive(), call(1));
    peer.send(&result(1));
    assert_eq!(ide.receive(), result(1), "the first line since the handshake");
}

#[test]
fn a_version_mismatch_is_told_in_words() {
    let daemon = Daemon::listen();
    let mut ide = Ide::start(&daemon.socket, &[]);
    ide.send(&initialize());
    let reject = || {
        let (peer, _) = daemon.accept_hello();
        peer.greet(&Greeting::version_mismatch(99, "9.9.9"));
    };
    reject();
    // The first attempt may have been over before the request came; then it made for another one.
    let mut answered = None;
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| ide.receive());
        while !answer.is_finished() {
            if daemon.has_caller() {
                reject();
            }
            std::thread::yield_now();
        }
        answered = Some(answer.join().expect("an answer"));
    });
    let answer = answered.expect("an answer");
    let (id, code, text) = error_of(&answer);
    assert_eq!((id, code), (&json!(0), -32000));
    assert!(text.contains("conductor protocol 99") && text.contains("hint: the daemon is older"), "{text}");
    // The user has updated the daemon: the same shim serves.
    ide.send(&initialize());
    let mut peer = daemon.accept();
    assert_eq!(peer.receive(), initialize());
    peer.send(&result(0));
    assert_eq!(ide.receive(), result(0));
}

#[test]
fn a_draining_daemon_is_asked_again() {
    let daemon = Daemon::listen();
    let mut ide = Ide::start(&daemon.socket, &[]);
    for _ in 0..3 {
        let (peer, _) = daemon.accept_hello();
        peer.greet(&Greeting::Reject { version: 1, code: RejectCode::Draining, text: "going down".into() });
    }
    let mut peer = daemon.accept();
    ide.send(&initialize());
    assert_eq!(peer.receive(), initialize());
}

#[test]
fn a_stammering_daemon_is_understood() {
    let daemon = Daemon::listen();
    let mut ide = Ide::start(&daemon.socket, &[]);
    let (mut peer, _) = daemon.accept_hello();
    let welcome = Welcome { build: "b".into(), pid: 1, session: 1 };
    let greeting = Greeting::Welcome { version: 1, welcome }.encode().expect("encodes");
    let message = SessionFrame::encode_mcp(result(0).to_string().as_bytes()).expect("encodes");
    for byte in frame::encode(&greeting).expect("fits") {
        peer.send_raw(&[byte]);
    }
    ide.send(&initialize());
    assert_eq!(peer.receive(), initialize());
    for byte in frame::encode(&message).expect("fits") {
        peer.send_raw(&[byte]);
    }
    assert_eq!(ide.receive(), result(0));
}

#[test]
fn without_a_daemon_every_request_is_answered_until_there_is_one() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("conductord.sock");
    let mut ide = Ide::start(&socket, &[]);
    for id in 0..3 {
        ide.send(&json!({"id": id, "method": "initialize"}));
        let answer = ide.receive();
        let (answered, code, text) = error_of(&answer);
        assert_eq!((answered, code), (&json!(id), -32000));
        assert!(text.contains("CONDUCTOR_NO_AUTOSTART") && text.contains("hint: start it"), "{text}");
    }
    let daemon = Daemon::listen_on(&socket);
    ide.send(&initialize());
    let mut peer = daemon.accept();
    assert_eq!(peer.receive(), initialize());
    peer.send(&result(0));
    assert_eq!(ide.receive(), result(0));
}

#[test]
fn late_answers_of_the_ide_do_not_reach_another_daemon() {
    let (daemon, mut ide, peer) = session();
    let question = json!({"id": 0, "method": "elicitation/create"});
    peer.send(&question);
    assert_eq!(ide.receive(), question);
    drop(peer);
    let withdrawn = ide.receive();
    assert_eq!(
        (&withdrawn["method"], &withdrawn["params"]["requestId"]),
        (&json!("notifications/cancelled"), &json!(0))
    );
    let mut peer = taken_up(&daemon);
    peer.send(&json!({"id": 0, "method": "roots/list"}));
    let alias = ide.receive()["id"].clone();
    ide.send(&json!({"id": 0, "result": "late"}));
    ide.send(&json!({"id": alias, "result": "roots"}));
    assert_eq!(peer.receive(), json!({"id": 0, "result": "roots"}));
}
