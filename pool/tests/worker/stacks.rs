//! Stacks that code sees hold its own frames and Deno's: nothing of the program it runs in, wherever it looks.

use conductor_pool::source::BoxFuture;
use conductor_pool::{Host, HostCalls, HostError, RunReport, USER_SCRIPT_URL};
use serde_json::{Value, json};

use crate::support::{Bench, job};

/// Answers `json:` with an object; everything else fails.
struct Answers;

impl HostCalls for Answers {
    fn call(&self, _method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
        let answer = match params["id"].as_str() {
            Some("json:") => Ok(json!({ "media_type": "application/json", "text": "{}" })),
            _ => Err(HostError::new("nothing")),
        };
        Box::pin(std::future::ready(answer))
    }
}

async fn run(bench: &Bench, code: &str) -> RunReport {
    let mut job =
        job(&format!("const stack = (name) => console.log(name + '!', new Error('here').stack);\n{code}"));
    job.host = Some(Host::new(Answers));
    job.upstreams = Some(vec!["up".to_owned()]);
    bench.run_job(&bench.spec(), job).await
}

/// What the run printed and what it came to, none of which may name the program around the code.
async fn output(bench: &Bench, code: &str) -> String {
    let report = run(bench, code).await;
    let text = [&report.stdout[..], &report.stderr].concat();
    let output = String::from_utf8(text).unwrap();
    let told = format!("{output}\n{:?}", report.verdict);
    for own in ["harness", bench.dir.path().join("cache").to_str().unwrap()] {
        assert!(!told.contains(own), "{code}: {own} in {told}");
    }
    assert!(output.contains("Error: here") || output.contains("told: "), "{code} printed nothing: {told}");
    output
}

#[tokio::test]
async fn own_stacks_show_the_code_alone() {
    let bench = Bench::new();
    for (code, frames) in [
        ("stack('sync')", 2),
        ("await null; stack('async')", 2),
        ("(function f() { stack('called') })()", 3),
        ("(async () => { await 1; stack('awaited') })()", 2),
        ("await (async () => { await 1; stack('async frames') })()", 3),
        ("await Promise.all([1].map(async () => { await 1; stack('all') }))", 3),
        ("await Promise.resolve().then(() => stack('then'))", 3),
        ("queueMicrotask(() => stack('microtask'))", 2),
        ("setTimeout(() => stack('timer'), 1)", 2),
        ("await new Promise((f) => setTimeout(f, 1)); stack('after a timer')", 2),
        ("for await (const x of (async function* () { stack('generator'); yield 1 })()) stack('loop')", 5),
        ("[1].forEach(() => stack('callback'))", 3),
        ("console.log({ [Symbol.for('Deno.customInspect')]() { stack('console'); return '' } })", 3),
        ("addEventListener('x', () => stack('event')); dispatchEvent(new Event('x'))", 3),
        ("console.trace('Error: here')", 1),
        ("try { null.x } catch (e) { console.log(e, 'told: ') }", 1),
        (
            "addEventListener('error', (e) => { e.preventDefault(); stack('error event') }); setTimeout(() => { throw 1 }, 1)",
            2,
        ),
        (
            "addEventListener('unhandledrejection', (e) => { e.preventDefault(); stack('rejection event') }); Promise.reject(1)",
            2,
        ),
    ] {
        let output = output(&bench, code).await;
        let shown = output.matches(USER_SCRIPT_URL).count();
        assert_eq!(shown, frames, "{code}: {output}");
    }
}

#[tokio::test]
async fn what_conductor_throws_has_the_stack_of_its_caller() {
    let bench = Bench::new();
    for failing in [
        "conductor.image(5)",
        "conductor.file('a', { mimeType: 'x' })",
        "conductor.file('a', { get name() { stack('getter') } })",
        "conductor.result(5)",
        "await conductor.result('x')",
        "await mcp.up.tool()",
        "await mcp.up.tool({ toJSON() { throw new Error('x') } })",
        "await mcp.up.tool({}, { get timeout() { throw new Error('x') } })",
        "await mcpFactory.load({ toString() { throw new Error('x') } })",
        "await mcpFactory.listServers()",
        "throw new McpToolError('x')",
        "api.meta.resolve('http://')",
        "await api.import({ toString() { throw new Error('x') } })",
        "await api.import('no-package')",
        "const { buffer } = new Uint8Array(1); structuredClone(buffer, { transfer: [buffer] }); conductor.image(buffer)",
        "(function deep() { try { deep() } catch { conductor.image(5) } })()",
    ] {
        let code = format!("try {{ {failing}; }} catch (e) {{ console.log('told: ', e.stack); }}");
        let output = output(&bench, &code).await;
        assert!(output.contains(USER_SCRIPT_URL), "{failing}: {output}");
    }
}

#[tokio::test]
async fn code_that_is_called_back_sees_nothing_of_its_caller() {
    let bench = Bench::new();
    let inspected = "{ [Symbol.for('Deno.customInspect')]() { stack('inspected'); return '' } }";
    for code in [
        &format!("return {inspected};"),
        &format!("throw {inspected};"),
        "return new (class { get [Symbol.toStringTag]() { stack('tag'); return 'x' } })();",
        "return Object.create(new Proxy({}, { getPrototypeOf() { stack('trap'); return null } }));",
        "const e = new Error('x'); Object.defineProperty(e, 'message', { get() { stack('getter'); return '' } }); throw e;",
        "setTimeout(() => { throw { get x() { stack('late'); return 1 }, [Symbol.for('Deno.customInspect')]() { stack('late') } } }, 1);",
        "addEventListener('unload', () => stack('unload')); Deno.exit(1);",
        "process.on('exit', () => stack('exit')); process.exit(1);",
        "mcp.up.tool({ toJSON() { stack('toJSON') } }).catch(() => {});",
        "mcpFactory.load({ toString() { stack('name'); return 'up' } }).catch(() => {});",
        "api.import({ toString() { stack('specifier'); return 'node:fs' } });",
        "api.import('node:fs', { get with() { stack('options') } });",
        "api.meta.resolve({ toString() { stack('specifier'); return './x' } });",
        "Object.defineProperty(Object.prototype, 'then', { get() { stack('then') } }); await conductor.result('json:');",
        "process.getActiveResourcesInfo = () => { stack('resources'); return [] }; setTimeout(() => {}, 200); return 1;",
    ] {
        output(&bench, code).await;
    }
}

#[tokio::test]
async fn the_main_module_is_the_code() {
    let bench = Bench::new();
    let main = bench.workspace().join("main.ts");
    let value = bench.json("return [Deno.mainModule === api.meta.url, process.argv[1]];").await;
    assert_eq!(value, json!([true, main]));
}

#[tokio::test]
async fn a_returned_error_and_call_sites_show_the_code_alone() {
    let bench = Bench::new();
    output(&bench, "console.log('told: '); return new Error('returned');").await;
    let sites = "Error.prepareStackTrace = (_, sites) => sites.map((site) => `${site.getFileName()} ${site.getFunctionName()} ${site}`).join();
        console.log('told: ', new Error('here').stack); await null; console.log(new Error('here').stack);";
    output(&bench, sites).await;
    // What is hidden while code is called back is there again afterwards, as the code has set it.
    let limits = "Error.stackTraceLimit = 3; conductor.image(new Blob(['x'], { type: 'image/x' })); api.meta.resolve('./x');
        console.log('told: ', Error.stackTraceLimit, Object.keys(Object.getOwnPropertyDescriptor(Error, 'stackTraceLimit')));
        delete Error.stackTraceLimit; api.meta.resolve({ toString: () => './x' }); console.log('stackTraceLimit' in Error);";
    let told = output(&bench, limits).await;
    assert_eq!(told.lines().next_back(), Some("false"), "{told}");
    assert!(told.starts_with("told:  3 "), "{told}");
}
