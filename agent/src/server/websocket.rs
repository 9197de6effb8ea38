//! Sessions over WebSocket: subprotocols `v5.channel.k8s.io`, `v4…`, and the older ones without a number.
//!
//! Each message begins with a channel (see [`super::session`]); in version 5, 255 followed by a channel closes that one. In
//! the `base64` protocols, for clients that have text only, the channel is a digit and what follows is encoded. Before
//! version 4 the status at the end is text, and nothing when all went well. The last frame is a Close with code 1000: kubectl
//! takes a Close without a code for an error.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::WindowSize;
use futures::{SinkExt, StreamExt};
use serde_json::Value;

use super::session::{self, Asked, Client, RESIZE, STATUS, STDERR, STDIN, STDOUT};

/// What is said to the client, by preference.
pub(super) const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// How long input may wait to be read, as long as kubelet keeps a connection on which nothing moves. While it waits nobody
/// sees the client leave.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);

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

fn piece(channel: u8, content: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(content.len() + 1);
    piece.put_u8(channel);
    piece.put_slice(content);
    piece.freeze()
}

/// Carries a session over a socket until `work` has ended.
pub(super) async fn carry<F>(socket: WebSocket, protocol: Protocol, asked: Asked, work: impl FnOnce(Asked, Client) -> F)
where
    F: Future<Output = Value>,
{
    let (mut to, mut from) = socket.split();
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
    use serde_json::json;

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
}
