use rmcp::model::{CallToolRequest, CallToolRequestParams, GetMeta as _, NumberOrString, RequestMetaObject};

use super::*;

fn ledger() -> (Arc<Ledger>, Arc<Mutex<Vec<Notice>>>) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = notices.clone();
    (Ledger::new(move |notice| lock(&kept).push(notice)), notices)
}

fn send(ledger: &Ledger, id: i64, slot: &Arc<Slot>) {
    let params = CallToolRequestParams::new("t");
    let mut meta = RequestMetaObject::new();
    meta.set_progress_token(ProgressToken(NumberOrString::Number(id + 100)));
    let mut request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    request.get_meta_mut().extend(meta);
    Ledger::carry(&mut request, slot);
    ledger.sent(&JsonRpcMessage::request(request, NumberOrString::Number(id)));
}

fn progress(token: i64, step: u32) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": step}}).to_string()
}

#[test]
fn a_result_is_kept_as_it_came_and_rmcp_sees_an_empty_one() {
    let (ledger, _) = ledger();
    let slot = Slot::new(None);
    send(&ledger, 1, &slot);
    let result =
        r#"{"zebra":1.0,"content":[{"type":"hologram","x":12345678901234567890}],"apple":{"z":1,"a":2}}"#;
    let verdict = ledger.received(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
    assert_eq!(verdict, Verdict::Replace(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned()));
    assert!(typed(verdict, "").is_some());
    let Some(Answer::Result(raw)) = slot.take() else { panic!("no result") };
    assert_eq!(raw.get(), result);
}

#[test]
fn progress_comes_in_order_before_the_result_and_to_its_own_request_only() {
    let (ledger, _) = ledger();
    let (sender, mut receiver) = mpsc::channel(500);
    let slots = [Slot::new(Some(sender)), Slot::new(None)];
    send(&ledger, 1, &slots[0]);
    send(&ledger, 2, &slots[1]);
    for step in 0..500 {
        assert_eq!(ledger.received(&progress(101, step)), Verdict::Taken);
        assert_eq!(ledger.received(&progress(102, step)), Verdict::Taken);
    }
    ledger.received(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    ledger.received(&progress(101, 999));
    let steps: Vec<_> =
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|params| params["progress"].clone()).collect();
    assert_eq!(steps, (0..500).map(|step| json!(step)).collect::<Vec<_>>());
}

#[test]
fn answers_that_nobody_waits_for_are_dropped_and_errors_reach_rmcp() {
    let (ledger, _) = ledger();
    for text in [
        r#"{"jsonrpc":"2.0","id":77,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}"#,
    ] {
        assert_eq!(ledger.received(text), Verdict::Taken, "{text}");
    }
    let slot = Slot::new(None);
    send(&ledger, 1, &slot);
    assert_eq!(
        ledger.received(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-5,"message":"m","data":[1]}}"#),
        Verdict::Forward
    );
    send(&ledger, 2, &slot);
    let broken = ledger.received(r#"{"jsonrpc":"2.0","id":2,"error":"so sorry"}"#);
    assert!(matches!(&broken, Verdict::Replace(text) if text.contains("not understood")), "{broken:?}");
    assert!(typed(broken, "").is_some());
    assert!(slot.take().is_none());
}

#[test]
fn an_answer_after_its_request_was_cancelled_is_dropped() {
    let (ledger, _) = ledger();
    let slot = Slot::new(None);
    send(&ledger, 1, &slot);
    let cancelled: ClientJsonRpcMessage = serde_json::from_value(
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
    )
    .expect("a message");
    ledger.sent(&cancelled);
    assert_eq!(ledger.received(r#"{"jsonrpc":"2.0","id":1,"result":{"late":true}}"#), Verdict::Taken);
    assert!(slot.take().is_none());
}

#[test]
fn what_is_too_large_fails_its_own_request_alone() {
    let (ledger, _) = ledger();
    let slots = [Slot::new(None), Slot::new(None)];
    send(&ledger, 1, &slots[0]);
    send(&ledger, 2, &slots[1]);
    let verdict = ledger.too_large(Some(NumberOrString::Number(1)), Some(1 << 26));
    assert!(matches!(typed(verdict, ""), Some(JsonRpcMessage::Error(_))));
    assert!(matches!(slots[0].take(), Some(Answer::TooLarge { bytes: Some(67_108_864) })));
    assert!(slots[1].take().is_none());
    assert_eq!(ledger.too_large(None, None), Verdict::Taken);
}

#[test]
fn notifications_become_notices_and_garbage_is_named() {
    let (ledger, notices) = ledger();
    for method in ["tools/list_changed", "prompts/list_changed", "resources/list_changed", "anything/else"] {
        let text = json!({"jsonrpc": "2.0", "method": format!("notifications/{method}")}).to_string();
        assert_eq!(ledger.received(&text), Verdict::Taken);
    }
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
    assert_eq!(ledger.received(&log.to_string()), Verdict::Taken);
    let log = Notice::Log { level: "info".to_owned(), logger: None, data: json!("x") };
    assert_eq!(
        *lock(&notices),
        [Notice::ToolsChanged, Notice::PromptsChanged, Notice::ResourcesChanged, log]
    );
    for text in ["Server listening on 3000", "{}", "[1]", "7", "{\"jsonrpc\"", r#"{"id":[1],"method":3}"#] {
        assert_eq!(ledger.received(text), Verdict::Garbage, "{text}");
    }
}

#[test]
fn a_server_may_not_flood_us_with_requests() {
    let (ledger, _) = ledger();
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for _ in 0..MAX_SERVER_REQUESTS {
        assert_eq!(ledger.received(ask), Verdict::Forward);
    }
    assert_eq!(ledger.received(ask), Verdict::Taken);
    let answer: ClientJsonRpcMessage =
        serde_json::from_value(json!({"jsonrpc": "2.0", "id": 1, "result": {}})).expect("a message");
    ledger.sent(&answer);
    assert_eq!(ledger.received(ask), Verdict::Forward);
}
