//! What a simulated session offers: one tool, whose calls wait, tell, ask and end as their dice say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conductor_upstream::{Ask, ClientRequests as _, ServerAsks, SessionId};
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientNotification, ClientRequest, CustomResult, ErrorData,
    Implementation, ServerCapabilities, ServerConfig, ServerResult,
};
use rmcp::service::{NotificationContext, RequestContext, Service};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Dice;
use crate::profile::Profile;
use crate::session::requests::ClientRouter;
use crate::session::rounds::{Answer, Asked, Call, End, Events, over};
use crate::session::{Session, lock};

/// What calls did, by the serial number in their arguments.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) runs: BTreeMap<u64, usize>,
    pub(super) running: usize,
    /// Questions that a call waits to be answered.
    pub(super) asking: usize,
    pub(super) answered: usize,
}

/// The service of a simulated session.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) session: Arc<Session>,
    pub(super) profile: Arc<Profile>,
    pub(super) router: Arc<ClientRouter>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) seed: u64,
}

impl Tools {
    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let (asked, mut retry) = Asked::tool(&request);
        let call = match self.session.suspended.resume(&asked, &mut retry)? {
            Some(call) => call,
            None if retry.state.is_some() => return Err(over()),
            None => match self.start(asked, context) {
                Ok(call) => call,
                Err(refused) => {
                    return Ok(ServerResult::CallToolResult(CallToolResult::structured_error(refused)));
                }
            },
        };
        Ok(match call.follow(&self.session, context).await? {
            Answer::Result(result) => ServerResult::CallToolResult(*result),
            Answer::Raw(members) => ServerResult::CustomResult(CustomResult(Value::Object(members))),
        })
    }

    fn start(&self, asked: Asked, context: &RequestContext<RoleServer>) -> Result<Call, Value> {
        let serial =
            asked.arguments.as_ref().and_then(|arguments| arguments["serial"].as_u64()).expect("a serial");
        let id = format!("call-{serial}");
        let in_flight =
            self.session.call_started(&self.profile, &id).map_err(|refused| json!(refused.to_string()))?;
        let (events, told) = mpsc::channel(4);
        let questions = self.session.open_call(&id, None, context);
        let cancel = in_flight.cancel.clone();
        let mut run = Run { tools: self.clone(), serial, dice: Dice(self.seed ^ (serial << 32)), events };
        let work = async move {
            let cancel = in_flight.cancel.clone();
            tokio::select! {
                // Biased, so that a seed decides. Not resumed after the other has won.
                biased;
                () = cancel.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
                end = run.go() => end,
            }
        };
        Ok(Call::start(asked, id, work, Events::Progress(told), questions, cancel))
    }
}

/// One call.
struct Run {
    tools: Tools,
    serial: u64,
    dice: Dice,
    events: mpsc::Sender<Value>,
}

impl Run {
    async fn go(&mut self) -> End {
        let ledger = self.tools.ledger.clone();
        *lock(&ledger).runs.entry(self.serial).or_default() += 1;
        let _running = Counted::new(&ledger, |ledger| &mut ledger.running);
        assert!(lock(&ledger).running <= self.tools.profile.max_calls_in_flight, "too many calls at a time");
        let mut told = 0;
        for _ in 0..self.dice.roll(6) {
            match self.dice.roll(4) {
                0 | 1 => {
                    told += 1;
                    let params = json!({ "progress": told, "message": self.serial.to_string() });
                    // Nobody listens any more: the call goes on to its end.
                    let _heard = self.events.send(params).await;
                }
                2 => tokio::time::sleep(Duration::from_millis(self.dice.roll(3000))).await,
                _ => self.ask().await,
            }
        }
        let result = json!({ "serial": self.serial, "told": told });
        Ok(Answer::Result(Box::new(CallToolResult::structured(result))))
    }

    /// Asks the client, who says the serial number back, or does not answer.
    async fn ask(&mut self) {
        let ledger = self.tools.ledger.clone();
        let _asking = Counted::new(&ledger, |ledger| &mut ledger.asking);
        let params = json!({ "message": "?", "requestedSchema": { "type": "object", "properties": {} }, "serial": self.serial });
        let request = ServerAsks { server: "s".to_owned(), what: Ask::Elicitation, params };
        let session = SessionId::new(self.tools.session.id.to_string());
        if let Ok(answer) = self.tools.router.ask(session, request).await {
            // Without a call of its own to go by, a question may go by another's; the answer is still its own.
            assert_eq!(answer["content"]["serial"], self.serial, "another question's answer: {answer}");
            lock(&ledger).answered += 1;
        }
    }
}

/// Counts as long as it lives.
struct Counted<'l> {
    ledger: &'l Mutex<Ledger>,
    field: fn(&mut Ledger) -> &mut usize,
}

impl<'l> Counted<'l> {
    fn new(ledger: &'l Mutex<Ledger>, field: fn(&mut Ledger) -> &mut usize) -> Self {
        *field(&mut lock(ledger)) += 1;
        Self { ledger, field }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *(self.field)(&mut lock(self.ledger)) -= 1;
    }
}

impl Service<RoleServer> for Tools {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        self.session.link.met(&context.peer);
        match request {
            ClientRequest::InitializeRequest(_) => Ok(ServerResult::InitializeResult(self.get_info())),
            ClientRequest::CallToolRequest(request) => self.call(request.params, &context).await,
            _ => Ok(ServerResult::empty(())),
        }
    }

    async fn handle_notification(
        &self,
        _notification: ClientNotification,
        _context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("simulated", "1"))
    }
}
