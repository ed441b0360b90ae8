//! What a layer is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::allowlist::{Allowlist, Asked};
use crate::environment::Registries;
use crate::error::{LayerError, PinnedLockError};
use crate::fetch::Deno;
use crate::layer::FORMAT;
use crate::lockfile::Lockfile;
use crate::specifier::Package;
use crate::tree;

/// The packages of a layer, the Deno that will run them, and perhaps a lock that is the only source of versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerRequest {
    pub deno: Deno,
    pub packages: BTreeSet<Package>,
    /// A `deno.lock` that was checked in: nothing outside it is fetched.
    pub pinned_lock: Option<PathBuf>,
    pub completeness: Completeness,
}

/// What happens when some of the packages cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completeness {
    /// There is no layer.
    Required,
    /// The layer is built without those that do not exist, or whose registry is down, and says so
    /// ([`Layer::missing`](crate::Layer::missing)): one wrong line in a list must not take all packages away. With a pinned
    /// lock nothing is tolerated.
    BestEffort,
}

impl LayerRequest {
    /// The listed packages of a profile. `None` when none is listed: then there is nothing to fetch.
    pub fn of_list(list: &Allowlist, deno: Deno, pinned_lock: Option<PathBuf>) -> Option<Self> {
        Self::new(list.packages().cloned().collect(), deno, pinned_lock, Completeness::BestEffort)
    }

    /// What one call asks for, where every package is allowed.
    pub fn of_call<'a>(
        asked: impl IntoIterator<Item = &'a Asked>,
        deno: Deno,
        pinned_lock: Option<PathBuf>,
    ) -> Option<Self> {
        let packages = asked.into_iter().map(|asked| asked.package().clone()).collect();
        Self::new(packages, deno, pinned_lock, Completeness::Required)
    }

    fn new(
        packages: BTreeSet<Package>,
        deno: Deno,
        pinned_lock: Option<PathBuf>,
        completeness: Completeness,
    ) -> Option<Self> {
        (!packages.is_empty()).then_some(Self { deno, packages, pinned_lock, completeness })
    }

    /// The packages as text, one a line.
    pub(crate) fn spelled(&self) -> String {
        self.packages.iter().map(|package| format!("{}\n", package.locked_form())).collect()
    }

    /// Reads the pinned lock, if there is one.
    pub(crate) fn pinned(&self) -> Result<Option<PinnedLock>, LayerError> {
        self.pinned_lock.as_deref().map(PinnedLock::read).transpose()
    }

    /// What tells this request from others.
    pub(crate) fn key(&self, pinned: Option<&PinnedLock>, registries: &Registries) -> String {
        let pinned = pinned.map_or("", |pinned| &pinned.text);
        let registries = serde_json::to_vec(registries).unwrap_or_default();
        let (deno, packages) = (self.deno.version.as_bytes(), self.spelled());
        let completeness = match self.completeness {
            Completeness::Required => b"required".as_slice(),
            Completeness::BestEffort => b"best effort",
        };
        tree::hash(&[
            FORMAT.as_bytes(),
            deno,
            packages.as_bytes(),
            &registries,
            pinned.as_bytes(),
            completeness,
        ])
    }
}

/// A lock that was checked in, read.
#[derive(Debug)]
pub(crate) struct PinnedLock {
    /// The file's name, for errors: the whole path is nobody's business but the administrator's, who knows it.
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) lock: Lockfile,
}

impl PinnedLock {
    fn read(path: &Path) -> Result<Self, LayerError> {
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let unusable = |cause| LayerError::PinnedLock { file: file.clone(), cause };
        let text =
            fs::read_to_string(path).map_err(|error| unusable(PinnedLockError::Read(Arc::new(error))))?;
        let lock = Lockfile::parse(&text).map_err(|error| unusable(error.into()))?;
        Ok(Self { file, text, lock })
    }
}
