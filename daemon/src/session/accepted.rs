//! The requests of a session that the daemon has promised an answer: so that it can go down without breaking a promise.
//!
//! The transport takes requests until the daemon goes down, and gives later ones back to the client. One that was taken is
//! open until its answer is on its way or the client has cancelled it; between these, it may wait in any queue.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rmcp::model::RequestId;
use tokio::sync::watch;

use crate::supervisor::Phase;

/// See the module. One for each session.
#[derive(Debug)]
pub(crate) struct Accepted {
    phase: watch::Receiver<Phase>,
    open: Mutex<HashSet<RequestId>>,
    /// How many are open.
    count: watch::Sender<usize>,
}

impl Accepted {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self { phase, open: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// Takes a request; false when it must be given back.
    pub(crate) fn take(&self, id: &RequestId) -> bool {
        let may = !self.is_over();
        if may {
            self.change(|open| open.insert(id.clone()));
        }
        may
    }

    /// The request is answered, or the client wants no answer any more.
    pub(crate) fn close(&self, id: &RequestId) {
        self.change(|open| open.remove(id));
    }

    /// True when no more requests are taken.
    pub(crate) fn is_over(&self) -> bool {
        self.phase.borrow().is_draining()
    }

    /// How many are open.
    pub(crate) fn open(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<RequestId>) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut open);
        self.count.send_replace(open.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn nothing_is_taken_once_the_daemon_goes_down_and_what_was_is_waited_for() {
        let (phase, reader) = watch::channel(Phase::Running);
        let accepted = Accepted::new(reader);
        let id = |n| RequestId::Number(n);
        assert!(accepted.take(&id(1)) && accepted.take(&id(2)));
        phase.send_replace(Phase::Draining { deadline: Instant::now() });
        assert!(!accepted.take(&id(3)));
        accepted.close(&id(1));
        accepted.close(&id(1));
        assert_eq!(*accepted.open().borrow(), 1);
        accepted.close(&id(2));
        assert_eq!(*accepted.open().borrow(), 0);
    }
}
