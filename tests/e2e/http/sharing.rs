//! Tokens of different profiles are different users: nothing that one has is the other's.

use std::fs;
use std::time::Duration;

use conductor_protocol::AdminReply;
use conductor_protocol::operation::Operation;
use conductor_tests::http::{HttpBed, HttpClient, request};
use conductor_tests::{DEADLINE, Home, Operator, wait_for};
use serde_json::json;

use crate::servers::mirror;

#[test]
fn two_tokens_with_two_profiles_have_nothing_in_common_but_code() {
    let home = Home::new();
    // The same file with the same server: on the socket its process would be shared.
    let servers = home.path("servers.json");
    fs::write(&servers, json!({ "mcpServers": { "m": mirror(&home, json!({})) } }).to_string())
        .expect("writes");
    let section = |name: &str| {
        format!(
            "[profiles.{name}]\npackages = []\nrun-args = \"allow-read,allow-write=.\"\nmcp-config = \"{}\"\n",
            servers.display()
        )
    };
    let bed =
        HttpBed::in_home(&home, &format!("{}{}[profiles.c]\npackages = []\n", section("a"), section("b")));
    let (a, b) = (bed.another("alice", "a"), bed.another("bob", "b"));

    // Workspaces.
    a.run("await Deno.writeTextFile('secret', 'of a')");
    assert_eq!(a.run("await Deno.readTextFile('secret')")["returnValue"], "of a");
    let missing = b.run("await Deno.readTextFile('secret')");
    assert_eq!(missing["status"], "error", "{missing:#}");

    // Results and resources.
    let uri = a.run("'x'.repeat(1 << 20)")["resources"][0]["uri"].as_str().expect("a resource").to_owned();
    assert!(a.ask("resources/read", json!({ "uri": uri })).get("result").is_some());
    assert!(b.ask("resources/read", json!({ "uri": uri })).get("error").is_some());
    assert!(bed.client.ask("resources/read", json!({ "uri": uri })).get("error").is_some());

    // Sessions.
    let session = a.initialize(json!({}));
    let in_session = [("Mcp-Session-Id", session.as_str())];
    for (method, body) in [
        ("POST", request(1, "ping", json!({})).to_string()),
        ("GET", String::new()),
        ("DELETE", String::new()),
    ] {
        assert_eq!(b.send(method, &in_session, &body).status, 404, "{method} with another's session");
    }
    assert_eq!(a.ask_in(&session, "ping", json!({}))["result"], json!({}), "and it lives on");

    // Servers: a process for each, and none for who has none in his profile.
    for client in [&a, &b] {
        let meta = client.run("await mcp.m.meta({})");
        assert_eq!(meta["status"], "success", "{meta:#}");
    }
    let status = bed.daemon.status();
    let pids: Vec<u32> = status.upstreams.iter().flat_map(|server| server.pids.clone()).collect();
    assert_eq!(pids.len(), 2, "{:#?}", status.upstreams);
    let c = bed.another("carol", "c");
    assert_eq!(c.run("typeof mcp")["returnValue"], "undefined");
}

#[test]
fn packages_and_credentials_are_those_of_the_tokens_own_profile() {
    let home = Home::new();
    let section = |name: &str, packages: &str| {
        let servers = home.path(&format!("servers-{name}.json"));
        let mut entry = mirror(&home, json!({}));
        entry["env"]["API_KEY"] = json!(format!("key-of-{name}"));
        fs::write(&servers, json!({ "mcpServers": { "m": entry } }).to_string()).expect("writes");
        format!("[profiles.{name}]\npackages = [{packages}]\nmcp-config = \"{}\"\n", servers.display())
    };
    let sections = section("a", "\"npm:ms@2.1.3\"") + &section("b", "");
    let bed = HttpBed::in_home(&home, &sections);
    let (a, b) = (bed.another("alice", "a"), bed.another("bob", "b"));

    let import = "(await import('npm:ms')).default('2 days')";
    assert_eq!(a.run(import)["returnValue"], 172_800_000);
    for other in [&b, &bed.client] {
        let refused = other.run(import);
        assert_eq!(refused["error"]["type"], "dependency", "{refused:#}");
    }
    let listed = |client: &HttpClient| client.ask("tools/list", json!({})).to_string();
    assert!(
        listed(&a).contains("Packages: npm:ms (") && listed(&b).contains("Packages: none."),
        "{}",
        listed(&a)
    );

    for client in [&a, &b] {
        assert_eq!(client.run("await mcp.m.meta({})")["status"], "success");
    }
    let status = bed.daemon.status();
    let keys = |pid: &u32| {
        let env = fs::read_to_string(format!("/proc/{pid}/environ")).expect("a process of ours");
        let keys = env.split('\0').filter_map(|line| line.strip_prefix("API_KEY=").map(str::to_owned));
        keys.collect::<Vec<_>>()
    };
    let mut keys: Vec<_> = status.upstreams.iter().flat_map(|server| server.pids.iter().map(keys)).collect();
    keys.sort();
    assert_eq!(keys, [["key-of-a"], ["key-of-b"]], "each process has the one key of its user");
}

#[test]
fn a_revoked_token_ends_with_all_that_it_began() {
    let bed = HttpBed::new("");
    let session = bed.client.initialize(json!({}));
    let mut unasked = bed.client.stream("GET", &[("Mcp-Session-Id", &session)], None);
    let call = json!({ "name": "run_deno_code", "arguments": { "deno_code": "for (;;) {}" } });
    let mut running =
        bed.client.stream("POST", &[("Mcp-Session-Id", &session)], Some(&request(1, "tools/call", call)));
    conductor_tests::http::wait_until_busy(&bed.daemon, 1);
    let revoke = Operation::TokensRevoke { name: "first".to_owned() };
    let reply = Operator::operate(&bed.home.socket(), &[], &revoke).expect("the daemon answers");
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
    assert_eq!((unasked.message(), running.message()), (None, None));
    let refused = bed.client.post(&[("Mcp-Session-Id", &session)], &request(2, "ping", json!({})));
    assert_eq!(refused.status, 401);
    wait_for("its call and its session are over", DEADLINE.max(Duration::from_secs(10)), || {
        let status = bed.daemon.status();
        let busy: u64 = status.pool.profiles.iter().map(|profile| profile.busy).sum();
        if busy == 0 && status.sessions.is_empty() { Ok(()) } else { Err(format!("{status:#?}")) }
    });
}
