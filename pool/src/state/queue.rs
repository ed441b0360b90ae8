//! Callers who wait for a worker: round robin over sessions, first come first served within one.
//!
//! A session that was served goes to the end of the turn, so while a session waits for a profile, every other session
//! gets at most one worker of it. Sessions are ranked over all profiles together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{ProfileId, WaiterId};

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) id: WaiterId,
    pub(super) session: u64,
    pub(super) profile: ProfileId,
    pub(super) since: Duration,
    pub(super) until: Duration,
}

/// Invariant: `turn` holds each session that has a line exactly once, and no line is empty.
#[derive(Debug, Default)]
pub(super) struct Queue {
    turn: VecDeque<u64>,
    lines: HashMap<u64, VecDeque<Waiter>>,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn waiting_for(&self, profile: ProfileId) -> usize {
        self.all().filter(|waiter| waiter.profile == profile).count()
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        let line = self.lines.entry(waiter.session).or_default();
        if line.is_empty() {
            self.turn.push_back(waiter.session);
        }
        line.push_back(waiter);
        self.len += 1;
    }

    /// The waiter whose turn it is among those who want this profile.
    pub(super) fn take(&mut self, profile: ProfileId) -> Option<Waiter> {
        let (place, session, position) = self.turn.iter().enumerate().find_map(|(place, session)| {
            let position = self.lines[session].iter().position(|waiter| waiter.profile == profile)?;
            Some((place, *session, position))
        })?;
        let line = self.lines.get_mut(&session).expect("a session in turn has a line");
        let waiter = line.remove(position);
        self.len -= 1;
        self.turn.remove(place);
        if line.is_empty() {
            self.lines.remove(&session);
        } else {
            self.turn.push_back(session);
        }
        waiter
    }

    /// Takes out every waiter that matches, without changing whose turn it is.
    pub(super) fn remove_where(&mut self, matches: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut removed: Vec<Waiter> = Vec::new();
        self.lines.retain(|_, line| {
            removed.extend(line.iter().filter(|waiter| matches(waiter)));
            line.retain(|waiter| !matches(waiter));
            !line.is_empty()
        });
        self.turn.retain(|session| self.lines.contains_key(session));
        self.len -= removed.len();
        removed.sort_by_key(|waiter| waiter.id);
        removed
    }

    /// The profiles of all waiters, in the order in which they would be served if workers of every profile came.
    pub(super) fn profiles_in_order(&self) -> Vec<ProfileId> {
        let rounds = self.lines.values().map(VecDeque::len).max().unwrap_or(0);
        (0..rounds)
            .flat_map(|round| self.turn.iter().filter_map(move |session| self.lines[session].get(round)))
            .map(|waiter| waiter.profile)
            .collect()
    }

    pub(super) fn first_deadline(&self) -> Option<Duration> {
        self.all().map(|waiter| waiter.until).min()
    }

    fn all(&self) -> impl Iterator<Item = &Waiter> {
        self.lines.values().flatten()
    }
}
