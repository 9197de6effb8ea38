//! Encryption at rest: Secrets (and what else is configured) are kept sealed, with a key that is not in the store.
//!
//! ```text
//!   registry ──object──▶ store handle with the seal ──k8s:enc:aesgcm:v1:KEY:…──▶ log, checkpoints, peers, etcd's clients
//!            ◀─object──                             ◀──────────────────────────
//!                             ▲ keys
//!              DATA_DIR/pki/encryption.yaml, beside the other keys of the cluster
//! ```
//!
//! A cluster that nobody configured makes a key on its first start and seals Secrets with it. Which kinds, and with which
//! keys, can be said in a file of Kubernetes' own kind (`config`); what is kept is what Kubernetes would keep (`rules`).
//! What was written plain is read on; under the cluster's own configuration it is sealed when the server starts.
//!
//! **Invariants:** nothing is served while anything sealed cannot be opened; a key is on stable storage before anything is
//! sealed with it; a key that seals anything live is never dropped from the cluster's own file.

mod config;
mod rotation;
mod rules;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use coracle_store::{Compare, Entry, Op, Range, Seal, Store, Txn, prefix_end};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

pub(crate) use self::rotation::Others;
use self::{
    config::{EncryptionConfiguration, Key},
    rules::{Rules, SEALED},
};
use crate::pki;

/// Objects rewritten in one transaction, which watchers see as one step.
const AT_ONCE: usize = 64;

/// What the seal is about: everything of the API.
const REGISTRY: &str = "/registry/";

/// Why values cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read or used.
    #[error("{0}")]
    Configuration(String),
    /// The key file could not be written.
    #[error("keys that values are sealed with")]
    File(#[source] pki::Error),
    /// There are values that no key opens.
    #[error(
        "{key}: {why}; {} holds {}. Put back the file that has that key: every snapshot has it, and so has every other \
         server of the cluster; without it {count} stored values cannot be read",
        file.display(), if names.is_empty() { "no keys".to_owned() } else { format!("the keys {names}") }
    )]
    Unreadable {
        /// The first object that cannot be read.
        key: String,
        /// Why not.
        why: String,
        /// The keys' file.
        file: PathBuf,
        /// The keys it has.
        names: String,
        /// How many there are.
        count: usize,
    },
    /// The keys are not the server's own.
    #[error("the keys are kept in {}, given with --encryption-provider-config: whoever keeps that file puts a new key \
             first into it, starts the servers anew, and then has what is stored sealed with it (coracle encryption rewrite)",
             file.display())]
    NotOurs {
        /// The file.
        file: PathBuf,
    },
    /// Another server has not got the new key.
    #[error(
        "server {server} did not take the new key: {why}. All servers go on with the keys they had: bring it back, or remove \
             it (coracle server remove), and do it again"
    )]
    Unreached {
        /// Which.
        server: String,
        /// Why, in words.
        why: String,
    },
    /// Somebody else exchanges keys.
    #[error("keys are being exchanged already: wait until that has ended")]
    UnderWay,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] coracle_store::Error),
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The server made it, and changes it.
    Server,
    /// It was given on the command line.
    Operator,
}

/// What is told of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where the keys are.
    pub file: PathBuf,
    /// The keys' names, in the order of the file.
    pub keys: Vec<String>,
    /// Values that are sealed as configured.
    pub sealed: usize,
    /// Values that would be kept otherwise if they were written now.
    pub stale: usize,
    /// Values that were written anew.
    pub rewritten: usize,
}

#[derive(Debug)]
struct Current {
    config: EncryptionConfiguration,
    rules: Arc<Rules>,
}

/// See the module.
#[derive(Debug)]
pub struct Encryption {
    file: PathBuf,
    owner: Owner,
    current: RwLock<Current>,
    /// One rotation at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Whether something is still sealed after it was read: there was no key for it.
pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(SEALED)
}

impl Encryption {
    /// Where the cluster's own keys are.
    #[must_use]
    pub fn own_file(pki: &Path) -> PathBuf {
        pki.join("encryption.yaml")
    }

    /// Reads the keys, or makes the first one, and looks whether they open everything the store has. Reads files and goes
    /// over the whole store: call it where blocking is allowed.
    ///
    /// # Errors
    /// The configuration cannot be used, or its keys do not open what is stored.
    pub(crate) fn open(pki_dir: &Path, given: Option<&Path>, store: &Store) -> Result<Self, Error> {
        let (file, owner) = match given {
            Some(file) => (file.to_owned(), Owner::Operator),
            None => (Self::own_file(pki_dir), Owner::Server),
        };
        let config = match EncryptionConfiguration::load(&file).map_err(Error::Configuration)? {
            Some(config) => config,
            None if owner == Owner::Operator => {
                let why = format!("--encryption-provider-config {}: there is no such file", file.display());
                return Err(Error::Configuration(why));
            }
            None => {
                let config = EncryptionConfiguration::of_secrets(new_key()?);
                // What the store holds is looked at before there is a file that looks as if it were the right one.
                let rules = Rules::new(&config).map_err(Error::Configuration)?;
                let none = Path::new(&file);
                check(&rules, &[], none, store)?;
                write(&file, &config)?;
                config
            }
        };
        let rules = Rules::new(&config).map_err(|why| Error::Configuration(format!("{}: {why}", file.display())))?;
        let names: Vec<&str> = config.keys().map(|key| key.name.as_str()).collect();
        check(&rules, &names, &file, store)?;
        let current = RwLock::new(Current { config, rules: Arc::new(rules) });
        Ok(Self { file, owner, current, turn: tokio::sync::Mutex::default() })
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).rules)
    }

    /// Whether the server itself keeps the keys.
    pub(crate) fn is_own(&self) -> bool {
        self.owner == Owner::Server
    }

    /// How things stand. Goes over the whole store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn report(&self, store: &Store) -> Result<Report, Error> {
        let rules = self.rules();
        let all = store.as_kept().range(&Range::prefix(REGISTRY))?.entries;
        let stale = all.iter().filter(|entry| rules.is_stale(&entry.key, &entry.value)).count();
        let sealed = all.iter().filter(|entry| is_sealed(&entry.value)).count();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let keys = current.config.keys().map(|key| key.name.clone()).collect();
        Ok(Report { file: self.file.clone(), keys, sealed: sealed.saturating_sub(stale), stale, rewritten: 0 })
    }

    /// Writes everything anew that is not kept as configured.
    ///
    /// # Errors
    /// The store refuses; a value cannot be read.
    pub async fn rewrite(&self, store: &Store) -> Result<Report, Error> {
        let _turn = self.turn.lock().await;
        let rules = self.rules();
        let mut rewritten = 0;
        let mut start = Bytes::from_static(REGISTRY.as_bytes());
        loop {
            // As it is kept, and then as it is read: only what is stale is opened.
            let range = Range { start: start.clone(), end: Some(prefix_end(REGISTRY.as_bytes())), ..Range::key("") };
            let found = store.as_kept().range(&range.limit(4096))?;
            let Some(last) = found.entries.last() else { break };
            start = [&last.key[..], b"\0"].concat().into();
            let stale: Vec<&Arc<Entry>> =
                found.entries.iter().filter(|entry| rules.is_stale(&entry.key, &entry.value)).collect();
            for some in stale.chunks(AT_ONCE) {
                rewritten += anew(&rules, some, store).await?;
            }
            if !found.more {
                break;
            }
        }
        let report = self.report(store)?;
        if rewritten > 0 {
            tracing::info!(objects = rewritten, "stored values were sealed anew");
        }
        Ok(Report { rewritten, ..report })
    }
}

/// Writes versions anew if they are still the newest: who writes one himself has sealed it anew. All at once, or, if one
/// was written meanwhile, one by one.
async fn anew(rules: &Rules, stale: &[&Arc<Entry>], store: &Store) -> Result<usize, Error> {
    let mut all = Txn::default();
    for entry in stale {
        let value = if is_sealed(&entry.value) {
            let opened = rules.open(&entry.key, &entry.value);
            opened.map_err(|why| coracle_store::Error::Sealed { key: entry.key.clone(), why: why.into() })?
        } else {
            entry.value.clone()
        };
        all.compare.push(Compare::unchanged(entry.key.clone(), entry.mod_revision));
        all.then.push(Op::Put { key: entry.key.clone(), value, lease: entry.lease });
    }
    let each: Vec<(Compare, Op)> = all.compare.iter().cloned().zip(all.then.iter().cloned()).collect();
    if all.size() < coracle_store::MAX_TXN / 2 && store.txn(all).await?.succeeded {
        return Ok(each.len());
    }
    let mut done = 0;
    for (compare, op) in each {
        let one = Txn { compare: vec![compare], then: vec![op], or_else: Vec::new() };
        done += usize::from(store.txn(one).await?.succeeded);
    }
    Ok(done)
}

impl Seal for Encryption {
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, String> {
        self.rules().seal(key, value)
    }

    fn is_sealed(&self, kept: &[u8]) -> bool {
        is_sealed(kept)
    }

    fn open(&self, key: &[u8], kept: &[u8]) -> Result<Bytes, String> {
        self.rules().open(key, kept)
    }
}

/// Looks whether everything sealed can be opened.
fn check(rules: &Rules, names: &[&str], file: &Path, store: &Store) -> Result<(), Error> {
    let all = store.as_kept().range(&Range::prefix(REGISTRY))?.entries;
    let failed = all.iter().filter(|entry| is_sealed(&entry.value));
    let mut failed = failed.filter_map(|entry| rules.open(&entry.key, &entry.value).err().map(|why| (entry, why)));
    let Some((entry, why)) = failed.next() else { return Ok(()) };
    Err(Error::Unreadable {
        key: String::from_utf8_lossy(&entry.key).into_owned(),
        why,
        file: file.to_owned(),
        names: names.join(", "),
        count: 1 + failed.count(),
    })
}

/// A key nobody else has, named by when it was made.
fn new_key() -> Result<Key, Error> {
    let mut secret = [0; 32];
    let made = SystemRandom::new().fill(&mut secret);
    made.map_err(|_| Error::Configuration("the system has no random numbers".to_owned()))?;
    let made_at = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
    // Two keys of one second have two names.
    Ok(Key::new(format!("key-{made_at}-{:04x}", rand::random::<u16>()), &secret))
}

fn write(file: &Path, config: &EncryptionConfiguration) -> Result<(), Error> {
    let text = config.write().map_err(|error| Error::Configuration(error.to_string()))?;
    pki::write_secret(file, &text).map_err(Error::File)
}
