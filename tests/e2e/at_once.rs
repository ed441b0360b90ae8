//! What a client asks first is answered at once, whatever is slow or broken behind conductor, and is such that every client
//! can read it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use conductor_tests::clients::Inspector;
use conductor_tests::{DEADLINE, Daemon, Home, Shim, binaries, wait_for};
use serde_json::{Value, json};

use crate::servers::{Bed, configure, mirror, nasty, newer};

/// Clients give up on a server that is not there after ten seconds and more; people notice a tenth of that.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Longest name that fits every client's own prefix and limit.
const MAX_NAME: usize = 46;

const MAX_DESCRIPTION_BYTES: usize = 2048;

fn exposed() -> Value {
    json!({ "expose": ["tools", "resources", "prompts"] })
}

#[test]
fn whatever_is_slow_behind_it() {
    // A registry that takes connections and never says a word.
    let registry = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let registry = format!("http://{}/", registry.local_addr().expect("it is bound"));
    let home = Home::new();
    home.configure("[pool]\nmax-workers = 1\n");
    let hang = json!({ "command": "/bin/sleep", "args": ["1000"], "expose": ["tools"] });
    configure(&home, &json!({ "hang": hang, "mirror": mirror(&home, exposed()) }));
    let _daemon = Daemon::start_with(&home, |command| {
        command.env("NPM_CONFIG_REGISTRY", &registry);
    });
    let adapt = |command: &mut std::process::Command| {
        command.env("MCP_CONDUCTOR_ALLOWED_PACKAGES", "npm:zod@^4").env("NPM_CONFIG_REGISTRY", &registry);
    };
    let busy = Shim::session_with(&home, adapt);
    busy.start_call(json!({ "deno_code": "for (;;) {}", "timeout": 300_000 }));

    let mut times = Vec::new();
    for round in 0..10 {
        let mut timed = |shim: &Shim, method: &str, params: Value| {
            let start = Instant::now();
            shim.ask(method, params).result();
            times.push((start.elapsed(), format!("{method} of round {round}")));
        };
        let older = Shim::spawn_with(&home, adapt);
        let client = json!({ "name": "tests", "version": "1" });
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        timed(&older, "initialize", hello);
        older.notify("notifications/initialized", json!({}));
        let newer_client = Shim::spawn_with(&home, adapt);
        timed(&newer_client, "server/discover", json!({ "_meta": newer() }));
        for method in
            ["tools/list", "tools/list", "prompts/list", "resources/list", "resources/templates/list"]
        {
            timed(&older, method, json!({}));
            timed(&newer_client, method, json!({ "_meta": newer() }));
        }
    }
    times.sort();
    let [p50, p99] = [50, 99].map(|percent| &times[(times.len() - 1) * percent / 100]);
    let slowest = times.last().expect("there are some");
    writeln!(std::io::stderr(), "{} answers: p50 {p50:?}, p99 {p99:?}, slowest {slowest:?}", times.len())
        .expect("stderr is open");
    assert!(slowest.0 < AT_ONCE, "{slowest:?}");
}

#[test]
fn whatever_a_server_lists() {
    let bed = Bed::new(|home| json!({ "nasty": nasty(home, exposed()) }));
    let shim = Shim::session(&bed.home);
    let page = wait_for("its tools are listed", DEADLINE, || {
        let page = shim.ask("tools/list", json!({})).result().clone();
        if page["tools"].as_array().is_some_and(|all| all.len() > 100) {
            Ok(page)
        } else {
            Err(page["tools"].to_string())
        }
    });
    assert_eq!(page.get("nextCursor"), None, "some clients read the first page alone");
    let tools = page["tools"].as_array().expect("a list");
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
    assert!(names.is_sorted());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "each is there once");
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    for tool in tools {
        let name = tool["name"].as_str().expect("a name");
        assert!((1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed), "{name}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool:#}");
        assert!(tool["description"].as_str().unwrap_or_default().len() <= MAX_DESCRIPTION_BYTES, "{name}");
    }
    // Fourteen names and three more that are any, 150 of the same kind, and conductor's own four.
    assert_eq!(tools.len(), 14 + 3 + 150 + 4, "{names:?}");
    let called = names
        .iter()
        .filter(|name| name.starts_with("zzz"))
        .map(|name| shim.ask("tools/call", json!({ "name": name, "arguments": {} })).text().len());
    assert_eq!(called.collect::<Vec<_>>(), [300, 300], "long names find their tools");

    let prompts = shim.ask("prompts/list", json!({})).result()["prompts"].clone();
    assert_eq!(prompts.as_array().map(Vec::len), Some(2), "{prompts:#}");
    let resources = shim.ask("resources/list", json!({})).result()["resources"].clone();
    assert_eq!(resources, json!([{ "uri": "n:1", "name": "n:1" }]));
    let hello = Shim::spawn(&bed.home).initialize();
    assert!(hello["instructions"].as_str().is_some_and(|text| text.len() <= MAX_DESCRIPTION_BYTES));

    // The TypeScript SDK refuses a list for one entry that it cannot read; --strict looks at the schemas, too.
    let Some(inspector) = Inspector::fetch() else { return };
    for era in ["legacy", "modern"] {
        for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
            let mut command = inspector.command(&bed.home);
            let socket = format!("CONDUCTOR_SOCKET={}", bed.home.socket().display());
            command.arg("--cli").arg(binaries::shim()).args([
                "-e",
                &socket,
                "-e",
                "CONDUCTOR_NO_AUTOSTART=1",
            ]);
            command.args(["--format", "json", "-q", "--protocol-era", era, "--method", method]);
            command.args((method == "tools/list").then_some("--strict"));
            let output = command.output().expect("the Inspector starts");
            assert!(output.status.success(), "{era} {method}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
