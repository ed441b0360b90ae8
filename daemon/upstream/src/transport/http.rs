//! Streamable HTTP: what rmcp's transport asks of an HTTP client, with every message passing the ledger.
//!
//! rmcp's own client would parse results into its models; here they are kept as they came, within bounds. Requests go to
//! the configured origin only: a redirect elsewhere is refused, because it would carry the headers along. Where somebody
//! logged in they carry his token; one that is refused is renewed once.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response};
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::auth::WWWAuthenticateParams;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;
use url::Url;

use crate::auth::{Authority, Grant, RenewalError};
use crate::connection::request::chain;
use crate::transport::bounded::{Collected, Collector};
use crate::transport::ledger::{Ledger, Verdict, typed};
use crate::transport::sse_decoder::{Decoded, Decoder, Event};

type HttpError = StreamableHttpError<reqwest::Error>;

/// What is kept of a body that explains a failure, in bytes.
const MAX_EXPLANATION_BYTES: usize = 4096;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_REDIRECTS: usize = 5;

const SESSION_ID: &str = "mcp-session-id";
const LAST_EVENT_ID: &str = "last-event-id";
const EVENT_STREAM: &str = "text/event-stream";
const JSON: &str = "application/json";

/// A client that keeps results.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    ledger: Arc<Ledger>,
    authority: Option<Arc<Authority>>,
    /// Largest message that is taken, in bytes.
    max_bytes: usize,
}

impl Http {
    pub(crate) fn new(
        client: Client,
        ledger: Arc<Ledger>,
        authority: Option<Arc<Authority>>,
        max_bytes: usize,
    ) -> Self {
        Self { client, ledger, authority, max_bytes }
    }

    /// Sends with the token of the login, if there is one, and once more with another if that is refused.
    async fn send(&self, request: RequestBuilder, id: Option<&RequestId>) -> Result<Response, HttpError> {
        let Some(authority) = &self.authority else { return Ok(send(request).await?) };
        let cannot = |error: RenewalError| {
            self.ledger.failed(id, error.to_string());
            unexpected(error.to_string())
        };
        let Some(grant) = authority.grant().await.map_err(cannot)? else { return Ok(send(request).await?) };
        let again = request.try_clone();
        let response = send(authorised(request, &grant)).await?;
        let Some(again) = again.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
            return Ok(response);
        };
        match authority.replace(&grant).await.map_err(cannot)? {
            Some(newer) => Ok(send(authorised(again, &newer)).await?),
            None => Ok(response),
        }
    }

    /// A login is wanted, as the challenge says, which is kept for it.
    fn auth_required(&self, headers: &HeaderMap) -> HttpError {
        let challenge = challenge(headers);
        self.authority.iter().for_each(|authority| authority.challenged(challenge));
        StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge.to_owned()))
    }

    /// A text of the server, without the token that it may repeat.
    fn clean(&self, text: String) -> String {
        clean(self.authority.as_deref(), text)
    }

    /// A body that is one message.
    async fn json(
        &self,
        response: Response,
        id: Option<&RequestId>,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let session = session_id(response.headers());
        let message = match read(response, self.max_bytes).await? {
            Collected::TooLarge { bytes, .. } => typed(self.ledger.too_large(id.cloned(), Some(bytes)), ""),
            Collected::Whole(body) => {
                let text = self.clean(String::from_utf8_lossy(&body).into_owned());
                match self.ledger.received(text.trim()) {
                    Verdict::Garbage if id.is_some() => {
                        let text: String = text.chars().take(200).collect();
                        self.ledger
                            .failed(id, format!("it answered with something else than a message: {text:?}"));
                        return Err(unexpected("it answered with something else than a message".to_owned()));
                    }
                    verdict => typed(verdict, text.trim()),
                }
            }
        };
        Ok(message
            .map_or(StreamableHttpPostResponse::Accepted, |m| StreamableHttpPostResponse::Json(m, session)))
    }

    /// A body that is a stream of events; the ledger takes its part of each.
    fn events(&self, response: Response) -> BoxStream<'static, Result<Sse, SseError>> {
        let (ledger, authority) = (self.ledger.clone(), self.authority.clone());
        let decoder = Decoder::new(self.max_bytes);
        let state = (response.bytes_stream().boxed(), decoder, VecDeque::<Decoded>::new());
        let events = stream::unfold(state, |(mut bytes, mut decoder, mut decoded)| async move {
            loop {
                if let Some(next) = decoded.pop_front() {
                    return Some((Ok(next), (bytes, decoder, decoded)));
                }
                match bytes.next().await? {
                    Ok(part) => decoder.push(&part, &mut decoded),
                    Err(error) => {
                        return Some((
                            Err(SseError::Body(Box::new(error.without_url()))),
                            (bytes, decoder, decoded),
                        ));
                    }
                }
            }
        });
        events.map(move |decoded| decoded.map(|decoded| pass(&ledger, authority.as_deref(), decoded))).boxed()
    }
}

/// One event as rmcp sees it. One that was taken keeps its id, from which a broken stream is resumed.
fn pass(ledger: &Ledger, authority: Option<&Authority>, decoded: Decoded) -> Sse {
    let (verdict, event) = match decoded {
        Decoded::TooLarge { id, bytes } => (ledger.too_large(id, Some(bytes)), Event::default()),
        Decoded::Event(mut event) => {
            event.data = event.data.map(|data| clean(authority, data));
            match event.data.as_deref() {
                Some(data) if matches!(event.name.as_deref(), None | Some("message")) => {
                    (ledger.received(data), event)
                }
                _ => (Verdict::Forward, event),
            }
        }
    };
    let data = match verdict {
        Verdict::Forward => event.data,
        Verdict::Replace(text) => Some(text),
        Verdict::Taken | Verdict::Garbage => None,
    };
    Sse { event: event.name, data, id: event.id, retry: event.retry }
}

impl Http {
    async fn post(
        &self,
        request: RequestBuilder,
        message: &ClientJsonRpcMessage,
        has_session: bool,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let id = request_id(message);
        let response = self.send(request, id).await?;
        let status = response.status();
        let kind = media_type(response.headers());
        match status {
            _ if wants_login(&response) => {
                self.ledger.unauthorised(id);
                Err(self.auth_required(response.headers()))
            }
            StatusCode::NOT_FOUND if has_session => Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => self.refused(message, has_session, response).await,
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(StreamableHttpPostResponse::Accepted),
            _ if id.is_none() && kind != EVENT_STREAM => Ok(StreamableHttpPostResponse::Accepted),
            _ if kind == EVENT_STREAM => {
                let session = self::session_id(response.headers());
                Ok(StreamableHttpPostResponse::Sse(self.events(response), session))
            }
            _ if kind == JSON => self.json(response, id).await,
            _ => Err(StreamableHttpError::UnexpectedContentType(Some(kind))),
        }
    }
}

impl StreamableHttpClient for Http {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let has_session = session_id.is_some();
        let request =
            self.client.post(uri.as_ref()).header(ACCEPT, format!("{EVENT_STREAM}, {JSON}")).json(&message);
        let posted = self.post(with_headers(request, headers, session_id), &message, has_session).await;
        match &posted {
            // rmcp begins another session and sends the message again.
            Ok(_) | Err(StreamableHttpError::SessionExpired | StreamableHttpError::AuthRequired(_)) => {}
            Err(StreamableHttpError::Client(error)) => self.ledger.failed(request_id(&message), chain(error)),
            // What a server said in so many words was told to the ledger already.
            Err(StreamableHttpError::UnexpectedServerResponse(_)) => {}
            Err(error) => self.ledger.failed(request_id(&message), error.to_string()),
        }
        posted
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), HttpError> {
        let request = with_headers(self.client.delete(uri.as_ref()), headers, Some(session_id));
        let response = self.send(request, None).await?;
        // A server need not support it (405), or may have forgotten the session (404).
        tracing::debug!(status = %response.status(), "session ended");
        Ok(())
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let mut request = self.client.get(uri.as_ref()).header(ACCEPT, EVENT_STREAM);
        if let Some(id) = last_event_id {
            request = request.header(LAST_EVENT_ID, id);
        }
        let response = self.send(with_headers(request, headers, session_id), None).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Err(StreamableHttpError::ServerDoesNotSupportSse)
            }
            _ if wants_login(&response) => Err(self.auth_required(response.headers())),
            status if !status.is_success() => Err(unexpected(format!("HTTP {status}"))),
            _ if media_type(response.headers()) != EVENT_STREAM => {
                Err(StreamableHttpError::UnexpectedContentType(Some(media_type(response.headers()))))
            }
            _ => Ok(self.events(response)),
        }
    }
}

impl Http {
    /// A failure in terms of HTTP, which may hold an error of the protocol.
    async fn refused(
        &self,
        message: &ClientJsonRpcMessage,
        has_session: bool,
        response: Response,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let status = response.status();
        let body = match read(response, MAX_EXPLANATION_BYTES).await? {
            Collected::Whole(body) => body,
            Collected::TooLarge { .. } => Vec::new(),
        };
        let text = self.clean(String::from_utf8_lossy(&body).into_owned());
        let error = match serde_json::from_str::<ServerJsonRpcMessage>(&text) {
            Ok(JsonRpcMessage::Error(error)) => Some(error),
            _ => None,
        };
        if let JsonRpcMessage::Request(request) = message {
            // A server of the older era refuses `server/discover` in any way it likes; rmcp then tries `initialize`.
            let is_probe = matches!(request.request, ClientRequest::DiscoverRequest(_)) && !has_session;
            if is_probe && status.is_client_error() && status != StatusCode::FORBIDDEN {
                let why = || ErrorData::invalid_request(format!("HTTP {status}"), None);
                let error = error.map_or_else(why, |error| error.error);
                let answer = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
                return Ok(StreamableHttpPostResponse::Json(answer, None));
            }
            if let Some(error) = error {
                let answer = ServerJsonRpcMessage::error(error.error, Some(request.id.clone()));
                return Ok(StreamableHttpPostResponse::Json(answer, None));
            }
        }
        let text: String = text.trim().chars().take(300).collect();
        let colon = if text.is_empty() { "" } else { ": " };
        self.ledger.failed(request_id(message), format!("HTTP {status}{colon}{text}"));
        Err(unexpected(format!("HTTP {status}")))
    }
}

/// The HTTP client that all connections share: TLS by rustls with ring, and the system's certificates.
///
/// # Errors
/// The system's certificates cannot be read.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Installed already: by somebody else in this process, and just as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::custom(within_origin))
        .user_agent(concat!("conductor/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn within_origin(attempt: Attempt<'_>) -> Action {
    let keeps_method =
        matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let first = attempt.previous().first().map(Url::origin);
    if keeps_method && first == Some(attempt.url().origin()) && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn with_headers(
    request: RequestBuilder,
    headers: HashMap<HeaderName, HeaderValue>,
    session_id: Option<Arc<str>>,
) -> RequestBuilder {
    let request = request.headers(HeaderMap::from_iter(headers));
    match session_id {
        Some(session) => request.header(SESSION_ID, session.as_ref()),
        None => request,
    }
}

fn authorised(request: RequestBuilder, grant: &Grant) -> RequestBuilder {
    // Marked as sensitive by reqwest.
    request.bearer_auth(grant.token())
}

fn clean(authority: Option<&Authority>, text: String) -> String {
    match authority {
        Some(authority) => authority.clean(text),
        None => text,
    }
}

/// Without the URL in its error, which may hold what must not be shown.
async fn send(request: RequestBuilder) -> Result<Response, reqwest::Error> {
    request.send().await.map_err(reqwest::Error::without_url)
}

fn request_id(message: &ClientJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Request(request) => Some(&request.id),
        _ => None,
    }
}

async fn read(response: Response, max_bytes: usize) -> Result<Collected, reqwest::Error> {
    let mut body = Collector::new(max_bytes);
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        body.push(&part.map_err(reqwest::Error::without_url)?);
    }
    Ok(body.finish())
}

pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn session_id(headers: &HeaderMap) -> Option<String> {
    headers.get(SESSION_ID).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Whether a login would help, or one that allows more (RFC 6750, section 3.1).
fn wants_login(response: &Response) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => WWWAuthenticateParams::parse(challenge(response.headers()), response.url())
            .is_insufficient_scope(),
        _ => false,
    }
}

fn challenge(headers: &HeaderMap) -> &str {
    headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unexpected(text: String) -> HttpError {
    StreamableHttpError::UnexpectedServerResponse(Cow::Owned(text))
}
