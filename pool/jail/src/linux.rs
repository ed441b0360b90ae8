//! The layers on Linux, and their order.

mod elf;
mod files;
mod filter;
mod limits;
mod privileges;

use std::ffi::CStr;

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
    ///
    /// # Errors
    /// Limits, capabilities and `no_new_privs` exist on every kernel; their failure is always one. The other layers fail
    /// at [`Level::Strict`] if the kernel lacks them or part of them. After an error the process is jailed in part and
    /// must end.
    pub fn apply(&self, level: Level, program: &CStr) -> Result<Report, JailError> {
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
