//! The server: what it holds, how it is opened, run and stopped.

mod opening;
mod running;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use coracle_proto::status::Status;
use futures::future::BoxFuture;
use http::{Request, Response};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::running::Runner;
pub(crate) use self::{opening::bind, running::GOODBYE};
use crate::{
    aggregation::Aggregation,
    audit::{self, Audit},
    authn::{Authenticator, Reloads},
    authz,
    config::Config,
    encryption::{self, Encryption},
    flow::FlowControl,
    metrics::Metrics,
    peers::{self, Peers},
    pki::{self, Pki, Shown},
    proxy::Proxies,
    registry::Registry,
    request::RequestInfo,
    resource_metrics::ResourceMetrics,
    security::Security,
    servers::{self, JoinError, Servers},
    service::Service,
    status_of::Result as Answered,
    upstream::connect::Tasks,
    user::User,
};

/// Why the server did not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened, or failed.
    #[error("store in {dir:?}")]
    Store {
        /// The store's directory.
        dir: std::path::PathBuf,
        /// Why.
        #[source]
        source: coracle_store::Error,
    },
    /// A snapshot was being restored there.
    #[error("{}: a restore into this directory was not finished: remove it, and restore again", dir.display())]
    Unfinished {
        /// The data directory.
        dir: std::path::PathBuf,
    },
    /// What is stored cannot be sealed or opened.
    #[error("encryption of what is stored")]
    Encryption(#[source] encryption::Error),
    /// Keys and certificates could not be loaded or made.
    #[error("keys and certificates")]
    Pki(#[source] pki::Error),
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The ways to pods and nodes could not be set up.
    #[error("ways to pods and nodes: {0}")]
    Proxies(String),
    /// The first objects could not be written.
    #[error("write the first objects")]
    Bootstrap(#[source] Box<Status>),
    /// The definitions of custom resources could not be read or followed.
    #[error("definitions of custom resources")]
    Definitions(#[source] coracle_store::Error),
    /// The server cannot join the cluster, or come back to it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// This server was removed from the cluster.
    #[error(
        "{}: this server was removed from the cluster; to add this machine again, remove the directory and join anew with \
         --join and a new token", dir.display()
    )]
    Removed {
        /// The data directory.
        dir: std::path::PathBuf,
    },
    /// Who else is to be let in is not configured well.
    #[error("authentication configuration: {why}")]
    Authentication {
        /// All that is wrong with it.
        why: String,
    },
    /// The audit cannot be kept.
    #[error("audit")]
    Audit(#[source] audit::Error),
    /// RBAC's objects could not be written or read.
    #[error("RBAC's objects")]
    Rbac(#[source] authz::Error),
    /// A part of the server ended in a panic.
    #[error("a part of the server ended in a panic")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Serves requests that the registry does not: reviews, tokens, joining, what is proxied to nodes.
pub trait Handler: Send + Sync {
    /// Whether this request is the handler's.
    fn serves(&self, info: &RequestInfo) -> bool;

    /// Answers it.
    ///
    /// # Errors
    /// The status that is the answer.
    fn handle<'a>(
        &'a self,
        user: &'a User,
        info: &'a RequestInfo,
        request: Request<axum::body::Body>,
    ) -> BoxFuture<'a, Answered<Response<axum::body::Body>>>;
}

/// Where the server is in its life; it only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Left by `run`.
    Opened,
    /// The store takes writes. Left when the first objects are there.
    Running,
    /// All is well. Left at shutdown.
    Ready,
    /// Nothing new is taken.
    Stopping,
}

/// How far the server is.
#[derive(Debug)]
pub(crate) struct Progress(watch::Sender<Phase>);

impl Progress {
    fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let goes_on = *current < phase;
            if goes_on {
                *current = phase;
            }
            goes_on
        });
    }

    fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase() >= Phase::Running
    }

    pub(crate) fn is_bootstrapped(&self) -> bool {
        self.phase() >= Phase::Ready
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.phase() >= Phase::Stopping
    }
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    etcd_address: Option<SocketAddr>,
    pub(crate) registry: Registry,
    pub(crate) pki: Arc<Pki>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) handlers: Vec<Arc<dyn Handler>>,
    security: Arc<Security>,
    proxies: Arc<Proxies>,
    pub(crate) resource_metrics: ResourceMetrics,
    peers: Arc<Peers>,
    servers: Arc<Servers>,
    /// What this server shows its peers.
    member: Shown,
    /// Peers are heard and spoken to for as long as the store lives.
    peers_end: CancellationToken,
    /// Streams over WebSocket.
    pub(crate) sockets: Tasks,
    pub(crate) aggregation: Arc<Aggregation>,
    pub(crate) encryption: Arc<Encryption>,
    pub(crate) writes: TaskTracker,
    pub(crate) flow: FlowControl,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) progress: Progress,
    pub(crate) metrics: Arc<Metrics>,
    /// What other parts of this process have for `/metrics`.
    pub(crate) pages: RwLock<Vec<fn() -> String>>,
}

impl Inner {
    /// Hears out a connection of somebody who says to be a member of the store.
    pub(crate) async fn hear_peer(&self, stream: impl AsyncRead + Unpin, certificates: &[CertificateDer<'_>]) {
        let (store, verifier) = (self.registry.store(), self.pki.client_verifier());
        self.peers.hear(stream, certificates, verifier, store, &self.peers_end).await;
    }

    /// Takes over the keys that another server gives, which values are sealed with.
    pub(crate) async fn take_keys(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        certificates: &[CertificateDer<'_>],
    ) {
        let (store, verifier) = (self.registry.store(), self.pki.client_verifier());
        peers::take_keys(stream, certificates, verifier, store, &self.encryption).await;
    }

    /// The servers of the cluster, as this one sees them.
    pub(crate) fn servers(&self) -> servers::List {
        self.servers.list()
    }

    /// What came of reading the authentication's configuration again.
    pub(crate) fn reloads(&self) -> &Reloads {
        self.security.authenticators.reloads()
    }
}

/// A handle on the server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

impl ApiServer {
    /// The address listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Where etcd's own clients are served, if they are.
    #[must_use]
    pub fn etcd_address(&self) -> Option<SocketAddr> {
        self.inner.etcd_address
    }

    /// Has the Service `kubernetes` lead to this address, unless the server was told which one others reach it at, or
    /// does not listen there.
    ///
    /// # Errors
    /// When the addresses cannot be written.
    pub async fn reached_at(&self, ip: std::net::IpAddr) -> Result<(), Error> {
        let Inner { registry, config, address, .. } = self.inner.as_ref();
        crate::bootstrap::reached_at(registry, config, *address, ip).await.map_err(Error::Bootstrap)
    }

    /// The objects.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// The keys and certificates.
    #[must_use]
    pub fn pki(&self) -> &Arc<Pki> {
        &self.inner.pki
    }

    /// Has `/metrics` tell what another part of this process has to tell, in Prometheus' text format.
    pub fn tell_also(&self, page: fn() -> String) {
        self.inner.pages.write().unwrap_or_else(PoisonError::into_inner).push(page);
    }

    /// Whether there are other servers: what this one does by itself others may do too.
    #[must_use]
    pub fn is_among_several(&self) -> bool {
        self.inner.registry.store().cluster().members.len() > 1
    }

    /// Where the other servers are found, `host:port`, as far as this one knows.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        let cluster = self.inner.registry.store().cluster();
        let others = cluster.members.into_iter().filter(|member| member.id != cluster.own && !member.info.witness);
        others.flat_map(|member| member.info.addresses).collect()
    }

    /// Whether it ended because somebody asked it to leave the cluster, and it did.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.inner.servers.is_leaving() && self.inner.servers.was_removed()
    }

    /// Has `work` done whenever this server is the one of the cluster that leads: begun when it comes to lead, told to end
    /// when it does not any more, and waited for, until `shutdown`. A cluster's only server always leads.
    ///
    /// # Errors
    /// The work's own.
    pub async fn while_leading<F, E>(
        &self,
        shutdown: CancellationToken,
        work: impl FnMut(CancellationToken) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        servers::while_leading(self.inner.registry.store(), &shutdown, work).await
    }

    /// Requests of a component of this process: the same filters and verbs, without a socket.
    #[must_use]
    pub fn service(&self, user: User) -> Service {
        Service::new(Arc::clone(&self.inner), user)
    }

    /// Waits until the cluster is usable (or the server stops).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) {
        // The sender lives in `inner`, so the wait does not fail.
        let _ = self.inner.progress.0.subscribe().wait_for(|phase| *phase >= Phase::Ready).await;
    }
}
