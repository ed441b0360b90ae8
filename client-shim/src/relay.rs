//! The shim's memory and judgement, without I/O: which message goes where, and what becomes of a session whose daemon goes
//! away.
//!
//! In: messages of the client (the IDE) and of the daemon, and what happens to the link between shim and daemon. Out: a
//! [`Verdict`] for each client message, and [`Effect`]s. Owner: `shim`, behind one lock, held only for the decision.
//!
//! # Promises
//! - A request gets exactly one answer: the daemon's, or an error of the shim's; never two, never none. (A request that the
//!   client cancelled may get none, as MCP has it.)
//! - A request that the daemon may have taken is not sent again, unless its method is [safe to repeat](is_repeatable). One
//!   that the daemon gives back was not taken.
//! - The client's messages reach a daemon in the order in which they came.
//! - An answer to a daemon's question never reaches another daemon.
//!
//! # The life of a link
//! `Down` (one is wanted) → `Restoring` (the session is played back to a new daemon) → `Live` → `Ending` (the daemon goes down,
//! answers what it has taken and gives back the rest) or `Broken` (a write failed, its loss is not yet known) → `Down` … or
//! `Failed` (none to be had; the next request makes it `Down` again). The client's next
//! message waits except in `Live` and `Failed`, so nothing is queued here: what the client sends meanwhile stays in its pipe.
//! While `Restoring` only the effects' messages are written, while `Live` only the client's.

mod methods;
mod questions;
mod session;

use std::collections::VecDeque;

pub use methods::is_repeatable;
use methods::sets;
use questions::Questions;
use session::{Remembered, Session};

use crate::envelope::{self, Envelope, Id, Kind};

/// Most requests in flight. Real clients have a few dozen; more is a client that does not wait for answers, and is told so.
const MAX_PENDING: usize = 10_000;

/// Most bytes of requests kept to be sent again, and of subscriptions to be renewed: together with `initialize` they are
/// written before anything is read, so they must fit a socket's buffer. Beyond it a request is answered as lost instead.
const MAX_KEPT_BYTES: usize = 32 * 1024;

/// Most cancelled requests whose late answers are still let through; beyond it the oldest is forgotten.
const MAX_CANCELLED: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Relay {
    link: Link,
    /// Counts the links that were lost.
    losses: u64,
    /// Requests of the client that wait for an answer, in the order in which they were sent.
    pending: Vec<Pending>,
    /// Requests that the client cancelled and that may be answered nevertheless.
    cancelled: VecDeque<Id>,
    /// The client message that is being written, if any.
    writing: Option<Writing>,
    /// A client message waits for the link to settle.
    waiting: bool,
    session: Session,
    /// Ids of replayed requests whose answers are the shim's own business.
    replayed: Vec<Id>,
    /// Makes ids of the shim's own unique.
    own_ids: u64,
    questions: Questions,
}

#[derive(Debug, Default)]
enum Link {
    #[default]
    Down,
    Restoring {
        /// The id of the replayed `initialize`, until it is answered.
        awaited: Option<Id>,
    },
    Live,
    Ending,
    Broken,
    Failed(String),
}

#[derive(Debug)]
struct Pending {
    id: Id,
    method: String,
    uri: Option<String>,
    /// The message, if it may be sent again.
    kept: Option<Vec<u8>>,
    /// It is kept because the daemon gave it back, which says nothing of the next daemon.
    returned: bool,
    /// For `subscriptions/listen`: the daemon's acknowledgement has reached the client.
    acknowledged: bool,
}

#[derive(Debug)]
struct Writing {
    losses: u64,
    /// The request's id; none for other messages.
    id: Option<Id>,
}

/// What to do with a client message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it to the daemon (with these bytes instead, if some are given), then call [`Relay::written`].
    Send(Option<Vec<u8>>),
    /// Ask again when the link has changed.
    Wait,
    /// It is dealt with; print this answer, if there is one.
    Done(Option<Vec<u8>>),
}

/// What follows from an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// A line for the client.
    Print(Vec<u8>),
    /// A message for the daemon.
    Send(Vec<u8>),
    /// Send nothing more over the link, and read on.
    Finish,
    /// Close the link; it is of no use.
    Close,
}

impl Relay {
    /// True when a connection should be made.
    pub fn wants_link(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    /// True while a new daemon is being told of the session.
    pub fn is_restoring(&self) -> bool {
        matches!(self.link, Link::Restoring { .. })
    }

    /// True when [`Self::settle`] may be called: all that the new daemon must be told is in the effects given so far.
    pub fn is_told(&self) -> bool {
        matches!(self.link, Link::Restoring { awaited: None })
    }

    /// Judges the client's next message. Until the verdict is not [`Verdict::Wait`], it is the same message that is asked about.
    pub fn client(&mut self, envelope: &Envelope, json: &[u8]) -> Verdict {
        let waited = self.waiting;
        self.waiting = false;
        match &self.link {
            Link::Live => self.judge(envelope, json),
            Link::Failed(why) => match (envelope.kind, &envelope.id) {
                (Kind::Request, Some(id)) if waited => {
                    Verdict::Done(Some(envelope::error_answer(id.raw(), envelope::UNREACHABLE, why)))
                }
                (Kind::Request, _) => {
                    self.link = Link::Down;
                    self.wait()
                }
                _ => {
                    self.session.remember(envelope, json);
                    Verdict::Done(None)
                }
            },
            Link::Down | Link::Restoring { .. } | Link::Ending | Link::Broken => self.wait(),
        }
    }

    fn wait(&mut self) -> Verdict {
        self.waiting = true;
        Verdict::Wait
    }

    fn judge(&mut self, envelope: &Envelope, json: &[u8]) -> Verdict {
        let replacement = match (envelope.kind, &envelope.id) {
            (Kind::Request, Some(id)) => {
                if self.pending.len() >= MAX_PENDING {
                    let text = format!("{MAX_PENDING} requests are waiting for their answers already");
                    return Verdict::Done(Some(envelope::error_answer(
                        id.raw(),
                        envelope::INVALID_REQUEST,
                        &text,
                    )));
                }
                self.supersede(envelope);
                self.session.remember(envelope, json);
                self.admit(id, envelope, json);
                None
            }
            (Kind::Response, Some(id)) => {
                let Some(daemons) = self.questions.answered(id) else { return Verdict::Done(None) };
                (daemons.raw() != id.raw()).then(|| envelope.with_id(json, &daemons))
            }
            _ if envelope.method == "notifications/cancelled" => {
                if let Some(target) = &envelope.request_id {
                    let Some(at) = self.pending.iter().position(|pending| pending.id == *target) else {
                        return Verdict::Done(None);
                    };
                    let pending = self.pending.remove(at);
                    push_bounded(&mut self.cancelled, pending.id, MAX_CANCELLED);
                }
                None
            }
            _ => {
                self.session.remember(envelope, json);
                None
            }
        };
        let id = envelope.id.clone().filter(|_| envelope.kind == Kind::Request);
        self.writing = Some(Writing { losses: self.losses, id });
        Verdict::Send(replacement)
    }

    fn admit(&mut self, id: &Id, envelope: &Envelope, json: &[u8]) {
        let used: usize = self.pending.iter().filter_map(|p| p.kept.as_ref()).map(Vec::len).sum();
        // `initialize` is kept whatever its size: without it there is no session to go on with.
        let fits = used + json.len() <= MAX_KEPT_BYTES || envelope.method == "initialize";
        let kept = (is_repeatable(&envelope.method) && fits).then(|| json.to_vec());
        let (method, uri) = (envelope.method.clone(), envelope.uri.clone());
        self.pending.push(Pending {
            id: id.clone(),
            method,
            uri,
            kept,
            returned: false,
            acknowledged: false,
        });
    }

    /// The client message was written whole (`ok`), or could not be: then no daemon has seen all of it. Judges it again if it
    /// has to be sent once more.
    pub fn written(&mut self, ok: bool, envelope: &Envelope, json: &[u8]) -> Verdict {
        let Some(writing) = self.writing.take() else { return Verdict::Done(None) };
        let is_lost = writing.losses != self.losses;
        if ok && !is_lost {
            return Verdict::Done(None);
        }
        if !is_lost {
            self.link = Link::Broken;
        }
        let Some(id) = writing.id else {
            // Nobody waits for a notification, but an unwritten one still counts. An answer was for that daemon alone.
            if ok || envelope.kind == Kind::Response {
                return Verdict::Done(None);
            }
            self.session.unremember(envelope);
            return self.client(envelope, json);
        };
        let Some(at) = self.pending.iter().rposition(|pending| pending.id == id) else {
            return Verdict::Done(None);
        };
        let pending = self.pending.remove(at);
        if ok && pending.kept.is_none() {
            return Verdict::Done(Some(lost_answer(&id)));
        }
        self.session.unremember(envelope);
        self.client(envelope, json)
    }

    /// A daemon has answered the handshake. When the effects are done, [`Self::settle`] is called.
    pub fn connected(&mut self) -> Vec<Effect> {
        let initialize =
            self.session.initialize.as_ref().filter(|initialize| !is_pending(initialize, &self.pending));
        let Some(initialize) = initialize else { return self.restore() };
        let id = own_id(self.own_ids + 1);
        let json = initialize.envelope.with_id(&initialize.json, &id);
        self.own_ids += 1;
        self.replayed.push(id.clone());
        self.link = Link::Restoring { awaited: Some(id) };
        vec![Effect::Send(json)]
    }

    /// Tells the daemon the rest: it knows the session's `initialize`, or the pending one is the first thing it gets.
    fn restore(&mut self) -> Vec<Effect> {
        self.link = Link::Restoring { awaited: None };
        let again = |pending: &&Pending| !self.is_being_written(&pending.id);
        let (first, later): (Vec<_>, Vec<_>) =
            self.pending.iter().filter(again).partition(|pending| pending.method == "initialize");
        let kept =
            |requests: Vec<&Pending>| -> Vec<_> { requests.iter().filter_map(|p| p.kept.clone()).collect() };
        let (mut messages, later) = (kept(first), kept(later));
        messages.extend(self.session.initialized.clone());
        for request in self.session.settings().filter(|request| !is_pending(request, &self.pending)) {
            self.own_ids += 1;
            let id = own_id(self.own_ids);
            messages.push(request.envelope.with_id(&request.json, &id));
            self.replayed.push(id);
        }
        messages.extend(later);
        let written = self.writing.as_ref().and_then(|writing| writing.id.clone());
        for pending in self.pending.iter_mut().filter(|pending| Some(&pending.id) != written.as_ref()) {
            // This daemon may take it.
            if std::mem::take(&mut pending.returned) {
                pending.kept = pending.kept.take().filter(|_| is_repeatable(&pending.method));
            }
        }
        messages.into_iter().map(Effect::Send).collect()
    }

    /// The messages of the last effects are written: if nothing more is awaited, the client's may follow.
    pub fn settle(&mut self) {
        if let Link::Restoring { awaited: None } = self.link {
            self.link = Link::Live;
        }
    }

    /// The daemon goes down: it says goodbye once what it has taken is answered.
    pub fn draining(&mut self) -> Vec<Effect> {
        match &self.link {
            Link::Live => {
                self.link = Link::Ending;
                vec![Effect::Finish]
            }
            // It will not take the session up.
            Link::Restoring { .. } => vec![Effect::Close],
            Link::Down | Link::Ending | Link::Broken | Link::Failed(_) => Vec::new(),
        }
    }

    /// The daemon gives back a request: it has not taken it, and will not.
    pub fn returned(&mut self, envelope: &Envelope, json: Vec<u8>) {
        let is_it = |pending: &&mut Pending| Some(&pending.id) == envelope.id.as_ref();
        // One that was cancelled meanwhile, or is the shim's own, is of no more use.
        if let Some(pending) = self.pending.iter_mut().find(is_it) {
            pending.returned |= pending.kept.is_none();
            pending.kept = Some(json);
        }
    }

    /// Judges a message of the daemon.
    pub fn daemon(&mut self, envelope: &Envelope, json: Vec<u8>) -> Vec<Effect> {
        match (envelope.kind, &envelope.id) {
            (Kind::Response, Some(id)) => self.daemon_answers(id, envelope, json),
            (Kind::Request, Some(id)) => vec![Effect::Print(self.daemon_asks(id, envelope, json))],
            _ => self.daemon_notifies(envelope, json),
        }
    }

    fn daemon_answers(&mut self, id: &Id, envelope: &Envelope, json: Vec<u8>) -> Vec<Effect> {
        if let Some(at) = self.replayed.iter().position(|replayed| replayed == id) {
            self.replayed.swap_remove(at);
            return match &self.link {
                Link::Restoring { awaited: Some(awaited) } if awaited == id && envelope.is_error => {
                    let mut effects = self.fail("the conductor daemon refused to take up this session again");
                    effects.push(Effect::Close);
                    effects
                }
                Link::Restoring { awaited: Some(awaited) } if awaited == id => self.restore(),
                _ => Vec::new(),
            };
        }
        match self.pending.iter().position(|pending| pending.id == *id) {
            Some(at) => {
                let pending = self.pending.remove(at);
                if pending.method == "initialize" && envelope.is_error {
                    self.session.initialize = None;
                }
                vec![Effect::Print(json)]
            }
            // An error without an id answers no request in particular.
            None if id.raw() == b"null" => vec![Effect::Print(json)],
            None => match self.cancelled.iter().position(|cancelled| cancelled == id) {
                Some(at) => {
                    self.cancelled.remove(at);
                    vec![Effect::Print(json)]
                }
                // Answered before.
                None => Vec::new(),
            },
        }
    }

    fn daemon_asks(&mut self, id: &Id, envelope: &Envelope, json: Vec<u8>) -> Vec<u8> {
        // Daemons count from zero: an id may be that of an earlier daemon's question which the client still looks at.
        let (ours, json) = if self.questions.is_stale(id) {
            let ours = self.own_id();
            let json = envelope.with_id(&json, &ours);
            (ours, json)
        } else {
            (id.clone(), json)
        };
        self.questions.asked(ours, id.clone());
        json
    }

    fn daemon_notifies(&mut self, envelope: &Envelope, json: Vec<u8>) -> Vec<Effect> {
        match envelope.method.as_str() {
            "notifications/cancelled" => {
                let Some(target) = &envelope.request_id else { return vec![Effect::Print(json)] };
                let Some(ours) = self.questions.withdrawn(target) else { return Vec::new() };
                vec![Effect::Print(envelope.with_request_id(&json, &ours))]
            }
            "notifications/subscriptions/acknowledged" => {
                let listens = |pending: &&mut Pending| Some(&pending.id) == envelope.subscription_id.as_ref();
                let is_known = match self.pending.iter_mut().find(listens) {
                    Some(pending) => std::mem::replace(&mut pending.acknowledged, true),
                    None => false,
                };
                if is_known { Vec::new() } else { vec![Effect::Print(json)] }
            }
            _ => vec![Effect::Print(json)],
        }
    }

    /// The link is gone, and everything that came over it has been judged.
    pub fn lost(&mut self) -> Vec<Effect> {
        if matches!(self.link, Link::Failed(_) | Link::Down) {
            return Vec::new();
        }
        self.link = Link::Down;
        self.cut_off();
        let being_written = self.writing.as_ref().and_then(|writing| writing.id.clone());
        let is_over =
            |pending: &mut Pending| pending.kept.is_none() && Some(&pending.id) != being_written.as_ref();
        let over =
            self.pending.extract_if(.., is_over).map(|pending| Effect::Print(lost_answer(&pending.id)));
        let mut effects: Vec<_> = over.collect();
        effects.extend(self.withdraw_questions());
        effects
    }

    /// No daemon can be reached, for the reason `why`.
    pub fn unreachable(&mut self, why: &str) -> Vec<Effect> {
        if self.wants_link() { self.fail(why) } else { Vec::new() }
    }

    fn fail(&mut self, why: &str) -> Vec<Effect> {
        self.link = Link::Failed(why.to_owned());
        self.cut_off();
        let being_written = self.writing.as_ref().and_then(|writing| writing.id.clone());
        let is_over = |pending: &mut Pending| Some(&pending.id) != being_written.as_ref();
        let mut effects = Vec::new();
        for pending in self.pending.extract_if(.., is_over) {
            if pending.method == "initialize" {
                self.session.initialize = None;
            }
            effects.push(Effect::Print(envelope::error_answer(pending.id.raw(), envelope::UNREACHABLE, why)));
        }
        effects.extend(self.withdraw_questions());
        effects
    }

    fn cut_off(&mut self) {
        self.losses += 1;
        self.replayed.clear();
        self.cancelled.clear();
    }

    /// Tells the client that nobody waits for its answers to the last daemon's questions.
    fn withdraw_questions(&mut self) -> Vec<Effect> {
        let withdrawn = |id: Id| Effect::Print(envelope::cancelled(&id, "the conductor daemon went away"));
        self.questions.daemon_lost().into_iter().map(withdrawn).collect()
    }

    fn is_being_written(&self, id: &Id) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.id.as_ref() == Some(id))
    }

    fn own_id(&mut self) -> Id {
        self.own_ids += 1;
        own_id(self.own_ids)
    }

    /// An earlier, unanswered request that sets the same thing must not be sent again after this one.
    fn supersede(&mut self, newer: &Envelope) {
        for older in &mut self.pending {
            if sets(&older.method).is_some_and(|what| Some(what) == sets(&newer.method))
                && older.uri == newer.uri
            {
                older.kept = None;
            }
        }
    }
}

/// The remembered request is not answered yet. Clients use ids again, so the id alone does not tell.
fn is_pending(remembered: &Remembered, pending: &[Pending]) -> bool {
    let Envelope { id, method, uri, .. } = &remembered.envelope;
    pending.iter().any(|p| Some(&p.id) == id.as_ref() && p.method == *method && p.uri == *uri)
}

fn own_id(n: u64) -> Id {
    Id::of_text(&format!("conductor-shim:{n}"))
}

fn lost_answer(id: &Id) -> Vec<u8> {
    let text =
        "the conductor daemon went away while this request was running; it may have run and was not retried";
    envelope::error_answer(id.raw(), envelope::LOST, text)
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests;
