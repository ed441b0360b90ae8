//! Signs of life for the service manager, given only after proof of it.
//!
//! A timer that pings proves that a timer works. Here, before each sign, the daemon knocks at its own socket, which the
//! accept loop must open, and runs a line of code as a call does, which needs the executor, the pool, a worker and its
//! jail. A daemon that cannot do these is of no use, and the manager starts another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::Notifier;
use crate::config::Config;
use crate::deno::DenoState;
use crate::exec::result::ErrorType;
use crate::profile::{self, Profile};
use crate::supervisor::Shared;

/// Why no sign of life is given.
#[derive(Debug, thiserror::Error)]
enum Ill {
    #[error("the daemon does not answer at its own socket")]
    Door(#[source] std::io::Error),
    #[error("code does not run: {0}")]
    Code(String),
    #[error("there is no proof of life within {within:?}")]
    Slow { within: Duration },
}

/// Pings as long as the daemon is of use, so that the manager hears from it at least every `limit`. Never ends.
pub(crate) async fn watch(shared: Arc<Shared>, notifier: Notifier, limit: Duration) {
    // Half: a ping that is late by as much again is still in time.
    let pause = limit / 2;
    // A failure is looked at again a few times before the manager's patience ends, which may be all it takes.
    let pause_when_ill = limit / 8;
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let proof = tokio::time::timeout(pause, prove(&shared)).await;
        let proof = proof.unwrap_or(Err(Ill::Slow { within: pause }));
        let (status, next) = match proof {
            Ok(status) => {
                notifier.alive();
                (status, pause)
            }
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "no sign of life is given to the service manager");
                (error, pause_when_ill)
            }
        };
        if status != told && !shared.is_draining() {
            notifier.status(&status);
            told = status;
        }
        tokio::time::sleep(next.saturating_sub(began.elapsed())).await;
    }
}

/// Does what clients need done; gives the daemon's state in words.
async fn prove(shared: &Shared) -> Result<String, Ill> {
    if shared.is_draining() {
        // The door is closed and the pool leases no more; the way down has a deadline of its own.
        return Ok("going down".into());
    }
    knock(shared).await.map_err(Ill::Door)?;
    match shared.deno.state() {
        DenoState::Ready(deno) => {
            canary(shared).await?;
            Ok(format!("serving, with Deno {}", deno.version))
        }
        // Fetching takes as long as the line needs, and another daemon would only begin anew. Until then this one is as
        // well as it can be: it serves, and tells each caller what it waits for.
        DenoState::Searching | DenoState::Fetching(_) => Ok("serving, while Deno is fetched".into()),
        DenoState::Failed { error, .. } => Ok(format!("serving, without a Deno to run code: {error}")),
    }
}

/// Whether a line of code runs now, as a call's would.
///
/// # Cancel safety
/// Dropping the future kills the worker.
pub(crate) async fn code_runs(shared: &Shared) -> bool {
    matches!(shared.deno.state(), DenoState::Ready(_)) && canary(shared).await.is_ok()
}

/// The accept loop hangs up on a connection of this very process, so the end of the stream is its answer.
async fn knock(shared: &Shared) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(&shared.socket).await?;
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("somebody else answers there")),
    }
}

async fn canary(shared: &Shared) -> Result<(), Ill> {
    let profile = built_in(shared)?;
    match shared.executor.canary(&profile).await {
        // Every worker is at work for others, or the pool is on its way down: full is not dead, and a restart would cost
        // all those calls.
        Err(error) if error.kind == ErrorType::Busy => Ok(()),
        Err(error) => Err(Ill::Code(error.message)),
        Ok(()) => Ok(()),
    }
}

/// The profile of a session that asks for nothing: no grants, whatever the configuration says. Its idle workers are those
/// that a first such session gets.
fn built_in(shared: &Shared) -> Result<Profile, Ill> {
    let profile = profile::resolve(&Config::default(), &Default::default(), "/", &shared.dirs)
        .map_err(|error| Ill::Code(error.to_string()))?;
    std::fs::create_dir_all(&profile.workspace)
        .map_err(|error| Ill::Code(format!("cannot make {}: {error}", profile.workspace.display())))?;
    Ok(profile)
}
