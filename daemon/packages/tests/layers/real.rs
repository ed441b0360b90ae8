//! The real npm registry, the real Deno.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::support::{Bed, import, list, observed, request, work};

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

    for transitive in ["npm:form-data", "npm:debug", "npm:form-data@^4"] {
        assert!(import(&layer, transitive).starts_with("The lockfile is out of date."), "{transitive}");
    }
    assert!(import(&layer, "npm:axios").starts_with("The lockfile is out of date."));
    assert!(import(&layer, "npm:react@^19").contains("not found in cache"));
    assert!(import(&layer, "https://esm.sh/axios").contains("Requires import access"));
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
