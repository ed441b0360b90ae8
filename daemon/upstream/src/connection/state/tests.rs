use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lazy() -> Life {
    Life { start: Start::Lazy, idle_timeout: Some(600 * SECOND), max_lifetime: None }
}

fn ready(life: Life, now: Instant) -> State {
    let mut state = State::new(life, 7);
    assert_eq!(state.want(now), Verdict::Wait);
    assert_eq!(state.due(now), Some(Action::Start));
    state.started(now);
    state
}

#[test]
fn a_lazy_server_starts_when_it_is_wanted_and_an_eager_one_at_once() {
    let now = Instant::now();
    assert_eq!(State::new(lazy(), 1).due(now), None);
    let mut state = State::new(Life { start: Start::Eager, ..lazy() }, 1);
    assert_eq!(state.due(now), Some(Action::Start));
    assert_eq!(state.due(now), None, "one attempt at a time");
    state.started(now);
    assert_eq!(state.next_wakeup(), Some(now + PING_EVERY), "eager servers do not end for being idle");
}

#[test]
fn an_unused_server_ends_and_a_used_one_does_not() {
    let now = Instant::now();
    let mut state = ready(lazy(), now);
    assert_eq!(state.want(now), Verdict::Use);
    assert_eq!(state.due(now + 6000 * SECOND), None);
    assert_eq!(state.next_wakeup(), None);
    state.released(now + 6000 * SECOND, 0, true);
    assert_eq!(state.due(now + 6601 * SECOND), Some(Action::Retire(Why::Idle)));
    assert_eq!(state.status(), PhaseStatus::Idle);
}

#[test]
fn a_watched_server_goes_on_and_comes_back() {
    let now = Instant::now();
    let mut state = ready(lazy(), now);
    state.set_watched(true);
    assert_eq!(
        state.next_wakeup(),
        Some(now + PING_EVERY),
        "it is not idle, and still asked for a sign of life"
    );
    state.lost(now);
    let until = state.next_wakeup().expect("a pause");
    assert_eq!(state.due(until), Some(Action::Start), "although nobody calls it");
    state.started(until);
    state.set_watched(false);
    assert_eq!(state.due(until + 601 * SECOND), Some(Action::Retire(Why::Idle)));
    state.set_watched(true);
    assert_eq!(state.due(until + 601 * SECOND), Some(Action::Start));
    state.started(until + 601 * SECOND);
    assert_eq!(state.stop(), Some(Action::Retire(Why::Asked)));
    assert_eq!(state.due(until + 602 * SECOND), None, "an operator stopped it");
}

#[test]
fn an_old_server_is_replaced_even_while_it_is_used() {
    let now = Instant::now();
    let mut state = ready(Life { max_lifetime: Some(10 * SECOND), ..lazy() }, now);
    assert_eq!(state.want(now), Verdict::Use);
    assert_eq!(state.next_wakeup(), Some(now + 10 * SECOND));
    assert_eq!(state.due(now + 10 * SECOND), Some(Action::Retire(Why::Lifetime)));
    assert_eq!(state.want(now + 10 * SECOND), Verdict::Wait);
    assert_eq!(state.due(now + 10 * SECOND), Some(Action::Start));
}

#[test]
fn after_a_crash_the_next_call_gets_a_fresh_server_soon() {
    let now = Instant::now();
    let mut state = ready(lazy(), now);
    state.lost(now);
    assert_eq!(state.want(now), Verdict::Wait);
    assert_eq!(state.due(now), None);
    let until = state.next_wakeup().expect("a pause");
    assert!(until - now <= FIRST_PAUSE && until - now >= FIRST_PAUSE / 2);
    assert_eq!(state.due(until), Some(Action::Start));
}

#[test]
fn pauses_grow_and_the_breaker_opens_and_closes() {
    let mut now = Instant::now();
    let mut state = State::new(lazy(), 3);
    let mut last = Duration::ZERO;
    for failure in 1..BREAKER {
        assert_eq!(state.want(now), Verdict::Wait, "{failure}");
        let until = state.next_wakeup().unwrap_or(now);
        assert_eq!(state.due(until), Some(Action::Start));
        state.failed(until);
        now = until;
        let PhaseStatus::Paused { until, open: false } = state.status() else {
            panic!("{:?}", state.status())
        };
        assert!(until - now > last / 2, "{failure}");
        last = until - now;
    }
    assert_eq!(state.want(now), Verdict::Wait);
    let until = state.next_wakeup().expect("a pause");
    assert_eq!(state.due(until), Some(Action::Start));
    state.failed(until);
    let PhaseStatus::Paused { until: open_until, open: true } = state.status() else {
        panic!("{:?}", state.status())
    };
    assert_eq!(state.want(until), Verdict::Refuse(open_until));
    assert_eq!(state.want(open_until), Verdict::Wait, "one attempt is allowed");
    assert_eq!(state.due(open_until), Some(Action::Start));
    state.started(open_until);
    assert_eq!(state.want(open_until), Verdict::Use);
    state.released(open_until, 0, true);
    assert_eq!(state.failures(), 0);
}

#[test]
fn a_silent_idle_server_is_ended_and_a_busy_one_is_not() {
    let now = Instant::now();
    let mut state = ready(lazy(), now);
    let later = now + PING_EVERY;
    assert_eq!(state.due(later), Some(Action::Ping));
    assert_eq!(state.due(later), None, "one ping at a time");
    assert_eq!(state.pinged(later, true), None);
    assert_eq!(state.due(later + PING_EVERY), Some(Action::Ping));
    assert_eq!(state.want(later + PING_EVERY), Verdict::Use);
    assert_eq!(state.pinged(later + PING_EVERY, false), None);
    state.released(later + PING_EVERY, 0, false);
    assert_eq!(state.due(later + 2 * PING_EVERY), Some(Action::Ping));
    assert_eq!(state.pinged(later + 2 * PING_EVERY, false), Some(Action::Retire(Why::Unhealthy)));
}

#[test]
fn a_stopped_server_stays_away_until_it_is_wanted_and_a_restart_forgets_failures() {
    let now = Instant::now();
    let mut state = State::new(Life { start: Start::Eager, ..lazy() }, 1);
    assert_eq!(state.due(now), Some(Action::Start));
    state.started(now);
    assert_eq!(state.stop(), Some(Action::Retire(Why::Asked)));
    assert_eq!(state.due(now), None);
    assert_eq!(state.want(now), Verdict::Wait);
    assert_eq!(state.due(now), Some(Action::Start));
    for _ in 0..9 {
        state.phase = Phase::Starting;
        state.failed(now);
    }
    assert!(matches!(state.want(now), Verdict::Refuse(_)));
    assert_eq!(state.restart(), None);
    assert_eq!(state.due(now), Some(Action::Start));
}

/// Random histories keep the rules: one attempt at a time, none before its pause is over, no server taken from a call for
/// being idle, and a want is always answered in the end.
#[test]
fn random_histories_keep_the_rules() {
    for seed in 0..2000 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let life = Life {
        start: if random.bool() { Start::Eager } else { Start::Lazy },
        idle_timeout: random.bool().then_some(random.u32(1..200) * SECOND),
        max_lifetime: random.bool().then_some(random.u32(1..900) * SECOND),
    };
    let mut state = State::new(life, seed);
    let mut now = Instant::now();
    let (mut starting, mut ready, mut in_flight, mut pinging) = (false, false, 0_usize, false);
    let mut not_before = now;
    for _ in 0..300 {
        while let Some(action) = state.due(now) {
            match action {
                Action::Start => {
                    assert!(!starting && !ready && now >= not_before, "seed {seed}");
                    starting = true;
                }
                Action::Retire(why) => {
                    assert!(ready && (why != Why::Idle || in_flight == 0), "seed {seed}: {why:?}");
                    (ready, pinging, in_flight) = (false, false, 0);
                }
                Action::Ping => {
                    assert!(ready && !pinging && in_flight == 0, "seed {seed}");
                    pinging = true;
                }
            }
        }
        assert!(
            state.next_wakeup().is_none_or(|at| at > now),
            "seed {seed}: a wakeup in the past would spin"
        );
        match random.u8(0..10) {
            0..3 => match state.want(now) {
                Verdict::Use => {
                    assert!(ready, "seed {seed}");
                    in_flight += 1;
                }
                Verdict::Refuse(until) => assert!(!ready && !starting && until > now, "seed {seed}"),
                Verdict::Wait => assert!(!ready, "seed {seed}"),
            },
            3..5 if in_flight > 0 => {
                in_flight -= 1;
                state.released(now, in_flight, random.bool());
            }
            5 if starting => {
                starting = false;
                if random.bool() {
                    state.started(now);
                    ready = true;
                } else {
                    state.failed(now);
                    not_before = now + FIRST_PAUSE / 2;
                }
            }
            6 if ready => {
                (ready, pinging, in_flight) = (false, false, 0);
                state.lost(now);
                not_before = now + FIRST_PAUSE / 2;
            }
            7 if pinging => {
                pinging = false;
                if state.pinged(now, random.bool()).is_some() {
                    ready = false;
                    not_before = now + FIRST_PAUSE / 2;
                }
            }
            8 if random.u8(0..8) == 0 => {
                assert_eq!(state.stop().is_some(), ready, "seed {seed}");
                (starting, ready, pinging, in_flight) = (false, false, false, 0);
                not_before = now;
            }
            _ => {
                now = match state.next_wakeup() {
                    Some(at) if random.bool() => at,
                    _ => now + random.u32(0..20_000) * Duration::from_millis(1),
                };
            }
        }
    }
    if starting {
        state.started(now);
    }
    state.restart();
    for _ in 0..3 {
        if state.due(now) == Some(Action::Start) {
            state.started(now);
        }
    }
    assert_eq!(state.want(now), Verdict::Use, "seed {seed}");
}

#[test]
fn a_server_that_hangs_under_calls_is_replaced_and_one_that_is_busy_is_not() {
    let now = Instant::now();
    for answers in [true, false] {
        let mut state = ready(lazy(), now);
        assert_eq!(state.want(now), Verdict::Use);
        assert_eq!(state.want(now), Verdict::Use);
        state.timed_out();
        state.released(now + SECOND, 1, false);
        assert_eq!(state.due(now + SECOND), Some(Action::Ping), "although another call waits");
        assert_eq!(state.due(now + SECOND), None, "one at a time");
        let retired = state.pinged(now + 20 * SECOND, answers);
        assert_eq!(retired, (!answers).then_some(Action::Retire(Why::Unhealthy)));
        assert_eq!(state.want(now + 20 * SECOND), if answers { Verdict::Use } else { Verdict::Wait });
    }
    let mut state = ready(lazy(), now);
    assert_eq!(state.want(now), Verdict::Use);
    assert_eq!(state.want(now), Verdict::Use);
    state.timed_out();
    assert_eq!(state.due(now), Some(Action::Ping));
    state.released(now, 1, true);
    assert_eq!(state.pinged(now + 20 * SECOND, false), None, "it has answered a call meanwhile");
}
