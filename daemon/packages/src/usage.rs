//! Which packages the code of each profile imports, so that workers can have them loaded before they are asked for.
//!
//! Owns a count per profile and specifier that halves every [`HALF_LIFE`]. Kept in a small JSON file of the state directory;
//! a file that cannot be read is started anew, since all it costs is some imports that take a little longer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A count is worth half after this time: last week's work counts, last quarter's does not.
pub const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Profiles kept. With a profile for every workspace there can be many; the least used go.
const MAX_PROFILES: usize = 128;

/// Specifiers kept for a profile: several times what anybody preloads, and few enough to keep the file small when code may
/// import anything.
const MAX_SPECIFIERS: usize = 64;

/// What was imported less than this, decayed, is nobody's favourite: once a fortnight ago.
const LEAST: f64 = 0.25;

/// A count at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    count: f64,
    /// Seconds since 1970.
    at: u64,
}

type Counts = BTreeMap<String, Count>;

/// Counts of imports. Changes are in memory until [`Usage::save`].
#[derive(Debug)]
pub struct Usage {
    file: PathBuf,
    profiles: BTreeMap<String, Counts>,
    is_saved: bool,
}

impl Usage {
    /// Reads the counts that were saved in `file`; none when there is no such file or it is broken.
    pub fn open(file: PathBuf) -> Self {
        let profiles = match read(&file) {
            Ok(profiles) => profiles,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(%error, "the counts of imported packages cannot be read and start anew");
                BTreeMap::new()
            }
        };
        Self { file, profiles, is_saved: true }
    }

    /// Counts one import of each specifier, as [`Layer::spell`](crate::Layer::spell) spelled it.
    pub fn record(&mut self, profile: &str, specifiers: &[String]) {
        self.record_at(profile, specifiers, now());
    }

    fn record_at(&mut self, profile: &str, specifiers: &[String], now: u64) {
        if specifiers.is_empty() {
            return;
        }
        self.is_saved = false;
        let counts = self.profiles.entry(profile.to_owned()).or_default();
        for specifier in specifiers {
            let count = counts.get(specifier).map_or(0.0, |count| count.worth(now));
            counts.insert(specifier.clone(), Count { count: count + 1.0, at: now });
        }
        keep_best(counts, MAX_SPECIFIERS, |count| count.worth(now));
        keep_best(&mut self.profiles, MAX_PROFILES, |counts| {
            counts.values().map(|count| count.worth(now)).sum()
        });
    }

    /// Each specifier that the profile's code imports and what its count is worth now, the most used first.
    pub fn counts(&self, profile: &str) -> Vec<(String, f64)> {
        let now = now();
        let Some(counts) = self.profiles.get(profile) else { return Vec::new() };
        let mut worths: Vec<_> =
            counts.iter().map(|(specifier, count)| (specifier.clone(), count.worth(now))).collect();
        worths.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        worths
    }

    /// The specifiers that the profile's code imports most, at most `budget` of them, the most used first.
    pub fn favourites(&self, profile: &str, budget: usize) -> Vec<String> {
        self.favourites_at(profile, budget, now())
    }

    fn favourites_at(&self, profile: &str, budget: usize, now: u64) -> Vec<String> {
        let Some(counts) = self.profiles.get(profile) else { return Vec::new() };
        let worths = counts.iter().map(|(specifier, count)| (count.worth(now), specifier));
        let mut worths: Vec<(f64, &String)> = worths.filter(|(worth, _)| *worth >= LEAST).collect();
        worths.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        worths.into_iter().take(budget).map(|(_, specifier)| specifier.clone()).collect()
    }

    /// Writes the counts, as a whole or not at all, if they changed since the last time. Blocks for a file of some kilobytes.
    ///
    /// # Errors
    /// The file cannot be written; the counts stay in memory.
    pub fn save(&mut self) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        conductor_files::replace(&self.file, &serde_json::to_vec(&self.profiles)?)?;
        self.is_saved = true;
        Ok(())
    }
}

impl Count {
    /// What the count is worth at `now`. A clock that was set back makes it no larger.
    fn worth(self, now: u64) -> f64 {
        let age = Duration::from_secs(now.saturating_sub(self.at));
        self.count * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

/// Reads counts that make sense: a number that is none would win or lose every comparison.
fn read(file: &Path) -> io::Result<BTreeMap<String, Counts>> {
    let profiles: BTreeMap<String, Counts> = serde_json::from_slice(&fs::read(file)?)?;
    let is_sound = |count: &Count| count.count.is_finite() && count.count >= 0.0;
    let all_sound = profiles.values().flat_map(BTreeMap::values).all(is_sound);
    all_sound.then_some(profiles).ok_or_else(|| io::Error::other("a count is no number"))
}

fn keep_best<V>(map: &mut BTreeMap<String, V>, max: usize, worth: impl Fn(&V) -> f64) {
    while map.len() > max {
        let least = map.iter().min_by(|a, b| worth(a.1).total_cmp(&worth(b.1)));
        let Some(least) = least.map(|(key, _)| key.clone()) else { return };
        map.remove(&least);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: u64 = 7 * 24 * 60 * 60;

    fn specifiers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_most_used_come_first_and_old_use_fades() {
        let dir = tempfile::tempdir().unwrap();
        let mut usage = Usage::open(dir.path().join("usage.json"));
        for _ in 0..3 {
            usage.record_at("a", &specifiers(&["npm:old@1"]), 0);
        }
        usage.record_at("a", &specifiers(&["npm:new@1", "npm:other@1"]), 2 * WEEK);
        usage.record_at("a", &specifiers(&["npm:new@1"]), 2 * WEEK);
        assert_eq!(usage.favourites_at("a", 9, 2 * WEEK), ["npm:new@1", "npm:other@1", "npm:old@1"]);
        assert_eq!(usage.favourites_at("a", 1, 2 * WEEK), ["npm:new@1"]);
        assert_eq!(usage.favourites_at("a", 9, 4 * WEEK), ["npm:new@1", "npm:other@1"]);
        assert!(
            usage.favourites_at("a", 9, 20 * WEEK).is_empty() && usage.favourites_at("b", 9, 0).is_empty()
        );
    }

    #[test]
    fn a_clock_that_jumps_costs_at_most_what_was_counted() {
        const YEARS: u64 = 500 * WEEK;
        let dir = tempfile::tempdir().unwrap();
        let mut usage = Usage::open(dir.path().join("usage.json"));
        let now = 2000 * WEEK;
        usage.record_at("a", &specifiers(&["npm:a@1", "npm:b@1"]), now);
        usage.record_at("a", &specifiers(&["npm:a@1"]), now);
        for jumped in [now - YEARS, now, 0, now] {
            assert_eq!(
                usage.favourites_at("a", 9, jumped),
                ["npm:a@1", "npm:b@1"],
                "nothing is lost by a look"
            );
        }
        assert!(usage.favourites_at("a", 9, now + YEARS).is_empty());
        // What is counted meanwhile counts at once, whatever was counted before; and what was is worth no more than it was.
        for jumped in [now + YEARS, now - YEARS, now] {
            for _ in 0..4 {
                usage.record_at("a", &specifiers(&["npm:c@1"]), jumped);
            }
            assert_eq!(usage.favourites_at("a", 1, jumped), ["npm:c@1"]);
        }
        assert_eq!(usage.favourites_at("a", 9, now), ["npm:c@1", "npm:a@1", "npm:b@1"]);
    }

    #[test]
    fn counts_survive_a_restart_and_a_broken_file_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usage.json");
        let mut usage = Usage::open(file.clone());
        usage.record("a", &specifiers(&["npm:zod@^3"]));
        usage.save().unwrap();
        assert_eq!(Usage::open(file.clone()).favourites("a", 5), ["npm:zod@^3"]);
        for broken in
            ["", "{", "[]", r#"{"a":{"x":{"count":null,"at":0}}}"#, r#"{"a":{"x":{"count":-1,"at":0}}}"#]
        {
            fs::write(&file, broken).unwrap();
            let mut usage = Usage::open(file.clone());
            assert!(usage.favourites("a", 5).is_empty(), "{broken}");
            usage.record("a", &specifiers(&["npm:zod@^3"]));
            usage.save().unwrap();
            assert_eq!(Usage::open(file.clone()).favourites("a", 5), ["npm:zod@^3"]);
        }
    }

    #[test]
    fn the_file_stays_small_whatever_code_imports() {
        let dir = tempfile::tempdir().unwrap();
        let mut usage = Usage::open(dir.path().join("usage.json"));
        usage.record_at("a", &specifiers(&["npm:kept"]), 5);
        usage.record_at("a", &specifiers(&["npm:kept"]), 5);
        for number in 0..1000 {
            usage.record_at("a", &[format!("npm:x{number}")], 5);
            usage.record_at(&format!("profile{number}"), &specifiers(&["npm:x"]), 5);
        }
        assert_eq!((usage.profiles.len(), usage.profiles["a"].len()), (MAX_PROFILES, MAX_SPECIFIERS));
        assert_eq!(usage.favourites_at("a", 1, 5), ["npm:kept"]);
    }
}
