//! The daemon is killed under load, again and again: its callers' shims start the next one, each call is answered once, and of
//! the dead one nothing is left: no worker, no launcher, no server, not even one that has left its parent.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::ends::{Watched, wait_for_ends};
use conductor_tests::{DEADLINE, Home, Noise, Operator, Process, Shim, wait_for};
use nix::sys::signal::Signal;

use crate::bed;
use crate::calls::{self, Call, KINDS, Outcome};
use crate::orphans::{self, END_TIME, Ends};
use crate::{Size, tell};

const CALLERS: usize = 4;

/// The guard of servers, the one that outlives the daemon: it looks for what the kernel does not end.
const GUARD: &str = "/bin/sh -c";

/// Calls that every daemon answers before it dies.
const SERVED: usize = 8;

#[test]
fn a_killed_daemon_costs_the_calls_it_ran_and_leaves_nothing() {
    let mut noise = Noise::seeded();
    let home = bed::home(2);
    let kills = Size::asked().daemon_kills;
    let enough = AtomicBool::new(false);
    let right = AtomicUsize::new(0);
    let mut deaths = Vec::new();
    let mut ends = Ends::default();
    let calls: Vec<Call> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (home, enough, right, noise) = (&home, &enough, &right, noise.split());
                scope.spawn(move || call(home, caller, enough, right, noise))
            })
            .collect();
        let stop = StopOnDrop(&enough);
        for round in 0..=kills {
            let before = right.load(Ordering::Relaxed);
            wait_for(&format!("daemon {round} serves"), 2 * DEADLINE, || {
                let served = right.load(Ordering::Relaxed) - before;
                if served >= SERVED { Ok(()) } else { Err(format!("{served} calls, {:#?}", home.daemons())) }
            });
            if round < kills {
                std::thread::sleep(noise.milliseconds(0..100));
                deaths.push(kill_daemon(&home, &mut ends));
            }
        }
        drop(stop);
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
    });
    judge(&calls, &deaths);
    each_ran_at_most_once(&home);
    let lost = calls.iter().filter(|call| matches!(call.outcome, Outcome::Lost)).count();
    tell(format_args!("{} calls, {lost} lost with {kills} daemons", calls.len()));
    stop_daemon(&home);
    ends.came_soon("what killed daemons had started");
}

/// One caller with one shim for all daemons.
fn call(
    home: &Arc<Home>,
    caller: usize,
    enough: &AtomicBool,
    right: &AtomicUsize,
    mut noise: Noise,
) -> Vec<Call> {
    let shim = bed::session(home, Shim::with_autostart);
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.server.is_none_or(|name| name == "calm")).collect();
    let mut made = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let kind = noise.choose(&kinds).expect("there are some");
        let nonce = format!("{caller}-{}", made.len());
        let call = calls::make(&shim, kind, nonce, &bed::marks(home), &mut noise);
        right.fetch_add(usize::from(matches!(call.outcome, Outcome::Right)), Ordering::Relaxed);
        made.push(call);
    }
    made
}

/// Kills the one daemon, and waits until everything has ended that it had started; tells when that began and was over.
fn kill_daemon(home: &Home, ends: &mut Ends) -> (Instant, Instant) {
    let one_daemon = || match &home.daemons()[..] {
        [one] => Ok(one.clone()),
        others => Err(format!("{others:?}")),
    };
    let daemon = wait_for("one daemon runs", DEADLINE, one_daemon);
    let plain = orphans::plain_end(descendants(&daemon).len());
    let watch = |processes: Vec<Process>| processes.into_iter().filter_map(Watched::new).collect::<Vec<_>>();
    let (guard, family) = wait_for("the daemon has workers", DEADLINE, || {
        let is_guard = |process: &Process| process.command.starts_with(GUARD);
        let (guard, family) = descendants(&daemon).into_iter().partition(is_guard);
        let family = watch(family);
        if family.is_empty() { Err(format!("{guard:?}")) } else { Ok((watch(guard), family)) }
    });
    let killed = Instant::now();
    daemon.signal(Signal::SIGKILL);
    ends.add(wait_for_ends(family, killed, END_TIME), plain);
    wait_for_ends(guard, killed, END_TIME);
    // Also of what it had started after the look.
    wait_for("no worker is left without its daemon", END_TIME, || {
        let daemons: HashSet<i32> = home.daemons().iter().map(|it| it.pid).collect();
        let mut workers = home.workers();
        workers.retain(|it| !it.is_zombie() && !daemons.contains(&it.parent));
        if workers.is_empty() { Ok(()) } else { Err(format!("{workers:#?}")) }
    });
    (killed, Instant::now())
}

/// All that a process has started, and what that has.
fn descendants(of: &Process) -> Vec<Process> {
    let all = Process::all();
    let mut found = vec![of.clone()];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at].pid;
        found.extend(all.iter().filter(|process| process.parent == parent).cloned());
        at += 1;
    }
    found.split_off(1)
}

fn judge(calls: &[Call], deaths: &[(Instant, Instant)]) {
    let is_excused = |call: &Call| match &call.outcome {
        // Daemons are killed faster than shims take for chance. Each is told so at most once in the time it waits for one.
        Outcome::Right | Outcome::TurnedAway => true,
        // Also one that was sent while the daemon died: its shim had not heard of that yet.
        Outcome::Lost => deaths.iter().any(|(from, to)| *from <= call.answered && call.sent <= *to),
        Outcome::Failed { .. } | Outcome::Wrong(_) => false,
    };
    let wrong: Vec<_> = calls.iter().filter(|call| !is_excused(call)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} calls: {:#?}",
        wrong.len(),
        calls.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert!(
        calls.iter().any(|call| matches!(call.outcome, Outcome::Lost)),
        "no call was hit, so nothing was proved"
    );
}

fn each_ran_at_most_once(home: &Home) {
    let marks = fs::read_to_string(bed::marks(home)).expect("code left marks");
    let mut ran: HashMap<&str, usize> = HashMap::new();
    marks.lines().for_each(|nonce| *ran.entry(nonce).or_default() += 1);
    let twice: Vec<_> = ran.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "ran more than once: {twice:?}");
}

fn stop_daemon(home: &Home) {
    let reply = Operator::ask_once(&home.socket(), &AdminRequest::Stop).expect("is answered");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    wait_for("the daemon ends", DEADLINE, || match home.daemons() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Lets the callers end, even if the test fails while they run.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
