//! Whether code runs at all, found out by running some.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::result::{ErrorReport, ErrorType, Timings};
use super::{Caller, Executor};
use crate::profile::Profile;
use crate::upstreams::Servers;

/// Under which the pool knows its caller; sessions count from one.
const NOBODY: u64 = 0;

/// Makes each value another one, so that no old result can pass for it.
static ROUND: AtomicU64 = AtomicU64::new(1);

impl Executor {
    /// Runs a line of code the way a call goes, for nobody: in no statistics, told to nobody.
    ///
    /// # Errors
    /// What a caller would have been told.
    ///
    /// # Cancel safety
    /// Dropping the future kills the worker.
    pub(crate) async fn canary(&self, profile: &Profile) -> Result<(), Box<ErrorReport>> {
        let round = ROUND.fetch_add(1, Ordering::Relaxed);
        let arguments = Map::from_iter([
            ("deno_code".to_owned(), json!("round * 2")),
            ("globals".to_owned(), json!({ "round": round })),
        ]);
        let caller = Caller {
            session: NOBODY,
            profile,
            servers: Servers::None,
            events: None,
            cancel: CancellationToken::new(),
        };
        let id = format!("canary-{round}");
        let result = self.try_run(&id, Some(arguments), &caller, &mut Timings::default()).await?;
        match (result.error, result.return_value) {
            (Some(error), _) => Err(Box::new(error)),
            (None, Some(value)) if value == json!(round * 2) => Ok(()),
            (None, value) => Err(Box::new(ErrorReport::new(
                ErrorType::Internal,
                format!("twice {round} was found to be {value:?}"),
            ))),
        }
    }
}
