//! Which versions the registries have, for an operator who asks what is outdated.
//!
//! Deno resolves the packages into a lock that is thrown away; what it cached of the registries' answers says which version
//! is the newest of all. Nothing is kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

use crate::build::{blocking, read_lock, workplace};
use crate::environment::FetchEnvironment;
use crate::error::LayerError;
use crate::fetch::Fetch;
use crate::progress::Progress;
use crate::request::LayerRequest;
use crate::specifier::{Package, Registry};
use crate::store::Store;
use crate::tree;

/// The newest allowed version of each package, and the newest of all.
pub(crate) type Versions = BTreeMap<Package, (Option<String>, Option<String>)>;

pub(crate) async fn survey(
    store: &Store,
    environment: &FetchEnvironment,
    request: &LayerRequest,
    timeout: Duration,
) -> Result<Versions, LayerError> {
    let store = store.clone();
    let staging = blocking("make room to ask registries", move || store.stage()).await?;
    let place = workplace(staging.path());
    let fetch = Fetch { deno: &request.deno, environment, place: &place, frozen: false, timeout };
    fetch.prepare().map_err(LayerError::io("prepare asking registries"))?;
    fetch.resolve(&request.packages, &Arc::new(watch::Sender::new(Progress::Queued))).await?;
    let lock = read_lock(&place.lock)?;
    let (deno_dir, packages) = (place.deno_dir, request.packages.clone());
    let newest = blocking("read what registries said", move || newest(&deno_dir)).await?;
    drop(staging);
    let versions = packages.into_iter().map(|package| {
        let allowed = lock.version_of(&package).map(str::to_owned);
        let newest = newest.get(&package.key()).cloned();
        (package, (allowed, newest))
    });
    Ok(versions.collect())
}

/// What a registry says of a package, of which only this matters.
#[derive(Deserialize)]
struct Answer {
    name: String,
    /// Of jsr.
    scope: Option<String>,
    /// Of jsr.
    latest: Option<String>,
    /// Of npm.
    #[serde(rename = "dist-tags", default)]
    tags: BTreeMap<String, String>,
}

/// The newest versions by the packages' keys, from every answer in Deno's cache.
fn newest(deno_dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut newest = BTreeMap::new();
    for part in ["npm", "remote"] {
        let root = deno_dir.join(part);
        if !root.try_exists()? {
            continue;
        }
        tree::walk(&root, &mut |path, meta| {
            if !meta.is_file() {
                return Ok(());
            }
            let content = fs::read(path)?;
            let mut values = serde_json::Deserializer::from_slice(&content).into_iter::<Answer>();
            // What follows the answer is Deno's; what is no answer is of no interest.
            newest.extend(values.next().and_then(Result::ok).and_then(Answer::newest));
            Ok(())
        })?;
    }
    Ok(newest)
}

impl Answer {
    fn newest(mut self) -> Option<(String, String)> {
        match self.scope {
            Some(scope) => Some((format!("{}@{scope}/{}", Registry::Jsr.scheme(), self.name), self.latest?)),
            None => Some((format!("{}{}", Registry::Npm.scheme(), self.name), self.tags.remove("latest")?)),
        }
    }
}
