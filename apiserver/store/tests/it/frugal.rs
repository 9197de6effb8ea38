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
