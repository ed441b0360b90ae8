//! Workers made by forking a Deno that has booted: two milliseconds instead of twenty, most of them copying page tables.
//!
//! Per spec there is one *template* ([`Template`](template::Template)): a Deno process with the harness in it, jailed like a
//! worker, which never runs a job. Its children are workers, each used once. Templates are built, tried out, replaced and
//! dropped by [`TemplateTask`], beside everything else; [`DenoWorkers`] takes a child of one where there is one that is
//! ready, and starts a Deno otherwise. So a template that is missing, unfit or broken costs no call.
//!
//! A forked worker has the jail of a spawned one: what its template has, and in place of the template's right to fork the
//! worker's own system call filter, before any code of a job runs in it. Where the jail cannot be had in full, nothing is
//! forked. What is different: V8 runs with one thread, `performance.now()` counts from the template's start, and children
//! of one template share its address layout and hash seed. That is why a template is replaced after [`MAX_FORKS`] and
//! [`MAX_AGE`].
//!
//! Out of every child: a [`DenoWorker`](crate::worker::DenoWorker), which cannot tell where it comes from but for the one
//! thing that its parent collects its status.

mod crashes;
mod descriptors;
mod link;
mod self_test;
mod template;
mod trial;
mod watched;

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use conductor_jail::{Layer, Report, State};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::error_chain;
use crate::source::{BoxFuture, SpawnError, Worker, WorkerKind, WorkerSource};
use crate::spawn::DenoSpawn;
use crate::spec::{Grants, WorkerChoice, WorkerSpec};
use crashes::Crashes;
use template::{ForkError, Template};
use watched::Watched;

/// Forks of one template, which share an address layout.
const MAX_FORKS: u32 = 10_000;
/// As long as an idle worker may live, for the same reason.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// A template that nobody has wanted a worker of for this long goes.
const UNUSED_AFTER: Duration = Duration::from_secs(10 * 60);
/// How often the two above are looked at.
const ROUND: Duration = Duration::from_secs(15);

/// Workers of a spec that chooses by itself from which on a template pays: it costs a boot and the self-test, some ten times
/// what a spawned worker does, and holds memory. Counted anew once nobody has wanted one for [`UNUSED_AFTER`].
const WORTH_IT: u32 = 16;

/// After a failure the next template is tried after this long, and after twice as long each time, up to an hour.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(3600);

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
        let (wanted, asked) = mpsc::channel(WANTED);
        let shelf = Arc::new(Shelf::default());
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
            if let Some(Life::Failed { why, .. }) = self.shelf.entries().get(spec).map(|entry| &entry.life) {
                return Err(why.clone());
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
                Err(error @ ForkError::Child(_)) => self.shelf.crashed(&spec, &error_chain(&error)),
                Err(error) => self.shelf.broken(&spec, &template, &error),
            }
        }
        self.spawn.boot(spec).await
    }

    /// The one that is ready; asks for one if there is none.
    fn template(&self, spec: &Arc<WorkerSpec>) -> Option<Arc<Template>> {
        let now = Instant::now();
        let mut entries = self.shelf.entries();
        let entry = entries.entry(Arc::clone(spec)).or_insert_with(|| Entry::new(now));
        entry.used_at = now;
        entry.boots = entry.boots.saturating_add(1);
        entry.drop_outdated(now);
        match &entry.life {
            Life::Ready(template) => return Some(Arc::clone(template)),
            Life::Failed { until, .. } if now < *until => return None,
            Life::Wanted | Life::Failed { .. } => {}
        }
        if entry.is_worth_it(spec.worker)
            && !entry.is_building
            && self.wanted.try_send(Arc::clone(spec)).is_ok()
        {
            entry.is_building = true;
        }
        None
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
                if let Some(spec) = self.shelf.take_news() {
                    return (spec, WorkerKind::Fork);
                }
                changed.await;
            }
        })
    }

    fn fallback(&self, spec: &WorkerSpec) -> Option<String> {
        if spec.worker.is_spawn() {
            return None;
        }
        let entries = self.shelf.entries();
        let Some(entry) = entries.get(spec) else { return Some("no worker has been needed".to_owned()) };
        match &entry.life {
            Life::Ready(_) => None,
            Life::Failed { why, .. } => Some(why.clone()),
            Life::Wanted if !entry.is_worth_it(spec.worker) => {
                Some(format!("a template is built once more than {WORTH_IT} workers have been needed"))
            }
            Life::Wanted => Some("the template is being built".to_owned()),
        }
    }
}

/// The templates that there are. Whoever boots takes from it, the task puts into it; nobody waits while holding it.
#[derive(Debug, Default)]
struct Shelf {
    /// Somebody has put something in.
    changed: Notify,
    entries: Mutex<HashMap<Arc<WorkerSpec>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    life: Life,
    /// One is being built, which may be the successor of one that serves.
    is_building: bool,
    used_at: Instant,
    /// Workers that were made, or asked for.
    boots: u32,
    failures: u32,
    crashes: Crashes,
    /// Nobody has been told of the template that is ready.
    is_news: bool,
}

#[derive(Debug)]
enum Life {
    Wanted,
    Ready(Arc<Template>),
    Failed { why: String, until: Instant },
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            life: Life::Wanted,
            is_building: false,
            used_at: now,
            boots: 0,
            failures: 0,
            crashes: Crashes::default(),
            is_news: false,
        }
    }

    fn is_worth_it(&self, choice: WorkerChoice) -> bool {
        choice == WorkerChoice::Fork || self.boots > WORTH_IT
    }

    /// A template that has ended, or of which new ones would be different, serves no longer. Its children that work go on.
    fn drop_outdated(&mut self, now: Instant) {
        let Life::Ready(template) = &self.life else { return };
        if template.is_current() {
            return;
        }
        let has_ended = !template.is_alive();
        debug!(has_ended, "a template is not used any more");
        self.life = Life::Wanted;
        if has_ended && self.crashes.note(now, self.boots) {
            self.fail("templates keep dying".to_owned());
        }
    }

    fn fail(&mut self, why: String) {
        let pause = RETRY_AFTER.saturating_mul(1 << self.failures.min(16)).min(RETRY_AFTER_AT_MOST);
        self.failures += 1;
        self.life = Life::Failed { why, until: Instant::now() + pause };
    }
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<WorkerSpec>, Entry>> {
        self.entries.lock().expect("nothing panics while it holds the lock")
    }

    /// A spec for which a template has become ready.
    fn take_news(&self) -> Option<Arc<WorkerSpec>> {
        let mut entries = self.entries();
        let (spec, entry) = entries.iter_mut().find(|(_, entry)| entry.is_news)?;
        entry.is_news = false;
        Some(Arc::clone(spec))
    }

    /// Workers of this spec are spawned for a while if this has happened too often.
    fn crashed(&self, spec: &WorkerSpec, why: &str) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(spec) else { return };
        if entry.crashes.note(Instant::now(), entry.boots) {
            warn!(error = why, "workers are started until there is another template");
            entry.fail(why.to_owned());
        }
    }

    /// This template is not used any more; its children that work go on.
    fn broken(&self, spec: &WorkerSpec, template: &Arc<Template>, error: &ForkError) {
        let why = error_chain(error);
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(spec) else { return };
        // Another caller has seen it first, or it has a successor.
        if matches!(&entry.life, Life::Ready(ready) if Arc::ptr_eq(ready, template)) {
            warn!(error = why, "a template failed; workers are started until there is another");
            entry.fail(why);
        }
    }
}

impl TemplateTask {
    /// Serves until the last [`DenoWorkers`] is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future kills the templates being built.
    pub async fn run(mut self) {
        let mut rounds = interval(ROUND);
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
        let build = self.builds.spawn(async move { build(&spawn, &wanted, &busy).await });
        self.building.insert(build.id(), spec);
    }

    fn put(&mut self, id: Id, built: Built) {
        let Some(spec) = self.building.remove(&id) else { return };
        let mut entries = self.shelf.entries();
        let Some(entry) = entries.get_mut(&spec) else { return };
        entry.is_building = false;
        match built {
            Ok(template) => {
                info!("a template is ready");
                entry.failures = 0;
                entry.is_news = true;
                entry.life = Life::Ready(template);
            }
            Err(error) => {
                let why = error_chain(&error);
                warn!(error = why, "no template; workers are started instead");
                entry.fail(why);
            }
        }
        self.shelf.changed.notify_waiters();
    }

    /// Drops templates that are dead or not used, and has those replaced that are old.
    fn look_around(&mut self) {
        let (now, mut old) = (Instant::now(), Vec::new());
        self.shelf.entries().retain(|spec, entry| {
            let used = entry.used_at.elapsed() < UNUSED_AFTER;
            entry.drop_outdated(now);
            if let Life::Ready(template) = &entry.life
                && template.is_worn()
                && used
                && !entry.is_building
            {
                entry.is_building = true;
                old.push(Arc::clone(spec));
            }
            used || entry.is_building
        });
        for spec in old {
            self.build(spec);
        }
    }
}

impl Template {
    fn is_worn(&self) -> bool {
        self.forks() >= MAX_FORKS || self.age() >= MAX_AGE
    }
}

/// A template that has proved itself.
async fn build(spawn: &DenoSpawn, spec: &WorkerSpec, busy: &Semaphore) -> Built {
    let proof = spawn.proof().await;
    if let Some(why) = unsuitable(&spec.grants, &spawn.config().layers, &proof.report) {
        return Err(ForkError::Unsuitable(why));
    }
    if let Some(finding) = proof.broken.first() {
        return Err(ForkError::Unsuitable(format!("the jail does not hold: {finding}")));
    }
    trial::of(spawn, &spec.deno, busy).await?;
    let template = template(spawn, spec, busy).await?;
    let _testing = busy.acquire().await.expect("nobody closes it");
    self_test::run(&template, spawn, spec).await?;
    Ok(template)
}

/// One that can fork. Boots in its turn, and waits for its threads to end out of it.
async fn template(spawn: &DenoSpawn, spec: &WorkerSpec, busy: &Semaphore) -> Built {
    let booting = busy.acquire().await.expect("nobody closes it");
    let template = Template::boot(spawn, spec).await?;
    drop(booting);
    template.settle().await?;
    template.set_up().await?;
    Ok(Arc::new(template))
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
