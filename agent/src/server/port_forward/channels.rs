//! Forwarding over a plain WebSocket: the n-th port asked for has channel 2n for data and 2n+1 for what goes wrong. On each the
//! port is said first, in two bytes (little endian). There is no half of an end: a client that is done closes the socket.

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;

use super::{Hear, Say, Target, copy};
use crate::server::websocket::Protocol;
use crate::spdy::{Closed, Received};

/// Pieces that wait, each way.
const PIECES: usize = 8;

/// Where what a port says goes.
struct Channel {
    number: u8,
    told: mpsc::Sender<Bytes>,
}

impl Channel {
    async fn tell(&self, content: &[u8]) -> Result<(), Closed> {
        let mut piece = BytesMut::with_capacity(content.len() + 1);
        piece.put_u8(self.number);
        piece.put_slice(content);
        self.told.send(piece.freeze()).await.map_err(|_| Closed)
    }
}

impl Say for Channel {
    async fn say(&self, bytes: Bytes) -> Result<(), Closed> {
        self.tell(&bytes).await
    }
}

/// What the client says on one channel.
struct Words(mpsc::Receiver<Bytes>);

impl Hear for Words {
    async fn hear(&mut self) -> Received {
        self.0.recv().await.map_or(Received::Reset, Received::Data)
    }
}

/// Forwards ports until the client leaves or no connection is left.
pub(crate) async fn serve(socket: WebSocket, protocol: Protocol, target: Target, ports: Vec<u16>) {
    let (mut to, mut from) = socket.split();
    let (told, mut said) = mpsc::channel::<Bytes>(PIECES);
    let mut inputs = Vec::new();
    let mut forwarded = Vec::new();
    for (number, port) in (0..128_u8).zip(ports) {
        let (typed, words) = mpsc::channel(PIECES);
        inputs.push(typed);
        let data = Channel { number: 2 * number, told: told.clone() };
        let error = Channel { number: 2 * number + 1, told: told.clone() };
        forwarded.push(one(&target, port, data, error, Words(words)));
    }
    drop(told);
    let sending = async {
        while let Some(piece) = said.recv().await {
            if to.send(protocol.message(piece)).await.is_err() {
                return;
            }
        }
    };
    let hearing = async {
        while let Some(Ok(message)) = from.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            if let Some((channel, bytes)) = protocol.piece(message)
                && channel.is_multiple_of(2)
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                // A connection that is over takes nothing.
                drop(input.send(bytes).await);
            }
        }
    };
    tokio::select! {
        ((), _) = async { tokio::join!(sending, futures::future::join_all(forwarded)) } => {}
        () = hearing => return,
    }
    drop(to.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await);
    drop(to.close().await);
}

async fn one(target: &Target, port: u16, data: Channel, error: Channel, words: Words) {
    for channel in [&data, &error] {
        if channel.tell(&port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    match target.connect(port).await {
        Ok(connection) => {
            copy(connection, words, &data).await;
        }
        // The client may be gone.
        Err(why) => drop(error.tell(why.as_bytes()).await),
    }
}
