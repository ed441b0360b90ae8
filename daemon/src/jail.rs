//! The kernel jail as the daemon sees it: what the configuration asks for, and whether this machine gives it.
//!
//! The pool jails each worker and refuses to start one where `strict` is not met ([`conductor_pool::launcher::Proof`]).
//! This module translates the configuration, has the jail tried out while the daemon starts, and tells what was found: to
//! the log once, to `status` always. Owns nothing that changes.

use std::collections::BTreeSet;
use std::io;

use conductor_pool::launcher::Proof;
use conductor_pool::spawn::{DenoSpawn, Layer, Level, SpawnConfig, State};
use conductor_protocol::status::{JailStatus, LayerStatus};

use crate::config::JailSection;

/// The layer that is around a worker and not in it. Machines on which it is missing are many, and what it is needed for is
/// the `run` grant alone; so it is told, but does not make a jail incomplete.
const CGROUP: &str = "cgroup";

/// The workers' jail, for whoever wants to know how it is.
#[derive(Clone, Debug)]
pub struct Jail {
    source: DenoSpawn,
}

impl JailSection {
    /// Has workers jailed as this section says.
    pub(crate) fn apply(self, spawn: &mut SpawnConfig) {
        spawn.level = self.level;
        spawn.layers = self.layers();
    }

    fn layers(self) -> BTreeSet<Layer> {
        let hardened = self.hardened.then_some(Layer::NoNewCode);
        Layer::DEFAULT.into_iter().chain(hardened).collect()
    }
}

impl Jail {
    pub(crate) fn new(source: DenoSpawn) -> Self {
        Self { source }
    }

    /// Tries the jail out and logs what does not hold. Nobody waits for it, except calls at the strict level.
    pub(crate) async fn try_out(self) {
        let proof = self.source.proof().await;
        for (layer, reason) in proof.report.gaps() {
            tracing::warn!(%layer, reason, "a layer of the workers' jail is not complete");
        }
        if let State::Partial(reason) | State::Missing(reason) = self.source.config().cgroups.state() {
            tracing::info!(reason, "workers have no control group, or not all that it can do");
        }
        for finding in &proof.broken {
            tracing::error!(finding, "the workers' jail does not hold");
        }
        tracing::info!(landlock_abi = proof.report.landlock_abi, "the workers' jail was tried out");
    }

    /// Whether workers are not jailed as `section` says: the jail is made when the daemon starts.
    pub(crate) fn differs_from(&self, section: JailSection) -> bool {
        let config = self.source.config();
        (config.level, &config.layers) != (section.level, &section.layers())
    }

    pub(crate) fn status(&self) -> JailStatus {
        status(self.source.config(), self.source.known_proof())
    }
}

fn status(config: &SpawnConfig, proof: Option<&Proof>) -> JailStatus {
    let level = match config.level {
        Level::Strict => "strict",
        Level::BestEffort => "best-effort",
    };
    let status = JailStatus { level: level.into(), ..JailStatus::default() };
    let Some(proof) = proof else { return JailStatus { state: "checking".into(), ..status } };
    let inside = proof.report.layers.iter().map(|(layer, state)| layer_status(layer.name(), state));
    let layers = inside.chain([layer_status(CGROUP, &config.cgroups.state())]).collect();
    let holds = proof.broken.is_empty() && proof.report.gaps().next().is_none();
    JailStatus {
        state: if holds { "holds" } else { "incomplete" }.into(),
        layers,
        landlock_abi: proof.report.landlock_abi,
        broken: proof.broken.clone(),
        refuses: proof.permits(config.level).is_err(),
        ..status
    }
}

fn layer_status(name: &str, state: &State) -> LayerStatus {
    let (state, reason) = match state {
        State::Active => ("active", None),
        State::Partial(reason) => ("partial", Some(reason.clone())),
        State::Missing(reason) => ("missing", Some(reason.clone())),
        State::Off => ("off", None),
    };
    LayerStatus { name: name.into(), state: state.into(), reason }
}

/// Closes this process's memory, environment and descriptors to other processes of the same user, and keeps it from
/// dumping core: it holds the secrets of every session. Programs that it starts are not concerned.
///
/// # Errors
/// The operating system's.
pub(crate) fn close_own_memory() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use conductor_pool::spawn::{Cgroups, Report};

    use super::*;

    fn config(level: Level) -> SpawnConfig {
        let cgroups = Cgroups::none("not here");
        SpawnConfig { level, cgroups, ..SpawnConfig::new("/nonexistent".into()) }
    }

    #[test]
    fn each_layer_is_told_with_its_reason() {
        let layers = [
            (Layer::Limits, State::Active),
            (Layer::Landlock, State::Partial("no ports".into())),
            (Layer::Seccomp, State::Missing("no table".into())),
            (Layer::NoNewCode, State::Off),
        ];
        let proof =
            Proof { report: Report { layers: layers.into(), landlock_abi: 3 }, broken: vec!["x".into()] };
        for (level, refuses) in [(Level::Strict, true), (Level::BestEffort, false)] {
            let status = status(&config(level), Some(&proof));
            assert_eq!(
                (status.state.as_str(), status.landlock_abi, status.refuses),
                ("incomplete", 3, refuses)
            );
            assert_eq!(status.broken, ["x"]);
            let told: Vec<_> = status
                .layers
                .iter()
                .map(|layer| (layer.name.as_str(), layer.state.as_str(), layer.reason.as_deref()))
                .collect();
            let expected = [
                ("limits", "active", None),
                ("landlock", "partial", Some("no ports")),
                ("seccomp", "missing", Some("no table")),
                ("no-new-code", "off", None),
                ("cgroup", "missing", Some("not here")),
            ];
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_jail_holds_without_a_control_group_and_says_so() {
        let whole = Proof {
            report: Report { layers: [(Layer::Limits, State::Active)].into(), landlock_abi: 7 },
            broken: Vec::new(),
        };
        let status = status(&config(Level::Strict), Some(&whole));
        assert_eq!((status.state.as_str(), status.refuses), ("holds", false));
        assert_eq!(status.layers.last().and_then(|layer| layer.reason.as_deref()), Some("not here"));
    }

    #[test]
    fn until_it_is_known_nothing_is_claimed() {
        let status = status(&config(Level::Strict), None);
        assert_eq!((status.level.as_str(), status.state.as_str()), ("strict", "checking"));
        assert!(status.layers.is_empty() && !status.refuses);
    }

    #[test]
    fn hardened_adds_a_layer() {
        let mut spawn = config(Level::BestEffort);
        JailSection { level: Level::Strict, hardened: true }.apply(&mut spawn);
        assert_eq!((spawn.level, spawn.layers), (Level::Strict, Layer::ALL.into()));
        let mut spawn = config(Level::Strict);
        JailSection::default().apply(&mut spawn);
        assert_eq!((spawn.level, spawn.layers), (Level::BestEffort, Layer::DEFAULT.into()));
    }
}
