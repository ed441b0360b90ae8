//! rmcp over conductor's frames: one JSON-RPC message per [`SessionFrame::Mcp`].
//!
//! Owns the reading half of a connection. Answers what rmcp would drop in silence: text that is no JSON, JSON that is no
//! request, so that every request gets an answer. While the daemon goes down, gives requests back that rmcp has not got.
//! Never waits inside `send`: messages are queued in the order in which rmcp sends them, and one writer task puts them on
//! the wire.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use conductor_protocol::{FrameDecoder, SessionFrame, codec};
use rmcp::RoleServer;
use rmcp::model::{ClientNotification, RequestId};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accepted::Accepted;

/// Frames queued for a client that reads slowly: what a burst of answers needs. A client that leaves more unread makes its
/// own session wait, no other.
pub(crate) const OUTGOING_FRAMES: usize = 256;

/// Bytes read at once: a typical message arrives in one read.
const READ_BYTES: usize = 16 * 1024;

/// A session's connection as rmcp sees it.
#[derive(Debug)]
pub(crate) struct FrameTransport<R> {
    reader: R,
    decoder: FrameDecoder,
    chunk: Box<[u8]>,
    outgoing: mpsc::Sender<SessionFrame>,
    /// Messages that were decoded and not handed over yet.
    ready: VecDeque<Box<RxJsonRpcMessage<RoleServer>>>,
    /// Answers to malformed messages, and requests to give back, that were not queued yet.
    refusals: VecDeque<SessionFrame>,
    accepted: Arc<Accepted>,
    /// Cancelled when nothing more will be read.
    eof: CancellationToken,
    /// rmcp ends a session whose first message is a notification; those that come before the first request say nothing.
    had_request: bool,
}

/// The client is gone.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the client is closed")]
pub(crate) struct Closed;

impl<R: AsyncRead + Send + Unpin> FrameTransport<R> {
    /// `decoder` may hold bytes that came behind the handshake.
    /// `eof` is cancelled when the client has closed its side.
    pub(crate) fn new(
        reader: R,
        decoder: FrameDecoder,
        outgoing: mpsc::Sender<SessionFrame>,
        accepted: Arc<Accepted>,
        eof: CancellationToken,
    ) -> Self {
        let chunk = vec![0; READ_BYTES].into_boxed_slice();
        let (ready, refusals) = (VecDeque::new(), VecDeque::new());
        Self { reader, decoder, chunk, outgoing, ready, refusals, accepted, eof, had_request: false }
    }

    /// Takes all whole frames out of the decoder; `false` when the stream cannot be read on.
    fn decode(&mut self) -> bool {
        loop {
            let payload = match self.decoder.next_frame() {
                Ok(Some(payload)) => payload,
                Ok(None) => return true,
                Err(error) => return self.refuse_stream(&error),
            };
            match codec::decode(&payload) {
                Ok(SessionFrame::Mcp(body)) => self.take(body),
                // No client says these.
                Ok(SessionFrame::Goodbye { .. } | SessionFrame::Draining | SessionFrame::Returned(_)) => {
                    return false;
                }
                Err(error) => return self.refuse_stream(&error),
            }
        }
    }

    fn refuse_stream(&self, error: &dyn std::error::Error) -> bool {
        tracing::warn!(
            error = crate::error_chain(error),
            "the client's frames make no sense; its connection is closed"
        );
        false
    }

    fn take(&mut self, body: Vec<u8>) {
        match read_message(&body) {
            Ok(message) => {
                let mut is_request = false;
                match &*message {
                    RxJsonRpcMessage::<RoleServer>::Request(request) => {
                        if !self.accepted.take(&request.id) {
                            self.refusals.push_back(SessionFrame::Returned(body));
                            return;
                        }
                        is_request = true;
                    }
                    // What is cancelled gets no answer that could be waited for.
                    RxJsonRpcMessage::<RoleServer>::Notification(notification) => {
                        if let Some(id) = cancelled(&notification.notification) {
                            self.accepted.close(id);
                        }
                    }
                    _ => {}
                }
                self.had_request |= is_request;
                if self.had_request {
                    self.ready.push_back(message);
                }
            }
            Err(answer) => self.refusals.push_back(SessionFrame::Mcp(answer.to_string().into_bytes())),
        }
    }
}

/// The request that a notification cancels, if it is one of those.
fn cancelled(notification: &ClientNotification) -> Option<&RequestId> {
    match notification {
        ClientNotification::CancelledNotification(cancelled) => cancelled.params.request_id.as_ref(),
        _ => None,
    }
}

/// The request that a message answers.
fn answered(message: &TxJsonRpcMessage<RoleServer>) -> Option<&RequestId> {
    match message {
        TxJsonRpcMessage::<RoleServer>::Response(response) => Some(&response.id),
        TxJsonRpcMessage::<RoleServer>::Error(error) => error.id.as_ref(),
        _ => None,
    }
}

/// A message, or the JSON-RPC error to answer with.
pub(crate) fn read_message(body: &[u8]) -> Result<Box<RxJsonRpcMessage<RoleServer>>, Value> {
    let error = |id: &Value, code: i32, message: String| json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
    serde_json::from_slice(body).map(Box::new).map_err(|reason| match serde_json::from_slice::<Value>(body) {
        Err(reason) => match id_alone(body) {
            Some(id) => error(&id, -32600, format!("the message cannot be read: {reason}")),
            None => error(&Value::Null, -32700, format!("the message is not JSON: {reason}")),
        },
        Ok(message) => {
            // An answer is not answered: its id is one of ours, and the client may have a request of the same id.
            let id =
                message.get("method").and(message.get("id")).filter(|id| is_id(id)).unwrap_or(&Value::Null);
            error(id, -32600, format!("the message is no JSON-RPC request: {reason}"))
        }
    })
}

/// The id of a request that is JSON and holds what no value of ours can hold, like a number of 400 digits.
fn id_alone(body: &[u8]) -> Option<Value> {
    // Of members that occur twice the last counts, as everywhere.
    let members: HashMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    members.get("method")?;
    serde_json::from_str(members.get("id")?.get()).ok().filter(is_id)
}

fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// The answer to a message that cannot be read; public for the checks of what any client may send.
#[doc(hidden)]
pub fn answer_to_malformed(body: &[u8]) -> Option<Value> {
    read_message(body).err()
}

impl<R: AsyncRead + Send + Unpin + 'static> Transport<RoleServer> for FrameTransport<R> {
    type Error = Closed;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Closed>> + Send + 'static {
        let body = serde_json::to_vec(&message).expect("messages of the protocol serialize");
        // Queued right here, so that the order of calls is the order on the wire; only a full queue is waited for.
        let queued = self.outgoing.try_send(SessionFrame::Mcp(body));
        let outgoing = self.outgoing.clone();
        let (accepted, answered) = (self.accepted.clone(), answered(&message).cloned());
        async move {
            let sent = match queued {
                Ok(()) => Ok(()),
                Err(mpsc::error::TrySendError::Full(frame)) => {
                    outgoing.send(frame).await.map_err(|_gone| Closed)
                }
                Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
            };
            // Only now: until then the end of the session could overtake it.
            answered.iter().for_each(|id| accepted.close(id));
            sent
        }
    }

    /// Cancel-safe: at each await everything that was read is in the decoder or in one of the queues.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let mut readable = true;
        loop {
            while let Some(refusal) = self.refusals.pop_front() {
                match self.outgoing.try_reserve() {
                    Ok(place) => place.send(refusal),
                    Err(_full_or_closed) => {
                        self.refusals.push_front(refusal);
                        // Ends with an error when the writer is gone, and then there is nobody to answer.
                        self.outgoing.reserve().await.ok()?;
                    }
                }
            }
            if let Some(message) = self.ready.pop_front() {
                return Some(*message);
            }
            if !readable {
                // Only the client's sending side is closed. rmcp would let nothing be told from here on, and calls that have
                // something to tell would hang: it goes on until the session stops it.
                self.eof.cancel();
                return std::future::pending().await;
            }
            // A client that reads no answers is not read either: rmcp starts each request at once, so nothing else
            // bounds the answers that wait. Those wait in turn, so there is room only once they all have a place.
            let has_room = self.outgoing.reserve().await.is_ok();
            readable = has_room
                && match self.reader.read(&mut self.chunk).await {
                    Ok(0) | Err(_) => false,
                    Ok(n) => {
                        self.decoder.push(&self.chunk[..n]);
                        self.decode()
                    }
                };
        }
    }

    async fn close(&mut self) -> Result<(), Closed> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(body: &str) -> Value {
        read_message(body.as_bytes()).expect_err("is answered")
    }

    #[test]
    fn every_malformed_message_gets_an_answer() {
        assert_eq!(answer_to("{nope")["error"]["code"], -32700);
        assert_eq!(answer_to("{nope")["id"], Value::Null);
        assert_eq!(answer_to("42")["error"]["code"], -32600);
        assert_eq!(answer_to(r#"{"id":"a","method":7}"#)["id"], "a");
        assert_eq!(answer_to(r#"{"id":"a","result":1,"error":1}"#)["id"], Value::Null);
        assert_eq!(answer_to("[]")["error"]["code"], -32600);
        let large = format!(r#"{{"id":7,"method":"m","params":[{}]}}"#, "9".repeat(400));
        assert_eq!(
            (&answer_to(&large)["id"], &answer_to(&large)["error"]["code"]),
            (&json!(7), &json!(-32600))
        );
    }

    #[test]
    fn requests_of_any_method_are_handed_on() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":"x","method":"no/such","params":{"a":1}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_deno_code"}}"#,
        ] {
            assert!(read_message(body.as_bytes()).is_ok(), "{body}");
        }
    }
}
