//! One server for everybody, unless its entry says otherwise; and nobody reaches what is not his.

use std::collections::BTreeSet;

use conductor_upstream::{CallContext, CallError, ProfileId, ServerRef, SessionId};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Bed, server, session, text, until};

/// The process that answered.
fn pid(result: &Value) -> u64 {
    serde_json::from_str::<Value>(text(result)).unwrap()["pid"].as_u64().unwrap()
}

async fn pids(bed: &Bed, sessions: &[&str], name: &str) -> BTreeSet<u64> {
    let contexts: Vec<_> = sessions.iter().map(|name| session(name)).collect();
    let calls = contexts.iter().map(|context| bed.call_as(context, name, "echo", json!({})));
    join_all(calls).await.into_iter().map(|result| pid(&result.unwrap())).collect()
}

#[tokio::test]
async fn five_sessions_of_two_profiles_and_three_servers_are_three_processes() {
    let bed = Bed::new();
    let mut servers = json!({});
    for n in 0..3 {
        servers[format!("h{n}")] = bed.hostile("");
        servers[format!("h{n}")]["env"]["N"] = json!(n);
    }
    bed.set(servers.clone()).await;
    bed.set_for("q", servers).await;
    for name in ["h0", "h1", "h2"] {
        assert_eq!(pids(&bed, &["a", "b", "c", "d", "e"], name).await.len(), 1);
        let other = ServerRef::new(ProfileId::new("q"), name);
        bed.upstreams.call_tool(&other, &session("f"), "echo", serde_json::Map::new()).await.unwrap();
    }
    assert_eq!(bed.processes().len(), 3);
    assert_eq!(bed.n_starts(), 3);
    bed.end().await;
}

#[tokio::test]
async fn a_session_scope_is_a_process_for_each_session_and_ends_with_it() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    entry["scope"] = json!("session");
    bed.set(json!({ "h": entry })).await;
    assert_eq!(pids(&bed, &["a", "b", "a", "b", "a"], "h").await.len(), 2);
    assert_eq!(bed.processes().len(), 2);
    bed.upstreams.end_session(&SessionId::new("a"));
    until("one is left", || bed.processes().len() == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn a_call_scope_is_a_process_for_each_call() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    entry["scope"] = json!("call");
    bed.set(json!({ "h": entry })).await;
    assert_eq!(pids(&bed, &["a", "a", "a"], "h").await.len(), 3);
    until("none is left", || bed.processes().is_empty()).await;
    bed.end().await;
}

#[tokio::test]
async fn a_profile_reaches_its_own_servers_only() {
    let bed = Bed::new();
    bed.set_for("p", json!({ "mine": bed.hostile("") })).await;
    bed.set_for("q", json!({ "theirs": bed.hostile("") })).await;
    let error = bed.call("theirs", "echo", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::UnknownServer { .. }), "{error:?}");
    assert!(!error.to_string().contains("theirs?"), "nearest names are the profile's own: {error}");
    let error = bed.call("mine2", "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("did you mean mine?"), "{error}");
    let nobody = ServerRef::new(ProfileId::new("r"), "mine");
    let context = CallContext::new(SessionId::new("s"));
    assert!(bed.upstreams.call_tool(&nobody, &context, "echo", serde_json::Map::new()).await.is_err());
    for server in [server("theirs"), nobody] {
        assert!(bed.upstreams.manifest(&server).is_err() && bed.upstreams.logs(&server).is_err());
        assert!(bed.upstreams.lists(&server, &context).await.is_err());
        assert!(bed.upstreams.read_resource(&server, &context, "x:").await.is_err());
        assert!(bed.upstreams.stop(&server).is_err());
    }
    assert_eq!(bed.n_starts(), 0);
    bed.end().await;
}

#[tokio::test]
async fn another_secret_is_another_connection() {
    let bed = Bed::new();
    let file = bed.root.path().join("secret");
    let mut entry = bed.hostile("");
    entry["env"]["HOSTILE_TOKEN"] = json!(format!("${{file:{}}}", file.display()));
    std::fs::write(&file, "first-secret-1").unwrap();
    bed.set_for("p", json!({ "h": entry })).await;
    std::fs::write(&file, "second-secret-2").unwrap();
    bed.set_for("q", json!({ "h": entry })).await;
    let other = ServerRef::new(ProfileId::new("q"), "h");
    let context = session("s");
    let first = pid(&bed.call("h", "echo", json!({})).await.unwrap());
    let second = bed.upstreams.call_tool(&other, &context, "echo", serde_json::Map::new()).await.unwrap();
    assert_ne!(first, pid(&second));
    bed.end().await;
}

#[tokio::test]
async fn a_server_asks_the_only_session_that_calls_it_and_is_declined_by_several() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let asked = bed.call_as(&session("a"), "h", "ask", json!({})).await.unwrap();
    assert_eq!(text(&asked), r#"{"action":"accept","content":{"session":"a"}}"#);
    assert_eq!(text(&bed.call_as(&session("a"), "h", "roots", json!({})).await.unwrap()), r#"{"roots":[]}"#);
    assert_eq!(bed.status("h").advice, None);
    let (slow, context) = (session("b"), session("a"));
    let asking = async {
        until("the other call is there", || bed.log().contains("slow ")).await;
        let asked = bed.call_as(&context, "h", "ask", json!({})).await.unwrap();
        assert_eq!(text(&asked), r#"{"action":"decline"}"#);
        let sampled = bed.call_as(&context, "h", "sample", json!({})).await.unwrap();
        assert!(text(&sampled).contains("scope = \\\"session\\\""), "{sampled}");
    };
    let (slow, ()) = tokio::join!(bed.call_as(&slow, "h", "slow", json!({})), asking);
    assert_eq!(text(&slow.unwrap()), "at last");
    let status = bed.status("h");
    assert_eq!(status.n_declined, 2);
    assert!(status.advice.unwrap().contains("\"scope\": \"session\" for h"));
    assert_eq!(bed.asked.0.lock().unwrap().len(), 1);
    bed.end().await;
}

#[tokio::test]
async fn what_a_newer_server_wants_to_know_is_asked_of_the_calling_session_and_the_call_goes_on() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("modern") })).await;
    let (slow, context) = (session("b"), session("a"));
    let asking = async {
        until("the other call is there", || bed.log().contains("slow ")).await;
        let answered = bed.call_as(&context, "h", "input", json!({})).await.unwrap();
        let expected = r#"{"responses":{"q":{"action":"accept","content":{"session":"a"}},"r":{"roots":[]}},"state":"st"}"#;
        assert_eq!(text(&answered), expected);
        let error = bed.call_as(&context, "h", "insatiable", json!({})).await.unwrap_err();
        assert!(error.to_string().contains("asked for more 10 times"), "{error}");
    };
    let (slow, ()) = tokio::join!(bed.call_as(&slow, "h", "slow", json!({})), asking);
    assert_eq!(text(&slow.unwrap()), "at last");
    let sessions: BTreeSet<_> =
        bed.asked.0.lock().unwrap().iter().map(|(session, _)| session.clone()).collect();
    assert_eq!(sessions, BTreeSet::from(["a".to_owned()]));
    assert_eq!(bed.status("h").n_declined, 0);
    bed.end().await;
}

#[tokio::test]
async fn a_newer_server_is_listened_to() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("modern") })).await;
    let lists = bed.upstreams.lists(&server("h"), &session("s")).await.unwrap();
    until("somebody listens", || bed.log().contains("listening")).await;
    bed.call("h", "grow", json!({})).await.unwrap();
    let n_tools = || bed.upstreams.manifest(&server("h")).unwrap().unwrap().tools.len();
    until("the new tool is known", || n_tools() == lists.tools.len() + 1).await;
    bed.end().await;
}

#[tokio::test]
async fn log_messages_reach_the_session_that_owns_the_server_and_no_other() {
    let bed = Bed::new();
    let mut own = bed.hostile("");
    own["scope"] = json!("session");
    bed.set(json!({ "shared": bed.hostile(""), "own": own })).await;
    bed.call_as(&session("a"), "shared", "chatty", json!({})).await.unwrap();
    bed.call_as(&session("b"), "own", "chatty", json!({})).await.unwrap();
    bed.call_as(&session("b"), "own", "roots", json!({})).await.unwrap();
    let asked = bed.asked.0.lock().unwrap().clone();
    assert_eq!(asked[0], ("b".to_owned(), json!({ "level": "warning", "data": "token " })));
    assert_eq!(asked[1].0, "b");
    assert_eq!(asked.len(), 2);
    bed.end().await;
}

/// Requests can be made from any task.
#[tokio::test]
async fn requests_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let (context, name) = (session("s"), server("h"));
    let upstreams = bed.upstreams.clone();
    let call = is_send(async move {
        upstreams.call_tool(&name, &context, "echo", serde_json::Map::new()).await.unwrap();
        upstreams.lists(&name, &context).await.unwrap();
        upstreams.read_resource(&name, &context, "x:").await.unwrap_err();
        upstreams.get_prompt(&name, &context, "x", serde_json::Map::new()).await.unwrap_err()
    });
    assert_eq!(tokio::spawn(call).await.unwrap().kind(), "json-rpc");
    bed.end().await;
}
