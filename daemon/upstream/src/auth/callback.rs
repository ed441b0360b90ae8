//! Where the browser comes back to after a login: one page on the loopback address, for as long as the login takes.
//!
//! Anybody on this machine can connect, so only a request that knows the login's `state` counts, and nothing else ends the
//! wait. A browser opens connections that it does not use; each is read on its own.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use url::Url;

/// Connections that are read at a time; a browser opens about six.
const MAX_CONNECTIONS: usize = 16;

/// Largest head of a request, in bytes: codes are short.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long a connection may take to say what it wants, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Before another try when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PATH: &str = "/callback";

/// The listener of one login.
#[derive(Debug)]
pub(crate) struct Callback {
    listener: TcpListener,
    port: u16,
}

/// What the issuer had the browser say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The whole URL, with the code in it.
    Granted(String),
    Refused(String),
}

/// A browser that waits for its page.
#[derive(Debug)]
pub(crate) struct Browser(TcpStream);

impl Callback {
    /// Listens on `port`, any free one for 0.
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the browser that knows `state`; for ever if it does not come.
    ///
    /// # Cancel safety
    /// Safe; who was being read is turned away.
    pub(crate) async fn wait(&self, state: &str) -> (Outcome, Browser) {
        let mut heads = FuturesUnordered::new();
        loop {
            tokio::select! {
                // Cancel-safe, says tokio.
                accepted = self.listener.accept(), if heads.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => heads.push(timeout(PATIENCE, target(stream))),
                    Err(error) => {
                        tracing::debug!(%error, "a browser was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Cancel-safe: what is not ready stays in the set.
                Some(head) = heads.next() => {
                    let Ok(Ok((stream, target))) = head else { continue };
                    let browser = Browser(stream);
                    match self.judge(&target, state) {
                        Ok(outcome) => return (outcome, browser),
                        Err((status, text)) => browser.show(status, text).await,
                    }
                }
            }
        }
    }

    fn judge(&self, target: &str, state: &str) -> Result<Outcome, (&'static str, &'static str)> {
        let url = format!("http://127.0.0.1:{}{target}", self.port);
        let url = Url::parse(&url).ok().filter(|url| url.path() == PATH);
        let url = url.ok_or(("404 Not Found", "There is nothing here."))?;
        let value = |key: &str| url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value);
        if value("state").as_deref() != Some(state) {
            return Err(("400 Bad Request", "This is not the login that was begun."));
        }
        Ok(match (value("error"), value("error_description")) {
            (Some(error), Some(why)) => Outcome::Refused(format!("{why} ({error})")),
            (Some(error), None) => Outcome::Refused(error.into_owned()),
            (None, _) => Outcome::Granted(url.into()),
        })
    }
}

impl Browser {
    pub(crate) async fn show(mut self, status: &str, text: &str) {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let sending = async {
            self.0.write_all(answer.as_bytes()).await?;
            self.0.shutdown().await
        };
        // A browser that left needs no page.
        timeout(PATIENCE, sending).await.ok();
    }
}

/// What a request asks for.
async fn target(mut stream: TcpStream) -> io::Result<(TcpStream, String)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let n = stream.read_buf(&mut head).await?;
        if n == 0 || head.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some(target)) if target.starts_with('/') => Ok((stream, target.to_owned())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
