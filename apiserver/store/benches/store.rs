//! Figures of one member on a real disk: durable transactions, reads, watch fan-out, start. Prints a table.
//!
//! `cargo bench -p coracle-store` takes the directory from `CORACLE_BENCH_DIR` (default: the system's temporary one).
#![expect(clippy::print_stdout, reason = "its output is the table")]

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_store::{Buffer, Compare, Config, Op, Range, Revision, Store, Txn, WatchRequest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: usize = 32;
const TIME: Duration = Duration::from_secs(5);
const WATCHERS: usize = 1000;

#[tokio::main]
async fn main() -> Result<()> {
    let base = std::env::var_os("CORACLE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    let config = Config::new(dir.path().join("store"));

    let start = Instant::now();
    let (store, driver) = Store::open(config.clone()).await?;
    println!("open, empty directory        {:>12.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(stop.clone()));

    idle().await?;
    creates(&store, 1).await?;
    creates(&store, CLIENTS).await?;
    creates(&store, 256).await?;
    reads(&store).await?;
    fan_out(&store).await?;

    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    println!("keys                         {:>12}", store.range(&Range::prefix("").count())?.count);
    println!("resident                     {:>12.1} MB", resident()?);
    println!("data directory               {:>12.1} MB", du(dir.path())? as f64 / 1e6);
    drop(store);
    let start = Instant::now();
    let (store, driver) = Store::open(config).await?;
    println!(
        "open, {:>3} MB of log          {:>12.1} ms",
        store.recovery().bytes >> 20,
        start.elapsed().as_secs_f64() * 1e3
    );
    println!("resident                     {:>12.1} MB", resident()?);
    drop(driver);
    Ok(())
}

/// Creations of pods' size, each of its own key, each waited for.
async fn creates(store: &Store, clients: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    let before = io_bytes()?;
    let start = Instant::now();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut bytes = 0;
            while start.elapsed() < TIME {
                let n = latencies.len();
                let value = Bytes::from(vec![b'x'; 1024 + (n * 37 + client * 101) % 1024]);
                let key = Bytes::from(format!("/registry/pods/{clients}-{client}/pod-{n}"));
                bytes += value.len() + key.len();
                let txn = Txn {
                    compare: vec![Compare::absent(key.clone())],
                    then: vec![Op::put(key, value)],
                    or_else: vec![],
                };
                let begun = Instant::now();
                store.txn(txn).await?;
                latencies.push(begun.elapsed());
            }
            Ok::<_, coracle_store::Error>((latencies, bytes))
        });
    }
    let mut latencies = Vec::new();
    let mut bytes = 0;
    while let Some(done) = tasks.join_next().await {
        let (mine, written) = done??;
        latencies.extend(mine);
        bytes += written;
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() - 1) * percent / 100;
        latencies.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    println!(
        "creates, {clients:>3} clients         {per_second:>12.0} /s   p50 {:.2} ms  p99 {:.2} ms  max {:.2} ms  {:.2} bytes written per byte",
        at(50),
        at(99),
        at(100),
        (io_bytes()? - before) as f64 / bytes as f64
    );
    Ok(())
}

/// One key, and ranges of 500, from 32 tasks.
async fn reads(store: &Store) -> Result<()> {
    for from in (0..10_000).step_by(500) {
        let put = |n| Op::put(format!("/registry/small/pod-{n:05}"), vec![b'x'; 1500]);
        store.txn(Txn { then: (from..from + 500).map(put).collect(), ..Txn::default() }).await?;
    }
    for (name, range) in [
        ("get one key", Range::key("/registry/pods/32-7/pod-11")),
        ("range of 500 in 10,000", Range::prefix("/registry/small/").limit(500)),
        ("range of 500 in 32 clients'", Range::prefix("/registry/pods/32-").limit(500)),
    ] {
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for _ in 0..CLIENTS {
            let (store, range) = (store.clone(), range.clone());
            tasks.spawn(async move {
                let mut count = 0_u64;
                while start.elapsed() < TIME / 5 {
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
        println!("{name:<28} {:>12.0} /s", count as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Many watchers of one range, while it is written to.
async fn fan_out(store: &Store) -> Result<()> {
    const CHANGES: usize = 5000;
    let mut tasks = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut watcher = store.watch(WatchRequest {
            buffer: Buffer { events: 2 * CHANGES, bytes: usize::MAX },
            ..WatchRequest::prefix("/watched/", Revision::NONE)
        })?;
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < CHANGES {
                match watcher.next().await {
                    Some(batch) => seen += batch?.events.len(),
                    None => break,
                }
            }
            Ok::<_, coracle_store::Error>(seen)
        });
    }
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        writers.spawn(async move {
            for n in (client..CHANGES).step_by(CLIENTS) {
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
    while let Some(seen) = tasks.join_next().await {
        events += seen??;
    }
    println!("events to {WATCHERS} watchers     {:>12.0} /s", events as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// What an open store costs that nobody uses.
async fn idle() -> Result<()> {
    let seconds = 3;
    let (bytes, switches) = (io_bytes()?, switches()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!(
        "idle                         {:>12} bytes written, {} wakeups in {seconds} s, {:.1} MB resident",
        io_bytes()? - bytes,
        // One is of this task.
        self::switches()?.saturating_sub(switches + 1),
        resident()?
    );
    Ok(())
}

fn switches() -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.unwrap_or("0").trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn io_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    Ok(io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or("0").parse()?)
}

fn du(path: &std::path::Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            du(&entry.path())?
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        };
    }
    Ok(sum)
}
