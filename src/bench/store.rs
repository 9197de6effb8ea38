//! The store alone, on a real disk: durable small writes, reads, watch fan-out, start; three members in `members`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_store::{Buffer, Compare, Config, Op, Range, Revision, Store, Txn, WatchRequest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{load::Histogram, members, report::Report};

/// Writers of the rows; the last is that of a busy cluster.
const WRITERS: [usize; 3] = [1, 32, 256];
const READERS: usize = 32;
const WATCHERS: usize = 1000;
/// Changes that the watchers are told of.
const CHANGES: usize = 5000;
/// Keys that ranges are read from.
const KEYS: usize = 10_000;
/// Keys that start and directory are measured with, of the size of pods.
const MANY: [usize; 2] = [10_000, 150_000];
const POD: usize = 1500;

/// A directory of the measurement's own, removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it, and the figures have been taken.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measures in a new directory below `dir`: on the disk that is of interest.
pub(crate) async fn run(dir: Option<PathBuf>, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    let name = format!("coracle-bench-store-{}", std::process::id());
    let folder = Folder(dir.unwrap_or_else(std::env::temp_dir).join(name));
    let config = Config::new(folder.0.join("store"));
    let (store, driver) = Store::open(config.clone()).await?;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(driver.run(stop.clone()));
    let measured = measure(&store, length, report).await;
    report.add("data directory", number(size(&folder.0)) / 1e6, "MB");
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    measured?;
    let keys = store.status().keys;
    drop(store);
    let begun = Instant::now();
    let (_store, _driver) = Store::open(config).await?;
    report.add(format!("open with {keys} keys"), millis(begun.elapsed()), "ms");
    for count in MANY {
        many(&folder.0.join(count.to_string()), count, report).await?;
    }
    members::run(&folder.0, length, report).await
}

/// Start and directory with so many keys.
async fn many(dir: &Path, count: usize, report: &mut Report) -> anyhow::Result<()> {
    {
        let (store, driver) = Store::open(Config::new(dir)).await?;
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(driver.run(stop.clone()));
        for from in (0..count).step_by(500) {
            let put = |n| Op::put(format!("/registry/pods/default/pod-{n:06}"), vec![b'x'; POD]);
            store.txn(Txn { then: (from..from + 500).map(put).collect(), ..Txn::default() }).await?;
        }
        stop.cancel();
        while let Some(ended) = running.join_next().await {
            ended??;
        }
    }
    let begun = Instant::now();
    let (_store, _driver) = Store::open(Config::new(dir)).await?;
    report.add(format!("open with {count} keys of {POD} bytes"), millis(begun.elapsed()), "ms");
    report.add("  data directory", number(size(dir)) / 1e6, "MB");
    Ok(())
}

async fn measure(store: &Store, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    for writers in WRITERS {
        writes(store, writers, "", length, report).await?;
    }
    reads(store, length, report).await?;
    fan_out(store, report).await
}

/// Creations of pods' size, each of its own key, each waited for.
pub(super) async fn writes(
    store: &Store,
    writers: usize,
    among: &str,
    length: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (latencies, mut tasks) = (Arc::new(Histogram::new()), JoinSet::new());
    let (before, begun) = (store.status().work, Instant::now());
    for writer in 0..writers {
        let (store, latencies) = (store.clone(), Arc::clone(&latencies));
        tasks.spawn(async move {
            let mut n = 0;
            while begun.elapsed() < length {
                n += 1;
                let value = Bytes::from(vec![b'x'; 1024 + (n * 37 + writer * 101) % 1024]);
                let key = Bytes::from(format!("/registry/pods/{writers}-{writer}/pod-{n}"));
                let compare = vec![Compare::absent(key.clone())];
                let sent = Instant::now();
                store.txn(Txn { compare, then: vec![Op::put(key, value)], or_else: Vec::new() }).await?;
                latencies.record(sent.elapsed());
            }
            Ok::<_, coracle_store::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let took = begun.elapsed().as_secs_f64();
    let (after, count) = (store.status().work, number(latencies.count()));
    report.add(format!("durable writes, {writers} writers{among}"), count / took, "/s");
    report.add("  p50", latencies.quantile(0.5), "ms");
    report.add("  p99", latencies.quantile(0.99), "ms");
    report.add("  syncs of the log per write", number(after.log_syncs - before.log_syncs) / count.max(1.0), "");
    Ok(())
}

/// One key, and ranges of 500.
async fn reads(store: &Store, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    for from in (0..KEYS).step_by(500) {
        let put = |n| Op::put(format!("/registry/small/pod-{n:05}"), vec![b'x'; 1500]);
        store.txn(Txn { then: (from..from + 500).map(put).collect(), ..Txn::default() }).await?;
    }
    for (name, range) in [
        ("reads of one key", Range::key("/registry/small/pod-00011")),
        ("ranges of 500 in 10,000", Range::prefix("/registry/small/").limit(500)),
    ] {
        let (mut tasks, begun) = (JoinSet::new(), Instant::now());
        for _ in 0..READERS {
            let (store, range) = (store.clone(), range.clone());
            tasks.spawn(async move {
                let mut count = 0_u64;
                while begun.elapsed() < length {
                    store.range(&range)?;
                    count += 1;
                    if count.is_multiple_of(64) {
                        tokio::task::yield_now().await;
                    }
                }
                Ok::<_, coracle_store::Error>(count)
            });
        }
        let mut count = 0;
        while let Some(done) = tasks.join_next().await {
            count += done??;
        }
        report.add(name, number(count) / begun.elapsed().as_secs_f64(), "/s");
    }
    Ok(())
}

/// Many watchers of one range, while it is written to.
async fn fan_out(store: &Store, report: &mut Report) -> anyhow::Result<()> {
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let buffer = Buffer { events: 2 * CHANGES, bytes: usize::MAX };
        let request = WatchRequest { buffer, ..WatchRequest::prefix("/watched/", Revision::NONE) };
        let mut watcher = store.watch(request)?;
        watchers.spawn(async move {
            let mut seen = 0;
            while seen < CHANGES {
                match watcher.next().await {
                    Some(batch) => seen += batch?.events.len(),
                    None => break,
                }
            }
            Ok::<_, coracle_store::Error>(seen as u64)
        });
    }
    let (mut writers, begun) = (JoinSet::new(), Instant::now());
    for writer in 0..READERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in (writer..CHANGES).step_by(READERS) {
                let put = Op::put(format!("/watched/{}", n % 100), vec![b'x'; 1024]);
                store.txn(Txn { then: vec![put], ..Txn::default() }).await?;
            }
            Ok::<_, coracle_store::Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let mut events = 0;
    while let Some(seen) = watchers.join_next().await {
        events += seen??;
    }
    let took = begun.elapsed().as_secs_f64();
    report.add(format!("events to {WATCHERS} watchers of the store"), number(events) / took, "/s");
    Ok(())
}

/// Bytes of the files in a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        // The store's files come and go.
        Err(_) => 0,
    });
    sizes.sum()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
const fn number(count: u64) -> f64 {
    count as f64
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
