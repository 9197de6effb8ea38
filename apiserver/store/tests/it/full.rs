//! A real file system that is really full: a small tmpfs of its own.

use std::path::{Path, PathBuf};

use coracle_store::{Config, Error, Op, Store, Txn};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio_util::sync::CancellationToken;

/// A mounted tmpfs, unmounted when dropped.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(crate) fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        match mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(Self(dir)),
            Err(nix::errno::Errno::EPERM) => None,
            Err(errno) => panic!("cannot mount a tmpfs: {errno}"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

async fn fill(store: &Store, from: usize) -> (usize, Option<Error>) {
    for n in from..from + 100 {
        let put = Op::put(format!("k{n}"), vec![b'x'; 100_000]);
        if let Err(error) = store.txn(Txn { then: vec![put], ..Txn::default() }).await {
            return (n, Some(error));
        }
    }
    (from + 100, None)
}

async fn open(path: &Path) -> (Store, CancellationToken, tokio::task::JoinSet<coracle_store::Result<()>>) {
    let (store, driver) = Store::open(Config::new(path)).await.unwrap();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(driver.run(stop.clone()));
    (store, stop, tasks)
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing() {
    let Some(disk) = Mounted::new("8m") else {
        println!("Skipped: mounting a tmpfs needs CAP_SYS_ADMIN");
        return;
    };
    std::fs::write(disk.path("other"), vec![1; 4 << 20]).unwrap();
    let (store, stop, mut tasks) = open(&disk.path("store")).await;
    let (written, refused) = fill(&store, 0).await;
    assert!(written > 10 && matches!(refused, Some(Error::DiskFull)), "{written} {refused:?}");
    assert!(refused.is_some_and(|error| error.is_retryable()));
    assert!(matches!(store.status().refusing, Some(Error::DiskFull)));
    assert_eq!(store.status().keys, written);
    assert!(matches!(fill(&store, written).await, (_, Some(Error::DiskFull))), "it stays so");

    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    drop(store);
    let (store, stop, mut tasks) = open(&disk.path("store")).await;
    assert_eq!(store.status().keys, written, "a full disk does not keep a store from being read");

    std::fs::remove_file(disk.path("other")).unwrap();
    let (more, refused) = fill(&store, written).await;
    assert!(more > written + 10, "writes go on: {more} {refused:?}");
    assert_eq!(store.status().keys, more);
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    drop(store);
    let (store, ..) = open(&disk.path("store")).await;
    assert_eq!(store.status().keys, more);
    assert_eq!(store.get(b"k0").unwrap().value.len(), 100_000);
}
