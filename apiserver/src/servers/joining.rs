//! A server that joins a cluster: from a token to a data directory of a member.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use coracle_process::{ContactError, FirstContact, first_contact};
use coracle_proto::join_token::JoinToken;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use super::{
    Admitted, ENCRYPTION, JoinRequest, PATH,
    place::{self, Place},
};
use crate::{
    config::Config,
    pki::{self, WitnessKeys},
};

/// How long the other server may take: a change of the members may be under way.
const LIMIT: Duration = Duration::from_secs(40);

/// What joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A server.
    Server,
    /// A witness.
    Witness,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Witness => "witness",
        })
    }
}

/// Which cluster to join, and by what right.
#[derive(Clone, Debug)]
pub struct Join {
    /// One of its servers, `https://host:port`.
    pub server: String,
    /// A token made for what joins.
    pub token: JoinToken,
    /// The node that is to run beside the server, if one is.
    pub node: Option<String>,
}

/// Why a server cannot join, or come back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other server cannot be reached, or is not the one the token was made for.
    #[error("joining {server}")]
    Contact {
        /// The other server.
        server: String,
        /// Why not.
        #[source]
        source: ContactError,
    },
    /// The token is worth nothing.
    #[error(
        "joining {server}: the token is not valid: wrong, expired, revoked, or used already (a token is good for one \
         {kind}); on a server of the cluster, `coracle token create --{kind}` makes one"
    )]
    Token {
        /// The other server.
        server: String,
        /// What joins.
        kind: String,
    },
    /// The token is good for something else.
    #[error(
        "joining {server}: the token is not one for a {kind} ({why}); on a server of the cluster, \
         `coracle token create --{kind}` makes one"
    )]
    OtherToken {
        /// The other server.
        server: String,
        /// What joins.
        kind: String,
        /// Its words.
        why: String,
    },
    /// The other server's answer cannot be understood.
    #[error("joining {server}: its answer cannot be understood: {why}")]
    Answer {
        /// The other server.
        server: String,
        /// Why not.
        why: String,
    },
    /// The data directory is not one of this kind.
    #[error("{}: holds no {kind}: a witness and a server each keep a data directory of their own", dir.display())]
    OtherKind {
        /// The data directory.
        dir: PathBuf,
        /// What was to start.
        kind: String,
    },
    /// There is no cluster to be a witness of.
    #[error("{}: holds no witness yet: its first start needs --join and --token (coracle token create --witness)", dir.display())]
    NoCluster {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory is another cluster's.
    #[error("{}: holds a server of another cluster than the one the token is for: to join that, use an empty directory", dir.display())]
    OtherCluster {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory has keys of a cluster, but no store.
    #[error("{}: holds the keys of a cluster, but no store: to join a cluster, use an empty directory", dir.display())]
    Occupied {
        /// The data directory.
        dir: PathBuf,
    },
    /// The store of a server that joined is gone.
    #[error(
        "{}: this server's store is gone, and what it had promised the others with it: remove the directory, remove the \
         server from the cluster (coracle server remove), and join anew", dir.display()
    )]
    StoreGone {
        /// The data directory.
        dir: PathBuf,
    },
    /// Nobody else has the store open, but something cannot be read or written there.
    #[error("{}: what this server remembers of having joined", dir.display())]
    File {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The cluster's keys could not be kept.
    #[error("keys of the cluster")]
    Keys(#[source] pki::Error),
}

fn is_of(config: &Config, token: &JoinToken) -> bool {
    let kept = std::fs::read(config.data_dir.join("pki/ca.crt"));
    let kept = kept.ok().and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    kept.is_some_and(|der| Sha256::digest(&der).as_slice() == token.authority())
}

/// Brings the data directory to where a store can be opened in it: joins, if that was asked for and was not done before.
///
/// # Errors
/// [`Error`]; nothing was changed here but in the case of [`Error::Keys`].
pub(crate) async fn prepare(config: &Config, address: SocketAddr, kind: Kind) -> Result<Option<Place>, Error> {
    let dir = config.data_dir.clone();
    let kept = Place::load(&dir).map_err(|source| Error::File { dir: dir.clone(), source })?;
    let has_store = dir.join("store/identity").exists();
    let is_witness = kept.as_ref().is_some_and(|kept| kept.witness);
    if (kept.is_some() || has_store) && is_witness != (kind == Kind::Witness) {
        return Err(Error::OtherKind { dir, kind: kind.to_string() });
    }
    match (&kept, has_store) {
        (Some(kept), false) if kept.opened => return Err(Error::StoreGone { dir }),
        _ => {}
    }
    let Some(join) = &config.join else {
        let lacks = kind == Kind::Witness && kept.is_none();
        return if lacks { Err(Error::NoCluster { dir }) } else { Ok(kept) };
    };
    if kept.is_some() || has_store {
        // The flags of a service stay what they were when it was started first.
        return if is_of(config, &join.token) {
            tracing::info!("this server has joined already");
            Ok(kept)
        } else {
            Err(Error::OtherCluster { dir })
        };
    }
    if dir.join("pki/ca.crt").exists() {
        return Err(Error::Occupied { dir });
    }
    let joined = ask(config, join, address, kind).await?;
    Ok(Some(joined))
}

async fn ask(config: &Config, join: &Join, address: SocketAddr, kind: Kind) -> Result<Place, Error> {
    let keys = match kind {
        Kind::Server => None,
        Kind::Witness => Some(WitnessKeys::request().map_err(Error::Keys)?),
    };
    let server = join.server.clone();
    let failed = |source| Error::Contact { server: server.clone(), source };
    let (host, port) = first_contact::host_and_port(&join.server).map_err(failed)?;
    let reached_at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let contact = FirstContact {
        server: &join.server,
        authority: *join.token.authority(),
        bearer: &join.token.token().bearer(),
        limit: LIMIT,
    };
    let mut addresses = place::told(config, address);
    let answered = first_contact::post(contact, PATH, |own| {
        if addresses.is_empty() {
            addresses.extend(own.map(|ip| SocketAddr::new(ip, address.port()).to_string()));
        }
        let request = JoinRequest {
            name: config.server_name(),
            addresses: addresses.clone(),
            reached_at,
            service_cidr: config.service_cidr.to_string(),
            dns_domain: config.dns_domain.clone(),
            has_encryption_config: config.encryption.is_some(),
            certificate_request: keys.as_ref().map(|(_, request)| request.clone()),
            node: join.node.clone(),
        };
        // It has nothing in it that JSON cannot say.
        serde_json::to_string(&request).unwrap_or_default()
    });
    let answered = answered.await.map_err(|error| match error {
        ContactError::Refused { code: 401, .. } => Error::Token { server: join.server.clone(), kind: kind.to_string() },
        ContactError::Refused { code: 403, message } => {
            Error::OtherToken { server: join.server.clone(), kind: kind.to_string(), why: message }
        }
        error => failed(error),
    })?;
    let admitted: Admitted = serde_json::from_slice(&answered.body)
        .map_err(|error| Error::Answer { server: join.server.clone(), why: error.to_string() })?;
    let place = Place {
        cluster: admitted.cluster,
        founder: admitted.founder,
        own: admitted.own,
        addresses,
        members: admitted.members,
        opened: false,
        witness: kind == Kind::Witness,
    };
    if place.joining().is_none() {
        return Err(Error::Answer { server: join.server.clone(), why: "no cluster's id".to_owned() });
    }
    let more: &[&str] = if config.encryption.is_none() { &[ENCRYPTION] } else { &[] };
    let (dir, kept) = (config.data_dir.clone(), place.clone());
    let done = tokio::task::spawn_blocking(move || {
        // Cut off in between, the next start finds keys without a store, and says so.
        let keys_dir = dir.join("pki");
        match (keys, admitted.certificate) {
            (None, _) => pki::take_shared_files(&keys_dir, &admitted.files, more)?,
            (Some((key, _)), Some(certificate)) => {
                let authority = admitted.files.iter().find(|(name, _)| name == pki::AUTHORITY);
                let authority = authority.map(|(_, pem)| pem.as_str()).unwrap_or_default();
                WitnessKeys::keep(&keys_dir, authority, &key, &certificate)?;
            }
            (Some(_), None) => {
                return Err(pki::Error::Malformed("the other server knows of no witnesses".to_owned()));
            }
        }
        kept.save(&dir)
    });
    done.await.unwrap_or_else(|error| Err(pki::Error::Malformed(error.to_string()))).map_err(Error::Keys)?;
    tracing::info!(server = join.server, member = format!("{:x}", place.own), "admitted to the cluster");
    Ok(place)
}
