//! Sessions call without a pause while workers, servers, shims and the daemon itself are killed, stopped and made to talk
//! nonsense at random moments. Each call is answered once; one that fails was on a process that was struck; afterwards the
//! pool is full and the daemon holds what it held before.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conductor_tests::{DEADLINE, Daemon, Held, Home, Noise, process, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bed::{self, CALM, STRUCK};
use crate::calls::{self, Call, KINDS, Kind, Outcome};
use crate::{Size, tell};

/// Calls of one round. What they came to, and the log, are judged and forgotten after each.
pub(crate) const ROUND: usize = 1600;

/// Calls before the first look at what the daemon holds: its memory has its size by then.
const WARM_UP: usize = 400;

const CALLERS: usize = 4;

/// Idle workers of the one profile.
const IDLE: u64 = 2;

/// Calls that one session makes before another takes its place.
const SESSION: usize = 250;

/// Calls that the counts of [`FAULTS`] are meant for.
const CALLS: usize = 2000;

/// How many faults there are, by kind.
const FAULTS: [(Fault, usize); 9] = [
    (Fault::KillWorker, 180),
    (Fault::PauseWorker, 18),
    (Fault::StopWorker, 2),
    (Fault::KillServer, 60),
    (Fault::PauseServer, 20),
    (Fault::Garbage, 20),
    (Fault::KillShim, 10),
    (Fault::PauseShim, 10),
    (Fault::PauseDaemon, 10),
];

/// How long after a blow a call may still meet its effect: the daemon reads that a server has ended, and a busy machine lets
/// it do so late.
const WAKE: Duration = Duration::from_secs(1);

/// A process younger than this may still boot, and older ones on a busy machine. Those are rarely struck: boots in a row
/// that fail, and the one after a pause too, are a broken Deno.
const YOUNG_TICKS: u64 = 25;

/// What a call is told whose worker was struck after it had its value, while it lingered.
const STRUCK_LATE: &str = "the program ended with signal 9 after its value was known";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillWorker,
    /// Stopped for a moment: the call it runs is only late.
    PauseWorker,
    /// Stopped for good: its call ends at its time limit.
    StopWorker,
    KillServer,
    PauseServer,
    Garbage,
    KillShim,
    PauseShim,
    PauseDaemon,
}

/// A process, as the log names it: pid and start.
type Identity = (i64, i64);

/// What was struck.
#[derive(Debug, Default)]
struct Struck {
    workers: HashMap<Identity, Fault>,
    servers: HashMap<&'static str, Vec<(Instant, Instant)>>,
    shims: usize,
}

struct Storm {
    home: Arc<Home>,
    daemon: Daemon,
    names: Vec<String>,
    calls: AtomicUsize,
    served: Mutex<HashMap<&'static str, usize>>,
    shims: Mutex<Vec<Pid>>,
    enough: AtomicBool,
}

#[test]
fn under_load_each_fault_costs_what_it_struck_and_nothing_piles_up() {
    let mut noise = Noise::seeded();
    let home = bed::home(IDLE);
    let daemon = Daemon::start_with(&home, |command| {
        // The log says which process ran which call; everything else of it would be gigabytes.
        command.env("CONDUCTOR_LOG", "info,conductor_daemon::exec=debug");
    });
    let storm = Storm {
        names: bed::server_names(&home),
        home,
        daemon,
        calls: AtomicUsize::new(0),
        served: Mutex::default(),
        shims: Mutex::default(),
        enough: AtomicBool::new(false),
    };
    storm.round(WARM_UP, &mut noise);
    let held = storm.at_rest();
    for _ in 0..Size::asked().rounds {
        storm.round(ROUND, &mut noise);
    }
    let quiet = storm.at_rest();
    held.is_back(&storm.daemon, &format!("after {} calls", storm.calls.load(Ordering::Relaxed)));
    tell(format_args!("at the start: {held}\nat the end:   {quiet}"));
    held.has_not_grown(&storm.daemon, "after the storm");
}

impl Storm {
    /// So many calls, and faults in proportion.
    fn round(&self, n: usize, noise: &mut Noise) {
        bed::empty(&bed::marks(&self.home));
        bed::empty(&self.home.log_file());
        let begin = self.calls.load(Ordering::Relaxed);
        self.enough.store(false, Ordering::Relaxed);
        let started = Instant::now();
        let (calls, struck) = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    let noise = noise.split();
                    scope.spawn(move || self.call(noise))
                })
                .collect();
            let stop = StopOnDrop(&self.enough);
            let struck = self.strike(begin, n, noise);
            self.wait_for_calls(begin + n);
            drop(stop);
            let calls = callers.into_iter().flat_map(|caller| caller.join().expect("a caller"));
            (calls.collect::<Vec<_>>(), struck)
        });
        self.judge(&calls, &struck);
        tell(format_args!(
            "{} calls, {} workers, {:?} servers, {} shims struck in {:?}",
            calls.len(),
            struck.workers.len(),
            struck.servers.iter().map(|(name, blows)| (name, blows.len())).collect::<Vec<_>>(),
            struck.shims,
            started.elapsed()
        ));
    }

    fn at_rest(&self) -> Held {
        self.daemon.wait_for_status("nothing runs and the idle workers are back", |status| {
            let is_full = |profile: &conductor_protocol::status::ProfileStatus| {
                (profile.busy, profile.booting, profile.queued, profile.idle) == (0, 0, 0, IDLE)
                    && profile.breaker == "closed"
            };
            status.sessions.is_empty() && status.pool.profiles.iter().all(is_full)
        });
        let names: HashSet<_> = self.names.iter().map(String::as_str).collect();
        wait_for("servers that were struck serve again", DEADLINE, || {
            let shim = bed::session(&self.home, |_| {});
            let mut noise = Noise::of(1);
            for kind in KINDS.iter().filter(|kind| kind.server.is_some_and(|name| names.contains(name))) {
                let call = calls::make(&shim, kind, "quiet".into(), &bed::marks(&self.home), &mut noise);
                if !matches!(call.outcome, Outcome::Right) {
                    return Err(format!("{call:?}"));
                }
            }
            Ok(())
        });
        self.daemon.wait_for_status("the pool is full", |status| {
            status.sessions.is_empty()
                && status.pool.profiles.iter().all(|it| (it.busy, it.booting, it.idle) == (0, 0, IDLE))
        });
        Held::of(&self.daemon)
    }

    /// One caller, session after session, until it is enough.
    fn call(&self, mut noise: Noise) -> Vec<Call> {
        let marks = bed::marks(&self.home);
        let kinds: Vec<&'static Kind> = KINDS
            .iter()
            .filter(|kind| kind.server.is_none_or(|name| self.names.iter().any(|it| it == name)))
            .collect();
        let mut made = Vec::new();
        loop {
            let shim = bed::session(&self.home, |_| {});
            let pid = Pid::from_raw(shim.pid());
            self.shims.lock().expect("unpoisoned").push(pid);
            for _ in 0..SESSION {
                if self.enough.load(Ordering::Relaxed) {
                    self.leave(pid);
                    return made;
                }
                let n = self.calls.fetch_add(1, Ordering::Relaxed);
                let kind = noise.choose(&kinds).expect("there are some");
                let call = calls::make(&shim, kind, format!("n{n}"), &marks, &mut noise);
                if let (Some(server), Outcome::Right) = (kind.server, &call.outcome) {
                    *self.served.lock().expect("unpoisoned").entry(server).or_default() += 1;
                }
                made.push(call);
            }
            self.leave(pid);
        }
    }

    fn leave(&self, pid: Pid) {
        self.shims.lock().expect("unpoisoned").retain(|it| *it != pid);
    }

    /// Strikes, evenly over the calls of the round, each time somewhere else.
    fn strike(&self, begin: usize, n: usize, noise: &mut Noise) -> Struck {
        let mut left: Vec<Fault> =
            FAULTS.iter().flat_map(|(fault, count)| vec![*fault; (count * n).div_ceil(CALLS)]).collect();
        let total = left.len();
        let mut struck = Struck::default();
        while !left.is_empty() {
            let done = total - left.len();
            self.wait_for_calls(begin + done * n / total);
            std::thread::sleep(noise.milliseconds(0..20));
            let at = usize::try_from(noise.within(0..left.len() as u64)).expect("an index fits");
            if self.blow(left[at], noise, &mut struck) {
                left.swap_remove(at);
            }
        }
        struck
    }

    fn wait_for_calls(&self, n: usize) {
        wait_for("calls go on", 4 * DEADLINE, || {
            let calls = self.calls.load(Ordering::Relaxed);
            if calls >= n { Ok(()) } else { Err(calls.to_string()) }
        });
    }

    /// Strikes once; false when there is nothing to strike.
    fn blow(&self, fault: Fault, noise: &mut Noise, struck: &mut Struck) -> bool {
        match fault {
            Fault::KillWorker | Fault::PauseWorker | Fault::StopWorker => {
                self.strike_worker(fault, noise, struck)
            }
            Fault::KillServer | Fault::PauseServer | Fault::Garbage => {
                self.strike_server(fault, noise, struck)
            }
            Fault::KillShim => {
                let shim = bed::session(&self.home, |_| {});
                for code in ["await new Promise(() => setInterval(() => {}, 1000))", "while (true) {}"] {
                    shim.start_call(json!({ "deno_code": code }));
                }
                std::thread::sleep(noise.milliseconds(0..50));
                shim.signal(Signal::SIGKILL);
                struck.shims += 1;
                true
            }
            Fault::PauseShim => {
                let shims = self.shims.lock().expect("unpoisoned");
                // Held, so that the process cannot end, and its number be another's, meanwhile.
                noise.choose(&shims).is_some_and(|shim| {
                    pause(*shim, noise.milliseconds(10..200));
                    true
                })
            }
            Fault::PauseDaemon => {
                pause(Pid::from_raw(self.daemon.pid()), noise.milliseconds(10..300));
                true
            }
        }
    }

    fn strike_worker(&self, fault: Fault, noise: &mut Noise, struck: &mut Struck) -> bool {
        let now = process::now_ticks();
        let spare_young = !noise.one_in(8);
        let workers: Vec<_> = self
            .home
            .workers()
            .into_iter()
            .filter(|it| {
                !it.is_zombie() && (now.saturating_sub(it.start_ticks) >= YOUNG_TICKS || !spare_young)
            })
            .collect();
        let Some(victim) = noise.choose(&workers) else { return false };
        let identity = (victim.pid.into(), victim.start_ticks.cast_signed());
        if struck.workers.contains_key(&identity) {
            return false;
        }
        match fault {
            Fault::KillWorker => victim.signal(Signal::SIGKILL),
            Fault::StopWorker => victim.signal(Signal::SIGSTOP),
            _ => {
                victim.signal(Signal::SIGSTOP);
                std::thread::sleep(noise.milliseconds(10..200));
                victim.signal(Signal::SIGCONT);
                return true;
            }
        }
        struck.workers.insert(identity, fault);
        true
    }

    fn strike_server(&self, fault: Fault, noise: &mut Noise, struck: &mut Struck) -> bool {
        // The real one starts slowly: it is struck less often.
        let name = if fault == Fault::KillServer && noise.one_in(6) { STRUCK[1] } else { STRUCK[0] };
        let name = if self.names.iter().any(|it| it == name) { name } else { STRUCK[0] };
        // Five failures without an answer between them would be a server that always fails.
        if self.served.lock().expect("unpoisoned").remove(name).is_none() {
            return false;
        }
        let Some(server) = bed::server(&self.home, name) else { return false };
        let from = Instant::now();
        match fault {
            Fault::KillServer => server.signal(Signal::SIGKILL),
            Fault::Garbage => server.signal(Signal::SIGUSR1),
            _ => {
                // Hangs, and then comes back, or never does.
                server.signal(Signal::SIGSTOP);
                std::thread::sleep(noise.milliseconds(10..400));
                server.signal(if noise.one_in(2) { Signal::SIGCONT } else { Signal::SIGKILL });
            }
        }
        struck.servers.entry(name).or_default().push((from, Instant::now()));
        // Answers that were on their way do not show that it serves again.
        self.served.lock().expect("unpoisoned").remove(name);
        true
    }

    fn judge(&self, calls: &[Call], struck: &Struck) {
        let ran_on: HashMap<String, Identity> = self
            .home
            .logged("execution ended")
            .iter()
            .map(|line| {
                let number = |name: &str| line[name].as_i64().expect("a number");
                (
                    line["execution"].as_str().expect("an id").to_owned(),
                    (number("pid"), number("start_ticks")),
                )
            })
            .collect();
        let excused = |call: &Call| match &call.outcome {
            Outcome::Right => true,
            Outcome::Failed { error, execution, told } => {
                let worker = ran_on.get(execution).and_then(|worker| struck.workers.get(worker));
                let by_worker = match worker {
                    // Also while it lingered after its value.
                    Some(Fault::KillWorker) => error == "exit" || told.contains(STRUCK_LATE),
                    Some(Fault::StopWorker) => error == "timeout",
                    _ => false,
                };
                let blows = call.kind.server.and_then(|name| struck.servers.get(name));
                by_worker
                    || blows.is_some_and(|blows| {
                        blows.iter().any(|(from, to)| *from <= call.answered && call.sent <= *to + WAKE)
                    })
            }
            Outcome::Lost | Outcome::TurnedAway | Outcome::Wrong(_) => false,
        };
        let wrong: Vec<_> = calls
            .iter()
            .filter(|call| !excused(call))
            .map(|call| format!("{call:?} on {:?}", ran_on.get(call.execution())))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} calls: {:#?}",
            wrong.len(),
            calls.len(),
            &wrong[..wrong.len().min(5)]
        );
        for name in CALM {
            assert!(!struck.servers.contains_key(name));
        }
        let hit = calls.iter().filter(|call| !matches!(call.outcome, Outcome::Right)).count();
        assert!(
            hit * 20 >= struck.workers.len(),
            "only {hit} of {} calls were hit, so little was proved",
            calls.len()
        );
        self.each_ran_once(calls);
    }

    fn each_ran_once(&self, calls: &[Call]) {
        let marks = fs::read_to_string(bed::marks(&self.home)).expect("code left marks");
        let mut ran: HashMap<&str, usize> = HashMap::new();
        marks.lines().for_each(|nonce| *ran.entry(nonce).or_default() += 1);
        let twice: Vec<_> = ran.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "ran more than once: {twice:?}");
        let right = calls
            .iter()
            .filter(|call| matches!(call.outcome, Outcome::Right) && call.kind.name != "cancelled");
        let missing: Vec<_> = right.filter(|call| !ran.contains_key(call.nonce.as_str())).collect();
        assert!(missing.is_empty(), "answered and never run: {missing:?}");
    }
}

fn pause(pid: Pid, time: Duration) {
    // It may have ended.
    kill(pid, Signal::SIGSTOP).ok();
    std::thread::sleep(time);
    kill(pid, Signal::SIGCONT).ok();
}

/// Lets the callers end, even if the test fails while they run.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
