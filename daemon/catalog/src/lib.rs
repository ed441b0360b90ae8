//! What a model is told of upstream tools, and what is checked on the way to them and back.
//!
//! In: tools as servers list them ([`ToolEntry`]) and the answers they give. Out: TypeScript declarations ([`declare`],
//! [`signature`]), search ([`search`], [`nearest`]), checks of arguments ([`ArgumentChecker`]), values for code
//! ([`unwrap`]), names ([`access`], [`exposed_name`]) and the texts of the discovery tools ([`render_servers`],
//! [`render_details`]).
//!
//! Pure: no I/O, no clock, no state but the bounded cache of [`CheckerCache`]. Everything from a server is hostile input:
//! whatever its size or shape, every function here ends soon, panics never, and answers with a bounded text that says what
//! was left out.

mod answer;
mod check;
mod declare;
mod entry;
mod names;
mod nearest;
mod observed;
mod render;
mod schema;
mod search;
#[cfg(test)]
mod testing;
mod text;
#[cfg(test)]
mod typecheck;
mod words;

pub use answer::{ToolError, Unwrapped, unwrap};
pub use check::{ArgumentChecker, CheckerCache, InvalidArguments, Problem, Unchecked};
pub use declare::{Declaration, MAX_TOOL_NAME_CHARS, declare, signature, type_prefix};
pub use entry::ToolEntry;
pub use names::{MAX_EXPOSED_NAME_CHARS, access, exposed_name, exposed_names};
pub use nearest::nearest;
pub use observed::Observed;
pub use render::{Detail, ServerSummary, render_details, render_found, render_servers};
pub use search::{Found, SearchIndex, search};
