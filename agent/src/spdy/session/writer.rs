//! What goes to the client: answers first, then what the streams say, in order.

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

use super::{Failure, PARTING, PIECE, Shared};
use crate::spdy::frame::{Encoder, ResetReason};

/// What is to be written of a stream, in order.
#[derive(Debug)]
pub(super) enum Out {
    Data { stream: u32, bytes: Bytes, fin: bool },
    Reset { stream: u32, reason: ResetReason },
}

/// What is to be written before anything of the streams.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(u32),
    Ping(u32),
    Reset(u32, ResetReason),
    Window(u32, u32),
}

/// Writes to the client.
pub(super) struct Writer<W> {
    to: BufWriter<W>,
    encoder: Encoder,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// A writer to this connection.
    pub(super) fn new(to: W) -> Self {
        Self { to: BufWriter::with_capacity(2 * PIECE, to), encoder: Encoder::new() }
    }

    /// Writes until the connection is to be closed and all is written.
    pub(super) async fn write(
        mut self,
        shared: &Shared,
        mut queue: mpsc::Receiver<Out>,
        mut answers: mpsc::Receiver<Answer>,
    ) -> Result<(), Failure> {
        loop {
            // As long as there is something, nothing is waited for but the client.
            if let Ok(answer) = answers.try_recv() {
                self.answer(answer).await?;
                continue;
            }
            if let Ok(out) = queue.try_recv() {
                self.out(out).await?;
                continue;
            }
            self.to.flush().await?;
            tokio::select! {
                biased;
                Some(answer) = answers.recv() => self.answer(answer).await?,
                Some(out) = queue.recv() => self.out(out).await?,
                () = shared.closing.cancelled() => break,
            }
        }
        let last = shared.table().last;
        let parting = async {
            self.to.write_all(&Encoder::go_away(last, true)).await?;
            self.to.shutdown().await
        };
        match tokio::time::timeout(PARTING, parting).await {
            Ok(ended) => ended.map_err(Failure::Io),
            Err(_) => Ok(()),
        }
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), Failure> {
        let frame = match answer {
            Answer::Reply(stream) => self.encoder.reply(stream)?,
            Answer::Ping(id) => Encoder::ping(id),
            Answer::Reset(stream, reason) => Encoder::reset(stream, reason),
            Answer::Window(stream, more) => Encoder::window(stream, more),
        };
        Ok(self.to.write_all(&frame).await?)
    }

    async fn out(&mut self, out: Out) -> Result<(), Failure> {
        match out {
            Out::Data { stream, bytes, fin } => {
                self.to.write_all(&Encoder::data(stream, bytes.len(), fin)).await?;
                self.to.write_all(&bytes).await?;
            }
            Out::Reset { stream, reason } => self.to.write_all(&Encoder::reset(stream, reason)).await?,
        }
        Ok(())
    }
}
