//! Which packages workers import while they boot: those a profile names, else those its runs have imported most lately,
//! as far as their imports fit the budgets.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_packages::{Asked, Usage};
use conductor_pool::Rehearsal;

use super::Provided;
use crate::profile::Profile;

/// CPU time that a boot may take more, all imports together: every call pays for the boot of a worker.
const MAX_TIME: Duration = Duration::from_millis(300);

/// Resident memory that a worker may take more, in bytes: each idle one pays it.
const MAX_MEMORY: u64 = 64 << 20;

/// Uses before a package is imported ahead of time: one alone may be the last.
const LEAST_USES: f64 = 1.5;

/// Counts of use, and what follows from them.
#[derive(Debug)]
pub(super) struct Preloads {
    /// Made when there is something to keep.
    state: PathBuf,
    usage: Usage,
    /// By profile and layer: a choice stays until a use changes it, so that workers stay interchangeable.
    chosen: HashMap<(String, String), Vec<String>>,
}

impl Preloads {
    /// Reads the counts of earlier daemons.
    pub(super) fn open(state: &Path) -> Self {
        let usage = Usage::open(state.join("package-usage.json"));
        Self { state: state.to_owned(), usage, chosen: HashMap::new() }
    }

    /// What workers of this profile and layer import, in the order of the specifiers.
    pub(super) fn choice(&mut self, profile: &Profile, provided: &Provided) -> Vec<String> {
        if let Some(named) = &profile.packages.preload {
            let judged = named.iter().filter_map(|name| profile.packages.allowed.judge(name).ok());
            return judged.filter_map(|asked| provided.layer.spell(&asked).ok()).collect();
        }
        let key = key(profile, provided);
        if let Some(chosen) = self.chosen.get(&key) {
            return chosen.clone();
        }
        let chosen = choose(&self.usage.counts(&profile.name), &provided.costs);
        self.chosen.insert(key, chosen.clone());
        chosen
    }

    /// Counts a run's imports; true when that changes what workers import ahead of time.
    pub(super) fn used(&mut self, profile: &Profile, provided: &Provided, asked: &[Asked]) -> bool {
        let spelled: Vec<String> =
            asked.iter().filter_map(|asked| provided.layer.spell(asked).ok()).collect();
        self.usage.record(&profile.name, &spelled);
        let before = self.chosen.remove(&key(profile, provided));
        before.is_some_and(|before| before != self.choice(profile, provided))
    }

    /// Writes the counts for the next daemon.
    pub(super) fn save(&mut self) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.state);
        if let Err(error) = made.and_then(|()| self.usage.save()) {
            tracing::warn!(%error, "the counts of imported packages cannot be kept");
        }
    }

    /// Decayed counts, the most used first.
    pub(super) fn uses(&self, profile: &Profile) -> Vec<(String, f64)> {
        self.usage.counts(&profile.name)
    }
}

fn key(profile: &Profile, provided: &Provided) -> (String, String) {
    (profile.name.clone(), provided.layer.name().to_owned())
}

/// The most used packages whose imports are known to be harmless and fit the budgets together.
fn choose(counts: &[(String, f64)], costs: &[Rehearsal]) -> Vec<String> {
    let (mut time, mut memory) = (0.0, 0);
    let mut chosen = Vec::new();
    for (specifier, _) in counts.iter().filter(|(_, count)| *count >= LEAST_USES) {
        let Some(cost) = costs.iter().find(|cost| cost.specifier == *specifier && cost.preloadable) else {
            continue;
        };
        if time + cost.cpu_ms > MAX_TIME.as_secs_f64() * 1e3 || memory + cost.memory_bytes > MAX_MEMORY {
            continue;
        }
        time += cost.cpu_ms;
        memory += cost.memory_bytes;
        chosen.push(specifier.clone());
    }
    chosen.sort();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(specifier: &str, cpu_ms: f64, mebibytes: u64, preloadable: bool) -> Rehearsal {
        Rehearsal {
            specifier: specifier.to_owned(),
            import_ms: cpu_ms,
            cpu_ms,
            memory_bytes: mebibytes << 20,
            preloadable,
            error: None,
        }
    }

    #[test]
    fn the_most_used_ones_that_fit_are_chosen() {
        let costs = [
            cost("npm:big@1", 10.0, 100, true),
            cost("npm:slow@1", 250.0, 1, true),
            cost("npm:zod@3", 80.0, 5, true),
            cost("npm:axios@1", 100.0, 9, true),
            cost("npm:loud@1", 1.0, 1, false),
            cost("npm:rare@1", 1.0, 1, true),
        ];
        let counts = |list: &[(&str, f64)]| {
            list.iter().map(|&(name, count)| (name.to_owned(), count)).collect::<Vec<_>>()
        };
        let used = counts(&[
            ("npm:zod@3", 9.0),
            ("npm:big@1", 8.0),
            ("npm:axios@1", 7.0),
            ("npm:slow@1", 6.0),
            ("npm:loud@1", 5.0),
            ("npm:gone@1", 4.0),
            ("npm:rare@1", 1.0),
        ]);
        assert_eq!(choose(&used, &costs), ["npm:axios@1", "npm:zod@3"]);
        assert_eq!(choose(&used, &[]), Vec::<String>::new());
        assert_eq!(choose(&counts(&[("npm:slow@1", 2.0)]), &costs), ["npm:slow@1"]);
    }
}
