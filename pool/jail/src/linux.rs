//! The layers on Linux, and their order.

mod elf;
mod files;
mod filter;
mod limits;
mod privileges;

use std::ffi::CStr;

pub use self::filter::ForkFilter;
use crate::{Jail, JailError, Layer, Level, Report, State};

impl Jail {
    /// Puts the calling process into the jail, for good. In this order:
    ///
    /// 1. Limits: first, since lowering needs no right and everything after runs within them. With them the out-of-memory
    ///    score, while `/proc` can still be written, and the priority.
    /// 2. Capabilities: before the rest, so that whatever follows works without them or fails here.
    /// 3. `no_new_privs`: no program can give anything back, and the kernel asks it of whoever wants 5 and 6.
    /// 4. No memory that becomes executable. Only one call; before those that might forbid it.
    /// 5. Landlock: opens every granted path, so before calls are filtered.
    /// 6. Seccomp: last, because it forbids much of what the steps before do.
    ///
    /// `program` is the path that the caller hands to `execve` next. Unless [`Jail::run`], no other exec gets through: the
    /// filter compares the *address* of the path, which nothing knows once the exec has replaced this process's memory.
    /// `None`: this process goes on as it is, and may become no other program. It must have one thread.
    ///
    /// # Errors
    /// Limits, capabilities and `no_new_privs` exist on every kernel; their failure is always one. The other layers fail
    /// at [`Level::Strict`] if the kernel lacks them or part of them. After an error the process is jailed in part and
    /// must end.
    pub fn apply(&self, level: Level, program: Option<&CStr>) -> Result<Report, JailError> {
        let mut report = Report::default();
        let asked = |layer| self.layers.contains(&layer);
        if asked(Layer::Limits) {
            limits::apply(&self.limits)?;
            report.layers.insert(Layer::Limits, State::Active);
        }
        if asked(Layer::Capabilities) {
            privileges::drop_capabilities().map_err(JailError::Capabilities)?;
            report.layers.insert(Layer::Capabilities, State::Active);
        }
        privileges::forbid_new().map_err(JailError::NoNewPrivileges)?;
        if asked(Layer::NoNewCode) {
            report.layers.insert(Layer::NoNewCode, privileges::forbid_new_code());
        }
        if asked(Layer::Landlock) {
            let (state, abi) = files::restrict(self).map_err(JailError::Landlock)?;
            report.layers.insert(Layer::Landlock, state);
            report.landlock_abi = abi;
        }
        if asked(Layer::Seccomp) {
            report.layers.insert(Layer::Seccomp, filter::install(self, program).map_err(JailError::Seccomp)?);
        }
        for layer in Layer::ALL {
            report.layers.entry(layer).or_insert(State::Off);
        }
        if level == Level::Strict
            && let Some((layer, reason)) = report.gaps().next()
        {
            return Err(JailError::Incomplete { layer, reason: reason.to_owned() });
        }
        Ok(report)
    }
}

impl Jail {
    /// What turns a copy of a process in this jail, which [forks](Jail::forks), into one in the jail that is the same but
    /// for that. `None` if this jail has no seccomp layer, or the processor no table.
    ///
    /// # Errors
    /// The filter cannot be compiled.
    pub fn fork_filter(&self) -> std::io::Result<Option<ForkFilter>> {
        if self.layers.contains(&Layer::Seccomp) { ForkFilter::of(self) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::libc;
    use seccompiler::{SeccompAction, SeccompFilter};

    use super::*;

    /// Applies `layers` in a thread of its own, on a kernel that answers `missing` with an error.
    fn apply(missing: i64, layer: Layer, level: Level) -> Result<Report, JailError> {
        let body = move || {
            let calls = BTreeMap::from([(missing, vec![])]);
            let answer = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
            let architecture = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, architecture).unwrap();
            let filter: seccompiler::BpfProgram = filter.try_into().unwrap();
            seccompiler::apply_filter(&filter).unwrap();
            let jail = Jail { layers: [layer].into(), ..Jail::new(std::env::current_exe().unwrap()) };
            jail.apply(level, None)
        };
        std::thread::spawn(body).join().unwrap()
    }

    #[test]
    fn a_missing_layer_is_told_or_refused() {
        let table =
            [(libc::SYS_landlock_create_ruleset, Layer::Landlock), (libc::SYS_seccomp, Layer::Seccomp)];
        for (missing, layer) in table {
            let report = apply(missing, layer, Level::BestEffort).unwrap();
            assert!(matches!(report.layers[&layer], State::Missing(_)), "{layer}: {report:?}");
            assert_eq!(report.gaps().map(|(layer, _)| layer).collect::<Vec<_>>(), [layer]);
            let error = apply(missing, layer, Level::Strict).unwrap_err();
            assert!(matches!(error, JailError::Incomplete { layer: named, .. } if named == layer), "{error}");
            assert!(error.to_string().contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn without_no_new_privs_there_is_no_jail_of_any_kind() {
        let error = apply(libc::SYS_prctl, Layer::Landlock, Level::BestEffort).unwrap_err();
        assert!(matches!(error, JailError::NoNewPrivileges(_)), "{error}");
    }

    #[test]
    fn with_every_layer_the_levels_are_the_same() {
        for level in [Level::Strict, Level::BestEffort] {
            let report = apply(libc::SYS_nfsservctl, Layer::Landlock, level).unwrap();
            assert_eq!(report.layers[&Layer::Landlock], State::Active);
            assert!(report.landlock_abi >= 3);
        }
    }
}
