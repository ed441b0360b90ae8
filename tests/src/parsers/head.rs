//! Requests over HTTP as the daemon reads them off a connection.

use std::net::SocketAddr;
use std::sync::LazyLock;

use conductor_daemon::config::HttpSection;
use conductor_daemon::http::head::{Judged, Rules};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

pub(super) const HEAD_WORDS: &[&str] = &[
    "POST /mcp HTTP/1.1\r\n",
    "GET http://evil.example/mcp HTTP/1.1\r\n",
    "GET /mcp?access_token=x HTTP/1.0\r\n",
    "Host: localhost\r\n",
    "Host: c.example:8443\r\n",
    "Host: evil.example\r\n",
    "Origin: http://localhost\r\n",
    "Origin: null\r\n",
    "Authorization: Bearer cnd_x\r\n",
    "MCP-Protocol-Version: 2026-07-28\r\n",
    "Mcp-Method: tools/call\r\n",
    "Mcp-Name: =?base64?dA==?=\r\n",
    "Mcp-Param-Region: eu\r\n",
    "Content-Length: 2\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "0\r\n\r\n",
    "\r\n",
    "\n",
    "\r\n ",
    "\t",
    "@",
    ":",
    "[::1]",
    "\"x-mcp-header\":\"Region\"",
];

/// The names by which the daemon of these rules may be called, and pages of which may call.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "[::1]", "127.0.0.7", "c.example"];

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let section = HttpSection {
        allowed_hosts: vec!["c.example:8443".into()],
        allowed_origins: vec!["https://c.example".into()],
        ..HttpSection::default()
    };
    let bound: SocketAddr = "127.0.0.7:7780".parse().expect("an address");
    Rules::new(&section, &[bound])
});

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime"));

/// What a client sends: what passes was sent to a name of the daemon, from none but its pages, with a token in its header
/// alone; what is refused is refused in words without the token; and the same bytes in
/// pieces are the same requests.
pub(super) fn http_head(bytes: &[u8]) {
    let judged = read(&[bytes]);
    for request in &judged {
        match &request.verdict {
            Ok(_) => assert_passes(request),
            Err(why) => super::assert_told(why),
        }
    }
    let (start, end) = bytes.split_at(bytes.len() / 2);
    let in_pieces = read(&[start, end]);
    // When the end of the bytes is seen decides whether requests that are still in line are answered.
    let n = judged.len().min(in_pieces.len());
    assert_eq!(in_pieces[..n], judged[..n], "in two pieces it is something else");
}

fn assert_passes(request: &Judged) {
    let [host] = request.hosts.as_slice() else { panic!("{} hosts: {request:?}", request.hosts.len()) };
    let host = std::str::from_utf8(host).expect("a host is text").to_ascii_lowercase();
    assert!(NAMES.iter().any(|name| is_of(&host, name)), "{request:?}");
    assert!(request.origins.len() <= 1, "{request:?}");
    for origin in &request.origins {
        let origin = std::str::from_utf8(origin).expect("an origin is text").to_ascii_lowercase();
        let (_, host) = origin.split_once("://").expect("an origin has a scheme");
        assert!(NAMES.iter().any(|name| is_of(host, name)), "{request:?}");
    }
    let target = &request.target;
    assert!(target.starts_with('/') || target == "*", "{request:?}");
    assert!(!target.contains("?token=") && !target.contains("&token="), "{request:?}");
}

/// The name, with or without a port.
fn is_of(host: &str, name: &str) -> bool {
    let port = host.strip_prefix(name).map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn read(pieces: &[&[u8]]) -> Vec<Judged> {
    RUNTIME.block_on(async {
        let (client, daemon) = tokio::io::duplex(64 * 1024);
        let (mut answers, mut requests) = tokio::io::split(client);
        let judging = RULES.judge(daemon);
        let sending = async move {
            for piece in pieces {
                // It may have closed before it has read everything.
                requests.write_all(piece).await.ok();
                tokio::task::yield_now().await;
            }
            requests.shutdown().await.ok();
        };
        let reading = async move { answers.read_to_end(&mut Vec::new()).await };
        tokio::join!(judging, sending, reading).0
    })
}
