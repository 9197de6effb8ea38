//! What a server and a witness open alike: a socket, and a member's part of the store.

use std::{net::SocketAddr, sync::Arc};

use coracle_store::{Driver, Store};
use tokio::net::TcpListener;

use super::{
    joining::{Kind, prepare},
    place::{Place, own_addresses},
};
use crate::{
    config::Config,
    peers::{Lines, Peers},
    server::{Error, bind},
};

/// A socket, and a data directory in which a store can be opened.
pub(crate) struct Arrived {
    pub(crate) listener: TcpListener,
    /// The address listened on.
    pub(crate) address: SocketAddr,
    place: Option<Place>,
}

/// A member's store, and the lines to the others.
pub(crate) struct Member {
    pub(crate) store: Store,
    pub(crate) driver: Driver,
    pub(crate) peers: Arc<Peers>,
    pub(crate) lines: Lines,
    /// Where others reach this one.
    pub(crate) addresses: Vec<String>,
}

impl Arrived {
    /// Listens, and joins the cluster if that was asked for and was not done before.
    ///
    /// # Errors
    /// The address is taken, the data directory is in use, the others refuse.
    pub(crate) async fn at(config: &Config, kind: Kind) -> Result<Self, Error> {
        let listening = |source| Error::Listen { address: config.listen, source };
        let listener = bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let dir = config.data_dir.join("store");
        if let Some(pid) = coracle_store::holder(&dir) {
            // Before anything is written beside it for this member's names and addresses.
            return Err(Error::Store { dir: dir.clone(), source: coracle_store::Error::Locked { dir, pid } });
        }
        let place = prepare(config, address, kind).await?;
        Ok(Self { listener, address, place })
    }

    /// Opens the store as a member among the others that are known.
    ///
    /// # Errors
    /// The store cannot be opened, or what was learned of the others not be kept.
    pub(crate) async fn open(self, config: &Config) -> Result<(TcpListener, Member), Error> {
        let Self { listener, address, place } = self;
        let dir = config.data_dir.join("store");
        let (peers, lines) = Peers::new();
        let joining = place.as_ref().and_then(Place::joining);
        let store = coracle_store::Config { retention: config.history, joining, ..coracle_store::Config::new(&dir) };
        let (store, driver) =
            Store::open_among(store, Arc::clone(&peers) as _).await.map_err(|source| Error::Store { dir, source })?;
        let addresses = own_addresses(config, address, place.as_ref());
        peers.is_at(addresses.clone());
        if let Some(mut place) = place {
            peers.are_at(place.others());
            place.opened(&config.data_dir).map_err(Error::Pki)?;
        }
        Ok((listener, Member { store, driver, peers, lines, addresses }))
    }
}
