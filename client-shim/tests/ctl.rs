//! `conductorctl` as its user meets it: the real program, over a real socket, against a daemon that is told what to do wrong.

#[path = "ctl/daemon.rs"]
mod daemon;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};

use conductor_protocol::{AdminReply, AdminRequest, ClientKind, Greeting, SessionFrame};
use daemon::{Home, Outcome, script, serve};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn result(value: &Value) -> Value {
    json!({
        "status": "success", "returnValue": value, "returnValueFormat": "json", "stdout": "out\n", "stderr": "err\n",
        "executionId": "1", "timings": { "total": 3.25, "prepare": 0.1, "queue": 0.1, "run": 0.6, "compute": 0.5 }
    })
}

#[test]
fn a_run_sends_what_was_asked_and_shows_what_came() {
    let arguments = [
        "run",
        "-e",
        "code",
        "--timeout",
        "1500ms",
        "--globals",
        r#"{"a":1,"b":2}"#,
        "--global",
        "b=[3]",
        "--dep",
        "npm:x",
        "--profile",
        "p",
    ];
    let outcome = Home::new().run_against(&arguments, script(|mut client| {
        let (hello, call) = client.until_call();
        assert_eq!((hello.kind, hello.env["MCP_CONDUCTOR_PROFILE"].as_str()), (ClientKind::Ctl, "p"));
        assert_eq!(call["params"]["name"], "run_deno_code");
        let expected =
            json!({ "deno_code": "code", "timeout": 1500.0, "globals": { "a": 1, "b": [3] }, "dependencies": ["npm:x"] });
        assert_eq!(call["params"]["arguments"], expected);
        let token = &call["params"]["_meta"]["progressToken"];
        let params = json!({ "progressToken": token, "progress": 1, "message": "fetching" });
        client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }));
        client.answer(&call, &result(&json!({ "ok": true })));
        assert_eq!(client.hear(), None, "the session ends with its one call");
    }));
    let expected = Outcome {
        code: Some(0),
        stdout: "out\n{\"ok\":true}\n".into(),
        stderr: "err\nok in 3.2 ms (worker 0.6 ms, queue 0.1 ms)\n".into(),
    };
    assert_eq!(outcome, expected);
}

#[test]
fn the_code_comes_from_a_file_or_from_stdin() {
    let home = Home::new();
    let file = home.dir.path().join("x.ts");
    fs::write(&file, "from a file").expect("writes");
    let outcome = home.run_against(
        &["run", "--json", file.to_str().expect("text")],
        script(|mut client| {
            let (_, call) = client.until_call();
            assert_eq!(call["params"]["arguments"], json!({ "deno_code": "from a file" }));
            client.answer(&call, &result(&json!(1)));
        }),
    );
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(serde_json::from_str::<Value>(&outcome.stdout).expect("JSON"), result(&json!(1)));

    let daemon = serve(
        &home.socket(),
        script(|mut client| {
            let (_, call) = client.until_call();
            assert_eq!(call["params"]["arguments"], json!({ "deno_code": "from a file" }));
            client.answer(&call, &result(&json!(1)));
        }),
    );
    let mut ctl = home.ctl(&["run", "--value", "--quiet", "-"]);
    let outcome: Outcome = ctl.stdin(File::open(&file).expect("opens")).output().expect("runs").into();
    daemon.join().expect("the daemon's expectations hold");
    assert_eq!(outcome, Outcome { code: Some(0), stdout: "1\n".into(), stderr: "out\nerr\n".into() });
}

#[test]
fn large_output_is_fetched_whole() {
    let arguments = ["run", "-q", "-e", "x"];
    let cut_run = |client: &mut daemon::Client| {
        let (_, call) = client.until_call();
        let mut result = result(&json!(0.1));
        result["stdout"] = json!("a…");
        result["truncated"] = json!({ "stdout": { "totalBytes": 5, "omittedBytes": 2 } });
        result["resources"] = json!([{ "uri": "conductor://result/1", "name": "stdout", "bytes": 5 }]);
        client.answer(&call, &result);
        let read = client.hear().expect("a message");
        assert_eq!(
            (&read["method"], &read["params"]["uri"]),
            (&json!("resources/read"), &json!("conductor://result/1"))
        );
        read
    };
    let whole = Home::new().run_against(
        &arguments,
        script(move |mut client| {
            let read = cut_run(&mut client);
            let result = json!({ "contents": [{ "uri": "conductor://result/1", "text": "a\nb\nc" }] });
            client.say(&json!({ "jsonrpc": "2.0", "id": read["id"], "result": result }));
        }),
    );
    let expected = Outcome { code: Some(0), stdout: "a\nb\nc\n0.1\n".into(), stderr: "err\n".into() };
    assert_eq!(whole, expected);
    let lost = Home::new().run_against(
        &arguments,
        script(move |mut client| {
            cut_run(&mut client);
        }),
    );
    assert_eq!(lost.stdout, "a…\n0.1\n");
    lost.fails(1, "incomplete: ");
}

#[test]
fn code_that_fails_is_exit_code_1() {
    for arguments in [&["run", "-e", "x"][..], &["run", "-e", "x", "--json"]] {
        let outcome = Home::new().run_against(
            arguments,
            script(|mut client| {
                let (_, call) = client.until_call();
                let error = json!({ "type": "timeout", "message": "too slow", "hint": "hurry" });
                client.answer(&call, &json!({ "status": "error", "error": error, "stdout": "so far" }));
            }),
        );
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stdout.contains("so far"), "{outcome:?}");
        let told = if arguments.len() == 3 { &outcome.stderr } else { &outcome.stdout };
        assert!(told.contains("too slow") && told.contains("hurry"), "{outcome:?}");
    }
}

#[test]
fn a_daemon_that_dies_in_a_run_is_told_of() {
    let died = Home::new().run_against(
        &["run", "-e", "x"],
        script(|mut client| {
            client.until_call();
        }),
    );
    died.fails(
        69,
        "the conductor daemon went away before it had answered\nhint: it may have done what it was asked",
    );
    let in_a_frame = Home::new().run_against(
        &["run", "-e", "x"],
        script(|mut client| {
            client.until_call();
            (&*client.stream()).write_all(&[9, 0, 0, 0, 1]).expect("writes");
        }),
    );
    in_a_frame.fails(69, "went away before it had answered");
    let goodbye = Home::new().run_against(
        &["run", "-e", "x"],
        script(|mut client| {
            client.until_call();
            client
                .connection
                .send(&SessionFrame::Goodbye { reason: "stopped by you".into() })
                .expect("writes");
        }),
    );
    goodbye.fails(69, "ended the session before it had answered: stopped by you");
    let in_the_handshake = Home::new().run_against(
        &["reload"],
        script(|mut client| {
            client.welcome(1);
            client.request();
        }),
    );
    in_the_handshake.fails(69, "went away before it had answered");
}

#[test]
fn garbage_is_a_protocol_mismatch() {
    type Garbage = fn(&mut daemon::Client, &Value);
    let cases: [(Garbage, &str); 4] = [
        (
            |client, _| (&*client.stream()).write_all(&[0xff; 64]).expect("writes"),
            "a frame that cannot be read",
        ),
        (
            |client, _| client.connection.send_payload(&[0x7f]).expect("writes"),
            "do not understand each other",
        ),
        (
            |client, _| client.connection.send(&SessionFrame::Mcp(b"{".to_vec())).expect("writes"),
            "something else than an MCP message",
        ),
        (
            |client, call| {
                client.say(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": [] } }))
            },
            "something else than a structured result",
        ),
    ];
    for (garbage, says) in cases {
        let outcome = Home::new().run_against(
            &["run", "-e", "x"],
            script(move |mut client| {
                let (_, call) = client.until_call();
                garbage(&mut client, &call);
            }),
        );
        outcome.fails(76, says);
        assert!(outcome.stderr.contains("hint:"), "{outcome:?}");
    }
    let refused = Home::new().run_against(
        &["run", "-e", "x"],
        script(|mut client| {
            let (_, call) = client.until_call();
            client.say(
                &json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": -32602, "message": "no" } }),
            );
        }),
    );
    refused.fails(70, "does not take the call: no (-32602)");
}

#[test]
fn another_protocol_is_told_in_the_daemons_words() {
    for arguments in [&["run", "-e", "x"][..], &["status"], &["reload"], &["stop"]] {
        let outcome = Home::new().run_against(
            arguments,
            script(|mut client| {
                client.hello();
                client.greet(&Greeting::version_mismatch(9, "9.9.9"));
            }),
        );
        outcome.fails(76, "hint: the daemon is older");
        assert_eq!(outcome.stderr.matches("hint:").count(), 1, "{outcome:?}");
    }
}

#[test]
fn status_shows_documents_of_other_builds() {
    let document = json!({ "daemon": { "pid": 7, "phase": "running", "later": 1 }, "later": { "a": [] } });
    let answer = |document: &Value| {
        let json = document.to_string().into_bytes();
        script(move |mut client| {
            assert_eq!(client.welcome(7).kind, ClientKind::Admin);
            assert_eq!(client.reply(&AdminReply::Json(json)), AdminRequest::Status);
        })
    };
    let json = Home::new().run_against(&["status", "--json"], answer(&document));
    assert_eq!(json.stdout, format!("{document:#}\n"));
    let human = Home::new().run_against(&["status"], answer(&document));
    assert_eq!(human.code, Some(0), "{human:?}");
    assert!(human.stdout.contains("running for 0s, pid 7"), "{human:?}");
    let wrong = Home::new().run_against(&["status"], answer(&json!({ "daemon": 1 })));
    wrong.fails(76, "something else than a status document");
}

#[test]
fn status_that_watches_goes_on_when_the_daemon_has_gone() {
    let home = Home::new();
    let daemon = serve(
        &home.socket(),
        script(|mut client| {
            client.welcome(7);
            for n in 1..=2 {
                client.reply(&AdminReply::Json(json!({ "n": n }).to_string().into_bytes()));
            }
        }),
    );
    let mut ctl = home.ctl(&["status", "--json", "--watch=1ms"]).spawn().expect("spawns");
    let mut lines = BufReader::new(ctl.stdout.take().expect("is piped")).lines();
    for expected in [json!({ "n": 1 }), json!({ "n": 2 }), json!({ "running": false })] {
        let line = lines.next().expect("goes on").expect("reads");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("one document a line"), expected);
    }
    daemon.join().expect("the daemon's expectations hold");
    drop(lines);
    assert!(ctl.wait().expect("ends with its reader").success());
}

#[test]
fn without_a_daemon_each_command_says_so() {
    let home = Home::new();
    let socket = home.socket().display().to_string();
    home.run(&["status"]).fails(69, &format!("no conductor daemon listens on {socket}\nhint: "));
    let json = home.run(&["status", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).expect("JSON"), json!({ "running": false }));
    assert_eq!(json.code, Some(69));
    home.run(&["reload"]).fails(69, "no conductor daemon listens");
    home.run(&["run", "-e", "1"]).fails(69, "CONDUCTOR_NO_AUTOSTART forbids to start one");
    home.run(&["run", "-e", "1", "--no-start"]).fails(69, "no conductor daemon listens");
    let stopped =
        Outcome { code: Some(0), stdout: "conductord is not running\n".into(), stderr: String::new() };
    assert_eq!(home.run(&["stop"]), stopped);
    assert!(home.run(&["version"]).stdout.contains("conductord    not running"));
    assert!(!home.socket().exists(), "nothing was started");
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // ended already: that is what is wanted
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn stop_waits_until_the_process_is_gone() {
    let mut process = Killed(Command::new("sleep").arg("1000").spawn().expect("spawns"));
    let pid = process.0.id();
    let outcome = Home::new().run_against(
        &["stop"],
        script(move |mut client| {
            client.welcome(pid);
            assert_eq!(client.reply(&AdminReply::Done { text: "going down".into() }), AdminRequest::Stop);
            assert_eq!(
                client.connection.receive_payload().expect("reads"),
                None,
                "an open connection would be waited for"
            );
            kill(Pid::from_raw(pid.try_into().expect("a pid")), Signal::SIGKILL).expect("kills");
        }),
    );
    assert!(process.0.try_wait().expect("is our child").is_some(), "it was gone before conductorctl ended");
    let expected = format!("conductord (pid {pid}) has stopped\n");
    assert_eq!(outcome, Outcome { code: Some(0), stdout: expected, stderr: String::new() });
}

#[test]
fn stop_waits_for_a_daemon_that_is_going_down_already() {
    let turn_away = |mut client: daemon::Client| {
        client.hello();
        let code = conductor_protocol::RejectCode::Draining;
        client.greet(&Greeting::Reject { version: 1, code, text: "the daemon is going down".into() });
    };
    let outcome = Home::new().run_against(&["stop"], vec![Box::new(turn_away), Box::new(turn_away)]);
    assert_eq!(outcome.stdout, "conductord is not running\n", "{outcome:?}");
}

#[test]
fn a_call_is_ended_and_a_kept_result_read_by_id() {
    let outcome = Home::new().run_against(
        &["cancel", "e-1"],
        script(|mut client| {
            client.welcome(1);
            let request = client.reply(&AdminReply::Done { text: "e-1 was cancelled".into() });
            assert_eq!(request, AdminRequest::Cancel { execution: "e-1".into() });
        }),
    );
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "e-1 was cancelled\n"));
    for id in ["r-1", "conductor://result/r-1"] {
        let outcome = Home::new().run_against(
            &["result", id],
            script(|mut client| {
                client.welcome(1);
                let request = client.reply(&AdminReply::Text { text: "[1]".into() });
                assert_eq!(request, AdminRequest::Result { id: "r-1".into() });
            }),
        );
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "[1]"));
    }
}

#[test]
fn the_daemons_refusal_is_exit_code_1() {
    let text = "the configuration is wrong\nhint: repair it";
    let outcome = Home::new().run_against(
        &["reload"],
        script(move |mut client| {
            client.welcome(1);
            assert_eq!(client.reply(&AdminReply::Failed { text: text.into() }), AdminRequest::Reload);
        }),
    );
    outcome.fails(1, text);
}

#[test]
fn wrong_command_lines_are_exit_code_64() {
    let home = Home::new();
    for (arguments, says) in [
        (&[][..], "Usage: conductorctl"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["run", "-e", "1", "file.ts"], "cannot be used with"),
        (&["run", "-e", "1", "--timeout", "0s"], "it must be more than zero"),
        (&["run", "-e", "1", "--timeout", "500"], "write it like 500ms"),
        (&["run", "-e", "1", "--global", "a=b"], "a string needs quotes"),
        (&["run", "-e", "1", "--globals", "[]"], "write it like {\"NAME\": VALUE}"),
        (&["status", "--watch=0s"], "it must be more than zero"),
    ] {
        home.run(arguments).fails(64, says);
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["completions", "bash"]] {
        let outcome = home.run(arguments);
        assert!(outcome.code == Some(0) && !outcome.stdout.is_empty(), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn code_that_cannot_be_read_is_exit_code_66() {
    let home = Home::new();
    let path = |name: &str| home.dir.path().join(name).display().to_string();
    fs::write(path("latin1.ts"), b"\xe9").expect("writes");
    home.run(&["run", &path("none.ts")]).fails(66, "there is no file");
    home.run(&["run", &path("")]).fails(66, "is a directory");
    home.run(&["run", &path("latin1.ts")])
        .fails(66, "is not UTF-8 text: byte 0 cannot be read\nhint: save the file");
    home.run(&["run", "/dev/zero"]).fails(66, "is longer than the limit");
}

#[test]
fn a_reader_that_has_left_is_no_error_and_a_full_disk_is_one() {
    let home = Home::new();
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let outcome: Outcome = home.ctl(&["completions", "zsh"]).stdout(writer).output().expect("runs").into();
    assert_eq!(outcome, Outcome { code: Some(0), stdout: String::new(), stderr: String::new() });
    let full = File::options().write(true).open("/dev/full").expect("opens");
    let outcome: Outcome = home.ctl(&["completions", "zsh"]).stdout(full).output().expect("runs").into();
    outcome.fails(74, "cannot write the output: No space left");
}

#[test]
fn a_signal_closes_the_session() {
    let outcome = Home::new().run_against(
        &["run", "-e", "x"],
        script(|mut client| {
            let (hello, _) = client.until_call();
            // Not an interrupt, which whoever runs the tests may have had ignored.
            kill(Pid::from_raw(hello.pid.try_into().expect("a pid")), Signal::SIGTERM).expect("kills");
            assert_eq!(client.hear(), None);
        }),
    );
    assert_eq!(outcome.code, None, "ended by the signal");
}

#[test]
fn the_doctor_names_each_fault_with_its_cure() {
    let home = Home::new();
    let program = home.dir.path().join("conductord");
    let text = "#!/bin/sh\n[ \"$1\" = --version ] && exec echo conductord 0.0.9\n\
                echo 'conductord: it is wrong\nhint: repair it' >&2\nexit 78\n";
    let draft = home.dir.path().join("draft");
    fs::write(&draft, text).expect("writes");
    // By a process of its own: what another test starts just then would hold the script open for writing, and Linux executes no
    // such file.
    let installed = Command::new("install").arg("-m700").arg(&draft).arg(&program).status();
    assert!(installed.expect("install starts").success());
    let open = home.dir.path().join(".cache/conductor");
    fs::create_dir_all(&open).expect("makes");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut ctl = home.ctl(&["doctor", "--json", "--no-start"]);
    ctl.env("CONDUCTOR_DAEMON", &program).env("CONDUCTOR_DENO", "/nonexistent/deno");
    let outcome: Outcome = ctl.output().expect("runs").into();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome:?}");
    let document: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(document["ok"], false);
    let checks = document["checks"].as_array().expect("a list");
    for (name, verdict, fix) in [
        ("conductord", "warn", "all of one build"),
        ("cache dir", "fail", "chmod go-w"),
        ("configuration", "fail", "repair it"),
        ("deno", "fail", "give the path of a Deno executable"),
        ("daemon", "warn", "--no-start"),
    ] {
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {outcome:?}"));
        assert_eq!(check["verdict"], verdict, "{check}");
        assert!(check["fix"].as_str().expect("a cure").contains(fix), "{check}");
    }
}

#[test]
fn the_doctor_runs_a_program() {
    let home = Home::new();
    let look = |client: daemon::Client| drop(client);
    let run = |value: i32| {
        move |mut client: daemon::Client| {
            let (_, call) = client.until_call();
            let mut result = result(&json!(value));
            result["stdout"] = json!("ran\n");
            client.answer(&call, &result);
        }
    };
    let status = |mut client: daemon::Client| {
        client.welcome(1);
        let deno = json!({ "version": "9.9.9", "path": "/the/deno", "origin": "the configuration" });
        let document = json!({ "deno": deno, "warnings": ["loud"] });
        client.reply(&AdminReply::Json(document.to_string().into_bytes()));
    };
    for (value, verdict) in [(42, "ok  "), (41, "FAIL")] {
        let scripts: Vec<daemon::Script> = vec![Box::new(look), Box::new(run(value)), Box::new(status)];
        let outcome = home.run_against(&["doctor"], scripts);
        let line =
            |name: &str| outcome.stdout.lines().find(|line| line[6..].starts_with(name)).unwrap_or_default();
        assert!(line("execution").starts_with(verdict), "{outcome:?}");
        assert!(
            line("daemon says").starts_with("warn") && line("daemon says").ends_with("loud"),
            "{outcome:?}"
        );
        assert!(line("deno ").contains("9.9.9, /the/deno (from the configuration)"), "{outcome:?}");
    }
}
