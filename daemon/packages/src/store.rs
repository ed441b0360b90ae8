//! The directory of all layers: where they are built, found and removed.
//!
//! ```text
//! <root>/.lock            held for a moment by who places, indexes or removes a layer
//! <root>/.staging-*/      a layer being fetched, its `in-use` locked by the builder
//! <root>/.trash-*/        a layer being removed
//! <root>/<name>/          a layer, or one being warmed, which has no `layer.json` yet
//! <root>/index/<request>  the name of the layer for a request; its time is that of the last use
//! ```
//!
//! Locks belong to open files, so a process that dies leaves none behind: what is unfinished and not locked is garbage.
//! Several daemons can share a root.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};

use crate::layer::{IN_USE, Layer, RECORD};
use crate::tree;

const INDEX: &str = "index";
const STAGING: &str = ".staging-";
const TRASH: &str = ".trash-";

/// How much unused layers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A layer that nobody asked for in this time is removed.
    pub max_age: Duration,
    /// The least recently used layers go until the rest fits. Bytes.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 30 days and 2 GiB: years of a few profiles, weeks of `all`.
    fn default() -> Self {
        Self { max_age: Duration::from_secs(30 * 24 * 60 * 60), max_bytes: 2 << 30 }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub layers: usize,
    pub bytes: u64,
}

/// What there is for a request.
#[derive(Debug)]
pub(crate) enum Found {
    Layer(Box<Layer>),
    Nothing,
    /// There was one that had been changed; says how.
    Damaged(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A directory in which a layer is being built; dropped before it is a layer, it is removed.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    /// `None` once it is a layer.
    in_use: Option<Flock<File>>,
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It is a layer now: the builder's lock becomes that of a user.
    pub(crate) fn finish(mut self) -> io::Result<Layer> {
        if let Some(in_use) = &self.in_use {
            in_use.relock(FlockArg::LockShared)?;
        }
        let layer = Layer::open(&self.path)?;
        self.in_use = None;
        Ok(layer)
    }
}

/// What came of giving a name.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It has it, and is to be finished.
    Staging(Staging),
    /// There is such a layer already.
    Layer(Box<Layer>),
    /// Another process is finishing such a layer, or will turn out not to.
    Waits(Staging),
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(in_use) = self.in_use.take() else { return };
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            // A process that was killed a moment ago may still be writing; what it leaves is removed at the next start.
            if let Err(error) = tree::remove(&path).or_else(|_| tree::remove(&path)) {
                tracing::debug!(%error, "an unfinished package layer is left for later");
            }
            drop(in_use);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Store {
    /// Opens or makes the directory, private to the user.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(INDEX))?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// Waits for the lock of the directory. Nobody holds it for longer than a few renames take, or a removal.
    fn lock(&self) -> io::Result<Flock<File>> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.root.join(".lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// A new directory to build in.
    pub(crate) fn stage(&self) -> io::Result<Staging> {
        let _lock = self.lock()?;
        let directory = tempfile::Builder::new().prefix(STAGING).tempdir_in(&self.root)?;
        let in_use =
            Flock::lock(File::create(directory.path().join(IN_USE))?, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Staging { path: directory.keep(), in_use: Some(in_use) })
    }

    /// Gives what was staged its name, unless somebody else has been faster.
    pub(crate) fn place(&self, mut staging: Staging, name: &str) -> io::Result<Placed> {
        let _lock = self.lock()?;
        let target = self.root.join(name);
        match Layer::open(&target) {
            Ok(layer) => return Ok(Placed::Layer(Box::new(layer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Placed::Waits(staging)),
            Err(_) => {}
        }
        let is_unfinished = target.exists() && !target.join(RECORD).exists();
        if is_unfinished && self.exclusive(&target).is_none() {
            return Ok(Placed::Waits(staging));
        }
        self.discard(&target)?;
        fs::rename(staging.path(), &target)?;
        staging.path = target;
        Ok(Placed::Staging(staging))
    }

    /// The layer that was built for a request. A damaged one is removed.
    pub(crate) fn find(&self, request: &str) -> io::Result<Found> {
        let entry = self.root.join(INDEX).join(request);
        let Ok(name) = fs::read_to_string(&entry) else { return Ok(Found::Nothing) };
        let path = self.root.join(&name);
        if !is_name(&name) || !path.exists() {
            return Ok(Found::Nothing);
        }
        let _lock = self.lock()?;
        match Layer::open(&path) {
            Ok(layer) => {
                // The time of last use orders what is pruned, no more: a read-only index is no reason to fail.
                let _untouched = File::open(&entry).and_then(|file| file.set_modified(SystemTime::now()));
                Ok(Found::Layer(Box::new(layer)))
            }
            // Somebody is building it right now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Found::Nothing),
            Err(error) => {
                tracing::warn!(layer = name, %error, "a package layer is damaged and will be built anew");
                self.discard(&path)?;
                Ok(Found::Damaged(error.to_string()))
            }
        }
    }

    /// Records that `request` gets `layer`.
    pub(crate) fn index(&self, request: &str, layer: &str) -> io::Result<()> {
        let _lock = self.lock()?;
        conductor_files::replace(&self.root.join(INDEX).join(request), layer.as_bytes())
    }

    /// All finished layers that open.
    pub(crate) fn layers(&self) -> io::Result<Vec<Layer>> {
        Ok(self.names()?.iter().filter_map(|name| Layer::open(&self.root.join(name)).ok()).collect())
    }

    /// Compares every byte of every layer with what was sealed, and removes those that differ: by name and the difference.
    pub(crate) fn verify(&self) -> io::Result<Vec<(String, Option<String>)>> {
        let mut verified = Vec::new();
        for name in self.names()? {
            let difference = match Layer::open(&self.root.join(&name)).and_then(|layer| layer.difference()) {
                Ok(difference) => difference,
                // Being built anew since the names were read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => Some(error.to_string()),
            };
            if difference.is_some() {
                let _lock = self.lock()?;
                self.discard(&self.root.join(&name))?;
            }
            verified.push((name, difference));
        }
        Ok(verified)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = tree::children(&self.root)?
            .into_iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .filter(|name| is_name(name) && self.root.join(name).join(RECORD).exists())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes what dead processes left unfinished.
    pub(crate) fn clean(&self) -> io::Result<()> {
        let _lock = self.lock()?;
        for path in tree::children(&self.root)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_unfinished = name.starts_with(STAGING) || (is_name(name) && !path.join(RECORD).exists());
            if name.starts_with(TRASH) || (is_unfinished && self.exclusive(&path).is_some()) {
                tree::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes layers that nobody uses: those that no request leads to, those beyond the limits, least recently used first.
    pub(crate) fn prune(&self, limits: Limits, now: SystemTime) -> io::Result<Pruned> {
        let _lock = self.lock()?;
        let mut pruned = Pruned::default();
        let mut kept_bytes = 0;
        for Candidate { name, used_at, bytes } in self.candidates(now)? {
            let age = used_at.map(|used_at| now.duration_since(used_at).unwrap_or_default());
            let path = self.root.join(&name);
            let goes = age.is_none_or(|age| age > limits.max_age) || kept_bytes + bytes > limits.max_bytes;
            let Some(_unused) = goes.then(|| self.exclusive(&path)).flatten() else {
                kept_bytes += bytes;
                continue;
            };
            self.discard(&path)?;
            pruned.layers += 1;
            pruned.bytes += bytes;
        }
        self.forget_missing()?;
        Ok(pruned)
    }

    /// All layers, the most recently used first; those too that were used by a clock that was ahead.
    fn candidates(&self, now: SystemTime) -> io::Result<Vec<Candidate>> {
        let mut used: Vec<(String, SystemTime)> = Vec::new();
        for entry in tree::children(&self.root.join(INDEX))? {
            let Ok(name) = fs::read_to_string(&entry) else { continue };
            let used_at = entry.metadata()?.modified()?;
            used.push((name, used_at.min(now)));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for name in self.names()? {
            let used_at = used.iter().filter(|(of, _)| *of == name).map(|(_, at)| *at).max();
            let bytes = Layer::open(&self.root.join(&name)).map_or(0, |layer| layer.bytes());
            candidates.push(Candidate { name, used_at, bytes });
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.used_at));
        Ok(candidates)
    }

    fn forget_missing(&self) -> io::Result<()> {
        for entry in tree::children(&self.root.join(INDEX))? {
            let name = fs::read_to_string(&entry).unwrap_or_default();
            if !is_name(&name) || !self.root.join(&name).exists() {
                fs::remove_file(&entry)?;
            }
        }
        Ok(())
    }

    /// The lock of a layer that nobody uses or builds; also when it has none, being damaged.
    fn exclusive(&self, layer: &Path) -> Option<Option<Flock<File>>> {
        match File::open(layer.join(IN_USE)) {
            Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).ok().map(Some),
            Err(_) => Some(None),
        }
    }

    /// Takes a directory out of sight in one step and then removes it.
    fn discard(&self, path: &Path) -> io::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let trash = tempfile::Builder::new().prefix(TRASH).tempdir_in(&self.root)?.keep();
        fs::rename(path, trash.join("layer"))?;
        tree::remove(&trash)
    }
}

struct Candidate {
    name: String,
    /// `None` when no request leads to it.
    used_at: Option<SystemTime>,
    bytes: u64,
}

/// Names are hashes: nothing that was read from a file becomes a path otherwise.
fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_removes_at_most_what_nobody_uses() {
        const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("layers")).unwrap();
        let (name, now) = ("a".repeat(64), SystemTime::now());
        let layer = store.root.join(&name);
        let used_at = |at: SystemTime| {
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(RECORD), "").unwrap();
            store.index("request", &name).unwrap();
            File::open(store.root.join(INDEX).join("request")).unwrap().set_modified(at).unwrap();
        };
        let limits = Limits::default();
        let removed = |now: SystemTime| store.prune(limits, now).unwrap().layers;
        used_at(now);
        assert_eq!(removed(now - YEARS), 0, "back");
        assert_eq!(removed(now), 0, "and forth again");
        let in_use = OpenOptions::new().create(true).append(true).open(layer.join(IN_USE)).unwrap();
        let in_use = Flock::lock(in_use, FlockArg::LockSharedNonblock).unwrap();
        assert_eq!(removed(now + YEARS), 0, "ahead, while it is used");
        drop(in_use);
        assert_eq!(removed(now + YEARS), 1, "ahead, when nobody uses it");
        used_at(now + YEARS);
        assert_eq!(removed(now), 0, "the clock was ahead when it was used");
        used_at(now - YEARS);
        assert_eq!(removed(now), 1, "the clock was behind when it was used");
    }
}
