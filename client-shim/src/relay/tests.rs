use serde_json::{Value, json};

use super::*;
use crate::scan::Scanner;

mod simulation;

fn envelope(json: &[u8]) -> Envelope {
    let mut scanner = Scanner::default();
    scanner.feed(json);
    Envelope::new(&scanner.finish()).expect("a message")
}

/// A relay driven by hand: every write succeeds unless a test says otherwise.
#[derive(Default)]
struct Bench {
    relay: Relay,
}

impl Bench {
    fn live() -> Self {
        let mut bench = Self::default();
        assert_eq!(bench.connect(), Vec::<Value>::new());
        bench
    }

    /// A relay whose client has been through `initialize`.
    fn initialized() -> Self {
        let mut bench = Self::live();
        bench.sent(json!({"id": 0, "method": "initialize", "params": {"x": 1}}));
        assert_eq!(bench.daemon(json!({"id": 0, "result": {}})).len(), 1);
        bench.sent(json!({"method": "notifications/initialized"}));
        bench
    }

    fn client(&mut self, message: &Value) -> Verdict {
        let json = message.to_string().into_bytes();
        self.relay.client(&envelope(&json), &json)
    }

    fn written(&mut self, ok: bool, message: &Value) -> Verdict {
        let json = message.to_string().into_bytes();
        self.relay.written(ok, &envelope(&json), &json)
    }

    /// The message goes out whole and unchanged.
    fn sent(&mut self, message: Value) {
        assert_eq!(self.client(&message), Verdict::Send(None), "{message}");
        assert_eq!(self.written(true, &message), Verdict::Done(None), "{message}");
    }

    fn daemon(&mut self, message: Value) -> Vec<Value> {
        let json = message.to_string().into_bytes();
        let effects = self.relay.daemon(&envelope(&json), json);
        self.settle(effects)
    }

    fn connect(&mut self) -> Vec<Value> {
        let effects = self.relay.connected();
        self.settle(effects)
    }

    fn settle(&mut self, effects: Vec<Effect>) -> Vec<Value> {
        if self.relay.is_told() {
            self.relay.settle();
        }
        values(effects)
    }

    fn lost(&mut self) -> Vec<Value> {
        values(self.relay.lost())
    }
}

/// Effects as `{"print": …}`, `{"send": …}` and `"close"`.
fn values(effects: Vec<Effect>) -> Vec<Value> {
    let parse = |json: Vec<u8>| serde_json::from_slice::<Value>(&json).expect("JSON");
    let value = |effect| match effect {
        Effect::Print(json) => json!({"print": parse(json)}),
        Effect::Send(json) => json!({"send": parse(json)}),
        Effect::Finish => json!("finish"),
        Effect::Close => json!("close"),
    };
    effects.into_iter().map(value).collect()
}

fn error_code(effect: &Value) -> (Value, i64) {
    let printed = &effect["print"];
    (printed["id"].clone(), printed["error"]["code"].as_i64().expect("an error answer"))
}

#[test]
fn a_lost_call_is_answered_and_not_sent_again() {
    let mut bench = Bench::initialized();
    bench.sent(json!({"id": "a", "method": "tools/call"}));
    bench.sent(json!({"id": 2, "method": "tools/list"}));
    let lost = bench.lost();
    assert_eq!(lost.iter().map(error_code).collect::<Vec<_>>(), [(json!("a"), -32001)]);
    assert_eq!(
        bench.connect(),
        [json!({"send": {"id": "conductor-shim:1", "method": "initialize", "params": {"x": 1}}})]
    );
    let restored = bench.daemon(json!({"id": "conductor-shim:1", "result": {"serverInfo": {}}}));
    assert_eq!(
        restored,
        [
            json!({"send": {"method": "notifications/initialized"}}),
            json!({"send": {"id": 2, "method": "tools/list"}})
        ],
        "the replayed answer is swallowed, the safe request is sent again"
    );
    assert_eq!(bench.daemon(json!({"id": 2, "result": {}})).len(), 1);
    assert_eq!(bench.daemon(json!({"id": 2, "result": {}})).len(), 0, "a second answer goes nowhere");
}

#[test]
fn an_unanswered_initialize_is_sent_again_as_it_is() {
    let mut bench = Bench::live();
    let initialize = json!({"id": 0, "method": "initialize"});
    bench.sent(initialize.clone());
    assert!(bench.lost().is_empty());
    assert_eq!(bench.connect(), [json!({"send": initialize})]);
    assert_eq!(bench.daemon(json!({"id": 0, "result": {}})).len(), 1);
}

#[test]
fn level_and_subscriptions_are_renewed() {
    let mut bench = Bench::initialized();
    for (id, method, uri) in
        [(1, "subscribe", "a"), (2, "subscribe", "b"), (3, "unsubscribe", "a"), (4, "subscribe", "b")]
    {
        bench.sent(json!({"id": id, "method": format!("resources/{method}"), "params": {"uri": uri}}));
        assert_eq!(bench.daemon(json!({"id": id, "result": {}})).len(), 1);
    }
    for (id, level) in [(5, "info"), (6, "debug")] {
        bench.sent(json!({"id": id, "method": "logging/setLevel", "params": {"level": level}}));
        assert_eq!(bench.daemon(json!({"id": id, "result": {}})).len(), 1);
    }
    bench.lost();
    bench.connect();
    let restored = bench.daemon(json!({"id": "conductor-shim:1", "result": {}}));
    assert_eq!(restored[1]["send"]["params"], json!({"level": "debug"}));
    assert_eq!(restored[2]["send"]["params"], json!({"uri": "b"}));
    assert_eq!(restored.len(), 3);
    for id in ["conductor-shim:2", "conductor-shim:3"] {
        assert!(bench.daemon(json!({"id": id, "result": {}})).is_empty());
    }
}

#[test]
fn an_open_listen_goes_on_with_the_next_daemon() {
    let mut bench = Bench::live();
    let listen = json!({"id": "listen:0", "method": "subscriptions/listen"});
    let acknowledged = json!({"method": "notifications/subscriptions/acknowledged",
        "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": "listen:0"}}});
    bench.sent(listen.clone());
    assert_eq!(bench.daemon(acknowledged.clone()).len(), 1);
    assert!(bench.lost().is_empty());
    assert_eq!(bench.connect(), [json!({"send": listen})]);
    assert!(bench.daemon(acknowledged).is_empty(), "the client has seen one");
    assert_eq!(bench.daemon(json!({"id": "listen:0", "result": {}})).len(), 1);
    assert!(bench.lost().is_empty());
    assert!(bench.connect().is_empty());
}

#[test]
fn a_cancelled_request_is_not_answered_by_the_shim() {
    let mut bench = Bench::live();
    bench.sent(json!({"id": 1, "method": "tools/call"}));
    bench.sent(json!({"id": 2, "method": "tools/call"}));
    bench.sent(json!({"method": "notifications/cancelled", "params": {"requestId": 1}}));
    bench.sent(json!({"method": "notifications/cancelled", "params": {"requestId": 2}}));
    assert_eq!(bench.daemon(json!({"id": 2, "result": {}})).len(), 1, "the daemon may answer all the same");
    assert!(bench.lost().is_empty());
    bench.connect();
    let late = json!({"method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(bench.client(&late), Verdict::Done(None), "the new daemon knows no such request");
}

#[test]
fn what_was_not_written_is_sent_to_the_next_daemon() {
    let mut bench = Bench::initialized();
    let call = json!({"id": 1, "method": "tools/call"});
    assert_eq!(bench.client(&call), Verdict::Send(None));
    assert_eq!(bench.written(false, &call), Verdict::Wait, "broken, but not known to be lost");
    assert!(bench.lost().is_empty());
    bench.connect();
    assert_eq!(bench.client(&call), Verdict::Wait);
    bench.daemon(json!({"id": "conductor-shim:1", "result": {}}));
    bench.sent(call);
    assert_eq!(bench.daemon(json!({"id": 1, "result": {}})).len(), 1);
}

#[test]
fn a_loss_during_a_write_waits_for_how_it_went() {
    let call = json!({"id": 1, "method": "tools/call"});
    for (ok, verdict) in [(true, None), (false, Some(Verdict::Wait))] {
        let mut bench = Bench::live();
        assert_eq!(bench.client(&call), Verdict::Send(None));
        assert!(bench.lost().is_empty());
        match (bench.written(ok, &call), verdict) {
            (Verdict::Done(Some(answer)), None) => {
                assert!(answer.starts_with(br#"{"jsonrpc":"2.0","id":1,"error""#))
            }
            (verdict, expected) => assert_eq!(Some(verdict), expected),
        }
    }
}

#[test]
fn answers_to_an_earlier_daemon_stay_away_from_the_next() {
    let mut bench = Bench::live();
    assert_eq!(bench.daemon(json!({"id": 0, "method": "elicitation/create"})).len(), 1);
    let withdrawn = bench.lost();
    assert_eq!(withdrawn[0]["print"]["method"], "notifications/cancelled");
    assert_eq!(withdrawn[0]["print"]["params"]["requestId"], 0);
    bench.connect();
    // The new daemon counts from zero, too.
    let asked = bench.daemon(json!({"id": 0, "method": "roots/list"}));
    let alias = asked[0]["print"]["id"].clone();
    assert_ne!(alias, json!(0));
    assert_eq!(bench.client(&json!({"id": 0, "result": "late"})), Verdict::Done(None));
    let Verdict::Send(Some(answer)) = bench.client(&json!({"id": alias, "result": "roots"})) else {
        panic!("sent")
    };
    assert_eq!(serde_json::from_slice::<Value>(&answer).expect("JSON"), json!({"id": 0, "result": "roots"}));
}

#[test]
fn a_daemons_own_cancellation_names_the_question_as_the_client_knows_it() {
    let mut bench = Bench::live();
    bench.daemon(json!({"id": 0, "method": "roots/list"}));
    bench.lost();
    bench.connect();
    let alias = bench.daemon(json!({"id": 0, "method": "roots/list"}))[0]["print"]["id"].clone();
    let cancelled = json!({"method": "notifications/cancelled", "params": {"requestId": 0}});
    let printed = bench.daemon(cancelled);
    assert_eq!(printed[0]["print"]["params"]["requestId"], alias);
}

#[test]
fn without_a_daemon_each_request_is_answered_and_asks_for_another_attempt() {
    let mut bench = Bench::default();
    let initialize = json!({"id": 0, "method": "initialize"});
    assert_eq!(bench.client(&initialize), Verdict::Wait);
    assert!(bench.relay.unreachable("no daemon").is_empty());
    assert!(matches!(bench.client(&initialize), Verdict::Done(Some(_))));
    assert!(!bench.relay.wants_link());
    assert_eq!(bench.client(&json!({"method": "notifications/initialized"})), Verdict::Done(None));
    assert_eq!(bench.client(&initialize), Verdict::Wait);
    assert!(bench.relay.wants_link(), "a request makes for another attempt");
    assert!(bench.connect().is_empty(), "the failed initialize left nothing behind");
    bench.sent(initialize);
}

#[test]
fn a_session_that_a_daemon_refuses_ends_in_words() {
    let mut bench = Bench::initialized();
    bench.sent(json!({"id": 1, "method": "tools/list"}));
    bench.lost();
    bench.connect();
    let effects = bench.daemon(json!({"id": "conductor-shim:1", "error": {"code": -32602}}));
    assert_eq!(error_code(&effects[0]), (json!(1), -32000));
    assert_eq!(effects[1], "close");
    assert!(bench.lost().is_empty());
}

/// The daemon gives a request back.
fn returned(bench: &mut Bench, message: &Value) {
    let json = message.to_string().into_bytes();
    bench.relay.returned(&envelope(&json), json);
}

#[test]
fn what_a_daemon_gives_back_goes_to_the_next_one_once() {
    let mut bench = Bench::initialized();
    let (taken, given_back) =
        (json!({"id": 1, "method": "tools/call"}), json!({"id": 2, "method": "tools/call"}));
    bench.sent(taken);
    bench.sent(given_back.clone());
    assert_eq!(values(bench.relay.draining()), ["finish"]);
    let later = json!({"id": 3, "method": "tools/call"});
    assert_eq!(bench.client(&later), Verdict::Wait, "nothing is sent any more");
    returned(&mut bench, &given_back);
    assert_eq!(bench.daemon(json!({"id": 1, "result": {}})).len(), 1, "what it took it answers");
    assert!(bench.lost().is_empty());
    bench.connect();
    let restored = bench.daemon(json!({"id": "conductor-shim:1", "result": {}}));
    assert_eq!(restored[1], json!({"send": given_back}));
    bench.sent(later);
    // The second daemon dies, and may have run it.
    let lost: Vec<_> = bench.lost().iter().map(error_code).collect();
    assert_eq!(lost, [(json!(2), -32001), (json!(3), -32001)]);
}

#[test]
fn a_request_that_is_given_back_while_it_is_written_is_sent_again() {
    let call = json!({"id": 1, "method": "tools/call"});
    for loss_comes_first in [true, false] {
        let mut bench = Bench::live();
        assert_eq!(bench.client(&call), Verdict::Send(None));
        bench.relay.draining();
        returned(&mut bench, &call);
        if loss_comes_first {
            assert!(bench.lost().is_empty());
            assert_eq!(bench.written(true, &call), Verdict::Wait);
            assert!(bench.connect().is_empty());
            bench.sent(call.clone());
        } else {
            assert_eq!(bench.written(true, &call), Verdict::Done(None));
            assert!(bench.lost().is_empty());
            assert_eq!(bench.connect(), [json!({"send": call})]);
        }
        assert_eq!(bench.daemon(json!({"id": 1, "result": {}})).len(), 1);
    }
}

#[test]
fn a_request_that_is_given_back_after_it_was_cancelled_is_forgotten() {
    let mut bench = Bench::live();
    let call = json!({"id": 1, "method": "tools/call"});
    bench.sent(call.clone());
    bench.sent(json!({"method": "notifications/cancelled", "params": {"requestId": 1}}));
    bench.relay.draining();
    returned(&mut bench, &call);
    assert!(bench.lost().is_empty());
    assert!(bench.connect().is_empty());
}

#[test]
fn a_daemon_that_goes_down_while_it_takes_the_session_up_is_left() {
    let mut bench = Bench::initialized();
    bench.sent(json!({"id": 1, "method": "tools/list"}));
    bench.lost();
    bench.connect();
    assert_eq!(values(bench.relay.draining()), ["close"]);
    assert!(bench.lost().is_empty(), "the request waits for the next one");
}

#[test]
fn too_many_requests_are_told_so() {
    let mut bench = Bench::live();
    for id in 0..MAX_PENDING {
        bench.sent(json!({"id": id, "method": "tools/call"}));
    }
    let more = json!({"id": "more", "method": "tools/call"});
    assert!(matches!(bench.client(&more), Verdict::Done(Some(_))));
    assert_eq!(bench.lost().len(), MAX_PENDING);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut bench = Bench::live();
    let text = "x".repeat(1000);
    for id in 0..100 {
        bench.sent(json!({"id": id, "method": "tools/list", "params": text}));
    }
    let lost = bench.lost().len();
    let again = bench.connect().len();
    assert_eq!(lost + again, 100);
    assert!(again * 1000 <= MAX_KEPT_BYTES && again > 20, "{again}");
}
