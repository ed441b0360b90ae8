//! The daemon's half of the handshake: who is this, what is its environment, may it come in.

use std::collections::BTreeMap;
use std::io;

use conductor_protocol::handshake::Welcome;
use conductor_protocol::{
    CodecError, EnvReply, FrameDecoder, FrameError, Greeting, HANDSHAKE_TIMEOUT, Hello, MAX_HELLO_BYTES,
    PROTOCOL_VERSION, RejectCode, codec, frame, version,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::BUILD;

/// A client that may come in.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) hello: Hello,
    /// Everything it sent, in both rounds.
    pub(crate) env: BTreeMap<String, String>,
    /// Holds what came behind the handshake.
    pub(crate) decoder: FrameDecoder,
}

/// Why a connection came to nothing. All of these are the client's fault or its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the client sent nothing for {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error("the client closed the connection")]
    Closed,
    #[error("the client's frame cannot be read")]
    Frame(#[from] FrameError),
    #[error("the client's first message makes no sense")]
    Codec(#[from] CodecError),
    #[error("the client speaks protocol {0}")]
    Version(u16),
}

/// Speaks the handshake. `missing` names variables the daemon still needs of a client that introduced itself so.
///
/// # Errors
/// The client is not one of ours, too old or too new (it has been told so), silent, or gone.
pub(crate) async fn accept(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    session: u64,
    missing: impl FnOnce(&Hello) -> Vec<String>,
) -> Result<Client, HandshakeError> {
    let mut decoder = FrameDecoder::with_limit(MAX_HELLO_BYTES);
    let payload = match next_frame(reader, &mut decoder).await {
        Ok(payload) => payload,
        Err(HandshakeError::Frame(error)) => {
            reject(writer, RejectCode::Malformed, "the first frame is too large").await?;
            return Err(HandshakeError::Frame(error));
        }
        Err(error) => return Err(error),
    };
    let hello = match Hello::decode(&payload) {
        Ok((version, Some(hello))) if version::negotiate(hello.min_version, version).is_some() => hello,
        Ok((version, hello)) => {
            let build = hello.map(|hello| hello.build).unwrap_or_default();
            send(writer, &Greeting::version_mismatch(version, &build)).await?;
            return Err(HandshakeError::Version(version));
        }
        Err(error) => {
            reject(writer, RejectCode::Malformed, "this is no conductor client").await?;
            return Err(HandshakeError::Codec(error));
        }
    };
    let names = missing(&hello);
    let mut env = hello.env.clone();
    if !names.is_empty() {
        send(writer, &Greeting::NeedEnv { version: PROTOCOL_VERSION, names: names.clone() }).await?;
        let reply: EnvReply = codec::decode(&next_frame(reader, &mut decoder).await?)?;
        // Only what was asked for: a reply cannot replace what decided over the question.
        env.extend(reply.env.into_iter().filter(|(name, _)| names.contains(name)));
    }
    let welcome = Welcome { build: BUILD.to_owned(), pid: std::process::id(), session };
    send(writer, &Greeting::Welcome { version: PROTOCOL_VERSION, welcome }).await?;
    decoder.lift_limit();
    Ok(Client { hello, env, decoder })
}

/// Tells a client that it is not served, and why.
pub(crate) async fn reject(
    writer: &mut (impl AsyncWrite + Unpin),
    code: RejectCode,
    text: &str,
) -> io::Result<()> {
    let greeting = Greeting::Reject { version: PROTOCOL_VERSION, code, text: text.to_owned() };
    send(writer, &greeting).await
}

async fn next_frame(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
) -> Result<Vec<u8>, HandshakeError> {
    let read = async {
        let mut chunk = [0; 4096];
        loop {
            if let Some(payload) = decoder.next_frame()? {
                return Ok(payload);
            }
            match reader.read(&mut chunk).await? {
                0 => return Err(HandshakeError::Closed),
                n => decoder.push(&chunk[..n]),
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, read).await.unwrap_or(Err(HandshakeError::Timeout))
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), greeting: &Greeting) -> io::Result<()> {
    let frame = greeting.encode().map_err(io::Error::other)?;
    let frame = frame::encode(&frame).map_err(io::Error::other)?;
    writer.write_all(&frame).await
}

#[cfg(test)]
mod tests {
    use conductor_protocol::ClientKind;
    use tokio::io::DuplexStream;

    use super::*;

    fn hello() -> Vec<u8> {
        let env = BTreeMap::from([("MCP_CONDUCTOR_WORKSPACE".to_owned(), "${env:WS}".to_owned())]);
        let hello =
            Hello { min_version: 1, build: "t".into(), kind: ClientKind::Shim, pid: 1, cwd: "/".into(), env };
        hello.encode().expect("encodes")
    }

    async fn ask(client: &mut DuplexStream, payload: &[u8]) {
        client.write_all(&frame::encode(payload).expect("small")).await.expect("the daemon reads");
    }

    async fn answer(client: &mut DuplexStream) -> Greeting {
        let payload = next_frame(client, &mut FrameDecoder::default()).await.expect("is answered");
        Greeting::decode(&payload).expect("is a greeting")
    }

    fn serve(server: DuplexStream) -> tokio::task::JoinHandle<Result<Client, HandshakeError>> {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(server);
            accept(&mut reader, &mut writer, 7, |_| vec!["WS".to_owned()]).await
        })
    }

    #[tokio::test]
    async fn asks_for_missing_variables_and_takes_only_those() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let served = serve(server);
        ask(&mut client, &hello()).await;
        assert_eq!(answer(&mut client).await, Greeting::NeedEnv { version: 1, names: vec!["WS".into()] });
        let env =
            BTreeMap::from([("WS".into(), "/w".into()), ("MCP_CONDUCTOR_WORKSPACE".into(), "/evil".into())]);
        ask(&mut client, &codec::encode(&EnvReply { env }).expect("encodes")).await;
        assert!(matches!(
            answer(&mut client).await,
            Greeting::Welcome { welcome: Welcome { session: 7, .. }, .. }
        ));
        let client = served.await.expect("does not panic").expect("is welcome");
        assert_eq!(client.env["WS"], "/w");
        assert_eq!(client.env["MCP_CONDUCTOR_WORKSPACE"], "${env:WS}");
    }

    #[tokio::test]
    async fn tells_in_words_what_is_wrong() {
        let mut newer = hello();
        newer[4..6].copy_from_slice(&200u16.to_le_bytes());
        for (payload, expected) in
            [(newer, RejectCode::Version), (b"GET / HTTP/1.1".to_vec(), RejectCode::Malformed)]
        {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let served = serve(server);
            ask(&mut client, &payload).await;
            let Greeting::Reject { code, text, .. } = answer(&mut client).await else { panic!("is refused") };
            assert_eq!(code, expected, "{text}");
            assert!(served.await.expect("does not panic").is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up() {
        let (client, server) = tokio::io::duplex(64);
        let error = serve(server).await.expect("does not panic").expect_err("gives up");
        assert!(matches!(error, HandshakeError::Timeout), "{error}");
        drop(client);
    }
}
