//! Running an opened server: its parts, the order they begin in and the order they end in.

use std::{sync::Arc, time::Duration};

use coracle_store::Driver;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{ApiServer, Error, Inner, Phase};
use crate::{
    admission::policy::type_checking,
    aggregation, audit,
    authz::{Authorizer, Rbac},
    bootstrap,
    connections::{self, Door},
    custom::Follower,
    etcd,
    peers::{Lines, member_profile},
    pki,
    security::{Signer, TokenSecrets},
    servers::{self, Kind},
};

/// How long connections may take to end when the server stops.
pub(crate) const GOODBYE: Duration = Duration::from_secs(5);

/// So often the first objects are tried, and so long after one another.
const FIRST_OBJECTS: u32 = 5;
const FIRST_OBJECTS_PAUSE: Duration = Duration::from_millis(500);

/// What makes an opened server work; see [`Runner::run`].
#[must_use = "a server works only while it runs"]
pub struct Runner {
    pub(super) inner: Arc<Inner>,
    pub(super) driver: Driver,
    pub(super) lines: Lines,
    /// When the certificate that is shown to peers is to be exchanged first.
    pub(super) member_due: jiff::Timestamp,
    pub(super) listener: TcpListener,
    pub(super) etcd: Option<TcpListener>,
    pub(super) audit: Option<audit::Writers>,
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
        // The store outlives everything that writes to it; so do the keys and the audit.
        let (store_end, keys_end, audit_end) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let mut parts = Parts::new();
        inner.begin_store(&mut parts, driver, lines, &store_end)?;
        inner.begin_keys(&mut parts, member_due, &keys_end);
        if let Some(writers) = audit {
            let ends = audit_end.clone();
            parts.spawn(async move {
                writers.run(ends).await;
                Ok(())
            });
        }
        inner.progress.enter(Phase::Running);
        inner.open_doors(&mut parts, listener, etcd)?;
        inner.begin_followers(&mut parts);
        inner.begin_own_work(&mut parts);
        inner.begin_objects(&mut parts);
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
        inner.resource_metrics.stop().await;
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

/// What runs until its token ends it, or fails and ends the server.
type Parts = JoinSet<Result<(), Error>>;

impl Inner {
    /// An error of the store.
    fn store_failed(&self) -> impl FnOnce(coracle_store::Error) -> Error + use<> {
        let dir = self.config.data_dir.join("store");
        |source| Error::Store { dir, source }
    }

    /// The store, and its members' talk with one another for as long as it lives.
    fn begin_store(
        &self,
        parts: &mut Parts,
        driver: Driver,
        lines: Lines,
        store_end: &CancellationToken,
    ) -> Result<(), Error> {
        let failed = self.store_failed();
        let (ends, peers_end) = (store_end.clone(), self.peers_end.clone());
        parts.spawn(async move {
            let ended = driver.run(ends).await;
            // Its last words have been handed over, and whoever is to lead next has answered.
            peers_end.cancel();
            match ended {
                // Who follows the members has the word for it.
                Ok(()) | Err(coracle_store::Error::Removed) => Ok(()),
                Err(source) => Err(failed(source)),
            }
        });
        let tls = self.pki.peer_tls(&self.member).map_err(Error::Pki)?;
        let (peers, store, ends) = (Arc::clone(&self.peers), self.registry.store().clone(), self.peers_end.clone());
        parts.spawn(async move {
            peers.run(lines, store, tls, ends).await;
            Ok(())
        });
        Ok(())
    }

    /// Certificates are made anew before they end, and who is let in is read again when its file changes.
    fn begin_keys(self: &Arc<Self>, parts: &mut Parts, member_due: jiff::Timestamp, keys_end: &CancellationToken) {
        let (server, ends) = (Arc::clone(self), keys_end.clone());
        parts.spawn(async move {
            let cluster = server.registry.store().cluster();
            let profile = member_profile(server.registry.store().cluster_id(), cluster.own, Kind::Server);
            let take = |identity: &pki::Identity| {
                if let Err(error) = server.member.set(identity) {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "what peers are shown cannot be exchanged");
                }
            };
            pki::keep_issued(Arc::clone(&server.pki), profile, member_due, jiff::Timestamp::now, take, ends).await;
            Ok(())
        });
        let (pki, ends) = (Arc::clone(&self.pki), keys_end.clone());
        parts.spawn(async move {
            pki.run(jiff::Timestamp::now, ends).await;
            Ok(())
        });
        if let Some(file) = self.config.authentication.file.clone() {
            let (server, ends) = (Arc::clone(self), self.shutdown.clone());
            parts.spawn(async move {
                server.security.authenticators.follow(&file, &server.config.authentication, ends).await;
                Ok(())
            });
        }
    }

    /// Lets clients in: everybody at the one, etcd's own at the other.
    fn open_doors(
        self: &Arc<Self>,
        parts: &mut Parts,
        listener: TcpListener,
        etcd: Option<TcpListener>,
    ) -> Result<(), Error> {
        let door = Door {
            listener,
            tls: Arc::new(self.pki.shared_tls(&self.member).map_err(Error::Pki)?),
            places: self.config.max_connections,
            shutdown: self.shutdown.clone(),
            goodbye: GOODBYE,
        };
        let server = Arc::clone(self);
        parts.spawn(async move {
            door.open(move |guest| connections::serve(Arc::clone(&server), guest)).await;
            Ok(())
        });
        if let Some(listener) = etcd {
            let door = Door {
                listener,
                tls: Arc::new(self.pki.mutual_tls().map_err(Error::Pki)?),
                places: etcd::CONNECTIONS,
                shutdown: self.shutdown.clone(),
                goodbye: GOODBYE,
            };
            let url = self.etcd_address.map(|address| format!("https://{address}")).unwrap_or_default();
            let (store, dir) = (self.registry.store(), self.config.data_dir.join("store"));
            let front = Arc::new(etcd::Front::new(store, dir, &self.config.hostname, url));
            parts.spawn(async move {
                door.open(move |guest| etcd::serve(Arc::clone(&front), guest)).await;
                Ok(())
            });
        }
        Ok(())
    }

    /// What requests are judged by and is kept at hand: webhooks, policies, flow control, services of other servers.
    fn begin_followers(self: &Arc<Self>, parts: &mut Parts) {
        let (registry, closing, failed) = (self.registry.clone(), self.shutdown.clone(), self.store_failed());
        parts.spawn(async move {
            let (webhooks, policies, mutating) = tokio::join!(
                registry.webhooks().run(closing.clone()),
                registry.policies().run(closing.clone()),
                registry.mutating_policies().run(closing),
            );
            webhooks.and(policies).and(mutating).map_err(failed)
        });
        let (server, closing, failed) = (Arc::clone(self), self.shutdown.clone(), self.store_failed());
        parts.spawn(async move {
            let waiting = ApiServer { inner: Arc::clone(&server) };
            let keep = async {
                // There are no objects to keep before the first ones are made.
                waiting.ready().await;
                server.flow.keep(&server.registry, closing.clone()).await;
            };
            let (followed, ()) = tokio::join!(server.flow.follow(closing.clone()), keep);
            followed.map_err(failed)
        });
        let (aggregation, ends, failed) = (Arc::clone(&self.aggregation), self.shutdown.clone(), self.store_failed());
        parts.spawn(async move { aggregation.run(ends).await.map_err(failed) });
    }

    /// What the server does by itself once the first objects are there: it signs, fills secrets with tokens, tells of the
    /// servers, seals.
    fn begin_own_work(self: &Arc<Self>, parts: &mut Parts) {
        let signer = Signer {
            pki: Arc::clone(&self.pki),
            registry: self.registry.clone(),
            clock: Arc::clone(&self.security.clock),
        };
        let secrets = TokenSecrets {
            registry: self.registry.clone(),
            tokens: Arc::clone(&self.security.tokens),
            pki: Arc::clone(&self.pki),
        };
        let (waiting, ends) = (ApiServer { inner: Arc::clone(self) }, self.shutdown.clone());
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
        let (server, ends) = (ApiServer { inner: Arc::clone(self) }, self.shutdown.clone());
        parts.spawn(async move {
            let Inner { registry, peers, servers, config, .. } = server.inner.as_ref();
            let store = registry.store();
            let told = async {
                server.ready().await;
                let writer = bootstrap::self_writer();
                let keep = servers::endpoints::keep(registry, peers, &writer, ends.clone());
                tokio::join!(servers::keep_described(store, &servers.name, &servers.addresses, &ends), keep);
            };
            tokio::select! {
                () = servers::removed(store, &ends) => {
                    let removed = Error::Removed { dir: config.data_dir.clone() };
                    if servers.is_leaving() { Ok(()) } else { Err(removed) }
                }
                () = told => Ok(()),
            }
        });
        if self.encryption.is_own() {
            let (server, ends) = (ApiServer { inner: Arc::clone(self) }, self.shutdown.clone());
            parts.spawn(async move {
                server.ready().await;
                server.inner.seal_what_is_plain(&ends).await;
                ends.cancelled().await;
                Ok(())
            });
        }
    }

    /// The first objects, and what follows them: with them the server is ready.
    fn begin_objects(self: &Arc<Self>, parts: &mut Parts) {
        let first = Arc::clone(self);
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
            let types = async { type_checking::run(&first.registry, own.clone()).await.map_err(first.store_failed()) };
            tokio::try_join!(follow, rbac, register, types).map(drop)
        });
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

    /// Seals what an earlier version wrote plain, or what an interrupted rotation left.
    async fn seal_what_is_plain(&self, shutdown: &CancellationToken) {
        let Inner { encryption, registry, .. } = self;
        tokio::select! {
            () = shutdown.cancelled() => {}
            done = encryption.rewrite(registry.store()) => if let Err(error) = done {
                // What is plain is read on, and the next start tries again.
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "stored values could not be sealed with the key that is configured");
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
}
