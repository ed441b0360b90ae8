//! What is decided of requests by their bytes alone, with no daemon behind them: for checks with any bytes.
//!
//! In: what a client sends on one connection. Out: what was read of it, and what the rules about callers, tokens and headers
//! say of each request. Whether a token is known, a session is there, or a limit is reached, is not looked at.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{self, Refusal};
use super::guard::{Guard, bearer};
use super::headers::{Era, Message, check, era};
use super::listener::reader;
use crate::config::HttpSection;
use crate::config::http::HttpLimits;

/// The rules of one `[http]` section.
#[derive(Clone, Debug)]
pub struct Rules {
    guard: Arc<Guard>,
    limits: HttpLimits,
}

/// One request as it was read, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub target: String,
    pub hosts: Vec<Vec<u8>>,
    pub origins: Vec<Vec<u8>>,
    pub body: Vec<u8>,
    /// The token it brings along, or why it is refused.
    pub verdict: Result<Vec<u8>, String>,
}

impl Rules {
    /// `bound`: where the daemon would listen.
    pub fn new(section: &HttpSection, bound: &[SocketAddr]) -> Self {
        Self { guard: Arc::new(Guard::new(section, bound)), limits: section.limits() }
    }

    /// Every request on a connection, up to the first that cannot be read as one.
    ///
    /// # Cancel safety
    /// The connection is given up.
    pub async fn judge(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Vec<Judged> {
        let all = Arc::<Mutex<Vec<Judged>>>::default();
        let (rules, judged) = (self.clone(), all.clone());
        let answer = service_fn(move |request| {
            let (rules, judged) = (rules.clone(), judged.clone());
            async move {
                let (request, response) = rules.judge_one(request).await;
                judged.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                Ok::<_, Infallible>(response)
            }
        });
        // How it ends is in what was read of it.
        let _ended = reader(&self.limits).serve_connection(TokioIo::new(stream), answer).await;
        std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn judge_one(&self, request: http::Request<Incoming>) -> (Judged, answer::Response) {
        let (parts, body) = request.into_parts();
        let token = self.guard.check_caller(&parts.uri, &parts.headers);
        let token = token.and_then(|()| bearer(&parts.uri, &parts.headers)).map(<[u8]>::to_vec);
        let (body, verdict) = match token {
            Ok(token) => match Limited::new(body, self.limits.max_body_bytes).collect().await {
                Ok(body) => {
                    let body = body.to_bytes().to_vec();
                    let verdict = agreed(&parts, &body).map(|()| token);
                    (body, verdict)
                }
                Err(_broken) => (Vec::new(), Err(Refusal::Broken)),
            },
            Err(refusal) => (Vec::new(), Err(refusal)),
        };
        let values =
            |name| parts.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect();
        let judged = Judged {
            target: parts.uri.to_string(),
            hosts: values(HOST),
            origins: values(ORIGIN),
            body,
            verdict: verdict.as_ref().map_err(Refusal::to_string).cloned(),
        };
        (judged, verdict.map_or_else(|refusal| refusal.response(), |_| answer::accepted()))
    }
}

/// Whether headers and body say the same.
fn agreed(parts: &Parts, body: &[u8]) -> Result<(), Refusal> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = Message::of(&document);
    match (era(&parts.headers, message.as_ref())?, message) {
        // The body may bring the schema of its tool along: a server can announce any.
        (Era::Requests, Some(message)) => {
            check(&parts.headers, &message, |_| document.get("schema").cloned())
        }
        _ => Ok(()),
    }
}
