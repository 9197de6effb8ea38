//! Forwarding over SPDY: two streams a connection, told apart by their `streamtype` and put together by their `requestid`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Ended, Target, copy};
use crate::spdy::{self, Headers, ResetReason, Stream};

/// How long a client may take to open the other stream of a pair.
const PAIRING: Duration = Duration::from_secs(30);

/// A connection whose streams are not both there yet.
#[derive(Debug)]
struct Half {
    data: Option<Stream>,
    error: Option<Stream>,
    until: Instant,
}

fn header<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.get(name).map_or("", String::as_str)
}

/// The port a stream is for.
fn port(headers: &Headers) -> Option<u16> {
    header(headers, "port").parse().ok().filter(|port| *port > 0)
}

fn is_data(headers: &Headers) -> bool {
    header(headers, "streamtype") == "data"
}

fn takes(headers: &Headers) -> bool {
    port(headers).is_some() && matches!(header(headers, "streamtype"), "data" | "error")
}

/// What a pair is called. Very old clients do not say: with them the data stream comes right after the error stream.
fn request(stream: &Stream) -> String {
    match header(&stream.headers, "requestid") {
        "" if is_data(&stream.headers) => stream.id.saturating_sub(2).to_string(),
        "" => stream.id.to_string(),
        id => id.to_owned(),
    }
}

/// Forwards ports until the client closes the connection.
pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Send>(connection: T, target: Target) {
    let (from, to) = tokio::io::split(connection);
    let (session, mut incoming, connected) = spdy::serve(from, to, takes);
    let forward = async {
        // Bounded by the streams a connection may have.
        let mut halves: BTreeMap<String, Half> = BTreeMap::new();
        let mut forwarded = FuturesUnordered::new();
        loop {
            let next = halves.values().map(|half| half.until).min();
            tokio::select! {
                stream = incoming.recv() => {
                    let Some(stream) = stream else { break };
                    if let Some((data, error)) = pair(&mut halves, stream).await {
                        forwarded.push(one(&target, data, error));
                    }
                }
                Some(()) = forwarded.next() => {}
                () = until(next) => expire(&mut halves).await,
            }
        }
        session.close();
    };
    tokio::join!(connected, forward);
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Puts a stream to the other one of its pair, if that is there.
async fn pair(halves: &mut BTreeMap<String, Half>, stream: Stream) -> Option<(Stream, Stream)> {
    let request = request(&stream);
    let new = || Half { data: None, error: None, until: Instant::now() + PAIRING };
    let half = halves.entry(request.clone()).or_insert_with(new);
    let kind = if is_data(&stream.headers) { "data" } else { "error" };
    let place = if kind == "data" { &mut half.data } else { &mut half.error };
    if place.is_some() {
        if let Some(error) = &half.error {
            let why = format!("error processing stream for request {request}: {kind} stream already assigned");
            let _ = error.outlet.send(why.into()).await;
        }
        return None;
    }
    *place = Some(stream);
    if half.data.is_none() || half.error.is_none() {
        return None;
    }
    halves.remove(&request).and_then(|half| half.data.zip(half.error))
}

/// Gives up the pairs that are not whole in time.
async fn expire(halves: &mut BTreeMap<String, Half>) {
    let now = Instant::now();
    let late: Vec<String> =
        halves.iter().filter(|(_, half)| half.until <= now).map(|(request, _)| request.clone()).collect();
    for request in late {
        if let Some(Half { error: Some(error), .. }) = halves.remove(&request) {
            let why = format!("(request={request}) timed out waiting for streams");
            let _ = error.outlet.send(why.into()).await;
            error.outlet.finish().await;
        }
    }
}

/// Forwards one connection.
async fn one(target: &Target, data: Stream, error: Stream) {
    let Stream { headers, inlet, outlet, .. } = data;
    // Nobody reads what a client says of errors.
    let Stream { outlet: told, .. } = error;
    match target.connect(port(&headers).unwrap_or_default()).await {
        Ok(connection) => match copy(connection, inlet, &outlet).await {
            Ended::Pod => outlet.finish().await,
            Ended::Cut => outlet.reset(ResetReason::Cancel).await,
        },
        Err(why) => {
            let _ = told.send(Bytes::from(why)).await;
            outlet.reset(ResetReason::Cancel).await;
        }
    }
    told.finish().await;
}
