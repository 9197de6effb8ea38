//! A witness: a member of the store that votes, and keeps nothing of what is stored. It serves nobody but the other members.
//!
//! ```text
//!   coracle server ◀══TLS, ALPN coracle-peer/1══▶ coracle witness ──▶ <data-dir>/store: terms and indices of the log
//! ```
//!
//! Two servers are no safer than one, for both make the majority. With a witness beside them any one of the three may be
//! lost. It is handed none of the cluster's keys, so it may stand where nobody watches over it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use coracle_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    connections::{Door, Guest},
    peers::Peers,
    pki::{PEERS, WitnessKeys},
    server::{Error, GOODBYE, bind},
    servers::{self, Join, Kind, Place},
};

/// Connections at once: some for each member there may be.
const CONNECTIONS: usize = 64;

/// Flags of a witness.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where everything is kept.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
    /// Address and port to hear the servers on; port 0 takes a free one.
    #[arg(long, env = "CORACLE_LISTEN", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Address the servers reach this witness at.
    #[arg(long, env = "CORACLE_ADVERTISE")]
    pub advertise: Option<IpAddr>,
    /// What people call this witness among the servers; by default the host's name.
    #[arg(long, env = "CORACLE_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
}

impl Args {
    /// The configuration these words mean, on a host of that name.
    #[must_use]
    pub fn config(self, hostname: String, join: Option<Join>) -> Config {
        Config {
            advertise: self.advertise,
            server_name: self.server_name,
            hostname,
            join,
            ..Config::new(self.data_dir, self.listen)
        }
    }
}

/// A witness that has its place; see [`Witness::run`].
#[must_use = "a witness votes only while it runs"]
pub struct Witness {
    config: Config,
    address: SocketAddr,
    addresses: Vec<String>,
    door: Door,
    keys: WitnessKeys,
    store: Store,
    driver: coracle_store::Driver,
    peers: Arc<Peers>,
    lines: crate::peers::Lines,
}

impl Witness {
    /// Opens store and socket; joins, if that was not done before.
    ///
    /// # Errors
    /// Each of them can refuse.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let listening = |source| Error::Listen { address: config.listen, source };
        let listener = bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let dir = config.data_dir.join("store");
        if let Some(pid) = coracle_store::holder(&dir) {
            return Err(Error::Store { dir: dir.clone(), source: coracle_store::Error::Locked { dir, pid } });
        }
        let place = servers::prepare(&config, address, Kind::Witness).await?;
        let pki = config.data_dir.join("pki");
        let keys = tokio::task::spawn_blocking(move || WitnessKeys::open(&pki)).await;
        let keys = keys.map_err(Error::Panicked)?.map_err(Error::Pki)?;
        let (peers, lines) = Peers::new();
        let joining = place.as_ref().and_then(Place::joining);
        let store = coracle_store::Config { joining, ..coracle_store::Config::new(&dir) };
        let (store, driver) =
            Store::open_among(store, Arc::clone(&peers) as _).await.map_err(|source| Error::Store { dir, source })?;
        let addresses = servers::own_addresses(&config, address, place.as_ref());
        peers.is_at(addresses.clone());
        if let Some(mut place) = place {
            peers.are_at(place.others());
            place.opened(&config.data_dir).map_err(Error::Pki)?;
        }
        let door = Door {
            listener,
            tls: Arc::new(keys.server_tls().map_err(Error::Pki)?),
            places: CONNECTIONS,
            shutdown: CancellationToken::new(),
            goodbye: GOODBYE,
        };
        Ok(Self { config, address, addresses, door, keys, store, driver, peers, lines })
    }

    /// The address listened on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Votes until `shutdown`, or until it is removed from the cluster or a part fails; then all parts have ended.
    ///
    /// # Errors
    /// [`Error::Removed`]; the store failed.
    ///
    /// # Cancel safety
    /// Dropping the future stops the witness at once.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { config, addresses, door, keys, store, driver, peers, lines, .. } = self;
        let dir = config.data_dir.join("store");
        let (door_end, peers_end, store_end) =
            (door.shutdown.clone(), CancellationToken::new(), CancellationToken::new());
        let tls = keys.peer_tls().map_err(Error::Pki)?;
        let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
        let (ends, last) = (store_end.clone(), peers_end.clone());
        parts.spawn(async move {
            let ended = driver.run(ends).await;
            last.cancel();
            match ended {
                // Who follows the members has the word for it.
                Ok(()) | Err(coracle_store::Error::Removed) => Ok(()),
                Err(source) => Err(Error::Store { dir, source }),
            }
        });
        let (carrier, kept, ends) = (Arc::clone(&peers), store.clone(), peers_end.clone());
        parts.spawn(async move {
            carrier.run(lines, kept, tls, ends).await;
            Ok(())
        });
        let (kept, ends) = (store.clone(), peers_end.clone());
        parts.spawn(async move {
            let verifier = keys.verifier().clone();
            let hear = move |guest: Guest| {
                let (peers, store, verifier, ends) = (Arc::clone(&peers), kept.clone(), verifier.clone(), ends.clone());
                async move {
                    if guest.protocol.as_deref() == Some(PEERS) {
                        peers.hear(guest.stream, &guest.certificates, &verifier, &store, &ends).await;
                    }
                }
            };
            door.open(hear).await;
            Ok(())
        });
        let ends = shutdown.child_token();
        parts.spawn(async move {
            let name = config.server_name();
            tokio::select! {
                () = servers::removed(&store, &ends) => Err(Error::Removed { dir: config.data_dir }),
                () = servers::keep_described(&store, &name, &addresses, &ends) => Ok(()),
            }
        });
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = parts.join_next() => ended,
        };
        // What is kept outlives who is heard.
        store_end.cancel();
        door_end.cancel();
        shutdown.cancel();
        let mut result = ended.map_or(Ok(()), |ended| ended.unwrap_or_else(|error| Err(Error::Panicked(error))));
        while let Some(ended) = parts.join_next().await {
            result = result.and(ended.unwrap_or_else(|error| Err(Error::Panicked(error))));
        }
        result
    }
}
