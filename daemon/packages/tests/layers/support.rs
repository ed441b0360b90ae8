//! A root for layers with its task, requests, and a worker as the pool would start it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_packages::{
    Allowlist, Deno, FetchEnvironment, Layer, LayerError, LayerRequest, Layers, LayersConfig, Progress,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a condition may take to come true on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    pub(crate) root: Root,
    pub(crate) layers: Layers,
    task: JoinHandle<()>,
}

/// The directory above the layers.
pub(crate) enum Root {
    Owned(TempDir),
    Borrowed(PathBuf),
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Owned(directory) => directory.path(),
            Self::Borrowed(path) => path,
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bed {
    /// Fetches with the environment of the tests, as a user would.
    pub(crate) fn new() -> Self {
        Self::with(FetchEnvironment::from_env(), |_| {})
    }

    pub(crate) fn with(environment: FetchEnvironment, adjust: impl FnOnce(&mut LayersConfig)) -> Self {
        Self::at(Root::Owned(tempfile::tempdir().unwrap()), environment, adjust)
    }

    pub(crate) fn at(
        root: Root,
        environment: FetchEnvironment,
        adjust: impl FnOnce(&mut LayersConfig),
    ) -> Self {
        let mut config = LayersConfig::new(root.path().join("layers"), environment);
        adjust(&mut config);
        let (layers, task) = Layers::open(config).unwrap();
        Self { root, layers, task: tokio::spawn(task.run()) }
    }

    /// Works in a directory that somebody else removes.
    pub(crate) fn borrowing(root: &Path, environment: FetchEnvironment) -> Self {
        Self::at(Root::Borrowed(root.to_owned()), environment, |_| {})
    }

    /// Ends the task and gives the directory back.
    pub(crate) fn close(mut self) -> Root {
        std::mem::replace(&mut self.root, Root::Borrowed(PathBuf::new()))
    }

    pub(crate) async fn ensure(&self, list: &str) -> Result<Arc<Layer>, LayerError> {
        self.layers.ensure(request(list), &watch::Sender::default()).await
    }

    /// Everything in the root but the lock and the index.
    pub(crate) fn directories(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path().join("layers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".lock" && name != "index").collect()
    }

    /// Waits until so many finished layers are left and nothing else.
    pub(crate) async fn tidy(&self, layers: usize) {
        poll("the root to be tidy", || self.directories().len() == layers && self.is_finished()).await;
    }

    /// Waits until nothing but finished layers is left.
    pub(crate) async fn finished(&self) {
        poll("all that is unfinished to be removed", || self.is_finished()).await;
    }

    fn is_finished(&self) -> bool {
        let layers = self.root.path().join("layers");
        self.directories()
            .iter()
            .all(|name| !name.starts_with('.') && layers.join(name).join("layer.json").exists())
    }
}

pub(crate) fn deno() -> Deno {
    let deno = conductor_deno::testing::deno();
    Deno { path: deno.path.clone(), version: deno.version.to_string() }
}

pub(crate) fn list(text: &str) -> Allowlist {
    Allowlist::parse(text).unwrap()
}

pub(crate) fn request(text: &str) -> LayerRequest {
    LayerRequest::of_list(&list(text), deno(), None).unwrap()
}

pub(crate) async fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs JavaScript with the flags of a worker: no permission, the layer's lock frozen, nothing fetched. As root, without
/// the capabilities with which root could write what is read-only.
pub(crate) fn work(layer: &Layer, code: &str) -> String {
    let output = work_with(&layer.deno_dir(), &layer.lock(), &layer.worker_env(), layer.allow_import(), code);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(crate) fn work_with(
    deno_dir: &Path,
    lock: &Path,
    env: &[(String, String)],
    allow_import: Option<String>,
    code: &str,
) -> Output {
    let place = tempfile::tempdir().unwrap();
    let module = place.path().join("main.js");
    std::fs::write(&module, code).unwrap();
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(deno().path);
        command
    } else {
        Command::new(deno().path)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args([
        "run",
        "--no-prompt",
        "--no-config",
        "--no-check",
        "--node-modules-dir=none",
        "--cached-only",
    ]);
    command.args(["--ignore-env", "--frozen", "--quiet"]);
    command.arg(format!("--allow-import={}", allow_import.unwrap_or_else(|| "none.invalid".to_owned())));
    command.arg(format!("--lock={}", lock.display())).arg(&module).current_dir(place.path());
    command.env_clear().env("PATH", path).env("DENO_DIR", deno_dir).env("HOME", "/nonexistent");
    command.env("NO_COLOR", "1").env("DENO_NO_UPDATE_CHECK", "1").envs(env.iter().cloned());
    command.output().unwrap()
}

/// What an import of each specifier gives, in a process of its own: `ok`, or the error's text.
pub(crate) fn import(layer: &Layer, specifier: &str) -> String {
    let code = format!(
        "try {{ await import({specifier:?} + ''); console.log('ok') }} catch (e) {{ console.log(e.message) }}"
    );
    work(layer, &code)
}

/// Collects the progress of a build.
pub(crate) fn observed() -> (watch::Sender<Progress>, JoinHandle<Vec<String>>) {
    let sender = watch::Sender::new(Progress::default());
    let mut receiver = sender.subscribe();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while receiver.changed().await.is_ok() {
            seen.push(receiver.borrow_and_update().to_string());
        }
        seen
    });
    (sender, seen)
}
