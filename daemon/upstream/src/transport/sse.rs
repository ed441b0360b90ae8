//! HTTP with server-sent events, the transport of protocol revision 2024-11-05.
//!
//! A GET opens the stream of events. Its first event, `endpoint`, names where messages are posted; that must lie on the
//! origin that was configured, since the configured headers go there. Answers come as `message` events. A stream that
//! ends is the end of the connection: whoever needs one opens another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use reqwest::Client;
use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage};
use rmcp::service::RxJsonRpcMessage;
use rmcp::transport::Transport;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use crate::transport::http::media_type;
use crate::transport::ledger::{Ledger, typed};
use crate::transport::sse_decoder::{Decoded, Decoder};

/// How long a server may take to name its endpoint.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the acceptance of a message may take. The answer comes on the stream.
const POST_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages that are posted at a time: as many as browsers open to one host, times a few.
const MAX_POSTS: usize = 16;

/// Why the connection failed.
#[derive(Debug, Error)]
pub(crate) enum SseError {
    #[error("HTTP {0}")]
    Status(StatusCode),
    #[error("it answered with {0:?} instead of a stream of events")]
    NoStream(String),
    #[error("it wants messages to be sent to {0}, which is not where it was configured")]
    ForeignEndpoint(String),
    #[error("it named no endpoint")]
    NoEndpoint,
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("its URL is not valid: {0}")]
    Url(#[from] url::ParseError),
    #[error("a message was not accepted within {} seconds", POST_TIMEOUT.as_secs())]
    Timeout,
}

/// An open connection.
pub(crate) struct Sse {
    client: Client,
    headers: HeaderMap,
    endpoint: Url,
    events: Events,
    ledger: Arc<Ledger>,
    posts: Arc<Semaphore>,
}

struct Events {
    parts: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    decoder: Decoder,
    decoded: VecDeque<Decoded>,
}

impl Sse {
    /// # Errors
    /// The server cannot be reached, gives no stream, or names no endpoint of its own.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection is closed.
    pub(crate) async fn open(
        client: Client,
        url: &str,
        headers: HeaderMap,
        ledger: Arc<Ledger>,
        max_bytes: usize,
    ) -> Result<Self, SseError> {
        let url = Url::parse(url)?;
        let request = client.get(url.clone()).headers(headers.clone()).header(ACCEPT, "text/event-stream");
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                ledger.unauthorised(None);
                return Err(SseError::Status(StatusCode::UNAUTHORIZED));
            }
            status if !status.is_success() => return Err(SseError::Status(status)),
            _ => {}
        }
        let kind = media_type(response.headers());
        if kind != "text/event-stream" {
            return Err(SseError::NoStream(kind));
        }
        let parts = response.bytes_stream().map(|part| part.map(|bytes| bytes.to_vec())).boxed();
        let mut events = Events { parts, decoder: Decoder::new(max_bytes), decoded: VecDeque::new() };
        let endpoint =
            timeout(ENDPOINT_TIMEOUT, events.endpoint(&url)).await.map_err(|_| SseError::NoEndpoint)??;
        Ok(Self { client, headers, endpoint, events, ledger, posts: Arc::new(Semaphore::new(MAX_POSTS)) })
    }
}

impl Events {
    async fn next(&mut self) -> Option<Decoded> {
        loop {
            if let Some(next) = self.decoded.pop_front() {
                return Some(next);
            }
            // Cancel safe: a part is either decoded or still in the stream.
            let part = self.parts.next().await?.ok()?;
            self.decoder.push(&part, &mut self.decoded);
        }
    }

    async fn endpoint(&mut self, base: &Url) -> Result<Url, SseError> {
        while let Some(decoded) = self.next().await {
            let Decoded::Event(event) = decoded else { continue };
            if event.name.as_deref() != Some("endpoint") {
                continue;
            }
            let endpoint = base.join(event.data.as_deref().unwrap_or_default().trim())?;
            if endpoint.origin() != base.origin() {
                return Err(SseError::ForeignEndpoint(endpoint.origin().ascii_serialization()));
            }
            return Ok(endpoint);
        }
        Err(SseError::NoEndpoint)
    }
}

impl Transport<RoleClient> for Sse {
    type Error = SseError;

    fn send(
        &mut self,
        item: ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), SseError>> + Send + 'static {
        let id = match &item {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let request = self.client.post(self.endpoint.clone()).headers(self.headers.clone()).json(&item);
        let (posts, ledger) = (self.posts.clone(), self.ledger.clone());
        let post = async move {
            // The semaphore is never closed.
            let _permit = posts.acquire_owned().await.ok();
            let status = request.send().await.map_err(reqwest::Error::without_url)?.status();
            if status == StatusCode::UNAUTHORIZED {
                ledger.unauthorised(id.as_ref());
            }
            if status.is_success() { Ok(()) } else { Err(SseError::Status(status)) }
        };
        async move { timeout(POST_TIMEOUT, post).await.map_err(|_| SseError::Timeout)? }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = match self.events.next().await? {
                Decoded::TooLarge { id, bytes } => typed(self.ledger.too_large(id, Some(bytes)), ""),
                Decoded::Event(event) => {
                    let data = event.data.unwrap_or_default();
                    typed(self.ledger.received(&data), &data)
                }
            };
            if message.is_some() {
                return message;
            }
        }
    }

    async fn close(&mut self) -> Result<(), SseError> {
        self.events.parts = futures_util::stream::empty().boxed();
        Ok(())
    }
}
