//! The end of a session: events in any order, and what may follow from them.

use std::time::{Duration, Instant};

use super::{Dice, for_each_seed};
use crate::session::ending::{Effect, Ending, Event, FAREWELL_TIME, HALF_CLOSED_GRACE, WINDING_UP_TIME};

const SEEDS: u64 = 1000;
const EVENTS: usize = 80;
const MS: Duration = Duration::from_millis(1);

/// What has happened, and when.
struct Account {
    now: Instant,
    closed_at: Option<Instant>,
    gone: bool,
    deadline: Option<Instant>,
    told_at: Option<Instant>,
    quiet: bool,
    tells: usize,
    calls_ended_at: Option<Instant>,
    stops: usize,
}

#[test]
fn no_schedule_breaks_a_rule_of_the_end() {
    for_each_seed(SEEDS, |seed| {
        let mut dice = Dice(seed);
        let mut ending = Ending::new();
        let start = Instant::now();
        let mut account = Account {
            now: start,
            closed_at: None,
            gone: false,
            deadline: None,
            told_at: None,
            quiet: true,
            tells: 0,
            calls_ended_at: None,
            stops: 0,
        };
        for _ in 0..EVENTS {
            account.quiet = if dice.one_in(4) { !account.quiet } else { account.quiet };
            let event = account.next_event(&ending, &mut dice);
            account.check(&mut ending, event);
        }
        account.come_to_rest(&mut ending);
    });
}

impl Account {
    /// An event that may come now: each of those that are awaited, or time.
    fn next_event(&mut self, ending: &Ending, dice: &mut Dice) -> Event {
        match dice.roll(12) {
            0 if ending.awaits_close() => {
                self.closed_at = Some(self.now);
                Event::Closed
            }
            1 if ending.awaits_departure() => {
                self.gone = true;
                Event::Gone
            }
            2 if ending.awaits_draining() => {
                let deadline = self.now + MS * u32::try_from(dice.roll(8000)).expect("small");
                self.deadline = Some(deadline);
                Event::Draining { deadline }
            }
            3..=5 if self.tells == 1 && self.told_at.is_none() => {
                self.told_at = Some(self.now);
                Event::Told
            }
            _ => {
                let passed = MS * u32::try_from(dice.roll(900)).expect("small");
                self.now =
                    ending.wake_at().map_or(self.now + passed, |at| at.min(self.now + passed)).max(self.now);
                Event::Tick
            }
        }
    }

    fn check(&mut self, ending: &mut Ending, event: Event) {
        let is_stopped = self.stops > 0;
        for effect in ending.on(self.now, event, self.quiet) {
            assert!(!is_stopped, "{effect:?} after the end, on {event:?}");
            match effect {
                Effect::Tell => {
                    self.tells += 1;
                    assert!(self.deadline.is_some(), "it is told of what is not");
                }
                Effect::EndCalls => {
                    let before = self.calls_ended_at.replace(self.now);
                    assert!(before.is_none(), "calls end twice");
                    let had_its_time = self.closed_at.is_some_and(|at| self.now >= at + HALF_CLOSED_GRACE);
                    assert!(self.gone || had_its_time || self.is_late(), "calls end that somebody waits for");
                }
                Effect::Stop => {
                    self.stops += 1;
                    assert!(self.may_end(), "a promise is broken on {event:?}");
                }
            }
        }
        assert!(self.tells <= 1 && self.stops <= 1);
        if self.stops == 0 {
            assert!(ending.wake_at().is_none_or(|at| at > self.now), "a wake-up in the past");
            assert!(!self.must_end(), "it goes on");
            let must_end_calls = self.tells == 1 && (self.is_late() || self.gone);
            assert!(!must_end_calls || self.calls_ended_at.is_some(), "calls go on that nobody waits for");
        }
    }

    /// All that was promised is done, or there is no more time for it.
    fn may_end(&self) -> bool {
        match self.calls_ended_at {
            Some(at) => self.quiet || self.now >= at + WINDING_UP_TIME,
            None => self.quiet && (self.closed_at.is_some() || self.may_leave()),
        }
    }

    fn must_end(&self) -> bool {
        let is_closing = self.tells == 0 && self.closed_at.is_some();
        self.may_end() && (self.calls_ended_at.is_some() || is_closing || self.may_leave())
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// The client knows, sends no more, and nothing is open.
    fn may_leave(&self) -> bool {
        let Some(told_at) = self.told_at else { return false };
        self.quiet && (self.closed_at.is_some() || self.now >= told_at + FAREWELL_TIME)
    }

    /// The daemon goes down at last, and nothing happens any more but time.
    fn come_to_rest(&mut self, ending: &mut Ending) {
        if ending.awaits_draining() {
            let deadline = self.now + Duration::from_secs(60);
            self.deadline = Some(deadline);
            self.check(ending, Event::Draining { deadline });
        }
        for _ in 0..4 {
            let Some(at) = ending.wake_at() else { break };
            self.now = at;
            self.check(ending, Event::Tick);
        }
        assert_eq!(self.stops, 1, "the session never ends");
    }
}
