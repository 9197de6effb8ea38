//! Events handed out: objects are written, and many watchers are told of each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    api::{NAMESPACE, NAMESPACES, make, named, once, remove},
    load::{self, Load, Target},
    report::Report,
};

/// How long the watchers may take to be told of everything once nothing is written any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures, and removes what it made.
pub(crate) async fn run(config: &kube::Config, watchers: usize, load: Load, report: &mut Report) -> anyhow::Result<()> {
    let target = Target::new(config)?;
    make(&target, NAMESPACES, &named(NAMESPACE.as_str())).await?;
    let measured = measure(&target, watchers, load, report).await;
    remove(&target, NAMESPACE.as_str(), &["api/v1", "configmaps"]).await?;
    measured
}

/// What all watchers have been told so far.
#[derive(Default)]
struct Told {
    events: AtomicU64,
    bytes: AtomicU64,
    news: Notify,
}

async fn measure(target: &Target, watchers: usize, load: Load, report: &mut Report) -> anyhow::Result<()> {
    let path = format!("{NAMESPACES}/{NAMESPACE}/configmaps");
    let (code, list) = once(target, Method::GET, &path, Bytes::new()).await?;
    ensure!(code.is_success(), "listing ConfigMaps: {code}");
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(|version| version.as_str()).unwrap_or_default();

    let (told, mut tasks, mut drivers) = (Arc::new(Told::default()), JoinSet::new(), JoinSet::new());
    for _ in 0..watchers {
        let mut connection = target.connect(&mut drivers).await?;
        let watch = format!("{path}?watch=1&resourceVersion={revision}");
        let response = connection.send(Method::GET, &watch, Bytes::new()).await?;
        ensure!(response.status().is_success(), "watching ConfigMaps: {}", response.status());
        let told = Arc::clone(&told);
        tasks.spawn(async move {
            let mut body = response.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                // Each event is a line.
                let Some(data) = frame.data_ref() else { continue };
                let lines = memchr::memchr_iter(b'\n', data).count();
                told.events.fetch_add(u64::try_from(lines).unwrap_or_default(), Ordering::Relaxed);
                told.bytes.fetch_add(u64::try_from(data.len()).unwrap_or_default(), Ordering::Relaxed);
                told.news.notify_one();
            }
            // The connection lasts as long as what it carries is read.
            drop(connection);
        });
    }

    let begun = Instant::now();
    let written = Arc::new(AtomicU64::new(0));
    let (path, count) = (path.clone(), Arc::clone(&written));
    let writes = load::run(target, load, move |n| {
        count.fetch_add(1, Ordering::Relaxed);
        let object = json!({"metadata": {"name": format!("event-{n}")}, "data": {"key": "value"}});
        (Method::POST, path.clone(), object.to_string().into())
    });
    let writes = writes.await.context("creating ConfigMaps")?;
    let expected = written.load(Ordering::Relaxed) * u64::try_from(watchers)?;
    let all = async {
        while told.events.load(Ordering::Relaxed) < expected {
            told.news.notified().await;
        }
    };
    let is_complete = tokio::time::timeout(PATIENCE, all).await.is_ok();
    let took = begun.elapsed().as_secs_f64();
    tasks.shutdown().await;
    drivers.shutdown().await;
    let (events, bytes) = (told.events.load(Ordering::Relaxed), told.bytes.load(Ordering::Relaxed));
    ensure!(is_complete, "{expected} events were to arrive, {events} did");
    #[expect(clippy::cast_precision_loss, reason = "a count of events is far below 2^52")]
    let (events, bytes) = (events as f64, bytes as f64);
    report.promised(format!("events to {watchers} watchers"), events / took, "/s", 200_000.0);
    report.add("  bytes of an event", bytes / events.max(1.0), "B");
    report.add("  creates meanwhile", writes.rate, "/s");
    report.add("  p99 of a create", writes.p99, "ms");
    Ok(())
}
