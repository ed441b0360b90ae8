//! Packages in templates, hostile ones among them: what is imported once for all forks, what is not and is told, and that no
//! package keeps workers from being made.
//!
//! The packages are modules by `data:` address: they run where those from a registry run, with the same rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_pool::{
    DenoSpawn, ForkLimits, Grants, Packages, SpawnConfig, TemplateEnd, Worker, WorkerChoice, WorkerKind,
    WorkerSource as _, WorkerSpec,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, Forks, config, job, json, only};

/// How long an import may take that never ends.
const BOOT: Duration = Duration::from_secs(8);

/// How long a test waits for a template, on a machine that is as busy as can be.
const PATIENCE: Duration = Duration::from_secs(300);

/// A source over an empty layer.
struct Layered {
    bench: Bench,
    forks: Forks,
}

impl Layered {
    fn new() -> Self {
        Self::with(Forks::limits())
    }

    fn with(limits: ForkLimits) -> Self {
        let bench = Bench::new();
        make_layer(&bench);
        let spawn = DenoSpawn::new(SpawnConfig { boot_timeout: BOOT, ..config(bench.dir.path()) });
        Self { forks: Forks::with(spawn, limits), bench }
    }

    fn spec(&self, preload: Vec<String>) -> Arc<WorkerSpec> {
        let layer = self.bench.dir.path().join("layer");
        let packages = Packages {
            deno_dir: layer.join("deno"),
            lock: layer.join("deno.lock"),
            env: Default::default(),
            allow_import: None,
            spellings: Default::default(),
            preload,
        };
        let worker = WorkerChoice::Fork;
        Arc::new(WorkerSpec { worker, packages: Some(packages), ..self.bench.spec() })
    }

    async fn fork(&self, spec: &Arc<WorkerSpec>) -> Box<dyn Worker> {
        let worker = self.forks.source.boot(Arc::clone(spec)).await.unwrap();
        assert_eq!(worker.kind(), WorkerKind::Fork, "{:?}", self.forks.source.fallback(spec));
        worker
    }

    async fn json(&self, spec: &Arc<WorkerSpec>, code: &str) -> Value {
        let (report, reaped) = self.fork(spec).await.run(job(code), None, CancellationToken::new()).await;
        reaped.await;
        json(report)
    }

    /// What of these modules is not in the template, once there is one, and why: by position.
    async fn left_out_of(&self, codes: &[&str]) -> (Arc<WorkerSpec>, Vec<String>, BTreeMap<usize, String>) {
        for round in 0.. {
            // A spec that was not there before.
            let modules: Vec<_> = codes.iter().map(|code| module(&format!("{code}\n// {round}"))).collect();
            let spec = self.spec(modules.clone());
            self.forks.source.ready(&spec).await.unwrap_or_else(|why| panic!("{codes:?}: {why}"));
            let left_out = self.forks.source.left_out(&spec);
            // A machine that is too busy for it tells nothing of the modules.
            if round < 10 && left_out.values().any(|why| why.contains("half a second")) {
                continue;
            }
            let position = |module: &String| modules.iter().position(|it| it == module).unwrap();
            let left_out = left_out.iter().map(|(module, why)| (position(module), why.clone())).collect();
            return (spec, modules, left_out);
        }
        unreachable!("the last round returns")
    }

    /// The same of one module.
    async fn left_out(&self, code: &str) -> (Arc<WorkerSpec>, String, String) {
        let (spec, mut modules, mut left_out) = self.left_out_of(&[code]).await;
        (spec, modules.remove(0), left_out.remove(&0).unwrap_or_default())
    }
}

fn make_layer(bench: &Bench) {
    let layer = bench.dir.path().join("layer");
    fs::create_dir_all(layer.join("deno")).unwrap();
    fs::write(layer.join("deno.lock"), r#"{"version":"5"}"#).unwrap();
}

/// A module of this code.
fn module(code: &str) -> String {
    let bytes = code.bytes().map(|byte| format!("%{byte:02x}"));
    format!("data:text/javascript,{}", bytes.collect::<String>())
}

fn template(worker: &dyn Worker) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", worker.identity().pid)).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Opens a descriptor by its number, as any code can.
macro_rules! adopt {
    () => {
        "import process from 'node:process';
        const { Pipe, constants } = process.binding('pipe_wrap'); const { WriteWrap } = process.binding('stream_wrap');
        const open = (fd) => { const pipe = globalThis.pipe = new Pipe(constants.SOCKET); pipe.open(fd); return pipe };"
    };
}

/// What modules try, told under `tried`.
const TRY: &str = "const tried = globalThis.tried = [];
    const attempt = async (make) => { try { await make(); tried.push('DONE ' + make) } catch (e) { tried.push(e.name) } };";

/// Attempts to do more than a worker may. Each is refused, and the module is like any other.
const REFUSED: [&str; 6] = [
    // The library, by its name, by its number, and by what Deno shows of itself.
    "for (const name of ['libc.so.6', '/proc/self/maps']) await attempt(() => Deno.dlopen(name, {}));
     await import('node:crypto');
     const { core } = Deno[Deno.internal];
     if (Object.values(core.resources()).some((name) => /library/i.test(name))) tried.push('DONE');
     for (let id = 0; id < 64; id++)
         await attempt(() => core.ops.op_ffi_call_nonblocking(id, 'conductor_fork_serve', [5], undefined));
     await attempt(() => new Deno.UnsafeFnPointer(Deno.UnsafePointer.create(4096n), { parameters: [], result: 'i32' }).call());",
    // The channel and the daemon's socket, by their paths.
    "for (const path of ['/dev/fd/', '/proc/self/fd/']) for (const fd of [3, 4, 5, 6, 7])
         for (const options of [{ read: true }, { write: true }]) await attempt(() => Deno.openSync(path + fd, options));",
    // Programs.
    "const { spawnSync, fork } = await import('node:child_process');
     await attempt(() => new Deno.Command('/bin/true').outputSync());
     await attempt(() => { if (spawnSync('/bin/true').status !== 0) throw new Error() });
     await attempt(() => new Promise((ok, no) => { const it = fork('x.js'); it.on('error', no); it.on('exit', no) }));",
    // Files of conductor and of others.
    "const path = new URL(Deno.mainModule).pathname;
     for (const target of [path, '/tmp/x', '/dev/shm/x', '/etc/x']) await attempt(() => Deno.writeTextFileSync(target, ''));
     for (const target of ['/etc/hostname', '/proc/self/environ', '/proc/1/status'])
         await attempt(() => Deno.readTextFileSync(target));",
    // The network.
    "await attempt(() => Deno.listen({ port: 0 })); await attempt(() => Deno.connect({ port: 9 }));
     await attempt(() => fetch('http://127.0.0.1:9/'));",
    // The template itself, and others.
    "const { default: process } = await import('node:process');
     await attempt(() => process.kill(process.ppid, 'SIGKILL')); await attempt(() => Deno.kill(1, 'SIGKILL'));
     await attempt(() => process.setuid(1));",
];

/// What is in the template all the same: it does nothing there that goes on.
const HARMLESS: [&str; 4] = [
    "globalThis.mark = 1; new Promise(() => {}); Promise.reject(1).catch(() => {}); Array.prototype.mine = 1;",
    "addEventListener('load', (event) => event.stopImmediatePropagation()); dispatchEvent(new Event('load')); globalThis.addEventListener = null;",
    "const { log } = console; console.log = (...args) => log(...args); const before = fetch; fetch = (...args) => before(...args);",
    "import 'node:process'; import 'node:crypto'; import 'node:fs'; import 'node:http'; process.stdout; process.on('exit', () => {});",
];

/// What all children would share, or what would go on: each imports such a package for itself.
const EACH: [(&str, &str); 14] = [
    ("export const drawn = Math.random();", "random"),
    ("export const drawn = crypto.getRandomValues(new Uint8Array(8)).join();", "random"),
    ("const { randomUUID } = Crypto.prototype; export const drawn = randomUUID.call(crypto);", "random"),
    ("import { randomBytes } from 'node:crypto'; export const drawn = randomBytes(8).join();", "random"),
    ("import { randomFillSync } from 'node:crypto'; export const drawn = randomFillSync(new Uint8Array(8)).join();", "random"),
    ("import { randomInt } from 'node:crypto'; export const drawn = randomInt(2 ** 40);", "random"),
    ("import { generateKeyPairSync } from 'node:crypto'; export const drawn = generateKeyPairSync('ed25519',
        { publicKeyEncoding: { type: 'spki', format: 'pem' } }).publicKey;", "random"),
    ("const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt']);
        export const drawn = new Uint8Array(await crypto.subtle.exportKey('raw', key)).join();", "random"),
    ("setInterval(() => {}, 1000);", "timer"),
    ("import { setTimeout } from 'node:timers'; setTimeout(() => {}, 1000).unref();", "timer"),
    ("import { setImmediate } from 'node:timers'; const again = () => setImmediate(again); again();", "timer"),
    ("new BroadcastChannel('x');", "open"),
    ("globalThis.worker = new Worker(URL.createObjectURL(new Blob(['setInterval(() => {}, 1000)'])), { type: 'module' });", "goes on"),
    ("import { scrypt } from 'node:crypto'; scrypt('a', 'b', 64, { N: 2 ** 15, maxmem: 2 ** 28 }, () => {});", "goes on"),
];

/// What spoils whoever imports it: workers are forked without it.
const NEVER: [(&str, &str); 20] = [
    ("throw new Error('no');", "cannot be imported"),
    ("import 'npm:nope@1';", "cannot be imported"),
    ("for (;;);", "does not come to an end"),
    ("export function then() {}", "ends the process"),
    ("await new Promise(() => setInterval(() => {}, 1000));", "does not come to an end"),
    ("await new Promise(() => {});", "ends the process"),
    ("Deno.exit(0);", "ends the process"),
    ("import process from 'node:process'; process.reallyExit(0);", "ends the process"),
    ("import process from 'node:process'; process.kill(process.pid, 'SIGKILL');", "ends the process"),
    ("Promise.reject(new Error('nobody catches it'));", "ends the process"),
    ("const all = []; for (;;) all.push(new Array(1e6).fill({}));", "its import "),
    ("for (let i = 0; i < 1e4; i++) console.log('x'.repeat(100));", "does not come to an end"),
    ("Math.random = () => 4;", "self-test"),
    ("for (const name of ['pid', 'ppid']) Object.defineProperty(Deno, name, { get: () => { throw new Error() } });", "self-test"),
    ("Crypto.prototype.getRandomValues = (array) => array.fill(7);", "self-test"),
    // The socket by which the template is asked to fork: a packet of its own, the daemon's packets, and the word of the worker.
    (concat!(adopt!(), "open(5).writeLatin1String(new WriteWrap(), '\\x01');"), ""),
    (concat!(adopt!(), "const pipe = open(5); pipe.onread = () => {}; pipe.readStart();"), ""),
    (concat!(adopt!(), "const pipe = open(4); const write = (text) => pipe.writeLatin1String(new WriteWrap(),
        String.fromCharCode(text.length, 0, 0, 0) + text);
        write('{\"unfit\":{\"index\":7,\"why\":\"random\"}}'); write('{\"ready\":{\"drawn\":1}}'); for (;;);"), ""),
    ("Promise.prototype.then = function () { return new Promise(() => {}) };
        for (const owner of [Function, Map, Set, Array, Object, TextEncoder, TextDecoder, Event, EventTarget])
            for (const name of Object.getOwnPropertyNames(owner.prototype))
                try { if (name !== 'constructor') owner.prototype[name] = () => { throw new Error(name) } } catch {}", ""),
    ("const thrower = { get() { throw new Error('get') }, set() { throw new Error('set') }, configurable: true };
        for (const name of ['value', 'get', 'set', 'writable', 'then', 'run', 'code', 'index', 'why', 'drawn', 'ready', '0', '1'])
            Object.defineProperty(Object.prototype, name, thrower);
        JSON.parse = JSON.stringify = structuredClone = queueMicrotask = setTimeout = clearTimeout = () => { throw new Error() };
        Array.prototype[Symbol.iterator] = String.prototype[Symbol.iterator] = () => { throw new Error() };
        TextEncoder = TextDecoder = Promise = Uint8Array = Proxy = undefined;", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_package_in_a_template_may_do_what_a_worker_may_and_nothing_else() {
    let layered = Layered::new();
    let refused = join_all(REFUSED.map(async |attempts| {
        let (spec, _, why) = layered.left_out(&format!("{TRY}{attempts}")).await;
        assert_eq!(why, "", "{attempts}");
        let tried = layered.json(&spec, "return tried;").await;
        let tried = tried.as_array().unwrap();
        let done = |it: &&Value| it.as_str().unwrap().starts_with("DONE");
        assert!(!tried.is_empty() && !tried.iter().any(|it| done(&it)), "{attempts}: {tried:?}");
    }));
    let harmless = join_all(HARMLESS.map(async |code| {
        let (spec, _, why) = layered.left_out(code).await;
        assert_eq!(why, "", "{code}");
        let works = "setTimeout(() => console.log('late'), 1); const { default: process } = await import('node:process');
            return [await Promise.resolve(1), process.pid === (await import('node:process')).pid];";
        assert_eq!(layered.json(&spec, works).await, json!([1, true]), "{code}");
    }));
    tokio::join!(refused, harmless);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forks_must_not_share_each_of_them_imports_and_that_is_told() {
    let layered = Layered::new();
    join_all(EACH.map(async |(code, expected)| {
        let (spec, module, why) = layered.left_out(code).await;
        assert!(why.contains(expected), "{code}: {why}");
        if expected != "random" {
            assert_eq!(layered.json(&spec, "return 1;").await, 1, "{code}");
            return;
        }
        let mut seen = BTreeSet::new();
        let look = format!("return (await import({module:?})).drawn;");
        for _ in 0..20 {
            let drawn = layered.json(&spec, &look).await;
            assert!(seen.insert(drawn.to_string()), "{code}: {drawn} was drawn twice");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_spoils_its_importer_costs_no_fork() {
    let layered = Layered::new();
    let alone = join_all(NEVER.map(async |(code, expected)| {
        let (spec, _, why) = layered.left_out(code).await;
        assert!(!why.is_empty() && why.contains(expected), "{code}: {why}");
        assert!(why.len() < 1000, "short enough for a status: {why}");
        assert_eq!(layered.json(&spec, "return Math.random() !== Math.random();").await, true, "{code}");
    }));
    // Of several, those at fault go, and the others stay.
    let several = async {
        let codes = [
            "globalThis.innocent = 1;",
            "Math.random();",
            "Deno.exit(0);",
            "globalThis.other = 2;",
            "for (;;);",
        ];
        let (spec, _, left_out) = layered.left_out_of(&codes).await;
        assert_eq!(left_out.keys().copied().collect::<Vec<_>>(), [1, 2, 4], "{left_out:?}");
        assert_eq!(layered.json(&spec, "return [innocent, other];").await, json!([1, 2]));
    };
    tokio::join!(alone, several);
}

#[tokio::test]
async fn a_package_for_which_there_was_no_time_is_in_the_next_template() {
    let second = Duration::from_secs(1);
    let layered = Layered::with(ForkLimits { retry_after: second, round: second, ..Forks::limits() });
    let busy = layered.bench.dir.path().join("busy").to_string_lossy().into_owned();
    fs::write(&busy, "700").unwrap();
    let slow = module(&format!(
        "let until = 0; try {{ until = Date.now() + Number(Deno.readTextFileSync('{busy}')); }} catch {{}}
         while (Date.now() < until) await Deno.stat('{busy}');"
    ));
    let grants = Grants { read: only(&busy), ..Grants::default() };
    let spec = Arc::new(WorkerSpec { grants, ..(*layered.spec(vec![slow.clone()])).clone() });
    let source = &layered.forks.source;
    source.ready(&spec).await.unwrap();
    let left_out = source.left_out(&spec);
    assert!(left_out[&slow].contains("half a second"), "{left_out:?}");

    fs::remove_file(&busy).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !source.left_out(&spec).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", source.templates(&spec));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = source.templates(&spec).unwrap().totals.ended;
    assert!(ended.keys().eq([&TemplateEnd::Hurried]), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_layer_or_other_packages_have_another_template() {
    let layered = Layered::new();
    let marked = |text: &str| layered.spec(vec![module(&format!("globalThis.mark = {text:?};"))]);
    let (one, other) = (marked("one"), marked("other"));
    let ready = [&one, &other].map(|spec| layered.forks.source.ready(spec));
    assert!(join_all(ready).await.iter().all(Result::is_ok));
    assert_eq!(layered.json(&one, "return mark;").await, "one");
    assert_eq!(layered.json(&other, "return mark;").await, "other");
    let old = layered.fork(&one).await;
    let before = template(&*old);
    assert_ne!(before, template(&*layered.fork(&other).await));

    // The layer is made anew in its place: what is there serves no more, and its forks end with what they began with.
    fs::remove_dir_all(layered.bench.dir.path().join("layer")).unwrap();
    make_layer(&layered.bench);
    let next = layered.forks.source.boot(Arc::clone(&one)).await.unwrap();
    assert_eq!(next.kind(), WorkerKind::Spawn, "until there is a template of the new layer");
    layered.forks.source.ready(&one).await.unwrap();
    assert_ne!(template(&*layered.fork(&one).await), before);
    assert_eq!(layered.json(&one, "return mark;").await, "one");
    let (report, reaped) = old.run(job("return mark;"), None, CancellationToken::new()).await;
    reaped.await;
    assert_eq!(json(report), "one");
    let gone =
        || fs::read_to_string(format!("/proc/{before}/stat")).map_or(true, |stat| stat.contains(") Z "));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "the template of the old layer outlives its last fork");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_keeps_started_workers_from_booting_is_not_preloaded() {
    let layered = Layered::new();
    let spawn = DenoSpawn::new(SpawnConfig { boot_timeout: BOOT, ..config(layered.bench.dir.path()) });
    join_all(["for (;;);", "Deno.exit(0);", "dispatchEvent = addEventListener = null; await 1;"].map(
        async |code| {
            let spec = layered.spec(vec![module(code)]);
            let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Spawn, ..(*spec).clone() });
            for _ in 0..2 {
                let worker = spawn.boot(Arc::clone(&spec)).await.unwrap();
                let (report, reaped) = worker.run(job("return 1;"), None, CancellationToken::new()).await;
                reaped.await;
                assert_eq!(json(report), 1, "{code}");
            }
            let why = spawn.left_out(&spec);
            let expected = if code.contains("await") { 0 } else { 1 };
            assert_eq!(why.len(), expected, "{code}: {why:?}");
            assert!(why.values().all(|why| why.contains("does not boot")), "{why:?}");
        },
    ))
    .await;
}
