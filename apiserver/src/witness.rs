//! A witness: a member of the store that votes, and keeps nothing of what is stored. It serves nobody but the other members.
//!
//! ```text
//!   coracle server ◀══TLS, ALPN coracle-peer/1══▶ coracle witness ──▶ <data-dir>/store: terms and indices of the log
//! ```
//!
//! Two servers are no safer than one, for both make the majority. With a witness beside them any one of the three may be
//! lost. It is handed none of the cluster's keys, so it may stand where nobody watches over it.

use std::{net::SocketAddr, sync::Arc};

use coracle_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    connections::{Door, Guest},
    peers::Peers,
    pki::{PEERS, WitnessKeys},
    server::{Error, GOODBYE},
    servers::{self, Arrived, Kind, Member},
};

/// Connections at once: some for each member there may be.
const CONNECTIONS: usize = 64;

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
        let arrived = Arrived::at(&config, Kind::Witness).await?;
        let address = arrived.address;
        let pki = config.data_dir.join("pki");
        let keys = tokio::task::spawn_blocking(move || WitnessKeys::open(&pki)).await;
        let keys = keys.map_err(Error::Panicked)?.map_err(Error::Pki)?;
        let (listener, member) = arrived.open(&config).await?;
        let Member { store, driver, peers, lines, addresses } = member;
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
