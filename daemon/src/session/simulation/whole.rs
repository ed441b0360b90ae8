//! A session from its first frame to its last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conductor_protocol::{ClientKind, FrameDecoder};
use rmcp::ServiceExt;
use tokio::sync::watch;

use super::client::{Client, Tally};
use super::tools::{Ledger, Tools};
use super::{Dice, for_each_seed};
use crate::config::Config;
use crate::dirs::Dirs;
use crate::profile;
use crate::session::connection::Connection;
use crate::session::registry::Registry;
use crate::session::requests::{ClientRouter, Link};
use crate::session::{Kind, Origin, Session, lock};
use crate::supervisor::Phase;

const SEEDS: u64 = 1000;

/// Calls of a simulated session at a time.
const MAX_CALLS: usize = 4;

/// What the socket between client and daemon holds, bytes: little, so that each waits for the other now and then.
const SOCKET_BYTES: usize = 2048;

/// How often a session may be woken in its life; a hundred times what any seed takes.
const MAX_STEPS: usize = 100_000;

#[test]
fn whatever_happens_to_a_session_every_promise_holds() {
    let total = std::cell::RefCell::new((Tally::default(), 0));
    for_each_seed(SEEDS, |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (tally, answered) = runtime.expect("a runtime").block_on(run(seed));
        let (total, questions) = &mut *total.borrow_mut();
        total.answers += tally.answers;
        total.rounds += tally.rounds;
        total.told += tally.told;
        total.cancelled += tally.cancelled;
        total.returned.extend(tally.returned);
        *questions += answered;
    });
    let (total, questions) = total.into_inner();
    // The dice must have thrown what this test is about.
    let rare = total.rounds.min(total.told).min(total.cancelled).min(questions);
    assert!(rare > 20 && total.answers > 100, "{total:?}, {questions} questions answered");
}

async fn run(seed: u64) -> (Tally, usize) {
    let dice = Dice(seed);
    let (phase, phases) = watch::channel(Phase::Running);
    let registry = Registry::default();
    let (link, _logs) = Link::new();
    let session = Arc::new(Session::new(1, anybody(), link));
    let entry = registry.insert(session.clone());
    let (ours, theirs) = tokio::io::duplex(SOCKET_BYTES);
    let is_gone = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(Client::new(seed, theirs, is_gone.clone(), phases.clone()).live());
    let drain = tokio::spawn(go_down(phase, dice));
    let ledger = Arc::default();
    let tools = tools(&session, &registry, phases.clone(), &ledger, seed);
    let gone = session.gone.clone();
    let connection = Connection {
        session: session.clone(),
        phase: phases,
        is_gone: move || is_gone.load(Ordering::Relaxed),
    };
    let serving = |transport, stop| async move {
        if let Ok(running) = tools.serve_with_ct(transport, stop).await {
            drop(running.waiting().await);
        }
        gone.cancel();
    };
    let whole = connection.serve(FrameDecoder::default(), tokio::io::split(ours), serving);
    let whole = tokio::time::timeout(Duration::from_secs(3600), whole);
    within_steps(whole).await.expect("the session ends");
    let tally = client.await.expect("the client is content");
    drain.abort();
    drop(drain.await);
    drop(entry);
    // What was cancelled winds up, and what waits for a client that is gone is given up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_nothing_is_left(&session, &lock(&ledger), &tally);
    let answered = lock(&ledger).answered;
    (tally, answered)
}

/// Fails when `future` goes on without end while no time passes, which no time limit notices: paused time stands still
/// for as long as anything is ready.
async fn within_steps<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut steps = 0;
    std::future::poll_fn(|context| {
        steps += 1;
        assert!(steps < MAX_STEPS, "the session runs in circles");
        future.as_mut().poll(context)
    })
    .await
}

/// The daemon goes down at some time; a session whose client never leaves ends so.
async fn go_down(phase: watch::Sender<Phase>, mut dice: Dice) {
    let after = if dice.one_in(2) { dice.roll(4_000) } else { dice.roll(120_000) };
    tokio::time::sleep(Duration::from_millis(after)).await;
    let grace = Duration::from_millis(dice.roll(20_000));
    let deadline = (tokio::time::Instant::now() + grace).into_std();
    // It stays so for as long as anybody looks.
    phase.send_replace(Phase::Draining { deadline });
    std::future::pending().await
}

fn tools(
    session: &Arc<Session>,
    registry: &Registry,
    phases: watch::Receiver<Phase>,
    ledger: &Arc<std::sync::Mutex<Ledger>>,
    seed: u64,
) -> Tools {
    let dirs = Dirs::from_env(&BTreeMap::new(), Some("/home/user".into())).expect("it is absolute");
    let resolved = profile::resolve(&Config::default(), &BTreeMap::new(), "/", &dirs);
    let mut profile = resolved.expect("the defaults are right");
    profile.max_calls_in_flight = MAX_CALLS;
    let router = Arc::new(ClientRouter::new(registry.clone(), phases));
    Tools { session: session.clone(), profile: Arc::new(profile), router, ledger: ledger.clone(), seed }
}

fn anybody() -> Origin {
    let kind = Kind::Socket(ClientKind::Shim);
    Origin {
        kind,
        pid: 1,
        build: "simulated".to_owned(),
        cwd: "/".to_owned(),
        env: BTreeMap::new(),
        tenant: None,
    }
}

fn assert_nothing_is_left(session: &Arc<Session>, ledger: &Ledger, tally: &Tally) {
    assert_eq!((ledger.running, ledger.asking), (0, 0), "calls go on, or questions wait");
    assert_eq!(*session.in_flight.borrow(), 0, "calls in flight");
    assert!(lock(&session.running).is_empty());
    assert_eq!(Arc::strong_count(session), 1, "something still has the session");
    assert!(ledger.runs.values().all(|runs| *runs == 1), "a call ran twice: {:?}", ledger.runs);
    for serial in &tally.returned {
        assert!(!ledger.runs.contains_key(serial), "call {serial} was given back and ran");
    }
}
