//! etcd's semantics, through the public handle.

use std::time::Duration;

use coracle_store::{Buffer, Config, Driver, Error, EventKind, Op, Range, Revision, Store, Txn, WatchRequest};
use tokio_util::sync::CancellationToken;

/// A running store in its own directory.
pub(crate) struct Running {
    pub(crate) store: Store,
    stop: CancellationToken,
    driver: tokio::task::JoinSet<coracle_store::Result<()>>,
    pub(crate) dir: tempfile::TempDir,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir) -> Self {
        let (store, driver) = Store::open(Config::new(dir.path().join("store"))).await.unwrap();
        Self::run(store, driver, dir)
    }

    pub(crate) fn run(store: Store, driver: Driver, dir: tempfile::TempDir) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(driver.run(stop.clone()));
        Self { store, stop, driver: tasks, dir }
    }

    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        self.driver.join_next().await.unwrap().unwrap().unwrap();
        self.dir
    }

    pub(crate) async fn put(&self, key: &'static str, value: &'static str) -> Revision {
        let txn = Txn { then: vec![Op::put(key, value)], ..Txn::default() };
        self.store.txn(txn).await.unwrap().revision
    }

    async fn delete(&self, key: &'static str) -> Revision {
        let txn = Txn { then: vec![Op::delete(key)], ..Txn::default() };
        self.store.txn(txn).await.unwrap().revision
    }

    pub(crate) fn read(&self, range: &Range) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let result = self.store.range(range).unwrap();
        result.entries.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect()
    }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn each_change_has_one_revision_and_counts_the_versions_of_its_key() {
    let run = Running::start().await;
    assert_eq!(run.store.revision(), Revision(1));
    assert_eq!(run.put("a", "1").await, Revision(2));
    assert_eq!(run.put("b", "1").await, Revision(3));
    assert_eq!(run.put("a", "2").await, Revision(4));
    let a = run.store.get(b"a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (Revision(2), Revision(4), 2));
    assert_eq!(run.delete("a").await, Revision(5));
    assert!(run.store.get(b"a").is_none());
    assert_eq!(run.delete("a").await, Revision(5), "what changes nothing has no revision of its own");
    assert_eq!(run.put("a", "3").await, Revision(6));
    let a = run.store.get(b"a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (Revision(6), Revision(6), 1));
    run.stop().await;
}

#[tokio::test]
async fn a_range_reads_any_kept_revision_and_says_what_it_left_out() {
    let run = Running::start().await;
    for (key, value) in [("p/a", "1"), ("p/b", "1"), ("q/a", "1"), ("p/b", "2"), ("p/c", "1")] {
        run.put(key, value).await;
    }
    run.delete("p/a").await;
    let now = Range::prefix("p/");
    assert_eq!(run.read(&now), pairs(&[("p/b", "2"), ("p/c", "1")]));
    assert_eq!(run.read(&now.clone().at(Revision(4))), pairs(&[("p/a", "1"), ("p/b", "1")]));
    assert_eq!(run.read(&now.clone().at(Revision(5))), pairs(&[("p/a", "1"), ("p/b", "2")]));
    assert_eq!(run.read(&now.clone().at(Revision(6))), pairs(&[("p/a", "1"), ("p/b", "2"), ("p/c", "1")]));
    assert_eq!(run.read(&now.clone().at(Revision(1))), pairs(&[]));
    let first = run.store.range(&now.clone().at(Revision(6)).limit(1)).unwrap();
    assert_eq!((first.entries.len(), first.more, first.count, first.revision), (1, true, 3, Revision(7)));
    let all = run.store.range(&Range::prefix("").limit(2)).unwrap();
    assert_eq!((all.entries.len(), all.more, all.count), (2, true, 3));
    let exact = run.store.range(&Range::prefix("p/").limit(2)).unwrap();
    assert_eq!((exact.entries.len(), exact.more, exact.count), (2, false, 2));
    assert_eq!(run.store.range(&Range::prefix("").count()).unwrap().count, 3);
    assert!(matches!(
        run.store.range(&now.at(Revision(8))),
        Err(Error::FutureRevision { asked: Revision(8), current: Revision(7) })
    ));
    run.stop().await;
}

/// Invariant 2: a watcher sees every event after its revision exactly once and in order.
#[tokio::test]
async fn a_watch_hears_every_change_of_its_range_from_its_revision_on() {
    let run = Running::start().await;
    run.put("p/a", "1").await;
    run.put("q/a", "1").await;
    run.put("p/b", "1").await;
    let mut watcher = run.store.watch(WatchRequest::prefix("p/", Revision(3))).unwrap();
    let mut key = run.store.watch(WatchRequest { end: None, ..WatchRequest::prefix("p/a", Revision(0)) }).unwrap();
    let batch = watcher.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (Revision(4), 1));
    let txn = Txn {
        then: vec![Op::put("p/b", "2"), Op::put("q/b", "1"), Op::delete("p/a"), Op::put("p/c", "1")],
        ..Txn::default()
    };
    run.store.txn(txn).await.unwrap();
    let batch = watcher.next().await.unwrap().unwrap();
    let events: Vec<_> = batch.events.iter().map(|event| (event.kind, &event.entry.key[..])).collect();
    assert_eq!(events, [(EventKind::Put, &b"p/b"[..]), (EventKind::Delete, b"p/a"), (EventKind::Put, b"p/c")]);
    let deleted = &batch.events[1];
    assert_eq!((deleted.entry.mod_revision, deleted.entry.value.len()), (Revision(5), 0));
    assert_eq!(deleted.previous.as_ref().unwrap().value, "1");
    assert_eq!(watcher.progress(), Revision(5));
    let batch = key.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (Revision(5), 1));
    run.stop().await;
    assert!(matches!(watcher.next().await, Some(Err(Error::Closed))));
    assert!(watcher.next().await.is_none());
}

#[tokio::test]
async fn a_watcher_that_never_reads_is_dropped_and_others_go_on() {
    let roomy = Buffer::default();
    let value: &'static str = "v".repeat(1000).leak();
    // What waits is bounded in events and in bytes, whichever is reached first; one larger than all room still fits alone.
    for (buffer, fit) in
        [(Buffer { events: 3, ..roomy }, 3), (Buffer { bytes: 3500, ..roomy }, 2), (Buffer { bytes: 1, ..roomy }, 1)]
    {
        let run = Running::start().await;
        let request = || WatchRequest { buffer, ..WatchRequest::prefix("", Revision(0)) };
        let (mut slow, mut slower) = (run.store.watch(request()).unwrap(), run.store.watch(request()).unwrap());
        let mut quick = run.store.watch(WatchRequest::prefix("", Revision(0))).unwrap();
        for n in 0..10 {
            run.put("k", value).await;
            quick.next().await.unwrap().unwrap();
            // The first of all is read in time, those that just fit are still there to be read, the next ends the watch.
            if n == fit - 1 {
                slow.next().await.unwrap().unwrap();
            }
        }
        let bounds = |error| matches!(error, Some(Err(Error::SlowWatcher { events, bytes })) if (events, bytes) == (buffer.events, buffer.bytes));
        for (watcher, taken) in [(&mut slow, 2), (&mut slower, 1)] {
            assert!(bounds(watcher.next().await), "{buffer:?}");
            assert!(watcher.next().await.is_none());
            assert_eq!(watcher.progress(), Revision(taken), "{buffer:?}");
        }
        run.stop().await;
    }
}

#[tokio::test]
async fn compaction_ends_the_history_but_not_the_present() {
    let run = Running::start().await;
    for value in ["1", "2", "3"] {
        run.put("k", value).await;
    }
    run.put("other", "1").await;
    run.delete("other").await;
    run.store.compact(Revision(3)).await.unwrap();
    assert_eq!(run.store.compacted(), Revision(3));
    assert_eq!(run.read(&Range::key("k").at(Revision(3))), pairs(&[("k", "2")]));
    assert!(matches!(
        run.store.range(&Range::key("k").at(Revision(2))),
        Err(Error::Compacted { compacted: Revision(3) })
    ));
    assert!(matches!(run.store.watch(WatchRequest::prefix("", Revision(3))), Err(Error::Compacted { .. })));
    let mut watcher = run.store.watch(WatchRequest::prefix("", Revision(4))).unwrap();
    assert_eq!(watcher.next().await.unwrap().unwrap().revision, Revision(4));
    assert!(matches!(run.store.compact(Revision(3)).await, Err(Error::Compacted { .. })));
    assert!(matches!(run.store.compact(Revision(7)).await, Err(Error::FutureRevision { .. })));
    run.stop().await;
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_in_one_revision() {
    let run = Running::start().await;
    let lease = run.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    assert!(matches!(
        run.store.lease_grant_as(lease.id, Duration::from_secs(60)).await,
        Err(Error::LeaseExists { .. })
    ));
    let put = |key: &'static str| Op::Put { key: key.into(), value: "v".into(), lease: Some(lease.id) };
    run.store.txn(Txn { then: vec![put("a"), put("b"), put("c")], ..Txn::default() }).await.unwrap();
    run.put("b", "stays").await;
    assert_eq!(run.store.lease_keepalive(lease.id).await.unwrap().ttl, Duration::from_secs(60));
    run.store.lease_revoke(lease.id).await.unwrap();
    assert_eq!(run.store.revision(), Revision(4));
    assert_eq!(run.read(&Range::prefix("")), pairs(&[("b", "stays")]));
    assert!(matches!(run.store.lease_keepalive(lease.id).await, Err(Error::LeaseNotFound { .. })));
    assert!(matches!(run.store.lease_revoke(lease.id).await, Err(Error::LeaseNotFound { .. })));
    run.stop().await;
}

#[tokio::test]
async fn a_lease_that_nobody_keeps_alive_ends_by_itself() {
    let run = Running::start().await;
    let lease = run.store.lease_grant(Duration::ZERO).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(1));
    let put = Op::Put { key: "k".into(), value: "v".into(), lease: Some(lease.id) };
    run.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    let mut watcher = run.store.watch(WatchRequest::prefix("k", Revision(0))).unwrap();
    let batch = watcher.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events[0].kind), (Revision(3), EventKind::Delete));
    run.stop().await;
}

#[tokio::test]
async fn a_stopped_store_still_reads_and_refuses_writes() {
    let run = Running::start().await;
    run.put("k", "v").await;
    let store = run.store.clone();
    run.stop().await;
    assert_eq!(store.get(b"k").unwrap().value, "v");
    let txn = Txn { then: vec![Op::put("k", "w")], ..Txn::default() };
    assert!(matches!(store.txn(txn).await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_store_opened_again_is_as_it_was_left_history_and_leases_included() {
    let run = Running::start().await;
    run.put("a", "1").await;
    run.put("a", "2").await;
    run.put("b", "1").await;
    run.delete("b").await;
    let lease = run.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let put = Op::Put { key: "c".into(), value: "1".into(), lease: Some(lease.id) };
    run.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    let before = run.store.range(&Range::prefix("")).unwrap();
    let dir = run.stop().await;

    let run = Running::start_in(dir).await;
    assert_eq!(run.store.range(&Range::prefix("")).unwrap(), before);
    assert_eq!(run.store.recovery().torn, None);
    assert_eq!(run.read(&Range::prefix("").at(Revision(4))), pairs(&[("a", "2"), ("b", "1")]));
    let mut watcher = run.store.watch(WatchRequest::prefix("", Revision(2))).unwrap();
    for revision in 2..=6 {
        assert_eq!(watcher.next().await.unwrap().unwrap().revision, Revision(revision));
    }
    assert_eq!(run.store.lease_keepalive(lease.id).await.unwrap(), lease);
    run.store.lease_revoke(lease.id).await.unwrap();
    assert_eq!(run.put("d", "1").await, Revision(8));
    run.stop().await;
}

#[tokio::test]
async fn a_second_store_in_the_same_directory_is_refused_until_the_first_has_stopped() {
    let run = Running::start().await;
    let second = Store::open(Config::new(run.dir.path().join("store"))).await;
    assert!(matches!(second, Err(Error::Locked { pid: Some(_), .. })));
    let dir = run.stop().await;
    Running::start_in(dir).await.stop().await;
}

#[tokio::test]
async fn checkpoints_cut_the_log_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { checkpoint_bytes: 1 << 20, ..Config::new(dir.path().join("store")) };
    let mut expected = std::collections::BTreeMap::new();
    let mut revision = Revision(1);
    for round in 0..4_u32 {
        let (store, driver) = Store::open(config.clone()).await.unwrap();
        assert_eq!(store.revision(), revision, "round {round}");
        let read = store.range(&Range::prefix("")).unwrap();
        let read: std::collections::BTreeMap<_, _> =
            read.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        assert!(read == expected, "round {round}");
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(driver.run(stop.clone()));
        for n in 0..400_u32 {
            let key = bytes::Bytes::from(format!("key/{:03}", (n * 7 + round) % 300));
            let op = if n % 5 == 4 {
                expected.remove(&key);
                Op::delete(key)
            } else {
                let value = bytes::Bytes::from(vec![u8::try_from(n % 251).unwrap(); 9000 + n as usize]);
                expected.insert(key.clone(), value.clone());
                Op::put(key, value)
            };
            revision = store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap().revision;
        }
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
    }
    let log: u64 = std::fs::read_dir(dir.path().join("store/log"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(log < 12 << 20, "of 13 MB written at least the first segment is cut off, {log} are left");
    let (store, _driver) = Store::open(config).await.unwrap();
    assert!(store.compacted() > Revision(1), "the start is from a checkpoint");
}

/// Invariant 7: a quiet cluster writes nothing to disk.
#[tokio::test]
async fn a_store_nobody_writes_to_does_nothing_to_its_disk_and_many_writes_share_a_sync() {
    let run = Running::start().await;
    let start = run.store.status();
    assert!(start.refusing.is_none() && start.keys == 0);
    let lease = run.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let before = run.store.status().work;
    for _ in 0..100 {
        run.store.lease_keepalive(lease.id).await.unwrap();
        run.store.range(&Range::prefix("")).unwrap();
        run.store.barrier().await.unwrap();
    }
    assert_eq!(run.store.status().work, before, "reading and keeping alive write nothing");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = run.store.clone();
        let txn = Txn { then: vec![Op::put(format!("k{n}"), "v")], ..Txn::default() };
        tasks.spawn(async move { store.txn(txn).await.unwrap() });
    }
    let mut revisions: Vec<_> = tasks.join_all().await.iter().map(|done| done.revision.0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>(), "each has its own revision");
    let syncs = run.store.status().work.log_syncs - before.log_syncs;
    assert!(syncs < 100, "200 writes at once took {syncs} syncs");
    run.stop().await;
}

#[tokio::test]
async fn a_store_whose_driver_is_gone_lets_nobody_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
    let mut watcher = store.watch(WatchRequest::prefix("", Revision(0))).unwrap();
    let put = Txn { then: vec![Op::put("k", "v")], ..Txn::default() };
    let mut waiting = Box::pin(store.txn(put.clone()));
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "nothing is written before the driver runs");
    drop(driver);
    assert!(matches!(waiting.await, Err(Error::OutcomeUnknown)));
    assert!(matches!(store.txn(put).await, Err(Error::Closed)));
    assert!(matches!(watcher.next().await, Some(Err(Error::Closed))));
}
