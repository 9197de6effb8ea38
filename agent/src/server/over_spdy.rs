//! Sessions over SPDY, for older clients: a stream each for input, outputs, sizes and the status at the end.
//!
//! The versions of the protocol differ in how the end is told (4: a `Status` as JSON; before: a failure's words) and in whether
//! there are sizes (from 3 on).

use std::time::Duration;

use bytes::{Buf, Bytes};
use coracle_runtime::WindowSize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::session::{self, Asked, Client, STDERR, STDOUT};
use crate::spdy::{self, Headers, Incoming, Outlet, Received, Stream};

/// What is offered to clients; the first that a client knows is spoken.
pub(super) const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// The longest text of a terminal's size.
const SIZE: usize = 4096;

/// What matters of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    json: bool,
    sizes: bool,
}

impl Protocol {
    /// The protocol of this name; a client that names none speaks the first.
    pub(super) fn named(name: Option<&str>) -> Self {
        Self {
            json: name == Some("v4.channel.k8s.io"),
            sizes: matches!(name, Some("v4.channel.k8s.io" | "v3.channel.k8s.io")),
        }
    }

    /// What is written at the end.
    fn status(self, status: &Value) -> String {
        match (self.json, status.get("status").and_then(Value::as_str)) {
            (true, _) => status.to_string(),
            (false, Some("Success")) => String::new(),
            (false, _) => status.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }
}

/// What a stream is for.
fn kind(headers: &Headers) -> &str {
    headers.get("streamtype").map_or("", String::as_str)
}

fn takes(headers: &Headers) -> bool {
    matches!(kind(headers), "error" | "stdin" | "stdout" | "stderr" | "resize")
}

/// A session's streams.
#[derive(Debug, Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    /// Takes the streams that the client opens, until those it asked for are there.
    async fn collect(incoming: &mut Incoming, asked: &Asked, protocol: Protocol) -> Option<Streams> {
        let mut streams = Streams::default();
        while !streams.suffice(asked, protocol) {
            let stream = incoming.recv().await?;
            let place = match kind(&stream.headers) {
                "error" => &mut streams.error,
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                _ => &mut streams.resize,
            };
            // Of two of a kind the first counts; the second is reset as it is dropped.
            place.get_or_insert(stream);
        }
        Some(streams)
    }

    fn suffice(&self, asked: &Asked, protocol: Protocol) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !asked.input)
            && (self.stdout.is_some() || !asked.output)
            && (self.stderr.is_some() || !asked.error)
            && (self.resize.is_some() || !(asked.tty && protocol.sizes))
    }
}

/// Carries a session over a connection until `work` has ended.
pub(super) async fn carry<T, F>(
    connection: T,
    protocol: Protocol,
    asked: Asked,
    work: impl FnOnce(Asked, Client) -> F + Send,
) where
    T: AsyncRead + AsyncWrite + Send,
    F: Future<Output = Value> + Send,
{
    let (from, to) = tokio::io::split(connection);
    let (session, mut incoming, connected) = spdy::serve(from, to, takes);
    let talk = async {
        match tokio::time::timeout(OPENING, Streams::collect(&mut incoming, &asked, protocol)).await {
            Ok(Some(streams)) => {
                drop(incoming);
                converse(streams, &session, protocol, asked, work).await;
            }
            Ok(None) => {}
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
        session.close();
    };
    tokio::join!(connected, talk);
}

async fn converse<F>(
    streams: Streams,
    connection: &spdy::Session,
    protocol: Protocol,
    asked: Asked,
    work: impl FnOnce(Asked, Client) -> F,
) where
    F: Future<Output = Value>,
{
    let (client, carrier) = session::ends();
    let session::Carrier { input, sizes, mut told, gone } = carrier;
    let part = |stream: Option<Stream>| stream.map(|Stream { inlet, outlet, .. }| (inlet, outlet)).unzip();
    let (typed, stdin) = part(streams.stdin);
    let (resized, resize) = part(streams.resize);
    let (_, stdout) = part(streams.stdout);
    let (_, stderr) = part(streams.stderr);
    let (_, error) = part(streams.error);

    let hearing = async {
        let (Some(mut typed), Some(input)) = (typed, input) else { return };
        while let Received::Data(bytes) = typed.next().await {
            if input.send(bytes).await.is_err() {
                // The program reads no more; what comes still must be taken.
                while let Received::Data(_) = typed.next().await {}
                return;
            }
        }
    };
    let resizing = async {
        if let Some(resized) = resized {
            hear_sizes(resized, &sizes).await;
        }
    };
    let sending = async {
        while let Some(mut piece) = told.recv().await {
            let to = match piece.first() {
                Some(&STDOUT) => &stdout,
                Some(&STDERR) => &stderr,
                _ => continue,
            };
            piece.advance(1);
            if let Some(to) = to
                && to.send(piece).await.is_err()
            {
                // A client that gives up an output has left, as far as anyone can tell.
                gone.cancel();
            }
        }
    };
    let leaving = async {
        connection.gone().cancelled().await;
        gone.cancel();
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        (status, ()) = async { tokio::join!(work(asked, client), sending) } => status,
        () = async { tokio::join!(hearing, resizing, leaving); } => return,
    };
    let text = Bytes::from(protocol.status(&status));
    for outlet in [stdout, stderr, stdin, resize].into_iter().flatten() {
        outlet.finish().await;
    }
    if let Some(error) = error {
        // A client that has left is not told.
        let _ = error.send(text).await;
        Outlet::finish(error).await;
    }
}

/// Sizes follow each other as JSON.
async fn hear_sizes(mut from: spdy::Inlet, sizes: &mpsc::Sender<WindowSize>) {
    let mut text = Vec::new();
    while let Received::Data(bytes) = from.next().await {
        text.extend_from_slice(&bytes);
        for size in read_sizes(&mut text) {
            let _ = sizes.send(size).await;
        }
        if text.len() > SIZE {
            text.clear();
        }
    }
}

/// Takes the whole sizes out of what has arrived.
fn read_sizes(text: &mut Vec<u8>) -> Vec<WindowSize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&serde_json::value::RawValue>();
    let mut sizes = Vec::new();
    let mut read = 0;
    while let Some(Ok(value)) = values.next() {
        sizes.extend(session::size(value.get().as_bytes()));
        read = values.byte_offset();
    }
    text.drain(..read);
    sizes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_read_however_they_arrive() {
        let mut text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":9".to_vec();
        assert_eq!(read_sizes(&mut text), [WindowSize { width: 80, height: 24 }]);
        text.extend_from_slice(b"9,\"Height\":33}");
        assert_eq!(read_sizes(&mut text), [WindowSize { width: 99, height: 33 }]);
        assert!(text.is_empty());
    }

    #[test]
    fn versions_differ_in_the_end_and_in_sizes() {
        let [v4, v3, v2, v1] = PROTOCOLS.map(|name| Protocol::named(Some(name)));
        assert_eq!([v4, v3, v2, v1].map(|version| version.sizes), [true, true, false, false]);
        let bad = json!({"status": "Failure", "message": "no"});
        assert_eq!([v4, v3].map(|version| version.status(&bad)), [bad.to_string(), "no".to_owned()]);
        assert_eq!(Protocol::named(None), v1);
    }
}
