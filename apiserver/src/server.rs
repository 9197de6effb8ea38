//! The server: what it holds, how it starts, listens and stops.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
    time::Duration,
};

use coracle_proto::status::Status;
use coracle_store::{Driver, Seal, Store};
use futures::future::BoxFuture;
use http::{Request, Response};
use rustls::pki_types::CertificateDer;
use tokio::{io::AsyncRead, net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::policy::type_checking,
    aggregation::{self, Aggregation},
    audit::{self, Audit},
    authn::{Authenticator, Authenticators, Clock, Reloads, Tokens},
    authz::{self, Authorizer, Rbac},
    bootstrap,
    config::Config,
    connections::{self, Door},
    custom::Follower,
    encryption::{self, Encryption},
    etcd,
    flow::FlowControl,
    maintenance::Maintenance,
    metrics::Metrics,
    peers::{Lines, Peers, member_profile},
    pki::{self, Pki, Shown},
    proxy::Proxies,
    registry::{Facts, Registry},
    request::RequestInfo,
    security::{Nodes, Security, Signer, TokenSecrets},
    servers::{self, JoinError, Place, Requests, Servers},
    service::Service,
    snapshot,
    status_of::Result as Answered,
    upstream::connect::Tasks,
    user::User,
};

/// How long connections may take to end when the server stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// So often the first objects are tried, and so long after one another.
const FIRST_OBJECTS: u32 = 5;
const FIRST_OBJECTS_PAUSE: Duration = Duration::from_millis(500);

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

    /// Makes the first objects. Among several servers others may write the same meanwhile, and who leads may change.
    async fn make_first_objects(&self) -> Result<(), Error> {
        for attempt in 1.. {
            let made = async {
                bootstrap::run(&self.registry, &self.config, self.address, &self.pki).await?;
                self.flow.settle(&self.registry).await
            };
            match made.await {
                Ok(()) => break,
                Err(status) if attempt < FIRST_OBJECTS && [409, 500, 503, 504].contains(&status.code) => {
                    tracing::warn!(reason = %status.message, "the first objects are looked at anew");
                    tokio::time::sleep(FIRST_OBJECTS_PAUSE).await;
                }
                Err(status) => return Err(Error::Bootstrap(status)),
            }
        }
        Ok(())
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

/// What makes an opened server work; see [`Runner::run`].
#[must_use = "a server works only while it runs"]
pub struct Runner {
    inner: Arc<Inner>,
    driver: Driver,
    lines: Lines,
    /// When the certificate that is shown to peers is to be exchanged first.
    member_due: jiff::Timestamp,
    listener: TcpListener,
    etcd: Option<TcpListener>,
    audit: Option<audit::Writers>,
}

fn pki_config(config: &Config, address: SocketAddr) -> pki::Config {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let mut advertise: Vec<std::net::IpAddr> = config.advertise.into_iter().collect();
    advertise.push(address.ip());
    pki::Config {
        dir: config.data_dir.join("pki"),
        kubeconfigs: config.data_dir.clone(),
        domain: config.dns_domain.clone(),
        service_ip: config.service_cidr.nth(1).into(),
        hostname: config.hostname.clone(),
        advertise,
        extra_names: config.extra_names.clone(),
        server: format!("https://{host}:{}", address.port()),
        lifetime: config.certificate_lifetime,
    }
}

/// How long a port may be taken before that is an error. A server that was killed a moment ago has it until the kernel is
/// done with its memory.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// Listens on the address; waits a moment for a port that is still taken, for which there is no notification.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let patience = tokio::time::Instant::now() + PORT_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < patience => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

impl ApiServer {
    /// Opens store, keys and socket. Nothing is served before [`Runner::run`].
    ///
    /// # Errors
    /// Each of the three can refuse.
    pub async fn open(config: Config) -> Result<(Self, Runner), Error> {
        if config.data_dir.join(snapshot::UNFINISHED).exists() {
            return Err(Error::Unfinished { dir: config.data_dir });
        }
        let listening = |source| Error::Listen { address: config.listen, source };
        let listener = bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let etcd = match config.etcd_listen {
            Some(address) => Some(bind(address).await.map_err(|source| Error::Listen { address, source })?),
            None => None,
        };
        let etcd_address = etcd.as_ref().and_then(|listener| listener.local_addr().ok());
        let dir = config.data_dir.join("store");
        if let Some(pid) = coracle_store::holder(&dir) {
            // Before anything is written beside it for this server's names and addresses.
            return Err(Error::Store { dir: dir.clone(), source: coracle_store::Error::Locked { dir, pid } });
        }
        let place = servers::prepare(&config, address).await?;
        let keys = pki_config(&config, address);
        let opened = tokio::task::spawn_blocking(move || Pki::open(keys, jiff::Timestamp::now())).await;
        let pki = Arc::new(opened.map_err(Error::Panicked)?.map_err(Error::Pki)?);
        let (peers, lines) = Peers::new();
        let joining = place.as_ref().and_then(Place::joining);
        let store = coracle_store::Config { retention: config.history, joining, ..coracle_store::Config::new(&dir) };
        let (store, driver) =
            Store::open_among(store, Arc::clone(&peers) as _).await.map_err(|source| Error::Store { dir, source })?;
        let own_addresses = servers::own_addresses(&config, address, place.as_ref());
        peers.is_at(own_addresses.clone());
        if let Some(mut place) = place {
            peers.are_at(place.others());
            place.opened(&config.data_dir).map_err(Error::Pki)?;
        }
        let shown = pki.issue(&member_profile(store.cluster_id(), store.cluster().own), jiff::Timestamp::now());
        let shown = shown.map_err(Error::Pki)?;
        let (member, member_due) = (Shown::new(&shown).map_err(Error::Pki)?, shown.renew_at());
        let (keys, given, kept) = (config.data_dir.join("pki"), config.encryption.clone(), store.clone());
        let opened = tokio::task::spawn_blocking(move || Encryption::open(&keys, given.as_deref(), &kept)).await;
        let encryption = Arc::new(opened.map_err(Error::Panicked)?.map_err(Error::Encryption)?);
        let store = store.sealed_by(Arc::clone(&encryption) as Arc<dyn Seal>);
        let facts =
            Facts { root_ca: pki.authority().pem().into(), service_cidr: config.service_cidr, pages: config.pages };
        let seats = config.max_requests_inflight.saturating_add(config.max_mutating_requests_inflight);
        let flow = FlowControl::open(store.clone(), seats, config.request_timeout);
        let flow = flow.map_err(|source| Error::Store { dir: config.data_dir.join("store"), source })?;
        let registry = Registry::new(store, facts);
        let tokens = Arc::new(Tokens::new(Arc::clone(&pki), registry.store().clone()));
        let clock: Clock = Arc::new(jiff::Timestamp::now);
        let store = registry.store().clone();
        let metrics = Metrics::new();
        let clients = Arc::clone(&metrics.clients);
        let authenticator = Authenticators::new(&pki, Arc::clone(&tokens), store, Arc::clone(&clock), clients);
        let authenticator = authenticator.with(config.authentication.clone());
        let authenticator = Arc::new(authenticator.map_err(|why| Error::Authentication { why })?);
        let (audit, writers) = Audit::open(&config.audit).map_err(Error::Audit)?.unzip();
        let shutdown = CancellationToken::new();
        let security = Arc::new(Security {
            pki: Arc::clone(&pki),
            registry: registry.clone(),
            authenticators: Arc::clone(&authenticator),
            tokens,
            nodes: Nodes::new(pki.node_tls().map_err(Error::Pki)?),
            clock,
        });
        let proxies = Proxies::new(registry.clone(), Arc::clone(&security)).map_err(Error::Proxies)?;
        let proxies = Arc::new(proxies);
        let aggregation = Arc::new(Aggregation::new(registry.clone(), pki.front_proxy()));
        let writes = TaskTracker::new();
        let maintenance = Maintenance {
            registry: registry.clone(),
            encryption: Arc::clone(&encryption),
            source: config.snapshot_source(),
            writes: writes.clone(),
        };
        let servers = Arc::new(Servers {
            store: registry.store().clone(),
            peers: Arc::clone(&peers),
            encryption: Arc::clone(&encryption),
            pki_dir: config.data_dir.join("pki"),
            name: config.server_name(),
            addresses: own_addresses,
            service_cidr: config.service_cidr.to_string(),
            dns_domain: config.dns_domain.clone(),
            writes: writes.clone(),
            leaving: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        });
        let handlers: Vec<Arc<dyn Handler>> = vec![
            Arc::clone(&security) as _,
            Arc::clone(&proxies) as _,
            Arc::new(maintenance),
            Arc::new(Requests(Arc::clone(&servers))),
        ];
        let inner = Arc::new(Inner {
            address,
            etcd_address,
            aggregation,
            encryption,
            registry,
            authenticator,
            handlers,
            security,
            proxies,
            peers,
            servers,
            member,
            peers_end: CancellationToken::new(),
            sockets: Tasks::new(),
            writes,
            flow,
            audit,
            shutdown,
            progress: Progress(watch::Sender::new(Phase::Opened)),
            metrics,
            pages: RwLock::default(),
            pki,
            config,
        });
        let runner = Runner { inner: Arc::clone(&inner), driver, lines, member_due, listener, etcd, audit: writers };
        Ok((Self { inner }, runner))
    }

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

    /// Seals what an earlier version wrote plain, or what an interrupted rotation left.
    async fn seal_what_is_plain(&self, shutdown: &CancellationToken) {
        let Inner { encryption, registry, .. } = self.inner.as_ref();
        tokio::select! {
            () = shutdown.cancelled() => {}
            done = encryption.rewrite(registry.store()) => if let Err(error) = done {
                // What is plain is read on, and the next start tries again.
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "stored values could not be sealed with the key that is configured");
            },
        }
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

impl Runner {
    /// Serves until `shutdown` or until a part fails; then all parts have ended.
    ///
    /// # Errors
    /// The store failed, or the first objects could not be written.
    ///
    /// # Cancel safety
    /// Dropping the future stops the server at once.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { inner, driver, lines, member_due, listener, etcd, audit } = self;
        let dir = inner.config.data_dir.join("store");
        // The store outlives everything that writes to it.
        let (store_end, keys_end) = (CancellationToken::new(), CancellationToken::new());
        let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
        let (ends, peers_end) = (store_end.clone(), inner.peers_end.clone());
        parts.spawn(async move {
            let ended = driver.run(ends).await;
            // Its last words have been handed over, and whoever is to lead next has answered.
            peers_end.cancel();
            match ended {
                // Who follows the members has the word for it.
                Ok(()) | Err(coracle_store::Error::Removed) => Ok(()),
                Err(source) => Err(Error::Store { dir, source }),
            }
        });
        let tls = inner.pki.peer_tls(&inner.member).map_err(Error::Pki)?;
        let (peers, store, ends) = (Arc::clone(&inner.peers), inner.registry.store().clone(), inner.peers_end.clone());
        parts.spawn(async move {
            peers.run(lines, store, tls, ends).await;
            Ok(())
        });
        let (server, ends) = (Arc::clone(&inner), keys_end.clone());
        parts.spawn(async move {
            let cluster = server.registry.store().cluster();
            let profile = member_profile(server.registry.store().cluster_id(), cluster.own);
            let take = |identity: &pki::Identity| {
                if let Err(error) = server.member.set(identity) {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "what peers are shown cannot be exchanged");
                }
            };
            pki::keep_issued(Arc::clone(&server.pki), profile, member_due, jiff::Timestamp::now, take, ends).await;
            Ok(())
        });
        let (pki, ends) = (Arc::clone(&inner.pki), keys_end.clone());
        parts.spawn(async move {
            pki.run(jiff::Timestamp::now, ends).await;
            Ok(())
        });
        let audit_end = CancellationToken::new();
        if let Some(writers) = audit {
            let ends = audit_end.clone();
            parts.spawn(async move {
                writers.run(ends).await;
                Ok(())
            });
        }
        if let Some(file) = inner.config.authentication.file.clone() {
            let (server, ends) = (Arc::clone(&inner), inner.shutdown.clone());
            parts.spawn(async move {
                server.security.authenticators.follow(&file, &server.config.authentication, ends).await;
                Ok(())
            });
        }
        inner.progress.enter(Phase::Running);
        let door = Door {
            listener,
            tls: Arc::new(inner.pki.shared_tls(&inner.member).map_err(Error::Pki)?),
            places: inner.config.max_connections,
            shutdown: inner.shutdown.clone(),
            goodbye: GOODBYE,
        };
        let server = Arc::clone(&inner);
        parts.spawn(async move {
            door.open(move |guest| connections::serve(Arc::clone(&server), guest)).await;
            Ok(())
        });
        if let Some(listener) = etcd {
            let door = Door {
                listener,
                tls: Arc::new(inner.pki.mutual_tls().map_err(Error::Pki)?),
                places: etcd::CONNECTIONS,
                shutdown: inner.shutdown.clone(),
                goodbye: GOODBYE,
            };
            let url = inner.etcd_address.map(|address| format!("https://{address}")).unwrap_or_default();
            let (store, source) = (inner.registry.store(), inner.config.snapshot_source());
            let front =
                etcd::Front::new(store, inner.config.data_dir.join("store"), source, &inner.config.hostname, url);
            let front = Arc::new(front);
            parts.spawn(async move {
                door.open(move |guest| etcd::serve(Arc::clone(&front), guest)).await;
                Ok(())
            });
        }
        let (registry, closing) = (inner.registry.clone(), inner.shutdown.clone());
        let dir = inner.config.data_dir.join("store");
        parts.spawn(async move {
            let (webhooks, policies, mutating) = tokio::join!(
                registry.webhooks().run(closing.clone()),
                registry.policies().run(closing.clone()),
                registry.mutating_policies().run(closing),
            );
            webhooks.and(policies).and(mutating).map_err(|source| Error::Store { dir, source })
        });
        let (server, closing) = (Arc::clone(&inner), inner.shutdown.clone());
        let dir = inner.config.data_dir.join("store");
        parts.spawn(async move {
            let waiting = ApiServer { inner: Arc::clone(&server) };
            let keep = async {
                // There are no objects to keep before the first ones are made.
                waiting.ready().await;
                server.flow.keep(&server.registry, closing.clone()).await;
            };
            let (followed, ()) = tokio::join!(server.flow.follow(closing.clone()), keep);
            followed.map_err(|source| Error::Store { dir, source })
        });
        let signer = Signer {
            pki: Arc::clone(&inner.pki),
            registry: inner.registry.clone(),
            clock: Arc::clone(&inner.security.clock),
        };
        let secrets = TokenSecrets {
            registry: inner.registry.clone(),
            tokens: Arc::clone(&inner.security.tokens),
            pki: Arc::clone(&inner.pki),
        };
        let (waiting, ends) = (ApiServer { inner: Arc::clone(&inner) }, inner.shutdown.clone());
        parts.spawn(async move {
            // Who may do what is known only then.
            waiting.ready().await;
            let work = |own: CancellationToken| {
                let (signer, secrets) = (&signer, &secrets);
                async move {
                    tokio::join!(signer.run(own.clone()), secrets.run(own));
                    Ok(())
                }
            };
            waiting.while_leading(ends, work).await
        });
        let (server, ends) = (ApiServer { inner: Arc::clone(&inner) }, inner.shutdown.clone());
        parts.spawn(async move {
            let Inner { registry, peers, servers, config, .. } = server.inner.as_ref();
            let told = async {
                server.ready().await;
                let writer = bootstrap::self_writer();
                let keep = servers::endpoints::keep(registry, peers, &writer, ends.clone());
                tokio::join!(servers.keep_described(&ends), keep);
            };
            tokio::select! {
                () = servers.removed(&ends) => {
                    let removed = Error::Removed { dir: config.data_dir.clone() };
                    if servers.is_leaving() { Ok(()) } else { Err(removed) }
                }
                () = told => Ok(()),
            }
        });
        if inner.encryption.is_own() {
            let (server, ends) = (ApiServer { inner: Arc::clone(&inner) }, inner.shutdown.clone());
            parts.spawn(async move {
                server.ready().await;
                server.seal_what_is_plain(&ends).await;
                ends.cancelled().await;
                Ok(())
            });
        }
        let (aggregation, ends) = (Arc::clone(&inner.aggregation), inner.shutdown.clone());
        let dir = inner.config.data_dir.join("store");
        parts.spawn(async move { aggregation.run(ends).await.map_err(|source| Error::Store { dir, source }) });
        let first = Arc::clone(&inner);
        parts.spawn(async move {
            let store = first.registry.store().clone();
            if !first.servers.caught_up(&first.shutdown).await {
                return Ok(());
            }
            first.make_first_objects().await?;
            let rbac = Arc::new(Rbac::open(store.clone(), jiff::Timestamp::now()).await.map_err(Error::Rbac)?);
            first.registry.set_authorizer(Authorizer::new(store, Arc::clone(&rbac)));
            let definitions = Follower::open(first.registry.clone()).map_err(Error::Definitions)?;
            first.progress.enter(Phase::Ready);
            tracing::info!(address = %first.address, "serving");
            let (shutdown, own) = (first.shutdown.clone(), first.shutdown.child_token());
            let follow = async { definitions.run(own.clone()).await.map_err(Error::Definitions) };
            let rbac = async { rbac.run(shutdown.clone()).await.map_err(Error::Rbac) };
            let register =
                async { aggregation::register(&first.registry, shutdown.clone()).await.map_err(Error::Definitions) };
            let types = async {
                let dir = first.config.data_dir.join("store");
                type_checking::run(&first.registry, own.clone()).await.map_err(|source| Error::Store { dir, source })
            };
            tokio::try_join!(follow, rbac, register, types).map(drop)
        });
        let mut result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = parts.join_next() => ended.unwrap_or_else(|error| Err(Error::Panicked(error))),
        };
        inner.progress.enter(Phase::Stopping);
        inner.shutdown.cancel();
        inner.writes.close();
        // Writes end by themselves, but not if the store is gone already.
        let _ = tokio::time::timeout(GOODBYE, inner.writes.wait()).await;
        inner.security.nodes.stop().await;
        inner.proxies.stop().await;
        inner.sockets.stop().await;
        inner.security.authenticators.stop().await;
        audit_end.cancel();
        store_end.cancel();
        keys_end.cancel();
        while let Some(ended) = parts.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(Error::Panicked(error)));
            result = result.and(ended);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_says_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        let (server, Runner { inner, listener, .. }) = ApiServer::open(config).await.unwrap();
        let tls = Arc::new(inner.pki.server_tls().unwrap());
        let shutdown = CancellationToken::new();
        let goodbye = Duration::from_hours(10);
        let mut serving = JoinSet::new();
        let door = Door { listener, tls, places: 1, shutdown: shutdown.clone(), goodbye };
        serving.spawn(door.open(move |guest| connections::serve(Arc::clone(&inner), guest)));
        let silent = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        // The server is on this thread too and gets its turns to accept.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_mins(1), serving.join_next()).await;
        assert!(ended.is_ok(), "still waiting for a client that never began");
        drop(silent);
    }

    #[tokio::test]
    async fn a_port_that_is_just_being_given_up_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = holder.local_addr().unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(bind(address));
        tokio::task::yield_now().await;
        drop(holder);
        let bound = waiting.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(bound.local_addr().unwrap(), address);
    }
}
