//! The streams of one session of the older era: which message goes into which answer.
//!
//! Each request of the client is answered in a stream of its own, and the client may open others for what is said unasked
//! (GET). Owns the senders of all of them. An answer ends its stream; progress goes where its request is; questions and log
//! messages go with the youngest request that does something, else into a stream that was opened for them, and wait a little
//! where there is none.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{ClientNotification, GetMeta as _, ProgressToken, RequestId, ServerNotification};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::{mpsc, watch};

use super::events::{self, Outgoing, Receiver, Sender};

/// Messages that wait for a stream: changes of lists and questions, of which a session has few.
const WAITING: usize = events::QUEUE;

/// Streams for what is said unasked; a client needs one, and has others when it lost one without a word.
const MAX_UNASKED: usize = 8;

/// Messages from the client that wait for the session: it starts each at once.
const INCOMING: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Streams {
    state: Mutex<State>,
    /// How many requests are not answered.
    open: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    /// The newest last.
    unasked: Vec<Sender>,
    waiting: VecDeque<Outgoing>,
    is_closed: bool,
}

#[derive(Debug)]
struct Request {
    id: RequestId,
    progress: Option<ProgressToken>,
    /// It runs something, which may ask and log.
    does: bool,
    sender: Sender,
}

/// The session's transport as rmcp sees it.
#[derive(Debug)]
pub(super) struct SessionTransport {
    incoming: mpsc::Receiver<Box<RxJsonRpcMessage<RoleServer>>>,
    streams: Arc<Streams>,
}

/// The client's end of a session's transport.
pub(super) type Incoming = mpsc::Sender<Box<RxJsonRpcMessage<RoleServer>>>;

/// Why a request gets no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    /// Another one with its id is not answered yet.
    SameId,
    TooMany,
    /// The session is over.
    Closed,
}

/// A session's transport and the client's end of it.
pub(super) fn transport() -> (Incoming, Arc<Streams>, SessionTransport) {
    let (sender, incoming) = mpsc::channel(INCOMING);
    let streams = Arc::new(Streams { state: Mutex::default(), open: watch::Sender::new(0) });
    (sender, streams.clone(), SessionTransport { incoming, streams })
}

impl Streams {
    /// The stream in which a request will be answered.
    pub(super) fn open(
        &self,
        message: &rmcp::model::JsonRpcRequest<rmcp::model::ClientRequest>,
    ) -> Result<Receiver, NoStream> {
        let (sender, receiver) = events::channel();
        let method = message.request.method();
        let request = Request {
            id: message.id.clone(),
            progress: message.request.get_meta().get_progress_token(),
            does: ["tools/call", "prompts/get", "resources/read"].contains(&method),
            sender,
        };
        let mut state = self.lock();
        if state.is_closed {
            return Err(NoStream::Closed);
        }
        if state.requests.iter().any(|open| open.id == request.id) {
            return Err(NoStream::SameId);
        }
        state.requests.push(request);
        self.count(&state);
        Ok(receiver)
    }

    /// A stream for what is said unasked, with what waits for one.
    pub(super) fn open_unasked(&self) -> Result<Receiver, NoStream> {
        let (sender, receiver) = events::channel();
        let mut state = self.lock();
        state.unasked.retain(|sender| !sender.is_closed());
        if state.is_closed {
            return Err(NoStream::Closed);
        }
        if state.unasked.len() >= MAX_UNASKED {
            return Err(NoStream::TooMany);
        }
        for message in std::mem::take(&mut state.waiting) {
            // It has room: that is what a stream holds.
            drop(sender.queue(message));
        }
        state.unasked.push(sender);
        Ok(receiver)
    }

    /// The client wants no answer to a request any more.
    pub(super) fn give_up(&self, id: &RequestId) {
        let mut state = self.lock();
        state.requests.retain(|open| open.id != *id);
        self.count(&state);
    }

    /// Whether the client is there: it reads a stream, or waits for an answer.
    pub(super) fn is_used(&self) -> bool {
        let state = self.lock();
        !state.requests.is_empty() || state.unasked.iter().any(|sender| !sender.is_closed())
    }

    /// Ready when every request is answered.
    ///
    /// # Cancel safety
    /// Cancel-safe: it only waits.
    pub(super) async fn all_answered(&self) {
        // An error is impossible: the sender is here.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// Ends the streams for what is said unasked; answers still come.
    pub(super) fn close_unasked(&self) {
        self.lock().unasked.clear();
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        *state = State { is_closed: true, ..State::default() };
        self.count(&state);
    }

    /// Where a message goes; `None`: nobody waits for it.
    fn route(&self, message: &TxJsonRpcMessage<RoleServer>) -> Option<Sender> {
        let mut state = self.lock();
        match message {
            TxJsonRpcMessage::<RoleServer>::Response(response) => self.answered(&mut state, &response.id),
            TxJsonRpcMessage::<RoleServer>::Error(error) => self.answered(&mut state, error.id.as_ref()?),
            TxJsonRpcMessage::<RoleServer>::Notification(notification) => match &notification.notification {
                ServerNotification::ProgressNotification(progress) => {
                    let token = Some(&progress.params.progress_token);
                    let is_its = |open: &&Request| open.progress.as_ref() == token;
                    state.requests.iter().find(is_its).map(|open| open.sender.clone())
                }
                ServerNotification::LoggingMessageNotification(_) => {
                    state.youngest().or_else(|| state.newest_unasked())
                }
                ServerNotification::CancelledNotification(_) => {
                    state.youngest().or_else(|| state.newest_unasked())
                }
                _ => state.newest_unasked(),
            },
            TxJsonRpcMessage::<RoleServer>::Request(_) => state.youngest().or_else(|| state.newest_unasked()),
        }
    }

    fn answered(&self, state: &mut State, id: &RequestId) -> Option<Sender> {
        let place = state.requests.iter().position(|open| open.id == *id)?;
        let request = state.requests.remove(place);
        Some(request.sender)
    }

    /// Keeps what has nowhere to go until the client opens a stream. The oldest goes when there is too much.
    fn keep(&self, message: &TxJsonRpcMessage<RoleServer>, outgoing: Outgoing) {
        let is_progress = matches!(
            message,
            TxJsonRpcMessage::<RoleServer>::Notification(notification)
                if matches!(notification.notification, ServerNotification::ProgressNotification(_))
        );
        let is_answer = matches!(
            message,
            TxJsonRpcMessage::<RoleServer>::Response(_) | TxJsonRpcMessage::<RoleServer>::Error(_)
        );
        let mut state = self.lock();
        if is_progress || is_answer || state.is_closed {
            return;
        }
        if state.waiting.len() == WAITING {
            state.waiting.pop_front();
        }
        state.waiting.push_back(outgoing);
    }

    fn count(&self, state: &State) {
        self.open.send_replace(state.requests.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are pushed and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The stream of the youngest request that does something, whose client still reads it.
    fn youngest(&self) -> Option<Sender> {
        let does = self.requests.iter().rev().find(|open| open.does && !open.sender.is_closed());
        does.map(|open| open.sender.clone())
    }

    fn newest_unasked(&self) -> Option<Sender> {
        self.unasked.iter().rev().find(|sender| !sender.is_closed()).cloned()
    }
}

/// The request that a message from the client cancels.
pub(super) fn cancelled(message: &RxJsonRpcMessage<RoleServer>) -> Option<&RequestId> {
    match message {
        RxJsonRpcMessage::<RoleServer>::Notification(notification) => match &notification.notification {
            ClientNotification::CancelledNotification(cancelled) => cancelled.params.request_id.as_ref(),
            _ => None,
        },
        _ => None,
    }
}

impl Transport<RoleServer> for SessionTransport {
    /// A client that hangs up is no failure: its request goes on, and what it does not read is lost.
    type Error = Infallible;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let outgoing = Outgoing::new(&message).in_band();
        let is_answer = outgoing.is_answer();
        let waits = match self.streams.route(&message) {
            None => {
                self.streams.keep(&message, outgoing);
                None
            }
            Some(stream) => stream.queue(outgoing),
        };
        let streams = self.streams.clone();
        async move {
            if let Some(waits) = waits {
                waits.await;
            }
            if is_answer {
                // Only now: until then the end of the session could overtake it.
                streams.count(&streams.lock());
            }
            Ok(())
        }
    }

    /// Cancel-safe: what is not taken stays in the channel.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.incoming.recv().await.map(|message| *message)
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.streams.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientRequest, JsonRpcRequest};
    use serde_json::{Value, json};

    use super::*;

    fn request(id: i64, method: &str, progress: Option<&str>) -> JsonRpcRequest<ClientRequest> {
        let meta = progress.map_or(json!({}), |token| json!({ "progressToken": token }));
        let params = json!({ "name": "t", "uri": "u", "_meta": meta });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        serde_json::from_value(message).expect("a request")
    }

    fn message(message: Value) -> TxJsonRpcMessage<RoleServer> {
        serde_json::from_value(message).expect("a message")
    }

    fn notification(method: &str, params: Value) -> TxJsonRpcMessage<RoleServer> {
        message(json!({ "jsonrpc": "2.0", "method": method, "params": params }))
    }

    fn log() -> TxJsonRpcMessage<RoleServer> {
        notification("notifications/message", json!({ "level": "info", "data": 1 }))
    }

    fn progress(token: &str) -> TxJsonRpcMessage<RoleServer> {
        notification("notifications/progress", json!({ "progressToken": token, "progress": 1.0 }))
    }

    async fn send(transport: &mut SessionTransport, message: TxJsonRpcMessage<RoleServer>) {
        // A client that is gone is no failure of the session's.
        let _sent = transport.send(message).await;
    }

    #[tokio::test]
    async fn each_message_goes_where_its_request_is() {
        let (_incoming, streams, mut transport) = transport();
        let mut list = streams.open(&request(1, "tools/list", None)).expect("a stream");
        let mut first = streams.open(&request(2, "tools/call", Some("a"))).expect("a stream");
        let mut second = streams.open(&request(3, "tools/call", Some("b"))).expect("a stream");
        assert_eq!(streams.open(&request(3, "tools/call", None)).expect_err("is taken"), NoStream::SameId);
        for message in [
            progress("a"),
            progress("b"),
            progress("nobody's"),
            log(),
            message(json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [] } })),
            message(json!({ "jsonrpc": "2.0", "id": 2, "error": { "code": -32601, "message": "no" } })),
        ] {
            send(&mut transport, message).await;
        }
        let drain = |queue: &mut Receiver| {
            std::iter::from_fn(|| queue.try_recv().ok())
                .map(|outgoing| outgoing.is_answer())
                .collect::<Vec<_>>()
        };
        assert_eq!(drain(&mut list), [true]);
        assert_eq!(drain(&mut first), [false, true]);
        assert_eq!(drain(&mut second), [false, false], "progress, and the log of the youngest call");
        assert!(first.is_closed() && !second.is_closed(), "an answer ends its stream");
        streams.give_up(&RequestId::Number(3));
        assert!(second.recv().await.is_none() && !streams.is_used());
    }

    #[tokio::test]
    async fn what_is_said_unasked_waits_for_a_stream() {
        let (_incoming, streams, mut transport) = transport();
        for _ in 0..WAITING + 5 {
            send(&mut transport, notification("notifications/tools/list_changed", json!({}))).await;
        }
        let mut queue = streams.open_unasked().expect("a stream");
        assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), WAITING);
        let mut newer = streams.open_unasked().expect("another");
        send(&mut transport, log()).await;
        assert!(newer.try_recv().is_ok() && queue.try_recv().is_err(), "one stream gets it, the newest");
        drop(newer);
        send(&mut transport, log()).await;
        assert!(queue.try_recv().is_ok(), "and an older one when that is gone");
        let others: Vec<_> = (0..MAX_UNASKED).map(|_| streams.open_unasked()).collect();
        assert_eq!(others.last().expect("some").as_ref().err(), Some(&NoStream::TooMany));
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_its_streams() {
        let (_incoming, streams, mut transport) = transport();
        let mut call = streams.open(&request(1, "tools/call", None)).expect("a stream");
        let mut unasked = streams.open_unasked().expect("a stream");
        streams.close_unasked();
        assert!(unasked.recv().await.is_none());
        let answer = message(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
        let (answered, ()) = tokio::join!(streams.all_answered(), send(&mut transport, answer));
        assert_eq!(answered, ());
        assert!(call.recv().await.is_some());
        transport.close().await.expect("closes");
        assert_eq!(streams.open(&request(2, "ping", None)).expect_err("is over"), NoStream::Closed);
    }
}
