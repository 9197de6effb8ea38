//! A new key for a whole cluster.
//!
//! ```text
//!   the others, one by one     this server        what they keep                 what is in the store
//!   ───────────────────────    ───────────        ──────────────                 ────────────────────
//!   opens with it, too     ◀── the new key        old, new                       sealed with the old one
//!                                (all have it)
//!   seals with it          ◀── goes first         new, old                       sealed with either
//!                                                                                everything is written anew
//! ```
//!
//! Whatever is sealed by anybody at any moment is opened by everybody: nobody seals with a key that somebody has not. Who does
//! not answer, or refuses, ends it, and those who were asked before go back to what they had. One server at a time does it.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_store::{Compare, LeaseId, MemberId, Op, Range, Store, Txn};

use super::{
    Current, Encryption, Error, Owner, REGISTRY, Report, check, config::EncryptionConfiguration, new_key, rules, write,
};

/// Under this key stands who exchanges keys now.
const TURN: &str = "/coracle/encryption/turn";
/// Longer than it can take: nine servers, three times each.
const LONGEST_TURN: Duration = Duration::from_secs(600);

/// The other servers, as an exchange of keys needs them.
pub(crate) trait Others: Sync {
    /// Gives a server the configuration it is to have from now on, and waits until that is on its stable storage.
    ///
    /// # Errors
    /// Why it may not have it, in words.
    fn give(&self, server: MemberId, configuration: &str) -> impl Future<Output = Result<(), String>> + Send;
}

/// A configuration, and how it is written.
struct Step {
    config: EncryptionConfiguration,
    text: String,
}

impl Step {
    fn new(config: EncryptionConfiguration) -> Result<Self, Error> {
        let text = config.write().map_err(|error| Error::Configuration(error.to_string()))?;
        Ok(Self { config, text })
    }
}

impl Encryption {
    /// Makes a new key, has every server seal with it, and seals everything anew. The keys before stay for as long as
    /// anything is sealed with them; those nothing is sealed with any more go. Cut at any moment, it can be done again.
    ///
    /// # Errors
    /// [`Error::NotOurs`]; [`Error::UnderWay`]; [`Error::Unreached`], and then all have the keys they had; the file cannot
    /// be written; the store refuses.
    pub(crate) async fn rotate(self: &Arc<Self>, store: &Store, others: &impl Others) -> Result<Report, Error> {
        if self.owner == Owner::Operator {
            return Err(Error::NotOurs { file: self.file.clone() });
        }
        let turn = self.turn.lock().await;
        let lease = take_turn(store).await?;
        let exchanged = self.exchange(store, others).await;
        // At the latest the turn ends with its lease.
        if let Err(error) = store.lease_revoke(lease).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "others have to wait before they exchange keys");
        }
        drop(turn);
        let name = exchanged?;
        tracing::info!(key = name, "values are sealed with a new key");
        self.rewrite(store).await
    }

    /// Brings a new key to all servers, and has them seal with it; its name.
    async fn exchange(self: &Arc<Self>, store: &Store, others: &impl Others) -> Result<String, Error> {
        // What others wrote before with whichever key is known here.
        store.barrier().await?;
        let before = self.configuration();
        let all = store.as_kept().range(&Range::prefix(REGISTRY))?.entries;
        let used: BTreeSet<String> = all.iter().filter_map(|entry| rules::key_name(&entry.value)).collect();
        let key = new_key()?;
        let with = |place: usize| {
            let mut config = before.clone();
            config.add(&key, place, |name| used.contains(name));
            Step::new(config)
        };
        let (before, known, first) = (Step::new(before.clone())?, with(1)?, with(0)?);
        self.adopt(known.config.clone(), store).await?;
        let mut reached = Vec::new();
        if let Err(error) = give_to_all(store, others, &known, &mut reached).await {
            self.back(&before, &reached, store, others).await;
            return Err(error);
        }
        for (at, server) in reached.iter().enumerate() {
            if let Err(why) = others.give(*server, &first.text).await {
                // This one, too, may seal with it.
                self.back(&known, reached.get(..=at).unwrap_or_default(), store, others).await;
                return Err(unreached(store, *server, why));
            }
        }
        if let Err(error) = self.adopt(first.config, store).await {
            self.back(&known, &reached, store, others).await;
            return Err(error);
        }
        Ok(key.name)
    }

    /// Has this server and those go back to what all had.
    async fn back(self: &Arc<Self>, to: &Step, servers: &[MemberId], store: &Store, others: &impl Others) {
        for server in servers {
            if let Err(why) = others.give(*server, &to.text).await {
                // It opens everything all the same, and the next exchange gives it what it is to have.
                tracing::warn!(
                    member = server.to_string(),
                    reason = why,
                    "a server keeps a key that was not exchanged"
                );
            }
        }
        if let Err(error) = self.adopt(to.config.clone(), store).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a key that was not exchanged is kept");
        }
    }

    /// Takes over what another server gives.
    ///
    /// # Errors
    /// [`Error::NotOurs`]; it cannot be read, or does not open everything that is stored; it cannot be written.
    pub(crate) async fn take(self: &Arc<Self>, text: &str, store: &Store) -> Result<(), Error> {
        if self.owner == Owner::Operator {
            return Err(Error::NotOurs { file: self.file.clone() });
        }
        let config = EncryptionConfiguration::read(text).map_err(Error::Configuration)?;
        self.adopt(config, store).await
    }

    /// Keeps a configuration, and seals and opens by it, if it opens everything that is stored.
    async fn adopt(self: &Arc<Self>, config: EncryptionConfiguration, store: &Store) -> Result<(), Error> {
        let (this, store) = (Arc::clone(self), store.clone());
        let adopted = tokio::task::spawn_blocking(move || {
            let rules = Arc::new(super::Rules::new(&config).map_err(Error::Configuration)?);
            let names: Vec<&str> = config.keys().map(|key| key.name.as_str()).collect();
            check(&rules, &names, &this.file, &store)?;
            // Nobody exchanges it in between: what is on the disk is what is sealed by.
            let mut current = this.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            write(&this.file, &config)?;
            *current = Current { config, rules };
            Ok(())
        });
        adopted.await.map_err(|_| Error::Store(coracle_store::Error::Closed))?
    }

    fn configuration(&self) -> EncryptionConfiguration {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).config.clone()
    }
}

/// Gives all other servers a configuration, also those who join meanwhile: whoever is admitted after the last of them has
/// it is given it with everything else.
async fn give_to_all(
    store: &Store,
    others: &impl Others,
    step: &Step,
    reached: &mut Vec<MemberId>,
) -> Result<(), Error> {
    loop {
        store.barrier().await?;
        let cluster = store.cluster();
        let servers = cluster.members.iter().filter(|member| member.id != cluster.own && !member.info.witness);
        let Some(next) = servers.map(|member| member.id).find(|id| !reached.contains(id)) else { return Ok(()) };
        // Whether it was kept or not is not known if there is no answer.
        reached.push(next);
        others.give(next, &step.text).await.map_err(|why| unreached(store, next, why))?;
    }
}

fn unreached(store: &Store, server: MemberId, why: String) -> Error {
    let members = store.cluster().members;
    let name = members.into_iter().find(|member| member.id == server).map(|member| member.info.name);
    Error::Unreached { server: name.filter(|name| !name.is_empty()).unwrap_or_else(|| server.to_string()), why }
}

/// Waits for nobody: whoever comes second is told.
async fn take_turn(store: &Store) -> Result<LeaseId, Error> {
    let lease = store.lease_grant(LONGEST_TURN).await?.id;
    let put = Op::Put { key: Bytes::from_static(TURN.as_bytes()), value: Bytes::new(), lease: Some(lease) };
    let taken = store.txn(Txn { compare: vec![Compare::absent(TURN)], then: vec![put], or_else: Vec::new() }).await;
    if taken.as_ref().is_ok_and(|taken| taken.succeeded) {
        return Ok(lease);
    }
    // It holds nothing, and ends by itself otherwise.
    drop(store.lease_revoke(lease).await);
    taken?;
    Err(Error::UnderWay)
}
