//! The streams of one session of the older era: which message goes into which answer.
//!
//! Each request of the client is answered in a stream of its own, and the client may open others for what is said unasked
//! (GET). Owns all of them. An answer ends its stream; progress goes where its request is; questions and log messages go with
//! the youngest request that does something, else into a stream that was opened for them, and wait a little where there is
//! none. A client whose connection broke goes on with a stream where it was; for that the ends of a few streams are kept.

mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::RoleServer;
use rmcp::model::{ClientNotification, GetMeta as _, ProgressToken, RequestId, ServerNotification};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::{mpsc, watch};

use super::events::{self, Outgoing, Receiver, Unsent};
pub(super) use stream::{EventId, NoEventId};
use stream::{Kind, Stream};

/// Messages that wait for a stream: changes of lists and questions, of which a session has few.
const WAITING: usize = events::QUEUE;

/// Streams for what is said unasked; a client needs one, and has others when it lost one without a word.
const MAX_UNASKED: usize = 8;

/// Streams that ended and are kept: a connection that breaks takes what a client does at one time along.
const MAX_ENDED: usize = 32;

/// Bytes of them, but for the newest one's: a token has dozens of sessions.
const MAX_ENDED_BYTES: usize = 1 << 20;

/// How long they are kept: clients come back within a minute, or not at all.
const ENDED_FOR: Duration = Duration::from_secs(5 * 60);

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
    unasked: Vec<Stream>,
    /// Of requests that were answered, the newest last.
    ended: VecDeque<(Instant, Stream)>,
    /// How many streams there were.
    n_streams: u64,
    waiting: VecDeque<Outgoing>,
    is_closed: bool,
}

#[derive(Debug)]
struct Request {
    id: RequestId,
    progress: Option<ProgressToken>,
    /// It runs something, which may ask and log.
    does: bool,
    /// Its answer is a stream, and no document: the client may come back for it.
    is_begun: bool,
    stream: Stream,
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
    /// What the client got last is not of this session, or of a stream that is not kept any more.
    Forgotten,
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
        let mut state = self.lock();
        if state.is_closed {
            return Err(NoStream::Closed);
        }
        if state.requests.iter().any(|open| open.id == message.id) {
            return Err(NoStream::SameId);
        }
        let (stream, receiver) = Stream::open(Kind::Request, state.next_number());
        let method = message.request.method();
        state.requests.push(Request {
            id: message.id.clone(),
            progress: message.request.get_meta().get_progress_token(),
            does: ["tools/call", "prompts/get", "resources/read"].contains(&method),
            is_begun: false,
            stream,
        });
        self.count(&state);
        Ok(receiver)
    }

    /// The answer to a request will be a stream, from whose beginning on the client may ask for it again.
    pub(super) fn begin(&self, id: &RequestId) -> Option<EventId> {
        let mut state = self.lock();
        let request = state.requests.iter_mut().find(|open| open.id == *id)?;
        request.is_begun = true;
        Some(request.stream.beginning())
    }

    /// A stream for what is said unasked, with what waits for one, and the id of its beginning.
    pub(super) fn open_unasked(&self) -> Result<(EventId, Receiver), NoStream> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(NoStream::Closed);
        }
        if state.unasked.len() >= MAX_UNASKED {
            let lost = state.unasked.iter().position(Stream::is_cut).ok_or(NoStream::TooMany)?;
            state.unasked.remove(lost);
        }
        let (stream, receiver) = Stream::open(Kind::Unasked, state.next_number());
        let beginning = stream.beginning();
        state.begin_unasked(stream);
        Ok((beginning, receiver))
    }

    /// What came after the message that the client got last, and what comes.
    pub(super) fn resume(&self, last: EventId) -> Result<Receiver, NoStream> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(NoStream::Closed);
        }
        if let Some(place) = state.unasked.iter().position(|stream| stream.is(last)) {
            let mut stream = state.unasked.remove(place);
            let receiver = stream.resume(last);
            state.begin_unasked(stream);
            return Ok(receiver);
        }
        if let Some(open) = state.requests.iter_mut().find(|open| open.stream.is(last)) {
            return Ok(open.stream.resume(last));
        }
        if let Some((_, stream)) = state.ended.iter_mut().find(|(_, stream)| stream.is(last)) {
            let receiver = stream.resume(last);
            stream.end();
            return Ok(receiver);
        }
        drop(state);
        match last.of {
            // What was said in it is lost, and goes on in another: there is no answer to wait for.
            Kind::Unasked => self.open_unasked().map(|(_, receiver)| receiver),
            Kind::Request => Err(NoStream::Forgotten),
        }
    }

    /// Forgets what nobody came back for.
    pub(super) fn sweep(&self) {
        self.lock().ended.retain(|(since, _)| since.elapsed() < ENDED_FOR);
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
        !state.requests.is_empty() || state.unasked.iter().any(|stream| !stream.is_cut())
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

    /// Puts a message where it belongs, right here, so that the order of calls is the order on the wire. Only a client that
    /// leaves too much unread is waited for, with what is given back then.
    fn deliver(&self, message: &TxJsonRpcMessage<RoleServer>) -> Option<Unsent> {
        let outgoing = Outgoing::new(message).in_band();
        let mut state = self.lock();
        let stream = match message {
            TxJsonRpcMessage::<RoleServer>::Response(response) => {
                return state.answer(&response.id, outgoing);
            }
            TxJsonRpcMessage::<RoleServer>::Error(error) => {
                return state.answer(error.id.as_ref()?, outgoing);
            }
            TxJsonRpcMessage::<RoleServer>::Notification(notification) => match &notification.notification {
                ServerNotification::ProgressNotification(progress) => {
                    let token = Some(&progress.params.progress_token);
                    let its = state.requests.iter_mut().find(|open| open.progress.as_ref() == token);
                    // Nobody waits for progress of nothing.
                    return its?.begun().send(outgoing);
                }
                ServerNotification::LoggingMessageNotification(_)
                | ServerNotification::CancelledNotification(_) => state.youngest_or_unasked(),
                _ => state.newest_unasked(),
            },
            TxJsonRpcMessage::<RoleServer>::Request(_) => state.youngest_or_unasked(),
        };
        match stream {
            Some(stream) => stream.send(outgoing),
            None => {
                state.keep(outgoing);
                None
            }
        }
    }

    fn count(&self, state: &State) {
        self.open.send_replace(state.requests.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are pushed and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// Its stream, in which something comes before the answer.
    fn begun(&mut self) -> &mut Stream {
        self.is_begun = true;
        &mut self.stream
    }
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.n_streams += 1;
        self.n_streams
    }

    /// Answers a request; its stream is over, and kept where the client may come back for it.
    fn answer(&mut self, id: &RequestId, outgoing: Outgoing) -> Option<Unsent> {
        let place = self.requests.iter().position(|open| open.id == *id)?;
        let Request { mut stream, is_begun, .. } = self.requests.remove(place);
        let unsent = stream.send(outgoing);
        if is_begun {
            stream.end();
            self.ended.push_back((Instant::now(), stream));
            while self.ended.len() > MAX_ENDED
                || (self.ended.len() > 1
                    && self.ended.iter().map(|(_, it)| it.bytes()).sum::<usize>() > MAX_ENDED_BYTES)
            {
                self.ended.pop_front();
            }
        }
        unsent
    }

    /// The stream is the one for what is said unasked from now on, and has what waits for one.
    fn begin_unasked(&mut self, mut stream: Stream) {
        for message in std::mem::take(&mut self.waiting) {
            // It has room: that is what a stream holds.
            drop(stream.send(message));
        }
        self.unasked.push(stream);
    }

    /// Keeps what has nowhere to go until the client opens a stream. The oldest goes when there is too much.
    fn keep(&mut self, outgoing: Outgoing) {
        if self.is_closed {
            return;
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(outgoing);
    }

    /// The stream of the youngest request that does something, whose client still reads it, else as below.
    fn youngest_or_unasked(&mut self) -> Option<&mut Stream> {
        let does = self.requests.iter().rposition(|open| open.does && !open.stream.is_cut());
        match does {
            Some(place) => Some(self.requests[place].begun()),
            None => self.newest_unasked(),
        }
    }

    fn newest_unasked(&mut self) -> Option<&mut Stream> {
        self.unasked.iter_mut().rev().find(|stream| !stream.is_cut())
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
    /// A client that hangs up is no failure: its request goes on, and it may come back for what it missed.
    type Error = Infallible;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let is_answer = matches!(
            message,
            TxJsonRpcMessage::<RoleServer>::Response(_) | TxJsonRpcMessage::<RoleServer>::Error(_)
        );
        let unsent = self.streams.deliver(&message);
        let streams = self.streams.clone();
        async move {
            if let Some(unsent) = unsent {
                unsent.sent().await;
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
