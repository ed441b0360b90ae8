//! Workers made by forking a Deno that has booted: two milliseconds instead of twenty, most of them copying page tables.
//!
//! Per spec there is one *template* ([`Template`](template::Template)): a Deno process with the harness and the spec's
//! preloaded packages in it ([`preload`]), jailed like a worker, which never runs a job. Its children are workers, each used
//! once. Templates are built, tried out, replaced and dropped by [`TemplateTask`], beside everything else; [`DenoWorkers`]
//! takes a child of one where there is one that is ready, and starts a Deno otherwise. So a template that is missing, unfit
//! or broken costs no call.
//!
//! A forked worker has the jail of a spawned one: what its template has, and in place of the template's right to fork the
//! worker's own system call filter, before any code of a job runs in it. Where the jail cannot be had in full, nothing is
//! forked. What is different: V8 runs with one thread, `performance.now()` counts from the template's start, and children
//! of one template share its address layout and hash seed. That is why a template is replaced after so many forks and so much
//! time ([`ForkLimits`]).
//!
//! Out of every child: a [`DenoWorker`](crate::worker::DenoWorker), which cannot tell where it comes from but for the one
//! thing that its parent collects its status.

mod crashes;
mod descriptors;
mod limits;
mod link;
mod passed;
mod preload;
mod self_test;
mod shelf;
mod template;
mod trial;
mod watched;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;

use conductor_jail::{Layer, Report, State};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::error_chain;
use crate::source::{BoxFuture, SpawnError, Worker, WorkerKind, WorkerSource};
use crate::spawn::DenoSpawn;
use crate::spec::{Grants, WorkerSpec};
use crate::status::TemplateStatus;
pub use limits::{ForkLimits, TrialLimits};
use preload::Build;
use shelf::Shelf;
use template::{ForkError, Template};
use watched::Watched;

/// Specs that want a template. One that finds the queue full asks again with its next worker.
const WANTED: usize = 16;
/// Templates being built at one time: most of it is waiting for idle threads to end, so they may wait together.
const BUILDS: usize = 16;
/// Those among them that boot or are tried out, which takes some hundred milliseconds of CPU time.
const BUSY_BUILDS: usize = 2;

/// Landlock keeps signals inside the jail from this version of its interface on. A template may signal, so it must have it.
const LANDLOCK_WITH_SIGNALS: u32 = 6;

/// Makes each worker as its spec asks, and by starting Deno where that cannot be.
#[derive(Clone, Debug)]
pub struct DenoWorkers {
    spawn: DenoSpawn,
    shelf: Arc<Shelf>,
    wanted: mpsc::Sender<Arc<WorkerSpec>>,
}

type Built = Result<Arc<Template>, ForkError>;

/// Builds templates; see the module.
#[derive(Debug)]
pub struct TemplateTask {
    spawn: DenoSpawn,
    shelf: Arc<Shelf>,
    wanted: mpsc::Receiver<Arc<WorkerSpec>>,
    builds: JoinSet<Built>,
    /// For the parts of a build that take CPU time.
    busy: Arc<Semaphore>,
    /// For whom each of them is.
    building: HashMap<Id, Arc<WorkerSpec>>,
}

impl DenoWorkers {
    /// The source, and the task without which it forks nothing.
    pub fn new(spawn: DenoSpawn) -> (Self, TemplateTask) {
        Self::with_limits(spawn, ForkLimits::default())
    }

    /// The same, with limits that are not the defaults.
    pub fn with_limits(spawn: DenoSpawn, limits: ForkLimits) -> (Self, TemplateTask) {
        let (wanted, asked) = mpsc::channel(WANTED);
        let shelf = Arc::new(Shelf::new(limits));
        let task = TemplateTask {
            spawn: spawn.clone(),
            shelf: Arc::clone(&shelf),
            wanted: asked,
            builds: JoinSet::new(),
            busy: Arc::new(Semaphore::new(BUSY_BUILDS)),
            building: HashMap::new(),
        };
        (Self { spawn, shelf, wanted }, task)
    }

    /// Waits until workers of this spec are forked.
    ///
    /// # Errors
    /// Why they are not, and will not be for a while. For people.
    ///
    /// # Cancel safety
    /// Cancel-safe: the template is built all the same.
    pub async fn ready(&self, spec: &Arc<WorkerSpec>) -> Result<(), String> {
        loop {
            let mut changed = pin!(self.shelf.changed.notified());
            changed.as_mut().enable();
            if self.template(spec).is_some() {
                return Ok(());
            }
            if let Some(why) = self.shelf.failure(spec) {
                return Err(why);
            }
            if self.wanted.is_closed() {
                return Err("nobody builds templates".to_owned());
            }
            changed.await;
        }
    }

    async fn boot_one(self, spec: Arc<WorkerSpec>) -> Result<Box<dyn Worker>, SpawnError> {
        if !spec.worker.is_spawn()
            && let Some(template) = self.template(&spec)
        {
            match template.fork(&self.spawn, &spec).await {
                Ok(worker) => {
                    let shelf = Arc::clone(&self.shelf);
                    return Ok(Box::new(Watched { worker, spec, template, shelf }));
                }
                // One of them alone, as far as is known.
                Err(error @ ForkError::Child(_)) => {
                    self.shelf.crashed(&spec, error.failure(), &error_chain(&error));
                }
                Err(error) => self.shelf.broken(&spec, &template, &error),
            }
        }
        self.spawn.boot(spec).await
    }

    /// The one that is ready; asks for one if there is none.
    fn template(&self, spec: &Arc<WorkerSpec>) -> Option<Arc<Template>> {
        self.shelf.template(spec, || self.wanted.try_send(Arc::clone(spec)).is_ok())
    }
}

impl WorkerSource for DenoWorkers {
    fn boot(&self, spec: Arc<WorkerSpec>) -> BoxFuture<'static, Result<Box<dyn Worker>, SpawnError>> {
        Box::pin(self.clone().boot_one(spec))
    }

    fn changed(&self) -> BoxFuture<'_, (Arc<WorkerSpec>, WorkerKind)> {
        Box::pin(async {
            loop {
                let mut changed = pin!(self.shelf.changed.notified());
                changed.as_mut().enable();
                if let Some(news) = self.shelf.take_news() {
                    return news;
                }
                changed.await;
            }
        })
    }

    fn left_out(&self, spec: &WorkerSpec) -> BTreeMap<String, String> {
        self.shelf.left_out(spec).unwrap_or_else(|| self.spawn.left_out(spec))
    }

    fn fallback(&self, spec: &WorkerSpec) -> Option<String> {
        if spec.worker.is_spawn() {
            return None;
        }
        self.shelf.fallback(spec)
    }

    fn templates(&self, spec: &WorkerSpec) -> Option<TemplateStatus> {
        self.shelf.status(spec)
    }
}

impl TemplateTask {
    /// Serves until the last [`DenoWorkers`] is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future kills the templates being built.
    pub async fn run(mut self) {
        let mut rounds = interval(self.shelf.limits.round);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Cancel-safe: `join_next_with_id` is. `None` when nothing is being built.
                Some(built) = self.builds.join_next_with_id() => match built {
                    Ok((id, built)) => self.put(id, built),
                    Err(error) => self.put(error.id(), Err(ForkError::Panicked(error))),
                },
                // Cancel-safe: `recv` is.
                wanted = self.wanted.recv(), if self.builds.len() < BUILDS => match wanted {
                    Some(spec) => self.build(spec),
                    None => return,
                },
                // Cancel-safe: a tick that is lost is a look less.
                _ = rounds.tick() => self.look_around(),
            }
        }
    }

    fn build(&mut self, spec: Arc<WorkerSpec>) {
        let (spawn, wanted, busy) = (self.spawn.clone(), Arc::clone(&spec), Arc::clone(&self.busy));
        let limits = self.shelf.limits.clone();
        let build = self.builds.spawn(async move {
            build(Build { spawn: &spawn, spec: &wanted, limits: &limits, busy: &busy }).await
        });
        self.building.insert(build.id(), spec);
    }

    fn put(&mut self, id: Id, built: Built) {
        if let Some(spec) = self.building.remove(&id) {
            self.shelf.put(&spec, built);
        }
    }

    fn look_around(&mut self) {
        for spec in self.shelf.look_around() {
            self.build(spec);
        }
    }
}

/// A template that has proved itself.
async fn build(build: Build<'_>) -> Built {
    let proof = build.spawn.proof().await;
    if let Some(why) = unsuitable(&build.spec.grants, &build.spawn.config().layers, &proof.report) {
        return Err(ForkError::Unsuitable(why));
    }
    if let Some(finding) = proof.broken.first() {
        return Err(ForkError::Unsuitable(format!("the jail does not hold: {finding}")));
    }
    trial::of(build).await?;
    build.proved().await
}

/// Why workers with these grants are not forked in this jail, whatever becomes of a template.
fn unsuitable(grants: &Grants, layers: &BTreeSet<Layer>, jail: &Report) -> Option<String> {
    if grants.is_unsandboxed() {
        return Some(
            "the profile grants `run`, `ffi` or everything, and a fork must not start programs".to_owned(),
        );
    }
    if layers.contains(&Layer::NoNewCode) {
        return Some("`hardened` workers are not forked".to_owned());
    }
    let missing = Layer::DEFAULT.into_iter().find(|layer| jail.layers.get(layer) != Some(&State::Active));
    if let Some(layer) = missing {
        return Some(format!(
            "the jail's layer {layer} is not complete, and a fork must have the whole jail"
        ));
    }
    (jail.landlock_abi < LANDLOCK_WITH_SIGNALS).then(|| {
        "this kernel's Landlock cannot keep a template's signals in the jail (Linux 6.12)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Grant;

    #[test]
    fn only_workers_in_the_whole_jail_are_forked() {
        let whole =
            || Report { layers: Layer::DEFAULT.map(|layer| (layer, State::Active)).into(), landlock_abi: 6 };
        let why = |grants: Grants, layers: &[Layer], jail: Report| {
            unsuitable(&grants, &layers.iter().copied().collect(), &jail).unwrap_or_default()
        };
        let default = Layer::DEFAULT;
        assert_eq!(why(Grants::default(), &default, whole()), "");
        for grants in [
            Grants { all: true, ..Grants::default() },
            Grants { run: Grant::All, ..Grants::default() },
            Grants { ffi: Grant::Only(["/lib".to_owned()].into()), ..Grants::default() },
        ] {
            assert!(why(grants, &default, whole()).contains("must not start programs"));
        }
        assert!(why(Grants::default(), &Layer::ALL, whole()).contains("`hardened`"));
        for layer in default {
            for state in [State::Off, State::Missing(String::new()), State::Partial(String::new())] {
                let mut jail = whole();
                jail.layers.insert(layer, state);
                assert!(why(Grants::default(), &default, jail).contains(layer.name()));
            }
        }
        let older = Report { landlock_abi: 5, ..whole() };
        assert!(why(Grants::default(), &default, older).contains("Linux 6.12"));
    }
}
