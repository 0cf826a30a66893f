//! The channel of a transfer of files between a client and the server: see [`walt_api::transfer`].

use crate::base::{
    events::Events,
    failure::{Failure, Outcome, refused},
};
use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use futures_util::{StreamExt, stream::SplitStream};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};
use walt_api::{
    Event,
    transfer::{ClientMessage, MAX_FRAME, Path, ServerMessage, Source},
};
use walt_images::cancel;

/// Frames that may wait in each direction before the sender waits.
pub const QUEUE: usize = 16;
/// How long to wait for the client to stop sending after the end of a transfer.
const DRAIN: Duration = Duration::from_secs(10);
/// Why a transfer ends when its client has gone; only logs have it.
pub const GONE: &str = "the client disconnected";

/// An open transfer.
pub struct Channel {
    to: mpsc::Sender<Message>,
    from: SplitStream<WebSocket>,
    events: Events,
    forwarder: JoinHandle<()>,
    gone: Arc<GoneFlag>,
}

/// Whether the client of a transfer has disconnected, for threads that work for it.
#[derive(Debug, Default)]
pub struct GoneFlag(AtomicBool);

impl GoneFlag {
    /// Whether it has.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes from the client, for a blocking reader.
struct Incoming {
    queue: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.queue.blocking_recv() {
                Some(Some(bytes)) => self.current = bytes,
                Some(None) => self.ended = true,
                None => return Err(io::Error::other("the client disconnected before the end")),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Bytes for the client, from a blocking writer.
struct Outgoing {
    to: mpsc::Sender<Message>,
    buffer: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(MAX_FRAME - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == MAX_FRAME {
            self.flush()?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let frame = std::mem::replace(&mut self.buffer, Vec::with_capacity(MAX_FRAME));
        self.to.blocking_send(Message::Binary(frame.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn text(message: &ServerMessage) -> Message {
    // Invariant: messages are plain structs of strings, which JSON can always express.
    Message::Text(serde_json::to_string(message).expect("a message is JSON").into())
}

fn joined<T>(done: Result<Outcome<T>, JoinError>) -> Outcome<T> {
    done.unwrap_or_else(|e| Err(Failure::of_task("the transfer")(e)))
}

impl Channel {
    /// The channel on an open WebSocket; its writer sends the messages of `to`.
    pub fn new(to: mpsc::Sender<Message>, from: SplitStream<WebSocket>) -> Self {
        let (events, mut queue) = Events::channel();
        let sender = to.clone();
        let forwarder = tokio::spawn(async move {
            while let Some(event) = queue.recv().await {
                if sender.send(text(&ServerMessage::Event { event })).await.is_err() {
                    return;
                }
            }
        });
        Self { to, from, events, forwarder, gone: Arc::default() }
    }

    /// The flag that tells whether the client has disconnected.
    pub fn gone(&self) -> Arc<GoneFlag> {
        self.gone.clone()
    }

    /// The events of the operation.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Announces the content of the tar that [`Channel::send`] sends next, and its name in the tar.
    pub async fn source(&self, source: Source, top: &[u8]) {
        let top = Path(top.to_vec());
        let _gone = self.to.send(text(&ServerMessage::Source { source, top })).await;
    }

    /// The next message of the client between transfers; none once it has disconnected.
    pub async fn message(&mut self) -> Option<ClientMessage> {
        loop {
            match self.from.next().await?.ok()? {
                Message::Text(text) => {
                    if let Ok(message) = serde_json::from_str(&text) {
                        return Some(message);
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Receives a tar from the client, with the source under the name `top` (see [`ServerMessage::Ready`]); `work`
    /// reads it in a thread of its own. The reader ends at the client's [`ClientMessage::End`]. If the client
    /// disconnects before, the reader fails, and this does not wait for `work`. A slow reader slows down the client.
    pub async fn receive<T: Send + 'static>(
        &mut self,
        top: &[u8],
        busybox: bool,
        work: impl FnOnce(&mut dyn Read) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let _gone = self.to.send(text(&ServerMessage::Ready { top: Path(top.to_vec()), busybox })).await;
        let (sender, queue) = mpsc::channel(QUEUE);
        let gone = self.gone();
        let mut task = tokio::task::spawn_blocking(move || {
            let mut tar = Incoming { queue, current: Bytes::new(), ended: false };
            cancel::when(move || gone.is_set(), || work(&mut tar))
        });
        let mut sender = Some(sender);
        while let Some(queue) = &sender {
            let message = tokio::select! {
                done = &mut task => return joined(done),
                message = self.from.next() => message,
            };
            // If the reader has ended early, the task has the result.
            match message {
                Some(Ok(Message::Binary(bytes))) => drop(queue.send(Some(bytes)).await),
                Some(Ok(Message::Text(text)))
                    if matches!(serde_json::from_str(&text), Ok(ClientMessage::End)) =>
                {
                    let _ended = queue.send(None).await;
                    sender = None;
                }
                None | Some(Err(_) | Ok(Message::Close(_))) => {
                    self.gone.set();
                    return Err(refused(GONE));
                }
                Some(Ok(_)) => {}
            }
        }
        self.unless_gone(task).await
    }

    /// Waits for `work`, unless the client disconnects.
    pub async fn unless_gone<T>(&mut self, mut work: JoinHandle<Outcome<T>>) -> Outcome<T> {
        loop {
            tokio::select! {
                done = &mut work => return joined(done),
                message = self.message() => if message.is_none() {
                    self.gone.set();
                    return Err(refused(GONE));
                },
            }
        }
    }

    /// Sends to the client what `work` writes in a thread of its own. Writing blocks while the client is slow. If the
    /// client disconnects, writing fails, and this does not wait for `work`.
    pub async fn send<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Write) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let to = self.to.clone();
        let gone = self.gone();
        let task = tokio::task::spawn_blocking(move || {
            let mut out = Outgoing { to, buffer: Vec::with_capacity(MAX_FRAME) };
            let done = cancel::when(move || gone.is_set(), || work(&mut out))?;
            out.flush().map_err(|e| anyhow::Error::new(e).context("the client went away"))?;
            Ok(done)
        });
        self.unless_gone(task).await
    }

    /// Sends the last event, and waits a little for the client to receive it.
    pub async fn finish(self, event: Event) {
        let Self { to, mut from, events, forwarder, gone: _ } = self;
        drop(events);
        let _ = forwarder.await;
        let _gone = to.send(text(&ServerMessage::Event { event })).await;
        drop(to);
        // Closing while the client still sends could lose the message.
        let drained = async { while let Some(Ok(_)) = from.next().await {} };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }
}
