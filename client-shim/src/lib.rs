//! Everything that connects to `conductord`.

pub mod connect;
pub mod connection;
pub mod envelope;
pub mod handshake;
pub mod scan;
