//! Messages on their way to one client, as JSON of one answer or as server-sent events.
//!
//! A request is answered with a document when its answer is the first that there is to say, and soon; otherwise with a stream
//! in which other messages come first. A stream that has nothing to say shows every [`KEEP_ALIVE`] that it lives, so that
//! proxies leave it alone and a client that is gone is noticed. One that can be resumed begins with an id and no message, so
//! that a client can ask for what it missed from the first moment on.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame};
use rmcp::RoleServer;
use rmcp::model::ErrorCode;
use rmcp::service::TxJsonRpcMessage;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::answer::{self, Response};
use super::streams::EventId;

/// Messages that wait for a client that reads slowly. One that leaves more unread makes its own call wait.
pub(super) const QUEUE: usize = 64;

/// How long an answer may take before the client is told that there will be one: clients give up on a silent server after
/// a minute, and errors whose status matters come at once.
const HEAD_WAIT: Duration = Duration::from_secs(1);

/// Less than the minute after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A message as it goes out.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    json: Bytes,
    /// By which a client can tell that it got this one.
    id: Option<EventId>,
    /// The answer to the request; nothing comes after it.
    is_answer: bool,
    /// The status of an answer that is a document.
    status: StatusCode,
}

/// The end at which a stream's messages go in.
#[derive(Clone, Debug)]
pub(super) struct Sender(mpsc::Sender<Outgoing>);

/// A message for a client that has left too much unread.
#[derive(Debug)]
#[must_use = "it is lost unless it is waited for"]
pub(super) struct Unsent {
    sender: Sender,
    outgoing: Outgoing,
}

/// The other end.
pub(super) type Receiver = mpsc::Receiver<Outgoing>;

/// A body that is a stream of events. Dropped, it lets go of what it holds.
pub(super) struct Events {
    /// Where it begins, not told yet.
    beginning: Option<EventId>,
    first: Option<Outgoing>,
    queue: Receiver,
    keep_alive: Interval,
    is_over: bool,
    /// What lasts as long as the stream.
    _held: Box<dyn Any + Send + Sync>,
}

pub(super) fn channel(capacity: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender(sender), receiver)
}

impl Sender {
    /// Queues a message right here, so that the order of calls is the order on the wire. Only a full queue is waited for, with
    /// what is given back then. Nothing happens when the client is gone.
    pub(super) fn queue(&self, outgoing: Outgoing) -> Option<Unsent> {
        match self.0.try_send(outgoing) {
            Err(mpsc::error::TrySendError::Full(outgoing)) => Some(Unsent { sender: self.clone(), outgoing }),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Unsent {
    /// Ready when the client has room for it, or is gone.
    ///
    /// # Cancel safety
    /// Dropped, the message is lost.
    pub(super) async fn sent(self) {
        // gone: nobody to tell
        let _told = self.sender.0.send(self.outgoing).await;
    }
}

impl Outgoing {
    pub(super) fn new(message: &TxJsonRpcMessage<RoleServer>) -> Self {
        let json = serde_json::to_vec(message).expect("messages of the protocol serialize").into();
        let (is_answer, status) = match message {
            TxJsonRpcMessage::<RoleServer>::Response(_) => (true, StatusCode::OK),
            TxJsonRpcMessage::<RoleServer>::Error(error) => (true, status_of(error.error.code)),
            _ => (false, StatusCode::OK),
        };
        Self { json, id: None, is_answer, status }
    }

    pub(super) fn with_id(self, id: EventId) -> Self {
        Self { id: Some(id), ..self }
    }

    pub(super) fn id(&self) -> Option<EventId> {
        self.id
    }

    pub(super) fn bytes(&self) -> usize {
        self.json.len()
    }

    pub(super) fn is_answer(&self) -> bool {
        self.is_answer
    }

    /// As a message among others: without a status.
    pub(super) fn in_band(self) -> Self {
        Self { status: StatusCode::OK, ..self }
    }
}

/// Errors that say that the request was not even looked at have a status of their own (MCP 2026-07-28, transports).
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::UNSUPPORTED_PROTOCOL_VERSION
        | ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY
        | ErrorCode::HEADER_MISMATCH => StatusCode::BAD_REQUEST,
        ErrorCode::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// Answers a request with what comes out of `queue`. `begin` is called when that is to be a stream, and gives the id with which
/// it begins. `held` is let go of when the client has it all, or is gone.
///
/// # Cancel safety
/// Dropped, it lets go of `held`.
pub(super) async fn answer(
    mut queue: Receiver,
    begin: impl FnOnce() -> Option<EventId>,
    held: impl Any + Send + Sync,
) -> Response {
    let mut next = timeout(HEAD_WAIT, queue.recv()).await.unwrap_or_default();
    let mut beginning = None;
    if !next.as_ref().is_some_and(Outgoing::is_answer) {
        beginning = begin();
        // An answer that came just before is not kept for a stream.
        next = next.or_else(|| queue.try_recv().ok());
    }
    match next {
        Some(only) if only.is_answer => answer::raw_document(only.status, only.json),
        // The session ended: an empty stream says that there is no answer.
        first => answer::stream(Events { first, beginning, ..Events::new(queue, held) }),
    }
}

impl Events {
    pub(super) fn new(queue: Receiver, held: impl Any + Send + Sync) -> Self {
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { beginning: None, first: None, queue, keep_alive, is_over: false, _held: Box::new(held) }
    }

    /// The same, beginning with an id if there is one.
    pub(super) fn beginning_with(self, beginning: Option<EventId>) -> Self {
        Self { beginning, ..self }
    }

    fn event(&mut self, outgoing: &Outgoing) -> Bytes {
        self.is_over = outgoing.is_answer;
        self.keep_alive.reset();
        let id = outgoing.id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        // JSON as it is written here has no line breaks, so one line holds it.
        [id.as_bytes(), b"data: ", &outgoing.json[..], b"\n\n"].concat().into()
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(id) = this.beginning.take() {
            return Poll::Ready(Some(Ok(Frame::data(format!("id: {id}\ndata:\n\n").into()))));
        }
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.event(&first)))));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        match this.queue.poll_recv(context) {
            Poll::Ready(Some(next)) => Poll::Ready(Some(Ok(Frame::data(this.event(&next))))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(this.keep_alive.poll_tick(context));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
