//! Code that attacks the harness or its channel spoils its own run and nothing else.

use std::time::Duration;

use conductor_pool::{RunReport, Settled, Verdict};
use serde_json::json;

use crate::support::{Bench, job, json as json_of, settled};

/// Changes to the realm that break a program which trusts it. Each is run before returning a value, before throwing,
/// and before leaving a promise open.
pub(crate) const REALM_ATTACKS: &[&str] = &[
    "Object.prototype.toJSON = () => 'lie';",
    "Array.prototype.toJSON = () => { throw 1 };",
    "String.prototype.toJSON = Number.prototype.toJSON = () => 'lie';",
    "for (const key of ['get', 'set', 'value', 'enumerable', 'writable', 'kind', 'depth', 'colors']) Object.prototype[key] = 'polluted';",
    "Object.defineProperty(Object.prototype, 'constructor', { get() { throw 1 } });",
    "JSON.stringify = JSON.parse = () => { throw 1 };",
    "globalThis.JSON = globalThis.Reflect = globalThis.Object = undefined;",
    "TextEncoder.prototype.encode = TextEncoder.prototype.encodeInto = () => new Uint8Array(9);",
    "TextDecoder.prototype.decode = () => { throw 1 };",
    "Uint8Array.prototype.subarray = () => { throw 1 }; globalThis.Uint8Array = undefined;",
    "Object.defineProperty(Object.getPrototypeOf(Uint8Array.prototype), 'length', { get() { return 1 } });",
    "Promise.prototype.then = Promise.prototype.catch = Promise.prototype.finally = () => { throw 1 };",
    "Promise.prototype.then = () => new Promise(() => {});",
    "Object.defineProperty(Promise, Symbol.species, { value: class { constructor() { throw 1 } } });",
    "Promise.resolve = Promise.reject = () => { throw 1 }; globalThis.Promise = undefined;",
    "Object.defineProperty(Promise.prototype, 'constructor', { get() { throw 1 } });",
    "Array.prototype[Symbol.iterator] = () => { throw 1 };",
    "for (const m of ['map', 'join', 'push', 'forEach', 'slice', 'includes']) Array.prototype[m] = () => { throw 1 };",
    "for (const m of ['toWellFormed', 'isWellFormed', 'slice', 'charCodeAt', 'replace']) String.prototype[m] = () => { throw 1 };",
    "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => { throw 1 };",
    "Reflect.apply = Reflect.ownKeys = Reflect.getOwnPropertyDescriptor = Reflect.defineProperty = () => { throw 1 };",
    "Object.getOwnPropertyDescriptor = Object.hasOwn = Object.is = () => { throw 1 };",
    "WeakSet.prototype.has = WeakSet.prototype.add = () => { throw 1 }; globalThis.WeakSet = undefined;",
    "Map.prototype.forEach = Set.prototype.forEach = Map.prototype.get = Map.prototype.set = () => { throw 1 };",
    "Deno.inspect = () => { throw 1 }; Deno.FsFile.prototype.writeSync = Deno.FsFile.prototype.readSync = () => { throw 1 };",
    "for (const k of ['resources', 'isProxy', 'isNativeError', 'print', 'ops']) { try { Deno[Deno.internal].core[k] = () => { throw 1 } } catch {} }",
    "globalThis.Deno = undefined;",
    "Object.defineProperty(globalThis, 'Deno', { get() { throw 1 } });",
    "for (const k of Object.keys(Deno)) { try { Object.defineProperty(Deno, k, { get() { throw 1 } }) } catch {} }",
    "globalThis.console = undefined;",
    "Error.prepareStackTrace = () => { throw 1 }; Error.stackTraceLimit = 0;",
    "Object.defineProperty(Error.prototype, 'name', { get() { throw 1 } });",
    "Object.defineProperty(Error, Symbol.hasInstance, { value: () => { throw 1 } });",
    "globalThis.setTimeout = globalThis.clearTimeout = globalThis.queueMicrotask = () => { throw 1 };",
    "Event.prototype.preventDefault = () => { throw 1 }; Object.defineProperty(Event.prototype, 'defaultPrevented', { get() { throw 1 } });",
    "addEventListener('unhandledrejection', (e) => e.stopImmediatePropagation()); addEventListener('error', (e) => e.stopImmediatePropagation());",
    "addEventListener('beforeunload', (e) => { e.stopImmediatePropagation(); e.preventDefault(); });",
    "globalThis.addEventListener = globalThis.removeEventListener = EventTarget.prototype.addEventListener = () => { throw 1 };",
    "for (const k of Reflect.ownKeys(globalThis)) { try { if (k !== 'undefined') delete globalThis[k]; } catch {} }",
    "Object.setPrototypeOf(globalThis, null);",
    "Object.freeze(Object.prototype); Object.freeze(globalThis);",
];

#[tokio::test]
async fn a_changed_realm_does_not_change_the_value() {
    let bench = Bench::new();
    for attack in REALM_ATTACKS {
        let code = format!(
            "const value = {{ __proto__: null, a: [1, 'x', {{ __proto__: null, b: null }}], c: true }}; {attack} return value;"
        );
        let report = bench.run(&code).await;
        assert_eq!(
            json_of_attack(attack, &report),
            json!({ "a": [1, "x", { "b": null }], "c": true }),
            "{attack}"
        );
    }
}

fn json_of_attack(attack: &str, report: &RunReport) -> serde_json::Value {
    match &report.verdict {
        Verdict::Settled { settled: Settled::Json { value }, open_handles: None, .. } => value.clone(),
        other => panic!("{attack}: {other:?}, stderr: {}", String::from_utf8_lossy(&report.stderr)),
    }
}

#[tokio::test]
async fn a_changed_realm_does_not_hide_an_error() {
    let bench = Bench::new();
    for attack in REALM_ATTACKS {
        let report = bench.run(&format!("const error = new RangeError('told'); {attack} throw error;")).await;
        let Settled::Thrown { error } = settled(&report) else { panic!("{attack}: {report:?}") };
        assert_eq!(error.message, "told", "{attack}");
    }
}

#[tokio::test]
async fn a_changed_realm_does_not_hide_that_nothing_is_left_to_do() {
    let bench = Bench::new();
    for attack in REALM_ATTACKS {
        let report =
            bench.run(&format!("const never = new Promise(() => {{}}); {attack} await never;")).await;
        match report.verdict {
            Verdict::NeverSettles => {}
            // Awaiting looks up `constructor`, so an attack on that throws from the code's own `await`.
            Verdict::Settled { settled: Settled::Thrown { .. }, .. } if attack.contains("constructor") => {}
            // Deno itself finds no `dispatchEvent` any more.
            Verdict::Exited { code: Some(1), .. } if attack.contains("setPrototypeOf(globalThis") => {}
            other => panic!("{attack}: {other:?}"),
        }
    }
}

/// Values whose parts run code.
#[tokio::test]
async fn values_that_run_code_are_shown_or_end_their_own_run() {
    let bench = Bench::new();
    let shown = [
        "return { toJSON() { throw 1 } };",
        "return { toJSON() { for (;;); } };",
        "return { get a() { throw 1 } };",
        "return { get a() { for (;;); } };",
        "return [new Proxy({}, { get() { throw 1 }, ownKeys() { throw 1 }, getPrototypeOf() { throw 1 }, has() { throw 1 } })];",
        "return [new Proxy([], { get() { return 5 } })];",
        "const { proxy, revoke } = Proxy.revocable({}, {}); const box = [proxy]; revoke(); return box;",
        "return { [Symbol.for('Deno.customInspect')]() { throw 1 } };",
        "return { [Symbol.for('nodejs.util.inspect.custom')]() { throw 1 } };",
        "return { [Symbol.toStringTag]: 'Fake', get [Symbol.for('x')]() { throw 1 } };",
        "const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { throw 1 } }); return [e];",
        "return [globalThis, Deno];",
        "class Odd extends Map { get size() { throw 1 } forEach() { throw 1 } } return new Odd([[1, 2]]);",
    ];
    for code in shown {
        let report = bench.run(code).await;
        assert!(matches!(settled(&report), Settled::Inspect { .. }), "{code}: {:?}", report.verdict);
    }
    let report = bench.run("return new Proxy({}, { get() { throw new Error('trap') } });").await;
    assert!(matches!(settled(&report), Settled::Thrown { .. }), "awaiting it looks up `then`");

    let mut job = job("return { [Symbol.for('Deno.customInspect')]() { for (;;); } };");
    job.limits.wall = Duration::from_millis(300);
    assert!(matches!(bench.run_job(&bench.spec(), job).await.verdict, Verdict::Timeout));
}

#[tokio::test]
async fn closing_every_descriptor_breaks_only_this_run() {
    let bench = Bench::new();
    for code in [
        "const fs = await import('node:fs'); for (let fd = 0; fd <= 40; fd++) { try { fs.closeSync(fd) } catch {} } return 1;",
        "Deno.stdout.close(); Deno.stderr.close(); Deno.stdin.close(); return 1;",
        "const { Pipe, constants } = process.binding('pipe_wrap'); for (let fd = 0; fd <= 40; fd++) { try { const p = new Pipe(constants.SOCKET); p.open(fd); p.close(); } catch {} } await new Promise(f => setTimeout(f, 50)); return 1;",
    ] {
        let mut job = job(code);
        job.limits.wall = Duration::from_secs(3);
        let report = bench.run_job(&bench.spec(), job).await;
        assert!(
            matches!(
                report.verdict,
                Verdict::Settled { .. }
                    | Verdict::Exited { .. }
                    | Verdict::BrokenChannel { .. }
                    | Verdict::Timeout
            ),
            "{code}: {:?}",
            report.verdict
        );
        assert_eq!(bench.json("return 2;").await, json!(2));
    }
}

/// Writes raw bytes to the reply pipe, as any code can that adopts a descriptor.
pub(crate) fn forge(bytes: &str, then: &str) -> String {
    format!(
        "const {{ Pipe, constants }} = process.binding('pipe_wrap'); const {{ WriteWrap }} = process.binding('stream_wrap');
         const p = new Pipe(constants.SOCKET); p.open(4);
         const write = (text) => {{ const r = new WriteWrap(); r.oncomplete = () => {{}}; p.writeLatin1String(r, text); }};
         const frame = (text) => {{ const n = text.length; write(String.fromCharCode(n & 255, n >> 8 & 255, n >> 16 & 255, n >>> 24) + text); }};
         {bytes} await new Promise(f => setTimeout(f, 100)); {then}"
    )
}

#[tokio::test]
async fn forged_frames_are_claims_about_the_own_run() {
    let bench = Bench::new();
    // The first result counts, and it is the code's own either way.
    let report = bench
        .run(&forge(r#"frame('{"settled":{"kind":"json","value":"forged"}}');"#, "return 'real';"))
        .await;
    assert_eq!(json_of(report), json!("forged"));

    let report = bench
        .run(&forge(
            r#"frame('{"ready":{}}'); frame('{"warm":[1]}'); frame('{"open":{"handles":["x"]}}');"#,
            "return 'real';",
        ))
        .await;
    assert_eq!(json_of(report), json!("real"));

    let report = bench.run(&forge(r#"frame('{"drained":{}}');"#, "return 'real';")).await;
    assert!(matches!(report.verdict, Verdict::NeverSettles), "{:?}", report.verdict);

    let report = bench
        .run(&forge(
            r#"frame('{"settled":{"kind":"exit","code":0}}');"#,
            "process.kill(process.pid, 'SIGKILL');",
        ))
        .await;
    assert!(matches!(report.verdict, Verdict::Exited { signal: Some(9), .. }), "{:?}", report.verdict);
}

#[tokio::test]
async fn garbage_in_the_channel_breaks_only_this_run() {
    let bench = Bench::new();
    let broken = [
        r#"write("\x05\x00\x00\x00\x00\xff\xfe\x80!");"#,
        r#"frame("not json");"#,
        r#"frame("{}");"#,
        r#"frame('{"settled":{"kind":"unknown"}}');"#,
        r#"frame('{"settled":{"kind":"json","value":' + '['.repeat(5000) + ']'.repeat(5000) + '}}');"#,
        r#"for (let i = 0; i < 2000; i++) frame('{"warm":1}');"#,
        r#"write("\xff\xff\xff\xff");"#,
    ];
    for bytes in broken {
        let report = bench.run(&forge(bytes, "return 'real';")).await;
        assert!(matches!(report.verdict, Verdict::BrokenChannel { .. }), "{bytes}: {:?}", report.verdict);
    }
    // Half a frame, then an exit.
    let report = bench
        .run(&forge(r#"write("\x10\x00\x00\x00{\"set");"#, "process.kill(process.pid, 'SIGKILL');"))
        .await;
    assert!(matches!(report.verdict, Verdict::Exited { signal: Some(9), .. }), "{:?}", report.verdict);
    assert_eq!(bench.json("return 2;").await, json!(2));
}

#[tokio::test]
async fn the_channel_cannot_be_opened_again_by_path() {
    let bench = Bench::new();
    let code = r#"
        const errors = [];
        for (const path of ["/dev/fd/3", "/proc/self/fd/3", "/dev/fd/4", "/proc/self/fd/4"]) {
            for (const options of [{ read: true }, { write: true }]) {
                try { Deno.openSync(path, options); errors.push("opened"); } catch (error) { errors.push(error.name); }
            }
        }
        return [...new Set(errors), (await Deno.permissions.query({ name: "read", path: "/dev/fd/3" })).state,
          (await Deno.permissions.query({ name: "write", path: "/dev/fd/4" })).state];"#;
    assert_eq!(bench.json(code).await, json!(["NotCapable", "prompt", "prompt"]));
}
