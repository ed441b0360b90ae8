//! A session's connection: frames in, frames out, and the end. The I/O around [`Ending`], which decides.
//!
//! Owns the writing half and the queue in front of it, the account of what was promised an answer, and nothing of the session
//! but that it can end its calls. What it serves is given to it, so that tests can serve something else.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_protocol::{FrameDecoder, SessionFrame, codec, frame};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::accepted::Accepted;
use super::ending::{Effect, Ending, Event};
use super::transport::{FrameTransport, OUTGOING_FRAMES};
use super::{Session, until_draining};
use crate::supervisor::Phase;

/// How soon a client that is gone altogether is noticed while its calls still run.
const GONE_CHECK: Duration = Duration::from_millis(20);

/// A session's connection while it is served. `G` says whether the client is gone altogether.
pub(super) struct Connection<G> {
    pub(super) session: Arc<Session>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) is_gone: G,
}

impl<G: Fn() -> bool + Send + Sync> Connection<G> {
    /// Serves until client and daemon have nothing more to say to each other.
    ///
    /// `serving` answers what comes over the transport until that ends, or the token is cancelled; with its end the session is
    /// over. `decoder` may hold bytes that came behind the handshake.
    pub(super) async fn serve<R, W, S, F>(self, decoder: FrameDecoder, (reader, writer): (R, W), serving: S)
    where
        R: AsyncRead + Send + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
        S: FnOnce(FrameTransport<R>, CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES);
        let writing = tokio::spawn(write_frames(writer, queue));
        let eof = CancellationToken::new();
        let accepted = Arc::new(Accepted::new(self.phase.clone()));
        let transport = FrameTransport::new(reader, decoder, outgoing.clone(), accepted.clone(), eof.clone());
        let stop = CancellationToken::new();
        tokio::select! {
            // Not resumed after the other has won, so cancel safety does not matter.
            () = serving(transport, stop.clone()) => {}
            never = self.watch_for_end(&eof, &stop, &outgoing, &accepted) => match never {},
        }
        if self.phase.borrow().is_draining() {
            let reason = "the daemon is going down".to_owned();
            // client gone: nobody to tell
            let _told = outgoing.send(SessionFrame::Goodbye { reason }).await;
        }
        drop(outgoing);
        // The writer ends when everything that was queued is written, or the client is gone.
        drop(writing.await);
    }

    /// Ends calls nobody waits for, and stops serving when the daemon goes down and what was promised is done.
    async fn watch_for_end(
        &self,
        eof: &CancellationToken,
        stop: &CancellationToken,
        outgoing: &mpsc::Sender<SessionFrame>,
        accepted: &Accepted,
    ) -> Infallible {
        let mut ending = Ending::new();
        let mut phase = self.phase.clone();
        let mut open = accepted.open();
        let mut calls = self.session.in_flight.subscribe();
        let mut telling: Option<Pin<Box<dyn Future<Output = _> + Send + '_>>> = None;
        loop {
            let event = tokio::select! {
                // Biased: what happens at one moment is decided in one order.
                biased;
                // Cancel-safe: the future is kept across turns. An error is a client that is gone: nobody to tell.
                _told = async { telling.as_mut().expect("it is there").await }, if telling.is_some() => {
                    telling = None;
                    Event::Told
                }
                // Cancel-safe, all of the rest: they wait for flags, changes and times.
                () = eof.cancelled(), if ending.awaits_close() => Event::Closed,
                () = until_draining(&mut phase), if ending.awaits_draining() => {
                    Event::Draining { deadline: phase.borrow().deadline() }
                }
                () = self.departed(), if ending.awaits_departure() => Event::Gone,
                Ok(()) = open.changed(), if ending.awaits_quiet() => Event::Tick,
                // Calls that were cancelled are not over yet.
                Ok(()) = calls.changed(), if ending.awaits_quiet() => Event::Tick,
                () = until(ending.wake_at()) => Event::Tick,
            };
            let is_quiet = *open.borrow_and_update() == 0 && *calls.borrow_and_update() == 0;
            for effect in ending.on(tokio::time::Instant::now().into_std(), event, is_quiet) {
                match effect {
                    Effect::Tell => telling = Some(Box::pin(outgoing.send(SessionFrame::Draining))),
                    Effect::EndCalls => self.session.gone.cancel(),
                    // rmcp hands over what its handlers still answer before it ends.
                    Effect::Stop => stop.cancel(),
                }
            }
        }
    }

    /// Ready when the client is gone altogether.
    async fn departed(&self) {
        while !(self.is_gone)() {
            tokio::time::sleep(GONE_CHECK).await;
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// Notices when the other end has closed both directions, or its process has ended.
pub(super) fn hang_up_of(socket: OwnedFd) -> impl Fn() -> bool + Send + Sync {
    move || hung_up(socket.as_fd())
}

fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => {
            fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
        }
        Err(_) => false,
    }
}

/// Puts frames on the wire in the order in which they were queued; ends when the queue is closed or the client gone.
async fn write_frames(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<SessionFrame>) {
    while let Some(message) = queue.recv().await {
        let bytes = codec::encode(&message).ok().and_then(|payload| frame::encode(&payload).ok());
        let Some(bytes) = bytes else {
            tracing::error!("an answer is too large for a frame; the session is closed");
            return;
        };
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
