//! A simulated client: calls, cancels, answers questions, comes back with replies, and leaves in one of several ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conductor_protocol::{FrameDecoder, SessionFrame, codec, frame};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::Dice;
use crate::supervisor::Phase;

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Closes its sending side when it has no more to say, or is told that the daemon goes down; then reads to the end.
    InGoodOrder,
    /// Never closes; reads until the daemon does.
    Never,
    /// Is gone at once.
    Suddenly,
}

/// What is known of a call over all its rounds.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// `None`: no call.
    serial: Option<u64>,
}

/// See the module.
pub(super) struct Client {
    dice: Dice,
    reader: ReadHalf<DuplexStream>,
    writer: Option<WriteHalf<DuplexStream>>,
    decoder: FrameDecoder,
    is_gone: Arc<AtomicBool>,
    phase: watch::Receiver<Phase>,
    is_newer: bool,
    leaving: Leaving,
    messages_left: u64,
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    cancelled: BTreeSet<u64>,
    /// Messages that are no JSON, whose answers have no id.
    malformed: usize,
    /// Calls to be made again, with the replies.
    retries: Vec<(u64, Value)>,
    used_states: Vec<(u64, Value)>,
    /// The last progress of each call.
    progress: BTreeMap<u64, f64>,
    is_draining: bool,
    has_goodbye: bool,
    pub(super) tally: Tally,
}

/// What happened to a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) answers: usize,
    pub(super) rounds: usize,
    pub(super) told: usize,
    pub(super) cancelled: usize,
    /// Serial numbers of calls that were given back.
    pub(super) returned: Vec<u64>,
    pub(super) vanished: bool,
}

impl Client {
    pub(super) fn new(
        seed: u64,
        stream: DuplexStream,
        is_gone: Arc<AtomicBool>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let mut dice = Dice(seed.wrapping_mul(7));
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer: Some(writer),
            decoder: FrameDecoder::default(),
            is_gone,
            phase,
            is_newer: dice.one_in(2),
            leaving: [Leaving::InGoodOrder, Leaving::InGoodOrder, Leaving::Never, Leaving::Suddenly]
                [usize::try_from(dice.roll(4)).expect("small")],
            messages_left: 3 + dice.roll(25),
            dice,
            next_id: 0,
            pending: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            malformed: 0,
            retries: Vec::new(),
            used_states: Vec::new(),
            progress: BTreeMap::new(),
            is_draining: false,
            has_goodbye: false,
            tally: Tally::default(),
        }
    }

    /// Lives until the connection ends; then every request must have its answer.
    pub(super) async fn live(mut self) -> Tally {
        if !self.is_newer {
            self.initialize().await;
        }
        let mut chunk = [0; 4096];
        loop {
            let pause = Duration::from_millis(self.dice.roll(400));
            let may_act = self.writer.is_some() && !self.is_draining && self.messages_left > 0;
            tokio::select! {
                // Biased, so that a seed decides. Cancel-safe: bytes that are not read stay, and a time.
                biased;
                read = self.reader.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(n) => {
                        self.decoder.push(&chunk[..n]);
                        self.read_frames().await;
                    }
                },
                () = tokio::time::sleep(pause), if may_act => self.act().await,
            }
            let is_done = self.messages_left == 0 && self.retries.is_empty();
            match self.leaving {
                Leaving::InGoodOrder if is_done || self.is_draining => self.close().await,
                Leaving::Suddenly if self.messages_left == 0 => {
                    self.is_gone.store(true, Ordering::Relaxed);
                    self.tally.vanished = true;
                    return self.tally;
                }
                _ => {}
            }
        }
        // What it had not read by then, the daemon can neither take nor give back.
        let is_late = tokio::time::Instant::now().into_std() >= self.phase.borrow().deadline();
        assert!(
            self.pending.is_empty() || is_late,
            "no answer to {:?}, left {:?}, is newer: {}, told: {}",
            self.pending,
            self.leaving,
            self.is_newer,
            self.is_draining
        );
        assert!(self.has_goodbye || !self.is_draining, "it is told how the session ends");
        self.tally
    }

    async fn initialize(&mut self) {
        let capabilities = json!({ "elicitation": {} });
        let info = json!({ "name": "simulated", "version": "1" });
        let params =
            json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": info });
        self.request("initialize", params, None).await;
        self.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    }

    async fn act(&mut self) {
        self.messages_left -= 1;
        match self.dice.roll(12) {
            0 => {
                let calls: Vec<u64> = self
                    .pending
                    .iter()
                    .filter(|(_, request)| request.serial.is_some())
                    .map(|(id, _)| *id)
                    .collect();
                let Some(&id) = calls.first() else { return };
                self.pending.remove(&id);
                self.cancelled.insert(id);
                self.tally.cancelled += 1;
                let params = json!({ "requestId": id });
                self.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }))
                    .await;
            }
            1 => {
                self.malformed += 1;
                self.send_bytes(b"{nope".to_vec()).await;
            }
            2 => self.request("ping", json!({}), None).await,
            // A state that was used already: the call is over for it.
            3 if !self.used_states.is_empty() => {
                let (serial, params) = self.used_states[0].clone();
                self.call(serial, params).await;
            }
            _ => {
                let serial = self.next_id + 1000;
                self.call(serial, json!({ "name": "work", "arguments": { "serial": serial } })).await;
            }
        }
    }

    async fn call(&mut self, serial: u64, params: Value) {
        self.request("tools/call", params, Some(serial)).await;
    }

    async fn request(&mut self, method: &str, mut params: Value, serial: Option<u64>) {
        self.next_id += 1;
        let id = self.next_id;
        params["_meta"]["progressToken"] = json!(id);
        if self.is_newer {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "simulated", "version": "1" });
        }
        self.pending.insert(id, Pending { serial });
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
    }

    async fn send(&mut self, message: Value) {
        self.send_bytes(message.to_string().into_bytes()).await;
    }

    async fn send_bytes(&mut self, message: Vec<u8>) {
        let payload = codec::encode(&SessionFrame::Mcp(message)).expect("encodes");
        let bytes = frame::encode(&payload).expect("fits");
        if let Some(writer) = &mut self.writer {
            // The session is over: its end is read next.
            let _over = writer.write_all(&bytes).await;
        }
    }

    async fn close(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.shutdown().await.expect("it is open");
        }
    }

    async fn read_frames(&mut self) {
        while let Some(payload) = self.decoder.next_frame().expect("the daemon writes frames") {
            assert!(!self.has_goodbye, "nothing follows a goodbye");
            match codec::decode(&payload).expect("the daemon writes messages") {
                SessionFrame::Mcp(body) => {
                    let message: Value = serde_json::from_slice(&body).expect("JSON");
                    self.hear(message).await;
                }
                SessionFrame::Draining => {
                    assert!(!self.is_draining, "it is told twice");
                    self.is_draining = true;
                }
                SessionFrame::Returned(body) => self.take_back(&body),
                SessionFrame::Goodbye { .. } => self.has_goodbye = true,
            }
        }
        while let Some((serial, params)) = self.retries.pop() {
            if self.writer.is_some() && !self.is_draining {
                self.call(serial, params).await;
            }
        }
    }

    fn take_back(&mut self, body: &[u8]) {
        assert!(self.phase.borrow().is_draining(), "a request is given back while the daemon runs");
        let message: Value = serde_json::from_slice(body).expect("JSON");
        let id = message["id"].as_u64().expect("a request");
        match self.pending.remove(&id) {
            Some(Pending { serial }) if message["params"].get("requestState").is_none() => {
                self.tally.returned.extend(serial);
            }
            Some(_) => {}
            None => assert!(self.cancelled.remove(&id), "given back and not asked for: {message}"),
        }
    }

    async fn hear(&mut self, message: Value) {
        match (message.get("id"), message.get("method").and_then(Value::as_str)) {
            (Some(Value::Null), None) => {
                self.malformed = self.malformed.checked_sub(1).expect("an error that answers nothing");
            }
            (Some(id), None) => self.read_answer(id.as_u64().expect("an id of ours"), &message),
            (Some(id), Some(method)) => {
                assert!(!self.is_newer, "a client of this revision gets no {method}");
                // Some questions are never answered.
                if self.writer.is_some() && !self.dice.one_in(4) {
                    let result = reply_to(&message["params"]);
                    self.send(json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
                }
            }
            (None, Some("notifications/progress")) => self.read_progress(&message["params"]),
            // The daemon withdraws its question.
            (None, Some("notifications/cancelled")) if !self.is_newer => {}
            _ => panic!("{message}"),
        }
    }

    fn read_answer(&mut self, id: u64, message: &Value) {
        self.tally.answers += 1;
        let Some(Pending { serial }) = self.pending.remove(&id) else {
            assert!(self.cancelled.remove(&id), "a second answer, or one to nothing: {message}");
            return;
        };
        let result = &message["result"];
        let Some(serial) = serial else { return };
        if result["resultType"] == "input_required" {
            self.tally.rounds += 1;
            let questions = result["inputRequests"].as_object().expect("questions");
            let replies: serde_json::Map<String, Value> = questions
                .iter()
                .map(|(key, question)| (key.clone(), reply_to(&question["params"])))
                .collect();
            let params = json!({
                "name": "work",
                "arguments": { "serial": serial },
                "requestState": result["requestState"],
                "inputResponses": replies,
            });
            // Some never come back.
            if !self.dice.one_in(5) {
                self.used_states.push((serial, params.clone()));
                self.retries.push((serial, params));
            }
        } else if let Some(told) = result["structuredContent"]["told"].as_f64() {
            assert_eq!(result["structuredContent"]["serial"], serial, "another call's answer");
            let heard = self.progress.get(&serial).copied().unwrap_or(0.0);
            assert!(heard <= told, "more was told than there was");
        }
    }

    fn read_progress(&mut self, params: &Value) {
        self.tally.told += 1;
        let id = params["progressToken"].as_u64().expect("a token of ours");
        let request = self.pending.get(&id);
        assert!(request.is_some() || self.cancelled.contains(&id), "progress after the answer: {params}");
        let serial: u64 = params["message"].as_str().expect("a text").parse().expect("a serial");
        assert!(
            request.is_none_or(|request| request.serial == Some(serial)),
            "another call's progress: {params}"
        );
        let progress = params["progress"].as_f64().expect("a number");
        let before = self.progress.insert(serial, progress).unwrap_or(0.0);
        assert!(progress > before, "{progress} after {before}");
    }
}

fn reply_to(params: &Value) -> Value {
    json!({ "action": "accept", "content": { "serial": params["serial"] } })
}
