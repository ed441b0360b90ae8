//! Registries that fail, and what a caller is told.

use std::time::Duration;

use conductor_packages::{FetchEnvironment, LayerError};
use tokio::sync::watch;

use crate::registry::{Fault, Registry};
use crate::support::{Bed, import, poll, request};

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.publish("left", "1.0.0", &[], "module.exports = 'old'");
    registry.publish("left", "1.2.0", &[("right", "^2")], "module.exports = 'left' + require('right')");
    registry.publish("right", "2.0.0", &[], "module.exports = 'right'");
    registry
}

/// Builds `npm:left@^1` under one fault, then without it, and returns the error.
async fn with_fault(path: &str, fault: Fault) -> LayerError {
    let registry = registry().await;
    registry.fail(path, fault);
    let bed = Bed::with(registry.environment(), |config| config.timeout = Duration::from_secs(20));
    let error = bed.ensure("npm:left@^1").await.unwrap_err();
    bed.tidy(0).await;
    registry.heal();
    let layer = bed.layers.update(request("npm:left@^1"), &watch::Sender::default()).await.unwrap().0;
    assert_eq!(import(&layer, "npm:left@^1"), "ok");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_kind_and_leaves_nothing_behind() {
    let tarball = "/npm/left/-/left-1.2.0.tgz";
    let table: [(&str, &str, Fault); 7] = [
        ("404", "/npm/left", Fault::Status(404)),
        ("401", "/npm/left", Fault::Status(401)),
        ("503", "/npm/left", Fault::Status(503)),
        ("cut", tarball, Fault::Truncate),
        ("other", tarball, Fault::Replace(b"something else".to_vec())),
        ("tgz404", tarball, Fault::Status(404)),
        ("meta", "/npm/left", Fault::Replace(b"<html>".to_vec())),
    ];
    for (name, path, fault) in table {
        let error = with_fault(path, fault).await;
        eprintln!("{name}: {error:?}\n   {error} / {:?}", error.hint());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts() {
    let registry = registry().await;
    let bed = Bed::with(registry.environment(), |_| {});
    for wanted in ["npm:nope@^1", "npm:left@^7", "jsr:@no/pe@^1"] {
        let error = bed.ensure(wanted).await.unwrap_err();
        eprintln!("{wanted}: {error:?}\n   {error} / {:?}", error.hint());
    }
    registry.publish_jsr(
        "@t/path",
        "1.0.0",
        &serde_json::json!({".": "./mod.ts"}),
        &[("mod.ts", "export const a: number = 1;")],
    );
    let error = bed.ensure("jsr:@t/path@^3").await.unwrap_err();
    eprintln!("{error:?}");
    registry.fail("/@t/path/1.0.0/mod.ts", Fault::Replace(b"export const b = 1;".to_vec()));
    let error = bed.ensure("jsr:@t/path@^1").await.unwrap_err();
    eprintln!("{error:?}");
    registry.fail("/@t/path/meta.json", Fault::Status(500));
    let error = bed.ensure("jsr:@t/path@1").await.unwrap_err();
    eprintln!("{error:?}");
    let down = FetchEnvironment::new([
        ("NPM_CONFIG_REGISTRY".to_owned(), "http://127.0.0.1:9/".into()),
        ("JSR_URL".to_owned(), "http://127.0.0.1:9/".into()),
    ]);
    let bed = Bed::with(down, |_| {});
    eprintln!("{:?}", bed.ensure("npm:left").await.unwrap_err());
    eprintln!("{:?}", bed.ensure("jsr:@t/path").await.unwrap_err());
}
