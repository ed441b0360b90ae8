//! When a connection starts, stops, is pinged and is left alone: the rules, without any I/O.
//!
//! In: what happened, with the time. Out: what to do. The task in `connection/task.rs` does it and reports back. There is
//! at most one current server; one that was retired is finished with by the task and never comes back here.

use std::time::{Duration, Instant};

use crate::config::{Life, Start};

/// First pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause while the breaker is closed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Failures in a row that open the breaker: calls are then refused at once instead of waiting for the next attempt.
const BREAKER: u32 = 5;

/// First pause with an open breaker; each further failure doubles it.
const FIRST_OPEN_PAUSE: Duration = Duration::from_secs(30);

const LONGEST_OPEN_PAUSE: Duration = Duration::from_secs(300);

/// A server that lived this long was sound: its end is the first failure of a new row.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// How long a silent, unused server is trusted before it is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(60);

/// What the task must do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a server; answer with [`State::started`] or [`State::failed`].
    Start,
    /// Give the current server to nobody any more, and end it once its calls are done.
    Retire(Why),
    /// Ask the current server for a sign of life; answer with [`State::pinged`].
    Ping,
}

/// Why a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Idle,
    Lifetime,
    Unhealthy,
    Asked,
}

/// What a call that wants the server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Use,
    /// An attempt runs or will; its outcome answers the call.
    Wait,
    /// The breaker is open until then.
    Refuse(Instant),
}

#[derive(Debug)]
pub(crate) struct State {
    life: Life,
    phase: Phase,
    /// In a row, without a sound server between them.
    failures: u32,
    /// Somebody waits for a server.
    wanted: bool,
    /// An operator stopped it: it starts when it is wanted, not by itself.
    held: bool,
    /// Somebody wants to hear what it announces: it runs, called or not.
    watched: bool,
    random: fastrand::Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Paused { until: Instant },
    Starting,
    Ready(Ready),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ready {
    since: Instant,
    used_at: Instant,
    in_flight: usize,
    heard_at: Instant,
    pinging: bool,
    /// A call has run into its timeout, and nothing was heard since.
    suspect: bool,
}

/// The phase, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhaseStatus {
    Idle,
    Starting,
    Ready {
        since: Instant,
    },
    /// Not before then; `open` if calls are refused meanwhile.
    Paused {
        until: Instant,
        open: bool,
    },
}

impl State {
    pub(crate) fn new(life: Life, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { life, phase: Phase::Idle, failures: 0, wanted: false, held: false, watched: false, random }
    }

    pub(crate) fn status(&self) -> PhaseStatus {
        match self.phase {
            Phase::Idle => PhaseStatus::Idle,
            Phase::Starting => PhaseStatus::Starting,
            Phase::Ready(Ready { since, .. }) => PhaseStatus::Ready { since },
            Phase::Paused { until } => PhaseStatus::Paused { until, open: self.failures >= BREAKER },
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A call wants the server. On [`Verdict::Use`] it counts as in flight until [`State::released`].
    pub(crate) fn want(&mut self, now: Instant) -> Verdict {
        self.held = false;
        match &mut self.phase {
            Phase::Ready(ready) => {
                ready.in_flight += 1;
                ready.used_at = now;
                Verdict::Use
            }
            Phase::Paused { until } if self.failures >= BREAKER && now < *until => Verdict::Refuse(*until),
            _ => {
                self.wanted = true;
                Verdict::Wait
            }
        }
    }

    /// Calls of the current server are over, `in_flight` are left; `answered` if the server answered one of them, which
    /// proves it sound.
    pub(crate) fn released(&mut self, now: Instant, in_flight: usize, answered: bool) {
        let Phase::Ready(ready) = &mut self.phase else { return };
        ready.in_flight = in_flight;
        ready.used_at = now;
        if answered {
            ready.heard_at = now;
            ready.suspect = false;
            self.failures = 0;
        }
    }

    pub(crate) fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Whether it starts by itself.
    fn is_kept(&self) -> bool {
        !self.held && (self.watched || self.life.start == Start::Eager)
    }

    /// How long it may be unused; an eager server is never idle, nor is one that is watched.
    fn idle_stop(&self) -> Option<Duration> {
        self.life.idle_timeout.filter(|_| self.life.start == Start::Lazy && !self.watched)
    }

    /// A call of the current server ran into its timeout: the server hangs, or just that call does. A sign of life tells,
    /// and is asked for while more calls wait: under steady calls a server that hangs would never be unused.
    pub(crate) fn timed_out(&mut self) {
        if let Phase::Ready(ready) = &mut self.phase {
            ready.suspect = true;
        }
    }

    pub(crate) fn started(&mut self, now: Instant) {
        debug_assert_eq!(self.phase, Phase::Starting);
        self.wanted = false;
        self.phase = Phase::Ready(Ready {
            since: now,
            used_at: now,
            in_flight: 0,
            heard_at: now,
            pinging: false,
            suspect: false,
        });
    }

    /// The attempt failed; whoever waited was told.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.wanted = false;
        self.pause(now);
    }

    /// The current server ended by itself.
    pub(crate) fn lost(&mut self, now: Instant) {
        let Phase::Ready(ready) = self.phase else { return };
        let sound = now.saturating_duration_since(ready.since) >= SOUND_AFTER;
        self.failures = if sound { 1 } else { self.failures.saturating_add(1) };
        self.pause(now);
    }

    pub(crate) fn pinged(&mut self, now: Instant, answered: bool) -> Option<Action> {
        let Phase::Ready(ready) = &mut self.phase else { return None };
        ready.pinging = false;
        if answered {
            ready.heard_at = now;
            ready.suspect = false;
            return None;
        }
        // Whoever computes for a call cannot answer; the call has a timeout of its own.
        if ready.in_flight > 0 && !ready.suspect {
            ready.heard_at = now;
            return None;
        }
        self.lost(now);
        Some(Action::Retire(Why::Unhealthy))
    }

    /// An operator ends the server, or the attempt to start it, which the task then drops; it starts again when it is
    /// wanted.
    pub(crate) fn stop(&mut self) -> Option<Action> {
        self.held = true;
        self.failures = 0;
        self.wanted = false;
        let was_ready = matches!(self.phase, Phase::Ready(_));
        self.phase = Phase::Idle;
        was_ready.then_some(Action::Retire(Why::Asked))
    }

    /// An operator wants a fresh server, whatever failed before.
    pub(crate) fn restart(&mut self) -> Option<Action> {
        let retire = self.stop();
        self.held = false;
        self.wanted = true;
        retire
    }

    /// Everything that is due now. Call it after each event and at [`State::next_wakeup`].
    pub(crate) fn due(&mut self, now: Instant) -> Option<Action> {
        let (is_kept, idle_stop) = (self.is_kept(), self.idle_stop());
        match &mut self.phase {
            Phase::Paused { until } if now >= *until => {
                self.phase = Phase::Idle;
                self.due(now)
            }
            Phase::Idle if self.wanted || is_kept => {
                self.phase = Phase::Starting;
                Some(Action::Start)
            }
            Phase::Ready(ready) => {
                if self.life.max_lifetime.is_some_and(|max| now >= ready.since + max) {
                    self.phase = Phase::Idle;
                    return Some(Action::Retire(Why::Lifetime));
                }
                if ready.suspect && !ready.pinging {
                    ready.pinging = true;
                    return Some(Action::Ping);
                }
                if ready.in_flight > 0 {
                    return None;
                }
                if idle_stop.is_some_and(|idle| now >= ready.used_at + idle) {
                    self.phase = Phase::Idle;
                    return Some(Action::Retire(Why::Idle));
                }
                if !ready.pinging && now >= ready.heard_at + PING_EVERY {
                    ready.pinging = true;
                    return Some(Action::Ping);
                }
                None
            }
            Phase::Idle | Phase::Paused { .. } | Phase::Starting => None,
        }
    }

    /// When [`State::due`] must be asked again if nothing happens before.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        match self.phase {
            Phase::Paused { until } => (self.wanted || self.is_kept()).then_some(until),
            Phase::Ready(ready) => {
                let old = self.life.max_lifetime.map(|max| ready.since + max);
                let unused = ready.in_flight == 0;
                let idle = self.idle_stop().filter(|_| unused).map(|idle| ready.used_at + idle);
                let ping = (unused && !ready.pinging).then_some(ready.heard_at + PING_EVERY);
                [old, idle, ping].into_iter().flatten().min()
            }
            Phase::Idle | Phase::Starting => None,
        }
    }

    fn pause(&mut self, now: Instant) {
        let (first, longest, step) = if self.failures >= BREAKER {
            (FIRST_OPEN_PAUSE, LONGEST_OPEN_PAUSE, self.failures - BREAKER)
        } else {
            (FIRST_PAUSE, LONGEST_PAUSE, self.failures.saturating_sub(1))
        };
        let whole = first.saturating_mul(1 << step.min(16)).min(longest);
        // Half of it at random: many daemons that lost the same server must not return at once.
        let pause = whole.mul_f64(0.5 + self.random.f64() / 2.0);
        self.phase = Phase::Paused { until: now + pause };
    }
}

#[cfg(test)]
mod tests;
