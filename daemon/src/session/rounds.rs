//! Calls that take several requests: each request is answered with the result, or with what a server asks meanwhile.
//!
//! A [`Call`] is work that goes on in a task of its own. A request follows it to its end, or to a question for the client.
//! In the second case the request is answered with `input_required`, and the call waits in [`Suspended`] under its
//! `requestState` until the client repeats the request with the replies (MRTR, SEP-2322). So a running worker is not
//! suspended: it waits for its upstream's answer as for any other, its own time limit goes on, and it keeps its place among
//! the session's calls in flight. Output of its code is told to the next request.
//!
//! That is for servers of the older era, and for code. What a server of the newer era asks in place of the result of a plain
//! call is the client's own business: its question and its `requestState` are passed on, and so is the retry.
//!
//! A client that never comes back ends the call after [`ANSWER_TIME`], and so does the end of its session. A
//! `requestState` is valid once, in its own session, and for the same request; it is a name, not a secret,
//! and leaves the daemon sealed (see [`super::state`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use conductor_upstream::{Ask, CallError, Input};
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, GetPromptRequestParams, InputResponses, JsonObject,
    ProgressNotificationParam, ReadResourceRequestParams,
};
use rmcp::service::RequestContext;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::follow::Follower;
use super::requests::{ANSWER_TIME, OpenCall, Question, method};
use super::{Session, lock};
use crate::exec::CallEvent;

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    Result(Box<CallToolResult>),
    /// The members of a result as they are to stand in the answer.
    Raw(Map<String, Value>),
}

/// How a call ends.
pub(super) type End = Result<Answer, ErrorData>;

/// What a request asks for, without its replies: a retry has to ask for the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) method: &'static str,
    /// The tool, the prompt or the URI.
    pub(super) name: String,
    pub(super) arguments: Option<JsonObject>,
}

/// What a request brings along if it is a retry.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) state: Option<String>,
    pub(super) responses: Option<InputResponses>,
}

/// What there is to tell while a call goes on.
#[derive(Debug)]
pub(super) enum Events {
    /// Nobody wants to be told.
    None,
    Run(mpsc::Receiver<CallEvent>),
    /// `params` of an upstream's progress notifications.
    Progress(mpsc::Receiver<Value>),
}

#[derive(Debug)]
enum Event {
    Run(CallEvent),
    Progress(Value),
}

/// Work that was started for a request and may outlive it. Dropped, it is cancelled.
#[derive(Debug)]
pub(super) struct Call {
    asked: Asked,
    /// Its execution id.
    id: String,
    work: JoinHandle<End>,
    events: Events,
    /// Questions of servers, where the client can be asked only by way of the call.
    questions: Option<(OpenCall, mpsc::Receiver<Question>)>,
    cancel: CancellationToken,
    round: u32,
}

/// Calls of a session whose client has to say something first.
#[derive(Debug, Default)]
pub(super) struct Suspended(Mutex<HashMap<String, Waiting>>);

#[derive(Debug)]
struct Waiting {
    call: Call,
    replies: Vec<(String, oneshot::Sender<Result<Value, String>>)>,
    _expiry: AbortOnDropHandle<()>,
}

/// Where a call stands when a request has to be answered.
enum Turn {
    Ended(End),
    Asks(Vec<Question>),
}

impl Asked {
    /// What a call of a tool asks for, and what it brings along.
    pub(super) fn tool(request: &CallToolRequestParams) -> (Self, Retry) {
        let asked = Self {
            method: "tools/call",
            name: request.name.to_string(),
            arguments: request.arguments.clone(),
        };
        let (state, responses) = (request.request_state.clone(), request.input_responses.clone());
        (asked, Retry { state, responses })
    }

    /// The same of a prompt.
    pub(super) fn prompt(request: &GetPromptRequestParams) -> (Self, Retry) {
        let asked =
            Self { method: "prompts/get", name: request.name.clone(), arguments: request.arguments.clone() };
        let (state, responses) = (request.request_state.clone(), request.input_responses.clone());
        (asked, Retry { state, responses })
    }

    /// The same of a resource.
    pub(super) fn resource(request: &ReadResourceRequestParams) -> (Self, Retry) {
        let asked = Self { method: "resources/read", name: request.uri.clone(), arguments: None };
        let (state, responses) = (request.request_state.clone(), request.input_responses.clone());
        (asked, Retry { state, responses })
    }
}

impl From<Retry> for Input {
    fn from(retry: Retry) -> Self {
        Self { responses: retry.responses, state: retry.state }
    }
}

/// What a retry is told whose call nobody knows.
pub(super) fn over() -> ErrorData {
    ErrorData::invalid_params(CallError::Over.to_string(), None)
}

impl Call {
    /// `work` has to end when `cancel` is cancelled.
    pub(super) fn start(
        asked: Asked,
        id: String,
        work: impl Future<Output = End> + Send + 'static,
        events: Events,
        questions: Option<(OpenCall, mpsc::Receiver<Question>)>,
        cancel: CancellationToken,
    ) -> Self {
        let work = tokio::spawn(work);
        Self { asked, id, work, events, questions, cancel, round: 0 }
    }

    /// Follows the call for one request, and tells the client what happens meanwhile: in order, and before the answer.
    pub(super) async fn follow(
        mut self,
        session: &Arc<Session>,
        context: &RequestContext<RoleServer>,
    ) -> End {
        let mut teller = Teller::new(context, session);
        match self.turn(context, &mut teller).await {
            Turn::Ended(end) => {
                while let Some(event) = self.events.ready() {
                    teller.tell(event).await;
                }
                teller.finish().await;
                end
            }
            Turn::Asks(questions) => Ok(Answer::Raw(session.suspended.add(session, self, questions))),
        }
    }

    async fn turn(&mut self, context: &RequestContext<RoleServer>, teller: &mut Teller<'_>) -> Turn {
        let cancel = self.cancel.clone();
        loop {
            tokio::select! {
                // Biased: what happened is told before the answer that it belongs to.
                biased;
                // Cancel-safe: waits for a flag.
                () = context.ct.cancelled(), if !cancel.is_cancelled() => cancel.cancel(),
                // Cancel-safe: an event that is not taken stays in the channel.
                Some(event) = self.events.next() => teller.tell(event).await,
                // Cancel-safe: the task goes on.
                ended = &mut self.work => return Turn::Ended(ended.unwrap_or_else(|panicked| {
                    tracing::error!(error = %panicked, "a call failed; this is a fault of conductor");
                    Err(ErrorData::internal_error("the call failed; this is a fault of conductor", None))
                })),
                // Cancel-safe: a question that is not taken stays in the channel.
                Some(first) = next_question(&mut self.questions) => {
                    let mut questions = vec![first];
                    if let Some((_, queue)) = &mut self.questions {
                        questions.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                    }
                    return Turn::Asks(questions);
                }
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn next_question(questions: &mut Option<(OpenCall, mpsc::Receiver<Question>)>) -> Option<Question> {
    match questions {
        Some((_, queue)) => queue.recv().await,
        None => None,
    }
}

impl Suspended {
    /// Keeps a call until its questions are answered; gives the result that asks them.
    fn add(&self, session: &Arc<Session>, mut call: Call, questions: Vec<Question>) -> Map<String, Value> {
        call.round += 1;
        let state = format!("{}.{}", call.id, call.round);
        let mut requests = BTreeMap::new();
        let mut replies = Vec::new();
        for (n, Question { what, params, reply }) in questions.into_iter().enumerate() {
            let key = format!("{}-{}", word(what), n + 1);
            let request = match what {
                Ask::Roots => json!({ "method": method(what) }),
                Ask::Elicitation | Ask::Sampling => json!({ "method": method(what), "params": params }),
            };
            requests.insert(key.clone(), request);
            replies.push((key, reply));
        }
        let expiry = tokio::spawn(expire(session.clone(), state.clone()));
        let waiting = Waiting { call, replies, _expiry: AbortOnDropHandle::new(expiry) };
        lock(&self.0).insert(state.clone(), waiting);
        let result =
            json!({ "resultType": "input_required", "inputRequests": requests, "requestState": state });
        match result {
            Value::Object(members) => members,
            _ => unreachable!("it is written as an object"),
        }
    }

    /// The call that a retry continues, with the replies handed over; `None` if it continues none that waits here.
    pub(super) fn resume(&self, asked: &Asked, retry: &mut Retry) -> Result<Option<Call>, ErrorData> {
        let Some(state) = &retry.state else { return Ok(None) };
        let waiting = lock(&self.0).remove(state);
        let Some(Waiting { call, replies, .. }) = waiting else { return Ok(None) };
        if call.asked != *asked {
            return Err(over());
        }
        let mut responses = retry.responses.take().unwrap_or_default();
        for (key, reply) in replies {
            let response =
                responses.remove(&key).ok_or_else(|| "the client left the question out".to_owned());
            // The server asks no more: it was cancelled, or waited too long.
            let _taken = reply.send(response);
        }
        Ok(Some(call))
    }
}

/// Gives a suspended call up when its client does not come back.
async fn expire(session: Arc<Session>, state: String) {
    tokio::select! {
        // Cancel-safe: a time and a flag.
        () = tokio::time::sleep(ANSWER_TIME) => {}
        () = session.gone.cancelled() => {}
    }
    let given_up = lock(&session.suspended.0).remove(&state);
    drop(given_up);
}

fn word(what: Ask) -> &'static str {
    match what {
        Ask::Elicitation => "elicitation",
        Ask::Sampling => "sampling",
        Ask::Roots => "roots",
    }
}

impl Events {
    /// # Cancel safety
    /// Cancel safe.
    async fn next(&mut self) -> Option<Event> {
        match self {
            Self::None => None,
            Self::Run(events) => events.recv().await.map(Event::Run),
            Self::Progress(events) => events.recv().await.map(Event::Progress),
        }
    }

    fn ready(&mut self) -> Option<Event> {
        match self {
            Self::None => None,
            Self::Run(events) => events.try_recv().ok().map(Event::Run),
            Self::Progress(events) => events.try_recv().ok().map(Event::Progress),
        }
    }
}

/// Tells the client of one request.
struct Teller<'a> {
    context: &'a RequestContext<RoleServer>,
    follower: Option<Follower>,
}

impl<'a> Teller<'a> {
    fn new(context: &'a RequestContext<RoleServer>, session: &Session) -> Self {
        Self { context, follower: Follower::new(context, session.link.level()) }
    }

    async fn tell(&mut self, event: Event) {
        match event {
            Event::Run(event) => {
                if let Some(follower) = &mut self.follower {
                    follower.tell(event).await;
                }
            }
            Event::Progress(mut params) => {
                let token = self.context.meta.get_progress_token();
                let (Some(token), Some(members)) = (token, params.as_object_mut()) else { return };
                members.insert("progressToken".to_owned(), json!(token));
                if let Ok(params) = serde_json::from_value::<ProgressNotificationParam>(params) {
                    // client gone: the session's token ends the call
                    let _gone = self.context.peer.notify_progress(params).await;
                }
            }
        }
    }

    async fn finish(&mut self) {
        if let Some(follower) = &mut self.follower {
            follower.finish().await;
        }
    }
}
