//! Twenty-three secrets, each in another place that conductor reads, keeps or stands beside, are in nothing that anybody else
//! gets to see: in no answer, log, status, report of an operator's command or file, in no spelling.
//!
//! Those of a login come from one: the daemon has registered at an issuer and keeps what that gave it. The token for HTTP is
//! the daemon's own, too.

#[path = "../../../daemon/upstream/tests/upstream/auth/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use conductor_protocol::operation::{LoginBegun, Operation, ServerLogin};
use conductor_protocol::{AdminReply, AdminRequest};
use conductor_tests::http::{self, HttpClient};
use conductor_tests::{Daemon, Home, Operator, Shim, binaries};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::fixtures::{default_place, recorder, shown, tool, write};
use site::{Issued, Site, browse, consent};

/// What is planted where.
const PLANTED: [(&str, &str); 22] = [
    ("a variable of a server", "c4n4ry-Aq01-literal-of-a-server"),
    ("a variable of the session, for a server", "c4n4ry-Bw02-variable-for-a-server"),
    ("a file, for a server", "c4n4ry-Ce03-file-for-a-server"),
    ("a header", "c4n4ry-Dr04-bearer-of-a-server"),
    ("a query", "c4n4ry-Et05-query-of-a-server"),
    ("an argument of a server", "c4n4ry-Fy06-argument-of-a-server"),
    ("a server of another profile", "c4n4ry-Gu07-server-of-another"),
    ("a header of another profile", "c4n4ry-Hi08-bearer-of-another"),
    ("a variable granted to another session", "c4n4ry-Io09-variable-of-another"),
    ("code of another session", "c4n4ry-Jp10-code-of-another"),
    ("a global of another session", "c4n4ry-Ka11-global-of-another"),
    ("a kept result of another profile", "c4n4ry-Ls12-result-of-another"),
    ("output of another session", "c4n4ry-Md13-output-of-another"),
    ("an argument of another session's tool call", "c4n4ry-Nf14-argument-of-another"),
    ("the daemon's environment", "c4n4ry-Og15-environment-of-the-daemon"),
    ("a variable of the session that is not granted", "c4n4ry-Ph16-variable-not-granted"),
    ("a file outside the workspace", "c4n4ry-Qj17-file-outside"),
    ("the user's registry token", "c4n4ry-Rk18-token-in-npmrc"),
    ("an access token", "c4n4ry-Sl19-access-of-a-login"),
    ("a refresh token", "c4n4ry-Tz20-refresh-of-a-login"),
    ("a client secret", "c4n4ry-Ux21-client-of-a-login"),
    ("a code of a login", "c4n4ry-Vb22-code-of-a-login"),
];

const OF_LOGINS: Issued = Issued {
    access: "c4n4ry-Sl19-access-of-a-login",
    refresh: "c4n4ry-Tz20-refresh-of-a-login",
    code: "c4n4ry-Vb22-code-of-a-login",
    client_secret: Some("c4n4ry-Ux21-client-of-a-login"),
};

fn planted(place: &str) -> &'static str {
    PLANTED.iter().find(|(name, _)| *name == place).map(|(_, secret)| *secret).expect("is planted")
}

/// A secret as encoders write it.
fn spellings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent = secret.replace('-', "%2D");
    let mut all = vec![secret.to_owned(), hex.to_ascii_uppercase(), hex, percent];
    for offset in 0..3 {
        // What stands before and after decides the first and the last characters only.
        let encoded = base64(&[&b"xx"[..offset], secret.as_bytes()].concat());
        all.push(encoded[(offset * 8).div_ceil(6)..(offset + secret.len()) * 8 / 6].to_owned());
    }
    all
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = bytes.chunks(3).flat_map(|chunk| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |n| LETTERS[(bits >> (18 - 6 * n) & 63) as usize] as char)
    });
    sextets.collect()
}

/// Looks everywhere that code can think of, and tells all it finds in every way it can tell.
const SEARCH: &str = "const found = [];\n\
    const look = async (make) => { try { found.push(await make()) } catch (error) { found.push(`${error?.stack} ${error?.message}`) } };\n\
    await look(() => Deno.env.toObject());\n\
    for (const path of FILES) { await look(() => Deno.readTextFile(path)); await look(() => import(path, { with: { type: 'text' } })); }\n\
    for (const key of Reflect.ownKeys(globalThis)) await look(() => Deno.inspect(globalThis[key], { depth: 4, showHidden: true }));\n\
    await look(() => Deno.inspect(Deno[Deno.internal], { depth: 6, showHidden: true }));\n\
    await look(() => Deno.inspect(process, { depth: 4, showHidden: true }));\n\
    await look(() => conductor.result(RESULT));\n\
    for (const variable of ['A_TOKEN', 'GIVEN', 'KEPT']) await look(() => mcp.stdio.reveal({ variable }));\n\
    await look(() => mcp.guarded.repeat({}));\n\
    for (const name of ['http', 'dead', 'broken', 'guarded', 'other', 'remote']) {\n\
      for (const method of ['listTools', 'listResources']) await look(async () => (await mcpFactory.load(name))[method]());\n\
    }\n\
    console.log(found); console.error(found); found.map((it) => typeof it === 'string' ? it : Deno.inspect(it, { depth: 9 })).join('\\n')";

/// What an agent on HTTP may see more of than the others: the daemon's own user and the login.
const SEARCH_OVER_HTTP: &str = "const found = [Deno.inspect(globalThis, { depth: 4, showHidden: true }), await mcp.guarded.repeat({})];\n\
    for (const path of FILES) found.push(await Deno.readTextFile(path).catch((error) => error.stack));\n\
    console.log(found); found.join('\\n')";

/// Each dies in its own way, with whatever its last words are.
const DEATHS: [&str; 5] = [
    "throw new Error('last words')",
    "process.abort()",
    "Deno.exit(70)",
    "const { Pipe, constants } = process.binding('pipe_wrap'); for (let fd = 5; fd < 40; fd++) try { new Pipe(constants.SOCKET).open(fd) } catch {}\nfor (;;) await 0",
    "const all = []; for (;;) all.push(new Array(1000).fill({}))",
];

struct Bed {
    home: std::sync::Arc<Home>,
    daemon: Daemon,
    /// The server `guarded` and its issuer.
    site: Site,
    issuer: Runtime,
    agent: HttpClient,
    /// Files that hold secrets because a test has put them there.
    own: Vec<String>,
}

fn bed() -> Bed {
    let home = Home::new();
    let mut own = Vec::new();
    let mut keep = |path: std::path::PathBuf, text: &str| {
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("makes it");
        fs::write(&path, text).expect("writes");
        own.push(path.display().to_string());
        path
    };
    let token = keep(home.path("token-file"), planted("a file, for a server"));
    keep(home.path("outside/secret.txt"), planted("a file outside the workspace"));
    keep(
        home.home().join(".npmrc"),
        &format!("//r.example/:_authToken={}\n", planted("the user's registry token")),
    );
    let mut stdio = recorder(&home, "stdio");
    stdio["env"]["A_TOKEN"] = json!(planted("a variable of a server"));
    stdio["env"]["GIVEN"] = json!("Bearer ${env:UPSTREAM_TOKEN}");
    stdio["env"]["KEPT"] = json!(format!("${{file:{}}}", token.display()));
    let url = format!("http://127.0.0.1:9/mcp?token={}", planted("a query"));
    let http =
        json!({ "url": url, "headers": { "Authorization": format!("Bearer {}", planted("a header")) } });
    let dead = json!({ "command": "sh", "args": ["-c", "echo \"$0 $A_KEY\" >&2; exit 3", "${env:SERVER_ARG_TOKEN}"],
        "env": { "A_KEY": planted("a variable of a server") } });
    let broken = json!({ "command": "sh", "env": { "A_TOKEN": planted("a variable of a server"), "B": "${env:UNSET_HERE}" } });
    let issuer = Runtime::new().expect("a runtime");
    let site = issuer.block_on(Site::start(OF_LOGINS));
    let servers =
        json!({ "stdio": stdio, "http": http, "dead": dead, "broken": broken, "guarded": site.entry() });
    write(&default_place(&home), &servers);
    let mut other = recorder(&home, "other");
    other["env"]["OTHER_TOKEN"] = json!(planted("a server of another profile"));
    let remote = json!({ "url": "http://127.0.0.1:9/", "headers": { "X-Api-Key": planted("a header of another profile") } });
    write(&home.path("other.json"), &json!({ "other": other, "remote": remote }));
    own.extend([default_place(&home), home.path("other.json")].map(|path| path.display().to_string()));
    home.configure("[http]\nenabled = true\nlisten = [\"127.0.0.1:0\"]\n[profiles.default]\npackages = []\nheap-mib = 64\nmax-inline-bytes = 8388608\n[profiles.other]\nmax-inline-bytes = 1024\n");
    let daemon = Daemon::start_with(&home, |command| {
        command.env("CONDUCTOR_LOG", "trace").env("CONDUCTOR_SECRET", planted("the daemon's environment"));
    });
    let agent = HttpClient { address: http::address(&daemon), token: http::add_token(&home, "agent", None) };
    Bed { home, daemon, site, issuer, agent, own }
}

/// A user logs in at the server `guarded`; gives the file in which the daemon keeps what it got.
fn log_in(bed: &Bed) -> PathBuf {
    let login = Operation::AuthLogin {
        server: "guarded".into(),
        client_id: None,
        client_secret: None,
        scopes: Vec::new(),
        port: 0,
    };
    let begun: LoginBegun = read(Operator::operate(&bed.home.socket(), &[], &login).expect("is answered"));
    let browser = bed.issuer.spawn(async move { browse(&consent(&begun.url).await).await });
    let finish = Operation::AuthFinish { login: begun.login };
    let login: ServerLogin = read(Operator::operate(&bed.home.socket(), &[], &finish).expect("is answered"));
    let page = bed.issuer.block_on(browser).expect("the browser gets a page");
    assert_eq!((login.state.as_str(), page.contains("You are logged in")), ("logged-in", true), "{page}");
    let kept =
        fs::read_dir(bed.home.home().join(".local/state/conductor/upstreams/auth")).expect("logins are kept");
    let kept: Vec<PathBuf> = kept.map(|entry| entry.expect("is readable").path()).collect();
    let [file] = kept.as_slice() else { panic!("one login is kept: {kept:?}") };
    let text = fs::read_to_string(file).expect("is readable");
    for place in ["an access token", "a refresh token", "a client secret"] {
        assert!(text.contains(planted(place)), "{place} is in {text}");
    }
    file.clone()
}

fn read<T: DeserializeOwned>(reply: AdminReply) -> T {
    serde_json::from_str(&shown(reply)).expect("a report of this type")
}

/// Another session does its own work with secrets of its own; gives the id of a result that is kept of it.
fn innocent(bed: &Bed) -> (Shim, String) {
    let shim = Shim::session_with(&bed.home, |command| {
        command
            .env("MCP_CONDUCTOR_PROFILE", "other")
            .env("MCP_CONDUCTOR_MCP_CONFIG", bed.home.path("other.json"))
            .env("MCP_CONDUCTOR_RUN_ARGS", "allow-env=SESSION_TOKEN")
            .env("SESSION_TOKEN", planted("a variable granted to another session"));
    });
    let code = format!(
        "const key = '{}'; await mcp.other.echo({{ message: '{}' }}); console.log('{}'); ('{} ' + given.token).repeat(100)",
        planted("code of another session"),
        planted("an argument of another session's tool call"),
        planted("output of another session"),
        planted("a kept result of another profile"),
    );
    let globals = json!({ "given": { "token": planted("a global of another session") } });
    let answer = shim.call_with(json!({ "deno_code": code, "globals": globals }));
    let kept = answer.structured()["resources"][0]["id"].as_str().expect("the result is kept").to_owned();
    // What it fails with is told to whoever asks for the status.
    shim.call("throw new Error(`refused with ${Deno.env.get('SESSION_TOKEN')}`)").error();
    (shim, kept)
}

fn documents(bed: &Bed, texts: &mut BTreeMap<String, String>) {
    let env = [("UPSTREAM_TOKEN", planted("a variable of the session, for a server"))];
    let named = ["stdio", "http", "dead", "other", "remote"]
        .map(|server| Operation::ServersLogs { server: server.into() });
    for operation in [Operation::ServersList].into_iter().chain(named) {
        let reply = Operator::operate(&bed.home.socket(), &env, &operation).expect("is answered");
        texts.insert(format!("{operation:?}"), shown(reply));
    }
    let status = Operator::ask_once(&bed.home.socket(), &AdminRequest::Status).expect("is answered");
    texts.insert("status".into(), shown(status));
    for arguments in
        [&["doctor"][..], &["doctor", "--json"], &["status"], &["status", "--json"], &["servers", "list"]]
    {
        let mut command = bed.home.command(&binaries::conductorctl());
        command.env("CONDUCTOR_SOCKET", bed.home.socket()).args(arguments);
        let output = command.output().expect("conductorctl runs");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
        for (stream, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            texts.insert(format!("{stream} of {arguments:?}"), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// What an agent on HTTP is told when its token is right, when it is not, and when it stands where it must not.
fn over_http(bed: &Bed, globals: &Value, texts: &mut BTreeMap<String, String>) {
    let agent = &bed.agent;
    let arguments = json!({ "deno_code": SEARCH_OVER_HTTP, "globals": globals, "timeout": 60_000 });
    let found = agent.ask("tools/call", json!({ "name": "run_deno_code", "arguments": arguments }));
    assert!(found.to_string().contains("you sent Bearer [redacted]"), "{found}");
    texts.insert("HTTP".into(), found.to_string());
    let twice = [("Authorization", format!("Bearer {}", agent.token))];
    let twice = twice.each_ref().map(|(name, value)| (*name, value.as_str()));
    texts.insert("HTTP, a token twice".into(), format!("{:?}", agent.send("POST", &twice, "{}")));
    let url = format!(
        "POST /mcp?token={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        agent.token, agent.address
    );
    texts.insert("HTTP, a token in the URL".into(), http::raw(agent.address, url.as_bytes()));
    let broken = agent.head("POST", &[]).replace("\r\nHost", "\nHost\r\n");
    texts.insert("HTTP, a broken head".into(), http::raw(agent.address, format!("{broken}\r\n").as_bytes()));
}

fn files(directory: &Path, own: &[String], texts: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // What links lead to (Deno, the user's own files) nobody has written here.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files(&path, own, texts);
        } else if path.is_file() && !own.contains(&path.display().to_string()) {
            let bytes = fs::read(&path).unwrap_or_default();
            texts.insert(path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

#[test]
fn secrets_are_in_nothing_that_anybody_else_gets_to_see() {
    let mut bed = bed();
    let (_other, kept) = innocent(&bed);
    let shim = Shim::session_with(&bed.home, |command| {
        command
            .env("UPSTREAM_TOKEN", planted("a variable of the session, for a server"))
            .env("SERVER_ARG_TOKEN", planted("an argument of a server"))
            .env("UNRELATED_TOKEN", planted("a variable of the session that is not granted"));
    });
    // The session's registration is there from its first call on.
    shim.call("1").value();
    bed.own.push(log_in(&bed).display().to_string());
    let mut paths: Vec<Value> = bed.own.iter().map(|path| json!(path)).collect();
    paths.extend([json!("/proc/self/environ"), json!(format!("/proc/{}/environ", bed.daemon.pid()))]);
    let globals = json!({ "FILES": paths, "RESULT": kept });
    let found = shim.call_with(json!({ "deno_code": SEARCH, "globals": globals, "timeout": 60_000 }));
    let found = found.value().as_str().expect("a text").to_owned();
    for used in ["the value is [redacted]", "you sent Bearer [redacted]"] {
        assert!(found.contains(used), "{used:?} is in {found}");
    }
    assert_eq!(bed.site.state().n_registrations, 1);
    for death in DEATHS {
        shim.call_with(json!({ "deno_code": death, "timeout": 10_000 })).error();
    }
    for (name, arguments) in [
        ("list_mcp_servers", json!({})),
        ("get_tool_details", json!({ "server": "stdio", "full": true })),
        ("get_tool_details", json!({ "server": "dead" })),
        ("search_tools", json!({ "query": "variable of its environment" })),
    ] {
        tool(&shim, name, arguments);
    }

    let mut texts = BTreeMap::new();
    for message in shim.messages() {
        texts.insert(format!("message {}", texts.len()), message.to_string());
    }
    documents(&bed, &mut texts);
    over_http(&bed, &globals, &mut texts);
    // What the recorders have heard is what they are there for.
    let recorders =
        |path: &str| path.ends_with(".log") && (path.contains("/stdio.") || path.contains("/other."));
    let mut all = BTreeMap::new();
    files(&bed.home.path(""), &bed.own, &mut all);
    texts.extend(all.into_iter().filter(|(path, _)| !recorders(path)));
    for expected in ["/log", "/stderr", "status", "stdout of [\"doctor\"]"] {
        assert!(
            texts.keys().any(|place| place.ends_with(expected)),
            "{expected} is among {:?}",
            texts.keys()
        );
    }
    assert!(texts["status"].contains("refused with [redacted]"), "{}", texts["status"]);
    for (place, text) in &texts {
        for (name, secret) in PLANTED.into_iter().chain([("a token for HTTP", bed.agent.token.as_str())]) {
            for spelling in spellings(secret) {
                let at = text.find(&spelling).map(|at| {
                    text[text.floor_char_boundary(at.saturating_sub(200))..]
                        .chars()
                        .take(400)
                        .collect::<String>()
                });
                assert_eq!(at, None, "{name}, as {spelling}, is in {place}");
            }
        }
    }
}

#[test]
fn spellings_are_those_of_encoders() {
    assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
    assert_eq!(base64(b"ab"), "YWI");
    let all = spellings("ab-c4n4ry");
    assert!(all.contains(&"61622d63346e347279".into()) && all.contains(&"ab%2Dc4n4ry".into()), "{all:?}");
    assert!(all.iter().any(|it| base64(b"user:ab-c4n4ry!").contains(it.as_str())), "{all:?}");
}
