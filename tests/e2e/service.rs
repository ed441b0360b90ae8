//! Under a service manager: activation, readiness, the watchdog, and restarts that cost no call.
//!
//! The tests speak systemd's protocols themselves, so they run where no manager does.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::{DEADLINE, Daemon, Home, Manager, Operator, Process, Shim, binaries, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Short, so that a test sees several rounds; long enough for a worker to boot on a loaded machine.
const WATCHDOG: Duration = Duration::from_secs(8);

#[track_caller]
fn wait_for_news(manager: &Manager, what: &str, is_so: impl Fn(&[String]) -> bool) {
    wait_for(what, DEADLINE, || {
        let heard = manager.heard();
        if is_so(&heard) { Ok(()) } else { Err(format!("{heard:#?}")) }
    });
}

fn has(news: &str, line: &str) -> bool {
    news.lines().any(|told| told == line)
}

#[test]
fn an_activated_daemon_tells_when_it_serves_that_it_lives_and_when_it_stops() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let mut daemon = manager.start(Some(WATCHDOG));
    wait_for_news(&manager, "several signs of life", |heard| {
        heard.iter().filter(|news| has(news, "WATCHDOG=1")).count() >= 3
    });
    let heard = manager.heard();
    assert!(has(&heard[0], "READY=1"), "{heard:?}");
    assert_eq!(manager.count("READY=1"), 1, "{heard:?}");
    assert!(heard.iter().any(|news| news.contains("STATUS=serving, with Deno")), "{heard:?}");
    assert_eq!(daemon.status().executions.started, 0, "nobody has asked for what the watchdog runs");
    assert!(daemon.status().sessions.is_empty());

    daemon.signal(Signal::SIGHUP);
    wait_for_news(&manager, "a reload", |heard| {
        let reloading = heard.iter().position(|news| has(news, "RELOADING=1"));
        reloading.is_some_and(|at| {
            heard[at].contains("MONOTONIC_USEC=") && heard[at..].iter().any(|news| has(news, "READY=1"))
        })
    });

    assert_eq!(daemon.stop().code(), Some(0));
    wait_for_news(&manager, "the end", |heard| {
        let stopping = heard.iter().find(|news| has(news, "STOPPING=1"));
        stopping.is_some_and(|news| news.contains("EXTEND_TIMEOUT_USEC="))
    });
    assert_eq!(manager.count("STOPPING=1"), 1);
    assert!(home.socket().exists(), "the socket is the manager's");
    let _next = manager.start(None);
}

#[test]
fn nothing_of_the_manager_reaches_a_worker() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let daemon = manager.start(Some(WATCHDOG));
    let shim = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", "allow-env");
    });
    let found = "Object.keys(Deno.env.toObject()).filter((name) => /^(LISTEN|NOTIFY|WATCHDOG)_/.test(name))";
    let answer = shim.call(found);
    assert!(answer.value() == &json!([]), "{}", answer.message);
    let socket = fs::File::from(manager.listener().as_fd().try_clone_to_owned().expect("a descriptor"));
    let socket = format!("socket:[{}]", socket.metadata().expect("is open").ino());
    let held = |process: &Process| {
        let links = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|link| link == Path::new(&socket))
    };
    let workers = wait_for("idle workers", DEADLINE, || match home.workers() {
        none if none.is_empty() => Err("none"),
        workers => Ok(workers),
    });
    assert!(held(&Process::get(daemon.pid()).expect("runs")), "the daemon holds it");
    assert!(!workers.iter().any(held), "{workers:?}");
}

#[test]
fn a_daemon_whose_workers_do_not_boot_gives_no_sign_of_life_and_says_why() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let daemon = manager.start_with_deno(Some(Duration::from_secs(2)), &binaries::hanging_deno());
    wait_for_news(&manager, "the reason", |heard| {
        heard.iter().any(|news| news.contains("STATUS=") && news.contains("no proof of life"))
    });
    assert_eq!(manager.count("READY=1"), 1, "{:?}", manager.heard());
    wait_for("more attempts", DEADLINE, || {
        let attempts = home.logged("no sign of life is given to the service manager").len();
        if attempts >= 4 { Ok(()) } else { Err(attempts) }
    });
    let heard = manager.heard();
    let ill_from = heard.iter().position(|news| news.contains("no proof of life")).expect("it was told");
    assert!(!heard[ill_from..].iter().any(|news| has(news, "WATCHDOG=1")), "{heard:?}");
    drop(daemon);
}

#[test]
fn without_a_deno_the_daemon_lives_and_says_so() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let _daemon = manager.start_with_deno(Some(Duration::from_secs(2)), &home.path("no-such-deno"));
    wait_for_news(&manager, "signs of life without a Deno", |heard| {
        heard.iter().filter(|news| has(news, "WATCHDOG=1")).count() >= 3
            && heard.iter().any(|news| news.contains("STATUS=serving, without a Deno"))
    });
}

#[test]
fn connections_wait_for_the_daemon_that_the_manager_starts() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let shim = Shim::spawn(&home);
    let client = json!({ "name": "early", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let initialize = shim.request("initialize", params);
    let ping = shim.request("ping", json!({}));
    let _daemon = manager.start(None);
    shim.answer(initialize).result();
    shim.answer(ping).result();
}

#[test]
fn a_second_daemon_on_the_managers_socket_is_refused() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let daemon = manager.start(None);
    let second = Daemon::run_to_end(&home, |command| {
        let mut activated = manager.activated(command, None, &binaries::deno());
        activated.stderr(std::process::Stdio::piped());
        *command = activated;
    });
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another daemon serves"), "{second:?}");
    drop(daemon);
    assert!(home.socket().exists());
}

// Restarts under load.

/// Sessions that call without a pause, and how many calls each has in flight.
const CALLERS: usize = 3;
const IN_FLIGHT: usize = 4;

/// Leaves a mark outside, takes a moment, gives the nonce back.
const CALL: &str = "Deno.writeTextFileSync(file, nonce + '\\n', { append: true });\n\
                    await new Promise((done) => setTimeout(done, 15));\nnonce";

/// Calls without a pause while `restart` is called again and again; then each call was answered once, with its own value, and
/// ran once.
pub(crate) fn is_served_without_a_gap(
    home: &std::sync::Arc<Home>,
    shims: &[Shim],
    restarts: usize,
    mut restart: impl FnMut(),
) {
    let marks = home.workspace().join("marks");
    let enough = AtomicBool::new(false);
    let call = |shim: &Shim, caller: usize| {
        let mut calls = Vec::new();
        let mut open = std::collections::VecDeque::new();
        while !enough.load(Ordering::Relaxed) || !open.is_empty() {
            while open.len() < IN_FLIGHT && !enough.load(Ordering::Relaxed) {
                let nonce = format!("{caller}-{}", calls.len());
                let globals = json!({ "file": marks, "nonce": nonce });
                let id = shim.start_call(json!({ "deno_code": CALL, "globals": globals }));
                calls.push((id, nonce));
                open.push_back(id);
            }
            if let Some(id) = open.pop_front() {
                shim.answer(id);
            }
        }
        calls
    };
    let calls: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            shims.iter().enumerate().map(|(n, shim)| scope.spawn(move || (shim, call(shim, n)))).collect();
        // Also when a restart fails: the callers would never end.
        let stop = StopOnDrop(&enough);
        for round in 0..restarts {
            let before = fs::read_to_string(&marks).unwrap_or_default().lines().count();
            // Each daemon has served calls before it goes.
            wait_for("calls run", DEADLINE, || {
                let now = fs::read_to_string(&marks).unwrap_or_default().lines().count();
                if now >= before + 10 { Ok(()) } else { Err(format!("{now} in round {round}")) }
            });
            restart();
        }
        drop(stop);
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    });
    let marks = fs::read_to_string(&marks).expect("code ran");
    let mut ran: HashMap<&str, usize> = HashMap::new();
    marks.lines().for_each(|nonce| *ran.entry(nonce).or_default() += 1);
    let mut wrong = Vec::new();
    let mut total = 0;
    for (shim, calls) in &calls {
        for (id, nonce) in calls {
            total += 1;
            let answer = shim.answer(*id);
            let is_right = !answer.is_rpc_error() && answer.structured()["returnValue"] == nonce.as_str();
            if !is_right || shim.answers(*id) != 1 || ran.get(nonce.as_str()) != Some(&1) {
                wrong.push(format!("{nonce}: ran {:?} times, {}", ran.get(nonce.as_str()), answer.message));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {total} calls: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(total >= restarts * 10, "{total} calls prove little");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn caller(home: &std::sync::Arc<Home>, adapt: impl FnOnce(&mut std::process::Command)) -> Shim {
    Shim::session_with(home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={}", home.workspace().display()));
        adapt(command);
    })
}

#[test]
fn no_call_is_lost_while_the_manager_restarts_the_daemon() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let mut daemon = Some(manager.start(None));
    let shims: Vec<Shim> = (0..CALLERS).map(|_| caller(&home, |_| {})).collect();
    is_served_without_a_gap(&home, &shims, 10, || {
        // As `systemctl restart` does: the next one is started when this one has ended.
        let mut old = daemon.take().expect("one runs");
        assert_eq!(old.stop().code(), Some(0));
        daemon = Some(manager.start(None));
    });
}

#[test]
fn no_call_is_lost_while_shims_replace_a_daemon_that_goes_down() {
    let home = Home::new();
    let shims: Vec<Shim> = (0..CALLERS).map(|_| caller(&home, Shim::with_autostart)).collect();
    is_served_without_a_gap(&home, &shims, 10, || {
        let old = wait_for("one daemon runs", DEADLINE, || match &home.daemons()[..] {
            [one] => Ok(one.clone()),
            others => Err(format!("{others:?}")),
        });
        old.signal(Signal::SIGTERM);
        wait_for("it is gone", DEADLINE, || if old.exists() { Err("not yet") } else { Ok(()) });
    });
    drop(shims);
    if let Ok(reply) = Operator::ask_once(&home.socket(), &AdminRequest::Stop) {
        assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    }
    wait_for("the daemon ends", DEADLINE, || match home.daemons() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_call_that_comes_while_the_daemon_waits_for_another_runs_in_the_next_one() {
    let home = Home::new();
    let mut old = Daemon::start(&home);
    let shim = Shim::session(&home);
    let running =
        shim.start_call(json!({ "deno_code": "await new Promise((done) => setTimeout(done, 1500)); 'old'" }));
    old.wait_for_status("the call runs", |status| {
        status.pool.profiles.iter().map(|profile| profile.busy).sum::<u64>() == 1
    });
    old.signal(Signal::SIGTERM);
    wait_for(
        "it no longer listens",
        DEADLINE,
        || if home.socket().exists() { Err("it does") } else { Ok(()) },
    );
    let started = Instant::now();
    let late = shim.start_call(json!({ "deno_code": "'new'" }));
    let _new = Daemon::start(&home);
    assert_eq!(shim.answer(running).value(), "old");
    assert_eq!(shim.answer(late).value(), "new");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(old.wait().code(), Some(0));
}

// Units and `conductorctl service`.

/// The units of the repository, with the daemon under test as their program.
fn units(into: &Path) -> Vec<std::path::PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let daemon = binaries::conductord().display().to_string();
    ["conductor.service", "conductor.socket", "conductor.slice"]
        .map(|name| {
            let text = fs::read_to_string(from.join(name)).expect("is in the repository");
            fs::write(into.join(name), text.replace("/usr/bin/conductord", &daemon)).expect("writes");
            into.join(name)
        })
        .into()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let home = Home::new();
    let mut verify = home.command(Path::new("systemd-analyze"));
    verify.args(["--user", "--recursive-errors=yes", "verify"]).args(units(&home.path("run")));
    let output = verify.output().expect("systemd-analyze is installed (hint: apt-get install systemd)");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let ours: Vec<_> = words.lines().filter(|line| line.contains("conductor")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

/// Reads launchd's agent as macOS does, and prints it as JSON.
const READ_AGENT: &str =
    "import json, plistlib, sys; json.dump(plistlib.load(open(sys.argv[1], 'rb')), sys.stdout)";

#[test]
fn the_agent_of_launchd_is_one_and_every_key_has_its_reason() {
    let home = Home::new();
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/dev.conductor.conductord.plist");
    let mut read = home.command(Path::new("python3"));
    let output = read.args(["-I", "-c", READ_AGENT]).arg(&agent).output().expect("python3 is there");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(document["Sockets"]["Listener"]["SockPathMode"], 0o600);
    assert_eq!(document["Umask"], 0o077);
    assert_eq!(document["ProgramArguments"], json!(["@CONDUCTORD@"]));
    let drains = document["ExitTimeOut"].as_u64().expect("a number");
    assert!(drains > 30, "longer than calls may take to finish: {drains}");
    // What says itself what it is.
    let plain = ["Label", "ProgramArguments", "StandardErrorPath"];
    let text = fs::read_to_string(&agent).expect("is there");
    let lines: Vec<&str> = text.lines().collect();
    for key in document.as_object().expect("a dictionary").keys().filter(|key| !plain.contains(&key.as_str()))
    {
        let at = lines.iter().position(|line| *line == format!("\t<key>{key}</key>")).expect("is a line");
        assert!(lines[at - 1].trim_end().ends_with("-->"), "{key} has no reason above it");
    }
}

#[test]
fn the_socket_unit_listens_where_clients_look() {
    let home = Home::new();
    let unit = fs::read_to_string(&units(&home.path("run"))[1]).expect("is there");
    let listens = unit.lines().find_map(|line| line.strip_prefix("ListenStream=")).expect("it listens");
    let at = conductor_protocol::endpoint::Surroundings {
        runtime_dir: Some(home.path("run")),
        ..Default::default()
    };
    let clients = conductor_protocol::endpoint::candidates(&at).swap_remove(0);
    assert_eq!(listens.replace("%t", &home.path("run").display().to_string()), clients.display().to_string());
}

#[test]
fn without_a_service_manager_nothing_is_installed_and_the_cure_is_told() {
    let home = Home::new();
    for (path, says) in
        [("/usr/bin:/bin", "no service manager of this user runs"), ("/nonexistent", "no systemctl")]
    {
        for command in ["install", "start", "stop", "restart", "status"] {
            let mut ctl = home.command(&binaries::conductorctl());
            ctl.env("PATH", path).env("CONDUCTOR_DAEMON", binaries::conductord());
            let output = ctl.args(["service", command]).output().expect("starts");
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(69), "{command}: {words}");
            assert!(
                words.contains(says) && words.contains("hint: nothing needs to be done"),
                "{command}: {words}"
            );
        }
        assert!(!home.home().join(".config/systemd").exists());
    }
    let mut ctl = home.command(&binaries::conductorctl());
    let output = ctl.args(["service", "uninstall"]).output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("is not installed"), "{output:?}");
}
