//! Imports each package once before its layer becomes read-only: fills Deno's caches, and tells what an import costs.
//!
//! A worker of the usual kind does it: no grants, no network, one import each. The one difference is that it may write
//! its `DENO_DIR`, which is thrown away if anything fails.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::deno_dir::Directories;
use super::{DenoSpawn, Files, Inner};
use crate::job::Settled;
use crate::source::SpawnError;
use crate::spec::{Packages, WorkerSpec};
use crate::worker::Rehearsed;

/// How one package's import went in a worker of its own, with Deno's caches filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// As given.
    pub specifier: String,
    /// Wall time of the import, in milliseconds.
    pub import_ms: f64,
    /// Resident memory that the import added, in bytes.
    pub memory_bytes: u64,
    /// The import prints nothing and leaves no timer, handle or rejection behind, so it may happen before the job is known.
    pub preloadable: bool,
    /// Why it cannot be imported at all without grants, as far as Deno tells.
    pub error: Option<String>,
}

impl DenoSpawn {
    /// Imports `specifiers`, spelled as in the lock, one after the other, each in two fresh workers: the first fills the
    /// caches, the second is measured. `packages.deno_dir` must be writable; nothing is fetched.
    ///
    /// # Errors
    /// When no worker boots at all. An import that fails is part of the answer.
    ///
    /// # Cancel safety
    /// Dropping the future kills the worker at work; the `DENO_DIR` is then to be thrown away.
    pub async fn rehearse(
        &self,
        deno: &Path,
        packages: &Packages,
        specifiers: &[String],
    ) -> Result<Vec<Rehearsal>, SpawnError> {
        let mut rehearsals = Vec::with_capacity(specifiers.len());
        for specifier in specifiers {
            self.inner.import(deno, packages, specifier).await?;
            rehearsals.push(self.inner.import(deno, packages, specifier).await?);
        }
        Ok(rehearsals)
    }
}

impl Inner {
    async fn import(
        &self,
        deno: &Path,
        packages: &Packages,
        specifier: &str,
    ) -> Result<Rehearsal, SpawnError> {
        let directories = Directories::install(&self.config.cache_dir).map_err(SpawnError::Prepare)?;
        let spec = WorkerSpec {
            packages: Some(Packages { preload: Vec::new(), ..packages.clone() }),
            ..plain_spec(deno, directories.empty())
        };
        let worker = self.start(&spec, &directories, &packages.deno_dir, Files::Writable).await?;
        // A package that never lets the process end is no failure of the layer: it cannot be preloaded, that is all.
        let rehearsed = worker.rehearse(&import_code(specifier), self.config.boot_timeout).await;
        Ok(Rehearsal::of(specifier, rehearsed))
    }
}

impl Rehearsal {
    fn of(specifier: &str, rehearsed: std::io::Result<Rehearsed>) -> Self {
        let specifier = specifier.to_owned();
        let failed = |specifier, error: String| Self {
            specifier,
            import_ms: 0.0,
            memory_bytes: 0,
            preloadable: false,
            error: Some(error),
        };
        match rehearsed {
            Err(error) => failed(specifier, error.to_string()),
            Ok(Rehearsed { settled: Some(Settled::Json { value }), quiet }) => Self {
                specifier,
                import_ms: value["ms"].as_f64().unwrap_or_default(),
                memory_bytes: value["bytes"].as_u64().unwrap_or_default(),
                preloadable: quiet,
                error: None,
            },
            Ok(Rehearsed { settled: Some(Settled::Thrown { error }), .. }) => {
                failed(specifier, error.message)
            }
            Ok(_) => failed(specifier, "the import ended the process".to_owned()),
        }
    }
}

/// A spec that grants nothing.
pub(super) fn plain_spec(deno: &Path, empty: &Path) -> WorkerSpec {
    WorkerSpec {
        deno: deno.to_owned(),
        workspace: PathBuf::from(empty),
        grants: Default::default(),
        protected: Default::default(),
        heap_mib: 256,
        env: Default::default(),
        packages: None,
    }
}

fn import_code(specifier: &str) -> String {
    format!(
        "const rss = Deno.memoryUsage().rss, start = performance.now();
         await api.import({});
         return {{ ms: performance.now() - start, bytes: Math.max(0, Deno.memoryUsage().rss - rss) }};",
        json!(Value::from(specifier))
    )
}
