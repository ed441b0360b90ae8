//! The Deno executable of the daemon: found or fetched once, in the background, while sessions are already served.
//!
//! [`DenoTask`] owns the search; everyone else holds a [`DenoHandle`] and reads its state. A failed search is made again when
//! a call needs Deno and the last attempt is older than [`RETRY_AFTER`] or [`LOOK_AFTER`], one that succeeded when workers do not
//! start any more, and any when the configuration is read again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_deno::{DenoBinary, FetchOptions, ObtainError, Progress, Search};
use conductor_protocol::status::DenoStatus;
use tokio::sync::{mpsc, watch};

use crate::exec::CallEvent;

/// A registry that was out of reach is not asked again sooner.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Files that were not there are not looked for again sooner.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How often a waiting call is told how far a fetch is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Where the search stands.
#[derive(Clone, Debug)]
pub enum DenoState {
    Searching,
    Fetching(FetchProgress),
    Ready(Arc<DenoBinary>),
    /// Not tried again before then.
    Failed {
        error: Arc<str>,
        until: Instant,
    },
}

#[derive(Clone, Debug)]
pub struct FetchProgress {
    /// In words, like `downloading Deno with npm (2.9.6)`.
    pub phase: String,
    pub bytes: u64,
    pub total_bytes: u64,
}

/// What others may ask of the search.
#[derive(Clone, Debug)]
pub struct DenoHandle {
    state: watch::Receiver<DenoState>,
    /// One pending request is as good as many.
    again: mpsc::Sender<()>,
    doubted_at: Arc<Mutex<Option<Instant>>>,
}

/// Owns the search for Deno.
#[derive(Debug)]
pub struct DenoTask {
    explicit: watch::Receiver<Option<PathBuf>>,
    data_dir: PathBuf,
    state: watch::Sender<DenoState>,
    again: mpsc::Receiver<()>,
}

impl DenoTask {
    /// `explicit` is the executable that `--deno` or the configuration names; a change of it starts a new search.
    pub fn new(explicit: watch::Receiver<Option<PathBuf>>, data_dir: PathBuf) -> (Self, DenoHandle) {
        let (state, state_reader) = watch::channel(DenoState::Searching);
        let (again, again_reader) = mpsc::channel(1);
        (
            Self { explicit, data_dir, state, again: again_reader },
            DenoHandle { state: state_reader, again, doubted_at: Arc::default() },
        )
    }

    /// Searches now and whenever asked again. Ends when every handle is gone.
    ///
    /// # Cancel safety
    /// Dropping the future cancels a fetch; nothing half-written stays.
    pub async fn run(mut self) {
        loop {
            self.search().await;
            tokio::select! {
                // Cancel-safe: a request that is not taken stays in the channel.
                asked = self.again.recv() => if asked.is_none() { return },
                // Cancel-safe: a change that is not seen stays unseen.
                changed = self.explicit.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn search(&mut self) {
        let search = Search {
            explicit: self.explicit.borrow_and_update().clone(),
            ..Search::from_env(self.data_dir.clone())
        };
        let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let options = FetchOptions { cancel: cancel.0.clone(), ..FetchOptions::default() };
        let state = self.state.clone();
        let searching = tokio::task::spawn_blocking(move || {
            conductor_deno::find_or_fetch(&search, &options, |progress| {
                state.send_replace(DenoState::Fetching(told(&progress)));
            })
        });
        let state = match searching.await {
            Ok(Ok(found)) => {
                let deno = found.deno;
                tracing::info!(path = %deno.path.display(), version = %deno.version, origin = %deno.origin, "Deno is ready");
                DenoState::Ready(Arc::new(deno))
            }
            Ok(Err(error)) => {
                let pause = match error {
                    ObtainError::Find(_) => LOOK_AFTER,
                    ObtainError::Fetch { .. } => RETRY_AFTER,
                };
                failed(&format!("{}\nhint: {}", crate::error_chain(&error), error.hint()), pause)
            }
            Err(panicked) => failed(&format!("the search failed: {panicked}"), LOOK_AFTER),
        };
        self.state.send_replace(state);
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn failed(error: &str, pause: Duration) -> DenoState {
    tracing::error!(error, "there is no Deno to run code");
    DenoState::Failed { error: error.into(), until: Instant::now() + pause }
}

fn told(progress: &Progress) -> FetchProgress {
    FetchProgress {
        phase: format!("{} ({})", progress.phase, conductor_deno::PINNED),
        bytes: progress.bytes,
        total_bytes: progress.total,
    }
}

impl DenoHandle {
    pub fn state(&self) -> DenoState {
        self.state.borrow().clone()
    }

    /// The executable, if it is there already.
    pub fn now(&self) -> Option<Arc<DenoBinary>> {
        match self.state() {
            DenoState::Ready(deno) => Some(deno),
            _ => None,
        }
    }

    /// Asks for a new search.
    pub fn search_again(&self) {
        // full: a search is already asked for
        let _already_asked = self.again.try_send(());
    }

    /// Workers do not start any more: the executable may have been removed or replaced. Whoever calls after a new search is
    /// told what it found. Many may doubt at once; one search in [`LOOK_AFTER`] is enough.
    pub fn doubt(&self) {
        let mut doubted_at = self.doubted_at.lock().unwrap_or_else(PoisonError::into_inner);
        if doubted_at.is_none_or(|at| at.elapsed() >= LOOK_AFTER) {
            *doubted_at = Some(Instant::now());
            self.search_again();
        }
    }

    /// Waits for the executable, telling `events` how a fetch goes.
    ///
    /// # Errors
    /// Why there is none, with a hint.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&self, events: Option<&mpsc::Sender<CallEvent>>) -> Result<Arc<DenoBinary>, Arc<str>> {
        let mut state = self.state.clone();
        if let DenoState::Failed { until, .. } = &*state.borrow_and_update()
            && Instant::now() > *until
        {
            self.search_again();
        }
        let mut told_at: Option<Instant> = None;
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                DenoState::Ready(deno) => return Ok(deno),
                DenoState::Failed { error, until } if Instant::now() <= until => return Err(error),
                DenoState::Fetching(progress) if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) => {
                    told_at = Some(Instant::now());
                    if let Some(events) = events {
                        // receiver gone: the session ended; full: it has newer things to tell
                        let _told = events.try_send(CallEvent::Phase(progress.in_words()));
                    }
                }
                DenoState::Searching | DenoState::Fetching(_) | DenoState::Failed { .. } => {}
            }
            if state.changed().await.is_err() {
                return Err("the daemon is going down".into());
            }
        }
    }

    pub fn status(&self) -> DenoStatus {
        match self.state() {
            DenoState::Searching => DenoStatus { state: "searching".into(), ..DenoStatus::default() },
            DenoState::Fetching(progress) => DenoStatus {
                state: "fetching".into(),
                fetched_bytes: Some(progress.bytes),
                total_bytes: Some(progress.total_bytes),
                ..DenoStatus::default()
            },
            DenoState::Failed { error, .. } => {
                DenoStatus { state: "failed".into(), error: Some(error.to_string()), ..DenoStatus::default() }
            }
            DenoState::Ready(deno) => DenoStatus {
                state: "ready".into(),
                version: Some(deno.version.to_string()),
                path: Some(deno.path.display().to_string()),
                origin: Some(deno.origin.to_string()),
                update: deno.update_wanted().then(|| conductor_deno::PINNED.to_string()),
                ..DenoStatus::default()
            },
        }
    }
}

impl FetchProgress {
    fn in_words(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        match self.total_bytes {
            0 => self.phase.clone(),
            total => format!("{}: {} of {} MiB", self.phase, mib(self.bytes), mib(total)),
        }
    }
}
