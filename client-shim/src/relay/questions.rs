//! Questions of daemons to the client: under which id each side knows them, and whose they are.
//!
//! An answer reaches the daemon that asked, or none. Pure.

use std::collections::VecDeque;

use super::push_bounded;
use crate::envelope::Id;

/// Most questions of a daemon that the client has not answered; some clients never do. Beyond it the oldest is forgotten, and
/// a late answer to it is not forwarded.
const MAX_ASKED: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Those of this link's daemon that are not answered, as the client knows them.
    asked: VecDeque<Asked>,
    /// Ids of questions of earlier daemons, which the client may still answer.
    stale: VecDeque<Id>,
}

#[derive(Debug)]
struct Asked {
    /// As the client knows it.
    ours: Id,
    /// As the daemon knows it.
    daemons: Id,
}

impl Questions {
    /// The client may still answer an earlier daemon's question under this id.
    pub(super) fn is_stale(&self, id: &Id) -> bool {
        self.stale.contains(id)
    }

    /// The daemon asks, under its id, what the client knows by ours.
    pub(super) fn asked(&mut self, ours: Id, daemons: Id) {
        push_bounded(&mut self.asked, Asked { ours, daemons }, MAX_ASKED);
    }

    /// The client answers: gives the daemon's id, unless that daemon waits no longer.
    pub(super) fn answered(&mut self, ours: &Id) -> Option<Id> {
        match self.asked.iter().position(|asked| asked.ours == *ours) {
            Some(at) => self.asked.remove(at).map(|asked| asked.daemons),
            None => {
                self.stale.retain(|stale| stale != ours);
                None
            }
        }
    }

    /// The daemon waits for the answer no longer: gives the client's id, unless it has answered.
    pub(super) fn withdrawn(&mut self, daemons: &Id) -> Option<Id> {
        let at = self.asked.iter().position(|asked| asked.daemons == *daemons)?;
        self.asked.remove(at).map(|asked| asked.ours)
    }

    /// The daemon is gone: gives the ids of the questions that it waits for no longer.
    pub(super) fn daemon_lost(&mut self) -> Vec<Id> {
        let ids: Vec<Id> = self.asked.drain(..).map(|asked| asked.ours).collect();
        for id in &ids {
            push_bounded(&mut self.stale, id.clone(), MAX_ASKED);
        }
        ids
    }
}
