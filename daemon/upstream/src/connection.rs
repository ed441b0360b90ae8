//! One connection to a server: its rules ([`state`]), its task ([`task`]), the server while it runs ([`live`]), how it is
//! reached ([`open`]) and asked (X)

pub(crate) mod client;
pub(crate) mod live;
pub(crate) mod open;
pub(crate) mod request;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod watches;
