//! Values to payload bytes and back: the only file that names bincode.
//!
//! bincode cannot decode untagged enums or `serde_json::Value`, and its layout shifts when a struct gains a field. So types
//! that pass through here are small, closed and covered by golden frames; everything that grows crosses as JSON bytes.

use serde::{Serialize, de::DeserializeOwned};

use crate::MAX_FRAME_BYTES;

/// A payload that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("the value cannot be encoded")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("the payload cannot be decoded")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("{extra} bytes follow the payload")]
    TrailingBytes { extra: usize },
    #[error("the payload does not begin with conductor's magic bytes")]
    BadMagic,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// # Errors
/// [`CodecError::Encode`] for types bincode cannot carry; never for the types of this crate within their limits.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, config()).map_err(CodecError::Encode)
}

/// # Errors
/// Anything but exactly one encoded value.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(payload, config()).map_err(CodecError::Decode)?;
    match payload.len() - used {
        0 => Ok(value),
        extra => Err(CodecError::TrailingBytes { extra }),
    }
}
