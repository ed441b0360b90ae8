//! Code asks the daemon something while it runs, and what it does to the channel spoils its own run alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conductor_pool::source::BoxFuture;
use conductor_pool::{Host, HostCalls, HostError, Job, RunReport, Settled, Verdict};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::hostile::{REALM_ATTACKS, forge};
use crate::support::{Bench, job, json as json_of, settled, unending};

/// Stored results by name: `text:` and `json:` give what follows, `together:N` waits until N calls do, `never` waits on.
struct Stored {
    asked: Arc<AtomicUsize>,
    together: Arc<Barrier>,
}

impl HostCalls for Stored {
    fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (method, together) = (method.to_owned(), self.together.clone());
        Box::pin(async move {
            let id = params["id"].as_str().unwrap_or_default();
            let of = |media_type: &str, text: &str| Ok(json!({ "media_type": media_type, "text": text }));
            match id.split_once(':').unwrap_or((id, "")) {
                ("text", text) => of("text/plain", text),
                ("json", text) => of("application/json", text),
                ("big", bytes) => of("text/plain", &"é".repeat(bytes.parse().unwrap())),
                ("together", text) => {
                    together.wait().await;
                    of("text/plain", text)
                }
                ("never", _) => std::future::pending().await,
                _ => {
                    Err(HostError { name: "NotFound".into(), ..HostError::new(format!("{method}: no {id}")) })
                }
            }
        })
    }
}

struct Asked {
    report: RunReport,
    calls: usize,
}

async fn ask(bench: &Bench, together: usize, code: &str) -> Asked {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut job = job(code);
    job.host = Some(Host::new(Stored { asked: asked.clone(), together: Arc::new(Barrier::new(together)) }));
    let report = bench.run_job(&bench.spec(), job).await;
    Asked { report, calls: asked.load(Ordering::Relaxed) }
}

/// Stored results that nobody counts.
fn stored() -> Option<Host> {
    Some(Host::new(Stored { asked: Arc::default(), together: Arc::new(Barrier::new(1)) }))
}

async fn value(bench: &Bench, code: &str) -> Value {
    json_of(ask(bench, 1, code).await.report)
}

#[tokio::test]
async fn an_answer_is_the_value_of_the_promise() {
    let bench = Bench::new();
    let code =
        r#"return [await conductor.result("text:größe"), await conductor.result('json:{"a":[1,null]}')];"#;
    assert_eq!(value(&bench, code).await, json!(["größe", { "a": [1, null] }]));
    let code = "const big = await conductor.result('big:3000000'); return [big.length, big.at(-1)];";
    assert_eq!(value(&bench, code).await, json!([3_000_000, "é"]));
}

#[tokio::test]
async fn a_failure_is_an_error_thrown_where_the_code_asked() {
    let bench = Bench::new();
    let code = "try { await conductor.result('x'); } catch (e) { return [e instanceof Error, e.name, e.message, e.stack.split('\\n')[0]]; }";
    let message = "result: no x";
    assert_eq!(value(&bench, code).await, json!([true, "NotFound", message, "NotFound: result: no x"]));
    let report = ask(&bench, 1, "1;\nawait conductor.result('x');").await.report;
    let Settled::Thrown { error } = settled(&report) else { panic!("{report:?}") };
    assert_eq!((error.name.as_str(), error.message.as_str()), ("NotFound", message));
    assert!(error.stack.lines().nth(1).unwrap().contains("conductor:main.ts:4:"), "{}", error.stack);

    let report = bench.run("await conductor.result('x');").await;
    let Settled::Thrown { error } = settled(&report) else { panic!("{report:?}") };
    assert!(error.message.contains("not available"), "{error:?}");
}

#[tokio::test]
async fn what_is_no_id_is_refused_at_once() {
    let bench = Bench::new();
    let code = "try { conductor.result({ id: 1 }); } catch (e) { return [e.name, e.message]; }";
    let Asked { report, calls } = ask(&bench, 1, code).await;
    assert_eq!(json_of(report), json!(["TypeError", "conductor.result takes the id of a result, a string"]));
    assert_eq!(calls, 0);
}

#[tokio::test]
async fn after_code_has_broken_its_channel_every_call_fails() {
    let bench = Bench::new();
    // While an answer is due, and when none is.
    for first in ["await conductor.result('text:a')", "conductor.result('never:')"] {
        let code = format!(
            "const {{ close, resources }} = Deno[Deno.internal].core;
            const told = (e) => e.message.slice(0, 32);
            const first = {first};
            close(Math.max(...Object.keys(resources())));
            const results = [await Promise.resolve(first).catch(told)];
            for (let i = 0; i < 3; i++) results.push(await conductor.result('text:b').catch(told));
            return results;"
        );
        let broken = "the channel to the daemon is bro";
        let result = if first.contains("text:a") { "a" } else { broken };
        assert_eq!(value(&bench, &code).await, json!([result, broken, broken, broken]), "{first}");
    }
}

#[tokio::test]
async fn calls_are_worked_on_at_once_and_more_of_them_in_turn() {
    let bench = Bench::new();
    let code =
        "return await Promise.all(Array.from({ length: 64 }, (_, i) => conductor.result(`together:${i}`)));";
    let together = ask(&bench, 64, code).await.report;
    assert_eq!(json_of(together), json!(Vec::from_iter((0..64).map(|i| i.to_string()))));

    let code = "const all = await Promise.all(Array.from({ length: 1000 }, (_, i) => conductor.result(`text:${i}`)));
        return all.every((text, i) => text === `${i}`) && all.length;";
    assert_eq!(value(&bench, code).await, json!(1000));
}

#[tokio::test]
async fn a_run_has_a_number_of_calls() {
    let bench = Bench::new();
    let code = "let n = 0; try { for (;; n++) await conductor.result('text:'); } catch (e) { return [n, e.name, e.message]; }";
    let Asked { report, calls } = ask(&bench, 1, code).await;
    assert_eq!(
        json_of(report),
        json!([
            10_000,
            "CallLimitError",
            "a run may make 10000 calls (`max-upstream-calls`); this was one more"
        ])
    );
    assert_eq!(calls, 10_000);
}

#[tokio::test]
async fn a_pending_call_keeps_the_run_alive_and_nothing_else_does() {
    let bench = Bench::new();
    assert_eq!(value(&bench, "return conductor.result('text:a').then((a) => a + 1);").await, json!("a1"));
    let report =
        ask(&bench, 1, "await conductor.result('text:a'); await new Promise(() => {});").await.report;
    assert!(matches!(report.verdict, Verdict::NeverSettles), "{:?}", report.verdict);

    let mut waiting = job("await conductor.result('never');");
    waiting.limits.wall = Duration::from_millis(300);
    waiting.host = stored();
    let report = bench.run_job(&bench.spec(), waiting).await;
    assert!(matches!(report.verdict, Verdict::Timeout), "{:?}", report.verdict);
    assert!(report.wall >= Duration::from_millis(300));
}

#[tokio::test]
async fn the_time_in_which_code_waits_for_answers_is_told() {
    let bench = Bench::new();
    // Waits by itself, then for two answers at once that never come, unless the machine stands still until the limit.
    let code = "await new Promise((f) => setTimeout(f, 300));
        await Promise.all([conductor.result('never'), conductor.result('never')]);";
    let mut wall = Duration::from_millis(900);
    let report = loop {
        let mut job = Job { host: stored(), ..job(code) };
        job.limits.wall = wall;
        let report = bench.run_job(&bench.spec(), job).await;
        if report.waiting > Duration::ZERO || wall > Duration::from_secs(5) {
            break report;
        }
        wall *= 2;
    };
    assert!(matches!(report.verdict, Verdict::Timeout), "{:?}", report.verdict);
    let most = report.wall - Duration::from_millis(300);
    assert!(report.waiting > Duration::ZERO && report.waiting <= most, "{:?} of {most:?}", report.waiting);
    let code = "await conductor.result('text:'); await new Promise((f) => setTimeout(f, 300));";
    let report = bench.run_job(&bench.spec(), Job { host: stored(), ..job(code) }).await;
    let most = report.wall - Duration::from_millis(300);
    assert!(report.waiting > Duration::ZERO && report.waiting <= most, "{:?} of {most:?}", report.waiting);
    assert_eq!(bench.run("return 1;").await.waiting, Duration::ZERO);
}

#[tokio::test]
async fn a_run_ends_with_calls_unanswered() {
    let bench = Bench::new();
    // After the value the run lingers for the open call, after an error it ends at once.
    let lingers = Job { host: stored(), ..unending("conductor.result('never'); return 1;") };
    let report = bench.run_job(&bench.spec(), lingers).await;
    assert!(
        matches!(&report.verdict, Verdict::Settled { settled: Settled::Json { value }, open_handles: Some(_), .. } if *value == 1),
        "{:?}",
        report.verdict
    );
    let report = ask(&bench, 1, "conductor.result('never'); throw new Error('x');").await.report;
    assert!(matches!(settled(&report), Settled::Thrown { .. }), "{:?}", report.verdict);
    assert!(report.wall < Duration::from_secs(5));
    let report = ask(&bench, 1, "conductor.result('never'); Deno.exit(3);").await.report;
    assert!(matches!(settled(&report), Settled::Exit { code: 3 }), "{:?}", report.verdict);
    // Asked in the very end, when no answer can come any more.
    let code = "addEventListener('unload', () => conductor.result('text:')); return 1;";
    assert_eq!(value(&bench, code).await, json!(1));
}

#[tokio::test]
async fn a_changed_realm_breaks_the_own_call_at_most() {
    let bench = Bench::new();
    for attack in REALM_ATTACKS {
        let code =
            format!("const c = conductor; {attack} const value = await c.result('text:told'); return value;");
        let report = ask(&bench, 1, &code).await.report;
        match &report.verdict {
            Verdict::Settled { settled: Settled::Json { value }, .. } => {
                assert_eq!(value, "told", "{attack}")
            }
            // What the attack took is what Deno's own reading or the code's own `await` needs.
            Verdict::Settled { settled: Settled::Thrown { .. }, .. }
            | Verdict::NeverSettles
            | Verdict::Exited { code: Some(1), .. } => {}
            other => panic!("{attack}: {other:?}"),
        }
    }
    assert_eq!(value(&bench, "return await conductor.result('text:fine');").await, json!("fine"));
}

#[tokio::test]
async fn polluted_prototypes_do_not_change_answers() {
    let bench = Bench::new();
    for attack in [
        "Object.prototype.error = { name: 'Lie', message: 'lie' };",
        "Object.defineProperty(Array.prototype, '0', { set() { throw 1 } });",
        "JSON.parse = () => 'lie'; JSON.stringify = () => 'lie';",
        "Map.prototype.get = Array.prototype.push = Array.prototype.shift = () => { throw 1 };",
        "Error.captureStackTrace = () => { throw 1 }; Error.prepareStackTrace = () => { throw 1 };",
    ] {
        let code = format!("{attack} return await conductor.result('text:told');");
        assert_eq!(value(&bench, &code).await, json!("told"), "{attack}");
    }
}

#[tokio::test]
async fn forged_calls_are_answered_or_break_only_their_run() {
    let bench = Bench::new();
    let call = |id: &str, method: &str| {
        format!(r#"frame('{{"call":{{"id":{id},"method":"{method}","params":{{"id":"text:"}}}}}}');"#)
    };
    // Numbers that the harness does not know, twice, and a method nobody knows.
    let frames = [call("900", "result"), call("900", "result"), call("901", "x")].concat();
    let code = forge(&frames, "return await conductor.result('text:real');");
    assert_eq!(value(&bench, &code).await, json!("real"));

    for frames in [call("-1", "result"), call("1.5", "result"), r#"frame('{"call":{"id":1}}');"#.into()] {
        let report = ask(&bench, 1, &forge(&frames, "return 1;")).await.report;
        assert!(matches!(report.verdict, Verdict::BrokenChannel { .. }), "{frames}: {:?}", report.verdict);
    }

    let never = r#"frame('{"call":{"id":1,"method":"result","params":{"id":"never"}}}');"#;
    let Asked { report, calls } =
        ask(&bench, 1, &forge(&format!("for (let i = 0; i < 100; i++) {never}"), "return 'real';")).await;
    assert_eq!((json_of(report), calls), (json!("real"), 64));
    // Nobody reads these answers, so they fill the pipe and then the daemon's patience.
    let flood = format!("for (let i = 0; i < 20000; i++) {}", call("5", "result"));
    let report = ask(&bench, 1, &forge(&flood, "return 'real';")).await.report;
    assert!(matches!(report.verdict, Verdict::BrokenChannel { .. }), "{:?}", report.verdict);
    assert_eq!(value(&bench, "return await conductor.result('text:fine');").await, json!("fine"));
}

#[tokio::test]
async fn what_the_run_provides_cannot_be_changed() {
    let bench = Bench::new();
    let mut job = job("
        const before = JSON.stringify(PERMISSIONS);
        const attempts = [
            () => { PERMISSIONS.read = true; }, () => { PERMISSIONS.read.push('/'); }, () => { PERMISSIONS.read[0] = '/'; },
            () => { delete PERMISSIONS.read; }, () => { globalThis.PERMISSIONS = {}; }, () => { delete globalThis.PERMISSIONS; },
            () => { Object.defineProperty(globalThis, 'PERMISSIONS', { value: 1 }); },
            () => { conductor.result = 1; }, () => { conductor.x = 1; }, () => { conductor.result.x = 1; },
            () => { globalThis.conductor = 1; }, () => { Object.setPrototypeOf(conductor, {}); },
        ];
        const thrown = attempts.map((attempt) => { 'use strict'; try { attempt(); return 'done'; } catch (e) { return e.name; } });
        return [PERMISSIONS, before === JSON.stringify(PERMISSIONS), new Set(thrown).size, thrown[0], conductor.version];");
    job.code.insert_str(0, "'use strict';");
    job.permissions = json!({ "read": ["/ws"], "net": true, "run": false });
    let value = json_of(bench.run_job(&bench.spec(), job.clone()).await);
    assert_eq!(value, json!([job.permissions, true, 1, "TypeError", env!("CARGO_PKG_VERSION")]));
}
