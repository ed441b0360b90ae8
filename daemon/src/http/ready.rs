//! Whether the daemon is of use, found out by using it, and not more often than is needed.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::service::watchdog;
use crate::supervisor::Shared;

/// How long an answer is good: it costs a worker, and everybody may ask.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// The same for a no, which may be about to change: a daemon that starts still looks for Deno.
const NO_GOOD_FOR: Duration = Duration::from_secs(1);

/// How long a line of code may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last answer, and when it was found.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, bool)>>);

impl Readiness {
    /// Whether a call would be answered now. Those who ask at the same time wait for the same answer.
    ///
    /// # Cancel safety
    /// Cancel-safe: the next who asks finds out anew.
    pub(super) async fn is_ready(&self, shared: &Shared) -> bool {
        if shared.is_draining() {
            return false;
        }
        let mut last = self.0.lock().await;
        if let Some((at, is_ready)) = *last
            && at.elapsed() < if is_ready { GOOD_FOR } else { NO_GOOD_FOR }
        {
            return is_ready;
        }
        let proof = tokio::time::timeout(PATIENCE, watchdog::code_runs(shared)).await;
        let is_ready = proof.unwrap_or(false);
        *last = Some((Instant::now(), is_ready));
        is_ready
    }
}
