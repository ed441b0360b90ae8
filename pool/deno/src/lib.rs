//! Finds the Deno executable, fetches a pinned one when there is none, and learns its version.
//!
//! ```text
//! Search ──find──► --deno / config, CONDUCTOR_DENO, PATH, ~/.deno/bin, <data>/deno/<version> ──probe──► DenoBinary
//!                     │ FindError::NotFound                                                     ▲
//!                     └──fetch──► npm or pip ──► pinned hash ──► atomic rename ──────────────────┘
//! ```
//!
//! In: paths and the environment, as a [`Search`]. Out: a [`DenoBinary`] that has answered `--version`, is an executable
//! and not a script around one, and is not older than [`MINIMUM`].
//! Owned: the directory `<data>/deno`. Everything blocks; the caller gives it a thread of its own.
//!
//! ```no_run
//! use conductor_deno::{FetchOptions, Search, find_or_fetch};
//!
//! let search = Search::from_env("/home/user/.local/share/conductor");
//! let found = find_or_fetch(&search, &FetchOptions::default(), |progress| {
//!     println!("{}: {} of {}", progress.phase, progress.bytes, progress.total);
//! })?;
//! println!("Deno {} at {}", found.deno.version, found.deno.path.display());
//! # Ok::<(), conductor_deno::ObtainError>(())
//! ```
//!
//! It never runs user code, never changes an executable that it did not fetch, and never keeps bytes whose hash is not
//! the pinned one.

mod child;
mod fetch;
mod pin;
mod probe;
mod search;
#[cfg(feature = "testing")]
pub mod testing;
mod version;

pub use fetch::{
    AttemptError, FailedAttempt, FetchError, FetchOptions, Installer, Phase, Progress, fetch, fetch_pin,
};
pub use pin::{MINIMUM, PINNED, Pin};
pub use probe::{DenoBinary, FileIdentity, Origin, ProbeError, probe};
pub use search::{FindError, Found, ObtainError, Search, Skipped, find, find_or_fetch};
pub use version::Version;
