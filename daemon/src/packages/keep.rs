//! Gets the layer of a profile's whole list, and keeps at it while a session lasts.
//!
//! What cannot be had of a list is left out of its layer and tried again from time to time. A registry that does not even
//! answer is worse: Deno waits for it, and what the other registry has waits with it. Then a layer of the other's packages
//! stands in for the whole one.
//!
//! A layer of another build of this program has that build's compiled harness in its caches, and never changes. Until a
//! layer of the same lock is built again it serves, with boots that take longer; versions stay as they are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use conductor_deno::DenoBinary;
use conductor_packages::{Layer, LayerError, LayerRequest, MissingPackage, Progress, Registry};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{PackageService, Provided, list_request, lock};
use crate::error_chain;
use crate::profile::Profile;

/// How long a session lasts before its packages are fetched: clients start servers just to look at them.
const BUILD_DELAY: Duration = Duration::from_secs(1);

/// Pause after a build that failed for something that may pass, such as a registry that is down.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Pause after a layer that lacks packages. A little more than the layers themselves wait before they try again.
const COMPLETE_AFTER: Duration = Duration::from_secs(5 * 60 + 5);

/// A registry that tells nothing new for so long is taken for one that does not answer. Each of its answers is a few
/// kilobytes.
const SILENCE: Duration = Duration::from_secs(15);

/// Packages that a text names before it counts the others.
const NAMED: usize = 3;

impl PackageService {
    /// Gets the layer of the profile's whole list, again and again until it is there with all packages.
    ///
    /// # Cancel safety
    /// Dropping the future ends the build if nobody else waits for it.
    pub async fn keep_at_hand(&self, profile: &Profile, deno: &DenoBinary) {
        let Some(request) = list_request(profile, deno) else { return };
        if let Ok(Some(provided)) = self.look(profile, deno).await
            && provided.layer.missing().is_empty()
            && provided.is_warm_for(&self.warms_for)
        {
            return;
        }
        sleep(BUILD_DELAY).await;
        loop {
            let pause = match self.get(&request).await {
                Ok(None) => break,
                Ok(Some(lack)) => {
                    self.failed(profile, lack);
                    COMPLETE_AFTER
                }
                Err(error) => {
                    let is_retryable = error.is_retryable();
                    self.failed(profile, error);
                    if !is_retryable {
                        return;
                    }
                    RETRY_AFTER
                }
            };
            sleep(pause).await;
        }
        lock(&self.failures).remove(&profile.name);
    }

    fn failed(&self, profile: &Profile, error: LayerError) {
        tracing::warn!(profile = profile.name, error = error_chain(&error), "packages are not available");
        lock(&self.failures).insert(profile.name.clone(), error);
    }

    /// Brings to hand what can be had of a request; what is not among it is told.
    async fn get(&self, request: &LayerRequest) -> Result<Option<LayerError>, LayerError> {
        let parts = parts(request);
        let whole = self.built(request, !parts.is_empty()).await;
        let error = match whole {
            Ok(layer) => {
                let lack = lack(layer.missing());
                let warm = self.warm_again(request, &layer).await;
                self.keep_new(request, warm.unwrap_or(layer));
                return Ok(lack);
            }
            Err(error) => error,
        };
        if !matches!(error, LayerError::RegistryUnreachable { .. } | LayerError::TimedOut { .. }) {
            return Err(error);
        }
        for part in parts {
            if let Ok(layer) = self.built(&part, true).await {
                self.keep_new(request, layer);
                return Ok(Some(error));
            }
        }
        Err(error)
    }

    /// The same packages in the same versions, warmed for the workers of this build; `None` when the layer is that already, or
    /// the packages cannot be fetched again.
    async fn warm_again(&self, request: &LayerRequest, layer: &Arc<Layer>) -> Option<Arc<Layer>> {
        if Provided::of(layer.clone()).is_warm_for(&self.warms_for) {
            return None;
        }
        let mut again = LayerRequest { pinned_lock: Some(layer.lock()), ..request.clone() };
        // Part of what names a layer: caches are made by a Deno and for a harness.
        again.deno.version = format!("{} for {}", again.deno.version, self.warms_for);
        again.packages.retain(|package| layer.missing().iter().all(|it| it.package != package.to_string()));
        match self.built(&again, false).await {
            Ok(layer) => Some(layer),
            Err(error) => {
                tracing::info!(error = error_chain(&error), "a layer of an older build stays in use");
                None
            }
        }
    }

    /// The layer of a request, from the disk or a registry that talks.
    async fn built(&self, request: &LayerRequest, gives_up: bool) -> Result<Arc<Layer>, LayerError> {
        let progress = watch::Sender::new(Progress::default());
        let _shown = self.building(request, &progress);
        let silent = silence(progress.subscribe());
        tokio::select! {
            // Cancel-safe: a build that nobody waits for ends.
            layer = self.layers.ensure(request.clone(), &progress) => layer,
            () = silent, if gives_up => Err(LayerError::TimedOut { after: SILENCE }),
        }
    }

    /// Keeps a layer for `request`, unless it is there already: workers are made anew for a new one.
    fn keep_new(&self, request: &LayerRequest, layer: Arc<Layer>) {
        if self.find(request).is_none_or(|there| there.layer.name() != layer.name()) {
            self.keep(request.clone(), Provided::of(layer));
        }
    }
}

/// Ready when registries are asked and say nothing for [`SILENCE`]. A download may take longer than that, and so may its
/// turn.
async fn silence(mut progress: watch::Receiver<Progress>) {
    loop {
        let is_asking = matches!(*progress.borrow_and_update(), Progress::Resolving { .. });
        match timeout(SILENCE, progress.changed()).await {
            Err(_) if is_asking => return,
            Ok(Err(_)) => std::future::pending().await,
            _ => {}
        }
    }
}

/// The request by registry, npm's part first. Empty when one registry has all, and for a pinned lock, which is had as a
/// whole or not at all.
fn parts(request: &LayerRequest) -> Vec<LayerRequest> {
    let of = |registry| {
        let packages = request.packages.iter().filter(|package| package.registry() == registry);
        let packages: BTreeSet<_> = packages.cloned().collect();
        LayerRequest { packages, ..request.clone() }
    };
    let parts = [of(Registry::Npm), of(Registry::Jsr)];
    let is_divided = request.pinned_lock.is_none() && parts.iter().all(|part| !part.packages.is_empty());
    if is_divided { parts.into() } else { Vec::new() }
}

/// What a layer lacks as an error, in one line.
pub(super) fn lack(missing: &[MissingPackage]) -> Option<LayerError> {
    let first = missing.first()?;
    let mut names = missing.iter().take(NAMED).map(|it| it.package.as_str()).collect::<Vec<_>>().join(", ");
    if missing.len() > NAMED {
        names = format!("{names} and {} more", missing.len() - NAMED);
    }
    Some(LayerError::Fetch { detail: format!("{names}: {}", first.reason) })
}

#[cfg(test)]
mod tests {
    use conductor_packages::{Allowlist, Deno};

    use super::*;

    fn request(list: &str) -> LayerRequest {
        let deno = Deno { path: "/deno".into(), version: "2.9.6".into() };
        LayerRequest::of_list(&Allowlist::parse(list).expect("is right"), deno, None).expect("names some")
    }

    #[test]
    fn a_list_is_divided_by_registry_unless_one_has_all() {
        let parts_of = |request: &LayerRequest| {
            let parts = parts(request).into_iter();
            parts
                .map(|part| part.packages.iter().map(ToString::to_string).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let both = request("npm:zod@^4,jsr:@std/path@^1,npm:ms@2");
        assert_eq!(parts_of(&both), [vec!["npm:ms@2", "npm:zod@^4"], vec!["jsr:@std/path@^1"]]);
        assert!(
            parts_of(&request("npm:zod@^4")).is_empty() && parts_of(&request("jsr:@std/path")).is_empty()
        );
        assert!(parts_of(&LayerRequest { pinned_lock: Some("/deno.lock".into()), ..both }).is_empty());
    }

    #[test]
    fn a_lack_names_some_packages_and_one_reason() {
        let missing = |number: usize| MissingPackage {
            package: format!("jsr:@std/a{number}"),
            reason: "no answer".into(),
            hint: None,
        };
        let text = |count| lack(&(0..count).map(missing).collect::<Vec<_>>()).map(|lack| lack.to_string());
        assert_eq!(text(0), None);
        assert!(text(2).is_some_and(|text| text.ends_with("jsr:@std/a0, jsr:@std/a1: no answer")));
        assert!(text(9).is_some_and(|text| text.contains("jsr:@std/a2 and 6 more: no answer")));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_that_of_a_registry_and_not_of_a_download() {
        let progress = watch::Sender::new(Progress::Queued);
        let mut silent = std::pin::pin!(silence(progress.subscribe()));
        let mut is_silent = async |after: Duration| timeout(after, &mut silent).await.is_ok();
        assert!(!is_silent(SILENCE * 9).await, "it waits for its turn");
        progress.send_replace(Progress::Resolving { seen: 1 });
        assert!(!is_silent(SILENCE / 2).await);
        progress.send_replace(Progress::Fetching { package: "a".into(), done: 1, of: 2 });
        assert!(!is_silent(SILENCE * 9).await, "it downloads");
        progress.send_replace(Progress::Resolving { seen: 2 });
        assert!(!is_silent(SILENCE - Duration::from_secs(1)).await);
        assert!(is_silent(Duration::from_secs(2)).await);
    }
}
