//! TLS connections: accepted, bounded, and ended in peace.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    filters::{self, Peer},
    pki::{KEYS, PEERS},
    server::Inner,
    stall::Stalling,
};

/// How long a client may take for the TLS handshake, and for the head of an HTTP/1 request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(30);

/// After an error of `accept` (too many open files, say) the next attempt waits this long.
const PAUSE: Duration = Duration::from_millis(100);

/// Requests at once on one HTTP/2 connection: client-go puts all its watches on one.
const STREAMS: u32 = 1000;

/// How long a client may take nothing of what is sent to it.
const STALLED: Duration = Duration::from_secs(60);

/// As large as the headers of an HTTP/2 request may be: the longest path that is taken, and room for a token.
const HEADERS: u32 = 128 * 1024;

/// HTTP/2 flow control windows: large enough that a list need not wait for the other end.
const WINDOW: u32 = 1 << 20;

/// Runs what a connection spawns in the server's own tracker.
#[derive(Clone)]
pub(crate) struct Tracked(TaskTracker);

impl Tracked {
    pub(crate) const fn new(tracker: TaskTracker) -> Self {
        Self(tracker)
    }
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Where connections come in.
pub(crate) struct Door {
    /// Where clients connect.
    pub(crate) listener: TcpListener,
    /// How they are greeted.
    pub(crate) tls: Arc<ServerConfig>,
    /// Connections at once; who comes then waits.
    pub(crate) places: usize,
    /// Ends it.
    pub(crate) shutdown: CancellationToken,
    /// How long connections have then to end.
    pub(crate) goodbye: Duration,
}

/// A client whose handshake has succeeded.
pub(crate) struct Guest {
    /// The connection.
    pub(crate) stream: Stalling<TlsStream<TcpStream>>,
    /// What it showed, verified as the door's TLS demands.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// What it and the door agreed to speak (ALPN), if they did.
    pub(crate) protocol: Option<Vec<u8>>,
    /// Where it is.
    pub(crate) address: IpAddr,
    /// For what the connection starts: it is waited for with it.
    pub(crate) tasks: TaskTracker,
    /// The connection should come to its end.
    pub(crate) shutdown: CancellationToken,
}

impl Door {
    /// Serves each connection by `serve` until the door is shut, then gives them time to end.
    pub(crate) async fn open<F>(self, serve: impl Fn(Guest) -> F + Clone + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Door { listener, tls, places, shutdown, goodbye } = self;
        let acceptor = TlsAcceptor::from(tls);
        let tracker = TaskTracker::new();
        let cut = CancellationToken::new();
        let places = Arc::new(Semaphore::new(places));
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok((socket, peer)) => (socket, peer.ip()),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (serve, acceptor, shutdown) = (serve.clone(), acceptor.clone(), shutdown.clone());
            let (tasks, cut) = (tracker.clone(), cut.clone());
            tracker.spawn(async move {
                let served = async {
                    if let Some((stream, certificates, protocol)) = greet(socket, acceptor, &shutdown).await {
                        serve(Guest { stream, certificates, protocol, address, tasks, shutdown }).await;
                    }
                };
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = served => {}
                }
                drop(place);
            });
        }
        drop(listener);
        tracker.close();
        if tokio::time::timeout(goodbye, tracker.wait()).await.is_err() {
            cut.cancel();
            let _ = tokio::time::timeout(goodbye, tracker.wait()).await;
        }
    }
}

/// A connection, the certificates shown, and the protocol agreed upon.
type Greeted = (Stalling<TlsStream<TcpStream>>, Arc<[CertificateDer<'static>]>, Option<Vec<u8>>);

/// The handshake; nothing when there is nobody to serve.
async fn greet(socket: TcpStream, acceptor: TlsAcceptor, shutdown: &CancellationToken) -> Option<Greeted> {
    // Small answers go out at once; a failure only costs time.
    let _ = socket.set_nodelay(true);
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)) => greeted.ok()?,
        // Who has not asked for anything yet is not waited for.
        () = shutdown.cancelled() => return None,
    };
    match greeted {
        Ok(stream) => {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
            let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            Some((Stalling::new(stream, STALLED), certificates, protocol))
        }
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake");
            None
        }
    }
}

/// Serves a connection to its end, which it is asked for by `ask` at `shutdown`.
pub(crate) async fn drive<C, E>(connection: C, shutdown: &CancellationToken, ask: impl FnOnce(Pin<&mut C>))
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            ask(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended in an error");
    }
}

/// Serves the API to a client, or hears out another member of the store.
pub(crate) async fn serve(server: Arc<Inner>, guest: Guest) {
    let Guest { stream, certificates, protocol, address, tasks, shutdown } = guest;
    if protocol.as_deref() == Some(PEERS) {
        return server.hear_peer(stream, &certificates).await;
    }
    if protocol.as_deref() == Some(KEYS) {
        return server.take_keys(stream, &certificates).await;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let peer = Peer::Remote { certificates: Arc::clone(&certificates), address };
        let handled = filters::handle(Arc::clone(&server), peer, request.map(Body::new));
        async move { Ok::<_, std::convert::Infallible>(handled.await) }
    });
    let mut builder = auto::Builder::new(Tracked(tasks));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .keep_alive_interval(Some(HEAD))
        .keep_alive_timeout(HEAD);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    drive(connection, &shutdown, |connection| connection.graceful_shutdown()).await;
}
