//! The listening sockets, and one task for each connection that comes in.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use conductor_protocol::status::CertificateStatus;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::accounts::Connected;
use super::endpoint::Endpoint;
use super::guard::Guard;
use super::tls::Encryption;
use super::{until_draining, url};
use crate::config::HttpSection;
use crate::config::http::HttpLimits;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// Pause after the operating system refused a connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may leave what it was sent unread, or be unreachable.
const SEND_TIME: Duration = Duration::from_secs(60);

/// How long the goodbye to a client that is turned away may take.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// Headers of one request; clients send some twenty.
const MAX_HEADERS: usize = 64;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// The sockets on which the daemon listens, and the addresses that were asked for.
#[derive(Debug, Default)]
pub(super) struct Doors {
    asked: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
}

/// What goes for connections that come in now.
pub(super) struct Settings {
    pub(super) limits: HttpLimits,
    pub(super) guard: Guard,
    encryption: Option<Encryption>,
    addresses: Vec<SocketAddr>,
}

/// Why nobody can come in.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}\nhint: another program may have the port; set `listen` in [http]")]
pub(super) struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl Doors {
    /// Listens on these addresses and no others. What is listened on already goes on.
    ///
    /// # Errors
    /// One cannot be had; then nothing is open.
    pub(super) fn open(&mut self, addresses: &[SocketAddr]) -> Result<(), BindError> {
        if self.asked == addresses {
            return Ok(());
        }
        // First closed: another of the addresses may be the same port.
        *self = Self::default();
        let listeners =
            addresses.iter().map(|&address| bind(address).map_err(|source| BindError { address, source }));
        let listeners = listeners.collect::<Result<_, _>>()?;
        *self = Self { asked: addresses.to_vec(), listeners };
        Ok(())
    }

    /// Where it listens, with the ports that it got.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Lets connections in for as long as it is waited for.
    ///
    /// # Cancel safety
    /// Cancel-safe: a connection that was not accepted stays in the queue.
    pub(super) async fn accept(
        &self,
        endpoint: &Arc<Endpoint>,
        settings: Option<Arc<Settings>>,
    ) -> Infallible {
        let Some(settings) = settings else { return std::future::pending().await };
        loop {
            match self.next().await {
                Ok(stream) => enter(stream, endpoint, &settings),
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn next(&self) -> io::Result<TcpStream> {
        poll_fn(|context| {
            let mut listeners = self.listeners.iter();
            let accepted = listeners.find_map(|listener| match listener.poll_accept(context) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending => None,
            });
            accepted.map_or(Poll::Pending, |accepted| Poll::Ready(accepted.map(|(stream, _)| stream)))
        })
        .await
    }
}

impl Settings {
    pub(super) fn new(
        section: &HttpSection,
        encryption: Option<Encryption>,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        Self { limits: section.limits(), guard: Guard::new(section, &addresses), encryption, addresses }
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.addresses.iter().map(|&address| url(address, self.is_encrypted())).collect()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    pub(super) fn certificate(&self) -> Option<&CertificateStatus> {
        self.encryption.as_ref().map(|encryption| &encryption.certificate)
    }
}

/// A socket that a successor can have as soon as this one is closed, and nobody else at the same time.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG.cast_unsigned())
}

fn enter(stream: TcpStream, endpoint: &Arc<Endpoint>, settings: &Arc<Settings>) {
    match endpoint.accounts().connect(settings.limits.max_connections) {
        Some(connected) => endpoint.spawn(connection(stream, endpoint.clone(), settings.clone(), connected)),
        None => endpoint.spawn(turn_away(stream)),
    }
}

async fn turn_away(mut stream: TcpStream) {
    // gone, or not listening: it is turned away in any case
    let _told = timeout(GOODBYE_TIME, stream.write_all(TURNED_AWAY)).await;
}

async fn connection(
    stream: TcpStream,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    _connected: Connected,
) {
    // An answer is one or two small writes, which must not wait for each other.
    let _set = stream.set_nodelay(true);
    limit_sending(&stream);
    let Some(Encryption { acceptor, .. }) = &settings.encryption else {
        return speak(stream, endpoint, settings).await;
    };
    match timeout(settings.limits.header_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, endpoint, settings).await,
        Ok(Err(error)) => tracing::debug!(error = %error, "a client came without encryption that fits"),
        Err(_elapsed) => {}
    }
}

/// A client that does not read is given up by the kernel, which knows what was read.
fn limit_sending(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(SEND_TIME.as_millis()).unwrap_or(u32::MAX);
        // Not supported: then it stays until it is gone.
        let _set = setsockopt(stream, sockopt::TcpUserTimeout, &millis);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, SEND_TIME);
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
) {
    let mut phase = endpoint.phase();
    let limits = settings.limits;
    let answer = service_fn(move |request| {
        let (endpoint, settings) = (endpoint.clone(), settings.clone());
        async move { Ok::<_, Infallible>(endpoint.answer(request, &settings).await) }
    });
    let served = reader(&limits).serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let ended = tokio::select! {
        // Cancel-safe: the connection is kept, and waited for again.
        ended = &mut served => ended,
        () = until_draining(&mut phase) => {
            // What is being answered may finish.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::error_chain(&error), "a connection broke");
    }
}

/// What reads requests off a connection.
pub(super) fn reader(limits: &HttpLimits) -> http1::Builder {
    let mut reader = http1::Builder::new();
    reader
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(READ_BYTES.max(limits.max_header_bytes));
    reader
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
