//! What code returns and prints arrives as what it is.

use std::time::Duration;

use conductor_pool::{RunEvent, Settled, Stream, WorkerSource as _, WorkerSpec};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, job, json as json_of, only, settled};

#[tokio::test]
async fn json_values_arrive_unchanged() {
    let bench = Bench::new();
    let table: &[(&str, Value)] = &[
        ("null", json!(null)),
        ("true", json!(true)),
        ("0", json!(0)),
        ("-1.5", json!(-1.5)),
        ("1e300", json!(1e300)),
        ("Number.MAX_SAFE_INTEGER", json!(9_007_199_254_740_991_u64)),
        ("''", json!("")),
        (r"'é\u{1F600}\u0000\u2028\n\x1b[31m'", json!("é😀\0\u{2028}\n\x1b[31m")),
        ("[]", json!([])),
        ("[1, 'a', [null, {}]]", json!([1, "a", [null, {}]])),
        ("({})", json!({})),
        ("({ b: 1, a: { c: [true] } })", json!({ "b": 1, "a": { "c": [true] } })),
        ("Object.create(null)", json!({})),
        ("JSON.parse('{\"__proto__\": 1}')", json!({ "__proto__": 1 })),
        (
            "(() => { const o = { a: 1 }; return { x: o, y: o }; })()",
            json!({ "x": { "a": 1 }, "y": { "a": 1 } }),
        ),
        ("Promise.resolve(7)", json!(7)),
        ("({ then(f) { f(8); } })", json!(8)),
        ("Array.from({ length: 100000 }, (_, i) => i).length", json!(100_000)),
        (
            "(() => { let d = []; for (let i = 0; i < 90; i++) d = [d]; return JSON.stringify(d).length; })()",
            json!(182),
        ),
    ];
    for (expression, expected) in table {
        assert_eq!(&bench.json(&format!("return {expression};")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn what_json_cannot_hold_is_shown() {
    let bench = Bench::new();
    let table = [
        ("-0", "-0"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("10n", "10n"),
        ("Symbol('s')", "Symbol(s)"),
        ("function f() {}", "[Function: f]"),
        ("class A {}", "[class A]"),
        ("new Map([[1, { a: 2 }]])", "Map(1) { 1 => { a: 2 } }"),
        ("new Set(['x'])", "Set(1) { \"x\" }"),
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("/a/g", "/a/g"),
        ("new Uint8Array([1, 2])", "Uint8Array(2) [ 1, 2 ]"),
        ("new (class Point { x = 1 })()", "Point { x: 1 }"),
        ("[undefined]", "[ undefined ]"),
        ("[1, , 2]", "[ 1, <1 empty item>, 2 ]"),
        ("({ a: undefined })", "{ a: undefined }"),
        ("({ f() {} })", "{ f: [Function: f] }"),
        ("({ [Symbol.for('k')]: 1 })", "{ Symbol(k): 1 }"),
        ("({ get a() { return 1; } })", "{ a: [Getter] }"),
        ("Object.assign([1], { extra: 2 })", "[ 1, extra: 2 ]"),
        ("({ toJSON: 1 })", "{ toJSON: 1 }"),
        ("(() => { const o = {}; o.o = o; return o; })()", "<ref *1> { o: [Circular *1] }"),
        ("[-0]", "[ -0 ]"),
        ("({ d: new Date(0) })", "{ d: 1970-01-01T00:00:00.000Z }"),
        ("new Proxy({ a: 1 }, {})", "{ a: 1 }"),
        ("Object.defineProperty({}, 'hidden', { value: 1 })", "{}"),
        ("['\\ud800']", "[ \"\u{fffd}\" ]"),
    ];
    for (expression, expected) in table {
        let report = bench.run(&format!("return {expression};")).await;
        let Settled::Inspect { text } = settled(&report) else { panic!("{expression}: {report:?}") };
        assert_eq!(text, expected, "{expression}");
    }
}

#[tokio::test]
async fn huge_and_deep_values_neither_fail_nor_hang() {
    let bench = Bench::new();
    let table = [
        "let d = []; for (let i = 0; i < 200000; i++) d = [d]; return d;",
        "let d = {}; for (let i = 0; i < 200000; i++) d = { d }; return d;",
        "let a = [1n]; for (let i = 0; i < 30; i++) a = Array(100).fill(a); return a;",
        "let a = new Set([1n]); for (let i = 0; i < 30; i++) a = new Map([[1, a], [2, a], [3, [a, a, a]]]); return a;",
        "const o = { u: undefined }; for (let i = 0; i < 2e5; i++) o['k' + i] = i; return o;",
        "return { a: new Array(1e9), b: new Uint8Array(1e8), c: 'x'.repeat(1e8) };",
        "return { c: ['\\ud800' + 'x'.repeat(3e6)], d: Symbol() };",
    ];
    for code in table {
        let report = bench.run(code).await;
        let Settled::Inspect { text } = settled(&report) else { panic!("{code}: {:?}", report.verdict) };
        assert!(text.len() < 1 << 20, "{code}: {} bytes", text.len());
    }
}

/// A large value is written piece by piece, which must not change it.
#[tokio::test]
async fn a_large_value_arrives_whole_and_for_little_computing() {
    let bench = Bench::new();
    let code = "const many = {}; for (let n = 0; n < 3e5; n++) many['k\u{00e9}' + n] = [n, `${n}`]; \
                return [many, 'x'.repeat(3e5), '\\u{1F600}'.repeat(2e4)];";
    let mut job = job(code);
    job.limits.max_result_bytes = 64 << 20;
    let report = bench.run_job(&bench.spec(), job).await;
    // Several times what it takes; what grows faster than the value would take more.
    assert!(report.cpu < Duration::from_secs(6), "{:?}", report.cpu);
    let value = json_of(report);
    let many = value[0].as_object().expect("an object");
    assert_eq!(many.len(), 300_000);
    assert!(
        many.iter()
            .enumerate()
            .all(|(n, (key, value))| *key == format!("ké{n}") && *value == json!([n, n.to_string()]))
    );
    assert_eq!((&value[1], &value[2]), (&json!("x".repeat(300_000)), &json!("😀".repeat(20_000))));
}

#[tokio::test]
async fn an_inspected_value_is_cut_to_fit_the_result_limit() {
    let bench = Bench::new();
    let mut job = job("return Symbol('\\u0001'.repeat(100000));");
    job.limits.max_result_bytes = 6000;
    let report = bench.run_job(&bench.spec(), job).await;
    let Settled::Inspect { text } = settled(&report) else { panic!("{report:?}") };
    assert!(text.ends_with(" more characters") && text.len() < 6000, "{} bytes", text.len());
}

#[tokio::test]
async fn no_value_is_none() {
    let bench = Bench::new();
    for code in ["", "return;", "return undefined;", "await 1;", "return (() => {})();"] {
        assert!(matches!(settled(&bench.run(code).await), Settled::None), "{code}");
    }
}

#[tokio::test]
async fn output_arrives_on_its_own_stream_with_every_byte() {
    let bench = Bench::new();
    let code = r#"
        console.log("out", 1); console.error("err", 2); console.warn("warn");
        Deno.stdout.writeSync(new Uint8Array([0, 255, 10]));
        await Deno.stderr.write(new TextEncoder().encode("written"));
        setTimeout(() => console.log("timer"), 20);
        return "value";"#;
    let report = bench.run(code).await;
    assert_eq!(report.stdout, b"out 1\n\0\xff\ntimer\n");
    assert_eq!(report.stderr, b"err 2\nwarn\nwritten");
    assert_eq!(json_of(report), json!("value"));
}

#[tokio::test]
async fn output_is_forwarded_while_the_code_runs() {
    let bench = Bench::new();
    let worker = bench.boot(&bench.spec()).await.unwrap();
    let (events, mut received) = tokio::sync::mpsc::channel(1);
    // The run ends only if its first line has been seen while it waits.
    let cancel = CancellationToken::new();
    let code = "for (let i = 0; i < 50; i++) { console.log(i); console.error(-i); } await new Promise(() => setInterval(() => {}, 1e3));";
    let running = tokio::spawn(worker.run(job(code), Some(events), cancel.clone()));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(RunEvent::Output { stream, bytes }) = received.recv().await {
        match stream {
            Stream::Stdout => stdout.extend(bytes),
            Stream::Stderr => stderr.extend(bytes),
        }
        if stdout.ends_with(b"\n49\n") && stderr.ends_with(b"\n-49\n") {
            cancel.cancel();
        }
    }
    let (report, reaped) = running.await.unwrap();
    reaped.await;
    assert_eq!((report.stdout, report.stderr), (stdout, stderr));
    assert!(matches!(report.verdict, conductor_pool::Verdict::Cancelled));
}

#[tokio::test]
async fn a_listener_that_went_away_changes_nothing() {
    let bench = Bench::new();
    let worker = bench.boot(&bench.spec()).await.unwrap();
    let (events, received) = tokio::sync::mpsc::channel(1);
    drop(received);
    let code =
        "for (let i = 0; i < 3; i++) { console.log(i); await new Promise(f => setTimeout(f, 5)); } return 1;";
    let (report, reaped) = worker.run(job(code), Some(events), CancellationToken::new()).await;
    reaped.await;
    assert_eq!(report.stdout, b"0\n1\n2\n");
    assert_eq!(json_of(report), json!(1));
}

#[tokio::test]
async fn globals_are_own_writable_properties() {
    let bench = Bench::new();
    let mut job = job(r#"
        const shape = (name) => { const { value, ...rest } = Object.getOwnPropertyDescriptor(globalThis, name); return rest; };
        const before = [data.list[1], typeof name, name, shape("data"), WORKSPACE_DIR, shape("WORKSPACE_DIR")];
        name = 5; delete globalThis.data;
        return [before, name, typeof data, Object.prototype.polluted === undefined];"#);
    job.globals = serde_json::from_value(json!({
        "data": { "list": [1, 2] }, "name": "n", "__proto__": { "polluted": 1 }, "Array": null, "fetch": 1
    }))
    .unwrap();
    let plain = json!({ "writable": true, "configurable": true, "enumerable": true });
    let expected = json!([[2, "string", "n", plain, bench.workspace(), plain], 5, "undefined", true]);
    assert_eq!(json_of(bench.run_job(&bench.spec(), job).await), expected);
}

#[tokio::test]
async fn a_global_that_cannot_be_defined_is_an_error() {
    let bench = Bench::new();
    let mut job = job("return 1;");
    job.globals = serde_json::from_value(json!({ "undefined": 1 })).unwrap();
    let report = bench.run_job(&bench.spec(), job).await;
    let Settled::Thrown { error } = settled(&report) else { panic!("{report:?}") };
    assert_eq!(
        (error.name.as_str(), error.message.as_str()),
        ("TypeError", "the global undefined cannot be defined")
    );
}

#[tokio::test]
async fn the_api_has_what_a_module_has() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    std::fs::write(workspace.join("data.json"), "[1]").unwrap();
    std::fs::write(workspace.join("other.js"), "export default import.meta.url; export const two = 2;")
        .unwrap();
    let code = r#"
        const { default: list } = await api.import("./data.json", { with: { type: "json" } });
        const other = await api.import(`./other.js`);
        const path = await api.import("node:path");
        const data = await api.import("data:text/javascript,export default 5");
        return [list, other.default === api.meta.resolve("./other.js"), other.two, path.basename("/a/b"), data.default,
          api.meta.url, api.meta.dirname, api.meta.filename, api.meta.main, api.meta.resolve("../x.ts"),
          Object.isFrozen(api) && Object.isFrozen(api.meta), Object.getPrototypeOf(api), this === undefined];"#;
    let spec = WorkerSpec {
        grants: conductor_pool::Grants { read: only(workspace.to_str().unwrap()), ..Default::default() },
        ..bench.spec()
    };
    let dir = workspace.to_str().unwrap();
    let parent = workspace.parent().unwrap().to_str().unwrap();
    let expected = json!([
        [1],
        true,
        2,
        "b",
        5,
        format!("file://{dir}/main.ts"),
        dir,
        format!("{dir}/main.ts"),
        true,
        format!("file://{parent}/x.ts"),
        true,
        null,
        true
    ]);
    let worker = bench.source.boot(std::sync::Arc::new(spec)).await.unwrap();
    let (report, reaped) =
        worker.run(job(&format!("'use strict';{code}")), None, CancellationToken::new()).await;
    reaped.await;
    assert_eq!(json_of(report), expected);
}

#[tokio::test]
async fn a_workspace_path_with_special_characters_is_one_url() {
    let bench = Bench::new();
    let workspace = bench.dir.path().join("a b#c?d%25é\\\n@");
    std::fs::create_dir(&workspace).unwrap();
    let spec = WorkerSpec { workspace: workspace.clone(), ..bench.spec() };
    let code = "return [api.meta.dirname, decodeURIComponent(new URL(api.meta.url).pathname), new URL(api.meta.url).hash];";
    let expected = json!([workspace, workspace.join("main.ts"), ""]);
    assert_eq!(json_of(bench.run_job(&spec, job(code)).await), expected);
}

#[tokio::test]
async fn five_megabytes_of_code_and_globals_go_through() {
    let bench = Bench::new();
    let mut job = job(&format!("const text = '{}'; return text.length + big.length;", "x".repeat(5_000_000)));
    job.globals.insert("big".to_owned(), Value::String("é".repeat(500_000)));
    assert_eq!(json_of(bench.run_job(&bench.spec(), job).await), json!(5_500_000));
}
