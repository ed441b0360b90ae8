//! What the daemon says no with, and the bodies of all answers.
//!
//! A refusal is a status, and an error of JSON-RPC without an id, as MCP has it for requests that are not looked into: what
//! is wrong and what cures it, and nothing of who else may call, which tokens there are, or what runs here.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{Either, Full};
use rmcp::model::RequestId;
use serde_json::{Value, json};

use super::events::Events;

pub(super) const JSON: &str = "application/json";

/// The code of JSON-RPC for a message that makes no sense as a request.
pub(super) const INVALID_REQUEST: i32 = -32600;

/// There is no such method.
pub(super) const METHOD_NOT_FOUND: i32 = -32601;

/// The same for members that make no sense.
pub(super) const INVALID_PARAMS: i32 = -32602;

/// MCP's code for headers that say something else than the body (SEP-2243).
pub(super) const HEADER_MISMATCH: i32 = -32020;

/// A code of ours, for what has none of its own.
const REFUSED: i32 = -32000;

/// The body of an answer: a document, or messages while they come.
pub(super) type Body = Either<Full<Bytes>, Events>;

pub(super) type Response = http::Response<Body>;

/// Why a request is not looked into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "the request names a host in its first line\nhint: connect to the daemon itself, not by way of a proxy"
    )]
    Target,
    #[error("the request has no Host header, or more than one, or none that makes sense")]
    NoHost,
    #[error(
        "the daemon is not known by this name\nhint: call it by localhost, or add the name to allowed-hosts in [http]"
    )]
    Host,
    #[error("pages of this origin may not call\nhint: add it to allowed-origins in [http] if they should")]
    Origin,
    #[error(
        "a token does not belong into a URL, where logs and histories keep it\nhint: send it as `Authorization: Bearer …`"
    )]
    TokenInUrl,
    #[error(
        "a token is needed\nhint: send `Authorization: Bearer …`; `conductorctl token add NAME` makes a token"
    )]
    NoToken,
    #[error("this token is not known\nhint: `conductorctl token add NAME` makes another")]
    WrongToken,
    #[error(
        "this token has {limit} requests in flight, as many as it may\nhint: wait for one of them to end"
    )]
    InFlight { limit: usize },
    #[error("this token may make {limit} requests in a minute\nhint: call again in {} s", .retry_in.as_secs() + 1)]
    Rate { limit: u32, retry_in: Duration },
    #[error("the daemon is going down\nhint: call again in a moment; its successor may be there")]
    Draining,
    #[error("there is nothing here\nhint: MCP is at /mcp")]
    NoSuchPath,
    #[error("this method is not for this address\nhint: it takes {0}")]
    Method(&'static str),
    #[error(
        "the answer would be JSON or a stream of events\nhint: send `Accept: application/json, text/event-stream`"
    )]
    NotAcceptable,
    #[error("the body is not declared to be JSON\nhint: send `Content-Type: application/json`")]
    MediaType,
    #[error("the body is larger than {limit} bytes\nhint: put large data into a file in the workspace")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {0:?}")]
    Slow(Duration),
    #[error("the connection broke before the body was there")]
    Broken,
    #[error("{text}")]
    Message { code: i32, id: Option<RequestId>, text: String },
    #[error(
        "the session is missing\nhint: begin with `initialize`, and send the Mcp-Session-Id that it is answered with"
    )]
    NoSession,
    #[error("there is no such session, or it has ended\nhint: begin a new one with `initialize`")]
    UnknownSession,
    #[error("this machine has no randomness for a session")]
    Randomness,
}

impl Refusal {
    /// Something is wrong with the message itself.
    pub(super) fn message(code: i32, id: Option<RequestId>, text: impl Into<String>) -> Self {
        Self::Message { code, id, text: text.into() }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Message { code: METHOD_NOT_FOUND, .. } => StatusCode::NOT_FOUND,
            Self::Target
            | Self::NoHost
            | Self::TokenInUrl
            | Self::Broken
            | Self::Message { .. }
            | Self::NoSession => StatusCode::BAD_REQUEST,
            Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::InFlight { .. } | Self::Rate { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Draining | Self::Randomness => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSuchPath | Self::UnknownSession => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// One word for the count of refusals.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Target | Self::NoHost | Self::Host | Self::Origin => "forbidden",
            Self::TokenInUrl | Self::NoToken | Self::WrongToken => "unauthorized",
            Self::InFlight { .. } | Self::Rate { .. } => "busy",
            Self::Draining | Self::Randomness => "unavailable",
            Self::TooLarge { .. } => "too-large",
            Self::Slow(_) | Self::Broken => "broken",
            Self::NoSession | Self::UnknownSession => "no-session",
            Self::NoSuchPath
            | Self::Method(_)
            | Self::NotAcceptable
            | Self::MediaType
            | Self::Message { .. } => "malformed",
        }
    }

    pub(super) fn response(&self) -> Response {
        let (code, id) = match self {
            Self::Message { code, id, .. } => (*code, id.clone()),
            _ => (REFUSED, None),
        };
        let error =
            json!({ "jsonrpc": "2.0", "error": { "code": code, "message": self.to_string() }, "id": id });
        let mut response = document(self.status(), &error);
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        // What was not read of the body would be taken for the next request; who has no business here need not stay.
        if self.ends_connection() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::NoToken | Self::TokenInUrl => {
                (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"conductor\""))
            }
            Self::WrongToken => (
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"conductor\", error=\"invalid_token\""),
            ),
            Self::Method(allowed) => (ALLOW, HeaderValue::from_static(allowed)),
            Self::Rate { retry_in, .. } => (RETRY_AFTER, HeaderValue::from(retry_in.as_secs() + 1)),
            Self::Draining | Self::InFlight { .. } => (RETRY_AFTER, HeaderValue::from_static("1")),
            _ => return None,
        })
    }

    fn ends_connection(&self) -> bool {
        !matches!(self, Self::Message { .. } | Self::NoSession | Self::UnknownSession)
    }
}

/// An answer that is one JSON document.
pub(super) fn document(status: StatusCode, document: &Value) -> Response {
    raw_document(status, Bytes::from(document.to_string()))
}

/// The same of what is JSON already.
pub(super) fn raw_document(status: StatusCode, json: Bytes) -> Response {
    with_type(status, JSON, Either::Left(Full::new(json)))
}

/// Taken, and nothing to say.
pub(super) fn accepted() -> Response {
    empty(StatusCode::ACCEPTED)
}

/// Done, and nothing to say.
pub(super) fn done() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// An answer that goes on.
pub(super) fn stream(events: Events) -> Response {
    let mut response = with_type(StatusCode::OK, "text/event-stream", Either::Right(events));
    // nginx would collect events until it has a buffer full of them.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn with_type(status: StatusCode, media_type: &'static str, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
