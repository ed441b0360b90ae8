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
mod tree;

pub use allowlist::{Allowlist, AllowlistError, Asked, DEFAULT_PACKAGES};
pub use build::{StagedLayer, Warm, WarmFuture};
pub use environment::FetchEnvironment;
pub use error::{LayerError, PinnedLockError};
pub use fetch::Deno;
pub use layer::{Layer, LockedPackage};
pub use layers::{Change, Layers, LayersConfig, LayersTask, Outdated, Verified};
pub use lockfile::LockError;
pub use progress::Progress;
pub use refusal::{Refusal, RefusalKind};
pub use request::LayerRequest;
pub use specifier::{Package, Registry};
pub use store::{Limits, Pruned};
