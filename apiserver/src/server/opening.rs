//! Opening a server: its socket, store, keys and all that requests share. Nothing is served yet.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, RwLock, atomic::AtomicBool},
    time::Duration,
};

use coracle_store::Seal;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ApiServer, Error, Handler, Inner, Phase, Progress, Runner};
use crate::{
    aggregation::Aggregation,
    audit::Audit,
    authn::{Authenticators, Clock, Tokens},
    config::Config,
    encryption::Encryption,
    flow::FlowControl,
    maintenance::Maintenance,
    metrics::Metrics,
    peers::{Givers, member_profile},
    pki::{self, Pki, Shown},
    proxy::Proxies,
    registry::{Facts, Registry},
    resource_metrics::ResourceMetrics,
    security::{Nodes, Security},
    servers::{Arrived, Kind, Member, Requests, Servers},
    snapshot,
    upstream::connect::Tasks,
};

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
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
        let etcd = match config.etcd_listen {
            Some(address) => Some(bind(address).await.map_err(|source| Error::Listen { address, source })?),
            None => None,
        };
        let etcd_address = etcd.as_ref().and_then(|listener| listener.local_addr().ok());
        let arrived = Arrived::at(&config, Kind::Server).await?;
        let address = arrived.address;
        let keys = pki_config(&config, address);
        let opened = tokio::task::spawn_blocking(move || Pki::open(keys, jiff::Timestamp::now())).await;
        let pki = Arc::new(opened.map_err(Error::Panicked)?.map_err(Error::Pki)?);
        let (listener, member) = arrived.open(&config).await?;
        let Member { store, driver, peers, lines, addresses } = member;
        let shown =
            pki.issue(&member_profile(store.cluster_id(), store.cluster().own, Kind::Server), jiff::Timestamp::now());
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
        let resource_metrics = ResourceMetrics::new(registry.clone(), Arc::clone(&security));
        let aggregation = Arc::new(Aggregation::new(registry.clone(), pki.front_proxy()));
        let writes = TaskTracker::new();
        let maintenance = Maintenance {
            registry: registry.clone(),
            encryption: Arc::clone(&encryption),
            givers: Givers {
                peers: Arc::clone(&peers),
                store: registry.store().clone(),
                tls: Arc::new(pki.keys_tls(&member).map_err(Error::Pki)?),
            },
            source: config.snapshot_source(),
            writes: writes.clone(),
        };
        let servers = Arc::new(Servers {
            store: registry.store().clone(),
            registry: registry.clone(),
            peers: Arc::clone(&peers),
            encryption: Arc::clone(&encryption),
            pki: Arc::clone(&pki),
            pki_dir: config.data_dir.join("pki"),
            name: config.server_name(),
            addresses,
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
            resource_metrics,
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
