//! Packages from a read-only layer: what the lock names can be imported, without grants, network or waiting; nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conductor_pool::{Packages, Settled, WorkerSpec};
use serde_json::{Value, json};

use crate::support::{Bench, job, json as json_of, settled};

/// More than any rehearsal of these tests takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A layer with axios, lodash and ms, fetched from the registry.
fn fetch(bench: &Bench) -> Packages {
    let dir = bench.dir.path().join("layer");
    std::fs::create_dir(&dir).unwrap();
    let entry = dir.join("entry.js");
    let spellings =
        [("npm:axios", "npm:axios@^1"), ("npm:lodash", "npm:lodash@^4"), ("npm:ms", "npm:ms@2.1.3")];
    let text: String = spellings.iter().map(|(_, spelling)| format!("import {spelling:?};\n")).collect();
    std::fs::write(&entry, text).unwrap();
    let packages = Packages {
        deno_dir: dir.join("deno"),
        lock: dir.join("deno.lock"),
        env: Default::default(),
        allow_import: None,
        spellings: spellings.map(|(name, spelling)| (name.to_owned(), spelling.to_owned())).into(),
        preload: Vec::new(),
    };
    let fetched = Command::new(&bench.spec().deno)
        .args(["cache", "--quiet", "--no-config", "--node-modules-dir=none"])
        .arg(format!("--lock={}", packages.lock.display()))
        .arg(&entry)
        .env("DENO_DIR", &packages.deno_dir)
        .output()
        .unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    packages
}

fn with(bench: &Bench, packages: Packages) -> WorkerSpec {
    WorkerSpec { packages: Some(packages), ..bench.spec() }
}

async fn import(bench: &Bench, spec: &WorkerSpec, specifier: &str) -> Result<Value, String> {
    let code = format!("return Object.keys(await api.import({specifier:?})).length > 0;");
    let report = bench.run_job(spec, job(&code)).await;
    match settled(&report) {
        Settled::Json { value } => Ok(value.clone()),
        Settled::Thrown { error } => Err(error.message.clone()),
        other => panic!("{other:?}"),
    }
}

/// Every cache has the two files without which SQLite cannot open it where it cannot make them.
fn assert_readable_when_sealed(deno_dir: &Path) {
    let files = std::fs::read_dir(deno_dir).unwrap().map(|entry| entry.unwrap().path());
    let caches: Vec<_> =
        files.filter(|path| path.is_file() && path.to_string_lossy().ends_with("_v2")).collect();
    assert!(caches.len() >= 3, "{caches:?}");
    for cache in caches {
        for ending in ["-wal", "-shm"] {
            let beside = format!("{}{ending}", cache.display());
            assert!(Path::new(&beside).is_file(), "{beside} is missing");
        }
    }
}

fn seal(dir: &Path) {
    let sealed = Command::new("chmod").args(["-R", "a-w"]).arg(dir).status().unwrap();
    assert!(sealed.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_gives_what_its_lock_names_and_nothing_else() {
    let bench = Bench::new();
    let packages = fetch(&bench);
    let specifiers = ["npm:axios@^1", "npm:ms@2.1.3"].map(String::from);
    let rehearsed = bench.source.rehearse(&bench.spec().deno, &packages, &specifiers, LIMIT).await.unwrap();
    for rehearsal in &rehearsed {
        assert!(rehearsal.preloadable && rehearsal.error.is_none(), "{rehearsal:?}");
        assert!(rehearsal.import_ms > 0.0, "{rehearsal:?}");
    }
    let axios = &rehearsed[0];
    assert_eq!(axios.specifier, specifiers[0], "in the order in which they were given");
    assert!(axios.memory_bytes > 1 << 20, "axios brings some hundred kilobytes of code: {axios:?}");
    assert_readable_when_sealed(&packages.deno_dir);
    let none = bench.source.rehearse(&bench.spec().deno, &packages, &specifiers, Duration::ZERO).await;
    assert!(none.unwrap().is_empty(), "there was no time");
    seal(&packages.deno_dir);

    let spec = with(&bench, packages.clone());
    for specifier in [
        "npm:axios@^1",
        "npm:axios",
        "axios",
        "npm:/lodash",
        "lodash/fp.js",
        "npm:lodash@^4/fp.js",
        "ms",
        "node:fs",
    ] {
        assert_eq!(import(&bench, &spec, specifier).await, Ok(json!(true)), "{specifier}");
    }
    for specifier in
        ["npm:form-data", "npm:debug", "form-data", "npm:axios@0.21", "npm:nope", "jsr:@std/path"]
    {
        let message = import(&bench, &spec, specifier).await.unwrap_err();
        let refused = [
            "The lockfile is out of date",
            "not a dependency",
            "not found in cache",
            "Requires import access",
        ];
        assert!(refused.iter().any(|text| message.contains(text)), "{specifier}: {message}");
    }

    let mut exact = job("return (await api.import('npm:ms@^2')).default('2 days');");
    exact.imports = [("npm:ms@^2".to_owned(), "npm:ms@2.1.3".to_owned())].into();
    assert_eq!(json_of(bench.run_job(&spec, exact).await), json!(172_800_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn preloaded_packages_are_there_at_once_and_leave_nothing_to_the_next_worker() {
    let bench = Bench::new();
    let packages = fetch(&bench);
    let all = Vec::from_iter(packages.spellings.values().cloned());
    bench.source.rehearse(&bench.spec().deno, &packages, &all, LIMIT).await.unwrap();
    seal(&packages.deno_dir);
    let cold = with(&bench, packages.clone());
    let warm = with(&bench, Packages { preload: all, ..packages });

    let timed = "const start = performance.now(); const { default: axios } = await api.import('axios');
        const seen = axios.mark; axios.mark = 'left'; return [performance.now() - start, seen ?? null];";
    let (mut slow, mut fast) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        slow = slow.min(json_of(bench.run_job(&cold, job(timed)).await)[0].as_f64().unwrap());
        let value = json_of(bench.run_job(&warm, job(timed)).await);
        assert_eq!(value[1], Value::Null, "the mark of an earlier run is there");
        fast = fast.min(value[0].as_f64().unwrap());
    }
    assert!(fast * 10.0 < slow, "preloaded {fast} ms, cold {slow} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_cannot_be_preloaded_costs_no_run() {
    let bench = Bench::new();
    let packages = fetch(&bench);
    seal(&packages.deno_dir);
    let spec =
        with(&bench, Packages { preload: vec!["npm:nope@1".into(), "npm:ms@2.1.3".into()], ..packages });
    assert_eq!(import(&bench, &spec, "ms").await, Ok(json!(true)));
}
