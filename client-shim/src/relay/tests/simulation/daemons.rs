//! What the simulated daemons do: read, answer, ask, die, and go down in good order.

use serde_json::{Value, json};

use super::{Frame, World};
use crate::relay::is_repeatable;

impl World {
    pub(super) fn step_daemon(&mut self) {
        let Some(at) = self.links.len().checked_sub(1).filter(|&at| self.links[at].alive) else { return };
        let link = &mut self.links[at];
        if link.draining && link.finished && link.to_daemon.is_empty() && link.running.is_empty() {
            // What it has said still arrives.
            link.alive = false;
            return;
        }
        match self.dice.roll(4) {
            0 | 1 => {
                if let Some(message) = self.links[at].to_daemon.pop_front() {
                    self.daemon_reads(at, &message);
                }
            }
            2 => self.daemon_answers(at),
            _ => {
                let link = &mut self.links[at];
                if link.initialized && !link.draining && link.questions < 3 && self.dice.one_in(10) {
                    let id = link.questions;
                    link.questions += 1;
                    link.open_questions.insert(id);
                    let params = json!({"daemon": at, "question": id});
                    link.to_shim.push_back(Frame::Mcp(
                        json!({"jsonrpc": "2.0", "id": id, "method": "roots/list", "params": params}),
                    ));
                }
            }
        }
    }

    fn daemon_reads(&mut self, at: usize, message: &Value) {
        let link = &mut self.links[at];
        let Some(method) = message.get("method").and_then(Value::as_str) else {
            let question = message["id"].as_u64().expect("a daemon's own id");
            assert!(
                link.open_questions.remove(&question),
                "an answer to no open question of this daemon: {message}"
            );
            assert_eq!(
                message["result"],
                json!({"daemon": at, "question": question}),
                "another daemon's answer"
            );
            return;
        };
        if link.draining && message.get("id").is_some() {
            self.returned += 1;
            link.to_shim.push_back(Frame::Returned(message.clone()));
            return;
        }
        let serial = message["params"]["serial"].as_u64().expect("every message has one");
        let is_replayed = message["id"].as_str().is_some_and(|id| id.starts_with("conductor-shim:"));
        if !is_replayed && !is_repeatable(method) && method != "notifications/initialized" {
            assert!(link.received.last() < Some(&serial), "{message} comes too late");
            link.received.push(serial);
        }
        assert!(link.initialized || method == "initialize", "{method} before initialize");
        let uri = || message["params"]["uri"].as_str().expect("a URI").to_owned();
        match method {
            "initialize" => {
                assert!(!link.initialized, "initialize twice");
                link.initialized = true;
            }
            "tools/call" => *self.executions.entry(serial).or_default() += 1,
            "resources/subscribe" => drop(link.subscriptions.insert(uri())),
            "resources/unsubscribe" => drop(link.subscriptions.remove(&uri())),
            "logging/setLevel" => link.level = Some(message["params"]["level"].clone()),
            "notifications/cancelled" => {
                let is_cancelled = |running: &Value| running["id"] == message["params"]["requestId"];
                // Sometimes the answer is already on its way.
                if !self.dice.one_in(3) {
                    link.running.retain(|running| !is_cancelled(running));
                }
            }
            _ => {}
        }
        if message.get("id").is_some() {
            link.running.push(message.clone());
        }
    }

    fn daemon_answers(&mut self, at: usize) {
        let link = &mut self.links[at];
        if link.running.is_empty() {
            return;
        }
        let running = self.dice.roll(link.running.len());
        let id = link.running[running]["id"].clone();
        if link.running[running]["method"] == "tools/call" && self.dice.one_in(2) {
            link.to_shim
                .push_back(Frame::Mcp(json!({"method": "notifications/progress", "params": {"of": id}})));
            return;
        }
        link.running.swap_remove(running);
        link.to_shim.push_back(Frame::Mcp(json!({"jsonrpc": "2.0", "id": id, "result": {}})));
    }

    pub(super) fn kill(&mut self) {
        let Some(link) = self.links.last_mut().filter(|link| link.alive) else { return };
        self.deaths_left -= 1;
        self.deaths += 1;
        link.alive = false;
        link.to_daemon.clear();
        // What the socket did not take any more.
        let kept = self.dice.roll(link.to_shim.len() + 1);
        link.to_shim.truncate(kept);
    }

    pub(super) fn drain(&mut self) {
        let Some(link) = self.links.last_mut().filter(|link| link.alive && !link.draining) else { return };
        self.drains_left -= 1;
        link.draining = true;
        link.to_shim.push_back(Frame::Draining);
    }
}
