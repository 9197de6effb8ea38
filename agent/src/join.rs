//! Joining a cluster: from a token to the node's certificates, by `POST /coracle/v1/join`; and new certificates for those
//! it has, by the same request.
//!
//! First contact trusts nothing but the token: the last certificate the server shows must have the hash the token
//! carries, and the server's own certificate must hang on it. Only then is the secret sent. Both private keys are made
//! here and never leave the machine.

use std::net::IpAddr;
use std::time::Duration;

use coracle_process::{ContactError, FirstContact, first_contact};
use coracle_proto::join_token::JoinToken;
use http::{Request, Uri, header};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Serving;

/// How long the server may take for all of it.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The server's address is not of the form `https://host:port`.
    #[error("server {url:?} must be an address such as https://192.0.2.1:6443")]
    Address {
        /// What was given.
        url: String,
    },
    /// A key or signing request cannot be made.
    #[error("make a certificate request")]
    Request(#[from] rcgen::Error),
    /// The server cannot be reached, is not the one the token was made for, or refused.
    #[error(transparent)]
    Contact(#[from] ContactError),
    /// The server's answer cannot be understood.
    #[error("understand the server's answer")]
    Answer(#[source] serde_json::Error),
    /// New certificates were not to be had.
    #[error("ask for new certificates")]
    Renew(#[source] kube::Error),
    /// The server did not answer in time.
    #[error("the server did not answer within {LIMIT:?}")]
    Timeout,
    /// A client cannot be made of what the server answered.
    #[error("use the certificates the server gave")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who wants to join, and where.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// `https://host:port`.
    pub(crate) server: String,
    /// The join token.
    pub(crate) token: JoinToken,
    /// The node's name.
    pub(crate) node: String,
    /// The addresses the node's server is reached at.
    pub(crate) addresses: Vec<IpAddr>,
    /// The key (PEM) the cluster knows the node by, if it was a member before: with it the name is not refused.
    pub(crate) key: Option<String>,
}

/// A node's certificates and keys, all in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credentials {
    /// The cluster's authority.
    pub(crate) authority: String,
    /// The certificate the node shows the API server (`system:node:<name>`).
    pub(crate) client_certificate: String,
    /// Its key.
    pub(crate) client_key: String,
    /// The certificate of the node's own server.
    pub(crate) server_certificate: String,
    /// Its key.
    pub(crate) server_key: String,
    /// When to ask for new ones.
    pub(crate) renew_after: Timestamp,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("renew_after", &self.renew_after).finish_non_exhaustive()
    }
}

/// Two keys that are to be certified.
struct Keys {
    client: KeyPair,
    server: KeyPair,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authority: String,
    client_certificate: String,
    server_certificate: String,
    renew_after: Timestamp,
}

impl Keys {
    /// New ones, but for the client's if one is given.
    fn new(client: Option<&str>) -> Result<Self, rcgen::Error> {
        let client = client.map_or_else(KeyPair::generate, KeyPair::from_pem)?;
        Ok(Self { client, server: KeyPair::generate()? })
    }

    /// The body of the request.
    fn request(&self, node: &str, addresses: &[IpAddr]) -> Result<String, rcgen::Error> {
        let names = std::iter::once(node.to_owned()).chain(addresses.iter().map(ToString::to_string));
        let body = serde_json::json!({
            "node": node,
            "clientRequest": CertificateParams::new(Vec::new())?.serialize_request(&self.client)?.pem()?,
            "serverRequest":
                CertificateParams::new(names.collect::<Vec<_>>())?.serialize_request(&self.server)?.pem()?,
        });
        Ok(body.to_string())
    }

    fn certified(&self, answer: Answer) -> Credentials {
        Credentials {
            authority: answer.authority,
            client_certificate: answer.client_certificate,
            client_key: self.client.serialize_pem(),
            server_certificate: answer.server_certificate,
            server_key: self.server.serialize_pem(),
            renew_after: answer.renew_after,
        }
    }
}

impl Credentials {
    /// What the node's own server needs.
    pub(crate) fn serving(&self) -> Serving {
        Serving {
            certificate: self.server_certificate.clone(),
            key: self.server_key.clone(),
            client_ca: self.authority.clone(),
        }
    }

    /// When they end; `None` when what is there is no certificate.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        let end = |pem: &str| coracle_process::not_after(pem.as_bytes());
        Some(end(&self.client_certificate)?.min(end(&self.server_certificate)?))
    }

    /// Whether their authority is the one a token names.
    pub(crate) fn is_of(&self, token: &JoinToken) -> bool {
        CertificateDer::from_pem_slice(self.authority.as_bytes())
            .is_ok_and(|der| Sha256::digest(&der).as_slice() == token.authority())
    }

    /// A client of the API server with the node's identity.
    ///
    /// # Errors
    /// [`JoinError::Address`] and [`JoinError::Client`].
    pub(crate) fn client(&self, server: &str) -> Result<kube::Client, JoinError> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| JoinError::Client(e);
        let address = |_| JoinError::Address { url: server.to_owned() };
        let mut config = kube::Config::new(server.parse::<Uri>().map_err(address)?);
        let roots: Result<Vec<Vec<u8>>, _> =
            CertificateDer::pem_slice_iter(self.authority.as_bytes()).map(|c| c.map(|c| c.to_vec())).collect();
        config.root_cert = Some(roots.map_err(|e| wrong(e.to_string().into()))?);
        let base64 = |pem: &str| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        config.auth_info.client_certificate_data = Some(base64(&self.client_certificate));
        config.auth_info.client_key_data = Some(base64(&self.client_key).into());
        kube::Client::try_from(config).map_err(|e| wrong(e.into()))
    }
}

/// Joins the node.
///
/// # Errors
/// [`JoinError`]; nothing was changed here, and it may be tried again with the same token.
pub(crate) async fn join(request: &JoinRequest) -> Result<Credentials, JoinError> {
    let keys = Keys::new(request.key.as_deref())?;
    let body = keys.request(&request.node, &request.addresses)?;
    Ok(keys.certified(post(request, body).await?))
}

/// New keys and certificates for a node that has some, asked for with those it has.
///
/// # Errors
/// [`JoinError`]; what the node has is still good.
pub(crate) async fn renew(client: &kube::Client, node: &str, addresses: &[IpAddr]) -> Result<Credentials, JoinError> {
    let keys = Keys::new(None)?;
    let body = keys.request(node, addresses)?.into_bytes();
    let request = Request::post("/coracle/v1/join").header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| JoinError::Renew(kube::Error::HttpError(error)))?;
    let answer = tokio::time::timeout(LIMIT, client.request::<Answer>(request));
    Ok(keys.certified(answer.await.map_err(|_| JoinError::Timeout)?.map_err(JoinError::Renew)?))
}

async fn post(join: &JoinRequest, body: String) -> Result<Answer, JoinError> {
    let contact = FirstContact {
        server: &join.server,
        authority: *join.token.authority(),
        bearer: &join.token.token().bearer(),
        limit: LIMIT,
    };
    let answered = first_contact::post(contact, "/coracle/v1/join", |_| body).await?;
    serde_json::from_slice(&answered.body).map_err(JoinError::Answer)
}
