//! Packets on their way to one peer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use coracle_store::{MemberId, Store};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    CONNECT, KEEP_ALIVE, PACKET, PAUSES, Peers, SILENCE, WAITING, WAITING_BYTES,
    frame::{self, Hello},
    identity,
};

/// Nothing was to be said for so long: the connection is ended, and the peer's task with it.
const IDLE: Duration = Duration::from_secs(300);

/// Packets that wait for a peer.
#[derive(Debug)]
pub(super) struct Queue {
    packets: mpsc::Sender<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub(super) struct Line {
    packets: mpsc::Receiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Queue, Line) {
    let (sender, packets) = mpsc::channel(WAITING);
    let bytes = Arc::<AtomicUsize>::default();
    (Queue { packets: sender, bytes: Arc::clone(&bytes) }, Line { packets, bytes })
}

impl Queue {
    /// Adds a packet, or drops it if there is no room.
    pub(super) fn push(&self, packet: Vec<u8>) {
        let size = packet.len();
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(size) > WAITING_BYTES {
            return;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        if self.packets.try_send(packet).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }

    /// Nobody carries what is put here.
    pub(super) fn is_idle(&self) -> bool {
        self.packets.is_closed()
    }
}

impl Line {
    fn taken(&self, packet: &[u8]) {
        self.bytes.fetch_sub(packet.len(), Ordering::Relaxed);
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.recv().await?;
        self.taken(&packet);
        Some(packet)
    }

    fn next_now(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.try_recv().ok()?;
        self.taken(&packet);
        Some(packet)
    }
}

type Stream = TlsStream<TcpStream>;

/// The way to one peer.
pub(super) struct Way {
    pub(super) peers: Arc<Peers>,
    pub(super) store: Store,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) member: MemberId,
}

impl Way {
    /// Carries packets until `shutdown`.
    pub(super) async fn carry(self, mut line: Line, shutdown: CancellationToken) {
        let work = async {
            let (mut pause, mut is_told) = (PAUSES.0, false);
            loop {
                let first = if self.is_member() {
                    line.next_now()
                } else {
                    // Who was removed, or is not admitted yet as far as this member knows: an answer, perhaps.
                    match timeout(IDLE, line.next()).await {
                        Ok(Some(first)) => Some(first),
                        Ok(None) | Err(_) => return,
                    }
                };
                match self.connect().await {
                    Ok(stream) => {
                        tracing::info!(peer = self.member.to_string(), "a peer is reached");
                        (pause, is_told) = (PAUSES.0, false);
                        let error = self.talk(stream, first, &mut line).await.err();
                        let error = error.as_ref().map(|error| error as &dyn std::error::Error);
                        tracing::info!(peer = self.member.to_string(), error, "the connection to a peer has ended");
                    }
                    Err(error) => {
                        if !is_told {
                            tracing::warn!(peer = self.member.to_string(), error, "a peer is not reached");
                        }
                        is_told = true;
                    }
                }
                // What was to be said meanwhile is not news by then.
                drop(timeout(pause, async { while line.next().await.is_some() {} }).await);
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    fn is_member(&self) -> bool {
        self.store.cluster().members.iter().any(|member| member.id == self.member)
    }

    async fn connect(&self) -> Result<Stream, String> {
        let addresses = self.peers.addresses_of(&self.store, self.member);
        let mut last = "nobody has said where it is".to_owned();
        for address in addresses {
            match timeout(CONNECT, self.connect_to(&address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(why)) => last = format!("{address}: {why}"),
                Err(_) => last = format!("{address}: no answer within {CONNECT:?}"),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: &str) -> Result<Stream, String> {
        let text = |error: io::Error| error.to_string();
        let socket = TcpStream::connect(address).await.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        // A machine that is gone acknowledges nothing, and says nothing either.
        let patience = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&socket, sockopt::TcpUserTimeout, &patience).map_err(|error| error.to_string())?;
        let name = identity::server_name(self.store.cluster_id(), self.member)?;
        let mut stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await.map_err(text)?;
        let hello = Hello { addresses: self.peers.own_addresses() };
        frame::write_hello(&mut stream, &hello).await.map_err(text)?;
        Ok(stream)
    }

    /// Says what there is to be said until the peer goes.
    async fn talk(&self, stream: Stream, first: Option<Vec<u8>>, line: &mut Line) -> io::Result<()> {
        let (mut reader, writer): (ReadHalf<Stream>, WriteHalf<Stream>) = tokio::io::split(stream);
        let mut writer = BufWriter::with_capacity(64 << 10, writer);
        let mut said = Instant::now();
        let mut next = first;
        let mut nothing = [0; 1];
        loop {
            while let Some(packet) = next.take().or_else(|| line.next_now()) {
                said = Instant::now();
                timeout(PACKET, frame::write(&mut writer, &packet)).await??;
            }
            timeout(PACKET, writer.flush()).await??;
            tokio::select! {
                packet = line.next() => match packet {
                    Some(packet) => next = Some(packet),
                    None => return writer.shutdown().await,
                },
                // It never says anything here: it ends the connection.
                _ = reader.read(&mut nothing) => return Ok(()),
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if said.elapsed() >= IDLE && !self.is_member() {
                        return writer.shutdown().await;
                    }
                    timeout(PACKET, frame::write(&mut writer, &[])).await??;
                }
            }
        }
    }
}
