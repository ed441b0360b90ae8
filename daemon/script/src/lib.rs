//! Turns model-written TypeScript into the JavaScript that a worker runs.
//!
//! In: the text of a module-like program. Out: a [`Script`], the body of an async function, or a [`SyntaxError`]. Pure:
//! no I/O, no state, no clock. It never evaluates anything, never changes the order in which a program does things, and
//! never prints: what it does not have to touch stays as it is written, so stack frames point at the user's own text.

mod completion;
mod edits;
mod error;
mod hint;
mod names;
mod nesting;
mod parse;
mod position;
mod rewrite;
mod script;

pub use error::{SyntaxError, code_frame};
pub use script::{Import, Script, prepare};
