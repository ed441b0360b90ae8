//! Which npm and jsr packages code may import, and the read-only layers they are imported from.

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
pub use lockfile::LockError;
pub use progress::Progress;
pub use refusal::{Refusal, RefusalKind};
pub use request::{Completeness, LayerRequest};
pub use specifier::{Package, Registry};
pub use store::{Limits, Pruned};
pub use usage::{HALF_LIFE, Usage};
