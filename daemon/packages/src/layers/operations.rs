//! What an operator does with layers.

use std::time::SystemTime;

use tokio::sync::watch;

use super::{Layers, Resolve};
use crate::build::blocking;
use crate::error::LayerError;
use crate::layer::{Layer, LockedPackage};
use crate::progress::Progress;
use crate::request::LayerRequest;
use crate::store::{Found, Limits, Pruned};
use crate::survey::survey;

/// A package whose version an update changed. `None`: it was not there before, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `npm:axios`.
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

/// The versions of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// `npm:axios`.
    pub key: String,
    /// As listed: `^1`.
    pub range: String,
    /// In the layer now; `None` when there is no layer yet.
    pub locked: Option<String>,
    /// What an update would lock.
    pub newest_allowed: Option<String>,
    /// What the registry calls latest.
    pub newest: Option<String>,
}

/// What a full check of one layer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub name: String,
    /// What is wrong, for which it was removed; `None` when every byte is as it was sealed.
    pub difference: Option<String>,
}

impl Layers {
    /// All layers. While the answer lives, none of them is removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn list(&self) -> Result<Vec<Layer>, LayerError> {
        let store = self.store.clone();
        blocking("list the package layers", move || store.layers()).await
    }

    /// The layer of a request, if it was built; nothing is fetched.
    ///
    /// # Errors
    /// The pinned lock or the directory cannot be read.
    pub async fn find(&self, request: LayerRequest) -> Result<Option<Layer>, LayerError> {
        let wanted = self.identify(request, Resolve::IfMissing).await?;
        let store = self.store.clone();
        let found = blocking("look for a package layer", move || store.find(&wanted.key)).await?;
        Ok(match found {
            Found::Layer(layer) => Some(*layer),
            Found::Nothing | Found::Damaged(_) => None,
        })
    }

    /// Resolves a request again and makes the newest allowed versions its layer. Workers that use the old one keep it.
    ///
    /// # Errors
    /// See [`LayerError`]. The old layer stays.
    ///
    /// # Cancel safety
    /// As [`Layers::ensure`].
    pub async fn update(
        &self,
        request: LayerRequest,
        progress: &watch::Sender<Progress>,
    ) -> Result<(std::sync::Arc<Layer>, Vec<Change>), LayerError> {
        let before = self.find(request.clone()).await?;
        let layer = self.request(request, Resolve::Anew, progress).await?;
        let changes = changes(before.as_ref().map_or(&[], Layer::packages), layer.packages());
        Ok((layer, changes))
    }

    /// Removes layers that nobody uses: those that no request leads to, and those beyond `limits` (default: as configured).
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub async fn prune(&self, limits: Option<Limits>) -> Result<Pruned, LayerError> {
        let (store, limits) = (self.store.clone(), limits.unwrap_or(self.limits));
        blocking("remove old package layers", move || {
            store.clean()?;
            store.prune(limits, SystemTime::now())
        })
        .await
    }

    /// Compares every byte of every layer with what was sealed. A layer that differs is removed, and built anew when it is
    /// next asked for.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn verify(&self) -> Result<Vec<Verified>, LayerError> {
        let store = self.store.clone();
        let verified = blocking("check the package layers", move || store.verify()).await?;
        Ok(verified.into_iter().map(|(name, difference)| Verified { name, difference }).collect())
    }

    /// Asks the registries what is new. Nothing is downloaded but the lists of versions.
    ///
    /// # Errors
    /// See [`LayerError`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the process that asks.
    pub async fn outdated(&self, request: LayerRequest) -> Result<Vec<Outdated>, LayerError> {
        let layer = self.find(request.clone()).await?;
        let versions = survey(&self.store, &self.environment, &request, self.timeout).await?;
        let outdated = request.packages.iter().map(|package| {
            let mut locked = layer.iter().flat_map(|layer| layer.packages());
            let (newest_allowed, newest) = versions.get(package).cloned().unwrap_or_default();
            Outdated {
                key: package.key(),
                range: package.range().to_owned(),
                locked: locked
                    .find(|locked| locked.key == package.key())
                    .map(|locked| locked.version.clone()),
                newest_allowed,
                newest,
            }
        });
        Ok(outdated.collect())
    }
}

fn changes(before: &[LockedPackage], after: &[LockedPackage]) -> Vec<Change> {
    let version = |of: &[LockedPackage], spelling: &str| {
        of.iter().find(|package| package.spelling == spelling).map(|package| package.version.clone())
    };
    let added_or_changed = after.iter().map(|package| Change {
        key: package.key.clone(),
        from: version(before, &package.spelling),
        to: Some(package.version.clone()),
    });
    let removed = before
        .iter()
        .filter(|package| version(after, &package.spelling).is_none())
        .map(|package| Change { key: package.key.clone(), from: Some(package.version.clone()), to: None });
    added_or_changed.chain(removed).filter(|change| change.from != change.to).collect()
}
