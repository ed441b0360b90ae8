//! Operating system signals as events.

use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalEvent {
    /// TERM or INT.
    Stop,
    /// HUP.
    Reload,
}

/// Listens from its creation on; a signal that comes between two calls of [`Signals::next`] is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// # Errors
    /// The operating system refuses a handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next event.
    ///
    /// # Cancel safety
    /// Cancel-safe: a signal that is not returned is returned by the next call.
    pub async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            // Each arm is cancel-safe, as `Signal::recv` is.
            _ = self.terminate.recv() => SignalEvent::Stop,
            _ = self.interrupt.recv() => SignalEvent::Stop,
            _ = self.hangup.recv() => SignalEvent::Reload,
        }
    }
}
