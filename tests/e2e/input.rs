//! Bad input: each gets a clear error or a documented clamp, and the session lives on.

use conductor_tests::{DEADLINE, Daemon, Shim, wait_for};
use serde_json::{Value, json};

#[test]
fn wrong_arguments_are_named_and_the_session_lives_on() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let megabytes = |n: usize| "x".repeat(n << 20);
    let cases = [
        (json!({}), "`deno_code` is missing"),
        (json!({ "deno_code": "" }), "`deno_code` is empty"),
        (json!({ "deno_code": " \n\t" }), "`deno_code` is empty"),
        (json!({ "deno_code": 7 }), "`deno_code` must be a string, not a number"),
        (json!({ "deno_code": ["1"] }), "`deno_code` must be a string, not an array"),
        (json!({ "deno_code": null }), "`deno_code` must be a string, not null"),
        (json!({ "deno_code": format!("'{}'.length", megabytes(9)) }), "more than the limit of 8388608"),
        (json!({ "deno_code": "1", "timeout": 0 }), "more than zero milliseconds, not 0"),
        (json!({ "deno_code": "1", "timeout": -5 }), "more than zero milliseconds, not -5"),
        (
            json!({ "deno_code": "1", "timeout": "fast" }),
            "`timeout` must be a number of milliseconds, not a string",
        ),
        (
            json!({ "deno_code": "1", "timeout": true }),
            "`timeout` must be a number of milliseconds, not a boolean",
        ),
        (json!({ "deno_code": "1", "globals": [1] }), "`globals` must be an object, not an array"),
        (json!({ "deno_code": "1", "globals": "a" }), "`globals` must be an object, not a string"),
        (json!({ "deno_code": "1", "globals": { "__proto__": 1 } }), "cannot define `__proto__`"),
        (json!({ "deno_code": "1", "globals": { "let": 1 } }), "cannot define `let`"),
        (json!({ "deno_code": "1", "globals": { "a-b": 1 } }), "cannot define `a-b`"),
        (json!({ "deno_code": "1", "globals": { "Deno": 1 } }), "cannot define `Deno`"),
        (
            json!({ "deno_code": "1", "dependencies": "npm:zod" }),
            "`dependencies` must be an array of strings",
        ),
        (json!({ "deno_code": "1", "dependencies": [1] }), "`dependencies` must be an array of strings"),
        (json!({ "deno_code": "1", "code": "2" }), "`code` is not a parameter"),
        (json!({ "deno_code": "1", "permissions": ["all"] }), "`permissions` is not a parameter"),
    ];
    for (arguments, says) in cases {
        let shown: String = arguments.to_string().chars().take(200).collect();
        let answer = shim.call_with(arguments);
        assert_eq!(answer.error_type(), "invalid_arguments", "{shown}: {}", answer.error());
        assert!(answer.error_message().contains(says), "{shown} says {}", answer.error_message());
        assert!(answer.text().contains(answer.error_message()), "{}", answer.text());
        assert_eq!(shim.call("'alive'").value(), "alive", "after {shown}");
    }
    let nulls = json!({ "deno_code": "1", "timeout": null, "globals": null, "dependencies": null });
    assert_eq!(shim.call_with(nulls).value(), 1, "null is absent");
    let large = shim.call_with(json!({ "deno_code": "1", "timeout": 1e300 }));
    assert!(large.structured()["notes"][0].as_str().expect("a note").contains("is over the maximum"));
}

#[test]
fn five_megabytes_of_code_run() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let code = format!("const text: string = '{}';\ntext.length", "x".repeat(5 << 20));
    assert_eq!(shim.call(&code).value(), 5 << 20);
    let globals = json!({ "text": "y".repeat(5 << 20) });
    assert_eq!(shim.call_with(json!({ "deno_code": "text.length", "globals": globals })).value(), 5 << 20);
}

#[test]
fn wrong_requests_are_answered_and_the_session_lives_on() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let ask = |method: &str, params: Value| {
        let answer = shim.ask(method, params);
        let (code, message) = answer.rpc_error();
        (code, message.to_owned())
    };
    let (code, message) = ask("no/such/method", json!({}));
    assert_eq!(code, -32601);
    assert!(message.contains("no/such/method"), "{message}");
    let (code, message) = ask("tools/call", json!({ "name": "no_such_tool", "arguments": {} }));
    assert_eq!(code, -32602);
    assert!(message.contains("no_such_tool") && message.contains("run_deno_code"), "{message}");
    for params in
        [json!({}), json!({ "name": 5 }), json!({ "name": "run_deno_code", "arguments": 5 }), json!([])]
    {
        let (code, _) = ask("tools/call", params.clone());
        assert!(matches!(code, -32602 | -32600), "{params}: {code}");
        assert_eq!(shim.call("'alive'").value(), "alive", "after {params}");
    }
    // Notifications that make no sense are not answered, and do no harm.
    for method in ["no/such", "notifications/cancelled", "notifications/progress", "tools/call"] {
        shim.notify(method, json!({ "requestId": 9999, "x": [] }));
    }
    assert_eq!(shim.call("'alive'").value(), "alive");
    assert_eq!(shim.ask("ping", json!({})).result(), &json!({}));
}

/// Sends a line that is no request and gives the error it is answered with.
#[track_caller]
fn refused(shim: &Shim, line: Vec<u8>) -> Value {
    let before = shim.messages().len();
    shim.send_line(line);
    wait_for("an error", DEADLINE, || {
        let new = shim.messages().split_off(before);
        new.iter().find(|message| message.get("error").is_some()).cloned().ok_or_else(|| format!("{new:?}"))
    })
}

#[test]
fn lines_that_are_no_messages_are_answered_and_the_session_lives_on() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let call =
        json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": { "name": "run_deno_code" } });
    let mut invalid_utf8 = call.to_string().into_bytes();
    invalid_utf8.splice(2..2, [0xff, 0xfe, b'"', b':', b'1', b',', b'"']);
    let mut huge = br#"{"jsonrpc":"2.0","id":"huge","method":"tools/call","params":{"name":"run_deno_code","arguments":{"deno_code":""#.to_vec();
    huge.resize(64 << 20, b'x');
    huge.extend(br#""}}}"#);
    let nested = format!(
        r#"{{"jsonrpc":"2.0","id":"deep","method":"ping","params":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let cases: Vec<(&str, Vec<u8>, i64)> = vec![
        ("not JSON", b"this is not JSON".to_vec(), -32700),
        ("half of an object", br#"{"jsonrpc":"2.0","id":1,"method":"#.to_vec(), -32700),
        ("invalid UTF-8", invalid_utf8, -32700),
        ("binary", (0..=255).filter(|byte| *byte != b'\n').collect(), -32700),
        ("a batch", format!("[{call},{call}]").into_bytes(), -32600),
        ("an empty batch", b"[]".to_vec(), -32600),
        ("a number", b"42".to_vec(), -32600),
        ("null", b"null".to_vec(), -32600),
        ("an empty object", b"{}".to_vec(), -32600),
        ("an object as id", br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#.to_vec(), -32600),
        ("nested without end", nested.into_bytes(), -32600),
        ("64 MB", huge, -32600),
    ];
    for (name, line, code) in cases {
        let answer = refused(&shim, line);
        assert_eq!(answer["error"]["code"], code, "{name}: {answer}");
        assert!(!answer["error"]["message"].as_str().expect("a text").is_empty(), "{name}: {answer}");
        assert_eq!(shim.call("'alive'").value(), "alive", "after {name}");
    }
    for blank in ["", "   ", "\r"] {
        shim.send_line(blank.as_bytes().to_vec());
    }
    assert_eq!(shim.call("'alive'").value(), "alive", "blank lines are passed over");
}
