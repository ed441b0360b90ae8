//! When servers start and end, what is remembered of them, and that nothing is left of a dead daemon.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use conductor_upstream::{CallError, ServerState, Upstreams, UpstreamsOptions};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Bed, processes_with, server, session, text, until};

#[tokio::test]
async fn a_server_starts_with_its_first_call_and_once_for_all() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    assert_eq!(bed.status("h").state, ServerState::Idle);
    assert_eq!((bed.n_starts(), bed.processes().len()), (0, 0));
    let calls = join_all((0..20).map(|_| bed.call("h", "echo", json!({})))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(bed.n_starts(), 1);
    let status = bed.status("h");
    assert_eq!((status.state, status.n_connections, status.n_starts), (ServerState::Ready, 1, 1));
    bed.end().await;
}

#[tokio::test]
async fn an_eager_server_starts_at_once_and_again_after_a_crash() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    entry["start"] = json!("eager");
    bed.set(json!({ "h": entry })).await;
    until("it runs", || bed.status("h").state == ServerState::Ready).await;
    bed.call("h", "die", json!({})).await.unwrap_err();
    until("another runs", || bed.n_starts() == 2 && bed.status("h").state == ServerState::Ready).await;
    bed.end().await;
}

#[tokio::test]
async fn an_idle_server_ends_and_an_old_one_is_replaced_under_calls() {
    let bed = Bed::new();
    let (mut idle, mut old) = (bed.hostile(""), bed.hostile(""));
    idle["idle_timeout"] = json!(200);
    old["max_lifetime"] = json!(300);
    bed.set(json!({ "idle": idle, "old": old })).await;
    bed.call("idle", "echo", json!({})).await.unwrap();
    until("it ended", || bed.processes().is_empty()).await;
    assert_eq!(bed.status("idle").state, ServerState::Idle);
    bed.call("idle", "echo", json!({})).await.unwrap();
    let before = bed.n_starts();
    let (slow, ()) = tokio::join!(bed.call("old", "slow", json!({})), async {
        until("the call is there", || bed.log().contains("slow ")).await;
        until("it is retired", || bed.status("old").state != ServerState::Ready).await;
        bed.call("old", "echo", json!({})).await.unwrap();
    });
    assert_eq!(text(&slow.unwrap()), "at last");
    assert!(bed.n_starts() >= before + 2);
    bed.end().await;
}

#[tokio::test]
async fn a_changed_entry_restarts_its_server_alone_and_calls_finish() {
    let bed = Bed::new();
    bed.set(json!({ "same": bed.hostile(""), "other": bed.hostile("x") })).await;
    let same = bed.call("same", "env", json!({})).await.unwrap();
    let mut changed = bed.hostile("x");
    changed["env"]["NEW"] = json!("1");
    let (slow, changes) = tokio::join!(bed.call("other", "slow", json!({})), async {
        until("the call is there", || bed.log().contains("slow ")).await;
        let changes =
            bed.set(json!({ "same": bed.hostile(""), "other": changed, "new": bed.hostile("y") })).await;
        let env = bed.call("other", "env", json!({})).await.unwrap();
        assert!(text(&env).contains("NEW=1"));
        changes
    });
    assert_eq!(text(&slow.unwrap()), "at last");
    assert_eq!(
        (changes.changed, changes.added, changes.removed),
        (vec!["other".into()], vec!["new".into()], vec![])
    );
    let mark = |result: &serde_json::Value| {
        text(result).lines().find(|line| line.starts_with("MCP_CONDUCTOR_UPSTREAM=")).unwrap().to_owned()
    };
    assert_eq!(mark(&same), mark(&bed.call("same", "env", json!({})).await.unwrap()), "the same process");
    bed.set(json!({})).await;
    until("all ended", || bed.processes().is_empty()).await;
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_always_fails_is_left_alone_for_a_while_until_somebody_restarts_it() {
    let bed = Bed::new();
    bed.set(json!({ "h": { "command": "/nonexistent/server" } })).await;
    for _ in 0..5 {
        let error = bed.call("h", "echo", json!({})).await.unwrap_err();
        assert!(matches!(error, CallError::Start { .. }), "{error:?}");
    }
    let error = bed.call("h", "echo", json!({})).await.unwrap_err();
    let CallError::Unavailable { failures: 5, .. } = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("hint: conductorctl servers restart h"), "{error}");
    assert_eq!(bed.status("h").state, ServerState::Unavailable);
    bed.upstreams.restart(&server("h")).unwrap();
    until("it was tried", || bed.status("h").failures == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn lists_are_known_after_a_restart_of_the_daemon_and_grow_when_the_server_says_so() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    assert!(bed.upstreams.manifest(&server("h")).unwrap().is_none());
    let lists = bed.upstreams.lists(&server("h"), &session("s")).await.unwrap();
    assert_eq!(lists.instructions.as_deref(), Some("Beware."));
    let mut changes = bed.upstreams.manifest_changes();
    changes.mark_unchanged();
    bed.call("h", "grow", json!({})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), changes.changed()).await.unwrap().unwrap();
    let grown = bed.upstreams.manifest(&server("h")).unwrap().unwrap();
    assert_eq!(grown.tools.len(), lists.tools.len() + 1);
    bed.call("h", "grown", json!({})).await.unwrap_err();
    let n_starts = bed.n_starts();
    let file = || {
        std::fs::read_dir(bed.root.path().join("state/manifests")).unwrap().next().unwrap().unwrap().path()
    };
    until("it is on disk", || std::fs::read_to_string(file()).is_ok_and(|text| text.contains("grown"))).await;
    bed.upstreams.shutdown(tokio::time::Instant::now() + Duration::from_secs(10)).await;

    let again = Bed {
        upstreams: Upstreams::new(UpstreamsOptions::new(bed.root.path().join("state"), bed.root.path())),
        ..bed
    };
    again.set(json!({ "h": again.hostile("") })).await;
    assert_eq!(again.upstreams.manifest(&server("h")).unwrap().unwrap(), grown);
    let status = again.status("h");
    assert_eq!((status.state, status.n_tools), (ServerState::Idle, Some(grown.tools.len())));
    assert_eq!(again.n_starts(), n_starts, "nothing was started for it");
    again.end().await;
}

#[tokio::test]
async fn a_shutdown_lets_calls_finish_and_kills_what_stays() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let (slow, ()) = tokio::join!(bed.call("h", "slow", json!({})), async {
        until("the call is there", || bed.log().contains("slow ")).await;
        bed.upstreams.shutdown(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    });
    assert_eq!(text(&slow.unwrap()), "at last");
    assert!(matches!(bed.call("h", "echo", json!({})).await, Err(CallError::ShuttingDown)));
    bed.end().await;

    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("grandchild") })).await;
    let (slow, ()) = tokio::join!(bed.call("h", "slow", json!({})), async {
        until("the call is there", || bed.log().contains("slow ")).await;
        bed.upstreams.shutdown(tokio::time::Instant::now()).await;
    });
    assert!(matches!(slow, Err(CallError::Disconnected { .. })), "{slow:?}");
    bed.end().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_no_server_and_no_grandchild() {
    let bed = Bed::new();
    let config = bed.root.path().join("config.json");
    let mut deaf = bed.hostile("holds-on");
    deaf["env"]["A"] = json!("1");
    let servers = json!({ "mcpServers": { "a": bed.hostile("grandchild"), "b": deaf } });
    std::fs::write(&config, servers.to_string()).unwrap();
    let mut holder = Command::new(env!("CARGO_BIN_EXE_upstream-holder"))
        .arg(&config)
        .arg(bed.root.path().join("state"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(lines.take(2).count(), 2, "both are ready");
    until("all are there", || processes_with(bed.root.path()).len() >= 5).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("nothing is left", || processes_with(bed.root.path()).is_empty()).await;
    bed.end().await;
}
