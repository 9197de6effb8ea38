//! The whole of a store at one revision: to be kept elsewhere, and to begin a new store with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use raft::eraftpb::ConfState;

use crate::{
    checkpoint::{Checkpoints, Job, Mark},
    datadir::DataDir,
    disk::sync_directory,
    engine::sled::Sled,
    entry::Entry,
    error::{Error, Result},
    lease::Lease,
    revision::{LeaseId, Revision},
    store::Store,
};

/// Everything a store holds, without its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Where the store stands.
    pub revision: Revision,
    /// The live entries in the order of their keys, as they are kept.
    pub entries: Vec<Arc<Entry>>,
    /// The leases; the entries say themselves which one they hang on.
    pub leases: Vec<Lease>,
}

impl Store {
    /// Everything there is now. The entries are shared, so this takes milliseconds and little memory, and writers wait no
    /// longer than for any other read.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let state = self.shared().read();
        let entries = state.range(&crate::Range::prefix("")).map(|found| found.entries).unwrap_or_default();
        let leases = state.leases().iter().map(|(id, held)| Lease { id, ttl: held.ttl }).collect();
        Contents { revision: state.revision(), entries, leases }
    }
}

impl Store {
    /// The leases there are.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.shared().read().leases().iter().map(|(id, held)| Lease { id, ttl: held.ttl }).collect()
    }

    /// The time a lease was granted for, and the keys that hang on it; none if there is no such lease.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId) -> Option<(Duration, Vec<Bytes>)> {
        let state = self.shared().read();
        state.leases().get(id).map(|held| (held.ttl, held.keys.iter().cloned().collect()))
    }
}

/// Begins a store of its own cluster with these contents, in a directory that does not exist or is empty. It appears
/// as a whole or not at all. Writes files and waits for them: call it where blocking is allowed.
///
/// Whoever knew another store's later revisions must not take this one's for those: see to it that `contents.revision` is
/// above them. Reads at it or after it are answered, everything before it is [`Error::Compacted`].
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::Locked`], [`Error::Io`], [`Error::Engine`], [`Error::DiskFull`].
pub fn begin_with(dir: &Path, contents: &Contents) -> Result<()> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::NotEmpty { dir: dir.to_owned() });
    }
    let made = beside(dir);
    match fs::remove_dir_all(&made) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io(format!("remove {}", made.display()))(error));
        }
        _ => {}
    }
    let data = DataDir::open(&made, None)?;
    let members = ConfState { voters: vec![data.identity.member], ..ConfState::default() };
    // As if they had come with another member's image: the log begins behind them, so that members that join later are
    // sent them, and not only what was done since.
    let mark = Mark { index: 1, term: 1, revision: contents.revision, members, received: true };
    let job = Job {
        mark,
        entries: contents.entries.iter().map(|entry| (entry.key.clone(), Some(Arc::clone(entry)))).collect(),
        leases: contents.leases.iter().map(|lease| (lease.id, Some(lease.ttl.as_secs()))).collect(),
        whole: true,
        ..Job::default()
    };
    Checkpoints::new(Sled::new(data.state())).save(&job)?;
    drop(data);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::rename(&made, dir).and_then(|()| sync_directory(parent)).map_err(Error::io(format!(
        "rename {} to {}",
        made.display(),
        dir.display()
    )))
}

fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".beginning");
    dir.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Config, Op, Range, Txn, WatchRequest};

    #[tokio::test]
    async fn a_store_begun_with_anothers_contents_is_the_same_and_goes_on_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let (store, driver) = Store::open(Config::new(&first)).await.unwrap();
        let stop = CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(driver.run(stop.clone()));
        store.lease_grant_as(LeaseId(7), Duration::from_secs(60)).await.unwrap();
        let large = "x".repeat(20_000);
        for (key, value) in [("a", "1"), ("b", large.as_str()), ("a", "2"), ("c", "3")] {
            let put =
                Op::Put { key: key.into(), value: value.to_owned().into(), lease: (key == "c").then_some(LeaseId(7)) };
            store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
        }
        store.txn(Txn { then: vec![Op::delete("b")], ..Txn::default() }).await.unwrap();
        let contents = store.contents();
        assert_eq!((contents.revision, contents.entries.len(), contents.leases.len()), (Revision(6), 2, 1));
        assert_eq!(store.lease_keys(LeaseId(7)), Some((Duration::from_secs(60), vec!["c".into()])));
        assert_eq!((store.leases().len(), store.lease_keys(LeaseId(8))), (1, None));
        let ahead = Contents { revision: Revision(1000), ..contents.clone() };
        let refused = begin_with(&first, &ahead).unwrap_err();
        assert!(matches!(refused, Error::NotEmpty { .. }), "{refused}");
        let to = second.clone();
        tokio::task::spawn_blocking(move || begin_with(&to, &ahead)).await.unwrap().unwrap();
        stop.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();

        for round in 0..2 {
            let (store, driver) = Store::open(Config::new(&second)).await.unwrap();
            let stop = CancellationToken::new();
            let mut running = tokio::task::JoinSet::new();
            running.spawn(driver.run(stop.clone()));
            assert_eq!(store.revision(), Revision(1000 + round));
            assert_eq!(store.get(b"a"), contents.entries.first().cloned());
            assert_eq!(store.get(b"c").unwrap().lease, Some(LeaseId(7)));
            let early = store.watch(WatchRequest::prefix("", Revision(7))).unwrap_err();
            assert!(matches!(early, Error::Compacted { .. }), "{early}");
            assert!(matches!(store.range(&Range::prefix("").at(Revision(6))), Err(Error::Compacted { .. })));
            let done = store.txn(Txn { then: vec![Op::put("d", "4")], ..Txn::default() }).await.unwrap();
            assert_eq!(done.revision, Revision(1001 + round));
            if round == 1 {
                store.lease_revoke(LeaseId(7)).await.unwrap();
                assert_eq!(store.get(b"c"), None);
            }
            stop.cancel();
            running.join_next().await.unwrap().unwrap().unwrap();
        }
    }
}
