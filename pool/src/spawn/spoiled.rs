//! Packages that keep the workers from booting that import them ahead of time: for a while workers boot without them.
//!
//! Owns which ones those are. A worker that imports nothing and boots right after one that did not has shown it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::spec::{Packages, WorkerSpec};

/// Then they are tried again: it may have been a busy machine.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Several times what sessions of one daemon import ahead of time. Beyond that, the rest is tried at each boot.
const MAX_KNOWN: usize = 64;

/// The packages of a layer that are imported ahead of time.
type Preload = (PathBuf, Vec<String>);

#[derive(Debug, Default)]
pub(super) struct Spoiled(Mutex<HashMap<Preload, (Instant, String)>>);

impl Spoiled {
    /// The same spec without what it would import ahead of time; `None` if there is nothing.
    pub(super) fn without_preload(spec: &WorkerSpec) -> Option<WorkerSpec> {
        let packages = spec.packages.as_ref().filter(|packages| !packages.preload.is_empty())?;
        let packages = Packages { preload: Vec::new(), ..packages.clone() };
        Some(WorkerSpec { packages: Some(packages), ..spec.clone() })
    }

    pub(super) fn note(&self, spec: &WorkerSpec, why: String) {
        let mut known = self.known();
        known.retain(|_, (since, _)| since.elapsed() < TRIED_AGAIN_AFTER);
        if let Some(preload) = preload(spec).filter(|_| known.len() < MAX_KNOWN) {
            known.insert(preload, (Instant::now(), why));
        }
    }

    /// Why workers of this spec boot without its packages at present.
    pub(super) fn why(&self, spec: &WorkerSpec) -> Option<String> {
        let preload = preload(spec)?;
        let known = self.known();
        let (since, why) = known.get(&preload)?;
        (since.elapsed() < TRIED_AGAIN_AFTER).then(|| why.clone())
    }

    /// As [`WorkerSource::left_out`](crate::source::WorkerSource::left_out).
    pub(super) fn left_out(&self, spec: &WorkerSpec) -> BTreeMap<String, String> {
        let (Some(why), Some((_, preload))) = (self.why(spec), preload(spec)) else { return BTreeMap::new() };
        let why = format!("a worker that imports it, and perhaps others, ahead of time does not boot: {why}");
        preload.into_iter().map(|specifier| (specifier, why.clone())).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Preload, (Instant, String)>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

fn preload(spec: &WorkerSpec) -> Option<Preload> {
    let packages = spec.packages.as_ref().filter(|packages| !packages.preload.is_empty())?;
    Some((packages.deno_dir.clone(), packages.preload.clone()))
}
