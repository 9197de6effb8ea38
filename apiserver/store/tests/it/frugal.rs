//! What the data directory weighs, whatever was written before.

use std::{fs, path::Path};

use coracle_store::{Config, Op, Store, Txn};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().filter_map(Result::ok);
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

#[tokio::test]
async fn the_directory_stays_within_three_times_what_is_live_and_64_megabytes() {
    const KEYS: usize = 1000;
    const LEN: usize = 8 << 10;
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(driver.run(stop.clone()));
    let mut largest = 0;
    // Forty times what is live, through many checkpoints.
    for round in 0..40_u64 {
        for part in 0..10 {
            let puts = (0..KEYS / 10).map(|at| {
                let key = at * 10 + part;
                Op::put(format!("key-{key}"), noise(round * 100_000 + key as u64, LEN))
            });
            store.txn(Txn { then: puts.collect(), ..Txn::default() }).await.unwrap();
        }
        largest = largest.max(size(dir.path()));
    }
    let live = (KEYS * LEN) as u64;
    assert!(store.status().work.checkpoints > 5, "{:?}", store.status().work);
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let bound = 3 * live + (64 << 20);
    assert!(largest <= bound, "{largest} bytes for {live} that are live");
    let (store, _) = Store::open(Config::new(dir.path())).await.unwrap();
    assert!(size(dir.path()) <= bound);
    assert_eq!(store.status().keys, KEYS);
}
