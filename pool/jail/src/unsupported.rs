//! Systems without a jail of ours: every layer asked for is missing.

use std::ffi::CStr;

use crate::{Jail, JailError, Level, Report, State};

const REASON: &str = "this system has no jail yet; Linux alone has";

impl Jail {
    /// Changes nothing, and says so.
    ///
    /// # Errors
    /// At [`Level::Strict`] always, unless no layer was asked for.
    pub fn apply(&self, level: Level, _program: Option<&CStr>) -> Result<Report, JailError> {
        if level == Level::Strict
            && let Some(layer) = self.layers.first()
        {
            return Err(JailError::Incomplete { layer: *layer, reason: REASON.to_owned() });
        }
        let layers = self.layers.iter().map(|layer| (*layer, State::Missing(REASON.to_owned()))).collect();
        Ok(Report { layers, landlock_abi: 0 })
    }
}
