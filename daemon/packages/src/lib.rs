//! Which npm and jsr packages code may import, and the read-only layers they are imported from.

mod allowlist;
mod refusal;
mod specifier;

pub use allowlist::{Allowlist, AllowlistError, Asked, DEFAULT_PACKAGES};
pub use refusal::{Refusal, RefusalKind};
pub use specifier::{Package, Registry};
