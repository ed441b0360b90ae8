//! The handle to all layers, and the task behind it.
//!
//! [`LayersTask`] owns which builds run, who waits for them, and which failed lately. A request that was built before is
//! answered from the disk, without any registry. Equal requests share one build; a caller that goes away leaves it running
//! while another waits, and the last one to go takes it along.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;

use crate::build::{Build, Warm, blocking};
use crate::environment::FetchEnvironment;
use crate::error::LayerError;
use crate::layer::Layer;
use crate::progress::Progress;
use crate::request::{LayerRequest, PinnedLock};
use crate::store::{Found, Limits, Store};

mod failures;
mod operations;

use failures::Failures;
pub use operations::{Change, Outdated, Verified};

/// Requests on their way. The task takes each in microseconds; when that many pile up, the next sender waits its turn.
const REQUESTS: usize = 64;

/// Settings of [`Layers`].
#[derive(Clone)]
pub struct LayersConfig {
    /// The directory of all layers, on a file system with locks. Made if missing.
    pub root: PathBuf,
    pub environment: FetchEnvironment,
    /// For one step of a build that waits for something outside: fetching, warming.
    pub timeout: Duration,
    /// Builds at once; further ones wait. Each is a process with some hundred megabytes of downloads.
    pub max_builds: usize,
    pub limits: Limits,
    pub warm: Option<Warm>,
}

impl LayersConfig {
    /// Two minutes a step, two builds at once, nothing warmed.
    pub fn new(root: PathBuf, environment: FetchEnvironment) -> Self {
        let timeout = Duration::from_secs(120);
        Self { root, environment, timeout, max_builds: 2, limits: Limits::default(), warm: None }
    }
}

impl std::fmt::Debug for LayersConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayersConfig")
            .field("root", &self.root)
            .field("environment", &self.environment)
            .field("timeout", &self.timeout)
            .field("max_builds", &self.max_builds)
            .field("limits", &self.limits)
            .field("warm", &self.warm.is_some())
            .finish()
    }
}

/// Asks one [`LayersTask`] for layers. When the last handle is dropped, the task ends and its builds with it.
#[derive(Clone, Debug)]
pub struct Layers {
    requests: mpsc::Sender<Ensure>,
    store: Store,
    environment: Arc<FetchEnvironment>,
    timeout: Duration,
    limits: Limits,
}

type Answer = Result<Arc<Layer>, LayerError>;

#[derive(Debug)]
struct Ensure {
    wanted: Wanted,
    reply: oneshot::Sender<Answer>,
    /// Where to see the progress of the build.
    watching: oneshot::Sender<watch::Receiver<Progress>>,
}

/// What a build needs to know, and by what it is told from others.
#[derive(Clone, Debug)]
struct Wanted {
    request: LayerRequest,
    pinned: Option<Arc<PinnedLock>>,
    key: String,
    resolve: Resolve,
}

/// Whether a layer that is there will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resolve {
    IfMissing,
    Anew,
}

impl Layers {
    /// Opens the directory and removes what dead processes left in it. The task must be run for anything to happen.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(config: LayersConfig) -> io::Result<(Self, LayersTask)> {
        let store = Store::open(&config.root)?;
        store.clean()?;
        let (requests, received) = mpsc::channel(REQUESTS);
        let environment = Arc::new(config.environment);
        let LayersConfig { timeout, limits, warm, .. } = config;
        let builder = Builder {
            store,
            environment,
            timeout,
            warm,
            permits: Arc::new(Semaphore::new(config.max_builds.max(1))),
            limits,
        };
        let handle = Self {
            requests,
            store: builder.store.clone(),
            environment: Arc::clone(&builder.environment),
            timeout,
            limits,
        };
        let (flights, builds, failures) = (HashMap::new(), JoinSet::new(), Failures::default());
        let task = LayersTask { received, builder, flights, builds, failures };
        Ok((handle, task))
    }

    /// The layer for a request: from the disk, else built. `progress` is told how far the build is.
    ///
    /// A failure is remembered for some seconds, so that calls that come one after another do not each wait for it.
    ///
    /// # Errors
    /// See [`LayerError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the build if nobody else waits for it.
    pub async fn ensure(
        &self,
        request: LayerRequest,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<Layer>, LayerError> {
        self.request(request, Resolve::IfMissing, progress).await
    }

    async fn request(
        &self,
        request: LayerRequest,
        resolve: Resolve,
        progress: &watch::Sender<Progress>,
    ) -> Answer {
        let wanted = self.identify(request, resolve).await?;
        let (reply, mut answer) = oneshot::channel();
        let (watching, seen) = oneshot::channel();
        self.requests.send(Ensure { wanted, reply, watching }).await.map_err(|_| LayerError::Gone)?;
        // The receiver is what shows the build that somebody waits: it must live as long as this future.
        let Ok(mut build) = seen.await else { return answer.await.map_err(|_| LayerError::Gone)? };
        loop {
            progress.send_replace(build.borrow_and_update().clone());
            // Cancel-safe: both arms only wait, for a oneshot by reference and for a watch.
            tokio::select! {
                answer = &mut answer => return answer.map_err(|_| LayerError::Gone)?,
                changed = build.changed() => if changed.is_err() { return answer.await.map_err(|_| LayerError::Gone)? },
            }
        }
    }

    async fn identify(&self, request: LayerRequest, resolve: Resolve) -> Result<Wanted, LayerError> {
        if request.packages.is_empty() {
            return Err(LayerError::Nothing);
        }
        let environment = Arc::clone(&self.environment);
        let identified = task::spawn_blocking(move || {
            let pinned = request.pinned()?.map(Arc::new);
            let key = request.key(pinned.as_deref(), &environment.registries());
            Ok(Wanted { request, pinned, key, resolve })
        });
        identified.await.map_err(|_| LayerError::Gone)?
    }
}

/// One build and those who wait for it.
#[derive(Debug)]
struct Flight {
    wanted: Wanted,
    waiting: Vec<oneshot::Sender<Answer>>,
    progress: Arc<watch::Sender<Progress>>,
    task: Option<task::Id>,
}

type FlightId = (String, Resolve);

/// Owns builds, waiters and recent failures. See the module.
#[derive(Debug)]
pub struct LayersTask {
    received: mpsc::Receiver<Ensure>,
    builder: Builder,
    flights: HashMap<FlightId, Flight>,
    builds: JoinSet<(FlightId, Answer)>,
    failures: Failures,
}

impl LayersTask {
    /// Serves requests until the last handle is gone; then every build ends.
    ///
    /// # Cancel safety
    /// Dropping the future ends every build.
    pub async fn run(mut self) {
        self.prune_once();
        loop {
            // Cancel-safe: `recv` and `join_next` lose nothing when the other arm is taken.
            tokio::select! {
                request = self.received.recv() => match request {
                    Some(ensure) => self.ensure(ensure),
                    None => return,
                },
                Some(ended) = self.builds.join_next() => match ended {
                    Ok((id, answer)) => self.ended(id, answer),
                    Err(error) => self.died(error),
                },
            }
        }
    }

    /// Removes what grew too old or too much while nobody ran; requests are served meanwhile.
    fn prune_once(&self) {
        let (store, limits) = (self.builder.store.clone(), self.builder.limits);
        drop(task::spawn_blocking(move || {
            if let Err(error) = store.prune(limits, SystemTime::now()) {
                tracing::warn!(%error, "cannot remove old package layers");
            }
        }));
    }

    /// A build panicked: those who wait for it must not wait for ever.
    fn died(&mut self, error: JoinError) {
        tracing::error!(%error, "a build of a package layer ended without a result");
        let id =
            self.flights.iter().find(|(_, flight)| flight.task == Some(error.id())).map(|(id, _)| id.clone());
        if let Some(id) = id {
            let cause = Arc::new(io::Error::other(error));
            self.ended(id, Err(LayerError::Io { doing: "build a package layer", cause }));
        }
    }

    fn ensure(&mut self, Ensure { wanted, reply, watching }: Ensure) {
        if wanted.resolve == Resolve::IfMissing
            && let Some(error) = self.failures.recent(&wanted.key, Instant::now())
        {
            // receiver gone: the caller gave up
            let _gone = reply.send(Err(error)).is_err();
            return;
        }
        let id = (wanted.key.clone(), wanted.resolve);
        let is_new = !self.flights.contains_key(&id);
        let flight = self.flights.entry(id.clone()).or_insert_with(|| Flight {
            wanted,
            waiting: Vec::new(),
            progress: Arc::new(watch::Sender::new(Progress::Queued)),
            task: None,
        });
        flight.waiting.push(reply);
        // receiver gone: the caller gave up; the build sees that nobody watches
        let _gone = watching.send(flight.progress.subscribe()).is_err();
        if is_new {
            self.start(id);
        }
    }

    fn start(&mut self, id: FlightId) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let (builder, wanted) = (self.builder.clone(), flight.wanted.clone());
        let progress = Arc::clone(&flight.progress);
        let task = self.builds.spawn(async move {
            // Cancel-safe: a build that is dropped kills its process and removes what it staged.
            let answer = tokio::select! {
                answer = builder.get(wanted, Arc::clone(&progress)) => answer,
                () = progress.closed() => Err(LayerError::Cancelled),
            };
            (id, answer)
        });
        flight.task = Some(task.id());
    }

    fn ended(&mut self, id: FlightId, answer: Answer) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.waiting.retain(|waiting| !waiting.is_closed());
        // Somebody came in the moment in which the last one before left.
        if matches!(answer, Err(LayerError::Cancelled)) && !flight.waiting.is_empty() {
            return self.start(id);
        }
        // An update that failed says nothing about the layer that is there.
        if id.1 == Resolve::IfMissing || answer.is_ok() {
            self.failures.note(&id.0, &answer, Instant::now());
        }
        for waiting in self.flights.remove(&id).map(|flight| flight.waiting).unwrap_or_default() {
            // receiver gone: the caller gave up
            let _gone = waiting.send(answer.clone()).is_err();
        }
    }
}

/// What every build shares.
#[derive(Clone)]
struct Builder {
    store: Store,
    environment: Arc<FetchEnvironment>,
    timeout: Duration,
    warm: Option<Warm>,
    permits: Arc<Semaphore>,
    limits: Limits,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Builder {
    async fn get(self, wanted: Wanted, progress: Arc<watch::Sender<Progress>>) -> Answer {
        let mut damage = None;
        if wanted.resolve == Resolve::IfMissing {
            match self.find(wanted.key.clone()).await? {
                Found::Layer(layer) if layer.is_worth_a_try(SystemTime::now()) => {
                    return Ok(self.complete(*layer, wanted, progress).await);
                }
                Found::Layer(layer) => return Ok(Arc::new(*layer)),
                Found::Damaged(detail) => damage = Some(detail),
                Found::Nothing => {}
            }
        }
        let built = self.build(wanted, progress).await;
        built.map_err(|error| match damage {
            Some(detail) => LayerError::Damaged { detail, rebuild: Box::new(error) },
            None => error,
        })
    }

    /// Tries to have what is missing, too; without it the layer is as good as before.
    async fn complete(
        &self,
        layer: Layer,
        wanted: Wanted,
        progress: Arc<watch::Sender<Progress>>,
    ) -> Arc<Layer> {
        let best = match self.build(wanted, progress).await {
            Ok(built) => built,
            Err(error) => {
                tracing::debug!(%error, "a package layer stays incomplete");
                Arc::new(layer)
            }
        };
        if let Err(error) = best.note_try(SystemTime::now()) {
            tracing::debug!(%error, "an incomplete package layer will be tried again at once");
        }
        best
    }

    async fn build(&self, wanted: Wanted, progress: Arc<watch::Sender<Progress>>) -> Answer {
        let Wanted { request, pinned, key, .. } = wanted;
        let _permit = self.permits.acquire().await.map_err(|_| LayerError::Gone)?;
        let build = Build {
            store: self.store.clone(),
            environment: Arc::clone(&self.environment),
            request,
            pinned,
            warm: self.warm.clone(),
            timeout: self.timeout,
            progress,
        };
        let layer = build.run().await?;
        let (store, limits) = (self.store.clone(), self.limits);
        blocking("record a package layer", move || {
            store.index(&key, layer.name())?;
            // Nothing that is needed now can go: it is in use.
            if let Err(error) = store.prune(limits, SystemTime::now()) {
                tracing::warn!(%error, "cannot remove old package layers");
            }
            Ok(Arc::new(layer))
        })
        .await
    }

    async fn find(&self, key: String) -> Result<Found, LayerError> {
        let store = self.store.clone();
        blocking("look for a package layer", move || store.find(&key)).await
    }
}
