//! Bytes through, unchanged and unhindered, and what is done with input that is no message.

use std::io::Write as _;

use conductor_protocol::{ClientKind, Greeting, MAX_MESSAGE_BYTES, SessionFrame};
use serde_json::json;

use crate::{Daemon, Ide, call, error_of, initialize, result, session};

#[test]
fn introduces_itself_and_forwards_messages_byte_by_byte() {
    let daemon = Daemon::listen();
    let env = [("MCP_CONDUCTOR_PROFILE", "p"), ("SECRET", "s"), ("ASKED", "a"), ("PATH", "/bin")];
    let mut ide = Ide::start(&daemon.socket, &env);
    let (mut peer, hello) = daemon.accept_hello();
    assert_eq!((hello.kind, hello.pid), (ClientKind::Shim, ide.pid()));
    assert_eq!(hello.cwd, std::env::current_dir().expect("there").display().to_string());
    assert_eq!(hello.env.keys().collect::<Vec<_>>(), ["MCP_CONDUCTOR_PROFILE", "PATH"]);
    peer.greet(&Greeting::NeedEnv { version: 1, names: vec!["ASKED".into()] });
    let reply = peer.0.receive::<conductor_protocol::EnvReply>().expect("a frame").expect("a reply");
    assert_eq!(reply.env.get("ASKED").map(String::as_str), Some("a"));
    peer.welcome();

    let spelled = r#" { "id" : 1e0, "method":"x","params":{"b":1,"a":"\u0041é"}, "method" : "tools/call" }"#;
    ide.write(format!("\n{spelled}\r\n").as_bytes());
    assert_eq!(String::from_utf8(peer.receive_bytes()).expect("UTF-8").trim_end(), spelled);
    let answer = r#"{"z":1,"id":1,"result":{"b":"é","a":1.50}}"#;
    peer.send_text(answer);
    assert_eq!(ide.receive_line().as_deref(), Some(&*format!("{answer}\n")));
    peer.send_text("{\"id\":7,\n\"method\":\"roots/list\"\r\n}");
    assert_eq!(ide.receive_line().expect("one line"), "{\"id\":7, \"method\":\"roots/list\"  }\n");
}

#[test]
fn at_the_end_of_the_input_forwards_what_is_still_answered() {
    let (_daemon, mut ide, mut peer) = session();
    // The last line has no line break.
    ide.write(call(1).to_string().as_bytes());
    ide.close_input();
    assert_eq!(peer.receive(), call(1));
    peer.sees_the_end();
    peer.send(&result(1));
    drop(peer);
    assert_eq!(ide.receive(), result(1));
    assert_eq!(ide.receive_line(), None);
    let (status, words) = ide.wait();
    assert!(status.success());
    assert_eq!(words, "");
}

#[test]
fn what_the_daemon_leaves_unanswered_at_the_end_is_answered() {
    let (_daemon, mut ide, mut peer) = session();
    ide.send(&call(1));
    ide.send(&json!({"id": 2, "method": "tools/list"}));
    ide.close_input();
    peer.receive();
    peer.receive();
    peer.sees_the_end();
    drop(peer);
    assert_eq!(error_of(&ide.receive()).1, -32001);
    assert_eq!(ide.receive()["id"], 2);
    assert_eq!(ide.receive_line(), None);
    assert!(ide.wait().0.success());
}

#[test]
fn ends_quietly_when_nobody_reads_its_output() {
    let (_daemon, mut ide, peer) = session();
    ide.close_output();
    // Again and again: what another test starts just then has the pipe, too, until its exec.
    let message = json!({"method": "notifications/tools/list_changed"}).to_string();
    while peer.0.send(&SessionFrame::Mcp(message.clone().into())).is_ok() {}
    let (status, words) = ide.wait();
    assert!(status.success());
    assert_eq!(words, "");
}

#[test]
fn input_that_is_no_message_is_answered_and_the_session_lives_on() {
    let (_daemon, mut ide, mut peer) = session();
    ide.write(b"\xff\xfe\n{\"id\":1,\n[{\"id\":1,\"method\":\"ping\"}]\n\"text\"\n{\"id\":2,\"method\":\"\\ud800\"}\n");
    let answers: Vec<_> = (0..5).map(|_| ide.receive()).collect();
    let told: Vec<_> = answers.iter().map(error_of).map(|(id, code, _)| (id.clone(), code)).collect();
    let null = || json!(null);
    assert_eq!(
        told,
        [(null(), -32700), (null(), -32700), (null(), -32600), (null(), -32600), (json!(2), -32600)]
    );
    assert!(error_of(&answers[2]).2.contains("batches are not supported"));
    ide.send(&call(3));
    assert_eq!(peer.receive(), call(3));
}

#[test]
fn a_line_of_64_mb_is_answered_and_never_held() {
    let (_daemon, mut ide, mut peer) = session();
    ide.write(b"{\"jsonrpc\":\"2.0\",\"params\":{\"code\":\"");
    let filler = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        ide.write(&filler);
    }
    ide.write(b"\"},\"method\":\"tools/call\",\"id\":\"big\"}\n");
    let answer = ide.receive();
    let (id, code, text) = error_of(&answer);
    assert_eq!((id, code), (&json!("big"), -32600));
    assert!(text.contains("67108935 bytes") && text.contains("16777216 bytes"), "{text}");
    let peak = ide.peak_memory_kib();
    assert!(peak < 48 * 1024, "{peak} KiB for a limit of {} KiB", MAX_MESSAGE_BYTES / 1024);
    ide.send(&call(1));
    assert_eq!(peer.receive(), call(1), "nothing of the long line was forwarded");
}

#[test]
fn the_largest_message_passes_both_ways() {
    let (_daemon, mut ide, mut peer) = session();
    let mut message = call(1);
    message["params"]["code"] = "".into();
    let room = MAX_MESSAGE_BYTES - message.to_string().len();
    message["params"]["code"] = "y".repeat(room).into();
    let sent = message.clone();
    let mut input = ide.take_input();
    let writer =
        std::thread::spawn(move || writeln!(input, "{sent}").map(|()| input).expect("the shim reads"));
    let received = peer.receive();
    assert!(received == message);
    let _input = writer.join().expect("written");
    let sender = std::thread::spawn(move || {
        peer.send(&json!({"id": 1, "result": message["params"]}));
        peer
    });
    let answer = ide.receive();
    assert_eq!(answer["result"]["code"].as_str().map(str::len), Some(room));
    sender.join().expect("sent");
}

/// Both directions are full at times, never at the cost of the other one.
#[test]
fn one_full_direction_does_not_stop_the_other() {
    let (_daemon, mut ide, mut peer) = session();
    let text = "t".repeat(100_000);
    let notification = json!({"method": "notifications/message", "params": {"data": text}});
    // More than all the buffers between daemon and IDE; the IDE reads nothing yet.
    let writer = peer.0.writer();
    let flood = notification.clone();
    let daemon = std::thread::spawn(move || {
        for _ in 0..50 {
            let frame = SessionFrame::encode_mcp(flood.to_string().as_bytes()).expect("encodes");
            (&*writer)
                .write_all(&conductor_protocol::frame::encode(&frame).expect("fits"))
                .expect("the shim lives");
        }
    });
    for id in 1..50 {
        let request = json!({"id": id, "method": "tools/call", "params": text});
        ide.send(&request);
        assert_eq!(peer.receive(), request);
    }
    for _ in 0..50 {
        assert_eq!(ide.receive(), notification);
    }
    daemon.join().expect("all is sent");

    // The daemon reads nothing now; the IDE's input is stuck, its output is not.
    let mut input = ide.take_input();
    let request = json!({"method": "notifications/progress", "params": text});
    let flood = request.clone();
    let client = std::thread::spawn(move || {
        for _ in 0..50 {
            writeln!(input, "{flood}").expect("the shim lives");
        }
        input
    });
    for id in 1..50 {
        peer.send(&result(id));
        assert_eq!(ide.receive(), result(id));
    }
    for _ in 0..50 {
        assert_eq!(peer.receive(), request);
    }
    client.join().expect("all is sent");
}

#[test]
fn refuses_arguments_it_does_not_know() {
    for args in [&["--nonsense"][..], &["--socket"], &["x"]] {
        let mut command = Ide::command();
        command.args(args);
        let (status, words) = Ide::run(command).wait();
        assert_eq!(status.code(), Some(64), "{args:?}");
        assert!(words.contains("hint:"), "{words}");
    }
    let mut command = Ide::command();
    command.arg("--version");
    let mut ide = Ide::run(command);
    assert_eq!(ide.receive_line(), Some(concat!("conductor-shim ", env!("CARGO_PKG_VERSION"), "\n").into()));
    assert!(ide.wait().0.success());
}

#[test]
fn initialize_is_written_before_the_daemon_is_there() {
    let daemon = Daemon::listen();
    let mut ide = Ide::start(&daemon.socket, &[]);
    ide.send(&initialize());
    ide.send(&call(1));
    let mut peer = daemon.accept();
    assert_eq!(peer.receive(), initialize());
    assert_eq!(peer.receive(), call(1));
}

/// The flag belongs to the pipe: whoever started the shim may have set it.
#[test]
fn pipes_may_be_non_blocking() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let daemon = Daemon::listen();
    let mut command = Ide::command();
    command.arg("--socket").arg(&daemon.socket);
    let mut ide = Ide::run_on(command, |shims_end| {
        fcntl(shims_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
    });
    let mut peer = daemon.accept();
    ide.send(&initialize());
    assert_eq!(peer.receive(), initialize());
    let mut large = result(0);
    large["result"]["text"] = "x".repeat(1 << 20).into();
    peer.send(&large);
    // Nobody reads until the pipe must be full: the shim takes the next request meanwhile.
    ide.send(&call(1));
    assert_eq!(peer.receive(), call(1));
    assert_eq!(ide.receive(), large);
}
