//! The wire between `conductor-shim`, `conductorctl` and `conductord`. No I/O happens here.
//!
//! # A connection
//! 1. The client connects and sends one [`Hello`] frame: who it is and which protocol versions it speaks.
//! 2. The daemon answers with one [`Greeting`] frame: `Welcome`, `NeedEnv` (the profile refers to variables that were not
//!    sent) or `Reject` (with a text for the user). After `NeedEnv` the client sends one [`EnvReply`] and gets the final
//!    greeting.
//! 3. A session (client kinds `Shim` and `Ctl`) then exchanges [`SessionFrame`]s until one side closes. MCP messages cross
//!    as opaque JSON bytes, one per frame; this crate never looks inside. A daemon that goes down says `Draining`, gives
//!    requests back that it has not taken, reads until the client has closed its sending side, answers what it has taken,
//!    and says `Goodbye`: so a client knows of each request whether it may send it to the next daemon.
//! 4. An operator's connection (client kind `Admin`) sends [`AdminRequest`]s and gets one [`AdminReply`] for each, in order.
//!
//! # A frame
//! `u32` little-endian payload length, then the payload. The length is checked against [`MAX_FRAME_BYTES`] before anything
//! is allocated. `Hello` and `Greeting` payloads begin with [`MAGIC`] and a `u16` little-endian protocol version, so that
//! two sides that share no version can still say so; a `Reject` has the same layout in all versions.
//! All other payloads are bincode of the type above, and nothing else: trailing bytes are an error.
//!
//! # Limits
//! | what | limit | at the limit |
//! |---|---|---|
//! | a frame | [`MAX_FRAME_BYTES`] | the connection is closed: the length cannot be trusted |
//! | an MCP message | [`MAX_MESSAGE_BYTES`] | the shim answers the request with an error itself |
//! | a `Hello` | [`MAX_HELLO_BYTES`] | `Reject` |
//! | time for the handshake | [`HANDSHAKE_TIMEOUT`] | the connection is closed |

pub mod admin;
pub mod codec;
pub mod configuration;
pub mod endpoint;
pub mod frame;
pub mod handshake;
pub mod operation;
pub mod session;
pub mod status;
pub mod version;

use std::time::Duration;

pub use admin::{AdminReply, AdminRequest};
pub use codec::CodecError;
pub use frame::{FrameDecoder, FrameError};
pub use handshake::{ClientKind, EnvReply, Greeting, Hello, RejectCode};
pub use session::SessionFrame;
pub use version::{MIN_PROTOCOL_VERSION, PROTOCOL_VERSION};

/// First bytes of every `Hello` and `Greeting`.
pub const MAGIC: [u8; 4] = *b"CNDR";

/// Largest MCP message, bytes. Five MB of code escaped as JSON fits three times over; more than this in one message is a
/// mistake of the client, and is answered as one.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Largest frame payload, bytes: the largest message plus its envelope.
pub const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + 1024;

/// Largest `Hello` or `EnvReply`, bytes: an environment is at most some 100 KiB.
pub const MAX_HELLO_BYTES: usize = 1024 * 1024;

/// How long either side waits for the other's next handshake frame; a peer that is silent longer is not one of ours.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
