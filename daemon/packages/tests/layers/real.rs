//! The real npm registry, the real Deno.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use conductor_packages::{Allowlist, FetchEnvironment, LayerRequest, RefusalKind, Registry, StagedLayer};
use tokio::sync::watch;

use crate::support::{Bed, deno, import, list, observed, request, work, work_with};

#[tokio::test(flavor = "multi_thread")]
async fn allowed_packages_are_imported_offline_and_nothing_else_is() {
    let bed = Bed::new();
    let (progress, seen) = observed();
    let listed = "npm:axios@^1,npm:lodash@^4,npm:zod@^3";
    let layer = bed.layers.ensure(request(listed), &progress).await.unwrap();
    drop(progress);
    let seen = seen.await.unwrap();
    assert!(seen.iter().any(|step| step.starts_with("fetching ") && step.contains(" of ")), "{seen:?}");

    let spell = |written: &str| layer.spell(&list(listed).judge(written).unwrap());
    for (written, locked) in [
        ("axios", "npm:axios@^1"),
        ("npm:axios@1.6", "npm:axios@^1"),
        ("npm:lodash/fp", "npm:lodash@^4/fp.js"),
        ("lodash/fp.js", "npm:lodash@^4/fp.js"),
        ("npm:lodash/map", "npm:lodash@^4/map.js"),
        ("zod", "npm:zod@^3"),
        ("npm:zod/v4", "npm:zod@^3/v4"),
    ] {
        assert_eq!(spell(written).unwrap(), locked);
        assert_eq!(import(&layer, locked), "ok", "{locked}");
    }
    let refusal = spell("npm:lodash/mapp").unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("write `npm:lodash/map`"), "{refusal}");

    for (computed, answer, message) in [
        ("npm:form-data", "The lockfile is out of date.", "the package `npm:form-data` is not allowed here"),
        (
            "npm:debug@4.4.3",
            "The lockfile is out of date.",
            "the package `npm:debug@4.4.3` is not allowed here",
        ),
        (
            "npm:axios",
            "The lockfile is out of date.",
            "a computed import of `npm:axios` must spell it `npm:axios@^1`",
        ),
        ("npm:react@^19", "not found in cache", "the package `npm:react` is not allowed here"),
        ("jsr:@std/path", "Requires import access", "the package `jsr:@std/path` is not allowed here"),
        ("https://esm.sh/axios", "Requires import access", "code cannot be imported from `esm.sh:443`"),
        ("axios", "not a dependency", "a computed import of `axios` must spell it `npm:axios@^1`"),
    ] {
        let text = import(&layer, computed);
        assert!(text.contains(answer), "{computed}: {text}");
        assert_eq!(layer.explain(&text).unwrap().message, message);
    }
    assert_eq!(layer.explain("Cannot read properties of undefined (reading \"x\")"), None);
    // Once refused, refused for good: the callers of this crate count on knowing that.
    let code =
        "for (const s of ['npm:debug', 'npm:zod@^3']) await import(s).catch((e) => console.log(e.name))";
    assert_eq!(work(&layer, code), "TypeError\nTypeError");
    assert_eq!(work(&layer, "import _ from 'npm:lodash@^4'; console.log(_.chunk([1,2,3],2).length)"), "2");

    let why: Vec<Vec<String>> = layer.why("form-data");
    assert_eq!(why.len(), 1);
    assert!(why[0][0].starts_with("npm:axios@1.") && why[0][1].starts_with("npm:form-data@4."), "{why:?}");
    assert_eq!(layer.spellings()["npm:axios"], "npm:axios@^1");
    assert!(layer.packages().iter().all(|package| package.native.is_none()), "{:?}", layer.packages());
    assert_eq!(layer.worker_env(), []);
    for part in [layer.lock(), layer.deno_dir(), layer.deno_dir().join("npm")] {
        assert_eq!(fs::metadata(part).unwrap().mode() & 0o222, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_is_found_and_refused() {
    let bed = Bed::new();
    let listed = "npm:better-sqlite3@^11,npm:sharp@^0.33,npm:bcrypt@^5,npm:chokidar@^3,npm:ws@^8";
    let layer = bed.ensure(listed).await.unwrap();
    let spell = |written: &str| layer.spell(&list(listed).judge(written).unwrap());
    for native in ["better-sqlite3", "sharp", "bcrypt"] {
        let refusal = spell(native).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Native);
        assert!(refusal.message.contains("needs native code") && refusal.hint.is_some(), "{refusal}");
        assert!(!layer.spellings().contains_key(&format!("npm:{native}")));
    }
    // What a package can use, and does without, is no reason to refuse it.
    assert_eq!(spell("chokidar").unwrap(), "npm:chokidar@^3");
    assert_eq!(spell("ws").unwrap(), "npm:ws@^8");
}

/// Imports every package once, as the pool does.
async fn import_all(staged: StagedLayer) -> Result<(), String> {
    let imports = staged.packages.iter().filter(|package| package.native.is_none());
    let code: String = imports.map(|package| format!("await import({:?});\n", package.spelling)).collect();
    let output = work_with(&staged.deno_dir, &staged.lock, &staged.worker_env, staged.allow_import, &code);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_default_package_of_npm_exists_and_imports_without_permissions() {
    let bed = Bed::with(FetchEnvironment::from_env(), |config| {
        config.warm = Some(Arc::new(|staged| Box::pin(import_all(staged))));
    });
    let list = Allowlist::from_setting(None).unwrap();
    let request = LayerRequest::of_list(&list, deno(), None).unwrap();
    let layer = bed.layers.ensure(request, &watch::Sender::default()).await.unwrap();
    // Where the network has no jsr, its packages are missing and the others are not.
    assert!(
        layer.missing().iter().all(|missing| missing.package.starts_with("jsr:")),
        "{:?}",
        layer.missing()
    );
    let npm = list.packages().filter(|package| package.registry() == Registry::Npm);
    for package in npm {
        let spelled = layer.spell(&list.judge(&package.key()).unwrap()).unwrap();
        assert_eq!(import(&layer, &spelled), "ok", "{spelled}");
    }
    let verified = bed.layers.verify().await.unwrap();
    assert_eq!(verified.len(), 1);
    assert_eq!(verified[0].difference, None, "workers changed nothing");
}
