//! Packages in templates: imported once, and there in every child for nothing.
//!
//! Code of packages runs in a template, with the rights of a worker: the library is closed and the permission for it given up
//! before ([`harness.js`](../harness/harness.js)). What the package does meanwhile, all children would have in common, so one
//! that draws random numbers, sets a timer, leaves something open or at work, or does not come to an end is left out, and
//! another template is made without it. What all packages of a template spoil together leaves out all. The template says what
//! it has seen of each package; what it does not say shows in what it holds, and in its children's self-test. And there is half a
//! second for all of it: after that Deno starts a thread to listen for a signal, which a fork would lose.
//!
//! What is left out its children import one by one before they are idle, as started workers do, unless that is what has failed.
//! A template that has something left out for want of time alone is soon replaced: the machine may have been busy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug;

use super::descriptors::Unfit;
use super::limits::ForkLimits;
use super::template::{ForkError, Template};
use super::{Built, self_test};
use crate::source::SpawnError;
use crate::spawn::DenoSpawn;
use crate::spec::WorkerSpec;
use crate::worker::sharing::{Flaw, Sharing};
use crate::{error_chain, excerpt};

/// Boots of a template that may take too long, before it is tried with fewer packages.
const TRIES: usize = 3;

/// What a template is made of, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build<'a> {
    pub(super) spawn: &'a DenoSpawn,
    pub(super) spec: &'a WorkerSpec,
    pub(super) limits: &'a ForkLimits,
    /// For the parts that take CPU time.
    pub(super) busy: &'a Semaphore,
}

impl Build<'_> {
    /// A template that has proved itself, with those of the spec's packages that it may have.
    pub(super) async fn proved(self) -> Built {
        let mut plan = Plan::of(self.spec);
        // Ends: each round but the last takes something out of the plan.
        loop {
            let mut sharing = plan.sharing();
            let error = match self.attempt(&mut sharing, &plan).await {
                Ok(template) => return Ok(template),
                Err(error) => error,
            };
            if !plan.leave_out(&sharing, &error) {
                return Err(error);
            }
            debug!(left_out = ?plan.left_out, "a template is made with fewer packages");
        }
    }

    /// A template without packages, which has not proved itself.
    pub(super) async fn plain(self) -> Built {
        self.template(&mut Sharing::default(), &Plan::default()).await
    }

    async fn attempt(self, sharing: &mut Sharing, plan: &Plan) -> Built {
        let template = self.template(sharing, plan).await?;
        let _testing = self.busy.acquire().await.expect("nobody closes it");
        self_test::run(&template, self.spawn, self.spec).await?;
        Ok(template)
    }

    /// One that can fork. Waits for its threads to end.
    async fn template(self, sharing: &mut Sharing, plan: &Plan) -> Built {
        let mut template = self.booted(sharing).await?;
        if !sharing.is_good() {
            return Err(ForkError::Shared);
        }
        template.left_out.clone_from(&plan.left_out);
        template.was_hurried = plan.was_hurried;
        template.settle(self.limits.settled_within).await?;
        if let Some(packages) = &self.spec.packages {
            only_caches_are_open(&template, &packages.deno_dir)?;
        }
        template.set_up(self.spawn.config().boot_timeout).await?;
        Ok(Arc::new(template))
    }

    /// Boots one in its turn, in time: a machine that was busy may be less so the next time.
    async fn booted(self, sharing: &mut Sharing) -> Result<Template, ForkError> {
        let _booting = self.busy.acquire().await.expect("nobody closes it");
        for _ in 0..TRIES {
            let template = Template::boot(self.spawn, self.spec, sharing).await?;
            if !sharing.is_good() || template.may_settle().await? {
                return Ok(template);
            }
        }
        Err(ForkError::Slow)
    }
}

/// Deno opens its caches, and Linux knows of each file; a package may have opened others by numbers that Deno does not know.
fn only_caches_are_open(template: &Template, deno_dir: &Path) -> Result<(), Unfit> {
    let deno_dir = deno_dir.canonicalize()?;
    for entry in fs::read_dir(format!("/proc/{}/fd", template.pid().as_raw_pid()))? {
        let link = match fs::read_link(entry?.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            link => link?,
        };
        if link.is_absolute() && link != Path::new("/dev/null") && !link.starts_with(&deno_dir) {
            return Err(Unfit::Unknown(link.display().to_string()));
        }
    }
    Ok(())
}

/// Who imports what. Pure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    shared: Vec<String>,
    each: Vec<String>,
    left_out: BTreeMap<String, String>,
    /// Something is left out for want of time, which there may be more of when the machine is less busy.
    was_hurried: bool,
}

impl Plan {
    fn of(spec: &WorkerSpec) -> Self {
        let shared = spec.packages.iter().flat_map(|packages| packages.preload.clone()).collect();
        Self { shared, ..Self::default() }
    }

    fn sharing(&self) -> Sharing {
        Sharing { shared: self.shared.clone(), each: self.each.clone(), ..Sharing::default() }
    }

    /// Takes out what has spoiled a template; false if no package has.
    fn leave_out(&mut self, sharing: &Sharing, error: &ForkError) -> bool {
        match error {
            ForkError::Shared if !sharing.flaws.is_empty() => {
                for (index, flaw) in &sharing.flaws {
                    self.take(&sharing.shared[*index], flaw.text(), *flaw != Flaw::Failed);
                }
            }
            ForkError::Start(cause) => {
                let Some(begun) = sharing.begun else { return false };
                self.take(&sharing.shared[begun], ended(cause), false);
            }
            ForkError::Shared => self.give_up(Flaw::Work.text()),
            ForkError::Slow if !self.shared.is_empty() => {
                for specifier in self.shared.split_off(self.shared.len() / 2) {
                    self.take(&specifier, SLOW, true);
                }
                self.was_hurried = true;
            }
            ForkError::Link(_)
            | ForkError::Unfit(_)
            | ForkError::Threads { .. }
            | ForkError::NotItsChild
            | ForkError::Child(_)
            | ForkError::SelfTest(_)
                if !self.shared.is_empty() || !self.each.is_empty() =>
            {
                self.give_up(&excerpt(&error_chain(error)));
            }
            _ => return false,
        }
        true
    }

    fn take(&mut self, specifier: &str, why: &str, importable: bool) {
        self.shared.retain(|shared| shared != specifier);
        self.left_out.insert(specifier.to_owned(), why.to_owned());
        if importable {
            self.each.push(specifier.to_owned());
        }
    }

    /// All of them: first out of the template, then out of its children.
    fn give_up(&mut self, why: &str) {
        if self.shared.is_empty() {
            for specifier in self.each.drain(..) {
                let text = self.left_out.entry(specifier).or_default();
                text.push_str(&format!("; not imported ahead of time: {why}"));
            }
        }
        let why = format!("a template that has it, and perhaps others, is no good: {why}");
        for specifier in std::mem::take(&mut self.shared) {
            self.take(&specifier, &why, true);
        }
    }
}

impl Flaw {
    fn text(self) -> &'static str {
        match self {
            Self::Failed => "it cannot be imported ahead of time",
            Self::Random => "it draws random numbers while it is imported",
            Self::Timer => "it sets a timer while it is imported",
            Self::Open => "it leaves something open after it is imported",
            Self::Work => "something goes on after all imports",
        }
    }
}

const SLOW: &str = "a template with it takes longer than half a second to boot, and could not fork then";

fn ended(error: &SpawnError) -> &'static str {
    match error {
        SpawnError::BootTimeout { .. } => "its import does not come to an end",
        _ => "its import ends the process",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan(shared: &[&str]) -> Plan {
        Plan { shared: shared.iter().map(|it| (*it).to_owned()).collect(), ..Plan::default() }
    }

    fn why<'a>(plan: &'a Plan, specifier: &str) -> &'a str {
        &plan.left_out[specifier]
    }

    #[test]
    fn a_package_with_a_flaw_goes_alone() {
        let mut plan = plan(&["npm:a", "npm:b", "npm:c", "npm:d"]);
        let flaws = [(0, Flaw::Random), (2, Flaw::Failed)].into();
        let sharing = Sharing { flaws, flaw: Some(Flaw::Work), ..plan.sharing() };
        assert!(plan.leave_out(&sharing, &ForkError::Shared));
        assert_eq!((plan.shared.join(" "), plan.each.join(" ")), ("npm:b npm:d".into(), "npm:a".into()));
        assert!(!plan.was_hurried);
        assert!(why(&plan, "npm:a").contains("random") && why(&plan, "npm:c").contains("cannot be imported"));

        let sharing = Sharing { begun: Some(1), ..plan.sharing() };
        let hangs = ForkError::Start(SpawnError::BootTimeout { after: Duration::ZERO });
        assert!(plan.leave_out(&sharing, &hangs));
        assert_eq!((plan.shared.join(" "), plan.each.join(" ")), ("npm:b".into(), "npm:a".into()));
        assert!(why(&plan, "npm:d").contains("does not come to an end"));
    }

    #[test]
    fn what_nobody_can_be_blamed_for_leaves_out_all_by_and_by() {
        let mut plan = plan(&["npm:a", "npm:b"]);
        let broken = || ForkError::SelfTest("timers".to_owned());
        let sharing = Sharing { flaw: Some(Flaw::Work), ..plan.sharing() };
        assert!(plan.leave_out(&sharing, &ForkError::Shared));
        assert_eq!((plan.shared.len(), plan.each.len()), (0, 2));
        assert!(plan.leave_out(&plan.sharing(), &broken()));
        assert_eq!((plan.shared.len(), plan.each.len()), (0, 0));
        let why = why(&plan, "npm:a");
        assert!(
            why.contains("goes on") && why.contains("ahead of time: the self-test failed: timers"),
            "{why}"
        );
        assert!(!plan.leave_out(&plan.sharing(), &broken()), "there is no package left to blame");
    }

    #[test]
    fn a_template_that_boots_too_slowly_has_half_of_them_the_next_time() {
        let mut plan = plan(&["npm:a", "npm:b", "npm:c"]);
        for (shared, each) in [("npm:a", "npm:b npm:c"), ("", "npm:b npm:c npm:a")] {
            assert!(plan.leave_out(&plan.sharing(), &ForkError::Slow));
            assert_eq!((plan.shared.join(" "), plan.each.join(" ")), (shared.into(), each.into()));
        }
        assert!(why(&plan, "npm:b").contains("half a second") && plan.was_hurried);
        assert!(!plan.leave_out(&plan.sharing(), &ForkError::Slow), "without packages it is no better");
    }

    #[test]
    fn a_failure_before_any_import_is_no_packages() {
        let mut plan = plan(&["npm:a"]);
        let died = ForkError::Start(SpawnError::Died { status: String::new(), stderr: String::new() });
        for error in [died, ForkError::NoLibrary, ForkError::Unsuitable(String::new())] {
            assert!(!plan.leave_out(&plan.sharing(), &error), "{error}");
        }
        assert_eq!(plan.shared.len(), 1);
    }
}
