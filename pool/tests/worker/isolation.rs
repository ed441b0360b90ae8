//! What the launcher takes away is gone, and nothing a worker does is left for the next one.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_pool::{Grants, SpawnError, Verdict, WorkerKind, WorkerSpec};
use serde_json::json;

use crate::support::{Bench, chain, job, json as json_of, only};

/// The uid of `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_worker_has_no_capabilities_and_cannot_gain_any() {
    let bench = Bench::new();
    let spec = WorkerSpec { grants: Grants { all: true, ..Grants::default() }, ..bench.spec() };
    let status =
        json_of(bench.run_job(&spec, job("return Deno.readTextFileSync('/proc/self/status');")).await);
    let status: BTreeMap<&str, &str> =
        status.as_str().unwrap().lines().filter_map(|line| line.split_once(":\t")).collect();
    let mut sets = vec!["CapInh", "CapPrm", "CapEff", "CapAmb"];
    if rustix::process::geteuid().is_root() {
        sets.push("CapBnd");
    }
    for set in sets {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((status["NoNewPrivs"], status["Umask"]), ("1", "0077"));
}

#[tokio::test]
async fn limits_descriptors_and_session_are_the_launchers() {
    let bench = Bench::new();
    let spec = WorkerSpec { grants: Grants { all: true, ..Grants::default() }, ..bench.spec() };
    // A descriptor that is inherited unless somebody closes it.
    let leaked = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let code = r#"
        const links = [];
        for (const { name } of Deno.readDirSync("/proc/self/fd")) {
            try { links.push([Number(name), Deno.readLinkSync(`/proc/self/fd/${name}`)]) } catch {}
        }
        const stat = Deno.readTextFileSync("/proc/self/stat").split(") ")[1].split(" ");
        const limits = Deno.readTextFileSync("/proc/self/limits");
        return { links, pid: Deno.pid, group: Number(stat[2]), session: Number(stat[3]),
          core: /Max core file size +1 +1/.test(limits), files: /Max open files +1024 +1024/.test(limits),
          oom: Deno.readTextFileSync("/proc/self/oom_score_adj").trim() };"#;
    let value = json_of(bench.run_job(&spec, job(code)).await);
    drop(leaked);
    assert_eq!(value["group"], value["pid"]);
    assert_eq!(value["session"], value["pid"]);
    assert_eq!(
        (&value["core"], &value["files"], &value["oom"]),
        (&json!(true), &json!(true), &json!("1000"))
    );
    let links: Vec<(i32, String)> = serde_json::from_value(value["links"].clone()).unwrap();
    assert!(!links.iter().any(|(_, target)| target == "/dev/zero"), "{links:?}");
    let first: Vec<&str> =
        links.iter().filter(|(fd, _)| *fd < 5).map(|(_, target)| target.as_str()).collect();
    assert_eq!(first[0], "/dev/null");
    assert!(first[1..].iter().all(|target| target.starts_with("pipe:")) && first.len() == 5, "{first:?}");

    let narrow = "return Array.from({ length: 200 }, () => { try { process.binding('pipe_wrap'); return 1 } catch { return 0 } }).length;";
    assert_eq!(bench.json(narrow).await, json!(200));
}

#[tokio::test]
async fn files_cannot_grow_without_a_write_grant() {
    let bench = Bench::new();
    let write = Grants { write: only(bench.workspace().to_str().unwrap()), ..Grants::default() };
    let largest = (4_u64 << 30).to_string();
    for (grants, expected) in [(Grants::default(), ("0", "128")), (write, (largest.as_str(), "128"))] {
        let worker = bench.boot(&WorkerSpec { grants, ..bench.spec() }).await.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.identity().pid)).unwrap();
        worker.retire().await;
        let soft = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!((soft("Max file size").as_str(), soft("Max open files").as_str()), expected);
    }
}

/// Tries everything known that leaves something behind without any permission.
const LEAVE_TRACES: &str = r#"
    const found = [];
    const attempt = (name, f) => { try { if (f() === true) found.push(name); } catch {} };
    attempt("localStorage", () => localStorage.getItem("trace") === "1");
    attempt("global", () => globalThis.trace === 1);
    attempt("prototype", () => Object.prototype.trace === 1);
    attempt("env", () => process.env.TRACE === "1");
    try { if ((await (await caches.open("trace")).match("https://trace.invalid/"))) found.push("caches"); } catch {}
    attempt("w", () => { globalThis.trace = 1; });
    attempt("w", () => { Object.defineProperty(Object.prototype, "trace", { value: 1 }); });
    attempt("w", () => { process.env.TRACE = "1"; });
    attempt("w", () => { localStorage.setItem("trace", "1"); });
    try { await (await caches.open("trace")).put("https://trace.invalid/", new Response("x")); } catch {}
    try { await import("data:application/typescript,export const a: number = 1"); } catch {}
    // Adopts every descriptor of the process, also those of Deno's own databases, and writes: a frame that means
    // nothing, so that the daemon does not end this run when its own channel is hit.
    // Before what may end the process.
    console.log(JSON.stringify({ found }));
    const { Pipe, constants } = process.binding("pipe_wrap");
    const { WriteWrap } = process.binding("stream_wrap");
    let adopted = 0;
    for (let fd = 5; fd < 64; fd++) {
        attempt("w", () => {
            const pipe = new Pipe(constants.SOCKET);
            if (pipe.open(fd) !== 0) return;
            adopted++;
            try { pipe.fchmod(3); } catch {}
            const request = new WriteWrap();
            request.oncomplete = () => {};
            pipe.writeLatin1String(request, "\x0a\0\0\0{\"warm\":1}");
        });
    }
    console.log(JSON.stringify({ adopted }));
    await new Promise((f) => setTimeout(f, 50));
    Deno.exit(0);"#;

/// Path, mode and content of everything below a directory.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        files.insert(path, (meta.mode(), content));
    }
    files
}

#[tokio::test]
async fn nothing_a_worker_does_reaches_the_next_one() {
    let bench = Bench::new();
    assert_eq!(bench.json("return 1;").await, json!(1));
    let cache = bench.dir.path().join("cache");
    let before = snapshot(&cache);
    let databases = before.keys().filter(|path| path.to_string_lossy().contains("analysis_cache")).count();
    assert!(databases > 0, "the rehearsal has filled no cache: {:?}", before.keys());
    for round in 0..3 {
        let report = bench.run(LEAVE_TRACES).await;
        let stdout = String::from_utf8_lossy(&report.stdout);
        // It has adopted its own output, too, and written there.
        let printed = |key: &str| {
            let line = stdout[stdout.find(key)?..].lines().next()?;
            serde_json::from_str::<serde_json::Value>(line).ok()
        };
        let found = printed("{\"found").unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!(found["found"], json!([]), "round {round}");
        // Deno's thread for signals, which a fork has from its first moment on, ends the process when its pipe no longer
        // blocks: there the code has ended itself.
        let ended_itself = report.kind == WorkerKind::Fork
            && matches!(report.verdict, Verdict::Exited { code: Some(1), signal: None, .. });
        let adopted = printed("{\"adopted").and_then(|line| line["adopted"].as_u64()).unwrap_or(0);
        assert!(adopted > 0 || ended_itself, "the attack itself no longer works: {report:?}");
        let after = snapshot(&cache);
        let changed: Vec<_> = after.iter().filter(|(path, entry)| before.get(*path) != Some(entry)).collect();
        assert!(changed.is_empty() && after.len() == before.len(), "round {round}: {changed:?}");
    }
}

#[tokio::test]
async fn a_damaged_cache_is_rebuilt_and_a_changed_harness_restored() {
    let mut bench = Bench::new();
    assert_eq!(bench.json("return 1;").await, json!(1));
    let cache = bench.dir.path().join("cache");
    let files = || snapshot(&cache);
    let named = |part: &str| files().into_keys().find(|path| path.to_string_lossy().contains(part)).unwrap();
    let harness = named(".js");
    std::fs::set_permissions(&harness, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&harness, "console.log('not the harness')").unwrap();
    let database = named("dep_analysis_cache_v2");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&database, "damaged").unwrap();
    // A new source, as after a restart; a running one has checked the content and checks the modes.
    bench.restart();
    assert_eq!(bench.json("return 2;").await, json!(2));
    assert_ne!(std::fs::read(&database).unwrap(), b"damaged");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&database) & 0o222, mode(&harness)), (0, 0o400));
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(bench.json("return 3;").await, json!(3));
    assert_eq!(mode(&database) & 0o222, 0);
}

#[tokio::test]
async fn many_first_boots_at_once_prepare_one_cache() {
    let bench = Bench::new();
    let boots = (0..6).map(|i| {
        // Two sources: as two daemons would, they meet at the lock.
        let source = if i % 2 == 0 { bench.source.clone() } else { bench.again() };
        let spec = std::sync::Arc::new(bench.spec());
        tokio::spawn(async move { conductor_pool::WorkerSource::boot(&source, spec).await })
    });
    for boot in boots.collect::<Vec<_>>() {
        boot.await.unwrap().unwrap().retire().await;
    }
    let entries: Vec<_> = std::fs::read_dir(bench.dir.path().join("cache/deno-dir"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(entries.iter().filter(|name| !name.starts_with('.')).count(), 1, "{entries:?}");
    assert!(!entries.iter().any(|name| name.starts_with(".staging")), "{entries:?}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let bench = Bench::new();
    let table = [
        (
            WorkerSpec { deno: "/nonexistent/deno".into(), ..bench.spec() },
            "cannot prepare the worker's directories",
        ),
        (
            WorkerSpec { heap_mib: 0, deno: "/bin/false".into(), ..bench.spec() },
            "Deno ended before it was ready (exit status 1)",
        ),
        (
            WorkerSpec {
                workspace: "/nonexistent/workspace".into(),
                grants: Grants { read: conductor_pool::Grant::All, ..Grants::default() },
                ..bench.spec()
            },
            "cannot start Deno: cannot enter the working directory: /nonexistent/workspace: No such file or directory",
        ),
    ];
    for (spec, expected) in table {
        let error = bench.boot(&spec).await.err().unwrap();
        assert!(chain(&error).starts_with(expected), "{}", chain(&error));
    }
    let slow = WorkerSpec { deno: "/bin/sleep".into(), ..bench.spec() };
    let error = bench.boot(&slow).await.err().unwrap();
    assert!(matches!(error, SpawnError::Died { .. }), "sleep does not know our options: {error}");
}

/// Runs the tests named here again as an ordinary user, from copies that he may read.
#[test]
fn the_same_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        // This run is the ordinary user's.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        // By a process of its own: what another test starts just then would hold the copy open for writing, and Linux
        // executes no such file.
        let mut install = std::process::Command::new("install");
        assert!(install.arg("--mode=755").arg(from).arg(&to).status().unwrap().success());
        to
    };
    let deno = copy(&conductor_deno::testing::deno().path, "deno");
    let launcher = copy(Path::new(env!("CARGO_BIN_EXE_conductor-worker-launcher")), "launcher");
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let names = [
        "isolation::a_worker_has_no_capabilities_and_cannot_gain_any",
        "isolation::nothing_a_worker_does_reaches_the_next_one",
        "isolation::a_damaged_cache_is_rebuilt_and_a_changed_harness_restored",
        "isolation::limits_descriptors_and_session_are_the_launchers",
    ];
    let output = Command::new(tests)
        .args(["--exact", "--test-threads=2"])
        .args(names)
        .env_clear()
        .env("CONDUCTOR_DENO", deno)
        .env("CONDUCTOR_TEST_LAUNCHER", launcher)
        .env("CARGO_TARGET_DIR", &home)
        .env("TMPDIR", &home)
        .env("HOME", &home)
        .current_dir(&home)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains(&format!("{} passed", names.len())), "{stdout}");
}
