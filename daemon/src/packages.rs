//! Packages for sessions: which layer a call's code runs on, and what its workers import ahead of time.
//!
//! A profile's whole list becomes one layer, built in the background while a session is connected. A call that imports
//! something before that layer is there, or although it cannot be had, gets a layer of just what it imports; a call that
//! imports nothing never waits. Owns the layers at hand, the state of builds and the counts of use.

mod keep;
mod preload;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conductor_deno::DenoBinary;
use conductor_packages::{
    Asked, Change, Deno, FetchEnvironment, Layer, LayerError, LayerRequest, Layers, LayersConfig, LayersTask,
    Progress, StagedLayer, Warm,
};
use conductor_pool::{DenoSpawn, Packages, Rehearsal};
use tokio::sync::{mpsc, watch};

use crate::dirs::Dirs;
use crate::error_chain;
use crate::exec::CallEvent;
use crate::profile::Profile;
use preload::Preloads;

/// Layers kept at hand: a few profiles of a few sessions, and the latest sets of calls that may have any package.
const AT_HAND: usize = 16;

/// How long the packages of a layer may take to warm: what is left over is imported cold. Less than a build may take, so
/// that a long list on a slow machine has a layer all the same.
const WARM_LIMIT: Duration = Duration::from_secs(60);

/// What the layer was warmed for, beside the layer.
const WARMED_FOR: &str = "warmed-for";

/// What was measured of a layer's packages, beside the layer.
const COSTS: &str = "costs.json";

/// Looks after the packages of all sessions.
#[derive(Debug)]
pub struct PackageService {
    layers: Layers,
    /// As [`DenoSpawn::warms_for`].
    warms_for: String,
    /// Most recently used last.
    at_hand: Mutex<Vec<(LayerRequest, Arc<Provided>)>>,
    builds: Mutex<Vec<Building>>,
    next_build: AtomicU64,
    preloads: Mutex<Preloads>,
    /// By profile, why its whole list has no layer, or not all of it.
    failures: Mutex<BTreeMap<String, LayerError>>,
    /// Counts layers that came to hand and choices of preloads that changed.
    changes: watch::Sender<u64>,
}

/// A layer that workers can run on.
#[derive(Debug)]
pub struct Provided {
    pub layer: Arc<Layer>,
    /// What each package's import costs, as far as it was measured.
    pub costs: Vec<Rehearsal>,
}

/// A build that somebody waits for.
#[derive(Clone, Debug)]
pub struct Building {
    id: u64,
    pub packages: Vec<String>,
    pub since: Instant,
    pub progress: watch::Receiver<Progress>,
}

impl PackageService {
    /// Opens the layers in the cache directory. The task must run for anything to be built.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(dirs: &Dirs, source: DenoSpawn) -> io::Result<(Self, LayersTask)> {
        let mut config = LayersConfig::new(dirs.cache.join("layers"), FetchEnvironment::from_env());
        let warms_for = source.warms_for();
        config.warm = Some(warm(source, warms_for.clone()));
        let (layers, task) = Layers::open(config)?;
        let service = Self {
            layers,
            warms_for,
            at_hand: Mutex::default(),
            builds: Mutex::default(),
            next_build: AtomicU64::new(0),
            preloads: Mutex::new(Preloads::open(&dirs.state)),
            failures: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Ok((service, task))
    }

    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is being built, the oldest first.
    pub fn builds(&self) -> Vec<Building> {
        lock(&self.builds).clone()
    }

    /// The layer of the profile's whole list, if it is at hand.
    pub fn at_hand(&self, profile: &Profile, deno: &DenoBinary) -> Option<Arc<Provided>> {
        self.find(&list_request(profile, deno)?)
    }

    /// What workers of the profile that wait for any call can import: [`PackageService::at_hand`], with its preloads.
    pub fn at_hand_for(&self, profile: &Profile, deno: &DenoBinary) -> Option<Packages> {
        let provided = self.at_hand(profile, deno)?;
        Some(self.worker_packages(profile, &provided))
    }

    /// Why the profile's whole list has no layer, or one without some of its packages.
    pub fn failure(&self, profile: &Profile) -> Option<LayerError> {
        lock(&self.failures).get(&profile.name).cloned()
    }

    /// A layer with what a call asks for.
    ///
    /// # Errors
    /// See [`LayerError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the build if nobody else waits for it.
    pub async fn provide(
        &self,
        profile: &Profile,
        deno: &DenoBinary,
        asked: &[Asked],
        events: Option<&mpsc::Sender<CallEvent>>,
    ) -> Result<Arc<Provided>, LayerError> {
        if !profile.packages.allowed.allows_any()
            && let Some(provided) = self.look(profile, deno).await?
        {
            match self.failure(profile) {
                // It stands in for the layer of the whole list, whose failure is known: no call waits for it again.
                Some(error) if !asked.iter().all(|asked| provided.knows(asked)) => return Err(error),
                _ => return Ok(provided),
            }
        }
        let lock = profile.packages.lock.clone();
        let request = LayerRequest::of_call(asked, deno_of(deno), lock).ok_or(LayerError::Nothing)?;
        self.ensure(request, events).await
    }

    /// What a worker of this layer is, with what is imported ahead of time for this profile.
    pub fn worker_packages(&self, profile: &Profile, provided: &Provided) -> Packages {
        let preload = lock(&self.preloads).choice(profile, provided);
        Packages { preload, ..worker_packages(&provided.layer) }
    }

    /// Counts the packages that a run has imported.
    pub fn used(self: &Arc<Self>, profile: &Profile, provided: &Provided, asked: &[Asked]) {
        if lock(&self.preloads).used(profile, provided, asked) {
            self.changes.send_modify(|count| *count += 1);
            let service = self.clone();
            // Not waited for: what is lost in a crash is a guess at what to import ahead of time.
            drop(tokio::task::spawn_blocking(move || service.save()));
        }
    }

    /// Keeps the counts of use for the next daemon. Writes a file of some kilobytes.
    pub fn save(&self) {
        lock(&self.preloads).save();
    }

    /// How often runs of a profile imported each package lately.
    pub fn uses(&self, profile: &Profile) -> Vec<(String, f64)> {
        lock(&self.preloads).uses(profile)
    }

    /// Resolves a request anew; its layer takes the place of the one before, which running workers keep.
    ///
    /// # Errors
    /// See [`LayerError`]; the layer before stays.
    ///
    /// # Cancel safety
    /// As [`PackageService::provide`].
    pub async fn update(
        &self,
        profile: &Profile,
        request: LayerRequest,
        progress: &watch::Sender<Progress>,
    ) -> Result<Vec<Change>, LayerError> {
        let _building = self.building(&request, progress);
        let (layer, changes) = self.layers.update(request.clone(), progress).await?;
        let lack = keep::lack(layer.missing());
        self.keep(request, Provided::of(layer));
        match lack {
            Some(lack) => lock(&self.failures).insert(profile.name.clone(), lack),
            None => lock(&self.failures).remove(&profile.name),
        };
        Ok(changes)
    }

    /// True while workers of a session may run on the layer.
    pub fn is_at_hand(&self, layer: &str) -> bool {
        lock(&self.at_hand).iter().any(|(_, provided)| provided.layer.name() == layer)
    }

    /// Forgets the layers at hand: what a request leads to may have changed on disk.
    pub fn look_again(&self) {
        lock(&self.at_hand).clear();
    }

    /// The layer of the profile's whole list, if it was built at any time; nothing is fetched.
    async fn look(&self, profile: &Profile, deno: &DenoBinary) -> Result<Option<Arc<Provided>>, LayerError> {
        let Some(request) = list_request(profile, deno) else { return Ok(None) };
        if let Some(provided) = self.find(&request) {
            return Ok(Some(provided));
        }
        let layer = self.layers.find(request.clone()).await?;
        Ok(layer.map(|layer| self.keep(request, Provided::of(layer.into()))))
    }

    async fn ensure(
        &self,
        request: LayerRequest,
        events: Option<&mpsc::Sender<CallEvent>>,
    ) -> Result<Arc<Provided>, LayerError> {
        if let Some(provided) = self.find(&request) {
            return Ok(provided);
        }
        let progress = watch::Sender::new(Progress::default());
        let _building = self.building(&request, &progress);
        let told = tell(progress.subscribe(), events);
        let layer = tokio::select! {
            // Not resumed after it has lost, which never happens: telling has no end.
            layer = self.layers.ensure(request.clone(), &progress) => layer?,
            never = told => match never {},
        };
        Ok(self.keep(request, Provided::of(layer)))
    }

    fn find(&self, request: &LayerRequest) -> Option<Arc<Provided>> {
        let mut at_hand = lock(&self.at_hand);
        let index = at_hand.iter().position(|(of, _)| of == request)?;
        let entry = at_hand.remove(index);
        let provided = entry.1.clone();
        at_hand.push(entry);
        Some(provided)
    }

    fn keep(&self, request: LayerRequest, provided: Provided) -> Arc<Provided> {
        let provided = Arc::new(provided);
        let mut at_hand = lock(&self.at_hand);
        at_hand.retain(|(of, _)| *of != request);
        at_hand.push((request, provided.clone()));
        let over = at_hand.len().saturating_sub(AT_HAND);
        at_hand.drain(..over);
        drop(at_hand);
        self.changes.send_modify(|count| *count += 1);
        provided
    }

    /// Shows a build until the guard is dropped.
    fn building(&self, request: &LayerRequest, progress: &watch::Sender<Progress>) -> Shown<'_> {
        let id = self.next_build.fetch_add(1, Ordering::Relaxed);
        lock(&self.builds).push(Building {
            id,
            packages: request.packages.iter().map(ToString::to_string).collect(),
            since: Instant::now(),
            progress: progress.subscribe(),
        });
        Shown { service: self, id }
    }
}

struct Shown<'a> {
    service: &'a PackageService,
    id: u64,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        lock(&self.service.builds).retain(|building| building.id != self.id);
    }
}

impl Provided {
    pub(crate) fn of(layer: Arc<Layer>) -> Self {
        let costs = read_costs(layer.path());
        Self { layer, costs }
    }

    /// True when Deno's caches in it serve the workers that [`DenoSpawn::warms_for`] this.
    fn is_warm_for(&self, warms_for: &str) -> bool {
        std::fs::read_to_string(self.layer.path().join(WARMED_FOR)).is_ok_and(|is| is == warms_for)
    }

    /// True when it has the package, or can tell why not.
    fn knows(&self, asked: &Asked) -> bool {
        let (key, listed) = (asked.package().key(), asked.package().to_string());
        self.layer.packages().iter().any(|package| package.key == key)
            || self.layer.missing().iter().any(|missing| missing.package == listed)
    }
}

/// Tells a waiting call how a build goes; never ends.
async fn tell(
    mut progress: watch::Receiver<Progress>,
    events: Option<&mpsc::Sender<CallEvent>>,
) -> std::convert::Infallible {
    while let (Some(events), Ok(())) = (events, progress.changed().await) {
        let text = format!("packages: {}", *progress.borrow_and_update());
        // receiver gone: the session ended; full: it has newer things to tell
        let _told = events.try_send(CallEvent::Phase(text));
    }
    std::future::pending().await
}

/// What the profile's whole list asks for; `None` when it names nothing.
pub(crate) fn list_request(profile: &Profile, deno: &DenoBinary) -> Option<LayerRequest> {
    let rules = &profile.packages;
    LayerRequest::of_list(&rules.allowed, deno_of(deno), rules.lock.clone())
}

fn deno_of(deno: &DenoBinary) -> Deno {
    Deno { path: deno.path.clone(), version: deno.version.to_string() }
}

fn worker_packages(layer: &Layer) -> Packages {
    Packages {
        deno_dir: layer.deno_dir(),
        lock: layer.lock(),
        env: layer.worker_env().into_iter().collect(),
        allow_import: layer.allow_import(),
        spellings: layer.spellings(),
        preload: Vec::new(),
    }
}

/// Imports every package once in a worker without grants: fills Deno's caches and measures what an import costs.
fn warm(source: DenoSpawn, warms_for: String) -> Warm {
    Arc::new(move |staged: StagedLayer| {
        let (source, warms_for) = (source.clone(), warms_for.clone());
        Box::pin(async move {
            let packages = Packages {
                deno_dir: staged.deno_dir,
                env: staged.worker_env.into_iter().collect(),
                allow_import: staged.allow_import,
                spellings: Default::default(),
                preload: Vec::new(),
                lock: staged.lock,
            };
            let pure = staged.packages.into_iter().filter(|package| package.native.is_none());
            let specifiers: Vec<String> = pure.map(|package| package.spelling).collect();
            let costs = source.rehearse(&staged.deno.path, &packages, &specifiers, WARM_LIMIT).await;
            let costs = costs.map_err(|error| error_chain(&error))?;
            remove_links(&packages.deno_dir)
                .map_err(|error| format!("cannot clean up after Deno: {error}"))?;
            let directory = packages.lock.parent().unwrap_or(Path::new("/"));
            std::fs::write(directory.join(WARMED_FOR), warms_for)
                .and_then(|()| write_costs(directory, &costs))
                .map_err(|error| format!("cannot write what warming has shown: {error}"))
        })
    })
}

/// Deno links its own executable where programs look for `node`. A layer has no links: they lead out of it.
fn remove_links(deno_dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(deno_dir.join("node_compat_bin")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_costs(layer: &Path, costs: &[Rehearsal]) -> io::Result<()> {
    std::fs::write(layer.join(COSTS), serde_json::to_vec(costs)?)
}

/// Without costs nothing is imported ahead of time; everything else works.
fn read_costs(layer: &Path) -> Vec<Rehearsal> {
    let costs = std::fs::read(layer.join(COSTS)).and_then(|json| Ok(serde_json::from_slice(&json)?));
    costs.unwrap_or_else(|error| {
        tracing::warn!(layer = %layer.display(), %error, "what imports cost is not known");
        Vec::new()
    })
}

/// Locks plain data that no panic leaves half-changed.
fn lock<T>(data: &Mutex<T>) -> MutexGuard<'_, T> {
    data.lock().unwrap_or_else(PoisonError::into_inner)
}
