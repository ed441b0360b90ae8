//! Which npm and jsr packages code may import, and the read-only layers they are imported from.
//!
//! Three parts, used one after the other:
//!
//! 1. [`Allowlist`] judges what code asks for, on its text alone. Nothing that is refused is ever looked up.
//! 2. [`Layers`] has the listed packages fetched, once, by the only process of all that has network: Deno, told to cache
//!    and never to run. What it leaves, packages and a lock with integrity hashes, becomes a [`Layer`]: read-only, never
//!    changed again, named by the hash of what is in it.
//! 3. A worker gets the layer's `DENO_DIR` and lock, `--frozen` and `--cached-only`. What code asked for is imported under
//!    the one spelling that the lock has ([`Layer::spell`]); anything else, computed or not, the lock refuses.
//!
//! [`Usage`] counts what is imported, so that workers can have it loaded before they are asked.
//!
//! What this crate never does: run code of a package, in any step; run a lifecycle script; hand a token of the user's npm
//! configuration to a worker or write it to a disk; change a layer that is finished.
//!
//! Two facts about frozen locks, which callers should know. The first import that a lock refuses makes the lock of that
//! process "out of date" for good: every later import of a package that is not loaded yet fails as well, with a text about
//! the first one. And a lock refuses names, not files: code can import a file of the layer by its path, of any package in
//! it, which gives it nothing that the packages it may import do not contain.

mod allowlist;
mod build;
mod environment;
mod error;
mod fetch;
mod layer;
mod layers;
mod lockfile;
mod progress;
mod refusal;
mod request;
mod specifier;
mod store;
mod survey;
mod tree;
mod usage;

pub use allowlist::{Allowlist, AllowlistError, Asked, DEFAULT_PACKAGES, is_builtin};
pub use build::{StagedLayer, Warm, WarmFuture};
pub use environment::FetchEnvironment;
pub use error::{LayerError, PinnedLockError};
pub use fetch::Deno;
pub use layer::{Layer, LockedPackage, MissingPackage};
pub use layers::{Change, Layers, LayersConfig, LayersTask, Outdated, Verified};
pub use lockfile::{LockError, Lockfile};
pub use progress::Progress;
pub use refusal::{Refusal, RefusalKind};
pub use request::{Completeness, LayerRequest};
pub use specifier::{Package, Registry};
pub use store::{Limits, Pruned};
pub use usage::{HALF_LIFE, Usage};
