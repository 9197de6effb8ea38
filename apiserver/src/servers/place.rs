//! Where this server is found, and that it belongs to a cluster it joined: a file beside the store.
//!
//! The file outlives the store's directory on purpose. A server that joined and finds its store gone must not begin another
//! cluster under the same name and keys: it is to join anew, as another member.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use coracle_store::{Joining, MemberId};
use serde::{Deserialize, Serialize};

use super::Known;
use crate::{config::Config, pki};

/// What a server that joined remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    /// The cluster's id, hexadecimal.
    pub(super) cluster: String,
    pub(super) founder: u64,
    pub(super) own: u64,
    /// Where it is found.
    pub(crate) addresses: Vec<String>,
    /// Where the others were found when it joined.
    pub(super) members: Vec<Known>,
    /// Its store is there.
    pub(super) opened: bool,
    /// It is a witness.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) witness: bool,
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("member.json")
}

impl Place {
    /// What is remembered in a data directory, if anything is.
    ///
    /// # Errors
    /// The file cannot be read, or is none of this kind.
    pub(super) fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(file(data_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, data_dir: &Path) -> Result<(), pki::Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| pki::Error::Malformed(error.to_string()))?;
        pki::write_secret(&file(data_dir), &text)
    }

    /// The store has been made: from here on it is missed if it is gone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn opened(&mut self, data_dir: &Path) -> Result<(), pki::Error> {
        if self.opened {
            return Ok(());
        }
        self.opened = true;
        self.save(data_dir)
    }

    /// Whose member an empty directory becomes.
    pub(crate) fn joining(&self) -> Option<Joining> {
        let cluster = hex::decode(&self.cluster).ok()?.try_into().ok()?;
        Some(Joining { cluster, founder: MemberId(self.founder), own: MemberId(self.own), witness: self.witness })
    }

    /// Where the others were found.
    pub(crate) fn others(&self) -> impl Iterator<Item = (MemberId, Vec<String>)> {
        self.members.iter().map(|known| (MemberId(known.id), known.addresses.clone()))
    }
}

/// Where others reach this server, as far as it was told: at the address to be advertised, or the one listened on.
pub(crate) fn told(config: &Config, address: SocketAddr) -> Vec<String> {
    let listened = Some(address.ip()).filter(|ip| !ip.is_unspecified());
    let ip = config.advertise.or(listened);
    ip.map(|ip| SocketAddr::new(ip, address.port()).to_string()).into_iter().collect()
}

/// Where others reach this server, as far as it is known: as it was told, or as it found out when it joined, but for the
/// port, which may be another one now.
pub(crate) fn own_addresses(config: &Config, address: SocketAddr, place: Option<&Place>) -> Vec<String> {
    let told = told(config, address);
    if !told.is_empty() {
        return told;
    }
    let found = place.into_iter().flat_map(|place| &place.addresses).filter_map(|known| known.parse().ok());
    found.map(|known: SocketAddr| SocketAddr::new(known.ip(), address.port()).to_string()).collect()
}
