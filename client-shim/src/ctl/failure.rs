//! Why a command could not do its work, as text for the user and as exit code.

use std::io;

use conductor_protocol::RejectCode;

use super::client::ClientError;
use super::config::ConfigFailure;
use super::exit_code;
use super::manager::ManagerError;
use super::packages::EditError;
use super::run::CodeError;
use crate::connection::ConnectionError;
use crate::error::chain;
use crate::handshake::HandshakeError;
use crate::reach::ReachError;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Config(#[from] ConfigFailure),
    #[error(transparent)]
    Manager(ManagerError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        Self::Client(ClientError::Reach(error))
    }
}

impl Failure {
    /// What failed, why, and the cure; `None` when the reader of our output has left, which is his right.
    pub(super) fn text(&self) -> Option<String> {
        let hint = match self {
            Self::Output(_) if self.is_reader_gone() => return None,
            Self::Output(_) | Self::Edit(_) => None,
            Self::Client(ClientError::Reach(error)) => return Some(error.text()),
            Self::Client(error) => error.hint(),
            Self::Code(error) => Some(error.hint()),
            Self::Config(error) => error.hint(),
            Self::Manager(error) => error.hint(),
        };
        let chain = chain(self);
        Some(match hint {
            Some(hint) if !chain.contains("hint:") => format!("{chain}\nhint: {hint}"),
            _ => chain,
        })
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) if self.is_reader_gone() => exit_code::OK,
            Self::Output(_) => exit_code::IO,
            Self::Edit(_) | Self::Config(_) => exit_code::FAILED,
            Self::Code(error) => error.exit_code(),
            Self::Manager(error) => error.exit_code(),
            Self::Client(error) => of_client(error),
        }
    }

    fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn of_client(error: &ClientError) -> u8 {
    match error {
        ClientError::Reach(ReachError::Handshake(HandshakeError::Rejected { code, .. })) => match code {
            RejectCode::Version | RejectCode::Malformed | RejectCode::Other(_) => exit_code::PROTOCOL,
            RejectCode::Draining | RejectCode::Busy | RejectCode::Forbidden => exit_code::UNAVAILABLE,
        },
        ClientError::Reach(ReachError::Handshake(HandshakeError::Connection(error)))
        | ClientError::Connection(error) => of_connection(error),
        ClientError::Reach(_) | ClientError::Lost | ClientError::Goodbye { .. } => exit_code::UNAVAILABLE,
        ClientError::Refused { .. } => exit_code::FAILED,
        ClientError::Protocol { .. } => exit_code::PROTOCOL,
        ClientError::TooLarge { .. } => exit_code::USAGE,
        ClientError::Rpc { .. } => exit_code::SOFTWARE,
    }
}

fn of_connection(error: &ConnectionError) -> u8 {
    match error {
        ConnectionError::Io(_) => exit_code::UNAVAILABLE,
        ConnectionError::Frame(_) | ConnectionError::Codec(_) => exit_code::PROTOCOL,
    }
}
