//! Secrets of a configuration are seen by the server they are for, and by nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;

use conductor_protocol::AdminRequest;
use conductor_protocol::operation::Operation;
use conductor_tests::{Daemon, Home, Operator, Shim};
use serde_json::json;

use super::fixtures::{default_place, recorder, servers, shown, tool, write};

/// Each in another place of the configuration.
const LITERAL: &str = "literal-s3cret-value-in-env";
const FROM_ENV: &str = "environment-s3cret-value";
const FROM_FILE: &str = "file-s3cret-value-kept-beside";
const HEADER: &str = "header-s3cret-value-of-bearer";
const QUERY: &str = "query-s3cret-value-in-url";
const ALL: [&str; 5] = [LITERAL, FROM_ENV, FROM_FILE, HEADER, QUERY];

/// A web server that refuses everything, with the request's own words in its answer; gives what it heard.
fn echoing_refusal() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heard, hears) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 16 << 10];
            let n = stream.read(&mut bytes).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            // Before the answer, on which the test goes on.
            if heard.send(text).is_err() {
                return;
            }
            // The client may be gone.
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    (port, hears)
}

/// Everything that lies below a directory, by path.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(files(&path));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            all.insert(path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    all
}

#[test]
fn five_secrets_are_nowhere_but_where_they_belong() {
    let (port, hears) = echoing_refusal();
    let home = Home::new();
    let file = home.path("token-file");
    fs::write(&file, format!("{FROM_FILE}\n")).expect("writes");
    let mut stdio = recorder(&home, "stdio");
    stdio["env"]["LITERAL_TOKEN"] = json!(LITERAL);
    stdio["env"]["GIVEN"] = json!("Bearer ${env:UPSTREAM_TOKEN}");
    stdio["env"]["KEPT"] = json!(format!("${{file:{}}}", file.display()));
    let http = json!({
        "url": format!("http://127.0.0.1:{port}/mcp?token={QUERY}"),
        "headers": { "Authorization": format!("Bearer {HEADER}") },
    });
    let dead =
        json!({ "url": format!("http://127.0.0.1:9/mcp?token={QUERY}"), "headers": { "X-Key": HEADER } });
    let broken = json!({ "command": "sh", "env": { "A_TOKEN": LITERAL, "B": "${env:UNSET_HERE}" } });
    write(&default_place(&home), &json!({ "stdio": stdio, "http": http, "dead": dead, "broken": broken }));
    let daemon = Daemon::start_with(&home, |command| {
        command.env("CONDUCTOR_LOG", "trace");
    });
    let shim = Shim::session_with(&home, |command| {
        command.env("UPSTREAM_TOKEN", FROM_ENV);
    });

    let code = "const told = [];\n\
                for (const variable of ['LITERAL_TOKEN', 'GIVEN', 'KEPT']) told.push(await mcp.stdio.reveal({ variable }));\n\
                told.push(await mcp.stdio.echo({ message: 'pid ' + Deno.pid }));\n\
                for (const name of ['http', 'dead', 'broken']) {\n\
                  for (const method of ['listTools', 'listResources']) {\n\
                    const error = await mcpFactory.load(name).then((it) => it[method]()).catch((error) => error);\n\
                    told.push(error.code, error.message, Deno.inspect(error));\n\
                  }\n\
                }\n\
                try { told.push(Deno.env.toObject()) } catch { }\n\
                console.log(told); console.error(told); told";
    let answer = shim.call(code);
    let told = answer.value().to_string();
    assert_eq!(told.matches("the value is ").count(), 3, "{told}");
    assert!(told.contains("[redacted]"), "{told}");
    for (name, arguments) in [
        ("list_mcp_servers", json!({})),
        ("get_tool_details", json!({ "server": "stdio", "full": true })),
        ("get_tool_details", json!({ "server": "http" })),
        ("get_tool_details", json!({ "server": "dead" })),
        ("get_tool_details", json!({ "server": "broken" })),
        ("search_tools", json!({ "query": "variable of its environment" })),
    ] {
        tool(&shim, name, arguments);
    }
    let heard: String = hears.try_iter().collect();
    assert!(
        heard.contains(HEADER) && heard.contains(QUERY),
        "the server was asked with its secrets: {heard}"
    );

    let mut texts = BTreeMap::new();
    for message in shim.messages() {
        texts.insert(format!("message {}", texts.len()), message.to_string());
    }
    let env = [("UPSTREAM_TOKEN", FROM_ENV)];
    let named = ["stdio", "http", "dead"].map(|server| Operation::ServersLogs { server: server.into() });
    for operation in [Operation::ServersList].into_iter().chain(named) {
        let reply = Operator::operate(&home.socket(), &env, &operation).expect("is answered");
        texts.insert(format!("{operation:?}"), shown(reply));
    }
    let logs = &texts[&format!("{:?}", Operation::ServersLogs { server: "stdio".into() })];
    assert!(logs.contains("stderr tells [redacted]"), "{logs}");
    let status = Operator::ask_once(&home.socket(), &AdminRequest::Status).expect("is answered");
    texts.insert("status".into(), shown(status));
    let servers = servers(&home);
    for worker in home.workers().into_iter().filter(|worker| !servers.contains(worker)) {
        for part in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{}/{part}", worker.pid)).unwrap_or_default();
            texts.insert(
                format!("{part} of worker {}", worker.pid),
                String::from_utf8_lossy(&bytes).into_owned(),
            );
        }
    }
    for process in Daemon::children(&daemon) {
        texts.insert(format!("command of {}", process.pid), process.command);
    }
    let mine = [default_place(&home).display().to_string(), file.display().to_string()];
    texts.extend(files(&home.path("")).into_iter().filter(|(path, _)| !mine.contains(path)));
    assert!(texts.keys().any(|path| path.ends_with("/log")), "the daemon's log is among them");
    assert!(texts.keys().any(|path| path.contains("manifests")), "what is kept of servers is among them");
    for (place, text) in &texts {
        for secret in ALL {
            let at = text
                .find(secret)
                .map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
            assert_eq!(at, None, "{secret} is in {place}");
        }
    }
}

#[test]
fn a_server_gets_its_own_environment_and_nobody_elses() {
    let home = Home::new();
    let mut given = recorder(&home, "given");
    given["env"]["MINE"] = json!("${env:UPSTREAM_NAME}");
    write(&default_place(&home), &json!({ "given": given, "bare": recorder(&home, "bare") }));
    let _daemon = Daemon::start_with(&home, |command| {
        command.env("OF_THE_DAEMON", "x");
    });
    let session = |name: &str| {
        Shim::session_with(&home, |command| {
            command.env("UPSTREAM_NAME", name).env("OF_THE_SESSION", "x");
        })
    };
    let (one, two) = (session("one"), session("two"));
    let code = "const of = async (server, variable) => (await server.reveal({ variable })).replace('the value is ', '');\n\
                [await of(mcp.given, 'MINE'), await of(mcp.bare, 'MINE'), await of(mcp.bare, 'OF_THE_DAEMON'),\n\
                 await of(mcp.bare, 'OF_THE_SESSION'), await of(mcp.bare, 'UPSTREAM_NAME'), await mcp.given.pid(), await mcp.bare.pid()]";
    let (first, second) = (one.call(code).value().clone(), two.call(code).value().clone());
    let unset = json!("undefined");
    for (told, name) in [(&first, "one"), (&second, "two")] {
        assert_eq!(told[0], *name, "what a reference stands for may be seen by its session: {told}");
        assert!(told.as_array().expect("a list")[1..5].iter().all(|it| *it == unset), "{told}");
    }
    assert_ne!(first[5], second[5], "other values are another server");
    assert_eq!(first[6], second[6], "equal entries are one");
}

#[test]
fn what_is_learnt_of_answers_is_not_told_to_another_profile() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let session = |profile: &str| {
        let file = home.path(&format!("{profile}.json"));
        write(&file, &json!({ "same": recorder(&home, profile) }));
        Shim::session_with(&home, |command| {
            command.env("MCP_CONDUCTOR_MCP_CONFIG", &file);
        })
    };
    let (one, two) = (session("one"), session("two"));
    let code = "await mcp.same.echo({ message: JSON.stringify({ customer4711: 1 }) })";
    assert_eq!(one.call(code).value(), &json!({ "customer4711": 1 }));
    let details = |shim: &Shim| tool(shim, "get_tool_details", json!({ "server": "same" })).text().to_owned();
    assert!(details(&one).contains("customer4711"), "{}", details(&one));
    assert!(!details(&two).contains("customer4711"), "{}", details(&two));
}
