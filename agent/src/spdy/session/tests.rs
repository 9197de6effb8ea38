//! Connections as a client has them.

use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::super::frame::Encoder;
use super::super::frame::testing::Client;
use super::*;

/// The client's end of a connection.
struct Peer {
    from: ReadHalf<DuplexStream>,
    to: WriteHalf<DuplexStream>,
    client: Client,
}

/// What a client reads.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Data(u32, Vec<u8>),
    Fin(u32),
    /// Type and the first number in it.
    Control(u16, u32),
    End,
}

impl Peer {
    async fn says(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).await.unwrap();
    }

    async fn opens(&mut self, stream: u32) {
        let frame = self.client.open(stream, &[("streamtype", "data")]);
        self.says(&frame).await;
    }

    async fn hears(&mut self) -> Heard {
        let mut header = [0; 8];
        if self.from.read_exact(&mut header).await.is_err() {
            return Heard::End;
        }
        let [a, b, c, d, flags, e, f, g] = header;
        let mut content = vec![0; u32::from_be_bytes([0, e, f, g]) as usize];
        self.from.read_exact(&mut content).await.unwrap();
        if a & 0x80 != 0 {
            let number = content.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).unwrap();
            return Heard::Control(u16::from_be_bytes([c, d]), number);
        }
        let stream = u32::from_be_bytes([a, b, c, d]);
        if flags & 1 != 0 { Heard::Fin(stream) } else { Heard::Data(stream, content) }
    }
}

const REPLY: u16 = 2;
const RST: u16 = 3;
const GOAWAY: u16 = 7;

/// A connection, and what is done on both sides of it.
async fn talk<S, C>(served: impl FnOnce(Session, Incoming) -> S, client: impl FnOnce(Peer) -> C) -> C::Output
where
    S: Future<Output = ()>,
    C: Future,
{
    let (ours, theirs) = duplex(1 << 10);
    let (from, to) = split(ours);
    let (session, incoming, carry) = serve(from, to, |headers| headers.get("streamtype").is_some_and(|t| t == "data"));
    let (from, to) = split(theirs);
    let peer = Peer { from, to, client: Client::new() };
    let ((), (), output) = tokio::join!(carry, served(session, incoming), client(peer));
    output
}

/// Says back what it hears, and then that this is all.
async fn echo(stream: Stream) {
    let Stream { mut inlet, outlet, .. } = stream;
    loop {
        match inlet.next().await {
            Received::Data(bytes) => outlet.send(bytes).await.unwrap(),
            Received::End => return outlet.finish().await,
            Received::Reset => return,
        }
    }
}

#[tokio::test]
async fn a_stream_carries_both_ways_and_each_way_has_an_end() {
    let served = |session: Session, mut incoming: Incoming| async move {
        echo(incoming.recv().await.unwrap()).await;
        assert!(session.0.table().streams.is_empty());
        session.close();
    };
    let heard = talk(served, |mut peer| async move {
        peer.opens(1).await;
        peer.says(&Client::data(1, b"words", false)).await;
        peer.says(&Client::data(1, b"", true)).await;
        let mut heard = Vec::new();
        while heard.last() != Some(&Heard::End) {
            heard.push(peer.hears().await);
        }
        heard
    });
    let want = [
        Heard::Control(REPLY, 1),
        Heard::Data(1, b"words".to_vec()),
        Heard::Fin(1),
        Heard::Control(GOAWAY, 1),
        Heard::End,
    ];
    assert_eq!(heard.await, want);
}

#[tokio::test]
async fn streams_that_may_not_be_are_reset_and_pings_answered() {
    let served = |_, mut incoming: Incoming| async move {
        let mut streams = Vec::new();
        while let Some(stream) = incoming.recv().await {
            streams.push(stream);
        }
        assert_eq!(streams.iter().map(|stream| stream.id).collect::<Vec<_>>(), [3, 9]);
    };
    talk(served, |mut peer| async move {
        for (stream, want) in [(3, REPLY), (2, RST), (3, RST), (1, RST), (9, REPLY)] {
            peer.opens(stream).await;
            assert_eq!(peer.hears().await, Heard::Control(want, stream));
        }
        let other = peer.client.open(11, &[("streamtype", "other")]);
        peer.says(&other).await;
        assert_eq!(peer.hears().await, Heard::Control(RST, 11));
        peer.says(&[Encoder::ping(2), Encoder::ping(7)].concat()).await;
        assert_eq!(peer.hears().await, Heard::Control(6, 7));
        // Who is leaving opens nothing any more.
        peer.says(&Encoder::go_away(0, true)).await;
        peer.opens(13).await;
        peer.says(&Encoder::ping(9)).await;
        assert_eq!(peer.hears().await, Heard::Control(6, 9));
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_no_more() {
    let served = |session: Session, mut incoming: Incoming| async move {
        let mut first = incoming.recv().await.unwrap();
        assert_eq!(first.inlet.next().await, Received::Reset);
        assert_eq!(first.outlet.send(Bytes::from_static(b"x")).await, Err(Closed));
        let second = incoming.recv().await.unwrap();
        second.outlet.send(Bytes::from_static(b"before")).await.unwrap();
        second.outlet.reset(ResetReason::Cancel).await;
        drop(incoming.recv().await.unwrap());
        drop(first);
        assert!(session.0.table().streams.is_empty());
        session.close();
    };
    talk(served, |mut peer| async move {
        peer.opens(1).await;
        peer.says(&Encoder::reset(1, ResetReason::Cancel)).await;
        assert_eq!(peer.hears().await, Heard::Control(REPLY, 1));
        peer.opens(3).await;
        let heard = [peer.hears().await, peer.hears().await, peer.hears().await];
        assert_eq!(heard, [Heard::Control(REPLY, 3), Heard::Data(3, b"before".to_vec()), Heard::Control(RST, 3)]);
        peer.opens(5).await;
        assert_eq!(peer.hears().await, Heard::Control(REPLY, 5));
        // Of the first there is nothing to say any more: the client knows.
        assert_eq!(peer.hears().await, Heard::Control(RST, 5));
    })
    .await;
}

#[tokio::test]
async fn streams_are_numbered_and_counted() {
    let served = |_, mut incoming: Incoming| async move {
        let mut streams = Vec::new();
        while let Some(stream) = incoming.recv().await {
            streams.push(stream);
        }
        assert_eq!(streams.len(), STREAMS);
    };
    talk(served, |mut peer| async move {
        for number in 0..=u32::try_from(STREAMS).unwrap() {
            peer.opens(2 * number + 1).await;
            let want = if number < u32::try_from(STREAMS).unwrap() { REPLY } else { RST };
            assert_eq!(peer.hears().await, Heard::Control(want, 2 * number + 1));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_not_read() {
    let (done, is_done) = tokio::sync::oneshot::channel();
    let served = |_, mut incoming: Incoming| async move {
        let stream = incoming.recv().await.unwrap();
        is_done.await.unwrap();
        drop(stream);
        assert_eq!(incoming.recv().await.map(|stream| stream.id), None);
    };
    let taken = talk(served, |mut peer| async move {
        peer.opens(1).await;
        let mut taken = 0;
        let piece = Client::data(1, &[0; 100], false);
        // Time goes on only when nobody can do anything.
        while tokio::time::timeout(Duration::from_secs(1), peer.to.write_all(&piece)).await.is_ok() {
            taken += 1;
        }
        done.send(()).unwrap();
        taken
    });
    let (taken, piece_len) = (taken.await, Client::data(1, &[0; 100], false).len());
    // Beside the pieces that wait there is what was read with them, and what the connection itself holds.
    assert!(taken > WAITING && taken * piece_len < WAITING * piece_len + 2 * PIECE, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_speaks_of_windows_is_kept_to_them() {
    let served = |session: Session, mut incoming: Incoming| async move {
        let stream = incoming.recv().await.unwrap();
        stream.outlet.send(Bytes::from_static(b"0123456789")).await.unwrap();
        stream.outlet.finish().await;
        session.close();
    };
    talk(served, |mut peer| async move {
        peer.says(&Client::settings(4)).await;
        peer.opens(1).await;
        assert_eq!(peer.hears().await, Heard::Control(REPLY, 1));
        assert_eq!(peer.hears().await, Heard::Data(1, b"0123".to_vec()));
        assert!(tokio::time::timeout(Duration::from_secs(1), peer.hears()).await.is_err());
        peer.says(&Encoder::window(1, 5)).await;
        assert_eq!(peer.hears().await, Heard::Data(1, b"45678".to_vec()));
        peer.says(&Encoder::window(1, 100)).await;
        assert_eq!(peer.hears().await, Heard::Data(1, b"9".to_vec()));
        assert_eq!(peer.hears().await, Heard::Fin(1));
    })
    .await;
}

#[tokio::test]
async fn windows_are_granted_as_is_taken() {
    let served = |_, mut incoming: Incoming| async move { echo(incoming.recv().await.unwrap()).await };
    talk(served, |mut peer| async move {
        peer.opens(1).await;
        assert_eq!(peer.hears().await, Heard::Control(REPLY, 1));
        let (mut to, mut taken) = (peer.to, 0);
        let says = async {
            for _ in 0..16 {
                to.write_all(&Client::data(1, &[1; PIECE], false)).await.unwrap();
            }
            to.write_all(&Client::data(1, b"", true)).await.unwrap();
            to
        };
        let mut listener = Peer { from: peer.from, to: split(duplex(1).0).1, client: Client::new() };
        let hears = async {
            let mut windows = 0;
            loop {
                match listener.hears().await {
                    Heard::Data(1, bytes) => taken += bytes.len(),
                    Heard::Control(9, 1) => windows += 1,
                    Heard::Fin(1) => return windows,
                    other => panic!("{other:?}"),
                }
            }
        };
        let (_to, windows) = tokio::join!(says, hears);
        // Pieces are as they arrive, and half a window is told at once.
        assert!(taken == 16 * PIECE && (6..=8).contains(&windows), "{taken} {windows}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_left() {
    let served = |session: Session, _incoming: Incoming| async move { session.gone().cancelled().await };
    talk(served, |mut peer| async move {
        let pings: Vec<u8> = (0..500).flat_map(|_| Encoder::ping(1)).collect();
        while peer.to.write_all(&pings).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let served = |session: Session, mut incoming: Incoming| async move {
        let mut stream = incoming.recv().await.unwrap();
        assert_eq!(stream.inlet.next().await, Received::Reset);
        assert!(session.gone().is_cancelled() && incoming.recv().await.is_none());
    };
    talk(served, |mut peer| async move {
        peer.opens(1).await;
        assert_eq!(peer.hears().await, Heard::Control(REPLY, 1));
        peer.says(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await;
        assert_eq!(peer.hears().await, Heard::End);
    })
    .await;
}
