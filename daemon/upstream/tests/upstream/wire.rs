//! What a naive proxy gets wrong: nothing is lost, reordered or left behind between a server and a caller.

use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Bed, server, session, text};

#[tokio::test]
async fn unknown_fields_unknown_content_key_order_and_numbers_survive() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let result = bed.call("h", "odd", json!({})).await.unwrap();
    let expected = r#"{"zebra":1.0,"content":[{"type":"hologram","x":12345678901234567,"b":1,"a":2}],"unknown":{"z":1,"a":2},"structuredContent":[1,2],"resultType":"complete"}"#;
    assert_eq!(result.to_string(), expected);
    let tools = bed.upstreams.list_tools(&server("h"), &session("s")).await.unwrap();
    let expected = r#"{"zeta":1,"name":"echo","inputSchema":{"type":"object","properties":{"z":{},"a":{}}},"execution":{"taskSupport":"optional"}}"#;
    assert_eq!(tools[0].to_string(), expected);
    bed.end().await;
}

#[tokio::test]
async fn an_older_servers_result_says_that_it_is_complete() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let result = bed.call("h", "echo", json!({})).await.unwrap();
    assert_eq!(result["resultType"], "complete");
    bed.end().await;
}

#[tokio::test]
async fn request_metadata_and_argument_order_reach_the_server() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let mut context = session("s");
    let meta = json!({ "trace": "abc", "progressToken": 7, "io.modelcontextprotocol/clientInfo": {}, "x/y": { "z": 1, "a": 2 } });
    context.meta = Some(crate::support::object(meta));
    let result = bed.call_as(&context, "h", "echo", json!({ "z": 1, "a": [2.0] })).await.unwrap();
    let echoed: serde_json::Value = serde_json::from_str(text(&result)).unwrap();
    assert_eq!(echoed["arguments"].to_string(), r#"{"z":1,"a":[2.0]}"#);
    let mut meta = echoed["meta"].clone();
    assert!(meta.as_object_mut().unwrap().remove("progressToken").unwrap() != json!(7));
    assert_eq!(meta, json!({ "trace": "abc", "x/y": { "z": 1, "a": 2 } }));
    bed.end().await;
}

#[tokio::test]
async fn progress_is_complete_and_in_order_before_the_result() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    for _ in 0..5 {
        let (sender, mut receiver) = mpsc::channel(1000);
        let mut context = session("s");
        context.progress = Some(sender);
        bed.call_as(&context, "h", "progress", json!({ "n": 500 })).await.unwrap();
        let steps: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|params| params["progress"].clone())
            .collect();
        assert_eq!(steps, (0..500).map(|step| json!(step)).collect::<Vec<_>>());
    }
    bed.end().await;
}

#[tokio::test]
async fn an_error_of_the_protocol_keeps_its_code_message_and_data() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    match bed.call("h", "error", json!({})).await {
        Err(conductor_upstream::CallError::JsonRpc { code: -32050, message, data: Some(data) }) => {
            assert_eq!(message, "teapot");
            assert_eq!(data.to_string(), r#"{"z":[1],"a":2}"#);
        }
        other => panic!("{other:?}"),
    }
    bed.end().await;
}

#[tokio::test]
async fn grandchildren_end_with_their_server() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("grandchild") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    crate::support::until("the tree is there", || bed.processes().len() >= 4).await;
    bed.upstreams.stop(&server("h")).unwrap();
    crate::support::until("all of it is gone", || bed.processes().is_empty()).await;
    bed.end().await;
}
