//! Everything that connects to `conductord`: the shim an IDE starts, and what an operator's program needs.
//!
//! | module | what it does |
//! |---|---|
//! | [`connect`], [`handshake`], [`autostart`], [`reach`] | from nothing to a session with the daemon |
//! | [`connection`] | frames over the socket |
//! | [`scan`], [`envelope`], [`lines`] | as much of JSON-RPC as a relay must know |
//! | [`relay`] | what becomes of each message when daemons come and go; no I/O |
//! | [`ctl`] | the operator's program |
//! | [`shim`], [`stdio`] | the relay between standard streams and socket |

pub mod autostart;
pub mod connect;
pub mod connection;
pub mod ctl;
pub mod envelope;
pub mod error;
pub mod handshake;
pub mod lines;
pub mod reach;
pub mod relay;
pub mod scan;
pub mod shim;
pub mod stdio;
