//! Peers that are slow, silent, mad or many: they are given up, and nobody waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_protocol::{ClientKind, Greeting, HANDSHAKE_TIMEOUT, RejectCode, frame};
use conductor_tests::{Daemon, Held, Home, Noise, Operator, Shim, operator};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Size;

/// Connections that only sit there.
const IDLERS: usize = 1000;

/// The limit on open files with which terminals and service managers start programs.
const DESCRIPTORS: u64 = 1024;

/// Connections at one time that speak nonsense.
const AT_ONCE: usize = 4;

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
    let idlers = crowd(&ground);
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
    let idlers = crowd(&ground);
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

/// A thousand connections; every other one has introduced itself as a client and then says nothing more, the rest have sent
/// nothing or a part of it.
fn crowd(ground: &Ground) -> Vec<Operator> {
    // This process has the other ends.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raises its own limit");
    let hello = operator::hello(ClientKind::Shim).encode().expect("encodes");
    let framed = frame::encode(&hello).expect("encodes");
    (0..IDLERS)
        .map(|n| {
            let mut peer = ground.connect();
            let part = if n % 2 == 0 { framed.len() } else { n % framed.len() };
            // The daemon may have hung up already.
            drop(peer.send_bytes(&framed[..part]));
            peer
        })
        .collect()
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
