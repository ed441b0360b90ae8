//! Web servers that are no MCP servers, or bad ones.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use conductor_upstream::CallError;
use serde_json::{Value, json};

use crate::support::{Bed, MUCH_MEMORY, server, session};

struct Web {
    child: Child,
    port: u16,
}

impl Web {
    fn start(bed: &Bed) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hostile-mcp-server"))
            .arg("http")
            .env("HOSTILE_LOG", bed.root.path().join("web.log"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }

    fn entry(&self, path: &str, kind: &str) -> Value {
        json!({ "type": kind, "url": format!("http://127.0.0.1:{}/{path}", self.port), "headers": { "X-Api": "token-of-the-header-1" } })
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn failures_of_http_are_explained_without_the_header() {
    let bed = Bed::new();
    let web = Web::start(&bed);
    bed.set(json!({
        "auth": web.entry("auth", "http"),
        "html": web.entry("html", "http"),
        "error": web.entry("error", "http"),
        "missing": web.entry("missing", "http"),
        "redirect": web.entry("redirect", "http"),
        "foreign": web.entry("foreign", "sse"),
        "sseauth": web.entry("auth", "sse"),
        "nobody": { "url": "http://127.0.0.1:9/mcp" },
    }))
    .await;
    let failure = async |name: &str| bed.call(name, "x", json!({})).await.unwrap_err();
    for name in ["auth", "sseauth"] {
        let error = failure(name).await;
        assert!(matches!(error, CallError::Auth { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(&format!("hint: conductorctl auth login {name}")), "{error}");
    }
    for (name, part) in [
        ("html", "text/html"),
        ("error", "HTTP 500 Internal Server Error: [redacted] is bad"),
        ("missing", "HTTP 404"),
        ("redirect", "HTTP 307"),
        ("foreign", "wants messages to be sent to http://evil.example"),
        ("nobody", "onnect"),
    ] {
        let error = failure(name).await;
        assert!(matches!(error, CallError::Start { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
    let all = format!("{:?}{:?}", bed.upstreams.status(), bed.upstreams.logs(&server("error")));
    assert!(!all.contains("token-of-the-header"), "{all}");
    drop(web);
    bed.end().await;
}

#[tokio::test]
async fn a_huge_body_is_refused_and_unknown_fields_survive() {
    let _alone = MUCH_MEMORY.lock().await;
    let bed = Bed::new();
    let web = Web::start(&bed);
    bed.set(json!({ "big": web.entry("big", "http") })).await;
    let tools = bed.upstreams.list_tools(&server("big"), &session("s")).await.unwrap();
    assert_eq!(tools[0].to_string(), r#"{"name":"big","inputSchema":{"type":"object"},"odd":1}"#);
    let error = bed.call("big", "big", json!({})).await.unwrap_err();
    assert!(
        matches!(error, CallError::TooLarge { actual: Some(bytes), .. } if bytes > 40 << 20),
        "{error:?}"
    );
    drop(web);
    bed.end().await;
}
