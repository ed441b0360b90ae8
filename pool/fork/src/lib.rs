//! The native part of a template: a shared library that a Deno process loads to fork jailed copies of itself.
//!
//! A *template* is a Deno process that has booted and warmed itself and runs no user code. Its harness calls
//! [`conductor_fork_serve`] once, through Deno's foreign function interface. The call does not return in the template; it
//! returns in each child that the daemon asks for, which then goes on as a worker.
//!
//! This library decides nothing. The daemon looks at the template from outside (`/proc`), decides what becomes of each
//! descriptor ([`wire::Descriptor`]), compiles the child's system call filter, and watches and kills the children. Here is
//! what can only happen inside: the fork, and what a child does to itself before any JavaScript runs in it.
//!
//! Inputs: one socket ([`wire`]). Outputs: children, and a pidfd of each over the same socket. It starts no thread, keeps
//! no state between calls, and never touches V8's heap, so that V8 can hold nothing that the fork does not expect.

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod sys;
pub mod wire;

#[cfg(target_os = "linux")]
pub use serve::conductor_fork_serve;
