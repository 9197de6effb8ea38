//! A connection's streams: who reads what arrived, who writes next, and what both may keep meanwhile.

mod writer;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::writer::{Answer, Out, Writer};
use super::frame::{Decoder, Frame, PIECE, ProtocolError, ResetReason};
use super::headers::Headers;

/// Streams of one connection at once: 256 forwarded connections have two each.
const STREAMS: usize = 512;
/// Streams that were opened and nobody has looked at yet.
const NEW: usize = 16;
/// Pieces of one stream that wait to be taken.
const WAITING: usize = 8;
/// Bytes of all streams of a connection that wait to be taken; beyond it nothing more is read of the connection.
const ROOM: usize = 4 << 20;
/// Pieces that wait to be written, of all streams.
const QUEUE: usize = 16;
/// Answers that wait to be written; a client that makes more without reading any is left.
const ANSWERS: usize = 4096;
/// The window a stream begins with, each way (section 2.6.8).
const WINDOW: u32 = 64 << 10;
/// How long a stream may hold up its connection, as long as kubelet keeps one on which nothing moves.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long a client has to take a connection's last words.
const PARTING: Duration = Duration::from_secs(5);

/// Why nothing more can be written to a stream: the client has given it up, or the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub(crate) struct Closed;

/// What can happen on a stream next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Some bytes.
    Data(Bytes),
    /// The client says no more; it may still listen.
    End,
    /// The client has given the stream up, or the connection is gone.
    Reset,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client does not take its answers")]
    Answers,
    #[error("nobody takes what the client says")]
    Stuck,
}

/// One stream, opened by the client.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its number: odd, and higher than any before.
    pub(crate) id: u32,
    /// What it was opened with.
    pub(crate) headers: Headers,
    /// What the client says.
    pub(crate) inlet: Inlet,
    /// What it is told.
    pub(crate) outlet: Outlet,
}

/// The streams that the client opens; `None` when it opens no more.
pub(crate) type Incoming = mpsc::Receiver<Stream>;

/// A piece on its way to who reads the stream.
#[derive(Debug)]
enum Item {
    Data(Bytes, OwnedSemaphorePermit),
    End,
}

/// The client's half of a stream.
#[derive(Debug)]
pub(crate) struct Inlet {
    id: u32,
    items: mpsc::Receiver<Item>,
    /// The stream is given up.
    reset: CancellationToken,
    shared: Arc<Shared>,
    /// What was taken and the client has not been told of.
    taken: u32,
    ended: bool,
}

impl Inlet {
    /// What happens next.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&mut self) -> Received {
        if self.ended {
            return Received::End;
        }
        let item = tokio::select! {
            biased;
            () = self.reset.cancelled() => return Received::Reset,
            item = self.items.recv() => item,
        };
        match item {
            Some(Item::Data(bytes, _room)) => {
                self.taken = self.taken.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                // Half a window at a time; what does not fit among the answers is told with what is taken next.
                if self.taken >= WINDOW / 2 && self.shared.answers.try_send(Answer::Window(self.id, self.taken)).is_ok()
                {
                    self.taken = 0;
                }
                Received::Data(bytes)
            }
            Some(Item::End) => {
                self.ended = true;
                Received::End
            }
            None => Received::Reset,
        }
    }
}

/// Our half of a stream. One that is dropped before it was finished is given up.
#[derive(Debug)]
pub(crate) struct Outlet {
    id: u32,
    reset: CancellationToken,
    window: Arc<Window>,
    shared: Arc<Shared>,
    done: bool,
}

impl Outlet {
    /// Says something; waits while the client does not take it.
    ///
    /// # Errors
    /// The stream is closed.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let length = bytes.len().min(PIECE);
            let granted = tokio::select! {
                biased;
                () = self.reset.cancelled() => return Err(Closed),
                granted = self.window.take(length, &self.shared.keeps_windows) => granted,
            };
            self.write(Out::Data { stream: self.id, bytes: bytes.split_to(granted), fin: false }).await?;
        }
        Ok(())
    }

    /// Says that this is all.
    pub(crate) async fn finish(mut self) {
        self.done = true;
        // A client that is gone needs no end.
        let _ = self.write(Out::Data { stream: self.id, bytes: Bytes::new(), fin: true }).await;
        self.shared.half_closed(self.id, Side::Ours);
    }

    /// Gives the stream up, after what was said.
    pub(crate) async fn reset(mut self, reason: ResetReason) {
        self.done = true;
        let _ = self.write(Out::Reset { stream: self.id, reason }).await;
        self.shared.forget(self.id);
    }

    async fn write(&self, out: Out) -> Result<(), Closed> {
        tokio::select! {
            biased;
            () = self.reset.cancelled() => Err(Closed),
            sent = self.shared.queue.send(out) => sent.map_err(|_| Closed),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.done && !self.reset.is_cancelled() {
            // Who does not read its answers has other troubles.
            drop(self.shared.answers.try_send(Answer::Reset(self.id, ResetReason::Cancel)));
            self.shared.forget(self.id);
        }
    }
}

/// What a client takes of one stream, once it says so.
#[derive(Debug)]
struct Window {
    left: AtomicI64,
    more: Notify,
}

impl Window {
    /// Takes up to `wanted` bytes; waits while there are none and the client keeps windows at all.
    ///
    /// # Cancel safety
    /// Safe.
    async fn take(&self, wanted: usize, keeps: &AtomicBool) -> usize {
        loop {
            let more = self.more.notified();
            let left = self.left.load(Ordering::Acquire);
            let granted = match usize::try_from(left) {
                Ok(left @ 1..) => wanted.min(left),
                _ if !keeps.load(Ordering::Acquire) => wanted,
                _ => {
                    more.await;
                    continue;
                }
            };
            self.left.fetch_sub(i64::try_from(granted).unwrap_or(i64::MAX), Ordering::AcqRel);
            return granted;
        }
    }

    fn grant(&self, more: i64) {
        self.left.fetch_add(more, Ordering::AcqRel);
        // One task writes to a stream.
        self.more.notify_one();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

/// A stream as the connection knows it.
#[derive(Debug)]
struct Entry {
    /// To who reads it; `None` when the client has ended its half.
    items: Option<mpsc::Sender<Item>>,
    reset: CancellationToken,
    window: Arc<Window>,
    ours_ended: bool,
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<u32, Entry>,
    /// The highest number yet.
    last: u32,
    gone_away: bool,
    first_window: u32,
}

/// What the connection and its streams have in common.
#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    queue: mpsc::Sender<Out>,
    answers: mpsc::Sender<Answer>,
    room: Arc<Semaphore>,
    /// The client has spoken of windows.
    keeps_windows: AtomicBool,
    /// The connection is over.
    gone: CancellationToken,
    /// It is to end when all is written.
    closing: CancellationToken,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, stream: u32) {
        self.table().streams.remove(&stream);
    }

    fn half_closed(&self, stream: u32, side: Side) {
        let mut table = self.table();
        let Some(entry) = table.streams.get_mut(&stream) else { return };
        match side {
            Side::Ours => entry.ours_ended = true,
            Side::Theirs => entry.items = None,
        }
        if entry.ours_ended && entry.items.is_none() {
            table.streams.remove(&stream);
        }
    }

    fn answer(&self, answer: Answer) -> Result<(), Failure> {
        self.answers.try_send(answer).map_err(|_| Failure::Answers)
    }
}

/// A connection, to be ended.
#[derive(Clone, Debug)]
pub(crate) struct Session(Arc<Shared>);

impl Session {
    /// Ends the connection when all that was said is written.
    pub(crate) fn close(&self) {
        self.0.closing.cancel();
    }

    /// Becomes cancelled when the connection is over.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.0.gone.clone()
    }
}

/// Serves a connection: the returned future carries it and must be polled; streams whose headers `takes` likes arrive.
pub(crate) fn serve<R, W>(
    from: R,
    to: W,
    takes: fn(&Headers) -> bool,
) -> (Session, Incoming, impl Future<Output = ()> + Send)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (queue, queued) = mpsc::channel(QUEUE);
    let (answers, answered) = mpsc::channel(ANSWERS);
    let (opened, incoming) = mpsc::channel(NEW);
    let shared = Arc::new(Shared {
        table: Mutex::new(Table { first_window: WINDOW, ..Table::default() }),
        queue,
        answers,
        room: Arc::new(Semaphore::new(ROOM)),
        keeps_windows: AtomicBool::new(false),
        gone: CancellationToken::new(),
        closing: CancellationToken::new(),
    });
    let session = Session(Arc::clone(&shared));
    let carry = async move {
        let writer = Writer::new(to);
        let written = CancellationToken::new();
        // A socket that is closed with something unread may take away what was written last (RFC 9293, 3.10.4): so what the
        // client still says is read until it closes, too.
        let parted = async {
            written.cancelled().await;
            tokio::time::sleep(PARTING).await;
        };
        let reading = async {
            let ended = tokio::select! {
                ended = read(from, &shared, opened, takes) => ended,
                () = parted => Ok(()),
            };
            shared.gone.cancel();
            ended
        };
        let writing = async {
            let ended = tokio::select! {
                ended = writer.write(&shared, queued, answered) => ended,
                () = shared.gone.cancelled() => Ok(()),
            };
            written.cancel();
            ended
        };
        let (heard, said) = tokio::join!(reading, writing);
        if let Some(failure) = heard.err().or(said.err()) {
            tracing::debug!(error = &failure as &(dyn std::error::Error + 'static), "a SPDY connection was cut off");
        }
        shared.gone.cancel();
        let left = std::mem::take(&mut shared.table().streams);
        left.values().for_each(|entry| entry.reset.cancel());
    };
    (session, incoming, carry)
}

/// Reads until the client ends the connection.
async fn read<R: AsyncRead + Unpin>(
    mut from: R,
    shared: &Arc<Shared>,
    opened: mpsc::Sender<Stream>,
    takes: fn(&Headers) -> bool,
) -> Result<(), Failure> {
    let mut decoder = Decoder::new();
    let mut buffer = BytesMut::with_capacity(PIECE);
    loop {
        while let Some(frame) = decoder.decode(&mut buffer)? {
            hear(frame, shared, &opened, takes).await?;
        }
        buffer.reserve(PIECE);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn hear(
    frame: Frame,
    shared: &Arc<Shared>,
    opened: &mpsc::Sender<Stream>,
    takes: fn(&Headers) -> bool,
) -> Result<(), Failure> {
    match frame {
        Frame::Open { stream, headers, fin } => {
            if let Some(stream) = open(stream, headers, fin, shared, takes)?
                && opened.send(stream).await.is_err()
            {
                // Nobody takes streams any more; dropping it has told the client so.
                tracing::trace!("a SPDY stream came too late");
            }
        }
        Frame::Data { stream, bytes, fin } => {
            let items = shared.table().streams.get(&stream).and_then(|entry| entry.items.clone());
            // Of a stream that was given up something may be on its way.
            let Some(items) = items else { return Ok(()) };
            if !bytes.is_empty() {
                let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let hand_over = async {
                    if let Ok(room) = Arc::clone(&shared.room).acquire_many_owned(wanted).await {
                        // Whoever read the stream may have left.
                        drop(items.send(Item::Data(bytes, room)).await);
                    }
                };
                tokio::time::timeout(PATIENCE, hand_over).await.map_err(|_| Failure::Stuck)?;
            }
            if fin {
                drop(items.send(Item::End).await);
                shared.half_closed(stream, Side::Theirs);
            }
        }
        Frame::Reset { stream } => {
            if let Some(entry) = shared.table().streams.remove(&stream) {
                entry.reset.cancel();
            }
        }
        // Even numbers are answers to pings of ours, of which there are none.
        Frame::Ping { id } if id % 2 == 1 => shared.answer(Answer::Ping(id))?,
        Frame::Ping { .. } | Frame::Other => {}
        Frame::GoAway => shared.table().gone_away = true,
        Frame::Window { stream, more } => {
            shared.keeps_windows.store(true, Ordering::Release);
            let window = shared.table().streams.get(&stream).map(|entry| Arc::clone(&entry.window));
            window.iter().for_each(|window| window.grant(i64::from(more)));
        }
        Frame::FirstWindow { size } => {
            shared.keeps_windows.store(true, Ordering::Release);
            let mut table = shared.table();
            let change = i64::from(size) - i64::from(table.first_window);
            table.first_window = size;
            table.streams.values().for_each(|entry| entry.window.grant(change));
        }
    }
    Ok(())
}

/// A stream the client opens, if it may.
fn open(
    id: u32,
    headers: Headers,
    fin: bool,
    shared: &Arc<Shared>,
    takes: fn(&Headers) -> bool,
) -> Result<Option<Stream>, Failure> {
    let mut table = shared.table();
    if table.gone_away {
        return Ok(None);
    }
    if id.is_multiple_of(2) || id <= table.last {
        shared.answer(Answer::Reset(id, ResetReason::Protocol))?;
        return Ok(None);
    }
    table.last = id;
    if table.streams.len() >= STREAMS || shared.closing.is_cancelled() || !takes(&headers) {
        shared.answer(Answer::Reset(id, ResetReason::Refused))?;
        return Ok(None);
    }
    shared.answer(Answer::Reply(id))?;
    let (items, received) = mpsc::channel(WAITING);
    let reset = CancellationToken::new();
    let window = Arc::new(Window { left: AtomicI64::new(i64::from(table.first_window)), more: Notify::new() });
    let entry =
        Entry { items: (!fin).then_some(items), reset: reset.clone(), window: Arc::clone(&window), ours_ended: false };
    table.streams.insert(id, entry);
    let (inlet_reset, inlet_shared) = (reset.clone(), Arc::clone(shared));
    let inlet = Inlet { id, items: received, reset: inlet_reset, shared: inlet_shared, taken: 0, ended: fin };
    let outlet = Outlet { id, reset, window, shared: Arc::clone(shared), done: false };
    Ok(Some(Stream { id, headers, inlet, outlet }))
}

#[cfg(test)]
mod tests;
