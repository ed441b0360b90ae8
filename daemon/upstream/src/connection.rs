//! One connection to a server: its rules ([`state`]), its task ([`task`]), the server while it runs ([`live`]), how it is
//! reached ([`open`]) and asked ([`request`]), and what we are to it ([`client`]).

pub(crate) mod client;
pub(crate) mod live;
pub(crate) mod open;
pub(crate) mod request;
pub(crate) mod state;
pub(crate) mod task;
