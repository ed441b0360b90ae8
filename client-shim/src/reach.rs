//! From nothing to a session: connects, starts the daemon if need be, shakes hands, and tries again while that may help.

use std::time::{Duration, Instant};

use conductor_protocol::endpoint::Surroundings;
use conductor_protocol::handshake::Welcome;

use crate::autostart::{Autostart, StartError};
use crate::connect::{self, ConnectError};
use crate::connection::Connection;
use crate::error;
use crate::handshake::{self, Caller, HandshakeError};

/// How often a daemon that ends as soon as it is started is started again: its predecessor may still hold its place.
const MAX_STARTS: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl ReachError {
    /// What failed, why, and the cure, for the user.
    pub fn text(&self) -> String {
        let text = error::chain(self);
        match self.hint() {
            // The daemon's words bring their own.
            Some(hint) if !text.contains("hint:") => format!("{text}\nhint: {hint}"),
            _ => text,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Start(error) => error.hint(),
            Self::Connect(ConnectError::Absent { .. }) => "start it with `conductord`".into(),
            Self::Connect(ConnectError::TooLong { .. }) => "set CONDUCTOR_SOCKET to a shorter path".into(),
            Self::Connect(ConnectError::Foreign { .. }) => {
                "set CONDUCTOR_SOCKET to a path of your own".into()
            }
            Self::Connect(ConnectError::Io { .. }) => "see who owns the socket and its directory".into(),
            Self::Handshake(HandshakeError::Rejected { .. }) => return None,
            Self::Handshake(HandshakeError::TooLarge) => "start this program with fewer variables".into(),
            Self::Handshake(_) => {
                "see `conductorctl doctor`, or stop the daemon with `conductorctl stop`".into()
            }
        })
    }
}

/// How long, and how often, to try.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    pause: Duration,
    starts: u32,
}

impl Patience {
    pub fn of(time: Duration) -> Self {
        Self { until: Instant::now() + time, pause: FIRST_PAUSE, starts: 0 }
    }

    /// Waits, twice as long as the last time; false when the time is over.
    pub fn pause(&mut self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        !left.is_zero()
    }

    fn may_start_again(&mut self) -> bool {
        self.starts += 1;
        self.starts < MAX_STARTS
    }
}

/// The way to a daemon: constant for the life of the process.
#[derive(Debug)]
pub struct Route {
    pub at: Surroundings,
    pub caller: Caller,
    /// `None`: only a daemon that runs already will do.
    pub autostart: Option<Autostart>,
}

impl Route {
    /// Reaches a daemon, within `patience`.
    ///
    /// # Errors
    /// The last attempt's, when trying again cannot help or the patience is over.
    pub fn reach(&self, patience: &mut Patience) -> Result<(Connection, Welcome), ReachError> {
        loop {
            let error = match self.attempt() {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let again = match &error {
                ReachError::Connect(error) => error.is_retryable(),
                ReachError::Start(error) => error.is_retryable() && patience.may_start_again(),
                ReachError::Handshake(error) => error.is_retryable(),
            };
            if !again || !patience.pause() {
                return Err(error);
            }
        }
    }

    fn attempt(&self) -> Result<(Connection, Welcome), ReachError> {
        let stream = match (connect::connect(&self.at), &self.autostart) {
            (Err(ConnectError::Absent { .. }), Some(autostart)) => autostart.start(&self.at)?,
            (connected, _) => connected?,
        };
        Ok(handshake::greet(stream, &self.caller)?)
    }
}
