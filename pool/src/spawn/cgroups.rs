//! The control groups of workers: whether there are any, and what they are for.
//!
//! A group is the only thing that everything a worker starts stays in, so the jail of a worker under a `run` grant is whole
//! only with one. For the others it is a second hold on their memory and threads, where the controllers for that are
//! delegated, and nothing without them: those have none then, since moving a process delays the next fork of every other. The
//! process that starts workers settles in the tree once, when it starts ([`Cgroups::settle`]); where it has no part of the
//! tree, workers have no groups.

use std::io;
use std::sync::Arc;

use conductor_jail::State;
use conductor_jail::cgroup::{Branch, CgroupError, Delegation, Leaf, LeafLimits};

use crate::error_chain;
use crate::launcher::Unproved;
use crate::spec::WorkerSpec;

/// Threads and processes of one worker. Deno has six, some two hundred with all its blocking work and four Web Workers at
/// it; the rest is for programs.
const MAX_TASKS: u32 = 512;

/// Control groups for workers, or why there are none.
#[derive(Clone, Debug)]
pub struct Cgroups {
    branch: Result<Arc<Branch>, Arc<str>>,
}

impl Cgroups {
    /// Moves the calling process into a control group of its own, beside which those of its workers are made. Before it
    /// starts anything; what the last one has left is removed.
    pub fn settle() -> Self {
        let settled = Delegation::of_this_process()
            .and_then(|delegation| delegation.settle(std::process::id()))
            .map_err(|error| error_chain(&error).into());
        Self { branch: settled.map(Arc::new) }
    }

    /// None: for a process that shares its control group with others by intention, as a test does.
    pub fn none(why: &str) -> Self {
        Self { branch: Err(why.into()) }
    }

    /// Those of a branch that is there.
    pub fn of(branch: Branch) -> Self {
        Self { branch: Ok(Arc::new(branch)) }
    }

    /// Whether a group would hold a worker to anything. `is_single` says that its jail lets it start no program.
    pub(crate) fn hold(&self, is_single: bool) -> bool {
        self.branch.as_ref().is_ok_and(|branch| !is_single || branch.has_limits())
    }

    /// Their part of the jail, as its other layers are told.
    pub fn state(&self) -> State {
        match &self.branch {
            Err(why) => State::Missing(why.to_string()),
            Ok(branch) => match branch.lacks().collect::<Vec<_>>().join(" and ") {
                lacks if lacks.is_empty() => State::Active,
                lacks => State::Partial(format!(
                    "it ends what a worker starts, but sets no limit on {lacks}: not delegated"
                )),
            },
        }
    }

    /// What the strict level says to running code that may start programs.
    ///
    /// # Errors
    /// The groups are missing or partial.
    pub(crate) fn permit_programs(&self) -> Result<(), Unproved> {
        match self.state() {
            State::Active | State::Off => Ok(()),
            State::Partial(reason) | State::Missing(reason) => Err(Unproved::Ungrouped { reason }),
        }
    }

    /// Puts a worker into a group of its own; `None` without groups. Blocks for some milliseconds, in which the worker goes
    /// on: call it before the worker is given any code.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn enclose(&self, process: u32, spec: &WorkerSpec) -> io::Result<Option<Leaf>> {
        let Ok(branch) = &self.branch else { return Ok(None) };
        let limits =
            LeafLimits { memory: Some(u64::from(spec.max_memory_mib) << 20), tasks: Some(MAX_TASKS) };
        let failed = |error: CgroupError| io::Error::other(error_chain(&error));
        let leaf = branch.leaf(limits).map_err(failed)?;
        match leaf.add(process) {
            Ok(()) => Ok(Some(leaf)),
            Err(error) => {
                // It is empty. What keeps it all the same goes with the branch.
                leaf.remove().ok();
                Err(failed(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_groups_programs_are_refused_with_the_cure() {
        let none = Cgroups::none("there is no tree");
        assert_eq!(none.state(), State::Missing("there is no tree".to_owned()));
        let text = none.permit_programs().unwrap_err().to_string();
        assert!(text.contains("there is no tree") && text.contains("\nhint: "), "{text}");
    }
}
