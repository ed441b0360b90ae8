//! Workers made by starting Deno: the portable source, and the reference for every other.
//!
//! [`DenoSpawn`] owns the directories a worker needs: the harness file, the read-only `DENO_DIR`, the empty working
//! directory. To boot a worker it makes sure they are there and unchanged, builds the command line, and has the launcher
//! started with five descriptors. From then on the process belongs to [`DenoWorker`](crate::worker::DenoWorker).
//!
//! It never decides permissions: the spec does, and [`command_line`] translates them.

pub(crate) mod cgroups;
pub(crate) mod command_line;
pub(crate) mod deno_dir;
mod rehearsal;
mod spoiled;
pub(crate) mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use conductor_jail::{Layer, Level, Report, State};
use tokio::sync::{Mutex, OnceCell};

use crate::excerpt;
use crate::launcher::jail::{Own, jail};
use crate::launcher::{Launch, Proof};
use crate::source::{BoxFuture, SpawnError, Worker, WorkerSource};
use crate::spec::WorkerSpec;
use crate::worker::DenoWorker;
use crate::worker::sharing::Sharing;
pub use cgroups::Cgroups;
use command_line::{CommandLine, environment, reads};
use deno_dir::{DenoDir, Directories};
pub(crate) use deno_dir::{HARNESS, Origin};
pub use rehearsal::Rehearsal;
pub(crate) use rehearsal::own_memory;
use spoiled::Spoiled;
use start::{Start, Started};

/// Where [`DenoSpawn`] keeps its files and how it starts workers.
#[derive(Clone, Debug)]
pub struct SpawnConfig {
    /// A program whose `main` begins with [`launcher::run_if_asked`](crate::launcher::run_if_asked).
    pub launcher: PathBuf,
    /// Conductor's own cache directory; everything below `deno-dir`, `harness`, `empty` and `trials` in it belongs to `DenoSpawn`.
    pub cache_dir: PathBuf,
    /// How long a worker may take from its start until it is warm.
    pub boot_timeout: Duration,
    /// Whether a worker boots without a layer of the jail that this machine lacks.
    pub level: Level,
    /// The layers of the jail: [`Layer::DEFAULT`], and `NoNewCode` for workers without V8's compiler.
    pub layers: BTreeSet<Layer>,
    /// Where each worker has a control group of its own.
    pub cgroups: Cgroups,
}

impl SpawnConfig {
    /// The running program is its own launcher, even after an upgrade has replaced it on disk.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self {
            launcher: "/proc/self/exe".into(),
            cache_dir,
            boot_timeout: Duration::from_secs(10),
            level: Level::BestEffort,
            layers: Layer::DEFAULT.into(),
            cgroups: Cgroups::none("this process has not settled in one"),
        }
    }
}

/// Makes each worker by starting Deno.
#[derive(Clone, Debug)]
pub struct DenoSpawn {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: SpawnConfig,
    /// The prepared `DENO_DIR` of each Deno seen so far. Held across a preparation, so that there is one at a time.
    prepared: Mutex<HashMap<PathBuf, DenoDir>>,
    /// Tried out once: it is the same for every worker.
    proof: OnceCell<Proof>,
    spoiled: Spoiled,
}

impl DenoSpawn {
    /// Touches nothing yet: the directories are made when the first worker boots.
    pub fn new(config: SpawnConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                prepared: Mutex::default(),
                proof: OnceCell::new(),
                spoiled: Spoiled::default(),
            }),
        }
    }

    /// Whether the jail of the workers holds. Takes milliseconds the first time.
    ///
    /// # Cancel safety
    /// Cancel-safe: a test that was given up is begun again.
    pub async fn proof(&self) -> &Proof {
        self.inner.proof().await
    }

    /// What [`proof`](Self::proof) found, if it is done.
    pub fn known_proof(&self) -> Option<&Proof> {
        self.inner.proof.get()
    }

    /// Boots a template of workers of this spec.
    pub(crate) async fn boot_template(
        &self,
        spec: &WorkerSpec,
        library: &[u8],
        socket: OwnedFd,
        sharing: &mut Sharing,
    ) -> Result<(DenoWorker, Origin), SpawnError> {
        let inner = &self.inner;
        let directories = Directories::install(&inner.config.cache_dir).map_err(SpawnError::Prepare)?;
        let library = directories.install_library(library).map_err(SpawnError::Prepare)?;
        let own = match &spec.packages {
            Some(_) => None,
            None => Some(inner.deno_dir(&spec.deno, &directories).await?),
        };
        // Before it starts: what changes while it does makes it outdated.
        let origin = Origin::of(&spec.deno, own).map_err(SpawnError::Prepare)?;
        let origin = origin.with_layer(spec.packages.as_ref());
        let parts = TemplateParts { library, socket, sharing };
        let limit = inner.config.boot_timeout;
        Ok((inner.boot_in(spec, &directories, Some(parts), limit).await?, origin))
    }

    /// A spec that grants nothing.
    pub(crate) fn plain_spec(&self, deno: &Path) -> WorkerSpec {
        rehearsal::plain_spec(deno, &self.inner.config.cache_dir)
    }

    /// As for a worker that was started; for one that was forked.
    pub(crate) async fn enclose(&self, started: Started, spec: &WorkerSpec) -> Result<Started, SpawnError> {
        self.inner.enclose(started, spec).await
    }

    /// The jail of workers of this spec that are forked.
    pub(crate) fn jail_of_forks(&self, spec: &WorkerSpec) -> conductor_jail::Jail {
        let own = Own {
            harness: Path::new(""),
            deno_dir: Path::new(""),
            fills_deno_dir: false,
            fork_library: None,
        };
        jail(spec, own, &self.inner.config.layers)
    }

    /// How the workers are jailed.
    pub fn config(&self) -> &SpawnConfig {
        &self.inner.config
    }
}

impl WorkerSource for DenoSpawn {
    fn boot(&self, spec: Arc<WorkerSpec>) -> BoxFuture<'static, Result<Box<dyn Worker>, SpawnError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { Ok(Box::new(inner.boot(&spec).await?) as Box<dyn Worker>) })
    }

    fn left_out(&self, spec: &WorkerSpec) -> BTreeMap<String, String> {
        self.inner.spoiled.left_out(spec)
    }
}

impl Inner {
    /// In half of the time if it imports packages: the other half is for booting without them, should they be at fault.
    async fn boot(&self, spec: &WorkerSpec) -> Result<DenoWorker, SpawnError> {
        let directories = Directories::install(&self.config.cache_dir).map_err(SpawnError::Prepare)?;
        let limit = self.config.boot_timeout;
        let Some(bare) = Spoiled::without_preload(spec) else {
            return self.boot_in(spec, &directories, None, limit).await;
        };
        if self.spoiled.why(spec).is_some() {
            return self.boot_in(&bare, &directories, None, limit).await;
        }
        let error = match self.boot_in(spec, &directories, None, limit / 2).await {
            Err(error @ (SpawnError::Died { .. } | SpawnError::BootTimeout { .. })) => error,
            done => return done,
        };
        let worker = self.boot_in(&bare, &directories, None, limit / 2).await?;
        let why = excerpt(&error.to_string());
        tracing::warn!(error = why, "workers boot without their packages");
        self.spoiled.note(spec, why);
        Ok(worker)
    }

    async fn boot_in(
        &self,
        spec: &WorkerSpec,
        directories: &Directories,
        template: Option<TemplateParts<'_>>,
        limit: Duration,
    ) -> Result<DenoWorker, SpawnError> {
        let deno_dir = match &spec.packages {
            Some(packages) => packages.deno_dir.clone(),
            None => self.deno_dir(&spec.deno, directories).await?.path().to_owned(),
        };
        self.start(spec, directories, &deno_dir, Files::ReadOnlyUnlessGranted, template, limit).await
    }

    /// The sealed `DENO_DIR` for this Deno, made if there is none or it is damaged.
    async fn deno_dir(&self, deno: &Path, directories: &Directories) -> Result<DenoDir, SpawnError> {
        let mut prepared = self.prepared.lock().await;
        if let Some(deno_dir) = prepared.get(deno)
            && deno_dir.is_for(deno)
            && deno_dir.is_sealed()
        {
            return Ok(deno_dir.clone());
        }
        let deno_dir = self.prepare(deno, directories).await?;
        prepared.insert(deno.to_owned(), deno_dir.clone());
        Ok(deno_dir)
    }

    /// Lets one worker run in a writable `DENO_DIR`, so that Deno fills its caches, and seals the result.
    async fn prepare(&self, deno: &Path, directories: &Directories) -> Result<DenoDir, SpawnError> {
        let staging = deno_dir::stage(directories, deno).await.map_err(SpawnError::Prepare)?;
        let staging = match staging {
            deno_dir::Staged::Ready(deno_dir) => return Ok(deno_dir),
            deno_dir::Staged::Empty(staging) => staging,
        };
        let spec = rehearsal::plain_spec(deno, directories.empty());
        let limit = self.config.boot_timeout;
        let worker = self.start(&spec, directories, staging.path(), Files::Writable, None, limit).await?;
        worker.rehearse("return 1;", self.config.boot_timeout).await.map_err(SpawnError::Prepare)?;
        staging.seal().await.map_err(SpawnError::Prepare)
    }

    async fn proof(&self) -> &Proof {
        let config = &self.config;
        self.proof.get_or_init(|| Proof::of(config.launcher.clone(), config.layers.clone())).await
    }

    async fn start(
        &self,
        spec: &WorkerSpec,
        directories: &Directories,
        deno_dir: &Path,
        files: Files,
        template: Option<TemplateParts<'_>>,
        limit: Duration,
    ) -> Result<DenoWorker, SpawnError> {
        if self.config.level == Level::Strict {
            self.proof().await.permits(Level::Strict)?;
            if spec.grants.starts_programs() {
                self.config.cgroups.permit_programs()?;
            }
        }
        let invalid = |error| SpawnError::Prepare(io::Error::new(io::ErrorKind::InvalidInput, error));
        let mut line = CommandLine::new(spec, directories.harness()).map_err(invalid)?;
        if self.config.layers.contains(&Layer::NoNewCode) {
            // V8's compiler makes new code, and ends the process where it cannot.
            line.args.insert(1, "--v8-flags=--jitless".into());
        }
        let (mut template, socket) =
            template.map(|TemplateParts { library, socket, sharing }| ((library, sharing), socket)).unzip();
        if let Some((library, _)) = &template {
            line.load_library(library).map_err(invalid)?;
        }
        let directory = if reads(spec, &spec.workspace) { &spec.workspace } else { directories.empty() };
        let own = Own {
            harness: directories.harness(),
            deno_dir,
            fills_deno_dir: files == Files::Writable,
            fork_library: template.as_ref().map(|(library, _)| library.as_path()),
        };
        let launch = Launch {
            parent: i32::try_from(std::process::id()).expect("Linux pids fit in an i32"),
            jail: jail(spec, own, &self.config.layers),
            level: self.config.level,
            directory: directory.clone(),
            args: line.args,
        };
        let start = Start {
            program: self.config.launcher.clone(),
            args: launch.to_args(self.config.launcher.as_os_str()).map_err(SpawnError::Prepare)?,
            env: environment(deno_dir, spec)
                .iter()
                .map(|entry| CString::new(entry.as_bytes()))
                .collect::<Result<_, _>>()
                .map_err(|error| SpawnError::Prepare(error.into()))?,
            extra: socket,
        };
        let started = start.run().await.map_err(SpawnError::Start)?;
        let started = self.enclose(started, spec).await?;
        let template = template.as_mut().map(|(library, sharing)| (library.as_path(), &mut **sharing));
        DenoWorker::boot(started, line.revoke, spec, template, limit).await
    }
}

impl Inner {
    /// Whether workers of this spec are known to be kept from starting programs by the kernel.
    fn is_single(&self, spec: &WorkerSpec) -> bool {
        let filtered = |proof: &Proof| proof.report.layers.get(&Layer::Seccomp) == Some(&State::Active);
        !spec.grants.is_unsandboxed() && self.proof.get().is_some_and(filtered)
    }

    /// Puts a started worker into its control group, while it boots: it gets no code before that. At the best-effort level
    /// it goes on without one where that fails.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process, a moment later than elsewhere.
    async fn enclose(&self, mut started: Started, spec: &WorkerSpec) -> Result<Started, SpawnError> {
        if !self.config.cgroups.hold(self.is_single(spec)) {
            return Ok(started);
        }
        let (cgroups, spec) = (self.config.cgroups.clone(), spec.clone());
        // The process goes along: its number is its own while it is held.
        let enclosed = tokio::task::spawn_blocking(move || {
            let leaf = cgroups.enclose(started.process.number(), &spec);
            (started, leaf)
        });
        let leaf;
        (started, leaf) = enclosed.await.map_err(|error| SpawnError::Start(error.into()))?;
        match leaf {
            Ok(leaf) => started.process.hold(leaf),
            Err(error) if self.config.level == Level::Strict => return Err(SpawnError::Start(error)),
            Err(error) => tracing::warn!(error = %error, "a worker has no control group"),
        }
        Ok(started)
    }
}

/// What makes a worker a template.
#[derive(Debug)]
struct TemplateParts<'a> {
    /// What it loads.
    library: PathBuf,
    /// Its descriptor 5.
    socket: OwnedFd,
    sharing: &'a mut Sharing,
}

/// Whether a worker may grow files without a grant: only the one that fills the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    ReadOnlyUnlessGranted,
    Writable,
}
