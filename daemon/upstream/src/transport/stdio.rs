//! Messages as lines over the pipes of a process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::service::RxJsonRpcMessage;
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::transport::bounded::{Collected, Collector};
use crate::transport::ledger::{Ledger, Verdict, typed};

/// Bytes that may wait for a server to read them. One that does not read is as good as dead, and must not fill the daemon.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Messages that may wait likewise. There are not more requests in flight at a time, and each is answered or cancelled once.
const MAX_QUEUED: usize = 1024;

/// How long what is queued may take to be written when the transport closes.
const FLUSH: Duration = Duration::from_millis(200);

/// What is told about lines that are no messages: programs that print to stdout are the most common mistake.
pub(crate) type Garbage = Box<dyn Fn(&str) + Send>;

/// A transport over two byte streams.
pub(crate) struct Stdio<R> {
    reader: BufReader<R>,
    line: Collector,
    ledger: Arc<Ledger>,
    garbage: Garbage,
    writer: Option<Writer>,
}

struct Writer {
    queue: mpsc::Sender<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

struct Queued {
    line: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

impl<R: AsyncRead + Send + Unpin> Stdio<R> {
    /// Lines longer than `max_bytes` are passed over, and the request that they answer is told.
    pub(crate) fn new(
        read: R,
        write: impl AsyncWrite + Send + Unpin + 'static,
        ledger: Arc<Ledger>,
        max_bytes: usize,
        garbage: Garbage,
    ) -> Self {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(write_all(write, queued, queued_bytes.clone()));
        let writer = Some(Writer { queue, queued_bytes, task });
        Self {
            reader: BufReader::with_capacity(64 * 1024, read),
            line: Collector::new(max_bytes),
            ledger,
            garbage,
            writer,
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read of a line is kept.
    async fn next_line(&mut self) -> Option<Collected> {
        loop {
            let part = self.reader.fill_buf().await.ok()?;
            if part.is_empty() {
                return (!self.line.is_empty()).then(|| self.line.finish());
            }
            let Some(end) = part.iter().position(|&byte| byte == b'\n') else {
                let length = part.len();
                self.line.push(part);
                self.reader.consume(length);
                continue;
            };
            self.line.push(&part[..end]);
            self.reader.consume(end + 1);
            return Some(self.line.finish());
        }
    }

    fn take(&self, line: Collected) -> Option<RxJsonRpcMessage<RoleClient>> {
        let bytes = match line {
            Collected::TooLarge { id, bytes } => return typed(self.ledger.too_large(id, Some(bytes)), ""),
            Collected::Whole(bytes) => bytes,
        };
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let verdict = self.ledger.received(text);
        if verdict == Verdict::Garbage {
            (self.garbage)(text);
        }
        typed(verdict, text)
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Transport<RoleClient> for Stdio<R> {
    type Error = io::Error;

    fn send(&mut self, item: ClientJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        // Queued at once, not in the future: that may be polled in another order than it was made.
        let written = self.writer.as_ref().ok_or_else(closed).and_then(|writer| writer.queue(&item));
        async move { written?.await.map_err(|_| closed())? }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let line = self.next_line().await?;
            if let Some(message) = self.take(line) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        if let Some(mut writer) = self.writer.take() {
            // Ends the task, and with it the server's stdin, once all is written.
            writer.queue = mpsc::channel(1).0;
            timeout(FLUSH, &mut writer.task).await.ok();
        }
        Ok(())
    }
}

impl Writer {
    fn queue(&self, item: &ClientJsonRpcMessage) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        let length = line.len();
        let deaf = || io::Error::other("the server does not read what it is sent");
        if self.queued_bytes.fetch_add(length, Ordering::Relaxed) + length > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            return Err(deaf());
        }
        let (written, receiver) = oneshot::channel();
        self.queue.try_send(Queued { line, written }).map_err(|error| {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => deaf(),
                TrySendError::Closed(_) => closed(),
            }
        })?;
        Ok(receiver)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut queued: mpsc::Receiver<Queued>,
    queued_bytes: Arc<AtomicUsize>,
) {
    while let Some(Queued { line, written }) = queued.recv().await {
        let result = async {
            write.write_all(&line).await?;
            write.flush().await
        };
        let result = result.await;
        queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let failed = result.is_err();
        // Receiver gone: nobody waits for this message to be out.
        written.send(result).ok();
        if failed {
            return;
        }
    }
}

fn closed() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}
