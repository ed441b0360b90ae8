//! How a session on a socket ends. Pure: it is told what happens and when, and says what is to be done.
//!
//! ```text
//! Serving ──the client closes its sending side──▶ Closing ──all is answered─────────────────────▶ Over
//!    │                                               └──it is gone, or has had its time──▶ Winding up ──▶ Over
//!    └────────the daemon goes down────────▶ Leaving ──the client is silent, and all is answered──▶ Over
//!                                              └──it is gone, or the deadline is there──▶ Winding up ──▶ Over
//! ```
//!
//! While `Closing` the client may still read answers to what it sent before. While `Leaving` it is told that the daemon goes
//! down; what it sent before it knew is taken, or given back, and what was taken is answered. A client that is gone
//! altogether is waited for by nobody: its calls are ended. So are those of a session that is out of time, and in `Winding up`
//! they are answered as cancelled. rmcp goes on until `Over`, because without it a call that has something to tell hangs.

use std::time::{Duration, Instant};

/// What a client that has closed only its sending side may still wait for: calls that were sent before it.
pub(super) const HALF_CLOSED_GRACE: Duration = Duration::from_secs(4);

/// How long a client may take to close its sending side after it was told that the daemon goes down. Ours do so when they read
/// it; one that does not read, or is of another kind, is not waited for.
pub(super) const FAREWELL_TIME: Duration = Duration::from_secs(3);

/// How long calls that were ended may take to say so: some milliseconds, unless the client does not read.
pub(super) const WINDING_UP_TIME: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Ending {
    stage: Stage,
    /// The client has closed its sending side, or has had its time to do so.
    is_silent: bool,
    /// When everything must be over, once the daemon goes down.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Closing {
        until: Instant,
    },
    WindingUp {
        until: Instant,
    },
    /// `silent_by`: when the client has had its time, once it has been told.
    Leaving {
        silent_by: Option<Instant>,
    },
    Over,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The client has closed its sending side, and all that it sent has been read.
    Closed,
    /// The client has closed both directions, or its process has ended.
    Gone,
    /// The daemon goes down.
    Draining { deadline: Instant },
    /// The client has been told of it, or cannot be.
    Told,
    /// Time has passed, or a promise was kept.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell the client that the daemon goes down; then [`Event::Told`].
    Tell,
    /// End its calls: nobody waits for them.
    EndCalls,
    /// Serve it no longer; what is answered already still leaves.
    Stop,
}

impl Ending {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Serving, is_silent: false, deadline: None }
    }

    /// True until the daemon goes down.
    pub(super) fn awaits_draining(&self) -> bool {
        self.deadline.is_none()
    }

    /// True while it matters whether the client closes its sending side.
    pub(super) fn awaits_close(&self) -> bool {
        !self.is_silent
    }

    /// True when it matters whether the client is gone.
    pub(super) fn awaits_departure(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. } | Stage::Leaving { .. })
    }

    /// True when it matters whether anything is promised still.
    pub(super) fn awaits_quiet(&self) -> bool {
        !matches!(self.stage, Stage::Serving | Stage::Over)
    }

    /// When to come back with [`Event::Tick`], if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Closing { until } | Stage::WindingUp { until } => Some(until),
            Stage::Leaving { silent_by } => {
                let silent_by = silent_by.filter(|_| !self.is_silent);
                silent_by.into_iter().chain(self.deadline).min()
            }
            Stage::Serving | Stage::Over => None,
        }
    }

    /// Decides. `is_quiet`: no request waits for its answer, and no call is in flight.
    pub(super) fn on(&mut self, now: Instant, event: Event, is_quiet: bool) -> Vec<Effect> {
        match event {
            Event::Closed => self.is_silent = true,
            Event::Draining { deadline } => self.deadline = Some(deadline),
            Event::Told => {
                if let Stage::Leaving { silent_by: silent_by @ None } = &mut self.stage {
                    *silent_by = Some(now + FAREWELL_TIME);
                }
            }
            Event::Gone | Event::Tick => {}
        }
        if let Stage::Leaving { silent_by: Some(silent_by) } = self.stage {
            self.is_silent |= now >= silent_by;
        }
        let mut effects = Vec::new();
        while let Some((stage, mut following)) = self.next(now, event, is_quiet) {
            self.stage = stage;
            effects.append(&mut following);
        }
        effects
    }

    /// The stage that follows now, and what is to be done with it.
    fn next(&self, now: Instant, event: Event, is_quiet: bool) -> Option<(Stage, Vec<Effect>)> {
        let is_gone = event == Event::Gone;
        let stop = || Some((Stage::Over, vec![Effect::Stop]));
        let wind_up = || Some((Stage::WindingUp { until: now + WINDING_UP_TIME }, vec![Effect::EndCalls]));
        match (self.stage, self.deadline) {
            (Stage::Serving, Some(_)) => Some((Stage::Leaving { silent_by: None }, vec![Effect::Tell])),
            (Stage::Serving, None) if self.is_silent => {
                Some((Stage::Closing { until: now + HALF_CLOSED_GRACE }, Vec::new()))
            }
            (Stage::Closing { .. }, _) if is_quiet => stop(),
            (Stage::Closing { until }, _) if is_gone || now >= until => wind_up(),
            (Stage::WindingUp { until }, _) if is_quiet || now >= until => stop(),
            (Stage::Leaving { silent_by: Some(_) }, _) if is_quiet && self.is_silent => stop(),
            (Stage::Leaving { .. }, Some(deadline)) if is_gone || now >= deadline => wind_up(),
            _ => None,
        }
    }
}
