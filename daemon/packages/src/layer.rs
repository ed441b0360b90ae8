//! A layer: packages in a directory that never changes again, named by what is in it.
//!
//! ```text
//! <root>/<name>/deno-dir/    DENO_DIR of the workers
//! <root>/<name>/deno.lock    what Deno lets them import, with integrity hashes
//! <root>/<name>/home/.npmrc  which registry a scope comes from, if any; no token
//! <root>/<name>/manifest     every file with its hash
//! <root>/<name>/layer.json   what this program knows about it; written last: without it there is no layer
//! <root>/<name>/in-use       locked by who builds it (exclusively) or uses it (shared)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::allowlist::Asked;
use crate::environment::Registries;
use crate::lockfile::Lockfile;
use crate::refusal::{Refusal, RefusalKind, nearest, quoted};
use crate::specifier::{Package, Registry};
use crate::tree::{self, Manifest};

mod explain;
mod inspect;

pub(crate) use inspect::{inspect, jsr_exports};

/// Part of every layer's name: another number makes this program build all layers anew.
pub(crate) const FORMAT: &str = "1";

pub(crate) const DENO_DIR: &str = "deno-dir";
pub(crate) const LOCK: &str = "deno.lock";
pub(crate) const HOME: &str = "home";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const RECORD: &str = "layer.json";
pub(crate) const IN_USE: &str = "in-use";

/// An incomplete layer is tried again this long after the last try: a registry that was down may be back, a package may
/// have been published.
const TRY_AGAIN: Duration = Duration::from_secs(5 * 60);

/// What the manifest covers.
pub(crate) const SEALED: [&str; 3] = [DENO_DIR, LOCK, HOME];

/// A package of a layer that code can import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedPackage {
    /// Registry and name: `npm:axios`.
    pub key: String,
    /// The one specifier under which Deno imports it: `npm:axios@^1`.
    pub spelling: String,
    /// The version that runs: `1.7.9`.
    pub version: String,
    /// Names a package, this one or one that it needs, with native code: workers do not load that.
    pub native: Option<String>,
    /// Where its files are, below the layer; `None` for jsr.
    pub(crate) directory: Option<PathBuf>,
    /// The subpaths of a jsr package.
    pub(crate) exports: Vec<String>,
}

/// A listed package that could not be had when the layer was built; the others could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPackage {
    /// As listed: `npm:axois@^1`.
    pub package: String,
    pub reason: String,
    pub hint: Option<String>,
}

/// What `layer.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: String,
    pub(crate) deno: String,
    pub(crate) packages: Vec<LockedPackage>,
    pub(crate) missing: Vec<MissingPackage>,
    pub(crate) registries: Registries,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    pub(crate) bytes: u64,
    pub(crate) manifest_sha256: String,
}

impl Record {
    pub(crate) fn worker_env(&self, layer: &Path) -> Vec<(String, String)> {
        let mut env = self.registries.worker_env();
        if !self.registries.npmrc.is_empty() {
            env.push(("HOME".to_owned(), layer.join(HOME).to_string_lossy().into_owned()));
        }
        env
    }

    pub(crate) fn allow_import(&self) -> Option<String> {
        let has_jsr = self.packages.iter().any(|package| package.key.starts_with(Registry::Jsr.scheme()));
        has_jsr.then(|| self.registries.jsr_host())
    }
}

/// A finished layer. While a value of this type lives, in this process or another, the directory is not removed for age or
/// size: keep one for as long as workers use it.
#[derive(Debug)]
pub struct Layer {
    path: PathBuf,
    record: Record,
    _in_use: Flock<File>,
}

impl Layer {
    /// Opens a finished layer after a quick look at every file (name, size, time, mode) and at every byte of the lock.
    ///
    /// The error's text says what is wrong with it; `NotFound` when there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let record = fs::read(path.join(RECORD))?;
        let record: Record = serde_json::from_slice(&record).map_err(io::Error::other)?;
        if record.format != FORMAT {
            return Err(io::Error::other("it has another format"));
        }
        let in_use = Flock::lock(File::open(path.join(IN_USE))?, FlockArg::LockSharedNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let layer = Self { path: path.to_owned(), record, _in_use: in_use };
        let manifest = layer.manifest()?;
        if let Some(difference) = manifest.quick_difference(path, &SEALED)? {
            return Err(io::Error::other(difference));
        }
        let lock = tree::hash_file(&layer.lock())?;
        if manifest.0.iter().any(|entry| entry.path == LOCK && entry.sha256 == lock) {
            Ok(layer)
        } else {
            Err(io::Error::other(format!("`{LOCK}` has other content")))
        }
    }

    /// True when packages are missing and it is time to look whether they can be had now.
    pub(crate) fn is_worth_a_try(&self, now: SystemTime) -> bool {
        let tried_at = fs::metadata(self.path.join(RECORD)).and_then(|meta| meta.modified());
        // One that is to come was noted by a clock that was ahead.
        let since = tried_at.ok().and_then(|tried_at| now.duration_since(tried_at).ok());
        !self.record.missing.is_empty() && since.is_none_or(|since| since >= TRY_AGAIN)
    }

    /// Takes note that the missing packages were tried.
    pub(crate) fn note_try(&self, now: SystemTime) -> io::Result<()> {
        File::open(self.path.join(RECORD))?.set_modified(now)
    }

    /// The difference to what was sealed, every byte compared; `None` when there is none.
    pub(crate) fn difference(&self) -> io::Result<Option<String>> {
        self.manifest()?.full_difference(&self.path, &SEALED)
    }

    fn manifest(&self) -> io::Result<Manifest> {
        let text = fs::read_to_string(self.path.join(MANIFEST))?;
        if tree::sha256(text.as_bytes()) != self.record.manifest_sha256 {
            return Err(io::Error::other("`manifest` has other content"));
        }
        Manifest::parse(&text).ok_or_else(|| io::Error::other("`manifest` is malformed"))
    }

    /// The directory's name: a hash of what is in it.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `DENO_DIR` for workers; read-only.
    pub fn deno_dir(&self) -> PathBuf {
        self.path.join(DENO_DIR)
    }

    /// The lock for workers, with `--frozen`; read-only.
    pub fn lock(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// The packages that code can import, by name.
    pub fn packages(&self) -> &[LockedPackage] {
        &self.record.packages
    }

    /// Listed packages that could not be had.
    pub fn missing(&self) -> &[MissingPackage] {
        &self.record.missing
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.record.bytes
    }

    /// Seconds since 1970.
    pub fn created_at(&self) -> u64 {
        self.record.created_at
    }

    /// The version of Deno that it was built with.
    pub fn deno_version(&self) -> &str {
        &self.record.deno
    }

    /// Environment that workers of this layer need beside `DENO_DIR`, so that Deno finds packages that did not come from
    /// the usual registries. Holds no secret. `HOME`, if it is here, is a directory of the layer.
    pub fn worker_env(&self) -> Vec<(String, String)> {
        self.record.worker_env(&self.path)
    }

    /// The value for a worker's `--allow-import`: the host of jsr if the layer has packages of it, without which Deno does
    /// not even look into its cache. Nothing is fetched from there, by `--cached-only`.
    pub fn allow_import(&self) -> Option<String> {
        self.record.allow_import()
    }

    /// The locked spelling of each package by its key, for imports that are computed while code runs. Packages with native
    /// code are left out.
    pub fn spellings(&self) -> BTreeMap<String, String> {
        let pure = self.record.packages.iter().filter(|package| package.native.is_none());
        pure.map(|package| (package.key.clone(), package.spelling.clone())).collect()
    }

    /// The exact specifier that a worker must import for what code asked for.
    ///
    /// # Errors
    /// The package is not in this layer, needs native code, or has no such file.
    pub fn spell(&self, asked: &Asked) -> Result<String, Refusal> {
        let package = self.find(asked.package())?;
        if let Some(native) = &package.native {
            return Err(refuse_native(package, native));
        }
        let spelled = Package::parse(&package.spelling)
            .map_err(|why| Refusal::malformed(&package.spelling, &why, None))?;
        let Some(subpath) = asked.subpath() else { return Ok(spelled.to_string()) };
        let subpath = match &package.directory {
            Some(directory) => inspect::npm_file(&self.path.join(directory), subpath),
            None => inspect::jsr_file(&package.exports, subpath),
        };
        match subpath {
            Ok(subpath) => Ok(spelled.specifier(Some(&subpath))),
            Err(files) => Err(refuse_subpath(package, asked.subpath().unwrap_or_default(), &files)),
        }
    }

    fn find(&self, asked: &Package) -> Result<&LockedPackage, Refusal> {
        let named = || self.record.packages.iter().filter(|package| package.key == asked.key());
        let spelled = asked.to_string();
        let found = named().find(|package| package.spelling == spelled);
        found.or_else(|| named().find(|package| asked.admits(&package.version))).ok_or_else(|| {
            if let Some(missing) = self.record.missing.iter().find(|missing| missing.package == spelled) {
                let message = format!("{} could not be fetched: {}", quoted(&spelled), missing.reason);
                return Refusal::new(RefusalKind::NotInLayer, message, missing.hint.clone());
            }
            let message = match named().next() {
                Some(package) => format!("{} is locked at version {}", quoted(&spelled), package.version),
                None => format!("{} is not among the packages that were fetched", quoted(&spelled)),
            };
            Refusal::new(RefusalKind::NotInLayer, message, None)
        })
    }

    /// The ways from the packages that code can import to `name`, one for each that brings it in: `npm:axios@1.7.9`,
    /// `npm:form-data@4.0.1`. Empty when it is not in the layer.
    pub fn why(&self, name: &str) -> Vec<Vec<String>> {
        let lock = fs::read_to_string(self.lock()).ok().and_then(|text| Lockfile::parse(&text).ok());
        let Some(lock) = lock else { return Vec::new() };
        let roots = self.record.packages.iter().filter_map(|package| Package::parse(&package.spelling).ok());
        let ids = roots.filter_map(|root| lock.id_of(&root));
        ids.filter_map(|id| lock.path(&id, name)).collect()
    }
}

fn refuse_native(package: &LockedPackage, native: &str) -> Refusal {
    let because = if native == package.key { String::new() } else { format!(" through {native}") };
    let message = format!("{} needs native code{because}, which workers do not load", quoted(&package.key));
    let hint = match package.key.as_str() {
        "npm:better-sqlite3" | "npm:sqlite3" => "use `node:sqlite`, which is built in",
        "npm:bcrypt" | "npm:argon2" => {
            "use `scrypt` of `node:crypto`, or the package `bcryptjs` if it is allowed"
        }
        "npm:sharp" | "npm:canvas" => "use a package in plain JavaScript or WebAssembly",
        _ => "use a package in plain JavaScript or WebAssembly, or what Deno and Node have built in",
    };
    Refusal::new(RefusalKind::Native, message, Some(hint.to_owned()))
}

fn refuse_subpath(package: &LockedPackage, subpath: &str, files: &[String]) -> Refusal {
    let message = format!("{} {} has no {}", quoted(&package.key), package.version, quoted(subpath));
    let near = nearest(subpath, files.iter().map(String::as_str));
    let hint = near.map(|near| format!("write {}", quoted(&format!("{}/{near}", package.key))));
    Refusal::new(RefusalKind::Subpath, message, hint)
}
