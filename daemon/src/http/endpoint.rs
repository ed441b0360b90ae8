//! One request's way in: what is checked, in which order, and who answers it.
//!
//! Nothing of the body is read before the caller, the token and its account are in order, and nothing of it is acted on
//! before the headers agree with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use rmcp::RoleServer;
use rmcp::model::ClientRequest;
use rmcp::service::RxJsonRpcMessage;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::accounts::Accounts;
use super::answer::{self, INVALID_PARAMS, INVALID_REQUEST, Refusal, Response};
use super::headers::{self, Era, Message, Resumption, SESSION};
use super::listener::Settings;
use super::ready::Readiness;
use super::sessions::Sessions;
use super::tokens::Token;
use super::{PATH, Pass, guard};
use crate::session::transport::read_message;
use crate::supervisor::{Phase, Shared};

const EVENT_STREAM: &str = "text/event-stream";

/// Answers requests of all connections.
#[derive(Debug)]
pub(super) struct Endpoint {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    readiness: Readiness,
    connections: TaskTracker,
}

impl Endpoint {
    pub(super) fn new(shared: Arc<Shared>, sessions: Arc<Sessions>) -> Self {
        Self { shared, sessions, readiness: Readiness::default(), connections: TaskTracker::new() }
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.shared.phase()
    }

    pub(super) fn accounts(&self) -> &Accounts {
        &self.shared.http.accounts
    }

    /// Runs what a connection does.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        drop(self.connections.spawn(connection));
    }

    /// Waits until every connection is over; there must come no new ones.
    pub(super) async fn ended(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// # Cancel safety
    /// What becomes of a request whose answer is not waited for is its era's to say.
    pub(super) async fn answer(&self, request: http::Request<Incoming>, settings: &Settings) -> Response {
        let (parts, body) = request.into_parts();
        match self.try_answer(&parts, body, settings).await {
            Ok(response) => response,
            Err(refusal) => {
                self.accounts().refused(&refusal);
                tracing::debug!(status = refusal.status().as_u16(), why = %refusal, "a request is refused");
                refusal.response()
            }
        }
    }

    async fn try_answer(
        &self,
        parts: &Parts,
        body: Incoming,
        settings: &Settings,
    ) -> Result<Response, Refusal> {
        settings.guard.check_caller(&parts.uri, &parts.headers)?;
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        match parts.uri.path() {
            PATH => self.mcp(parts, body, settings).await,
            "/healthz" if is_read => Ok(answer::document(StatusCode::OK, &json!({ "alive": true }))),
            "/readyz" if is_read => {
                let is_ready = self.readiness.is_ready(&self.shared).await;
                let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok(answer::document(status, &json!({ "ready": is_ready })))
            }
            "/healthz" | "/readyz" => Err(Refusal::Method("GET, HEAD")),
            _ => Err(Refusal::NoSuchPath),
        }
    }

    async fn mcp(&self, parts: &Parts, body: Incoming, settings: &Settings) -> Result<Response, Refusal> {
        let value = guard::bearer(&parts.uri, &parts.headers)?;
        let token = self.shared.http.tokens.find(value).ok_or(Refusal::WrongToken)?;
        if self.shared.is_draining() {
            return Err(Refusal::Draining);
        }
        let pass = self.accounts().enter(&token, &settings.limits)?;
        match parts.method {
            Method::POST => self.post(parts, body, settings, &token, pass).await,
            Method::GET => self.get(parts, &token, pass),
            Method::DELETE => {
                self.sessions.end(session_id(&parts.headers)?, &token)?;
                Ok(answer::done())
            }
            _ => Err(Refusal::Method("GET, POST, DELETE")),
        }
    }

    /// A stream of what is said unasked, which only sessions of the older era have.
    fn get(&self, parts: &Parts, token: &Token, pass: Pass) -> Result<Response, Refusal> {
        if headers::era(&parts.headers, None)? == Era::Requests {
            return Err(Refusal::Method("POST"));
        }
        if !accepts(&parts.headers, EVENT_STREAM) {
            return Err(Refusal::NotAcceptable);
        }
        let session = self.sessions.find(session_id(&parts.headers)?, token)?;
        match parts.headers.get(headers::LAST_EVENT) {
            Some(last) => session.resume(last.to_str().unwrap_or_default(), pass),
            None => session.listen(Resumption::of(&parts.headers), pass),
        }
    }

    async fn post(
        &self,
        parts: &Parts,
        body: Incoming,
        settings: &Settings,
        token: &Arc<Token>,
        pass: Pass,
    ) -> Result<Response, Refusal> {
        let headers = &parts.headers;
        if !accepts(headers, answer::JSON) || !accepts(headers, EVENT_STREAM) {
            return Err(Refusal::NotAcceptable);
        }
        if !is_json(headers) {
            return Err(Refusal::MediaType);
        }
        let body = read(headers, body, settings.limits.max_body_bytes, settings.limits.body_timeout).await?;
        let message = match read_message(&body) {
            Ok(message) => message,
            Err(error) => return Ok(answer::document(StatusCode::BAD_REQUEST, &error)),
        };
        // What could be read as a message is JSON.
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        drop(body);
        let about = Message::of(&document);
        match headers::era(headers, about.as_ref())? {
            Era::Sessions => self.of_session(headers, message, settings, token, pass).await,
            Era::Requests => self.of_request(headers, message, about, token, pass).await,
        }
    }

    async fn of_session(
        &self,
        headers: &HeaderMap,
        message: Box<RxJsonRpcMessage<RoleServer>>,
        settings: &Settings,
        token: &Arc<Token>,
        pass: Pass,
    ) -> Result<Response, Refusal> {
        if let RxJsonRpcMessage::<RoleServer>::Request(request) = &*message {
            match &request.request {
                ClientRequest::InitializeRequest(_) => {
                    return self.sessions.begin(token, message, settings.limits.max_sessions, pass).await;
                }
                ClientRequest::CustomRequest(custom) if custom.method == "initialize" => {
                    let text = "the parameters of initialize are not those of the MCP specification";
                    return Err(Refusal::message(INVALID_PARAMS, Some(request.id.clone()), text));
                }
                _ => {}
            }
        }
        let session = self.sessions.find(session_id(headers)?, token)?;
        session.request(message, Resumption::of(headers), pass).await
    }

    async fn of_request(
        &self,
        headers: &HeaderMap,
        message: Box<RxJsonRpcMessage<RoleServer>>,
        about: Option<Message<'_>>,
        token: &Arc<Token>,
        pass: Pass,
    ) -> Result<Response, Refusal> {
        match &*message {
            RxJsonRpcMessage::<RoleServer>::Request(_) => {}
            // Nothing that goes on could be meant: a request is cancelled by closing its stream.
            RxJsonRpcMessage::<RoleServer>::Notification(_) => return Ok(answer::accepted()),
            RxJsonRpcMessage::<RoleServer>::Response(_) | RxJsonRpcMessage::<RoleServer>::Error(_) => {
                let text = "the daemon asked nothing: questions of this revision are answered by repeating the request";
                return Err(Refusal::message(INVALID_REQUEST, None, text));
            }
        }
        let session = self.sessions.of_token(token);
        if let Some(about) = about {
            headers::check(headers, &about, |tool| session.input_schema(tool))?;
        }
        Ok(session.request(message, pass).await)
    }
}

/// Reads a body within its limits.
async fn read(headers: &HeaderMap, body: Incoming, limit: usize, time: Duration) -> Result<Bytes, Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(Refusal::TooLarge { limit });
    }
    match timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge { limit }),
        Ok(Err(_broken)) => Err(Refusal::Broken),
        Err(_elapsed) => Err(Refusal::Slow(time)),
    }
}

fn session_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(SESSION).iter();
    match (values.next(), values.next()) {
        (Some(id), None) => id.to_str().map_err(|_| Refusal::UnknownSession),
        _ => Err(Refusal::NoSession),
    }
}

/// Whether the client takes answers of a media type.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let listed = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    let family = media_type.split('/').next().unwrap_or_default();
    listed.into_iter().any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|parameter| {
            parameter
                .strip_prefix("q=")
                .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0))
        });
        let is_family =
            name.strip_suffix("/*").is_some_and(|of| of == "*" || of.eq_ignore_ascii_case(family));
        !is_refused && (name.eq_ignore_ascii_case(media_type) || is_family)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(answer::JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes_is_what_it_lists() {
        let accepts = |list: &str, media_type| {
            let headers = HeaderMap::from_iter([(ACCEPT, list.parse().expect("a value"))]);
            super::accepts(&headers, media_type)
        };
        for list in
            ["application/json, text/event-stream", "*/*", "text/*;q=0.5, Application/JSON ; charset=utf-8"]
        {
            assert!(accepts(list, answer::JSON) && accepts(list, EVENT_STREAM), "{list}");
        }
        assert!(!accepts("application/json", EVENT_STREAM));
        assert!(!accepts("text/event-stream;q=0", EVENT_STREAM));
        assert!(!super::accepts(&HeaderMap::new(), answer::JSON));
    }
}
