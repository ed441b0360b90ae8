//! What a configuration does to running servers.

use conductor_upstream::{CallError, ServerState};
use serde_json::json;

use crate::support::{Bed, server};

#[tokio::test]
async fn one_bad_entry_is_disabled_with_its_reason_and_the_others_work() {
    let bed = Bed::new();
    bed.set(json!({ "good": bed.hostile(""), "bad": { "command": "x", "args": 7 }, "off": { "command": "x", "disabled": true } })).await;
    bed.call("good", "echo", json!({})).await.unwrap();
    let bad = bed.status("bad");
    assert_eq!(bad.state, ServerState::Disabled);
    assert!(bad.reason.as_deref().unwrap().contains("`args`: line 1, column"), "{bad:?}");
    let error = bed.call("bad", "echo", json!({})).await.unwrap_err();
    assert!(matches!(&error, CallError::Disabled { .. }) && error.to_string().contains("`args`"), "{error}");
    let error = bed.call("off", "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("disabled in the configuration"), "{error}");
    assert!(bed.upstreams.manifest(&server("off")).is_err());
    let names: Vec<_> = bed
        .upstreams
        .summaries(&conductor_upstream::ProfileId::new("p"))
        .into_iter()
        .map(|s| s.name)
        .collect();
    assert_eq!(names, ["bad", "good", "off"]);
    bed.end().await;
}
