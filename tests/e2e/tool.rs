//! What `run_deno_code` promises: values, output and errors, each told twice, as text and as structure.

use conductor_tests::{Answer, Daemon, Home, Shim};
use serde_json::{Value, json};

fn session() -> (Daemon, Shim) {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    (daemon, shim)
}

#[test]
fn values_come_back_as_what_they_are() {
    let (_daemon, shim) = session();
    let json_values = [
        ("1 + 1", json!(2)),
        ("return 5", json!(5)),
        ("({ a: [1, null, 'x', { b: true }] })", json!({ "a": [1, null, "x", { "b": true }] })),
        ("null", json!(null)),
        ("'größe \\u{1F600} \\n'", json!("größe 😀 \n")),
        ("await Promise.resolve(7)", json!(7)),
        ("const f = async () => 8; await f()", json!(8)),
        ("if (1 > 0) { return 'early' }\n'late'", json!("early")),
        ("interface A { n: number }\nconst a: A = { n: 1 };\na.n satisfies number", json!(1)),
        ("enum E { A = 3 }\nE.A", json!(3)),
        ("import { join } from 'node:path';\njoin('a', 'b')", json!("a/b")),
        ("const { sep } = await import('node:path'); sep", json!("/")),
        ("[typeof this, typeof arguments, typeof require]", json!(["undefined", "undefined", "undefined"])),
        ("typeof import.meta.url", json!("string")),
        ("'x'.repeat(1_000_000).length", json!(1_000_000)),
    ];
    for (code, value) in json_values {
        let answer = shim.call(code);
        assert!(answer.structured().get("error").is_none(), "{code}: {}", answer.error());
        assert_eq!(answer.value(), &value, "{code}");
        assert_eq!(answer.structured()["returnValueFormat"], "json", "{code}");
    }
    let shown = [
        ("new Map([[1, { a: 2 }]])", "Map(1) { 1 => { a: 2 } }"),
        ("10n", "10n"),
        ("NaN", "NaN"),
        ("-0", "-0"),
        ("Symbol('s')", "Symbol(s)"),
        ("[1, , 3]", "[ 1, <1 empty item>, 3 ]"),
        ("const a: any = {}; a.self = a; a", "<ref *1> { self: [Circular *1] }"),
    ];
    for (code, text) in shown {
        let answer = shim.call(code);
        assert_eq!(answer.value(), text, "{code}");
        assert_eq!(answer.structured()["returnValueFormat"], "inspect", "{code}");
        assert_eq!(answer.text(), text, "{code}");
    }
    for code in ["undefined", "const a = 1;", "function f() {}", "for (const a of []) { a }", "return"] {
        let answer = shim.call(code);
        assert_eq!(answer.value(), &Value::Null, "{code}");
        assert_eq!(answer.structured()["returnValueFormat"], "none", "{code}");
        assert!(answer.structured().get("returnValue").is_none(), "{code}");
    }
}

#[test]
fn text_and_structure_each_tell_everything() {
    let (_daemon, shim) = session();
    let answer = shim.call("console.log('to out');\nconsole.error('to err');\n({ answer: 42 })");
    assert_eq!((answer.stdout(), answer.stderr()), ("to out\n", "to err\n"));
    assert_eq!(answer.value(), &json!({ "answer": 42 }));
    assert!(answer.text().replace(' ', "").contains("\"answer\":42"), "{}", answer.text());
    for part in ["stdout:\nto out", "stderr:\nto err"] {
        assert!(answer.text().contains(part), "{part} is not in {}", answer.text());
    }
    let answer =
        shim.call("console.log('before');\nthrow new RangeError('too far', { cause: new Error('inner') })");
    assert_eq!(answer.stdout(), "before\n");
    assert_eq!(answer.error()["cause"], json!(["Error: inner"]));
    let frame = answer.error()["codeFrame"].as_str().expect("a code frame");
    assert!(frame.contains("new RangeError('too far'"), "{frame}");
    for part in ["error (runtime): RangeError: too far", "caused by: Error: inner", frame, "stdout:\nbefore"]
    {
        assert!(answer.text().contains(part), "{part} is not in {}", answer.text());
    }
    let timings = &answer.structured()["timings"];
    let total = timings["total"].as_f64().expect("a number");
    assert!(total > 0.0 && total >= timings["run"].as_f64().expect("a number"), "{timings}");
}

/// Where `part` stands in `code`: line and column, 1-based, columns in UTF-16 units as editors and V8 count them.
fn place(code: &str, part: &str) -> (u64, u64) {
    let before = &code[..code.find(part).expect("the part is in the code")];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() as u64 + 1, before[line_start..].encode_utf16().count() as u64 + 1)
}

fn place_of(answer: &Answer) -> (u64, u64) {
    let number =
        |name: &str| answer.error()[name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", answer.error()));
    (number("line"), number("column"))
}

#[test]
fn errors_tell_their_kind_and_the_place_in_the_users_code() {
    let (_daemon, shim) = session();
    // Code, the error's type, what its message holds, what stands at its place.
    let cases = [
        ("const a = 1\nconst b = ;\n", "syntax", "SyntaxError", ";"),
        ("const open = {\n  a: 1,\n", "syntax", "SyntaxError", ""),
        ("throw new Error('boom')", "runtime", "Error: boom", "new Error"),
        (
            "const x: any = null;\n\n  x.foo.bar",
            "runtime",
            "TypeError: Cannot read properties of null",
            "foo",
        ),
        (
            "const a: number = 1; const b = <T,>(t: T): T => t; throw new TypeError(`${b(a)}`)",
            "runtime",
            "TypeError: 1",
            "new TypeError",
        ),
        (
            "type T = { a: string };\nfunction f(t: T): never { throw new Error(t.a) }\nf({ a: 'deep' })",
            "runtime",
            "Error: deep",
            "new Error(t.a)",
        ),
        (
            "enum E { A, B }\nconst e: E = E.B;\nmissing(e)",
            "runtime",
            "ReferenceError: missing is not defined",
            "missing",
        ),
        ("/* größe 😀 */ nope()", "runtime", "ReferenceError: nope", "nope"),
        ("JSON.parse('{')", "runtime", "SyntaxError", "parse"),
        (
            "\nDeno.readTextFileSync('/etc/passwd')",
            "permission",
            "NotCapable: Requires read access to",
            "readTextFileSync",
        ),
        ("import z from 'npm:zod';\nz", "dependency", "`npm:zod` is not allowed here", "'npm:zod'"),
        (
            "1;\nimport z from 'https://example.com/x.ts'; z",
            "dependency",
            "https://example.com/x.ts",
            "'https://example.com/x.ts'",
        ),
        (
            "setTimeout(() => { throw new Error('later') }, 5); 1",
            "runtime",
            "Error: later (thrown after",
            "new Error",
        ),
        (
            "Promise.reject(new Error('floating')); await new Promise(() => {})",
            "runtime",
            "Error: floating",
            "new Error",
        ),
    ];
    for (code, kind, message, at) in cases {
        let answer = shim.call(code);
        assert_eq!(answer.error_type(), kind, "{code}: {}", answer.error());
        assert!(answer.error_message().contains(message), "{code}: {}", answer.error());
        if !at.is_empty() {
            assert_eq!(place_of(&answer), place(code, at), "{code}: {}", answer.error());
        }
    }
}

#[test]
fn ends_without_a_place_tell_their_kind_and_the_cure() {
    let (_daemon, shim) = session();
    let cases = [
        (json!({ "deno_code": "while (true) {}", "timeout": 200 }), "timeout", "200 ms"),
        (json!({ "deno_code": "Deno.exit(3)" }), "exit", "code 3"),
        (json!({ "deno_code": "import process from 'node:process'; process.exit(4)" }), "exit", "code 4"),
        (json!({ "deno_code": "await new Promise(() => {})" }), "runtime", "never settles"),
        (json!({ "deno_code": "await import('npm:zod')" }), "dependency", "zod"),
        (
            json!({ "deno_code": "const name = 'npm:' + 'zod'; await import(name)" }),
            "dependency",
            "npm specifiers",
        ),
        (json!({ "deno_code": "1", "dependencies": ["npm:zod"] }), "dependency", "npm:zod"),
        (
            json!({ "deno_code": "const a = []; while (true) a.push(new Array(1e5).fill(0.5 + a.length))" }),
            "memory",
            "256 MiB",
        ),
        (
            json!({ "deno_code": "const line = 'x'.repeat(65536); while (true) console.log(line)" }),
            "output_limit",
            "bytes",
        ),
        (json!({ "deno_code": "throw 'just text'" }), "runtime", "just text"),
        (json!({ "deno_code": "await fetch('https://example.com')" }), "permission", "net access"),
        (json!({ "deno_code": "new Deno.Command('/bin/ls').outputSync()" }), "permission", "run access"),
    ];
    for (arguments, kind, message) in cases {
        let answer = shim.call_with(arguments.clone());
        assert_eq!(answer.error_type(), kind, "{arguments}: {}", answer.error());
        assert!(answer.error_message().contains(message), "{arguments}: {}", answer.error());
        let has_hint = answer.error()["hint"].is_string();
        let needs_hint = !matches!(kind, "exit") && message != "just text";
        assert!(has_hint || !needs_hint, "{arguments} has no hint: {}", answer.error());
    }
    let answer = shim.call("Deno.exit(0)");
    assert_eq!(answer.value(), &Value::Null);
    assert_eq!(answer.structured()["notes"], json!(["the code called exit(0)"]));
    assert_eq!(shim.call("'still here'").value(), "still here");
}

#[test]
fn pending_work_counts_until_nothing_is_left_or_the_linger_is_over() {
    let home = Home::new();
    // The worker names what it leaves open a moment after the value.
    home.configure("[profiles.brief]\nlinger = \"2s\"\n");
    let _daemon = Daemon::start(&home);
    let (shim, brief) = (
        Shim::session(&home),
        Shim::session_with(&home, |command| {
            command.env("MCP_CONDUCTOR_PROFILE", "brief");
        }),
    );
    let answer = shim.call("setTimeout(() => console.log('late'), 50); 'early'");
    assert_eq!((answer.value(), answer.stdout()), (&json!("early"), "late\n"));
    assert!(answer.structured().get("notes").is_none(), "{}", answer.structured());
    let answer = brief.call("setInterval(() => {}, 1000); 'value'");
    assert_eq!(answer.value(), "value");
    let note = answer.structured()["notes"][0].as_str().expect("a note").to_owned();
    assert!(note.contains("left something open") && note.contains("Timeout"), "{note}");
    assert!(answer.text().contains(&note), "{}", answer.text());
}

#[test]
fn globals_are_globals_and_nothing_outlives_its_call() {
    let (_daemon, shim) = session();
    let globals = json!({ "rows": [1, 2, { "a": null }], "größe": "x", "$n": 1.5, "name": "shadowed" });
    let answer = shim.call_with(json!({
        "deno_code": "rows.push(globalThis.größe); globalThis.leak = 1; [rows, $n, name, 'rows' in globalThis]",
        "globals": globals,
    }));
    assert_eq!(answer.value(), &json!([[1, 2, { "a": null }, "x"], 1.5, "shadowed", true]));
    let answer = shim.call("[typeof rows, typeof leak, typeof name]");
    assert_eq!(answer.value(), &json!(["undefined", "undefined", "string"]));
    let [first, second] = [shim.call("Deno.pid"), shim.call("Deno.pid")];
    assert_ne!(first.value(), second.value(), "each call has a process of its own");
}

#[test]
fn the_timeout_has_a_default_and_a_cap() {
    let daemon = Daemon::new();
    let shim = Shim::session_with(daemon.home(), |command| {
        command.env("MCP_CONDUCTOR_DEFAULT_TIMEOUT", "250").env("MCP_CONDUCTOR_MAX_TIMEOUT", "600");
    });
    let endless = shim.call("while (true) {}");
    assert!(endless.error_message().contains("250 ms"), "{}", endless.error());
    assert!(
        endless.error()["hint"].as_str().expect("a hint").contains("at most 600 ms"),
        "{}",
        endless.error()
    );
    let capped = shim.call_with(json!({ "deno_code": "while (true) {}", "timeout": 60_000 }));
    assert!(capped.error_message().contains("600 ms"), "{}", capped.error());
    let note = "timeout 60000 ms is over the maximum; 600 ms is used";
    assert_eq!(capped.structured()["notes"], json!([note]));
    assert!(capped.text().contains(note), "{}", capped.text());
    let run = capped.structured()["timings"]["run"].as_f64().expect("a number");
    assert!((600.0..5000.0).contains(&run), "{run}");
}

#[test]
fn the_tool_describes_itself_in_one_page() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let listed = shim.ask("tools/list", json!({}));
    assert!(listed.result().get("nextCursor").is_none(), "{}", listed.message);
    let tools = listed.result()["tools"].as_array().expect("a list");
    assert_eq!(tools.len(), 1);
    let tool = &tools[0];
    assert_eq!(tool["name"], "run_deno_code");
    let description = tool["description"].as_str().expect("a description");
    assert!(description.len() < 2048, "{} bytes", description.len());
    for part in ["Permissions: nothing", "30000 ms", "300000 ms", "Example:"] {
        assert!(description.contains(part), "{part} is not in {description}");
    }
    let parameters: Vec<_> =
        tool["inputSchema"]["properties"].as_object().expect("properties").keys().collect();
    assert_eq!(parameters, ["deno_code", "timeout", "globals", "dependencies"]);
    let input = jsonschema::validator_for(&tool["inputSchema"]).expect("the input schema is one");
    assert!(input.is_valid(&json!({ "deno_code": "1", "timeout": 5, "globals": { "a": 1 } })));
    assert!(!input.is_valid(&json!({ "code": "1" })));
}

#[test]
fn every_released_protocol_version_is_spoken() {
    let daemon = Daemon::new();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let shim = Shim::spawn(daemon.home());
        let client = json!({ "name": "old", "version": "1" });
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
        assert_eq!(shim.ask("initialize", params).result()["protocolVersion"], version);
        shim.notify("notifications/initialized", json!({}));
        assert_eq!(shim.call("2 * 21").value(), 42, "{version}");
    }
}
