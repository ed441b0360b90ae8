//! Who is kept out, and what no request can do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use conductor_tests::http::{CONFIG, HttpBed, HttpClient, Reply, add_token, address, connect, raw, request};
use conductor_tests::{DEADLINE, Daemon, Home, wait_for};
use serde_json::{Value, json};

use super::certificate::{Certificate, ask};

#[test]
fn strangers_and_pages_of_others_are_refused_with_the_cure() {
    let bed = HttpBed::new("allowed-hosts = [\"c.example\"]\nallowed-origins = [\"https://app.example\"]");
    let (address, token) = (bed.client.address, &bed.client.token);
    let ping = request(1, "initialize", json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } })).to_string();
    let send = |path: &str, host: &str, more: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json, text/event-stream\r\nContent-Type: \
             application/json\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
            ping.len()
        );
        Reply::parse(&raw(address, format!("{head}{ping}").as_bytes()))
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let own = address.to_string();
    let with = |more: &str| format!("{bearer}{more}\r\n");
    for (host, more) in [
        (own.as_str(), bearer.clone()),
        ("localhost", with("Origin: http://localhost:5173")),
        ("c.example", with("Origin: https://app.example")),
    ] {
        assert_eq!(send("/mcp", host, &more).status, 200, "{host} {more}");
    }
    let in_url = format!("/mcp?access_token={token}");
    for (path, host, more, status, says) in [
        ("/mcp", "evil.example", bearer.clone(), 403, "allowed-hosts"),
        ("/mcp", "127.0.0.1.evil.example", bearer.clone(), 403, "allowed-hosts"),
        ("/mcp", own.as_str(), with("Origin: http://evil.example"), 403, "allowed-origins"),
        ("/mcp", own.as_str(), with("Origin: null"), 403, "allowed-origins"),
        ("http://evil.example/mcp", own.as_str(), bearer.clone(), 400, "hint"),
        ("/mcp", own.as_str(), String::new(), 401, "conductorctl token add"),
        ("/mcp", own.as_str(), "Authorization: Bearer cnd_wrong\r\n".into(), 401, "not known"),
        ("/mcp", own.as_str(), format!("Authorization: Basic {token}\r\n"), 401, "Bearer"),
        (in_url.as_str(), own.as_str(), bearer.clone(), 400, "does not belong into a URL"),
        (in_url.as_str(), own.as_str(), String::new(), 400, "does not belong into a URL"),
        ("/", own.as_str(), bearer.clone(), 404, "/mcp"),
    ] {
        let reply = send(path, host, &more);
        assert_eq!(reply.status, status, "{path} {host} {more}: {reply:?}");
        let error: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("JSON: {reply:?}"));
        let text = error["error"]["message"].as_str().expect("a message");
        assert!(text.contains(says) && !text.contains(token.as_str()), "{text}");
    }
    let status = bed.daemon.status().http;
    assert!(status.refused["forbidden"] >= 5 && status.refused["unauthorized"] >= 5, "{status:#?}");
    let log = fs::read_to_string(bed.home.log_file()).expect("a log");
    assert!(!log.contains(token.as_str()), "no token is logged");
}

#[test]
fn strangers_are_answered_before_their_body_is_read() {
    // Longer than the test waits for an answer: whoever waited for the body would give none.
    let bed = HttpBed::new("body-timeout = \"5m\"");
    let stranger = HttpClient { token: "cnd_wrong".into(), ..bed.client.clone() };
    let page = [("Content-Length", "100"), ("Origin", "http://evil.example")];
    let heads =
        [(stranger.head("POST", &[("Content-Length", "100")]), 401), (bed.client.head("POST", &page), 403)];
    for (head, status) in heads {
        let answer = raw(bed.client.address, format!("{head}\r\n").as_bytes());
        assert_eq!(Reply::parse(&answer).status, status, "{head}: {answer}");
    }
}

#[test]
fn liveness_and_readiness_need_no_token_and_tell_nothing() {
    let bed = HttpBed::new("");
    let get = |path: &str, host: &str| {
        Reply::parse(&raw(
            bed.client.address,
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        ))
    };
    let alive = get("/healthz", "localhost");
    assert_eq!((alive.status, alive.body.as_str()), (200, r#"{"alive":true}"#));
    // Not before Deno is found and a line of code has run.
    wait_for("readiness", DEADLINE, || {
        let ready = get("/readyz", "localhost");
        if ready.status == 200 { Ok(ready.body) } else { Err(ready.body) }
    });
    assert_eq!(get("/readyz", "localhost").body, r#"{"ready":true}"#);
    assert_eq!(get("/readyz", "evil.example").status, 403);
}

#[test]
fn requests_that_machines_could_read_differently_are_one_or_none() {
    let bed = HttpBed::new("");
    let client = &bed.client;
    let head = client.head("POST", &[]);
    let body = request(1, "tools/list", json!({})).to_string();
    let smuggled = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", client.address);
    let long = "x".repeat(64 << 10);
    for (what, bytes) in [
        (
            "CL and TE",
            format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "two lengths",
            format!("{head}Content-Length: {}\r\nContent-Length: 1\r\n\r\n{body}{smuggled}", body.len()),
        ),
        ("a list of lengths", format!("{head}Content-Length: {0}, 1\r\n\r\n{body}{smuggled}", body.len())),
        ("a signed length", format!("{head}Content-Length: +{}\r\n\r\n{body}{smuggled}", body.len())),
        ("another coding", format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "a folded header",
            format!("{head}X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a space before the colon",
            format!("{head}Content-Length : {}\r\n\r\n{body}{smuggled}", body.len()),
        ),
        ("no chunk", format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n{smuggled}")),
        (
            "a chunk beyond all size",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{smuggled}"),
        ),
        ("a huge header", format!("{head}X-A: {long}\r\n\r\n{smuggled}")),
        ("too many headers", format!("{head}{}\r\n{smuggled}", "X-A: b\r\n".repeat(200))),
        ("two hosts", format!("{head}Host: evil.example\r\nContent-Length: 0\r\n\r\n{smuggled}")),
        ("a NUL", format!("{head}X-A: \0\r\n\r\n{smuggled}")),
    ] {
        let answer = raw(client.address, bytes.as_bytes());
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what} is one request: {answer}");
        assert!(!answer.contains("alive"), "{what} brought in another: {answer}");
        let status = Reply::parse(&answer).status;
        assert!((400..500).contains(&status), "{what}: {answer}");
    }
    // What is in order may follow at once.
    let first = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let pipelined = raw(
        client.address,
        format!("{first}{}", smuggled.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).as_bytes(),
    );
    assert!(pipelined.matches("HTTP/1.1").count() == 2 && pipelined.contains("alive"), "{pipelined}");
}

#[test]
fn limits_hold() {
    let bed = HttpBed::new(
        "max-body-bytes = 4096\nheader-timeout = \"1s\"\nbody-timeout = \"1s\"\nmax-requests-per-minute = 8",
    );
    let client = &bed.client;
    let too_large = client.send("POST", &[], &"x".repeat(5000));
    assert_eq!(too_large.status, 413, "{too_large:?}");
    let chunk = format!("1388\r\n{}\r\n0\r\n\r\n", "x".repeat(5000));
    let chunked = raw(
        client.address,
        format!("{}Transfer-Encoding: chunked\r\n\r\n{chunk}", client.head("POST", &[])).as_bytes(),
    );
    assert_eq!(Reply::parse(&chunked).status, 413, "{chunked}");

    let began = Instant::now();
    let head = client.head("POST", &[("Content-Length", "100")]);
    let slow_body = raw(client.address, format!("{head}\r\n{{").as_bytes());
    assert_eq!(Reply::parse(&slow_body).status, 408, "{slow_body}");
    let slow_head = raw(client.address, b"POST /mcp HTT");
    assert!(slow_head.is_empty() || Reply::parse(&slow_head).status == 408, "{slow_head}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    for (headers, status) in [("Accept: text/plain", 406), ("Accept: */*\r\nContent-Type: text/plain", 415)] {
        let bytes = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{headers}\r\nConnection: close\r\nContent-Length: \
             2\r\n\r\n{{}}",
            client.token
        );
        assert_eq!(Reply::parse(&raw(client.address, bytes.as_bytes())).status, status, "{headers}");
    }
    let last = (0..8).fold(None, |_, _| Some(client.send("POST", &[], "{}"))).expect("some");
    assert_eq!((last.status, last.headers.contains_key("retry-after")), (429, true), "{last:?}");
}

#[test]
fn a_token_has_as_many_requests_in_flight_as_it_may_and_others_have_theirs() {
    let bed = HttpBed::new("max-requests-in-flight = 2");
    let session = bed.client.initialize(json!({}));
    let held: Vec<_> =
        (0..2).map(|_| bed.client.stream("GET", &[("Mcp-Session-Id", &session)], None)).collect();
    bed.daemon.wait_for_status("both are there", |status| status.http.tokens[0].in_flight == 2);
    let refused = bed.client.post(&[("Mcp-Session-Id", &session)], &request(1, "ping", json!({})));
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true), "{refused:?}");
    assert!(refused.body.contains("2 requests in flight") && refused.body.contains("hint"), "{refused:?}");
    assert_eq!(bed.another("second", "default").run("1")["returnValue"], 1);
    drop(held);
    // A stream that is gone is noticed when something is to be sent, at the latest.
    bed.daemon.wait_for_status("both are gone", |status| {
        status.http.tokens.iter().all(|token| token.in_flight == 0)
    });
    assert_eq!(bed.client.ask_in(&session, "ping", json!({}))["result"], json!({}));
}

#[test]
fn a_thousand_connections_hold_nobody_up() {
    // Longer than it takes to turn nine hundred away.
    let bed = HttpBed::new("max-connections = 100\nheader-timeout = \"6s\"");
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..1000 {
        let mut stream = connect(bed.client.address);
        if held.len() < 100 {
            stream.write_all(b"POST /mcp HTTP/1.1\r\nX: ").expect("is sent");
            held.push(stream);
        } else {
            let mut answer = String::new();
            let _read = stream.read_to_string(&mut answer);
            turned_away += usize::from(answer.starts_with("HTTP/1.1 503"));
        }
    }
    assert!(turned_away > 500, "{turned_away} were turned away");
    // Those who only hold on lose their place, and then there is room.
    bed.daemon.wait_for_status("the slow ones are gone", |status| status.http.connections == 0);
    assert_eq!(bed.client.run("1 + 1")["returnValue"], 2);
    let status = bed.daemon.status().http;
    assert!(status.turned_away >= 500, "{status:#?}");
}

#[test]
fn other_machines_are_not_let_in_by_accident() {
    for (section, says) in [
        ("listen = [\"0.0.0.0:0\"]", "allow-remote"),
        ("listen = [\"0.0.0.0:0\"]\nallow-remote = true", "unencrypted"),
    ] {
        let home = Home::new();
        home.configure(&format!("[http]\nenabled = true\n{section}\n"));
        let checked = Daemon::run_to_end(&home, |command| {
            command.arg("--check");
        });
        let stderr = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && stderr.contains(says), "{stderr}");
        let daemon = Daemon::start(&home);
        assert!(daemon.status().http.urls.is_empty(), "nothing listens");
    }
}

#[test]
fn with_a_certificate_the_daemon_speaks_tls_alone() {
    let home = Home::new();
    let certificate = Certificate::new(&home, "cert", 2);
    fs::set_permissions(&certificate.key, fs::Permissions::from_mode(0o644)).expect("sets the mode");
    home.configure(&format!("{CONFIG}{}", certificate.section()));
    let daemon = Daemon::start(&home);
    let status =
        daemon.wait_for_status("the daemon says what is wrong", |status| status.http.error.is_some());
    assert!(status.http.error.expect("an error").contains("chmod 600"), "a key for all to read");
    fs::set_permissions(&certificate.key, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    // It looks again by itself.
    let address = address(&daemon);
    let token = add_token(&home, "t", None);
    assert_eq!(raw(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").matches("alive").count(), 0);
    let request = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\nConnection: \
         close\r\n\r\n"
    );
    let answer = ask(address, &certificate.cert, &request);
    assert_eq!(Reply::parse(&answer).status, 400, "the token is taken, the session is missing: {answer}");
}

#[test]
fn a_certificate_that_is_renewed_is_taken_and_a_wrong_one_is_not() {
    let home = Home::new();
    let (first, second) = (Certificate::new(&home, "first", 2), Certificate::new(&home, "second", 200));
    let trusted = home.path("trusted.pem");
    fs::copy(&second.cert, &trusted).expect("copies");
    home.configure(&format!("{CONFIG}{}", first.section()));
    let daemon = Daemon::start(&home);
    let address = address(&daemon);
    let alive = |trusted: &Path| {
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        ask(address, trusted, request).contains("alive")
    };
    assert!(alive(&first.cert) && !alive(&trusted), "the first is in use");
    second.take_the_place_of(&first);
    wait_for("the second is in use", DEADLINE, || {
        if alive(&trusted) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let status = daemon.wait_for_status("nothing is wrong", |status| status.http.error.is_none());
    assert_eq!(status.http.urls.len(), 1, "it listens where it did: {:?}", status.http);

    fs::write(&first.cert, "half").expect("writes");
    let status = daemon.wait_for_status("it says what is wrong", |status| status.http.error.is_some());
    let error = status.http.error.expect("there is one");
    assert!(error.contains("the certificate before stays in use") && error.contains("hint"), "{error}");
    assert!(alive(&trusted), "the one before is as good as it was");
}
