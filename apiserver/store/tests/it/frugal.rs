//! What the data directory weighs, whatever was written before.

use std::{fs, path::Path};

use coracle_store::{Config, Op, Store, Txn};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn size(dir: &Path) -> u64 {
    // Not there before the first checkpoint.
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()),
            Ok(about) => about.len(),
            // Segments and the engine's files come and go.
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that nothing makes shorter.
fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(seed >> 56).unwrap()
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Objects of the size of pods.
const LEN: usize = 1500;
/// How many are written together.
const TOGETHER: usize = 500;

struct Run {
    store: Store,
    noise: Vec<u8>,
    dir: tempfile::TempDir,
    writes: usize,
}

impl Run {
    async fn write(&mut self, keys: impl Iterator<Item = usize>) {
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let puts = keys.by_ref().take(TOGETHER).map(|at| {
                self.writes += 1;
                let from = self.writes * 7919 % (self.noise.len() - LEN);
                Op::put(key(at), self.noise[from..from + LEN].to_vec())
            });
            let txn = Txn { then: puts.collect(), ..Txn::default() };
            self.store.txn(txn).await.unwrap();
        }
    }
}

fn key(at: usize) -> String {
    format!("/registry/pods/{at:06}")
}

/// Many small objects are made, changed in no order, deleted but for one in ten, and those changed again and again.
/// `CORACLE_FRUGAL_KEYS=n` has so many.
#[tokio::test]
async fn the_directory_comes_back_within_its_bound_when_most_is_deleted() {
    let keys = std::env::var("CORACLE_FRUGAL_KEYS").map_or(10_000, |keys| keys.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(driver.run(stop.clone()));
    let mut run = Run { store, noise: noise(7, 1 << 20), dir, writes: 0 };
    run.write(0..keys).await;
    run.write((0..keys).map(|at| at * 7919 % keys)).await;
    for at in (keys / 10..keys).step_by(TOGETHER) {
        let delete = Op::Delete { start: key(at).into(), end: Some(key(keys.min(at + TOGETHER)).into()) };
        run.store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    }
    // What was deleted goes from the disk with the next checkpoints.
    let left = keys / 10;
    let mut turns = 0;
    while size(run.dir.path()) > 3 * (left * LEN) as u64 + (64 << 20) {
        turns += 1;
        assert!(turns < 400, "{} bytes; {:?}", size(run.dir.path()), run.store.status().work);
        let puts = (0..TOGETHER).map(|at| Op::put(key(at * 7919 % left), run.noise[at..at + LEN].to_vec()));
        run.store.txn(Txn { then: puts.collect(), ..Txn::default() }).await.unwrap();
    }
    run.write((0..5 * left).map(|at| at * 7919 % left)).await;
    let work = run.store.status().work;
    let given = (run.writes * LEN) as u64;
    assert!(work.checkpoint_bytes < 4 * given, "{} bytes of checkpoints for {given}", work.checkpoint_bytes);
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let Run { store, dir, .. } = run;
    drop(store);
    let (found, live) = (size(dir.path()), left * LEN);
    println!("{found} bytes for {live} that are live, {work:?}");
    assert!(found <= 3 * live as u64 + (64 << 20), "{found} bytes for {live} that are live; {work:?}");
    let (store, _) = Store::open(Config::new(dir.path())).await.unwrap();
    assert_eq!(store.status().keys, left);
}

#[tokio::test]
async fn the_directory_stays_within_three_times_what_is_live_and_64_megabytes() {
    const KEYS: usize = 1000;
    const LEN: usize = 8 << 10;
    const TURNS: usize = 400;
    let noise = noise(7, 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(driver.run(stop.clone()));
    let mut largest = (0, 0, 0);
    // Forty times what is live, through many checkpoints.
    for turn in 0..TURNS {
        // What is written together does not lie together.
        let puts = (0..KEYS / 10).map(|at| {
            let key = (turn * KEYS / 10 + at) * 997 % KEYS;
            let from = (turn * 7919 + at * 104_729) % (noise.len() - LEN);
            Op::put(format!("key-{key}"), noise[from..from + LEN].to_vec())
        });
        store.txn(Txn { then: puts.collect(), ..Txn::default() }).await.unwrap();
        let (log, state) = (size(&dir.path().join("log")), size(&dir.path().join("state")));
        largest = largest.max((log + state, log, state));
    }
    let live = (KEYS * LEN) as u64;
    assert!(store.status().work.checkpoints > 5, "{:?}", store.status().work);
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let bound = 3 * live + (64 << 20);
    assert!(largest.0 <= bound, "{largest:?} bytes, of log and state, for {live} that are live");
    let (store, _) = Store::open(Config::new(dir.path())).await.unwrap();
    assert!(size(dir.path()) <= bound);
    assert_eq!(store.status().keys, KEYS);
}
