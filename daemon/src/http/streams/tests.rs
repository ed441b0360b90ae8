use rmcp::model::{ClientRequest, JsonRpcRequest};
use serde_json::{Value, json};

use super::*;

fn request(id: i64, method: &str, progress: Option<&str>) -> JsonRpcRequest<ClientRequest> {
    let meta = progress.map_or(json!({}), |token| json!({ "progressToken": token }));
    let params = json!({ "name": "t", "uri": "u", "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    serde_json::from_value(message).expect("a request")
}

fn message(message: Value) -> TxJsonRpcMessage<RoleServer> {
    serde_json::from_value(message).expect("a message")
}

fn notification(method: &str, params: Value) -> TxJsonRpcMessage<RoleServer> {
    message(json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn log() -> TxJsonRpcMessage<RoleServer> {
    notification("notifications/message", json!({ "level": "info", "data": 1 }))
}

fn progress(token: &str) -> TxJsonRpcMessage<RoleServer> {
    notification("notifications/progress", json!({ "progressToken": token, "progress": 1.0 }))
}

async fn send(transport: &mut SessionTransport, message: TxJsonRpcMessage<RoleServer>) {
    // A client that is gone is no failure of the session's.
    let _sent = transport.send(message).await;
}

#[tokio::test]
async fn each_message_goes_where_its_request_is() {
    let (_incoming, streams, mut transport) = transport();
    let mut list = streams.open(&request(1, "tools/list", None)).expect("a stream");
    let mut first = streams.open(&request(2, "tools/call", Some("a"))).expect("a stream");
    let mut second = streams.open(&request(3, "tools/call", Some("b"))).expect("a stream");
    assert_eq!(streams.open(&request(3, "tools/call", None)).expect_err("is taken"), NoStream::SameId);
    for message in [
        progress("a"),
        progress("b"),
        progress("nobody's"),
        log(),
        message(json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [] } })),
        message(json!({ "jsonrpc": "2.0", "id": 2, "error": { "code": -32601, "message": "no" } })),
    ] {
        send(&mut transport, message).await;
    }
    let drain = |queue: &mut Receiver| {
        std::iter::from_fn(|| queue.try_recv().ok()).map(|outgoing| outgoing.is_answer()).collect::<Vec<_>>()
    };
    assert_eq!(drain(&mut list), [true]);
    assert_eq!(drain(&mut first), [false, true]);
    assert_eq!(drain(&mut second), [false, false], "progress, and the log of the youngest call");
    assert!(first.is_closed() && !second.is_closed(), "an answer ends its stream");
    streams.give_up(&RequestId::Number(3));
    assert!(second.recv().await.is_none() && !streams.is_used());
}

#[tokio::test]
async fn what_is_said_unasked_waits_for_a_stream() {
    let (_incoming, streams, mut transport) = transport();
    for _ in 0..WAITING + 5 {
        send(&mut transport, notification("notifications/tools/list_changed", json!({}))).await;
    }
    let (_, mut queue) = streams.open_unasked().expect("a stream");
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), WAITING);
    let (_, mut newer) = streams.open_unasked().expect("another");
    send(&mut transport, log()).await;
    assert!(newer.try_recv().is_ok() && queue.try_recv().is_err(), "one stream gets it, the newest");
    drop(newer);
    send(&mut transport, log()).await;
    assert!(queue.try_recv().is_ok(), "and an older one when that is gone");
    let others: Vec<_> = (0..MAX_UNASKED).map(|_| streams.open_unasked()).collect();
    assert_eq!(others.last().expect("some").as_ref().err(), Some(&NoStream::TooMany));
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_streams() {
    let (_incoming, streams, mut transport) = transport();
    let mut call = streams.open(&request(1, "tools/call", None)).expect("a stream");
    let (_, mut unasked) = streams.open_unasked().expect("a stream");
    streams.close_unasked();
    assert!(unasked.recv().await.is_none());
    let answer = message(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    let (answered, ()) = tokio::join!(streams.all_answered(), send(&mut transport, answer));
    assert_eq!(answered, ());
    assert!(call.recv().await.is_some());
    transport.close().await.expect("closes");
    assert_eq!(streams.open(&request(2, "ping", None)).expect_err("is over"), NoStream::Closed);
}

fn answer(id: i64) -> TxJsonRpcMessage<RoleServer> {
    message(json!({ "jsonrpc": "2.0", "id": id, "result": {} }))
}

fn ids(queue: &mut Receiver) -> Vec<String> {
    std::iter::from_fn(|| queue.try_recv().ok()).filter_map(|it| Some(it.id()?.to_string())).collect()
}

#[tokio::test]
async fn a_client_that_was_cut_off_gets_its_answer_when_it_comes_back() {
    let (_incoming, streams, mut transport) = transport();
    let mut queue = streams.open(&request(1, "tools/call", Some("a"))).expect("a stream");
    let beginning = streams.begin(&RequestId::Number(1)).expect("is open");
    send(&mut transport, progress("a")).await;
    assert_eq!(ids(&mut queue), ["r1-1"]);
    drop(queue);
    assert!(streams.is_used(), "its request goes on");
    send(&mut transport, progress("a")).await;
    let mut resumed = streams.resume("r1-1".parse().expect("an id")).expect("is open");
    assert_eq!(ids(&mut resumed), ["r1-2"], "and nothing twice");
    drop(resumed);
    send(&mut transport, answer(1)).await;
    assert!(!streams.is_used());
    for (last, expected) in [("r1-2", vec!["r1-3"]), ("r1-3", vec![]), ("r1-0", vec!["r1-1", "r1-2", "r1-3"])]
    {
        let mut resumed = streams.resume(last.parse().expect("an id")).expect("is kept");
        assert_eq!(ids(&mut resumed), expected);
        assert!(resumed.is_closed(), "it is over");
    }
    assert_eq!(beginning.to_string(), "r1-0");
    let other = streams.resume("r2-0".parse().expect("an id"));
    assert_eq!(other.expect_err("there is none"), NoStream::Forgotten);
    streams.close();
    assert_eq!(streams.resume(beginning).expect_err("is over"), NoStream::Closed);
}

#[tokio::test]
async fn what_comes_before_an_answer_makes_it_a_stream() {
    let (_incoming, streams, mut transport) = transport();
    let _queue = streams.open(&request(1, "tools/call", Some("a"))).expect("a stream");
    send(&mut transport, progress("a")).await;
    send(&mut transport, answer(1)).await;
    let mut resumed =
        streams.resume("r1-1".parse().expect("an id")).expect("is kept, though nobody had begun it");
    assert_eq!(ids(&mut resumed), ["r1-2"]);
}

#[tokio::test]
async fn few_ended_streams_are_kept_and_none_that_was_a_document() {
    let (_incoming, streams, mut transport) = transport();
    for id in 0..=i64::try_from(MAX_ENDED).expect("is small") {
        let _document = streams.open(&request(1000 + id, "ping", None)).expect("a stream");
        send(&mut transport, answer(1000 + id)).await;
        let _queue = streams.open(&request(id, "tools/call", None)).expect("a stream");
        streams.begin(&RequestId::Number(id)).expect("is open");
        send(&mut transport, answer(id)).await;
    }
    assert_eq!(streams.lock().ended.len(), MAX_ENDED);
    assert_eq!(streams.resume("r1-0".parse().expect("an id")).err(), Some(NoStream::Forgotten), "a document");
    assert_eq!(streams.resume("r2-0".parse().expect("an id")).err(), Some(NoStream::Forgotten), "the oldest");
    assert!(streams.resume("r4-0".parse().expect("an id")).is_ok());
}

#[tokio::test]
async fn what_is_said_unasked_goes_on_where_it_was() {
    let (_incoming, streams, mut transport) = transport();
    let (_, mut queue) = streams.open_unasked().expect("a stream");
    send(&mut transport, log()).await;
    assert_eq!(ids(&mut queue), ["u1-1"]);
    send(&mut transport, log()).await;
    drop(queue);
    send(&mut transport, log()).await;
    let mut resumed = streams.resume("u1-1".parse().expect("an id")).expect("is kept");
    send(&mut transport, log()).await;
    assert_eq!(ids(&mut resumed), ["u1-2", "u1-3", "u1-4"]);
    let mut another =
        streams.resume("u9-1".parse().expect("an id")).expect("one that is not kept is replaced");
    send(&mut transport, log()).await;
    assert_eq!(ids(&mut another), ["u2-1"]);
}
