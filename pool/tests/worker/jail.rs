//! The kernel's part of a worker's walls: what code cannot do even where Deno would let it, or no longer controls it.
//!
//! Native code, loaded under an `ffi` grant, stands for code that has taken the process over. What every system call does
//! in the jail, `conductor-jail`'s probes show; here it is a real Deno, with the jail that the spec's grants make.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use conductor_jail::{Layer, Level};
use conductor_pool::{DenoSpawn, Grant, Grants, Settled, SpawnConfig, WorkerSpec};
use serde_json::{Value, json};

use crate::support::{Bench, config, job, json as json_of, only, settled};

/// Calls into the C library: `open(path)`, `socket(family)`, `connect(port)`, `kill(pid)`; each gives -1 if refused, else 0.
const NATIVE: &str = r#"
    const { symbols: c } = Deno.dlopen("libc.so.6", {
        open: { parameters: ["buffer", "i32"], result: "i32" },
        socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
        connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
        kill: { parameters: ["i32", "i32"], result: "i32" },
        getppid: { parameters: [], result: "i32" },
    });
    const done = (result) => result < 0 ? -1 : 0;
    const open = (path) => done(c.open(new TextEncoder().encode(path + "\0"), 0));
    const socket = (family) => done(c.socket(family, 1, 0));
    const connect = (port) => done(c.connect(c.socket(2, 1, 0),
        new Uint8Array([2, 0, port >> 8, port & 255, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 16));
    const kill = () => done(c.kill(c.getppid(), 0));
"#;

fn native(code: &str) -> String {
    format!("{NATIVE}\n{code}")
}

impl Bench {
    fn with(layers: impl IntoIterator<Item = Layer>, level: Level) -> Self {
        let mut bench = Self::new();
        let config = config(bench.dir.path());
        bench.source = DenoSpawn::new(SpawnConfig { level, layers: layers.into_iter().collect(), ..config });
        bench
    }

    /// A file that no grant of these tests covers.
    fn secret(&self) -> String {
        let directory = self.dir.path().join("outside");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("secret");
        std::fs::write(&path, "secret").unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn but(left_out: Layer) -> BTreeSet<Layer> {
    Layer::DEFAULT.into_iter().filter(|layer| *layer != left_out).collect()
}

fn ffi() -> Grants {
    Grants { ffi: Grant::All, ..Grants::default() }
}

#[tokio::test]
async fn native_code_is_in_the_jail_too_and_each_layer_carries_its_part() {
    let closed = json!({ "passwd": -1, "secret": -1, "library": 0, "inet": -1, "unix": -1, "kill": -1 });
    let with = |changes: &[(&str, i32)]| {
        let mut expected = closed.clone();
        for (key, value) in changes {
            expected[*key] = json!(value);
        }
        expected
    };
    let table = [
        (Layer::DEFAULT.into(), closed.clone()),
        (but(Layer::Landlock), with(&[("passwd", 0), ("secret", 0)])),
        // Landlock goes on keeping it from signals.
        (but(Layer::Seccomp), with(&[("inet", 0), ("unix", 0)])),
        (BTreeSet::new(), with(&[("passwd", 0), ("secret", 0), ("inet", 0), ("unix", 0), ("kill", 0)])),
    ];
    for (layers, expected) in table {
        let bench = Bench::with(layers.clone(), Level::BestEffort);
        let code = native(&format!(
            "return {{ passwd: open('/etc/passwd'), secret: open('{}'), library: open('/etc/ld.so.cache'), inet: socket(2),
               unix: socket(1), kill: kill() }};",
            bench.secret()
        ));
        assert_eq!(json_of(bench.run_with(ffi(), &code).await), expected, "{layers:?}");
    }
}

#[tokio::test]
async fn a_link_out_of_a_granted_directory_leads_nowhere() {
    // Deno follows it: the second row shows that it is the kernel that does not.
    for (layers, expected) in
        [(Layer::DEFAULT.into(), json!("PermissionDenied")), (but(Layer::Landlock), json!("secret"))]
    {
        let bench = Bench::with(layers, Level::BestEffort);
        let workspace = bench.workspace();
        std::os::unix::fs::symlink(bench.secret(), workspace.join("link")).unwrap();
        let code = format!(
            "try {{ return Deno.readTextFileSync('{}/link') }} catch (error) {{ return error.name }}",
            workspace.display()
        );
        let grants = Grants { read: only(workspace.to_str().unwrap()), ..Grants::default() };
        assert_eq!(json_of(bench.run_with(grants, &code).await), expected);
    }
}

#[tokio::test]
async fn protected_directories_are_closed_to_native_code_under_any_grant() {
    let bench = Bench::new();
    let protected = Path::new(&bench.secret()).parent().unwrap().to_owned();
    let beside = bench.workspace().join("file");
    std::fs::write(&beside, "text").unwrap();
    let code = native(&format!(
        "return [open('{}/secret'), open('{}'), open('/etc/passwd')];",
        protected.display(),
        beside.display()
    ));
    for read in [Grant::All, only("/"), only(bench.dir.path().to_str().unwrap())] {
        let everything = !matches!(&read, Grant::Only(paths) if !paths.contains("/"));
        let spec = WorkerSpec {
            protected: [protected.clone()].into(),
            grants: Grants { read: read.clone(), ..ffi() },
            ..bench.spec()
        };
        let value = json_of(bench.run_job(&spec, job(&code)).await);
        assert_eq!(value, json!([-1, 0, if everything { 0 } else { -1 }]), "{read:?}");
    }
}

#[tokio::test]
async fn a_write_grant_covers_its_directory_and_nothing_else() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    let secret = bench.secret();
    std::os::unix::fs::symlink(&secret, workspace.join("link")).unwrap();
    let code = format!(
        "const attempt = (f) => {{ try {{ f(); return true }} catch (error) {{ return error.name }} }};
         const ws = '{}';
         return [attempt(() => Deno.writeTextFileSync(ws + '/new', 'text')), attempt(() => Deno.mkdirSync(ws + '/a/b', {{ recursive: true }})),
           attempt(() => Deno.renameSync(ws + '/new', ws + '/a/b/moved')), attempt(() => Deno.truncateSync(ws + '/a/b/moved', 1)),
           attempt(() => Deno.chmodSync(ws + '/a/b/moved', 0o600)), attempt(() => Deno.removeSync(ws + '/a', {{ recursive: true }})),
           attempt(() => Deno.writeTextFileSync(ws + '/link', 'changed'))];",
        workspace.display()
    );
    let paths = only(workspace.to_str().unwrap());
    let grants = Grants { read: paths.clone(), write: paths, ..Grants::default() };
    let value = json_of(bench.run_with(grants, &code).await);
    assert_eq!(value, json!([true, true, true, true, true, true, "PermissionDenied"]));
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "secret");
}

#[tokio::test]
async fn granted_ports_work_and_others_do_not_even_for_native_code() {
    let bench = Bench::new();
    let [open, closed] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let code = native(&format!(
        "const by = async (hostname) => {{
             try {{ (await Deno.connect({{ hostname, port: {open} }})).close(); return 0 }} catch (error) {{ return error.message }}
         }};
         return [await by('127.0.0.1'), await by('localhost'), connect({open}), connect({closed}), socket(1), socket(16)];",
        open = port(&open),
        closed = port(&closed),
    ));
    let hosts = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", port(&open)));
    let grants = Grants { net: Grant::Only(hosts.into()), ..ffi() };
    let value = json_of(bench.run_with(grants.clone(), &code).await);
    assert_eq!(value, json!([0, 0, 0, -1, -1, -1]));
    let any = Grants { net: Grant::All, ..grants };
    assert_eq!(json_of(bench.run_with(any, &code).await), json!([0, 0, 0, 0, -1, -1]));
}

#[tokio::test]
async fn granted_programs_run_inside_the_workers_jail() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    std::fs::write(workspace.join("file"), "text").unwrap();
    let code = format!(
        "const cat = (path) => new TextDecoder().decode(new Deno.Command('/bin/cat', {{ args: [path] }}).outputSync().stdout);
         return [cat('{}/file'), cat('{}')];",
        workspace.display(),
        bench.secret(),
    );
    let grants =
        Grants { run: only("/bin/cat"), read: only(workspace.to_str().unwrap()), ..Grants::default() };
    assert_eq!(json_of(bench.run_with(grants, &code).await), json!(["text", ""]));
}

/// What scripts use of Deno that reaches for the system in its own ways.
const EVERYDAY: &str = r#"
    const zlib = await import("node:zlib");
    const { createHash } = await import("node:crypto");
    const { DatabaseSync } = await import("node:sqlite");
    const worker = new Worker("data:text/javascript,postMessage(6 * 7)", { type: "module" });
    const answer = await new Promise((resolve) => { worker.onmessage = (event) => resolve(event.data); });
    worker.terminate();
    await new Promise((resolve) => setTimeout(resolve, 1));
    const database = new DatabaseSync(":memory:");
    const digest = await crypto.subtle.digest("SHA-256", new Uint8Array(1));
    return [answer, zlib.gunzipSync(zlib.gzipSync("text")).toString(), createHash("md5").update("").digest("hex"),
        database.prepare("select 1 + 1 as two").get().two, digest.byteLength, crypto.randomUUID().length,
        new Intl.DateTimeFormat("de", { timeZone: "Europe/Berlin" }).format(new Date(0)), typeof WebAssembly];"#;

fn everyday(web_assembly: &str) -> Value {
    json!([42, "text", "d41d8cd98f00b204e9800998ecf8427e", 2, 32, 36, "1.1.1970", web_assembly])
}

#[tokio::test]
async fn scripts_find_what_they_need_at_the_strict_level() {
    let bench = Bench::with(Layer::DEFAULT, Level::Strict);
    let report = bench.run(EVERYDAY).await;
    assert!(matches!(settled(&report), Settled::Json { .. }), "{:?}", report.verdict);
    assert_eq!(json_of(report), everyday("object"));
}

#[tokio::test]
async fn a_worker_without_v8s_compiler_can_make_no_code() {
    let bench = Bench::with(Layer::ALL, Level::Strict);
    assert_eq!(json_of(bench.run(EVERYDAY).await), everyday("undefined"));
}

/// Each isolate reserves memory for code that it may never have, and the limit counts that.
#[tokio::test]
async fn four_web_workers_fit_beside_the_code_and_many_do_not() {
    let bench = Bench::new();
    let code = |count: usize| {
        format!(
            "const code = 'const all = []; for (let n = 0; n < 1e5; n++) all.push({{ n }}); postMessage(all.length)';
             const url = URL.createObjectURL(new Blob([code], {{ type: 'text/javascript' }}));
             const make = () => new Promise((done) => new Worker(url, {{ type: 'module' }}).onmessage = (event) => done(event.data));
             const answers = await Promise.all(Array.from({{ length: {count} }}, make));
             return answers.every((answer) => answer === 1e5);"
        )
    };
    for heap_mib in [256, 64] {
        let max_memory_mib = WorkerSpec::memory_for_heap(heap_mib);
        let spec = WorkerSpec { heap_mib, max_memory_mib, ..bench.spec() };
        let mut job = job(&code(4));
        job.limits.linger = std::time::Duration::from_millis(50);
        assert_eq!(json_of(bench.run_job(&spec, job).await), json!(true), "{heap_mib} MiB");
    }
    let report = bench.run(&code(64)).await;
    assert!(
        matches!(report.verdict, conductor_pool::Verdict::Exited { out_of_memory: true, .. }),
        "{:?}",
        report.verdict
    );
}

#[test]
fn the_launcher_can_prove_its_jail() {
    let launcher = config(Path::new("/nonexistent")).launcher;
    let test = conductor_jail::probe::self_test(&launcher, Layer::DEFAULT).unwrap();
    assert_eq!(test.broken(), Vec::<String>::new());
}
