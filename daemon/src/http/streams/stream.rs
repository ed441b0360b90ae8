//! One stream to a client: what goes into it, and what a client that lost its connection can ask for again.
//!
//! Each message is an event with an id of its own. The last ones are kept, so that a client that says which it got last is
//! told what came after (MCP 2025-11-25, Resumability and Redelivery). Owns the kept messages and the end at which new ones
//! go in; knows nothing of requests.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use super::super::events::{self, Outgoing, QUEUE, Receiver, Sender, Unsent};

/// Messages that are kept: as many as a client may leave unread. Who lost more has lost progress, and no answer.
const MAX_KEPT: usize = QUEUE;

/// Bytes that are kept, but for the newest message, which may be an answer of any size: a session has several streams, and a
/// token several sessions.
const MAX_KEPT_BYTES: usize = 256 << 10;

/// Where in which stream a client is. Unique in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct EventId {
    pub(super) of: Kind,
    /// Counts the streams of a session.
    pub(super) stream: u64,
    /// Counts messages. None has 0, which stands for the beginning.
    number: u64,
}

/// What a stream is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Request,
    Unasked,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    /// The id of the newest message.
    newest: EventId,
    sender: Sender,
    kept: VecDeque<Outgoing>,
}

impl Stream {
    /// A stream with room for what waits for it, and the end that the client reads.
    pub(super) fn open(of: Kind, number: u64) -> (Self, Receiver) {
        let (sender, receiver) = events::channel(QUEUE);
        let newest = EventId { of, stream: number, number: 0 };
        (Self { newest, sender, kept: VecDeque::new() }, receiver)
    }

    /// The id that stands for its beginning.
    pub(super) fn beginning(&self) -> EventId {
        EventId { number: 0, ..self.newest }
    }

    pub(super) fn is(&self, id: EventId) -> bool {
        self.beginning() == EventId { number: 0, ..id }
    }

    /// Puts a message in. As [`Sender::queue`].
    pub(super) fn send(&mut self, outgoing: Outgoing) -> Option<Unsent> {
        self.newest.number += 1;
        let outgoing = outgoing.with_id(self.newest);
        self.kept.push_back(outgoing.clone());
        while self.kept.len() > MAX_KEPT || (self.kept.len() > 1 && self.bytes() > MAX_KEPT_BYTES) {
            self.kept.pop_front();
        }
        self.sender.queue(outgoing)
    }

    /// The client reads from here on what came after `id`. Whoever read before reads the end.
    pub(super) fn resume(&mut self, id: EventId) -> Receiver {
        let missed: Vec<Outgoing> = self
            .kept
            .iter()
            .filter(|kept| kept.id().is_some_and(|kept| kept.number > id.number))
            .cloned()
            .collect();
        let (sender, receiver) = events::channel(QUEUE + missed.len());
        for message in missed {
            // It has room for them.
            drop(sender.queue(message));
        }
        self.sender = sender;
        receiver
    }

    /// Nothing comes any more. What was kept can still be asked for.
    pub(super) fn end(&mut self) {
        self.sender = events::channel(1).0;
    }

    /// Whether nobody reads it.
    pub(super) fn is_cut(&self) -> bool {
        self.sender.is_closed()
    }

    /// How much it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.kept.iter().map(Outgoing::bytes).sum()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.of {
            Kind::Request => 'r',
            Kind::Unasked => 'u',
        };
        write!(f, "{kind}{}-{}", self.stream, self.number)
    }
}

/// It is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct NoEventId;

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let (kind, rest) = text.split_at_checked(1).ok_or(NoEventId)?;
        let of = match kind {
            "r" => Kind::Request,
            "u" => Kind::Unasked,
            _ => return Err(NoEventId),
        };
        let (stream, number) = rest.split_once('-').ok_or(NoEventId)?;
        let number_of = |text: &str| text.parse().map_err(|_| NoEventId);
        Ok(Self { of, stream: number_of(stream)?, number: number_of(number)? })
    }
}

#[cfg(test)]
mod tests {
    use rmcp::RoleServer;
    use rmcp::service::TxJsonRpcMessage;
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> Outgoing {
        let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": text } });
        Outgoing::new(&serde_json::from_value::<TxJsonRpcMessage<RoleServer>>(log).expect("a message"))
    }

    fn read(receiver: &mut Receiver) -> Vec<u64> {
        std::iter::from_fn(|| receiver.try_recv().ok()).filter_map(|read| Some(read.id()?.number)).collect()
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for (of, text) in [(Kind::Request, "r7-12"), (Kind::Unasked, "u0-0")] {
            let id: EventId = text.parse().expect("an id");
            assert_eq!((id.of, id.to_string().as_str()), (of, text));
        }
        for text in ["", "r", "r1", "x1-2", "r1-", "r-1", "r1-2-3", "ü1-2", "r1-18446744073709551616"] {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
    }

    #[test]
    fn a_client_gets_what_came_after_the_last_it_got_and_goes_on() {
        let (mut stream, mut first) = Stream::open(Kind::Request, 3);
        for _ in 0..3 {
            drop(stream.send(message("m")));
        }
        assert_eq!(read(&mut first), [1, 2, 3]);
        drop(first);
        assert!(stream.is_cut());
        drop(stream.send(message("while it was away")));
        let mut second = stream.resume("r3-2".parse().expect("an id"));
        drop(stream.send(message("later")));
        assert_eq!(read(&mut second), [3, 4, 5]);
        // Who comes a second time takes over, in the middle of a message that waits or not.
        let mut third = stream.resume(stream.beginning());
        assert!(second.try_recv().is_err() && second.is_closed());
        assert_eq!(read(&mut third), [1, 2, 3, 4, 5]);
        stream.end();
        assert!(third.is_closed());
        assert_eq!(read(&mut stream.resume("r3-4".parse().expect("an id"))), [5]);
    }

    #[test]
    fn little_is_kept_and_the_newest_always() {
        let (mut stream, first) = Stream::open(Kind::Request, 0);
        drop(first);
        for _ in 0..MAX_KEPT + 10 {
            drop(stream.send(message("m")));
        }
        let missed = read(&mut stream.resume(stream.beginning()));
        assert_eq!((missed.len(), missed.last()), (MAX_KEPT, Some(&(MAX_KEPT as u64 + 10))));
        drop(stream.send(message(&"x".repeat(2 * MAX_KEPT_BYTES))));
        assert_eq!(read(&mut stream.resume(stream.beginning())), [MAX_KEPT as u64 + 11]);
        drop(stream.send(message("m")));
        assert!(stream.bytes() < 1000, "what is too large goes with the next");
    }
}
