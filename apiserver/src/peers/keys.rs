//! The keys that values are sealed with, from one server to another: a connection of its own, one question and its answer.
//!
//! ```text
//!   who exchanges the keys ══TLS, ALPN coracle-keys/1══▶ the configuration from now on
//!                          ◀═══════════════════════════ that it is kept, or why not
//! ```
//!
//! Both ends show the certificates that members show; a witness, which has none of these keys, is not heard.

use std::{sync::Arc, time::Duration};

use coracle_store::{MemberId, Store};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{CONNECT, Peers, frame, hearing, identity};
use crate::{
    encryption::{Encryption, Others},
    pki::ClientVerifier,
    servers::Kind,
};

/// The longest configuration: some kinds, each with some keys.
const LONGEST: usize = 256 << 10;

/// How long a server may take to look whether the keys open all it has, and to keep them.
const ANSWER: Duration = Duration::from_secs(10);

/// What is to be kept, as the file has it.
#[derive(Serialize, Deserialize)]
struct Offer {
    configuration: String,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
struct Reply {
    /// Why it was not kept.
    refused: Option<String>,
}

/// The way to the other servers.
#[derive(Clone, Debug)]
pub(crate) struct Givers {
    pub(crate) peers: Arc<Peers>,
    pub(crate) store: Store,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl Others for Givers {
    async fn give(&self, server: MemberId, configuration: &str) -> Result<(), String> {
        let mut last = "nobody has said where it is".to_owned();
        for address in self.peers.addresses_of(&self.store, server) {
            let stream = match timeout(CONNECT, self.connect(server, &address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(why)) => {
                    last = format!("{address}: {why}");
                    continue;
                }
                Err(_) => {
                    last = format!("{address}: no answer within {CONNECT:?}");
                    continue;
                }
            };
            let offer = Offer { configuration: configuration.to_owned() };
            return match timeout(ANSWER, ask(stream, &offer)).await {
                Ok(Ok(Reply { refused: None })) => Ok(()),
                Ok(Ok(Reply { refused: Some(why) })) => Err(why),
                Ok(Err(error)) => Err(format!("{address}: {error}")),
                Err(_) => Err(format!("{address}: no answer within {ANSWER:?}")),
            };
        }
        Err(last)
    }
}

impl Givers {
    async fn connect(
        &self,
        server: MemberId,
        address: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = identity::server_name(self.store.cluster_id(), server)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await.map_err(|error| error.to_string())
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, offer: &Offer) -> std::io::Result<Reply> {
    frame::write(&mut stream, &serde_json::to_vec(offer)?).await?;
    stream.flush().await?;
    frame::read_json(&mut stream, LONGEST).await
}

/// Takes over what another server gives, and says that it is kept.
pub(crate) async fn take<S>(
    mut stream: S,
    certificates: &[CertificateDer<'_>],
    verifier: &ClientVerifier,
    store: &Store,
    encryption: &Arc<Encryption>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let member = match identity::member_of(certificates, verifier, store.cluster_id(), jiff::Timestamp::now()) {
        Ok((member, Kind::Server)) => member,
        Ok((_, Kind::Witness)) => return hearing::strange("a witness has no keys to give"),
        Err(why) => return hearing::strange(&why),
    };
    if store.cluster().members.iter().all(|known| known.id != member) {
        return hearing::strange("a server that was removed has no keys to give");
    }
    let said = async {
        let offer: Offer = timeout(CONNECT, frame::read_json(&mut stream, LONGEST)).await??;
        let kept = encryption.take(&offer.configuration, store).await;
        let reply = Reply { refused: kept.err().map(|error| error.to_string()) };
        frame::write(&mut stream, &serde_json::to_vec(&reply)?).await?;
        stream.shutdown().await
    };
    if let Err(error) = said.await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(peer = member.to_string(), error, "a server that gives keys was not heard to its end");
    }
}
