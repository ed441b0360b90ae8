//! Peers that are slow, silent, mad or many: they are given up, and nobody waits for them.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_protocol::{ClientKind, Greeting, HANDSHAKE_TIMEOUT, RejectCode, frame};
use conductor_tests::{DEADLINE, Daemon, Held, Home, Noise, Operator, Shim, binaries, operator, wait_for};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::{Size, bed};

/// Connections that only sit there.
const IDLERS: usize = 1000;

/// The limit on open files with which terminals and service managers start programs.
const DESCRIPTORS: u64 = 1024;

/// Connections at one time that speak nonsense.
const AT_ONCE: usize = 4;

/// How long a server that hangs is trusted, and some time for a loaded machine: a call's own time, then that of a sign of life.
const HANG_TIME: Duration = Duration::from_secs(60);

/// Between two bytes of a slow peer.
const BYTE_PAUSE: Duration = Duration::from_millis(500);

struct Ground {
    daemon: Daemon,
    shim: Shim,
    held: Held,
}

impl Ground {
    fn new(adapt: impl FnOnce(&mut std::process::Command)) -> Self {
        let home = Home::new();
        home.configure("[pool]\nidle-per-profile = 2\n");
        let daemon = Daemon::start_with(&home, adapt);
        let shim = Shim::session(&home);
        assert_eq!(shim.call("1").value(), 1);
        daemon.wait_until_quiet(1);
        daemon.wait_for_status("idle workers", |status| status.pool.profiles.iter().all(|it| it.idle == 2));
        let held = Held::of(&daemon);
        Self { daemon, shim, held }
    }

    fn home(&self) -> &Arc<Home> {
        self.daemon.home()
    }

    fn connect(&self) -> Operator {
        Operator::connect(&self.home().socket()).expect("the daemon accepts")
    }

    fn is_served(&self) {
        assert_eq!(self.shim.call("'served'").value(), "served");
    }

    fn ends_as_it_began(self, what: &str) {
        let new = Shim::session(self.home());
        assert_eq!(new.call("'a new session'").value(), "a new session");
        drop(new);
        self.daemon.wait_until_quiet(1);
        self.held.is_back(&self.daemon, what);
    }
}

#[test]
fn ten_thousand_frames_of_nonsense_break_nothing() {
    let mut noise = Noise::seeded();
    let ground = Ground::new(|_| {});
    let each = Size::asked().bad_frames / AT_ONCE;
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (ground, mut noise) = (&ground, noise.split());
            scope.spawn(move || (0..each).for_each(|_| speak_nonsense(ground, &mut noise)));
        }
        for _ in 0..20 {
            ground.is_served();
        }
    });
    ground.is_served();
    assert_eq!(ground.daemon.status().executions.failed, 0);
    ground.ends_as_it_began("after nonsense");
}

/// The daemon may hang up at any point, so errors say nothing.
fn speak_nonsense(ground: &Ground, noise: &mut Noise) {
    let mut peer = ground.connect();
    let hello = |kind| operator::hello(kind).encode().expect("encodes");
    let kind = if noise.one_in(2) { ClientKind::Shim } else { ClientKind::Admin };
    let said = match noise.within(0..8) {
        0 => peer.send_bytes(&noise.bytes(200)),
        1 => peer.send_frame(&noise.bytes(200)),
        2 => peer.send_bytes(&u32::MAX.to_le_bytes()),
        3 => peer.send_frame(&[]),
        4 => {
            let mut changed = hello(kind);
            let at = usize::try_from(noise.within(0..changed.len() as u64)).expect("an index fits");
            changed[at] ^= noise.next().to_le_bytes()[0] | 1;
            peer.send_frame(&changed)
        }
        5 => {
            let hello = hello(kind);
            let cut = usize::try_from(noise.within(0..hello.len() as u64)).expect("an index fits");
            peer.send_frame(&hello[..cut])
        }
        // A right beginning, then anything.
        _ => peer.send_frame(&hello(kind)).and_then(|()| peer.send_frame(&noise.bytes(300))),
    };
    drop(said);
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let ground = Ground::new(|command| limit_descriptors(command, "-S"));
    let idlers = crowd(&ground, 2);
    for _ in 0..10 {
        ground.is_served();
    }
    let new = Shim::session(ground.home());
    assert_eq!(new.call("'a new one'").value(), "a new one");
    drop((new, idlers));
    ground.ends_as_it_began("after a crowd");
}

#[test]
fn a_crowd_that_is_too_large_is_told_so_and_the_others_are_served() {
    let ground = Ground::new(|command| limit_descriptors(command, "-H"));
    // None of them is given up, however long the test takes.
    let idlers = crowd(&ground, 1);
    for _ in 0..10 {
        ground.is_served();
    }
    let greeting = ground.connect().receive().expect("is told");
    let Greeting::Reject { code: RejectCode::Busy, text, .. } =
        Greeting::decode(&greeting).expect("is a greeting")
    else {
        panic!("{greeting:?}")
    };
    assert!(text.contains("clients are connected") && text.contains("hint: "), "{text}");
    drop(idlers);
    ground.ends_as_it_began("after a crowd that was too large");
}

/// A thousand connections; one in `n` has introduced itself as a client and then says nothing more, the rest have sent nothing
/// or a part of it.
fn crowd(ground: &Ground, n: usize) -> Vec<Operator> {
    // This process has the other ends.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raises its own limit");
    let hello = operator::hello(ClientKind::Shim).encode().expect("encodes");
    let framed = frame::encode(&hello).expect("encodes");
    (0..IDLERS)
        .map(|number| {
            let mut peer = ground.connect();
            let part = if number % n == 0 { framed.len() } else { number % framed.len() };
            // The daemon may have hung up already.
            drop(peer.send_bytes(&framed[..part]));
            peer
        })
        .collect()
}

#[test]
fn a_client_that_reads_no_more_ends_its_own_session_alone() {
    let ground = Ground::new(|_| {});
    let mut command = ground.home().command(&binaries::shim());
    command.env("CONDUCTOR_SOCKET", ground.home().socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shim = command.spawn().expect("starts");
    drop(shim.stdout.take());
    let input = shim.stdin.as_mut().expect("it is piped");
    writeln!(input, "{}", json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).expect("it reads");
    wait_for("the shim ends", DEADLINE, || shim.try_wait().expect("is a child").ok_or("not yet"));
    ground.is_served();
    ground.ends_as_it_began("after a client that read nothing");
}

#[test]
fn a_server_that_hangs_under_steady_calls_is_replaced() {
    let home = bed::home(2);
    let daemon = Daemon::start(&home);
    let shims = [bed::session(&home, |_| {}), bed::session(&home, |_| {})];
    let echo = "await mcp.flaky.echo({ message: 'answered' })";
    assert_eq!(shims[0].call(echo).value(), "answered");
    let hung = bed::server(&home, "flaky").expect("runs");
    hung.signal(Signal::SIGSTOP);
    // Two callers: there is always a call that waits for it.
    std::thread::scope(|scope| {
        for shim in &shims {
            scope.spawn(|| {
                wait_for("a server that answers", HANG_TIME, || {
                    let answer = shim.call(echo);
                    if answer.structured()["status"] == "success" {
                        Ok(())
                    } else {
                        Err(answer.error().to_string())
                    }
                });
            });
        }
        assert_eq!(shims[0].call("await mcp.calm.echo({ message: 'another' })").value(), "another");
    });
    drop(shims);
    daemon.wait_until_quiet(0);
    wait_for(
        "the one that hung is gone",
        DEADLINE,
        || if hung.exists() { Err("it is there") } else { Ok(()) },
    );
}

#[test]
fn a_peer_of_one_byte_at_a_time_is_given_up() {
    let ground = Ground::new(|_| {});
    let hello = operator::hello(ClientKind::Shim).encode().expect("encodes");
    let framed = frame::encode(&hello).expect("encodes");
    let mut peer = ground.connect();
    let started = Instant::now();
    let end = framed.iter().find_map(|byte| {
        std::thread::sleep(BYTE_PAUSE);
        peer.send_bytes(&[*byte]).is_err().then(|| started.elapsed())
    });
    let most = HANDSHAKE_TIMEOUT + Duration::from_secs(5);
    assert!(end.is_some_and(|end| end < most), "the daemon listened for {end:?}");
    ground.is_served();
    ground.ends_as_it_began("after a slow peer");
}

/// As few as most programs have at first: `-S`, or at all: `-H`.
fn limit_descriptors(command: &mut std::process::Command, which: &str) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let envs: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    let mut limited = std::process::Command::new("/bin/sh");
    limited
        .env_clear()
        .args(["-c", &format!("ulimit -Sn {DESCRIPTORS}; ulimit {which}n {DESCRIPTORS}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(args);
    for (name, value) in envs {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    *command = limited;
}
