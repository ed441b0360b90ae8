//! Builds one layer: stage, fetch, name, warm, seal.
//!
//! The layer gets its final place before it is warmed, since Deno's compiled code is filed under the paths of the modules.
//! Until `layer.json` is written, as the very last thing, nobody takes it for a layer.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::environment::{FetchEnvironment, Registries};
use crate::error::LayerError;
use crate::fetch::{Deno, Fetch, Workplace};
use crate::layer::{
    self, DENO_DIR, FORMAT, LOCK, Layer, LockedPackage, MANIFEST, MissingPackage, RECORD, Record, SEALED,
};
use crate::lockfile::Lockfile;
use crate::progress::Progress;
use crate::request::{Completeness, LayerRequest, PinnedLock};
use crate::specifier::{Package, Registry};
use crate::store::{Placed, Staging, Store};
use crate::tree::{self, Manifest};

/// A layer that is fetched and not yet sealed: Deno may still write into its `DENO_DIR`.
#[derive(Clone, Debug)]
pub struct StagedLayer {
    /// The Deno that its workers will be.
    pub deno: Deno,
    pub deno_dir: PathBuf,
    pub lock: PathBuf,
    pub packages: Vec<LockedPackage>,
    /// As [`Layer::worker_env`].
    pub worker_env: Vec<(String, String)>,
    /// As [`Layer::allow_import`].
    pub allow_import: Option<String>,
}

/// Runs between fetching and sealing, typically to import every package once so that V8's compiled code is kept. An error
/// ends the build. Dropping the future must end what it started.
pub type Warm = Arc<dyn Fn(StagedLayer) -> WarmFuture + Send + Sync>;

/// What [`Warm`] returns; the error is its text.
pub type WarmFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Warming, which another process may be at, takes some hundred milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Everything that one build needs.
pub(crate) struct Build {
    pub(crate) store: Store,
    pub(crate) environment: Arc<FetchEnvironment>,
    pub(crate) request: LayerRequest,
    pub(crate) pinned: Option<Arc<PinnedLock>>,
    pub(crate) warm: Option<Warm>,
    pub(crate) timeout: Duration,
    pub(crate) progress: Arc<watch::Sender<Progress>>,
}

impl Build {
    /// # Cancel safety
    /// Dropping the future kills Deno and removes what was staged.
    pub(crate) async fn run(self) -> Result<Layer, LayerError> {
        let store = self.store.clone();
        let staging = blocking("make room for a package layer", move || store.stage()).await?;
        let registries = self.environment.registries();
        let Fetched { packages, missing } = self.fetch(&staging, &registries).await?;
        let name = self.name(&staging, &registries)?;
        let staging = match self.place(staging, &name).await? {
            Ok(staging) => staging,
            Err(layer) => return Ok(layer),
        };
        let record = Record {
            format: FORMAT.to_owned(),
            deno: self.request.deno.version.clone(),
            packages,
            missing,
            registries,
            created_at: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            bytes: 0,
            manifest_sha256: String::new(),
        };
        self.warm(&staging, &record).await?;
        self.progress.send_replace(Progress::Sealing);
        blocking("seal a package layer", move || seal(staging, record)).await
    }

    async fn fetch(&self, staging: &Staging, registries: &Registries) -> Result<Fetched, LayerError> {
        let place = workplace(staging.path());
        let fetch = Fetch {
            deno: &self.request.deno,
            environment: &self.environment,
            place: &place,
            frozen: self.pinned.is_some(),
            timeout: self.timeout,
        };
        fetch.prepare().map_err(LayerError::io("prepare fetching"))?;
        let mut spelled = self.request.packages.clone();
        if let Some(pinned) = &self.pinned {
            fs::write(&place.lock, &pinned.text).map_err(LayerError::io("write the lock"))?;
            spelled = pinned.spell(&spelled)?;
        }
        let missing = self.resolve(&fetch, &mut spelled).await?;
        let lock = read_lock(&place.lock)?;
        let subpaths = subpaths_of_jsr(staging.path(), &lock, &spelled)?;
        if !subpaths.is_empty() {
            fetch.run(&subpaths, &self.progress).await?;
        }
        fetch.clean().map_err(LayerError::io("clean up after fetching"))?;
        write_npmrc(&place.home(), registries)
            .map_err(LayerError::io("write the addresses of registries"))?;
        let path = staging.path().to_owned();
        let lock = read_lock(&place.lock)?;
        let packages =
            blocking("look at the packages", move || layer::inspect(&path, &lock, &spelled)).await?;
        Ok(Fetched { packages, missing })
    }

    /// Fetches `spelled`; what cannot be had is taken out of it and told, where that is tolerated. What was fetched before
    /// is not fetched again.
    async fn resolve(
        &self,
        fetch: &Fetch<'_>,
        spelled: &mut BTreeSet<Package>,
    ) -> Result<Vec<MissingPackage>, LayerError> {
        let mut missing = Vec::new();
        loop {
            let imports: Vec<String> = spelled.iter().map(Package::to_string).collect();
            let Err(error) = fetch.run(&imports, &self.progress).await else { return Ok(missing) };
            let before = spelled.len();
            if self.request.completeness == Completeness::BestEffort && self.pinned.is_none() {
                missing.extend(spelled.extract_if(.., |package| is_to_blame(&error, package)).map(
                    |package| MissingPackage {
                        package: package.to_string(),
                        reason: error.to_string(),
                        hint: error.hint(),
                    },
                ));
            }
            if spelled.is_empty() || spelled.len() == before {
                return Err(error);
            }
        }
    }

    fn name(&self, staging: &Staging, registries: &Registries) -> Result<String, LayerError> {
        let lock = fs::read(staging.path().join(LOCK)).map_err(LayerError::io("read the lock"))?;
        let packages = self.request.spelled();
        let registries = serde_json::to_vec(registries).unwrap_or_default();
        Ok(tree::hash(&[
            FORMAT.as_bytes(),
            self.request.deno.version.as_bytes(),
            packages.as_bytes(),
            &registries,
            &lock,
        ]))
    }

    /// Gives the layer its name, or finds one of that name. While another process finishes such a one, this waits, and
    /// takes its place if that fails.
    async fn place(&self, mut staging: Staging, name: &str) -> Result<Result<Staging, Layer>, LayerError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let (store, name) = (self.store.clone(), name.to_owned());
            match blocking("place a package layer", move || store.place(staging, &name)).await? {
                Placed::Staging(staging) => return Ok(Ok(staging)),
                Placed::Layer(layer) => return Ok(Err(*layer)),
                Placed::Waits(waiting) => staging = waiting,
            }
            self.progress.send_if_modified(|progress| {
                std::mem::replace(progress, Progress::Waiting) != Progress::Waiting
            });
            if Instant::now() >= deadline {
                let cause = io::Error::new(io::ErrorKind::WouldBlock, "another process is building it");
                return Err(LayerError::io("place a package layer")(cause));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn warm(&self, staging: &Staging, record: &Record) -> Result<(), LayerError> {
        let Some(warm) = &self.warm else { return Ok(()) };
        self.progress.send_replace(Progress::Warming);
        let path = staging.path();
        let layer = StagedLayer {
            deno: self.request.deno.clone(),
            deno_dir: path.join(DENO_DIR),
            lock: path.join(LOCK),
            worker_env: record.worker_env(path),
            allow_import: record.allow_import(),
            packages: record.packages.clone(),
        };
        let warmed = timeout(self.timeout, warm(layer)).await;
        warmed.map_err(|_| LayerError::TimedOut { after: self.timeout })?.map_err(LayerError::warm)
    }
}

/// What one fetch brought.
struct Fetched {
    packages: Vec<LockedPackage>,
    missing: Vec<MissingPackage>,
}

/// True when the failure is that of one listed package, or of jsr: many networks let npm through and nothing else.
fn is_to_blame(error: &LayerError, package: &Package) -> bool {
    match error {
        LayerError::UnknownPackage { package: unknown } => *unknown == package.key(),
        LayerError::NoSuchVersion { package: other, range } => {
            *other == package.key() && package.range() == range.as_str()
        }
        LayerError::RegistryUnreachable { detail } => {
            package.registry() == Registry::Jsr && detail.contains("JSR package")
        }
        _ => false,
    }
}

pub(crate) fn workplace(path: &Path) -> Workplace {
    Workplace { staging: path.to_owned(), deno_dir: path.join(DENO_DIR), lock: path.join(LOCK) }
}

/// All that can be imported from the jsr packages that code may name, so that a worker finds it offline.
fn subpaths_of_jsr(
    staging: &Path,
    lock: &Lockfile,
    spelled: &BTreeSet<Package>,
) -> Result<Vec<String>, LayerError> {
    let exports = layer::jsr_exports(staging, lock).map_err(LayerError::io("read the packages of jsr"))?;
    let of = |package: &Package| {
        let id = lock.id_of(package);
        exports.iter().find(|(of, _)| Some(of) == id.as_ref()).map_or(&[][..], |(_, subpaths)| subpaths)
    };
    let specifiers =
        spelled.iter().flat_map(|package| of(package).iter().map(|subpath| package.specifier(Some(subpath))));
    Ok(specifiers.collect())
}

fn write_npmrc(home: &Path, registries: &Registries) -> std::io::Result<()> {
    if registries.npmrc.is_empty() {
        return Ok(());
    }
    fs::create_dir(home)?;
    fs::write(home.join(".npmrc"), registries.npmrc.join("\n") + "\n")
}

pub(crate) fn read_lock(path: &Path) -> Result<Lockfile, LayerError> {
    let text = fs::read_to_string(path).map_err(LayerError::io("read the lock that Deno wrote"))?;
    Lockfile::parse(&text).map_err(|error| LayerError::Fetch {
        detail: format!("the lock that Deno wrote is not understood: {error}"),
    })
}

fn seal(staging: Staging, mut record: Record) -> std::io::Result<Layer> {
    let path = staging.path();
    for part in SEALED {
        if path.join(part).exists() {
            tree::make_read_only(&path.join(part))?;
        }
    }
    let manifest = Manifest::of(path, &SEALED)?;
    manifest.write(&path.join(MANIFEST))?;
    tree::sync(path)?;
    record.bytes = manifest.bytes();
    record.manifest_sha256 = tree::hash_file(&path.join(MANIFEST))?;
    conductor_files::replace(&path.join(RECORD), &serde_json::to_vec_pretty(&record)?)?;
    staging.finish()
}

pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, LayerError> {
    let done = spawn_blocking(work).await.map_err(std::io::Error::other);
    done.and_then(|done| done).map_err(LayerError::io(doing))
}

impl PinnedLock {
    /// The lock's own spellings of `packages`.
    fn spell(&self, packages: &BTreeSet<Package>) -> Result<BTreeSet<Package>, LayerError> {
        let spell = |package: &Package| {
            self.lock.spelling_within(package).ok_or_else(|| LayerError::NotInPinnedLock {
                package: package.to_string(),
                file: self.file.clone(),
            })
        };
        packages.iter().map(spell).collect()
    }
}
