//! The daemon's life: how it starts, who may start it, what a signal does, how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::{DEADLINE, Daemon, Home, Operator, Shim, wait_for};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::servers;

/// Waits until this many calls run.
fn wait_until_busy(daemon: &Daemon, calls: u64) {
    daemon.wait_for_status("the calls run", |status| {
        status.pool.profiles.iter().map(|profile| profile.busy).sum::<u64>() == calls
    });
}

fn wait_until_draining(home: &Home) {
    wait_for("the daemon no longer listens", DEADLINE, || {
        if home.socket().exists() { Err("the socket is there".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn sigterm_lets_running_calls_finish_and_leaves_new_ones_to_the_next_daemon() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let home = Home::new();
        let mut daemon = Daemon::start(&home);
        let shim = Shim::session_with(&home, |command| {
            command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-read={}", home.workspace().display()));
        });
        let gate = home.workspace().join("gate");
        let code = "const is_open = () => { try { return Deno.statSync(gate).isFile } catch { return false } };\n\
                    while (!is_open()) await new Promise((done) => setTimeout(done, 20));\n'finished'";
        let running = shim.start_call(json!({ "deno_code": code, "globals": { "gate": gate } }));
        wait_until_busy(&daemon, 1);
        daemon.signal(signal);
        wait_until_draining(&home);
        let new = shim.start_call(json!({ "deno_code": "'new'" }));
        assert!(daemon.ended().is_none(), "it waits for the running call");
        let _next = Daemon::start(&home);
        fs::write(gate, "").expect("writes");
        assert_eq!(shim.answer(running).value(), "finished");
        assert_eq!(shim.answer(new).value(), "new");
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(shim.call("'next'").value(), "next");
    }
}

#[test]
fn an_idle_daemon_goes_down_at_once() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("1").value(), 1);
    let started = Instant::now();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_second_sigterm_cuts_running_calls_off() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let running =
        shim.start_call(json!({ "deno_code": "await new Promise((done) => setTimeout(done, 60_000))" }));
    wait_until_busy(&daemon, 1);
    daemon.signal(Signal::SIGTERM);
    wait_until_draining(&home);
    assert!(daemon.ended().is_none(), "it waits for the running call");
    let started = Instant::now();
    daemon.signal(Signal::SIGTERM);
    let status = daemon.wait();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let answer = shim.answer_within(running, DEADLINE);
    assert!(answer.is_rpc_error() || answer.error_type() == "cancelled", "{}", answer.message);
}

#[test]
fn an_operator_can_stop_it() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let reply = Operator::ask_once(&home.socket(), &AdminRequest::Stop).expect("is answered");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_reload_applies_to_the_next_call_and_not_to_the_running_one() {
    let home = Home::new();
    home.configure("[profiles.default]\nmax-timeout = \"20s\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let code = "Deno.permissions.querySync({ name: 'net', host: 'example.com' }).state";
    assert_eq!(shim.call(code).value(), "prompt");
    wait_until_busy(&daemon, 0);
    let slow = format!("await new Promise((done) => setTimeout(done, 1000)); {code}");
    let running = shim.start_call(json!({ "deno_code": slow }));
    wait_until_busy(&daemon, 1);
    home.configure("[profiles.default]\nrun-args = \"allow-net=example.com\"\n");
    daemon.signal(Signal::SIGHUP);
    wait_for("the configuration is read again", DEADLINE, || {
        let logged = home.logged("the configuration was read again").len();
        if logged >= 1 { Ok(()) } else { Err(format!("{logged} times")) }
    });
    assert_eq!(shim.call(code).value(), "granted");
    assert_eq!(shim.answer(running).value(), "prompt");
    // The workers of the old profile are of no more use.
    daemon.wait_for_status("one profile is held", |status| {
        status.pool.profiles.iter().filter(|profile| profile.sessions > 0).count() == 1
    });
}

#[test]
fn a_broken_configuration_keeps_the_one_before_and_shows() {
    let home = Home::new();
    home.configure("[profiles.default]\nrun-args = \"allow-net=example.com\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    for (broken, says) in [
        ("denno = 1\n", "unknown key `denno`"),
        ("[pool]\nmax-workers = 0\n", "max-workers"),
        ("[profiles", "TOML"),
    ] {
        home.configure(broken);
        let reply = Operator::ask_once(&home.socket(), &AdminRequest::Reload).expect("is answered");
        let AdminReply::Failed { text } = reply else { panic!("{broken}: {reply:?}") };
        assert!(text.contains(says), "{broken}: {text}");
        let warnings = daemon.status().warnings.join("\n");
        assert!(warnings.contains(says), "{broken}: {warnings}");
        let code = "Deno.permissions.querySync({ name: 'net', host: 'example.com' }).state";
        assert_eq!(shim.call(code).value(), "granted", "{broken}");
    }
    home.configure("");
    let reply = Operator::ask_once(&home.socket(), &AdminRequest::Reload).expect("is answered");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    assert!(daemon.status().warnings.is_empty(), "{:?}", daemon.status().warnings);
}

#[test]
fn a_daemon_with_a_broken_configuration_tells_it_to_every_caller() {
    let home = Home::new();
    home.configure("[pool]\nidle-per-profil = 1\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    for _ in 0..2 {
        let answer = shim.call("1");
        assert_eq!(answer.error_type(), "configuration");
        assert!(answer.error_message().contains("idle-per-profil"), "{}", answer.error());
        assert!(answer.error_message().contains("config.toml"), "{}", answer.error());
    }
    let status = daemon.status();
    assert!(
        status.warnings.iter().any(|warning| warning.contains("idle-per-profil")),
        "{:?}",
        status.warnings
    );
    home.configure("");
    daemon.signal(Signal::SIGHUP);
    wait_for("calls work", DEADLINE, || {
        let answer = shim.call("2");
        if answer.structured()["status"] == "success" { Ok(()) } else { Err(answer.text().to_owned()) }
    });
}

#[test]
fn there_is_one_daemon_for_a_socket() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let second = Daemon::run_to_end(&home, |_| {});
    assert_eq!(second.status.code(), Some(75));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another daemon serves"), "{words}");
    let shim = Shim::session(&home);
    assert_eq!(shim.call("'the first still serves'").value(), "the first still serves");
    drop(daemon);
}

#[test]
fn a_place_that_is_not_safe_is_refused() {
    let home = Home::new();
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let refused = Daemon::run_to_end(&home, |_| {});
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(71), "{words}");
    assert!(words.contains("can be entered by others") && words.contains("hint: chmod 700"), "{words}");
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700)).expect("sets the mode");

    fs::write(home.socket(), "precious").expect("writes");
    let refused = Daemon::run_to_end(&home, |_| {});
    assert_eq!(refused.status.code(), Some(71));
    assert_eq!(fs::read_to_string(home.socket()).expect("is there"), "precious");
    fs::remove_file(home.socket()).expect("removes");

    home.configure("");
    fs::set_permissions(home.config_file(), fs::Permissions::from_mode(0o666)).expect("sets the mode");
    let _daemon = Daemon::start(&home);
    let answer = Shim::session(&home).call("1");
    assert_eq!(answer.error_type(), "configuration");
    assert!(answer.error_message().contains("can be written by others"), "{}", answer.error());
}

#[test]
fn a_wrong_command_line_or_configuration_has_its_exit_code() {
    let home = Home::new();
    let usage = Daemon::run_to_end(&home, |command| {
        command.arg("--no-such-option");
    });
    assert_eq!(usage.status.code(), Some(64));
    home.configure("denno = 1\n");
    let check = Daemon::run_to_end(&home, |command| {
        command.arg("--check");
    });
    assert_eq!(check.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&check.stderr).contains("unknown key `denno`"));
    home.configure("[pool]\nidle-per-profile = 1\n");
    let check = Daemon::run_to_end(&home, |command| {
        command.arg("--check");
    });
    assert_eq!(check.status.code(), Some(0));
}

#[test]
fn what_a_daemon_was_started_with_by_mistake_reaches_no_server() {
    let home = Home::new();
    let (leaked, noted) = (home.path("leaked"), home.path("descriptors"));
    let mut server = servers::mirror(&home, json!({}));
    // Notes what it was started with, and becomes the server.
    let mut args =
        vec![json!("-c"), json!(format!("ls -l /proc/$$/fd > {}; exec \"$0\" \"$@\"", noted.display()))];
    args.push(server["command"].take());
    args.append(server["args"].as_array_mut().expect("a list"));
    (server["command"], server["args"]) = (json!("/bin/sh"), json!(args));
    servers::configure(&home, &json!({ "mirror": server }));
    let file = fs::File::create(&leaked).expect("makes a file");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("it is open");
    let shown = Command::new("/bin/sh").args(["-c", "ls -l /proc/$$/fd"]).output().expect("a shell starts");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("leaked"), "what is started here gets it");
    let _daemon = Daemon::start(&home);
    drop(file);
    let answer = Shim::session(&home).call("(await mcp.mirror.meta({})) !== undefined");
    assert_eq!(answer.value(), true);
    let noted = fs::read_to_string(noted).expect("the server has noted it");
    assert!(noted.contains(" 2 -> ") && !noted.contains("leaked"), "{noted}");
}

#[test]
fn it_ends_by_itself_when_nobody_is_connected_long_enough() {
    let home = Home::new();
    let mut daemon = Daemon::start_with(&home, |command| {
        // Longer than a machine needs to start a client.
        command.args(["--idle-exit", "2s"]);
    });
    let mut shim = Shim::session(&home);
    let slow = shim
        .call("await new Promise((done) => setTimeout(done, 3000)); 'it stays while somebody is connected'");
    assert_eq!(slow.value(), "it stays while somebody is connected");
    assert!(daemon.ended().is_none());
    assert!(shim.end().success());
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!home.socket().exists());
}
