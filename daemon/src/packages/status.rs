//! What an operator is shown of a profile's packages.

use conductor_deno::DenoBinary;
use conductor_protocol::status::{PackagesStatus, PreloadStatus};

use super::PackageService;
use crate::error_chain;
use crate::profile::Profile;

impl PackageService {
    /// `None` for a profile that may import none.
    pub(crate) fn status(&self, profile: &Profile, deno: &DenoBinary) -> Option<PackagesStatus> {
        let allowed = &profile.packages.allowed;
        if allowed.is_empty() {
            return None;
        }
        let provided = self.at_hand(profile, deno);
        let preload = provided.as_ref().map(|provided| self.worker_packages(profile, provided).preload);
        let uses = self.uses(profile);
        let preloaded = preload.unwrap_or_default().into_iter().map(|specifier| {
            let cost = provided.iter().flat_map(|it| &it.costs).find(|cost| cost.specifier == specifier);
            PreloadStatus {
                import_ms: cost.map_or(0.0, |cost| cost.import_ms),
                memory_bytes: cost.map_or(0, |cost| cost.memory_bytes),
                uses: uses.iter().find(|(name, _)| *name == specifier).map_or(0.0, |(_, uses)| *uses),
                specifier,
            }
        });
        Some(PackagesStatus {
            profile: profile.name.clone(),
            allowed: (!allowed.allows_any()).then(|| allowed.packages().count() as u64),
            preloaded: preloaded.collect(),
            layer: provided.as_ref().map(|provided| provided.layer.name().to_owned()),
            building: self.builds().first().map(|building| building.progress.borrow().to_string()),
            error: self.failure(profile).map(|error| error_chain(&error)),
        })
    }
}
