//! What breaks stays where it breaks: hostile code, killed workers, clients that speak nonsense.
//!
//! Every test ends by looking whether the daemon holds as many descriptors and processes as before.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conductor_protocol::{ClientKind, Greeting, HANDSHAKE_TIMEOUT, RejectCode};
use conductor_tests::{DEADLINE, Daemon, Home, Noise, Operator, Process, Shim, operator, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Idle workers of the one profile in each of these tests.
const IDLE: u64 = 2;

/// What a daemon holds when nothing runs.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    processes: usize,
}

/// Waits until nothing runs, not even what tries the jail out, and all idle workers are there.
fn at_rest(daemon: &Daemon, sessions: usize) -> Held {
    daemon.wait_for_status("nothing runs and the idle workers are back", |status| {
        let [profile] = &status.pool.profiles[..] else { return false };
        let is_quiet = profile.busy == 0 && profile.booting == 0 && profile.queued == 0;
        let is_known = status.jail.state != "checking";
        status.sessions.len() == sessions && is_quiet && is_known && profile.idle == IDLE
    });
    Held { descriptors: daemon.descriptors(), processes: daemon.children().len() }
}

#[track_caller]
fn is_back_at(before: &Held, daemon: &Daemon, sessions: usize) {
    wait_for("descriptors and processes are back at the start", DEADLINE, || {
        let now = at_rest(daemon, sessions);
        // Fewer are none left behind: at the first look a connection may just have been closing.
        let is_back = now.descriptors <= before.descriptors && now.processes <= before.processes;
        if is_back { Ok(()) } else { Err(format!("{now:?}, at the start {before:?}")) }
    });
}

/// A daemon with idle workers and one session that has already made a call.
fn warm() -> (Daemon, Shim, Held) {
    warm_with("")
}

fn warm_with(config: &str) -> (Daemon, Shim, Held) {
    let home = Home::new();
    home.configure(&format!("[pool]\nidle-per-profile = {IDLE}\n{config}"));
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("1").value(), 1);
    let held = at_rest(&daemon, 1);
    (daemon, shim, held)
}

#[test]
fn an_endless_loop_ends_at_its_timeout_and_nothing_else_does() {
    let (daemon, shim, held) = warm();
    let other = Shim::session(daemon.home());
    let started = Instant::now();
    let endless = shim.start_call(json!({ "deno_code": "while (true) {}", "timeout": 700 }));
    let slow = other
        .start_call(json!({ "deno_code": "await new Promise((done) => setTimeout(done, 300)); 'slept'" }));
    assert_eq!(other.call("'at once'").value(), "at once");
    assert_eq!(other.answer(slow).value(), "slept");
    assert_eq!(shim.answer(endless).error_type(), "timeout");
    assert!(started.elapsed() >= Duration::from_millis(700));
    assert_eq!(shim.call("'next'").value(), "next");
    let microtasks = "const spin = (): Promise<void> => Promise.resolve().then(spin); await spin()";
    assert_eq!(shim.call_with(json!({ "deno_code": microtasks, "timeout": 300 })).error_type(), "timeout");
    drop(other);
    is_back_at(&held, &daemon, 1);
}

#[test]
fn a_hostile_worker_breaks_only_its_own_call() {
    let (daemon, shim, held) = warm_with("[profiles.default]\nlinger = \"300ms\"\n");
    let noise = "const noise = crypto.getRandomValues(new Uint8Array(60_000));\n\
                 for (let at = 0; at < noise.length;) at += Deno.stdout.writeSync(noise.subarray(at));\n\
                 Deno.stderr.writeSync(noise.subarray(0, 100));\n'noisy'";
    assert_eq!(shim.call(noise).value(), "noisy");
    let prototypes = "for (const type of [Array, Object, String, Promise, Map, Uint8Array, Function]) {\n\
                        for (const key of Object.getOwnPropertyNames(type.prototype)) {\n\
                          if (key === 'constructor') continue;\n\
                          try { (type.prototype as any)[key] = () => { throw new Error('gotcha') } } catch { /* some cannot be replaced */ }\n\
                        }\n\
                      }\n\
                      globalThis.JSON = undefined as any;\n42";
    assert_eq!(shim.call(prototypes).value(), 42);
    // Each of these ends in an error of its own call. What kind depends on what broke first.
    let hostile = [
        "import fs from 'node:fs';\nfor (let fd = 0; fd <= 40; fd++) try { fs.closeSync(fd) } catch {}\nfs.writeSync(4, 'x')",
        "import fs from 'node:fs';\nfs.writeSync(4, new Uint8Array(4096).fill(255)); while (true) {}",
        "import fs from 'node:fs';\nfs.writeSync(4, '\\x08\\0\\0\\0not json'); while (true) {}",
        "import fs from 'node:fs';\nfs.closeSync(4); while (true) {}",
        "Deno.exit(9)",
        "import process from 'node:process';\n(process as any).reallyExit(11)",
        "import process from 'node:process';\nprocess.abort()",
        "(globalThis as any).Deno[Deno.internal].core.ops.op_panic('on purpose')",
        "const deep = (n: number): number => deep(n + 1) + 1; deep(0)",
        "new Uint8Array(2 ** 40)",
    ];
    for code in hostile {
        let broken = shim.start_call(json!({ "deno_code": code, "timeout": 3000 }));
        let sound = shim
            .start_call(json!({ "deno_code": "await new Promise((done) => setTimeout(done, 50)); 'sound'" }));
        let answer = shim.answer(broken);
        assert_eq!(answer.structured()["status"], "error", "{code}: {}", answer.structured());
        assert_eq!(shim.answer(sound).value(), "sound", "{code}");
    }
    is_back_at(&held, &daemon, 1);
}

#[test]
fn a_worker_that_kills_or_stops_itself_breaks_only_its_own_call() {
    let (daemon, shim, held) = warm_with("[profiles.default]\nrun-args = \"allow-all\"\n");
    let suicides = [
        ("Deno.kill(Deno.pid, 'SIGKILL'); while (true) {}", "exit", 30_000),
        ("Deno.kill(Deno.pid, 'SIGABRT'); while (true) {}", "exit", 30_000),
        ("Deno.kill(Deno.pid, 'SIGSTOP'); while (true) {}", "timeout", 800),
    ];
    for (code, kind, timeout) in suicides {
        let broken = shim.start_call(json!({ "deno_code": code, "timeout": timeout }));
        assert_eq!(shim.call("'sound'").value(), "sound", "{code}");
        assert_eq!(shim.answer(broken).error_type(), kind, "{code}");
    }
    is_back_at(&held, &daemon, 1);
}

/// How many workers are killed while they are idle, and while they run code.
const IDLE_KILLS: usize = 20;
const BUSY_KILLS: usize = 80;

/// Code that first leaves a mark outside, with its process, then takes long enough to be hit.
const MARKING: &str = "Deno.writeTextFileSync(file, `${nonce} ${Deno.pid}\\n`, { append: true });\n\
                       await new Promise((done) => setTimeout(done, 150));\nnonce";

/// A process, as the log names it: pid and start.
type Identity = (i64, i64);

#[test]
fn a_hundred_killed_workers_cost_only_the_calls_they_ran() {
    let home = Home::new();
    home.configure(&format!("[pool]\nidle-per-profile = {IDLE}\n"));
    let marks = home.workspace().join("marks");
    let daemon = Daemon::start(&home);
    let workspace = home.workspace().display().to_string();
    let sessions: Vec<Shim> = (0..3)
        .map(|_| {
            Shim::session_with(&home, |command| {
                command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-write={workspace}"));
            })
        })
        .collect();
    assert_eq!(sessions[0].call("1").value(), 1);
    let held = at_rest(&daemon, 3);
    let mut killed = HashSet::new();
    for _ in 0..IDLE_KILLS {
        at_rest(&daemon, 3);
        let victim = daemon.children().swap_remove(0);
        killed.insert(kill(&victim));
        // A call that comes before the daemon has noticed may still be given to the dead.
        wait_for(
            "the daemon has noticed",
            DEADLINE,
            || {
                if victim.exists() { Err("not yet") } else { Ok(()) }
            },
        );
        assert_eq!(sessions[0].call("'unharmed'").value(), "unharmed");
    }
    let enough = AtomicBool::new(false);
    let calls = AtomicUsize::new(0);
    let answers = std::thread::scope(|scope| {
        let call_on = |shim: &Shim| {
            let mut answers = Vec::new();
            while !enough.load(Ordering::Relaxed) {
                let nonce = format!("n{}", calls.fetch_add(1, Ordering::Relaxed));
                let globals = json!({ "file": marks, "nonce": nonce });
                let id = shim.start_call(json!({ "deno_code": MARKING, "globals": globals }));
                answers.push((nonce, id, shim.answer(id)));
            }
            answers
        };
        let callers: Vec<_> = sessions.iter().map(|shim| scope.spawn(move || call_on(shim))).collect();
        let stop = StopOnDrop(&enough);
        for _ in 0..BUSY_KILLS {
            killed.insert(kill(&busy_worker(&marks, &killed)));
        }
        drop(stop);
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect::<Vec<_>>()
    });
    assert_eq!(killed.len(), IDLE_KILLS + BUSY_KILLS, "distinct workers were killed");

    let ran_on: HashMap<String, Identity> = home
        .logged("execution ended")
        .iter()
        .map(|line| {
            let number = |name: &str| line[name].as_i64().expect("a number");
            (line["execution"].as_str().expect("an id").to_owned(), (number("pid"), number("start_ticks")))
        })
        .collect();
    let (mut succeeded, mut failed) = (HashSet::new(), 0);
    for (shim, answers) in sessions.iter().zip(&answers) {
        for (nonce, id, answer) in answers {
            assert_eq!(shim.answers(*id), 1, "answers to {nonce}");
            let structured = answer.structured();
            if structured["status"] == "success" {
                assert_eq!(answer.value(), nonce);
                succeeded.insert(nonce.as_str());
                continue;
            }
            failed += 1;
            let worker = ran_on[structured["executionId"].as_str().expect("an id")];
            assert!(
                killed.contains(&worker),
                "{nonce} failed on a worker that was not killed: {structured:#}"
            );
            assert_eq!(answer.error_type(), "exit", "{structured:#}");
        }
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(failed <= BUSY_KILLS, "{failed} of {calls} calls failed");
    assert!(failed >= BUSY_KILLS / 2, "only {failed} of {calls} calls were hit, so little was proved");

    let marks = fs::read_to_string(&marks).expect("the code left marks");
    let mut counted: HashMap<&str, usize> = HashMap::new();
    for (nonce, _pid) in marks.lines().filter_map(|line| line.split_once(' ')) {
        *counted.entry(nonce).or_default() += 1;
    }
    let twice: Vec<_> = counted.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "ran more than once: {twice:?}");
    assert!(succeeded.iter().all(|nonce| counted.contains_key(nonce)), "each success has left its mark");
    is_back_at(&held, &daemon, 3);
}

/// Lets the callers end, even if the test fails while they run.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn identity(process: &Process) -> Identity {
    (process.pid.into(), process.start_ticks.cast_signed())
}

fn kill(process: &Process) -> Identity {
    process.signal(Signal::SIGKILL);
    identity(process)
}

/// The worker that has left the newest mark and still runs.
fn busy_worker(marks: &Path, killed: &HashSet<Identity>) -> Process {
    wait_for("a worker that runs code", DEADLINE, || {
        let marks = fs::read_to_string(marks).unwrap_or_default();
        let pids = marks.lines().rev().take(3).filter_map(|line| line.split_once(' ')?.1.parse().ok());
        let mut running = pids.filter_map(Process::get).filter(|process| !process.is_zombie());
        let victim = running.find(|process| !killed.contains(&identity(process)));
        victim.ok_or_else(|| format!("{} marks, {} killed", marks.lines().count(), killed.len()))
    })
}

/// Speaks nonsense in one of several ways. The daemon may close the connection at any point, so errors say nothing.
fn speak_nonsense(home: &Home, kind: usize, noise: &mut Noise) {
    let mut connection = Operator::connect(&home.socket()).expect("the daemon accepts");
    let hello = |kind| operator::hello(kind).encode().expect("encodes");
    let outcome = match kind % 8 {
        0 => Ok(()),
        1 => connection.send_bytes(&noise.bytes(200)),
        2 => connection.send_frame(&noise.bytes(200)),
        3 => connection.send_bytes(&u32::MAX.to_le_bytes()),
        4 => connection.send_frame(b"GET / HTTP/1.1\r\n\r\n"),
        5 => {
            let hello = hello(ClientKind::Shim);
            let cut = usize::try_from(noise.next()).unwrap_or(0) % hello.len();
            connection.send_frame(&hello[..cut])
        }
        6 => connection
            .send_frame(&hello(ClientKind::Shim))
            .and_then(|()| connection.send_frame(&noise.bytes(300))),
        _ => connection
            .send_frame(&hello(ClientKind::Admin))
            .and_then(|()| connection.send_frame(&noise.bytes(300))),
    };
    drop(outcome);
}

#[test]
fn a_thousand_malformed_frames_leave_the_daemon_serving() {
    let (daemon, shim, held) = warm();
    let mut noise = Noise::of(0x9E37_79B9_7F4A_7C15);
    for round in 0..1000 {
        speak_nonsense(daemon.home(), round, &mut noise);
        if round % 100 == 0 {
            assert_eq!(shim.call("'serving'").value(), "serving");
        }
    }
    let new = Shim::session(daemon.home());
    assert_eq!(new.call("'a new session'").value(), "a new session");
    drop(new);
    is_back_at(&held, &daemon, 1);
    assert_eq!(daemon.status().executions.failed, 0);
}

#[test]
fn garbage_in_a_running_session_ends_that_session_only() {
    let (daemon, shim, held) = warm();
    let mut hostile = Operator::connect(&daemon.home().socket()).expect("connects");
    hostile.send_frame(&operator::hello(ClientKind::Shim).encode().expect("encodes")).expect("writes");
    let greeting = Greeting::decode(&hostile.receive().expect("is answered")).expect("is a greeting");
    assert!(matches!(greeting, Greeting::Welcome { .. }), "{greeting:?}");
    daemon.wait_for_status("two sessions", |status| status.sessions.len() == 2);
    hostile.send_frame(&[0xff; 64]).expect("writes");
    let error = hostile.receive().expect_err("the daemon hangs up");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    assert_eq!(shim.call("1").value(), 1);
    is_back_at(&held, &daemon, 1);
}

#[test]
fn slow_and_half_open_connections_are_given_up_and_delay_nobody() {
    let (daemon, shim, held) = warm();
    let hello = operator::hello(ClientKind::Shim).encode().expect("encodes");
    let framed = conductor_protocol::frame::encode(&hello).expect("encodes");
    let mut half_open: Vec<Operator> = (0..60)
        .map(|n| {
            let mut connection = Operator::connect(&daemon.home().socket()).expect("connects");
            let part = &framed[..n % framed.len()];
            connection.send_bytes(part).expect("writes");
            connection
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(shim.call("'meanwhile'").value(), "meanwhile");
    }
    let started = Instant::now();
    for connection in &mut half_open {
        let error = connection.receive().expect_err("nobody is served without a hello");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    }
    assert!(started.elapsed() < HANDSHAKE_TIMEOUT + Duration::from_secs(5), "they are given up together");
    drop(half_open);
    is_back_at(&held, &daemon, 1);
}

#[test]
fn a_client_that_never_reads_slows_only_itself() {
    let (daemon, shim, held) = warm();
    let mut deaf = Operator::connect(&daemon.home().socket()).expect("connects");
    deaf.send_frame(&operator::hello(ClientKind::Shim).encode().expect("encodes")).expect("writes");
    deaf.receive().expect("is welcome");
    let client = json!({ "name": "deaf", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let message = |json: &Value| {
        conductor_protocol::SessionFrame::encode_mcp(json.to_string().as_bytes()).expect("encodes")
    };
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    deaf.send_frame(&message(&initialize)).expect("writes");
    deaf.send_frame(&message(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })))
        .expect("writes");
    // More answers than its socket and its queue hold; at some point the daemon stops reading, and the write times out.
    deaf.set_write_timeout(Duration::from_millis(500)).expect("is connected");
    let blocked = (1..20_000).any(|id| {
        let list = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
        deaf.send_frame(&message(&list)).is_err()
    });
    assert!(blocked, "the daemon does not take requests without end from a client that reads no answers");
    for _ in 0..10 {
        assert_eq!(shim.call("'not delayed'").value(), "not delayed");
    }
    drop(deaf);
    is_back_at(&held, &daemon, 1);
}

#[test]
fn a_client_of_another_version_is_told_so_in_words() {
    let daemon = Daemon::new();
    let mut newer = operator::hello(ClientKind::Shim).encode().expect("encodes");
    newer[4..6].copy_from_slice(&200u16.to_le_bytes());
    let mut connection = Operator::connect(&daemon.home().socket()).expect("connects");
    connection.send_frame(&newer).expect("writes");
    let greeting = Greeting::decode(&connection.receive().expect("is answered")).expect("is a greeting");
    let Greeting::Reject { code: RejectCode::Version, text, .. } = greeting else { panic!("{greeting:?}") };
    assert!(text.contains("protocol 200") && text.contains("hint: the daemon is older"), "{text}");
}
