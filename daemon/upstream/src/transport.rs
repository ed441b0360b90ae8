//! The wires to upstream servers, with one thing in common: answers are kept as they came.
//!
//! rmcp does the protocol on top (negotiation, ids, server requests, cancellation). Its models would drop unknown fields
//! and unknown kinds of content, and its tasks would reorder progress, so below it every message passes a [`Ledger`], which
//! keeps the results of our own requests untouched and takes progress and other notifications in their order.

mod bounded;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod sse;
pub mod sse_decoder;
pub(crate) mod stdio;

use rmcp::RoleClient;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::service::RxJsonRpcMessage;
use rmcp::transport::Transport;
use std::sync::Arc;

use crate::transport::ledger::Ledger;

/// A transport whose outgoing messages are entered in a ledger. What comes in was entered below it.
#[derive(Debug)]
pub(crate) struct Tapped<T> {
    pub(crate) inner: T,
    pub(crate) ledger: Arc<Ledger>,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Tapped<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        self.ledger.sent(&item);
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        self.inner.receive().await
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.inner.close().await
    }
}
