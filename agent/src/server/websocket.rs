//! Sessions over WebSocket: subprotocols `v5.channel.k8s.io`, `v4…`, and the older ones without a number.
//!
//! Each message begins with a channel (see [`super::session`]); in version 5, 255 followed by a channel closes that one. In
//! the `base64` protocols, for clients that have text only, the channel is a digit and what follows is encoded. Before
//! version 4 the status at the end is text, and nothing when all went well. The last frame is a Close with code 1000: kubectl
//! takes a Close without a code for an error.
//!
//! Nothing is run before the client has answered a Ping. Older releases of client-go, 1.32 among them, read the connection
//! beside the task that makes its streams, and throw away what comes for a stream that is not made yet: the words of a
//! program that ends at once would be lost, as they are there in the very moment the connection stands.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::WindowSize;
use futures::{SinkExt, StreamExt, stream};
use serde_json::Value;

use super::session::{self, Asked, Client, RESIZE, STATUS, STDERR, STDIN, STDOUT};

/// What is said to the client, by preference.
pub(super) const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// How long input may wait to be read, as long as kubelet keeps a connection on which nothing moves. While it waits nobody
/// sees the client leave.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);

/// How long a client has to show that it reads, by a Pong or anything else. One that does not, though it must (RFC 6455,
/// 5.5.3), is served after that.
const GREETING: Duration = Duration::from_secs(1);

/// How long a client has to close its side.
const PARTING: Duration = Duration::from_secs(5);

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// A channel can be closed by itself.
    closes: bool,
    /// The status is JSON.
    json: bool,
    /// Messages are text.
    base64: bool,
}

impl Protocol {
    /// The protocol of this name; without one, the oldest.
    pub(super) fn named(name: Option<&str>) -> Self {
        let (closes, json, base64) = match name {
            Some("v5.channel.k8s.io") => (true, true, false),
            Some("v4.channel.k8s.io") => (false, true, false),
            Some("v4.base64.channel.k8s.io") => (false, true, true),
            Some("base64.channel.k8s.io") => (false, false, true),
            _ => (false, false, false),
        };
        Self { closes, json, base64 }
    }

    /// The message of a piece that begins with its channel.
    pub(super) fn message(self, piece: Bytes) -> Message {
        if !self.base64 {
            return Message::Binary(piece);
        }
        let channel = char::from(b'0'.saturating_add(piece.first().copied().unwrap_or_default()));
        let mut text = String::from(channel);
        STANDARD.encode_string(piece.get(1..).unwrap_or_default(), &mut text);
        Message::Text(text.into())
    }

    /// Channel and content of a message; nothing for what is none of the protocol.
    pub(super) fn piece(self, message: Message) -> Option<(u8, Bytes)> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) => return None,
        };
        let channel = *bytes.first()?;
        if self.base64 {
            return Some((channel.checked_sub(b'0')?, STANDARD.decode(bytes.get(1..)?).ok()?.into()));
        }
        Some((channel, bytes.slice(1..)))
    }

    fn read(self, message: Message) -> Option<Input> {
        match self.piece(message)? {
            (STDIN, data) => Some(Input::Data(data)),
            (RESIZE, json) => session::size(&json).map(Input::Size),
            (255, channel) if self.closes && channel.first() == Some(&STDIN) => Some(Input::End),
            _ => None,
        }
    }

    /// The last message's text.
    fn status(self, status: &Value) -> String {
        match (self.json, status.get("status").and_then(Value::as_str)) {
            (true, _) => status.to_string(),
            (false, Some("Success")) => String::new(),
            (false, _) => status.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }
}

/// What came from the client.
#[derive(Debug)]
enum Input {
    Data(Bytes),
    End,
    Size(WindowSize),
}

/// Waits until the client shows that it reads; what it said instead of a Pong is still to be heard.
async fn greet(socket: &mut WebSocket) -> Option<Result<Message, axum::Error>> {
    if socket.send(Message::Ping(Bytes::new())).await.is_err() {
        return None;
    }
    match tokio::time::timeout(GREETING, socket.next()).await {
        Ok(Some(Ok(Message::Pong(_)))) | Err(_) => None,
        Ok(heard) => heard,
    }
}

fn piece(channel: u8, content: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(content.len() + 1);
    piece.put_u8(channel);
    piece.put_slice(content);
    piece.freeze()
}

/// Carries a session over a socket until `work` has ended.
pub(super) async fn carry<F>(
    mut socket: WebSocket,
    protocol: Protocol,
    asked: Asked,
    work: impl FnOnce(Asked, Client) -> F,
) where
    F: Future<Output = Value>,
{
    let first = greet(&mut socket).await;
    let (mut to, from) = socket.split();
    let mut from = stream::iter(first).chain(from);
    let (client, carrier) = session::ends();
    let session::Carrier { mut input, sizes, mut told, gone } = carrier;
    if !protocol.closes {
        // Says that the connection stands, as kubelet does.
        let first = if asked.output {
            STDOUT
        } else if asked.error {
            STDERR
        } else {
            STATUS
        };
        drop(to.send(protocol.message(piece(first, &[]))).await);
    }
    let sending = async {
        let mut stands = true;
        while let Some(piece) = told.recv().await {
            if stands && to.send(protocol.message(piece)).await.is_err() {
                stands = false;
                gone.cancel();
            }
        }
    };
    let hearing = async {
        while let Some(Ok(message)) = from.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
            match protocol.read(message) {
                Some(Input::Data(data)) => {
                    if let Some(sender) = &input {
                        match tokio::time::timeout(PATIENCE, sender.send(data)).await {
                            Ok(Ok(())) => {}
                            // The program reads no more; it may still speak.
                            Ok(Err(_)) => input = None,
                            Err(_) => break,
                        }
                    }
                }
                Some(Input::End) => input = None,
                Some(Input::Size(size)) => drop(sizes.send(size).await),
                None => {}
            }
        }
        gone.cancel();
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        (status, ()) = async { tokio::join!(work(asked, client), sending) } => status,
        () = hearing => return,
    };
    // The client may be gone; nobody is left to tell then.
    drop(to.send(protocol.message(piece(STATUS, protocol.status(&status).as_bytes()))).await);
    drop(to.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await);
    drop(to.close().await);
    // A socket that is closed with something unread may take away what was written last (RFC 9293, 3.10.4).
    let rest = async { while let Some(Ok(_)) = from.next().await {} };
    let _ = tokio::time::timeout(PARTING, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::extract::ws::WebSocketUpgrade;
    use serde_json::json;
    use tokio::task::JoinSet;
    use tokio_tungstenite::tungstenite;

    use super::*;

    #[test]
    fn messages_are_read_by_channel() {
        let read = |bytes: &[u8], name| {
            let message = Message::Binary(Bytes::copy_from_slice(bytes));
            match Protocol::named(Some(name)).read(message) {
                Some(Input::Data(data)) => format!("data {}", String::from_utf8_lossy(&data)),
                Some(Input::End) => "end".into(),
                Some(Input::Size(size)) => format!("{}x{}", size.width, size.height),
                None => "-".into(),
            }
        };
        let [v5, v4, base64, ..] = PROTOCOLS;
        for (bytes, name, want) in [
            (&b"\0hi"[..], v5, "data hi"),
            (b"\x04{\"Width\":80,\"Height\":24}", v5, "80x24"),
            (b"\x04{}", v5, "-"),
            (b"\xff\0", v5, "end"),
            (b"\xff\x01", v5, "-"),
            (b"\xff\0", v4, "-"),
            (b"\x01x", v5, "-"),
            (b"", v5, "-"),
            (b"0aGk=", base64, "data hi"),
            (b"0not base64", base64, "-"),
            (b"\0", base64, "-"),
        ] {
            assert_eq!(read(bytes, name), want, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for name in PROTOCOLS {
            let protocol = Protocol::named(Some(name));
            let message = protocol.message(piece(2, b"\xffwords"));
            assert_eq!(protocol.piece(message), Some((2, Bytes::from_static(b"\xffwords"))), "{name}");
        }
        assert_eq!(Protocol::named(None), Protocol::named(Some("channel.k8s.io")));
    }

    #[test]
    fn old_clients_are_told_failures_alone_and_in_words() {
        let [v5, .., old] = PROTOCOLS.map(|name| Protocol::named(Some(name)));
        let (good, bad) = (json!({"status": "Success"}), json!({"status": "Failure", "message": "no"}));
        assert_eq!((old.status(&good).as_str(), old.status(&bad).as_str()), ("", "no"));
        assert_eq!((v5.status(&good), v5.status(&bad)), (good.to_string(), bad.to_string()));
    }

    /// A client of a session whose program says a word and ends at once.
    async fn client(serving: &mut JoinSet<()>) -> tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
        let serve = |upgrade: WebSocketUpgrade| async move {
            let work = |_, client: Client| async move {
                drop(client.told.send(piece(STDOUT, b"word")).await);
                json!({"status": "Success"})
            };
            let asked = Asked { output: true, ..Asked::default() };
            upgrade.on_upgrade(move |socket| carry(socket, Protocol::named(Some(PROTOCOLS[0])), asked, work))
        };
        let app = axum::Router::new().route("/", axum::routing::get(serve));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap().0
    }

    #[tokio::test]
    async fn nothing_is_said_to_a_client_that_does_not_read_yet() {
        let mut serving = JoinSet::new();
        let mut socket = client(&mut serving).await;
        // Answered when it is read.
        assert!(matches!(socket.next().await, Some(Ok(tungstenite::Message::Ping(_)))));
        let heard: Vec<_> = socket.filter_map(|message| async { message.ok() }).collect().await;
        let [word, status, tungstenite::Message::Close(Some(close))] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(word.clone().into_data(), &b"\x01word"[..]);
        assert_eq!(status.clone().into_data(), &b"\x03{\"status\":\"Success\"}"[..]);
        assert_eq!(u16::from(close.code), 1000);
    }

    #[tokio::test]
    async fn what_a_client_says_first_is_heard() {
        let mut serving = JoinSet::new();
        let mut socket = client(&mut serving).await;
        socket.send(tungstenite::Message::Close(None)).await.unwrap();
        let heard = socket.next().await;
        assert!(matches!(heard, Some(Ok(tungstenite::Message::Ping(_)))), "{heard:?}");
        let rest: Vec<_> = socket.collect().await;
        assert!(!rest.iter().flatten().any(tungstenite::Message::is_binary), "{rest:?}");
    }
}
