//! Registries that fail, and what a caller is told. The kinds come from Deno's texts: these tests hold them.

use std::time::{Duration, Instant};

use conductor_packages::{Deno, FetchEnvironment, LayerError, LayerRequest};
use serde_json::json;
use tokio::sync::watch;

use crate::registry::{Fault, Registry, left_and_right};
use crate::support::{Bed, import, list, request};

const LEFT: &str = "/npm/left";
const ARCHIVE: &str = "/npm/left/-/left-1.2.0.tgz";

type Check = fn(&LayerError) -> bool;

/// Waits not long for a registry that hangs, and as long as ever for one that answers: a busy machine may need it.
fn bed_for(registry: &Registry, fault: &Fault) -> Bed {
    Bed::with(registry.environment(), |config| {
        if matches!(fault, Fault::Hang) {
            config.timeout = Duration::from_secs(5);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_npm_has_its_kind_and_leaves_nothing_behind() {
    let other = || Fault::Replace(b"something else".to_vec());
    let table: [(&str, Fault, Check); 9] = [
        (
            LEFT,
            Fault::Status(404),
            |e| matches!(e, LayerError::UnknownPackage { package } if package == "npm:left"),
        ),
        (LEFT, Fault::Status(401), |e| matches!(e, LayerError::AccessDenied { .. })),
        (LEFT, Fault::Status(503), |e| matches!(e, LayerError::RegistryUnreachable { .. })),
        (LEFT, Fault::Replace(b"<html>".to_vec()), |e| matches!(e, LayerError::RegistryUnreachable { .. })),
        (LEFT, Fault::Hang, |e| matches!(e, LayerError::TimedOut { .. })),
        (ARCHIVE, Fault::Hang, |e| matches!(e, LayerError::TimedOut { .. })),
        (ARCHIVE, Fault::Truncate, |e| matches!(e, LayerError::BadArchive { .. })),
        (ARCHIVE, Fault::Status(404), |e| matches!(e, LayerError::Fetch { .. })),
        (ARCHIVE, other(), |e| matches!(e, LayerError::Integrity { package } if package == "npm:left@1.2.0")),
    ];
    for (path, fault, check) in table {
        let registry = left_and_right().await;
        registry.fail(path, fault.clone());
        let bed = bed_for(&registry, &fault);
        let error = bed.ensure("npm:left@^1").await.unwrap_err();
        assert!(check(&error), "{path} {fault:?}: {error:?}");
        assert!(error.hint().is_some());
        let text = format!("{error} {error:?}");
        assert!(!text.contains(bed.root.path().to_str().unwrap()), "no path of this machine: {text}");
        bed.tidy(0).await;
        registry.heal();
        let bed = match fault {
            Fault::Hang => Bed::at(bed.close(), registry.environment(), |_| {}),
            _ => bed,
        };
        let (layer, _) = bed.layers.update(request("npm:left@^1"), &watch::Sender::default()).await.unwrap();
        assert_eq!(import(&layer, "npm:left@^1"), "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named() {
    let registry = left_and_right().await;
    registry.publish_jsr("@t/path", "1.0.0", &json!({".": "./mod.ts"}), &[("mod.ts", "export {};")]);
    let bed = Bed::with(registry.environment(), |_| {});
    let table: [(&str, Check); 4] = [
        ("npm:nope@^1", |e| matches!(e, LayerError::UnknownPackage { package } if package == "npm:nope")),
        ("jsr:@no/pe@^1", |e| matches!(e, LayerError::UnknownPackage { package } if package == "jsr:@no/pe")),
        (
            "npm:left@^7",
            |e| matches!(e, LayerError::NoSuchVersion { package, range } if package == "npm:left" && range == "^7"),
        ),
        (
            "jsr:@t/path@^3",
            |e| matches!(e, LayerError::NoSuchVersion { package, range } if package == "jsr:@t/path" && range == "^3"),
        ),
    ];
    for (wanted, check) in table {
        let error = bed.ensure(wanted).await.unwrap_err();
        assert!(check(&error), "{wanted}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_jsr_has_its_kind() {
    let table: [(&str, Fault, Check); 4] = [
        (
            "/@t/path/1.0.0/mod.ts",
            Fault::Replace(b"export const b = 1;".to_vec()),
            |e| matches!(e, LayerError::Integrity { package } if package == "jsr:@t/path@1.0.0"),
        ),
        ("/@t/path/meta.json", Fault::Status(500), |e| matches!(e, LayerError::RegistryUnreachable { .. })),
        ("/@t/path/1.0.0_meta.json", Fault::Status(500), |e| {
            matches!(e, LayerError::RegistryUnreachable { .. })
        }),
        ("/@t/path/meta.json", Fault::Hang, |e| matches!(e, LayerError::TimedOut { .. })),
    ];
    for (path, fault, check) in table {
        let registry = Registry::start().await;
        let files = [("mod.ts", "export const a: number = 1;")];
        registry.publish_jsr("@t/path", "1.0.0", &json!({".": "./mod.ts"}), &files);
        registry.fail(path, fault.clone());
        let error = bed_for(&registry, &fault).ensure("jsr:@t/path@^1").await.unwrap_err();
        assert!(check(&error), "{path} {fault:?}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_said_to_be() {
    let down = ["NPM_CONFIG_REGISTRY", "JSR_URL"]
        .map(|name| (name.to_owned(), "http://u:secret@127.0.0.1:9/".into()));
    let bed = Bed::with(FetchEnvironment::new(down), |_| {});
    for wanted in ["npm:left", "jsr:@t/path"] {
        let error = bed.ensure(wanted).await.unwrap_err();
        assert!(matches!(error, LayerError::RegistryUnreachable { .. }), "{error:?}");
        assert!(error.is_retryable() && !format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_remembered_for_a_moment() {
    let registry = left_and_right().await;
    registry.fail(LEFT, Fault::Status(404));
    let bed = Bed::with(registry.environment(), |_| {});
    let started = Instant::now();
    for _ in 0..3 {
        assert!(matches!(bed.ensure("npm:left@^1").await, Err(LayerError::UnknownPackage { .. })));
    }
    // Two seconds at the least: a machine that stands still meanwhile may see it forgotten.
    let forgotten = started.elapsed().as_secs() / 2;
    assert!((1..=1 + forgotten).contains(&(registry.count(LEFT) as u64)), "{:?}", registry.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_deno_there_is_a_clear_error() {
    let bed = Bed::new();
    let deno = Deno { path: "/nonexistent/deno".into(), version: "2.9.6".into() };
    let request = LayerRequest::of_list(&list("npm:left"), deno, None).unwrap();
    let error = bed.layers.ensure(request, &watch::Sender::default()).await.unwrap_err();
    assert!(matches!(error, LayerError::DenoMissing(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_does_not_take_the_others_away() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    registry.fail("/@t/path/meta.json", Fault::Status(500));
    let listed = "npm:left@^1,npm:nope@^1,npm:right@^9,jsr:@t/path@^1";
    let layer = bed.ensure(listed).await.unwrap();
    assert_eq!(import(&layer, "npm:left@^1"), "ok");
    let missing: Vec<&str> = layer.missing().iter().map(|missing| missing.package.as_str()).collect();
    assert_eq!(missing.len(), 3, "{missing:?}");
    let refusal = layer.spell(&list(listed).judge("nope").unwrap()).unwrap_err();
    assert!(refusal.message.contains("the registry knows no package `npm:nope`"), "{refusal}");
    // It is not tried again at every call.
    let asked = registry.count("/npm/nope");
    assert_eq!(bed.ensure(listed).await.unwrap().name(), layer.name());
    assert_eq!(registry.count("/npm/nope"), asked);

    let asked = ["npm:left", "npm:nope"].map(|written| list("all").judge(written).unwrap());
    let request = LayerRequest::of_call(&asked, crate::support::deno(), None).unwrap();
    let error = bed.layers.ensure(request, &watch::Sender::default()).await.unwrap_err();
    assert!(
        matches!(error, LayerError::UnknownPackage { .. }),
        "a call gets all that it asks for, or an error"
    );
}
