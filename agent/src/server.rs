//! The node's own HTTPS server, for the API server and whom it lets: health, pods, logs, exec, attach, port-forward, figures.
//!
//! Every request comes over TLS. The API server's own identity is let in by its certificate (`system:masters`, or the name
//! kube-apiserver uses towards kubelets); about anyone else with a certificate of the cluster's authority, or with a token,
//! the API server is asked; and whoever has neither is refused before a route is looked at.

mod access;
mod exec;
mod identity;
mod logs;
mod metrics;
mod over_spdy;
pub(crate) mod port_forward;
pub(crate) mod session;
pub(crate) mod stats;
mod tunnel;
pub(crate) mod upgrade;
mod websocket;

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Serving;
use crate::context::Context;
use access::Access;
use identity::Identity;

/// Connections at once; the API server and a few that read figures connect, so more are strangers.
const CONNECTIONS: usize = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A certificate or key is not readable.
    #[error("{what} of the node's server: {reason}")]
    Certificate {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The tasks of the server's connections: they end with the server, and it waits for them.
#[derive(Clone)]
pub(crate) struct Sessions {
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Sessions {
    /// None yet; those to come end at `shutdown`.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: TaskTracker::new(), shutdown }
    }

    /// Waits until all have ended, once no more begin.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs what outlives its request, until the server ends.
    pub(crate) fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session => {}
            }
        });
    }
}

/// Runs what a connection spawns: the streams of HTTP/2.
impl<F> hyper::rt::Executor<F> for Sessions
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.spawn(async move {
            stream.await;
        });
    }
}

/// The server, listening.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    serving: watch::Receiver<Serving>,
    address: SocketAddr,
}

impl Server {
    /// Listens, so that the port is known before the node is registered.
    pub(crate) async fn bind(address: SocketAddr, mut serving: watch::Receiver<Serving>) -> Result<Self, Error> {
        let tls = tls(&serving.borrow_and_update())?;
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), serving, address })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `shutdown`, then ends its connections and waits for them.
    pub(crate) async fn run(mut self, context: Arc<Context>, shutdown: CancellationToken) {
        let router = router(context);
        let sessions = Sessions::new(shutdown.clone());
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                () = renewed(&mut self.serving) => {
                    self.renew();
                    continue;
                }
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptors left, most likely: a moment's rest, not a busy loop.
                    tracing::warn!(error = &error as &(dyn StdError + 'static), "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::debug!("connection refused: too many");
                continue;
            };
            let (acceptor, router, shutdown) = (self.acceptor.clone(), router.clone(), shutdown.clone());
            let sessions = sessions.clone();
            sessions.tasks.clone().spawn(async move {
                let _permit = permit;
                let greeted = tokio::select! {
                    greeted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => greeted,
                    () = shutdown.cancelled() => return,
                };
                let Ok(Ok(stream)) = greeted else { return };
                let identity = Identity::of(stream.get_ref().1.peer_certificates());
                let executor = sessions.clone();
                let service =
                    tower::ServiceExt::map_request(router, move |mut request: http::Request<hyper::body::Incoming>| {
                        request.extensions_mut().insert(identity.clone());
                        request.extensions_mut().insert(sessions.clone());
                        request.map(Body::new)
                    });
                let builder = hyper_util::server::conn::auto::Builder::new(executor);
                let connection =
                    builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
                tokio::select! {
                    // Streams that are open end with the agent.
                    () = shutdown.cancelled() => {}
                    result = connection => if let Err(error) = result {
                        tracing::debug!(error = %error, "connection ended");
                    },
                }
            });
        }
        sessions.ended().await;
    }

    /// New connections get the new certificates; those there are were greeted with the old ones.
    fn renew(&mut self) {
        match tls(&self.serving.borrow_and_update()) {
            Ok(tls) => self.acceptor = TlsAcceptor::from(Arc::new(tls)),
            Err(error) => {
                tracing::error!(error = &error as &(dyn StdError + 'static), "new certificates are of no use");
            }
        }
    }
}

/// Waits for new certificates; for ever, if nobody gives any.
async fn renewed(serving: &mut watch::Receiver<Serving>) {
    if serving.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn tls(serving: &Serving) -> Result<ServerConfig, Error> {
    let wrong =
        |what: &'static str| move |e: &dyn std::fmt::Display| Error::Certificate { what, reason: e.to_string() };
    let read = |pem: &str, what: &'static str| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| wrong(what)(&e))
    };
    let chain = read(&serving.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).map_err(|e| wrong("key")(&e))?;
    let mut roots = RootCertStore::empty();
    for certificate in read(&serving.client_ca, "client authority")? {
        roots.add(certificate).map_err(|e| wrong("client authority")(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Without a certificate the handshake is let through, so that the answer can be a 401 that says why.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong("client authority")(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("certificate")(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| wrong("certificate")(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The routes; each stands behind [`identity::guard`].
pub(crate) fn router(context: Arc<Context>) -> Router {
    let access = Arc::new(Access::new(context.client.clone(), context.config.node_name.clone()));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/runningpods", get(running_pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward::port_forward))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics::kubelet))
        .route("/metrics/cadvisor", get(metrics::cadvisor))
        .route("/metrics/probes", get(metrics::probes))
        .route("/metrics/resource", get(stats::resources))
        .fallback(|request: Request| async move {
            failure(StatusCode::NOT_FOUND, "NotFound", &format!("the node does not serve {}", request.uri().path()))
        })
        .layer(axum::middleware::from_fn_with_state(access, identity::guard))
        .with_state(context)
}

/// An answer that says what is wrong, as a Kubernetes `Status`.
pub(crate) fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    (code, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

fn list(pods: &[Arc<k8s_openapi::api::core::v1::Pod>]) -> Response {
    let body = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn pods(State(context): State<Arc<Context>>) -> Response {
    list(&context.table.with(|table| table.values().map(|e| Arc::clone(&e.pod)).collect::<Vec<_>>()))
}

async fn running_pods(State(context): State<Arc<Context>>) -> Response {
    let alive = |e: &&crate::context::Entry| e.attempts.values().flatten().any(crate::pod::facts::Attempt::is_alive);
    list(&context.table.with(|table| table.values().filter(alive).map(|e| Arc::clone(&e.pod)).collect::<Vec<_>>()))
}
