//! Nothing that code does is left behind in what the next worker starts from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use conductor_tests::{Daemon, Home, Shim};
use serde_json::json;

/// Every file and directory below `root`: mode, and contents of files.
fn contents(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let bytes = if meta.is_file() { fs::read(&path).expect("reads") } else { Vec::new() };
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).expect("reads").map(|entry| entry.expect("reads").path()));
        }
        found.insert(path, (meta.mode(), bytes));
    }
    found
}

/// Code that tries to leave something behind. `cache` is the directory it aims at; what is refused is passed over.
const ATTACKS: [&str; 6] = [
    "try { localStorage.setItem('leak', 'x') } catch {}\ntry { sessionStorage.setItem('leak', 'x') } catch {}\n'tried'",
    "try { const c = await caches.open('leak'); await c.put('http://a/', new Response('x')) } catch {}\n'tried'",
    "try { const kv = await (Deno as any).openKv(); await kv.set(['leak'], 'x') } catch {}\n'tried'",
    "for (const name of [`${cache}/leak`, `${cache}/deno-dir/leak`, `${cache}/harness/leak.js`, `${cache}/empty/leak`]) {\n\
       try { Deno.writeTextFileSync(name, 'x') } catch {}\n  try { Deno.mkdirSync(name) } catch {}\n}\n'tried'",
    // Descriptors of databases that Deno itself keeps open can be adopted by number.
    "import fs from 'node:fs';\nfor (let fd = 5; fd < 64; fd++) {\n\
       try { fs.writeSync(fd, 'leaked through an adopted descriptor', 0) } catch {}\n\
       try { fs.ftruncateSync(fd, 0) } catch {}\n  try { fs.fchmodSync(fd, 0o777) } catch {}\n}\n'tried'",
    "const walk = (dir: string) => {\n  try { Deno.chmodSync(dir, 0o777) } catch {}\n  try { Deno.removeSync(`${dir}/x`) } catch {}\n\
       try { for (const entry of Deno.readDirSync(dir)) {\n    const path = `${dir}/${entry.name}`;\n\
         if (entry.isDirectory) walk(path);\n    else { try { Deno.writeTextFileSync(path, 'x', { append: true }) } catch {}\n    try { Deno.removeSync(path) } catch {} }\n\
       } } catch {}\n};\nwalk(cache);\n'tried'",
];

fn nothing_changes(run_args: &str) {
    let home = Home::new();
    home.configure(&format!("[profiles.default]\nrun-args = \"{run_args}\"\nlinger = \"300ms\"\n"));
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("1").value(), 1);
    daemon.wait_until_quiet(1);
    let cache = home.home().join(".cache/conductor");
    let before = contents(&cache);
    assert!(before.len() > 3, "the cache holds the harness and what Deno prepared: {:?}", before.keys());
    for code in ATTACKS {
        let answer =
            shim.call_with(json!({ "deno_code": code, "globals": { "cache": cache }, "timeout": 5000 }));
        // A worker may break itself; what counts is what it leaves.
        assert!(answer.structured()["status"].is_string(), "{code}");
    }
    daemon.wait_until_quiet(1);
    let after = contents(&cache);
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, content)| after.get(*path) != Some(content))
        .map(|(path, _)| path)
        .collect();
    let added: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && added.is_empty(), "changed: {changed:?}, added: {added:?}");
    assert_eq!(shim.call("localStorage.getItem === undefined ? 'none' : 'clean'").value(), "clean");
}

#[test]
fn code_without_grants_leaves_the_cache_as_it_was() {
    nothing_changes("");
}

#[test]
fn code_that_may_write_everywhere_leaves_the_cache_as_it_was() {
    nothing_changes("allow-read,allow-write");
}

#[test]
fn code_that_may_do_everything_leaves_the_cache_as_it_was() {
    nothing_changes("allow-all");
}
