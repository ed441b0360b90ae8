//! One request of the newer era: it brings everything along, and its answer is all that there is of it.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;

use rmcp::RoleServer;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage, serve_directly_with_ct};
use rmcp::transport::Transport;
use tokio_util::sync::CancellationToken;

use super::answer::Response;
use super::events::{self, Outgoing, Sender};
use crate::session::RawService;

/// A transport on which one request comes, and ends with its answer.
#[derive(Debug)]
struct OneRequest {
    request: Option<Box<RxJsonRpcMessage<RoleServer>>>,
    /// Gone when the request is answered.
    answers: Option<Sender>,
    answered: CancellationToken,
}

/// Serves a request. `cancel` ends it, and so does a client that hangs up; `held` lasts as long as the client listens.
///
/// # Cancel safety
/// Dropped, it cancels the request.
pub(super) async fn serve(
    service: RawService,
    request: Box<RxJsonRpcMessage<RoleServer>>,
    cancel: CancellationToken,
    held: impl Any + Send + Sync,
) -> Response {
    let (sender, queue) = events::channel(events::QUEUE);
    let transport =
        OneRequest { request: Some(request), answers: Some(sender), answered: CancellationToken::new() };
    let running = serve_directly_with_ct(service, transport, None, cancel.clone());
    tokio::spawn(running.waiting());
    events::answer(queue, || None, (held, cancel.drop_guard())).await
}

impl Transport<RoleServer> for OneRequest {
    /// A client that hangs up cancels its request; what comes of it still is for nobody.
    type Error = Infallible;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let outgoing = Outgoing::new(&message);
        let is_answer = outgoing.is_answer();
        let answers = if is_answer { self.answers.take() } else { self.answers.clone() };
        let unsent = answers.and_then(|answers| answers.queue(outgoing));
        let answered = self.answered.clone();
        async move {
            if let Some(unsent) = unsent {
                unsent.sent().await;
            }
            if is_answer {
                answered.cancel();
            }
            Ok(())
        }
    }

    /// Cancel-safe: it takes the request at once or waits for a flag.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        match self.request.take() {
            Some(request) => Some(*request),
            None => {
                self.answered.cancelled().await;
                None
            }
        }
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.answers = None;
        Ok(())
    }
}
