//! Messages on their way to one client, as JSON of one answer or as server-sent events.
//!
//! A request is answered with a document when its answer is the first that there is to say, and soon; otherwise with a stream
//! in which other messages come first. A stream that has nothing to say shows every [`KEEP_ALIVE`] that it lives, so that
//! proxies leave it alone and a client that is gone is noticed.

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

/// Messages that wait for a client that reads slowly. One that leaves more unread makes its own call wait.
pub(super) const QUEUE: usize = 64;

/// How long an answer may take before the client is told that there will be one: clients give up on a silent server after
/// a minute, and errors whose status matters come at once.
const HEAD_WAIT: Duration = Duration::from_secs(1);

/// Less than the minute after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A message as it goes out.
#[derive(Debug)]
pub(super) struct Outgoing {
    json: Bytes,
    /// The answer to the request; nothing comes after it.
    is_answer: bool,
    /// The status of an answer that is a document.
    status: StatusCode,
}

/// The end at which a stream's messages go in.
#[derive(Clone, Debug)]
pub(super) struct Sender(mpsc::Sender<Outgoing>);

/// The other end.
pub(super) type Receiver = mpsc::Receiver<Outgoing>;

/// A body that is a stream of events. Dropped, it lets go of what it holds.
pub(super) struct Events {
    first: Option<Outgoing>,
    queue: Receiver,
    keep_alive: Interval,
    is_over: bool,
    /// What lasts as long as the stream.
    _held: Box<dyn Any + Send + Sync>,
}

pub(super) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Sender(sender), receiver)
}

impl Sender {
    /// Queues a message right here, so that the order of calls is the order on the wire. Only a full queue is waited for, by
    /// the future that comes then. Nothing happens when the client is gone.
    pub(super) fn queue(&self, outgoing: Outgoing) -> Option<impl Future<Output = ()> + Send + use<>> {
        match self.0.try_send(outgoing) {
            Err(mpsc::error::TrySendError::Full(outgoing)) => {
                let sender = self.0.clone();
                Some(async move {
                    // gone: nobody to tell
                    let _told = sender.send(outgoing).await;
                })
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
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
        Self { json, is_answer, status }
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

/// Answers a request with what comes out of `queue`. `held` is let go of when the client has it all, or is gone.
///
/// # Cancel safety
/// Dropped, it lets go of `held`.
pub(super) async fn answer(mut queue: Receiver, held: impl Any + Send + Sync) -> Response {
    match timeout(HEAD_WAIT, queue.recv()).await {
        Ok(Some(only)) if only.is_answer => answer::raw_document(only.status, only.json),
        Ok(Some(first)) => answer::stream(Events::new(Some(first), queue, held)),
        // The session ended: an empty stream says that there is no answer.
        Ok(None) => answer::stream(Events::new(None, queue, held)),
        Err(_elapsed) => answer::stream(Events::new(None, queue, held)),
    }
}

impl Events {
    pub(super) fn new(first: Option<Outgoing>, queue: Receiver, held: impl Any + Send + Sync) -> Self {
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { first, queue, keep_alive, is_over: false, _held: Box::new(held) }
    }

    fn event(&mut self, outgoing: &Outgoing) -> Bytes {
        self.is_over = outgoing.is_answer;
        self.keep_alive.reset();
        // JSON as it is written here has no line breaks, so one line holds it.
        [b"data: ", &outgoing.json[..], b"\n\n"].concat().into()
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
