//! The sessions of all tokens. Owns them and their ends: by request of the client, with the token, for want of use, with the
//! daemon.
//!
//! A client of the older era begins a session with `initialize` and names it in each request after that; only the token that
//! began it can. The newer era has no sessions: its requests share one for each token, in which the daemon keeps what it
//! keeps for a client, such as calls that wait for an answer and servers of session scope.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use rmcp::RoleServer;
use rmcp::model::RequestId;
use rmcp::service::RxJsonRpcMessage;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Pass;
use super::answer::{self, INVALID_REQUEST, Refusal, Response};
use super::events::{self, Events};
use super::headers::{Resumption, SESSION};
use super::request;
use super::streams::{self, Incoming, NoEventId, NoStream, Streams, cancelled};
use super::tokens::Token;
use crate::session::{Hosted, Kind, Origin};
use crate::supervisor::Shared;

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    shared: Arc<Shared>,
    begun: Mutex<HashMap<String, Arc<BegunSession>>>,
    /// By the token's key.
    of_tokens: Mutex<HashMap<[u8; 32], Arc<TokenSession>>>,
    tracker: TaskTracker,
}

/// A session of the older era.
#[derive(Debug)]
pub(super) struct BegunSession {
    token: Arc<Token>,
    incoming: Incoming,
    streams: Arc<Streams>,
    used_at: Mutex<Instant>,
    end: CancellationToken,
}

/// What all requests of the newer era with one token share.
#[derive(Debug)]
pub(super) struct TokenSession {
    token: Arc<Token>,
    hosted: Hosted,
    used_at: Mutex<Instant>,
    end: CancellationToken,
}

/// Marks a session as used for as long as it lasts, and at its end.
struct Visit(Arc<BegunSession>);

impl Sessions {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (begun, of_tokens) = (Mutex::default(), Mutex::default());
        Self { shared, begun, of_tokens, tracker: TaskTracker::new() }
    }

    /// Begins a session of the older era and answers its first request.
    ///
    /// # Cancel safety
    /// Dropped, the session is there and lies unused.
    pub(super) async fn begin(
        &self,
        token: &Arc<Token>,
        message: Box<RxJsonRpcMessage<RoleServer>>,
        max_sessions: usize,
        pass: Pass,
    ) -> Result<Response, Refusal> {
        let id = crate::random::id().map_err(|_| Refusal::Randomness)?;
        self.make_room(token, max_sessions);
        let session = self.open(token, id.clone());
        // Which revision it will be is not known yet, and the answer comes at once.
        let mut response = session.request(message, Resumption::Untold, pass).await?;
        let id = HeaderValue::try_from(id).expect("hexadecimal digits are a header");
        response.headers_mut().insert(SESSION, id);
        Ok(response)
    }

    fn open(&self, token: &Arc<Token>, id: String) -> Arc<BegunSession> {
        let (incoming, streams, transport) = streams::transport();
        let session = Arc::new(BegunSession {
            token: token.clone(),
            incoming,
            streams: streams.clone(),
            used_at: Mutex::new(Instant::now()),
            end: CancellationToken::new(),
        });
        lock(&self.begun).insert(id, session.clone());
        let hosted = host(&self.shared, token, false);
        let (end, mut phase) = (session.end.clone(), self.shared.phase());
        self.tracker.spawn(async move {
            let drained = async {
                // An error is the supervisor's end, and with it this task's in a moment.
                drop(phase.wait_for(|phase| phase.is_draining()).await);
                streams.close_unasked();
                let deadline = phase.borrow().deadline();
                // late: what is not answered by then is cut off
                let _answered = tokio::time::timeout_at(deadline.into(), streams.all_answered()).await;
            };
            tokio::select! {
                // None is resumed after another has won, so cancel safety does not matter.
                () = hosted.serve(transport, CancellationToken::new()) => {}
                () = end.cancelled() => {}
                () = drained => {}
            }
            streams.close();
            end.cancel();
        });
        session
    }

    /// The session that a request names, if this token began it.
    pub(super) fn find(&self, id: &str, token: &Token) -> Result<Arc<BegunSession>, Refusal> {
        let session = lock(&self.begun).get(id).cloned();
        let session = session.filter(|session| session.token.is(token) && !session.end.is_cancelled());
        session.ok_or(Refusal::UnknownSession)
    }

    /// Ends the session that a request names, if this token began it.
    pub(super) fn end(&self, id: &str, token: &Token) -> Result<(), Refusal> {
        self.find(id, token)?.end.cancel();
        lock(&self.begun).remove(id);
        Ok(())
    }

    /// What requests of the newer era with this token share.
    pub(super) fn of_token(&self, token: &Arc<Token>) -> Arc<TokenSession> {
        let mut of_tokens = lock(&self.of_tokens);
        let new = || {
            Arc::new(TokenSession {
                token: token.clone(),
                hosted: host(&self.shared, token, true),
                used_at: Mutex::new(Instant::now()),
                end: CancellationToken::new(),
            })
        };
        let session = of_tokens.entry(token.key()).or_insert_with(new).clone();
        *lock(&session.used_at) = Instant::now();
        session
    }

    /// The session that was unused longest gives way to another.
    fn make_room(&self, token: &Token, max_sessions: usize) {
        let mut begun = lock(&self.begun);
        begun.retain(|_, session| !session.end.is_cancelled());
        let mut of_token: Vec<_> = begun
            .iter()
            .filter(|(_, session)| session.token.is(token))
            .map(|(id, session)| (session.streams.is_used(), *lock(&session.used_at), id.clone()))
            .collect();
        of_token.sort();
        let n_too_many = (of_token.len() + 1).saturating_sub(max_sessions);
        for (.., id) in of_token.into_iter().take(n_too_many) {
            if let Some(session) = begun.remove(&id) {
                session.end.cancel();
            }
        }
    }

    /// Ends what nobody used for `idle`, and what belongs to tokens that are not among `tokens`.
    pub(super) fn sweep(&self, idle: Duration, tokens: &[Arc<Token>]) {
        let is_valid = |of: &Token| tokens.iter().any(|token| token.is(of));
        lock(&self.begun).retain(|_, session| {
            session.streams.sweep();
            let is_needed = session.streams.is_used() || lock(&session.used_at).elapsed() < idle;
            let stays = is_needed && is_valid(&session.token);
            if !stays {
                session.end.cancel();
            }
            stays && !session.end.is_cancelled()
        });
        lock(&self.of_tokens).retain(|_, session| {
            let is_needed = Arc::strong_count(session) > 1 || lock(&session.used_at).elapsed() < idle;
            let stays = is_needed && is_valid(&session.token);
            if !stays {
                session.end.cancel();
            }
            stays
        });
    }

    /// How many sessions each token has, by its name.
    pub(super) fn count(&self) -> BTreeMap<String, u64> {
        let mut count = BTreeMap::new();
        for session in lock(&self.begun).values().filter(|session| !session.end.is_cancelled()) {
            *count.entry(session.token.name.clone()).or_default() += 1;
        }
        for session in lock(&self.of_tokens).values() {
            *count.entry(session.token.name.clone()).or_default() += 1;
        }
        count
    }

    /// Ends all of them at once.
    pub(super) fn cut_off(&self) {
        for (_, session) in lock(&self.begun).drain() {
            session.end.cancel();
        }
        for (_, session) in lock(&self.of_tokens).drain() {
            session.end.cancel();
        }
    }

    /// Waits until every session of the older era is over, which none is before the daemon goes down.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl BegunSession {
    /// Answers a request.
    ///
    /// # Cancel safety
    /// Dropped, the request goes on, as the protocol wants it: a connection that breaks cancels nothing.
    pub(super) async fn request(
        self: &Arc<Self>,
        message: Box<RxJsonRpcMessage<RoleServer>>,
        resumption: Resumption,
        pass: Pass,
    ) -> Result<Response, Refusal> {
        let RxJsonRpcMessage::<RoleServer>::Request(request) = &*message else {
            return self.tell(message).await;
        };
        let id = request.id.clone();
        let queue = self.streams.open(request).map_err(|why| refused(why, Some(id.clone())))?;
        let visit = Visit::of(self);
        self.incoming.send(message).await.map_err(|_over| Refusal::UnknownSession)?;
        let begin = || self.streams.begin(&id).filter(|_| resumption.is_told());
        Ok(events::answer(queue, begin, (visit, pass)).await)
    }

    /// Takes what needs no answer.
    ///
    /// # Cancel safety
    /// Taken whole, or not at all.
    pub(super) async fn tell(
        self: &Arc<Self>,
        message: Box<RxJsonRpcMessage<RoleServer>>,
    ) -> Result<Response, Refusal> {
        let _visit = Visit::of(self);
        let cancelled = cancelled(&message).cloned();
        self.incoming.send(message).await.map_err(|_over| Refusal::UnknownSession)?;
        if let Some(id) = cancelled {
            self.streams.give_up(&id);
        }
        Ok(answer::accepted())
    }

    /// A stream of what is said unasked.
    pub(super) fn listen(self: &Arc<Self>, resumption: Resumption, pass: Pass) -> Result<Response, Refusal> {
        let (beginning, queue) = self.streams.open_unasked().map_err(|why| refused(why, None))?;
        let events = Events::new(queue, (Visit::of(self), pass));
        Ok(answer::stream(events.beginning_with(Some(beginning).filter(|_| resumption.is_told()))))
    }

    /// A stream that goes on where the client lost it.
    pub(super) fn resume(self: &Arc<Self>, last: &str, pass: Pass) -> Result<Response, Refusal> {
        let queue =
            last.parse().map_err(|NoEventId| NoStream::Forgotten).and_then(|last| self.streams.resume(last));
        let queue = queue.map_err(|why| refused(why, None))?;
        Ok(answer::stream(Events::new(queue, (Visit::of(self), pass))))
    }
}

fn refused(why: NoStream, id: Option<RequestId>) -> Refusal {
    match why {
        NoStream::Closed => Refusal::UnknownSession,
        NoStream::SameId => {
            Refusal::message(INVALID_REQUEST, id, "a request with this id is not answered yet")
        }
        NoStream::Forgotten => {
            let text = "what came after the event of Last-Event-ID is not kept, or never was\nhint: open another stream without \
                        that header, and repeat what was not answered";
            Refusal::message(INVALID_REQUEST, id, text)
        }
        NoStream::TooMany => Refusal::message(INVALID_REQUEST, id, "this session has too many streams open"),
    }
}

impl TokenSession {
    /// Answers a request.
    ///
    /// # Cancel safety
    /// Dropped, it cancels the request, as the protocol wants it.
    pub(super) async fn request(
        self: &Arc<Self>,
        message: Box<RxJsonRpcMessage<RoleServer>>,
        pass: Pass,
    ) -> Response {
        let held = (self.clone(), pass);
        request::serve(self.hosted.server(), message, self.end.child_token(), held).await
    }

    /// The input schema of a tool that there is.
    pub(super) fn input_schema(&self, tool: &str) -> Option<serde_json::Value> {
        self.hosted.input_schema(tool)
    }
}

impl Visit {
    fn of(session: &Arc<BegunSession>) -> Self {
        *lock(&session.used_at) = Instant::now();
        Self(session.clone())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        *lock(&self.0.used_at) = Instant::now();
    }
}

/// A session for the profile of a token. Whoever has the token sent no environment, and would choose nothing by it.
fn host(shared: &Arc<Shared>, token: &Token, requests: bool) -> Hosted {
    let kind = Kind::Http { token: token.name.as_str().into(), requests };
    let origin = Origin {
        kind,
        pid: 0,
        build: String::new(),
        cwd: String::new(),
        env: BTreeMap::new(),
        tenant: token.tenant().map(str::to_owned),
    };
    Hosted::open(shared.registry.next_id(), origin, shared.clone())
}

/// Locks plain data that no panic leaves half-changed.
fn lock<T>(data: &Mutex<T>) -> MutexGuard<'_, T> {
    data.lock().unwrap_or_else(PoisonError::into_inner)
}
