//! Turns model-written TypeScript into the JavaScript that a worker runs.
//!
//! In: the text of a program. Out: a [`Script`], the body of an async function, or a [`SyntaxError`]. Pure: no I/O, no
//! state, no clock. It never evaluates anything, never changes the order in which a program does things, and never
//! prints a syntax tree: what it does not have to touch stays as it is written, so stack frames point at the user's text.
//!
//! The worker runs it as `await new AsyncFunction(script.api_name, script.code).call(undefined, api)`, where `api.meta`
//! stands in for `import.meta` and `api.import(specifier, options)` for `import()`. What the call gives is the value of
//! the program.
//!
//! # The value of a program
//! 1. What a `return` at the top level returns.
//! 2. Else the completion value as ECMAScript defines it: that of the last expression statement that ran. `if`, loops,
//!    `switch` and `try` give the value of what ran inside them, or `undefined`. Declarations, enums, namespaces and
//!    empty statements have no value and leave the one before: `5; let x = 1` gives 5. A `finally` block does not count.
//! 3. A program that as a whole can be read as an expression that begins with `{` is one: `{a: 1}` is an object, and
//!    `{a: 1};` a block with a label. Comments around it do not matter.
//! 4. `export default EXPRESSION` counts as the expression; exported declarations count as declarations.
//! 5. A string in the directive prologue counts as an expression.
//! 6. A value that is a promise is awaited.
//!
//! Deno's REPL is the judge of rules 2 to 5, see `tests/data`; it ends `{a: 1} // comment` differently and does not
//! await.
//!
//! # Decorators
//! They are those that Deno runs when it loads TypeScript: TC39's proposal of 2022-03, with metadata, on classes, methods,
//! getters, setters, fields and auto-accessors, static and private ones too. Real Deno is the judge, see
//! `tests/data/decorators.txt`. Where its lowering is broken (arrow functions in decorated fields, classes that a function
//! makes twice, inherited metadata, the order of static private fields) the proposal is, see `tests/oracle/decorators.rs`.
//! What is not as in the proposal, since it is not in Deno: the static fields and blocks of a class that is replaced have
//! the class before that as `this`; `access` of private elements has no `has`; of two decorated methods of one name an
//! error is thrown. A stack frame inside the runtime has no place in the program, and a program without decorators does
//! not get the runtime.
//!
//! # What is not as in a module
//! - Imports are awaited one after another, so an earlier module has run when a later one cannot be found.
//! - Code that is made at run time (`eval`) sees neither imported names nor exported variables of namespaces.
//! - Assigning to an imported name throws a TypeError with another message.
//! - A `const enum` exists at run time.
//! - `import defer`, `import source`, JSX and parameter decorators are refused: Deno does not run TypeScript's legacy
//!   decorators, to which those belong.
//! - A regular expression is checked by V8, when the program starts.

mod completion;
mod cost;
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
