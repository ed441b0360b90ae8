//! Whether the jail holds on this machine, by its own start-up test ([`conductor_jail::probe`]).
//!
//! What holds is the same for every worker, so it is found out once. Nothing here decides what follows from it, except
//! [`Proof::permits`], which is what the strict level means.

use std::collections::BTreeSet;
use std::path::PathBuf;

use conductor_jail::{Layer, Level, Report};

/// What the test found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What became of each layer; empty when the test gave no result.
    pub report: Report,
    /// Why the jail is not what it claims to be: attempts that a layer did not stop, or why there was no test. For people,
    /// one line each; empty is good.
    pub broken: Vec<String>,
}

/// Why no code runs at the strict level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    #[error(
        "the jail's layer {layer} is not complete on this machine: {reason}\nhint: use a kernel that has it, or set \
         `level = \"best-effort\"` in `[jail]`, which runs code without it and says so"
    )]
    Incomplete { layer: Layer, reason: String },
    #[error(
        "the jail does not hold: {finding}\nhint: report this, or set `level = \"best-effort\"` in `[jail]`, which \
         runs code all the same"
    )]
    Broken { finding: String },
    /// Told of code under a `run` grant only.
    #[error(
        "code that may start programs runs in a control group, in which all of them end with it, and this daemon has \
         none that is whole: {reason}\nhint: run the daemon as its systemd service (`conductorctl service install`), \
         which has the memory and pids controllers delegated, or set `level = \"best-effort\"` in `[jail]`"
    )]
    Ungrouped { reason: String },
}

impl Proof {
    /// Runs the test, on a thread where it may block. It takes milliseconds.
    pub(crate) async fn of(launcher: PathBuf, layers: BTreeSet<Layer>) -> Self {
        let tested = tokio::task::spawn_blocking(move || test(&launcher, layers)).await;
        tested.unwrap_or_else(|panicked| Self::without_result(panicked.to_string()))
    }

    /// What `level` says to running code in this jail.
    ///
    /// # Errors
    /// At [`Level::Strict`] the first layer that is missing or partial, else the first claim that does not hold.
    pub fn permits(&self, level: Level) -> Result<(), Unproved> {
        if level == Level::BestEffort {
            return Ok(());
        }
        if let Some((layer, reason)) = self.report.gaps().next() {
            return Err(Unproved::Incomplete { layer, reason: reason.to_owned() });
        }
        match self.broken.first() {
            None => Ok(()),
            Some(finding) => Err(Unproved::Broken { finding: finding.clone() }),
        }
    }

    fn without_result(why: String) -> Self {
        Self { report: Report::default(), broken: vec![why] }
    }
}

#[cfg(target_os = "linux")]
fn test(launcher: &std::path::Path, layers: BTreeSet<Layer>) -> Proof {
    match conductor_jail::probe::self_test(launcher, layers) {
        Ok(test) => Proof { broken: test.broken(), report: test.report },
        Err(error) => Proof::without_result(crate::error_chain(&error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn test(_launcher: &std::path::Path, _layers: BTreeSet<Layer>) -> Proof {
    Proof::without_result("this system has no jail yet; Linux alone has".to_owned())
}

#[cfg(test)]
mod tests {
    use conductor_jail::State;

    use super::*;

    fn proof(state: State, broken: &[&str]) -> Proof {
        Proof {
            report: Report { layers: [(Layer::Seccomp, state)].into(), landlock_abi: 0 },
            broken: broken.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn strict_takes_nothing_less_than_the_whole_jail() {
        let missing = proof(State::Missing("too old".into()), &[]);
        let text = missing.permits(Level::Strict).unwrap_err().to_string();
        assert!(
            text.contains("layer seccomp") && text.contains("too old") && text.contains("\nhint: "),
            "{text}"
        );
        let partial = proof(State::Partial("no ports".into()), &[]);
        assert!(matches!(partial.permits(Level::Strict), Err(Unproved::Incomplete { .. })));
        let broken = proof(State::Active, &["make a socket: it was done"]);
        let text = broken.permits(Level::Strict).unwrap_err().to_string();
        assert!(text.contains("make a socket") && text.contains("\nhint: "), "{text}");
        assert_eq!(proof(State::Active, &[]).permits(Level::Strict), Ok(()));
        assert_eq!(proof(State::Off, &[]).permits(Level::Strict), Ok(()), "it was not asked for");
        for proof in [missing, partial, broken] {
            assert_eq!(proof.permits(Level::BestEffort), Ok(()));
        }
    }

    #[tokio::test]
    async fn no_test_is_no_proof() {
        let proof = Proof::of("/nonexistent/launcher".into(), Layer::DEFAULT.into()).await;
        assert_eq!(proof.report, Report::default());
        assert!(matches!(proof.permits(Level::Strict), Err(Unproved::Broken { .. })), "{proof:?}");
    }
}
