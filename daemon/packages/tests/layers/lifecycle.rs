//! Layers over their life: shared, cancelled, found again, damaged, updated, removed; and processes that die half-way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use conductor_packages::{
    Change, FetchEnvironment, LayerError, LayerRequest, Layers, Limits, Outdated, Progress, Pruned,
};
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::registry::{Fault, Registry, left_and_right};
use crate::support::{Bed, PATIENCE, Root, deno, import, list, poll, request, work};

const ARCHIVE: &str = "/npm/left/-/left-1.2.0.tgz";
const LEFT: &str = "npm:left@^1";

fn start(layers: &Layers, wanted: &'static str) -> tokio::task::JoinHandle<Result<String, LayerError>> {
    let layers = layers.clone();
    tokio::spawn(async move {
        let layer = layers.ensure(request(wanted), &watch::Sender::default()).await?;
        Ok(layer.name().to_owned())
    })
}

/// Processes that were started to work below `root`.
fn processes_of(root: &Path) -> usize {
    let root = root.to_str().unwrap();
    let all = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    all.filter(|command| String::from_utf8_lossy(command).contains(root)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_share_a_build_and_outlive_a_caller_that_leaves() {
    let registry = left_and_right().await;
    registry.fail(ARCHIVE, Fault::Hang);
    let bed = Bed::with(registry.environment(), |_| {});
    let callers: Vec<_> = (0..4).map(|_| start(&bed.layers, LEFT)).collect();
    poll("the archive to be asked for", || registry.count(ARCHIVE) == 1).await;
    assert_eq!(processes_of(bed.root.path()), 1);
    callers[0].abort();
    // The process goes on for the others: what hangs is the registry.
    poll("the first caller to be gone", || callers[0].is_finished()).await;
    assert_eq!(processes_of(bed.root.path()), 1);
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    poll("the process to be killed with its last caller", || processes_of(bed.root.path()) == 0).await;
    bed.tidy(0).await;

    registry.heal();
    let before = registry.count(ARCHIVE);
    let callers: Vec<_> = (0..4).map(|_| start(&bed.layers, LEFT)).collect();
    let mut names = Vec::new();
    for caller in callers {
        names.push(caller.await.unwrap().unwrap());
    }
    names.dedup();
    assert_eq!((names.len(), registry.count(ARCHIVE) - before), (1, 1), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_wait_for_their_turn_and_layers_that_are_there_do_not() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |config| config.max_builds = 1);
    bed.ensure("npm:right@^2").await.unwrap();
    registry.fail(ARCHIVE, Fault::Hang);
    let hanging = start(&bed.layers, LEFT);
    poll("the archive to be asked for", || registry.count(ARCHIVE) == 1).await;
    let progress = watch::Sender::new(Progress::Sealing);
    let mut seen = progress.subscribe();
    let layers = bed.layers.clone();
    let queued = tokio::spawn(async move { layers.ensure(request("npm:right"), &progress).await.map(drop) });
    seen.wait_for(|progress| *progress == Progress::Queued).await.unwrap();
    bed.ensure("npm:right@^2").await.unwrap();
    assert!(!queued.is_finished());
    hanging.abort();
    queued.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_there_needs_no_registry() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    let name = bed.ensure(LEFT).await.unwrap().name().to_owned();
    let environment = registry.environment();
    let requests = registry.requests().len();
    drop(registry);
    let root = bed.close();
    let bed = Bed::at(root, environment, |_| {});
    let layer = bed.ensure(LEFT).await.unwrap();
    assert_eq!(layer.name(), name);
    assert_eq!(work(&layer, "console.log((await import('npm:left@^1')).default)"), "leftright");
    assert!(
        requests > 0 && matches!(bed.ensure("npm:right").await, Err(LayerError::RegistryUnreachable { .. }))
    );
}

/// Changes a file that nobody may write.
fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>), keep_time: bool) {
    let meta = fs::metadata(path).unwrap();
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, meta.permissions()).unwrap();
    if keep_time {
        fs::File::open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
    }
}

fn module_of_left(layer: &Path) -> PathBuf {
    let versions = layer.join("deno-dir/npm/");
    let registry = fs::read_dir(versions).unwrap().next().unwrap().unwrap().path();
    let mut open = vec![registry];
    while let Some(path) = open.pop() {
        if path.ends_with("left/1.2.0/index.js") {
            return path;
        }
        open.extend(fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    panic!("the layer has no package `left`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_tampered_with_is_noticed_and_built_anew() {
    let flip = |content: &mut Vec<u8>| *content.last_mut().unwrap() ^= 1;
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    let path = bed.ensure(LEFT).await.unwrap().path().to_owned();

    // The same size and time: the lock is compared byte by byte at every use.
    tamper(&path.join("deno.lock"), flip, true);
    let fetched = registry.count(ARCHIVE);
    let layer = bed.ensure(LEFT).await.unwrap();
    assert_eq!((registry.count(ARCHIVE), layer.path()), (fetched + 1, path.as_path()));
    assert_eq!(import(&layer, LEFT), "ok");

    // Another size or time of a module is seen at use; the same ones by a full check.
    drop(layer);
    tamper(&module_of_left(&path), |content| content.extend(b";evil()"), true);
    bed.ensure(LEFT).await.unwrap();
    assert_eq!(registry.count(ARCHIVE), fetched + 2);
    assert!(bed.layers.verify().await.unwrap().iter().all(|layer| layer.difference.is_none()));
    tamper(&module_of_left(&path), flip, true);
    let verified = bed.layers.verify().await.unwrap();
    assert!(verified[0].difference.as_deref().unwrap().ends_with("has other content"), "{verified:?}");
    bed.tidy(0).await;
    bed.ensure(LEFT).await.unwrap();

    // With no registry to build it anew from, the error says both.
    fs::set_permissions(path.join("deno-dir/npm"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("deno-dir/npm/added.js"), "evil()").unwrap();
    registry.fail("/npm/left", Fault::Status(503));
    let error = bed.ensure(LEFT).await.unwrap_err();
    assert!(matches!(&error, LayerError::Damaged { detail, .. } if detail.contains("added.js")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_takes_newer_versions_and_says_which() {
    let registry = Registry::start().await;
    registry.publish("left", "1.0.0", &[], "module.exports = 1");
    let bed = Bed::with(registry.environment(), |_| {});
    let old = bed.ensure(LEFT).await.unwrap();
    registry.publish("left", "2.0.0", &[], "module.exports = 3");
    registry.publish("left", "1.5.0", &[], "module.exports = 2");
    registry.publish("left", "3.0.0", &[], "module.exports = 4");
    assert_eq!(
        bed.ensure(LEFT).await.unwrap().packages()[0].version,
        "1.0.0",
        "locked until somebody updates"
    );
    let text = |text: &str| Some(text.to_owned());
    let expected = Outdated {
        key: "npm:left".into(),
        range: "^1".into(),
        locked: text("1.0.0"),
        newest_allowed: text("1.5.0"),
        newest: text("3.0.0"),
    };
    assert_eq!(bed.layers.outdated(request(LEFT)).await.unwrap(), [expected]);
    assert_eq!(registry.count("/npm/left/-/left-1.5.0.tgz"), 0, "asking downloads nothing");

    let (new, changes) = bed.layers.update(request(LEFT), &watch::Sender::default()).await.unwrap();
    assert_eq!(changes, [Change { key: "npm:left".into(), from: text("1.0.0"), to: text("1.5.0") }]);
    assert_eq!(bed.ensure(LEFT).await.unwrap().name(), new.name());
    // The old one stays as long as somebody uses it.
    bed.layers.prune(None).await.unwrap();
    assert_eq!(import(&old, LEFT), "ok");
    drop(old);
    assert_eq!(bed.layers.prune(None).await.unwrap().layers, 1);
    bed.tidy(1).await;
    let (_, changes) = bed.layers.update(request(LEFT), &watch::Sender::default()).await.unwrap();
    assert_eq!(changes, []);

    registry.fail("/npm/left", Fault::Status(503));
    let failed = bed.layers.update(request(LEFT), &watch::Sender::default()).await;
    assert!(matches!(failed, Err(LayerError::RegistryUnreachable { .. })));
    assert_eq!(bed.ensure(LEFT).await.unwrap().name(), new.name(), "the layer that is there serves on");
}

/// The first prune that finds anything: the task that has made a layer may hold it for a moment longer than who asked for it.
async fn pruned_in_time(bed: &Bed, limits: Option<Limits>) -> Pruned {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pruned = bed.layers.prune(limits).await.unwrap();
        if pruned.layers > 0 || Instant::now() > deadline {
            return pruned;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_pruned_by_age_and_size_and_never_in_use() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    let kept = bed.ensure(LEFT).await.unwrap();
    bed.ensure("npm:right@^2").await.unwrap();
    assert_eq!(bed.layers.list().await.unwrap().len(), 2);
    let nothing = Limits { max_bytes: 0, ..Limits::default() };
    assert_eq!(pruned_in_time(&bed, Some(nothing)).await.layers, 1, "the one in use stays");
    assert!(kept.lock().exists(), "and it is the one in use");
    drop(kept);
    let index = bed.root.path().join("layers/index");
    let long_ago = SystemTime::now() - Limits::default().max_age * 2;
    for entry in fs::read_dir(&index).unwrap() {
        fs::File::open(entry.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    let pruned = pruned_in_time(&bed, None).await;
    assert!(pruned.layers == 1 && pruned.bytes > 0);
    bed.tidy(0).await;
    assert_eq!(fs::read_dir(index).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_lock_is_the_only_source() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    let layer = bed.ensure("npm:left@1.2,npm:right@^2").await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let lock = place.path().join("packages.lock");
    fs::write(&lock, fs::read(layer.lock()).unwrap()).unwrap();
    registry.publish("left", "1.9.0", &[], "module.exports = 'newer'");
    let pinned = |wanted: &str| LayerRequest::of_list(&list(wanted), deno(), Some(lock.clone())).unwrap();
    let ensure = |wanted: &str| {
        let request = pinned(wanted);
        let layers = bed.layers.clone();
        async move { layers.ensure(request, &watch::Sender::default()).await }
    };
    // The list says `^1`, the lock `1.2`: what the lock has is within.
    let layer = ensure(LEFT).await.unwrap();
    let spelled = layer.spell(&list(LEFT).judge("left").unwrap()).unwrap();
    assert_eq!((spelled.as_str(), layer.packages()[0].version.as_str()), ("npm:left@1.2", "1.2.0"));
    assert_eq!(import(&layer, &spelled), "ok");

    registry.publish("other", "1.0.0", &[], "");
    let before = registry.requests().len();
    let error = ensure("npm:left@^1,npm:other").await.unwrap_err();
    assert!(
        matches!(&error, LayerError::NotInPinnedLock { package, file } if package == "npm:other" && file == "packages.lock")
    );
    assert_eq!(registry.requests().len(), before, "nothing was asked for");

    let text = fs::read_to_string(&lock).unwrap();
    let at = text.find("sha512-").unwrap() + 10;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    fs::write(&lock, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    let error = ensure(LEFT).await.unwrap_err();
    assert!(matches!(error, LayerError::Integrity { .. }), "{error:?}");
    fs::write(&lock, "{}").unwrap();
    assert!(matches!(ensure(LEFT).await, Err(LayerError::PinnedLock { .. })));
    fs::remove_file(&lock).unwrap();
    assert!(matches!(ensure(LEFT).await, Err(LayerError::PinnedLock { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_package_runs_while_it_is_fetched() {
    let registry = Registry::start().await;
    let place = tempfile::tempdir().unwrap();
    let trace = place.path().join("ran").display().to_string();
    let script = format!("touch {trace}");
    let scripts =
        ["preinstall", "install", "postinstall", "prepare"].map(|name| (name.to_owned(), script.clone()));
    let scripts: BTreeMap<String, String> = scripts.into();
    let code = format!("require('node:fs').writeFileSync({trace:?}, ''); throw new Error('it ran')");
    let more = json!({"main": "index.js", "scripts": scripts, "hasInstallScript": true});
    registry.publish_files("left", "1.0.0", &[], more, &[("index.js", &code)]);
    let bed = Bed::with(registry.environment(), |_| {});
    let layer = bed.ensure(LEFT).await.unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    assert!(import(&layer, LEFT).contains("write access"), "a worker may not write either");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_tried_again_after_a_while() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |_| {});
    let listed = "npm:left@^1,npm:late@^1";
    let layer = bed.ensure(listed).await.unwrap();
    assert_eq!(layer.missing().len(), 1);
    let age = || {
        let record = fs::File::open(layer.path().join("layer.json")).unwrap();
        record.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    };
    // In vain, and not again at once.
    age();
    let asked = registry.count("/npm/late");
    assert_eq!(bed.ensure(listed).await.unwrap().name(), layer.name());
    assert_eq!(registry.count("/npm/late"), asked + 1);
    bed.ensure(listed).await.unwrap();
    assert_eq!(registry.count("/npm/late"), asked + 1);
    // A registry that is down takes nothing away.
    age();
    registry.fail("/npm/left", Fault::Status(503));
    registry.fail(ARCHIVE, Fault::Status(503));
    assert_eq!(bed.ensure(listed).await.unwrap().name(), layer.name());
    registry.heal();
    age();
    registry.publish("late", "1.0.0", &[], "module.exports = 'late'");
    let complete = bed.ensure(listed).await.unwrap();
    assert!(complete.missing().is_empty());
    assert_eq!(import(&complete, "npm:late@^1"), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmed_layer_keeps_what_the_warming_left_and_a_failed_one_is_none() {
    let registry = left_and_right().await;
    let bed = Bed::with(registry.environment(), |config| {
        config.warm = Some(Arc::new(|staged| {
            Box::pin(async move {
                assert_eq!(staged.packages[0].spelling, LEFT);
                let (env, import) = (staged.worker_env.clone(), staged.allow_import.clone());
                let code = "await import('npm:left@^1')";
                let output = crate::support::work_with(&staged.deno_dir, &staged.lock, &env, import, code);
                output.status.success().then_some(()).ok_or_else(|| "it does not run".to_owned())
            })
        }));
    });
    let layer = bed.ensure(LEFT).await.unwrap();
    assert!(layer.deno_dir().join("v8_code_cache_v2").is_file());
    assert_eq!(import(&layer, LEFT), "ok");

    let bed = Bed::with(registry.environment(), |config| {
        config.warm = Some(Arc::new(|_| Box::pin(async { Err("it does not run".to_owned()) })));
    });
    assert!(matches!(bed.ensure(LEFT).await, Err(LayerError::Warm { .. })));
    bed.tidy(0).await;

    let bed = Bed::with(registry.environment(), |config| {
        let full = || Err(format!("cannot write: {}", std::io::Error::from_raw_os_error(28)));
        config.warm = Some(Arc::new(move |_| Box::pin(async move { full() })));
    });
    assert!(matches!(bed.ensure(LEFT).await, Err(LayerError::DiskFull)));
}

/// The other half of the next test: builds a layer until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test after this one runs it in a process of its own, and kills that"]
async fn build_until_killed() {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    let registries =
        ["NPM_CONFIG_REGISTRY", "JSR_URL"].map(|name| (name.to_owned(), variables[name].clone().into()));
    let marker = PathBuf::from(&variables["TEST_ROOT"]).join("warming");
    let mut config = conductor_packages::LayersConfig::new(
        PathBuf::from(&variables["TEST_ROOT"]).join("layers"),
        FetchEnvironment::new(registries),
    );
    config.warm = Some(Arc::new(move |_| {
        fs::write(&marker, "").unwrap();
        Box::pin(std::future::pending())
    }));
    config.timeout = PATIENCE;
    let (layers, task) = Layers::open(config).unwrap();
    tokio::spawn(task.run());
    layers.ensure(request(LEFT), &watch::Sender::default()).await.unwrap();
}

fn builder(root: &Path, registry: &Registry) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::build_until_killed", "--ignored"])
        .env("TEST_ROOT", root)
        .env("NPM_CONFIG_REGISTRY", registry.npm_url())
        .env("JSR_URL", registry.jsr_url())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_half_way_leaves_nothing_that_is_taken_for_a_layer() {
    let registry = left_and_right().await;
    let root = tempfile::tempdir().unwrap();
    let marker = root.path().join("warming");
    for is_fetching in [true, false] {
        if is_fetching {
            registry.fail(ARCHIVE, Fault::Hang);
        }
        let mut process = builder(root.path(), &registry);
        poll("the build to be half-way", || {
            if is_fetching { registry.count(ARCHIVE) == 1 } else { marker.exists() }
        })
        .await;
        // Another daemon that starts meanwhile does not touch what is being built.
        let bed = Bed::borrowing(root.path(), registry.environment());
        assert_eq!(bed.directories().len(), 1);
        process.kill().unwrap();
        process.wait().unwrap();
        poll("Deno to die with its parent", || processes_of(root.path()) == 0).await;
        assert_eq!(bed.directories().len(), 1);
        let bed = Bed::borrowing(root.path(), registry.environment());
        assert_eq!(bed.directories(), [""; 0]);
        registry.heal();
    }
    let bed = Bed::borrowing(root.path(), registry.environment());
    bed.ensure(LEFT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_is_finishing_is_waited_for_or_done_in_its_place() {
    let registry = left_and_right().await;
    for finishes in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let (warms, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (Arc::clone(&warms), Arc::clone(&goes_on));
        let first = Bed::at(Root::Borrowed(root.path().to_owned()), registry.environment(), |config| {
            config.warm = Some(Arc::new(move |_| {
                let waits = Arc::clone(&waits);
                told.notify_one();
                Box::pin(async move {
                    waits.notified().await;
                    if finishes { Ok(()) } else { Err("it may not".to_owned()) }
                })
            }));
        });
        let building = start(&first.layers, LEFT);
        warms.notified().await;
        let second = Bed::borrowing(root.path(), registry.environment());
        let (sender, mut progress) = watch::channel(Progress::default());
        let layers = second.layers.clone();
        let waiting = tokio::spawn(async move { layers.ensure(request(LEFT), &sender).await });
        progress.wait_for(|progress| *progress == Progress::Waiting).await.unwrap();
        goes_on.notify_one();
        let (built, waited) = (building.await.unwrap(), waiting.await.unwrap());
        assert_eq!(built.is_ok(), finishes, "{built:?}");
        assert!(waited.is_ok(), "{waited:?}");
        second.tidy(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_ends_with_its_handles_and_says_so() {
    let (layers, task) = Layers::open(conductor_packages::LayersConfig::new(
        tempfile::tempdir().unwrap().path().join("layers"),
        FetchEnvironment::default(),
    ))
    .unwrap();
    let clone = layers.clone();
    let task = tokio::spawn(task.run());
    drop(layers);
    drop(clone);
    tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
}
