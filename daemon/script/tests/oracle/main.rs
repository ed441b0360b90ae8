//! Rewritten programs against real ones: Deno's REPL, Deno's modules, V8's `eval`.

mod decorators;
mod modules;
mod properties;
mod runner;
mod table;
