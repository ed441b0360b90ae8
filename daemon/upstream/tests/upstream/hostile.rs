//! A server that breaks the protocol fails its own calls, clearly, and nothing else.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use conductor_upstream::{CallError, Era, LogSource, ServerState};
use serde_json::json;

use crate::support::{Bed, MUCH_MEMORY, server, session, text, until};

#[tokio::test]
async fn a_silent_server_does_not_start_and_says_so() {
    let bed = Bed::with(|options| options.start_timeout = Duration::from_millis(500));
    bed.set(json!({ "h": bed.hostile("silent") })).await;
    let error = bed.call("h", "echo", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("not ready within 500ms\nhint:"), "{error}");
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_exits_is_explained_by_what_it_said_without_its_secret() {
    let bed = Bed::new();
    let mut entry = bed.hostile("exits");
    entry["env"]["HOSTILE_TOKEN"] = json!("very-secret-token-1");
    bed.set(json!({ "h": entry })).await;
    let error = bed.call("h", "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("the server h did not start: it ended with exit status: 3"), "{error}");
    assert!(error.contains("fatal: no API token, I was given [redacted]"), "{error}");
    let status = bed.status("h");
    assert_eq!(status.state, ServerState::Paused);
    let seen = format!(
        "{error}{status:?}{:?}{}",
        bed.upstreams.logs(&server("h")),
        serde_json::to_string(&status).unwrap()
    );
    assert!(!seen.contains("very-secret"), "{seen}");
    bed.end().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_says_where_it_was_looked_for_and_is_found_later() {
    let bed = Bed::new();
    let path = bed.root.path().join("bin");
    let program = path.join("my-server");
    bed.set(json!({ "h": { "command": "my-server", "env": { "PATH": path } } })).await;
    let error = bed.call("h", "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("\"my-server\" was not found in PATH in the entry's env"), "{error}");
    assert!(bed.status("h").reason.unwrap().contains("was not found"));
    fs::create_dir(&path).unwrap();
    // By a process of its own: what another test starts just then would hold the copy open for writing, and Linux executes no
    // such file.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_hostile-mcp-server")).arg(&program).status();
    assert!(copied.unwrap().success());
    bed.call("h", "echo", json!({})).await.unwrap();
    assert_eq!(bed.status("h").command.unwrap().program, program);
    bed.end().await;
}

#[tokio::test]
async fn garbage_on_stdout_is_skipped_and_shown() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("garbage") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    let logs = bed.upstreams.logs(&server("h")).unwrap();
    let stray: Vec<_> =
        logs.iter().filter(|line| line.source == LogSource::Stdout).map(|line| line.text.as_str()).collect();
    assert_eq!(stray, ["Server ready!", "{\"jsonrpc\": oops", "[1,2]"]);
    bed.end().await;
}

#[tokio::test]
async fn endless_pages_are_cut_and_named() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("endless") })).await;
    let lists = bed.upstreams.lists(&server("h"), &session("s")).await.unwrap();
    assert_eq!(lists.tools.len(), 100);
    assert!(lists.problems[0].contains("more than 100 pages"), "{:?}", lists.problems);
    assert_eq!(bed.status("h").problems, lists.problems);
    bed.end().await;
}

#[tokio::test]
async fn a_huge_result_is_refused_with_bounded_memory_and_the_next_call_works() {
    let _alone = MUCH_MEMORY.lock().await;
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    let before = peak_memory();
    let error = bed.call("h", "big", json!({ "mib": 256 })).await.unwrap_err();
    let CallError::TooLarge { actual: Some(bytes), .. } = error else { panic!("{error:?}") };
    assert!(bytes > 256 << 20);
    assert!(error.to_string().contains("larger than the 16777216 bytes"), "{error}");
    let grown = peak_memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes more");
    text(&bed.call("h", "echo", json!({})).await.unwrap());
    assert_eq!(bed.n_starts(), 1);
    bed.end().await;
}

#[tokio::test]
async fn a_crash_in_a_call_is_told_and_the_next_call_gets_a_fresh_server() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    for round in 1..=3 {
        let error = bed.call("h", "die", json!({})).await.unwrap_err();
        let CallError::Disconnected { reason, stderr, method, .. } = &error else { panic!("{error:?}") };
        assert_eq!((reason.as_str(), method.as_str()), ("it ended with exit status: 9", "tools/call"));
        assert_eq!(stderr.last().unwrap(), "panic: it hurts");
        assert!(error.is_retryable());
        bed.call("h", "echo", json!({})).await.unwrap();
        assert_eq!(bed.n_starts(), round + 1);
    }
    bed.end().await;
}

#[tokio::test]
async fn a_flood_of_notifications_does_no_harm() {
    let _alone = MUCH_MEMORY.lock().await;
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    let before = peak_memory();
    assert_eq!(text(&bed.call("h", "flood", json!({ "n": 200_000 })).await.unwrap()), "flooded");
    assert!(peak_memory().saturating_sub(before) < 64 << 20);
    let logs = bed.upstreams.logs(&server("h")).unwrap();
    assert!(logs.iter().map(|line| line.text.len()).sum::<usize>() <= 64 * 1024);
    bed.end().await;
}

#[tokio::test]
async fn a_late_answer_is_a_timeout_and_the_server_is_told() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    // What comes before and after it must be in time on a busy machine, too.
    entry["timeout"] = json!(3000);
    bed.set(json!({ "h": entry })).await;
    let start = Instant::now();
    let error = bed.call("h", "late", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "by default it is a minute");
    until("the server is told", || bed.log().contains("cancelled ")).await;
    // The late answer comes and is nobody's.
    for _ in 0..20 {
        let echoed = bed.call("h", "echo", json!({ "n": 1 })).await.unwrap();
        assert!(text(&echoed).contains("\"n\":1"));
    }
    bed.end().await;
}

#[tokio::test]
async fn progress_extends_the_timeout_and_the_deadline_ends_it() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    // A step must come in time on a busy machine, too, and all of them take longer.
    entry["timeout"] = json!(4000);
    bed.set(json!({ "h": entry })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    let result = bed.call("h", "progress", json!({ "n": 45, "pause_ms": 100 })).await.unwrap();
    assert_eq!(text(&result), "done");
    let mut context = session("s");
    context.deadline = Some(tokio::time::Instant::now() + Duration::from_millis(700));
    let error =
        bed.call_as(&context, "h", "progress", json!({ "n": 100, "pause_ms": 100 })).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
    bed.end().await;
}

#[tokio::test]
async fn answers_with_wrong_ids_are_nobodys() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    assert_eq!(text(&bed.call("h", "wrong", json!({})).await.unwrap()), "yours");
    assert_eq!(bed.call("h", "notobject", json!({})).await.unwrap_err().kind(), "protocol");
    bed.end().await;
}

#[tokio::test]
async fn a_cancelled_call_and_a_dropped_call_cancel_at_the_server() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    let context = session("s");
    let cancel = context.cancel.clone();
    let (called, ()) = tokio::join!(bed.call_as(&context, "h", "slow", json!({})), async {
        until("the call is there", || bed.log().contains("slow ")).await;
        cancel.cancel();
    });
    assert!(matches!(called, Err(CallError::Cancelled)), "{called:?}");
    let n_cancelled = || bed.log().lines().filter(|line| line.starts_with("cancelled ")).count();
    until("the server is told", || n_cancelled() == 1).await;
    let context = session("s");
    tokio::select! {
        _ = bed.call_as(&context, "h", "slow", json!({})) => panic!("it is slow"),
        () = until("the call is there", || bed.log().lines().filter(|line| line.starts_with("slow ")).count() == 2) => {}
    }
    until("the server is told", || n_cancelled() == 2).await;
    until("nothing is in flight", || bed.status("h").n_in_flight == 0).await;
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_ignores_everything_is_killed() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("holds-on") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    bed.upstreams.stop(&server("h")).unwrap();
    until("it saw the end of its input", || bed.log().contains("eof")).await;
    until("it is gone", || bed.processes().is_empty()).await;
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_ends_when_it_is_probed_is_met_in_its_own_era() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("dies-on-discover") })).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    assert_eq!(bed.n_starts(), 2);
    assert_eq!(bed.upstreams.manifest(&server("h")).unwrap().unwrap().era, Era::Initialize);
    bed.end().await;
}

#[tokio::test]
async fn a_server_that_ignores_the_probe_costs_ten_seconds_once() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("silent-discover") })).await;
    let start = Instant::now();
    bed.call("h", "echo", json!({})).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(9));
    bed.upstreams.restart(&server("h")).unwrap();
    let start = Instant::now();
    until("a fresh one runs", || bed.n_starts() == 2).await;
    bed.call("h", "echo", json!({})).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    bed.end().await;
}

#[tokio::test]
async fn tools_that_are_not_there_or_denied_are_never_asked_for() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    entry["deny_tools"] = json!(["e*"]);
    bed.set(json!({ "h": entry })).await;
    let error = bed.call("h", "echo", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Denied { rule: "deny_tools", .. }), "{error:?}");
    let error = bed.call("h", "progres", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("no tool named \"progres\"\nhint: did you mean progress"), "{error}");
    let tools = bed.upstreams.list_tools(&server("h"), &session("s")).await.unwrap();
    assert!(tools.iter().all(|tool| !tool["name"].as_str().unwrap().starts_with('e')));
    bed.end().await;
}

#[tokio::test]
async fn secrets_reach_the_server_and_come_back_blanked() {
    let bed = Bed::new();
    let mut entry = bed.hostile("");
    entry["env"]["HOSTILE_TOKEN"] = json!("very-secret-token-1");
    bed.set(json!({ "h": entry })).await;
    assert_eq!(text(&bed.call("h", "chatty", json!({})).await.unwrap()), "token [redacted]");
    until("stderr was read", || bed.upstreams.logs(&server("h")).unwrap().len() >= 3).await;
    let logs = format!("{:?}", bed.upstreams.logs(&server("h")));
    assert!(logs.contains("my token is [redacted]") && logs.contains("warning: token [redacted]"), "{logs}");
    bed.end().await;
}

#[tokio::test]
async fn a_server_gets_an_allow_listed_environment() {
    let bed = Bed::new();
    bed.set(json!({ "h": bed.hostile("") })).await;
    let result = bed.call("h", "env", json!({})).await.unwrap();
    let names: Vec<_> =
        text(&result).lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(names.contains(&"PATH") && names.contains(&"HOSTILE_LOG"), "{names:?}");
    for name in names {
        assert!(!name.starts_with("CARGO") && !name.starts_with("RUST"), "{name}");
    }
    bed.end().await;
}

/// Highest memory use of this process so far, in bytes.
fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
