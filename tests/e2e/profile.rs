//! What a session's environment, the configuration file and its policy let code do.

use std::fs;
use std::process::Command;

use conductor_tests::{Daemon, Home, Shim};
use serde_json::{Value, json};

/// A session with these variables.
fn with(home: &std::sync::Arc<Home>, variables: &[(&str, &str)]) -> Shim {
    let set = |command: &mut Command| {
        command.envs(variables.iter().copied());
    };
    Shim::session_with(home, set)
}

#[test]
fn the_workspace_is_made_and_is_where_code_works() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let default = home.home().join(".mcp-conductor/workspace");
    let shim = Shim::session(&home);
    assert_eq!(shim.call("WORKSPACE_DIR").value(), &json!(default));
    assert!(default.is_dir(), "the default workspace is made");

    let named = home.path("made/for/me");
    let path = named.display().to_string();
    let run_args = format!("allow-read={path},allow-write={path}");
    let shim = with(&home, &[("MCP_CONDUCTOR_WORKSPACE", &path), ("MCP_CONDUCTOR_RUN_ARGS", &run_args)]);
    let code = "Deno.writeTextFileSync('note.txt', 'hello'); [WORKSPACE_DIR, Deno.cwd(), Deno.readTextFileSync(`${WORKSPACE_DIR}/note.txt`)]";
    assert_eq!(shim.call(code).value(), &json!([path, path, "hello"]));
    fs::write(named.join("lib.ts"), "export const answer: number = 42;").expect("writes");
    assert_eq!(shim.call("const lib = await import('./lib.ts'); lib.answer").value(), 42);
    let answer = shim.call("Deno.readTextFileSync('/etc/hostname')");
    assert_eq!(answer.error_type(), "permission");
    assert!(
        answer.error()["hint"].as_str().expect("a hint").contains("allow-read=/etc/hostname"),
        "{}",
        answer.error()
    );
}

#[test]
fn grants_are_what_the_environment_says_and_nothing_more() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let probe = "const state = (name: string, extra = {}) => Deno.permissions.querySync({ name, ...extra } as any).state;\n\
                 ({ read: state('read', { path: file }), elsewhere: state('read', { path: '/etc' }), net: state('net', { host: '127.0.0.1:9' }),\n\
                    other: state('net', { host: 'example.com' }), env: state('env', { variable: 'GREETING' }), run: state('run'), ffi: state('ffi'), sys: state('sys') })";
    let file = home.workspace().join("a").display().to_string();
    let states = |shim: &Shim| {
        shim.call_with(json!({ "deno_code": probe, "globals": { "file": file } })).value().clone()
    };
    let nothing = states(&Shim::session(&home));
    let denied = |value: &Value| value.as_str().is_some_and(|state| state != "granted");
    for (name, state) in nothing.as_object().expect("an object").iter().filter(|(name, _)| *name != "env") {
        assert!(denied(state), "{name} is {state} without a grant");
    }
    let run_args =
        format!("allow-read={},allow-net=127.0.0.1:9,allow-env=GREETING", home.workspace().display());
    let shim = with(&home, &[("MCP_CONDUCTOR_RUN_ARGS", &run_args), ("GREETING", "hello"), ("SECRET", "s")]);
    let some = states(&shim);
    for name in ["read", "net", "env"] {
        assert_eq!(some[name], "granted", "{name}: {some}");
    }
    for name in ["elsewhere", "other", "run", "ffi", "sys"] {
        assert!(denied(&some[name]), "{name}: {some}");
    }
    assert_eq!(shim.call("Deno.env.get('GREETING')").value(), "hello");
    assert_eq!(shim.call("Deno.env.get('SECRET')").error_type(), "permission");
    assert_eq!(
        Shim::session(&home).call("Deno.env.get('PATH')").value(),
        &Value::Null,
        "nothing of the daemon's is seen"
    );
}

#[test]
fn references_are_expanded_even_if_the_ide_does_not() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let area = home.path("area").display().to_string();
    let shim = with(
        &home,
        &[
            ("MCP_CONDUCTOR_WORKSPACE", "${env:AREA}/ws"),
            (
                "MCP_CONDUCTOR_RUN_ARGS",
                "allow-read=${env:AREA}/ws,~/data,${userHome}/more,${workspaceFolder}",
            ),
            ("AREA", &area),
            ("CLAUDE_PROJECT_DIR", "/project/of/claude"),
        ],
    );
    assert_eq!(
        shim.call("WORKSPACE_DIR").value(),
        &json!(format!("{area}/ws")),
        "asked for in a second round"
    );
    let code = "paths.map((path: string) => Deno.permissions.querySync({ name: 'read', path }).state)";
    let under = home.home().display().to_string();
    let paths = json!([
        format!("{area}/ws"),
        format!("{under}/data"),
        format!("{under}/more"),
        "/project/of/claude/x",
        area
    ]);
    let states = shim.call_with(json!({ "deno_code": code, "globals": { "paths": paths } }));
    assert_eq!(states.value(), &json!(["granted", "granted", "granted", "granted", "prompt"]));
    let missing = with(&home, &[("MCP_CONDUCTOR_WORKSPACE", "${env:NOT_SET}/ws")]);
    let answer = missing.call("1");
    assert_eq!(answer.error_type(), "configuration");
    assert!(answer.error_message().contains("NOT_SET"), "{}", answer.error());
}

#[test]
fn a_wrong_or_refused_value_is_answered_by_name_and_shown_in_status() {
    let home = Home::new();
    home.configure(&format!(
        "[profiles.web]\nrun-args = \"allow-net=example.com\"\n[policy]\nnet = [\"example.com\"]\nread = [\"{}\"]\nmax-timeout = \"2s\"\n",
        home.workspace().display()
    ));
    let daemon = Daemon::start(&home);
    let own = home.home().join(".config/conductor").display().to_string();
    let own_grant = format!("allow-read={own}");
    let climbing = format!("allow-read={}/../secret", home.workspace().display());
    let cases = [
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-nett=x", "`allow-nett` is not known"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-read=", "empty list"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-run=ls", "asks for `allow-run`, which sessions may not grant"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-all", "asks for `allow-all`"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-ffi", "asks for `allow-ffi`"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-sys", "asks for `allow-sys`"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-net=evil.org", "allow-net=evil.org"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-net", "outside what [policy] offers"),
        ("MCP_CONDUCTOR_RUN_ARGS", "allow-read=/etc", "allow-read=/etc"),
        ("MCP_CONDUCTOR_RUN_ARGS", &climbing, "outside what [policy] offers"),
        ("MCP_CONDUCTOR_RUN_ARGS", &own_grant, ""),
        ("MCP_CONDUCTOR_WORKSPACE", &own, "conductor's own directories"),
        ("MCP_CONDUCTOR_WORKSPACE", "relative/path", "must be an absolute path"),
        ("MCP_CONDUCTOR_WORKSPACE", "/proc/no/such/place", "cannot make the workspace"),
        ("MCP_CONDUCTOR_DEFAULT_TIMEOUT", "soon", "`soon` is no whole number of milliseconds"),
        ("MCP_CONDUCTOR_MAX_TIMEOUT", "0", "`0` is no whole number of milliseconds"),
        ("MCP_CONDUCTOR_PROFILE", "nope", "`nope`, which is not in the configuration file"),
    ];
    for (variable, value, says) in cases {
        let shim = with(&home, &[(variable, value)]);
        let answer = shim.call("1");
        assert_eq!(answer.error_type(), "configuration", "{variable}={value}: {}", answer.error());
        assert!(answer.error_message().contains(says), "{variable}={value}: {}", answer.error());
        let names_it = answer.error_message().contains(variable) || answer.text().contains(variable);
        assert!(names_it || says.starts_with("cannot make"), "{variable}={value}: {}", answer.error());
        let status = daemon.wait_for_status("one session", |status| status.sessions.len() == 1);
        let shown = status.sessions[0].error.as_deref().expect("the error is shown");
        assert!(shown.contains(answer.error_message()), "{shown}");
        drop(shim);
        daemon.wait_for_status("no session", |status| status.sessions.is_empty());
    }
    let web = with(&home, &[("MCP_CONDUCTOR_PROFILE", "web"), ("MCP_CONDUCTOR_MAX_TIMEOUT", "60000")]);
    assert_eq!(
        web.call("Deno.permissions.querySync({ name: 'net', host: 'example.com' }).state").value(),
        "granted"
    );
    let capped = web.call_with(json!({ "deno_code": "1", "timeout": 50_000 }));
    assert_eq!(
        capped.structured()["notes"],
        json!(["timeout 50000 ms is over the maximum; 2000 ms is used"])
    );
}

#[test]
fn loud_grants_and_typing_errors_are_warned_about() {
    let home = Home::new();
    home.configure("[policy]\nsession-grants = [\"read\", \"run\"]\n");
    let daemon = Daemon::start(&home);
    let shim =
        with(&home, &[("MCP_CONDUCTOR_RUN_ARGS", "allow-run=/bin/echo"), ("MCP_CONDUCTOR_WORKSPASE", "/x")]);
    let code =
        "new TextDecoder().decode(new Deno.Command('/bin/echo', { args: ['hi'] }).outputSync().stdout)";
    assert_eq!(shim.call(code).value(), "hi\n", "an administrator may offer `run`");
    let warnings = daemon.status().warnings.join("\n");
    assert!(warnings.contains("unsandboxed"), "{warnings}");
    assert!(warnings.contains("MCP_CONDUCTOR_WORKSPASE is not a variable conductor knows"), "{warnings}");
}
