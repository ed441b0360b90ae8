//! The templates that there are, one entry per spec. Whoever boots takes from it, [`TemplateTask`](super::TemplateTask) puts
//! into it; nobody waits while holding it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::crashes::Crashes;
use super::limits::ForkLimits;
use super::template::{ForkError, Template};
use crate::error_chain;
use crate::source::WorkerKind;
use crate::spec::{WorkerChoice, WorkerSpec};
use crate::status::{ForkFailure, ServingTemplate, TemplateEnd, TemplateStatus, TemplateTotals};

/// How long the counters of a spec are kept that nobody uses: as long as an operator asks what happened today.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) limits: ForkLimits,
    /// Somebody has put something in.
    pub(super) changed: Notify,
    entries: Mutex<HashMap<Arc<WorkerSpec>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    life: Life,
    /// One is being built, which may be the successor of one that serves.
    is_building: bool,
    /// What `totals.gave_up` was when that build began.
    gave_up_before: u64,
    used_at: Instant,
    /// Workers that were made, or asked for.
    boots: u32,
    /// Builds in a row that failed, or had no time for all packages.
    failures: u32,
    crashes: Crashes,
    /// Nobody has been told that a template is ready, or has failed.
    is_news: bool,
    memory: Memory,
    totals: TemplateTotals,
}

/// Bytes of its own that the template that is ready holds.
#[derive(Debug, Default)]
struct Memory {
    at_first: u64,
    /// At the latest look.
    now: u64,
}

#[derive(Debug)]
enum Life {
    Wanted,
    Ready(Arc<Template>),
    Failed { why: String, until: Instant },
}

impl Shelf {
    pub(super) fn new(limits: ForkLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<WorkerSpec>, Entry>> {
        self.entries.lock().expect("nothing panics while it holds the lock")
    }

    /// The template that is ready, for one worker more. `order` has one built, if that is due and it can.
    pub(super) fn template(
        &self,
        spec: &Arc<WorkerSpec>,
        order: impl FnOnce() -> bool,
    ) -> Option<Arc<Template>> {
        let now = Instant::now();
        let mut entries = self.entries();
        let entry = entries.entry(Arc::clone(spec)).or_insert_with(|| Entry::new(now));
        entry.used_at = now;
        entry.boots = entry.boots.saturating_add(1);
        let was_news = entry.is_news;
        entry.drop_outdated(now, &self.limits);
        if entry.is_due(now, spec.worker, &self.limits) {
            entry.is_building = order();
            entry.gave_up_before = entry.totals.gave_up;
        }
        if entry.is_news && !was_news {
            self.changed.notify_waiters();
        }
        match &entry.life {
            Life::Ready(template) => Some(Arc::clone(template)),
            Life::Wanted | Life::Failed { .. } => None,
        }
    }

    /// Why the latest template failed, if there is none since.
    pub(super) fn failure(&self, spec: &WorkerSpec) -> Option<String> {
        match &self.entries().get(spec)?.life {
            Life::Failed { why, .. } => Some(why.clone()),
            Life::Wanted | Life::Ready(_) => None,
        }
    }

    /// Why workers of this spec are spawned at present.
    pub(super) fn fallback(&self, spec: &WorkerSpec) -> Option<String> {
        let entries = self.entries();
        let Some(entry) = entries.get(spec) else { return Some("no worker has been needed".to_owned()) };
        match &entry.life {
            Life::Ready(_) => None,
            Life::Failed { why, .. } => Some(why.clone()),
            Life::Wanted if entry.is_building => Some("the template is being built".to_owned()),
            Life::Wanted if entry.boots == 0 => Some("no worker has been needed for a while".to_owned()),
            Life::Wanted if !entry.is_worth_it(spec.worker, &self.limits) => {
                let enough = self.limits.worth_it;
                Some(format!("a template is built once more than {enough} workers have been needed"))
            }
            Life::Wanted => Some("the template waits for others to be built".to_owned()),
        }
    }

    /// Packages that the template does not have, and why, if there is one that is ready.
    pub(super) fn left_out(&self, spec: &WorkerSpec) -> Option<BTreeMap<String, String>> {
        match self.entries().get(spec).map(|entry| &entry.life) {
            Some(Life::Ready(template)) => Some(template.left_out.clone()),
            _ => None,
        }
    }

    pub(super) fn status(&self, spec: &WorkerSpec) -> Option<TemplateStatus> {
        let entries = self.entries();
        let entry = entries.get(spec)?;
        let serving = match &entry.life {
            Life::Ready(template) => Some(ServingTemplate {
                pid: template.pid().as_raw_pid(),
                age_ms: template.age().as_millis().try_into().unwrap_or(u64::MAX),
                forks: template.forks(),
                memory_bytes: entry.memory.now,
            }),
            Life::Wanted | Life::Failed { .. } => None,
        };
        Some(TemplateStatus { serving, totals: entry.totals.clone() })
    }

    /// A spec whose workers have come to be made in another way, and how.
    pub(super) fn take_news(&self) -> Option<(Arc<WorkerSpec>, WorkerKind)> {
        let mut entries = self.entries();
        let (spec, entry) = entries.iter_mut().find(|(_, entry)| entry.is_news)?;
        entry.is_news = false;
        let kind = match entry.life {
            Life::Ready(_) => WorkerKind::Fork,
            Life::Wanted | Life::Failed { .. } => WorkerKind::Spawn,
        };
        Some((Arc::clone(spec), kind))
    }

    /// A worker crashed, or a fork became none. Workers of this spec are spawned for a while if that happens too often.
    pub(super) fn crashed(&self, spec: &WorkerSpec, failure: ForkFailure, why: &str) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(spec) else { return };
        debug!(error = why, "a forked worker failed");
        entry.totals.failed(failure, why);
        entry.note_crash(Instant::now(), why, &self.limits);
        drop(entries);
        self.changed.notify_waiters();
    }

    /// This template is not used any more; its children that work go on.
    pub(super) fn broken(&self, spec: &WorkerSpec, template: &Arc<Template>, error: &ForkError) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(spec) else { return };
        // Another caller has seen it first, or it has a successor.
        if matches!(&entry.life, Life::Ready(ready) if Arc::ptr_eq(ready, template)) {
            let why = error_chain(error);
            warn!(error = why, "a template failed; workers are started until there is another");
            entry.totals.ended(TemplateEnd::Failed);
            entry.totals.failed(error.failure(), &why);
            entry.fail(why, &self.limits);
        }
        drop(entries);
        self.changed.notify_waiters();
    }

    /// What came of a build.
    pub(super) fn put(&self, spec: &WorkerSpec, built: Result<Arc<Template>, ForkError>) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(spec) else { return };
        entry.is_building = false;
        if matches!(entry.life, Life::Ready(_)) {
            entry.totals.ended(entry.wear(&self.limits).unwrap_or(TemplateEnd::Outdated));
        }
        match built {
            // Made as those were whose forks keep crashing: the pause holds for it, too.
            Ok(_) if entry.totals.gave_up > entry.gave_up_before => {}
            Ok(template) => {
                info!("a template is ready");
                entry.failures = if template.was_hurried { entry.failures.saturating_add(1) } else { 0 };
                entry.is_news = true;
                entry.totals.built += 1;
                entry.memory = Memory::at_first(template.memory());
                entry.life = Life::Ready(template);
            }
            Err(error) => {
                let why = error_chain(&error);
                warn!(error = why, "no template; workers are started instead");
                entry.totals.failed(error.failure(), &why);
                entry.fail(why, &self.limits);
            }
        }
        drop(entries);
        self.changed.notify_waiters();
    }

    /// Drops templates that are dead or not used. Returns those that must have a successor, which is then being built.
    pub(super) fn look_around(&self) -> Vec<Arc<WorkerSpec>> {
        let (now, mut worn) = (Instant::now(), Vec::new());
        let mut entries = self.entries();
        entries.retain(|spec, entry| {
            entry.drop_outdated(now, &self.limits);
            let unused = now.duration_since(entry.used_at);
            if unused < self.limits.unused_after || entry.is_building {
                entry.look_at_memory();
                if matches!(entry.life, Life::Ready(_)) && entry.is_due(now, spec.worker, &self.limits) {
                    entry.is_building = true;
                    entry.gave_up_before = entry.totals.gave_up;
                    worn.push(Arc::clone(spec));
                }
                return true;
            }
            entry.rest();
            unused < REMEMBERED
        });
        if entries.values().any(|entry| entry.is_news) {
            self.changed.notify_waiters();
        }
        worn
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            life: Life::Wanted,
            is_building: false,
            gave_up_before: 0,
            used_at: now,
            boots: 0,
            failures: 0,
            crashes: Crashes::default(),
            is_news: false,
            memory: Memory::default(),
            totals: TemplateTotals::default(),
        }
    }

    fn is_worth_it(&self, choice: WorkerChoice, limits: &ForkLimits) -> bool {
        match choice {
            WorkerChoice::Fork => self.boots > 0,
            _ => self.boots > limits.worth_it,
        }
    }

    /// Whether a template is to be built, be it the first or the next.
    fn is_due(&self, now: Instant, choice: WorkerChoice, limits: &ForkLimits) -> bool {
        !self.is_building
            && match &self.life {
                Life::Wanted => self.is_worth_it(choice, limits),
                Life::Ready(_) => self.wear(limits).is_some(),
                Life::Failed { until, .. } => now >= *until && self.is_worth_it(choice, limits),
            }
    }

    /// Why the template that serves must have a successor.
    fn wear(&self, limits: &ForkLimits) -> Option<TemplateEnd> {
        let Life::Ready(template) = &self.life else { return None };
        let signs = [
            (TemplateEnd::Forks, template.forks() >= limits.max_forks),
            (TemplateEnd::Age, template.age() >= limits.max_age),
            (TemplateEnd::Memory, self.memory.growth() > limits.max_growth),
            (TemplateEnd::Hurried, template.was_hurried && template.age() >= self.pause(limits)),
        ];
        signs.into_iter().find_map(|(end, is_so)| is_so.then_some(end))
    }

    fn look_at_memory(&mut self) {
        if let Life::Ready(template) = &self.life
            && let Some(memory) = template.memory()
        {
            self.memory.now = memory;
        }
    }

    /// A template that has ended, or of which new ones would be different, serves no longer. Its children that work go on.
    fn drop_outdated(&mut self, now: Instant, limits: &ForkLimits) {
        let Life::Ready(template) = &self.life else { return };
        if template.is_current() {
            return;
        }
        let has_ended = !template.is_alive();
        debug!(has_ended, "a template is not used any more");
        self.life = Life::Wanted;
        self.totals.ended(if has_ended { TemplateEnd::Died } else { TemplateEnd::Outdated });
        if has_ended {
            self.note_crash(now, "templates keep dying", limits);
        }
    }

    /// Nobody uses it: as if it were new, but for what it counts.
    fn rest(&mut self) {
        if matches!(self.life, Life::Ready(_)) {
            self.totals.ended(TemplateEnd::Unused);
        }
        let totals = std::mem::take(&mut self.totals);
        *self = Self { totals, ..Self::new(self.used_at) };
    }

    fn note_crash(&mut self, now: Instant, why: &str, limits: &ForkLimits) {
        if self.crashes.note(now, self.boots) {
            warn!(error = why, "workers are started until there is another template");
            if matches!(self.life, Life::Ready(_)) {
                self.totals.ended(TemplateEnd::Failed);
            }
            self.totals.gave_up += 1;
            self.fail(why.to_owned(), limits);
        }
    }

    fn fail(&mut self, why: String, limits: &ForkLimits) {
        self.failures = self.failures.saturating_add(1);
        self.is_news = true;
        self.life = Life::Failed { why, until: Instant::now() + self.pause(limits) };
    }

    /// Until the next build after one that was not what it should be.
    fn pause(&self, limits: &ForkLimits) -> Duration {
        let factor = 1 << self.failures.saturating_sub(1).min(16);
        limits.retry_after.saturating_mul(factor).min(limits.retry_after_at_most)
    }
}

impl Memory {
    fn at_first(memory: Option<u64>) -> Self {
        let at_first = memory.unwrap_or_default();
        Self { at_first, now: at_first }
    }

    fn growth(&self) -> u64 {
        self.now.saturating_sub(self.at_first)
    }
}
