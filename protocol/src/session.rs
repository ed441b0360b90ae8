//! What a session exchanges after the handshake.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};

/// One frame of a session, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionFrame {
    /// One JSON-RPC message: UTF-8 JSON without a line break. Opaque here.
    Mcp(#[serde(with = "bytes")] Vec<u8>),
    /// Daemon to client: no more answers will come on this connection; unanswered requests were not started or are lost.
    /// The client connects again.
    Goodbye { reason: String },
    /// Daemon to client: it goes down once the requests it has taken are answered, and takes no more. The client closes its
    /// sending side, reads on until `Goodbye`, and sends what it has not sent yet to the next daemon.
    Draining,
    /// Daemon to client, around `Draining`: a request, as it came, that was not taken and never will be. Sending it to the
    /// next daemon cannot run it twice.
    Returned(#[serde(with = "bytes")] Vec<u8>),
}

impl SessionFrame {
    /// The payload of `Mcp(json)`, from borrowed bytes: a sender that may have to send a message twice keeps it.
    ///
    /// # Errors
    /// See [`codec::encode`].
    pub fn encode_mcp(json: &[u8]) -> Result<Vec<u8>, CodecError> {
        #[derive(Serialize)]
        enum Borrowed<'a> {
            Mcp(#[serde(serialize_with = "bytes::serialize")] &'a [u8]),
        }
        codec::encode(&Borrowed::Mcp(json))
    }
}

/// Bytes as one block: the layout of a sequence of `u8`, without a call per byte.
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Block;
        impl Visitor<'_> for Block {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Vec<u8>, E> {
                Ok(value.to_vec())
            }

            fn visit_byte_buf<E: Error>(self, value: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(value)
            }
        }
        deserializer.deserialize_byte_buf(Block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_layout_of_a_sequence_of_bytes() {
        #[derive(Serialize)]
        enum Plain {
            Mcp(Vec<u8>),
        }
        for json in [Vec::new(), b"{}".to_vec(), vec![b' '; 70_000]] {
            let payload = codec::encode(&SessionFrame::Mcp(json.clone())).expect("encodes");
            assert_eq!(payload, codec::encode(&Plain::Mcp(json.clone())).expect("encodes"));
            assert_eq!(payload, SessionFrame::encode_mcp(&json).expect("encodes"));
            assert_eq!(codec::decode::<SessionFrame>(&payload).expect("decodes"), SessionFrame::Mcp(json));
        }
    }
}
