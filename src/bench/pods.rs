//! How long a pod takes from being bound to a node to running, its image being present.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use super::report::Report;

/// No pod should take longer; then something is wrong rather than slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod that sleeps.
pub(crate) fn pod(name: &str, image: &str) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "coracle-bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]}],
        },
    }))?)
}

/// The times of one pod, from its creation on.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    bound: Option<Duration>,
    running: Option<Duration>,
}

/// Starts `count` pods one by one, then as many at once.
pub(crate) async fn run(client: Client, image: &str, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client);
    let mut alone = Vec::new();
    for n in 0..count {
        let name = format!("coracle-bench-{n}");
        alone.extend(start(&api, image, &[name]).await?);
    }
    let names: Vec<String> = (0..count).map(|n| format!("coracle-bench-{n}")).collect();
    let together = start(&api, image, &names).await?;
    for (how, times, must) in [("one by one", alone, Some(100.0)), ("all at once", together, None)] {
        let spans = |end: fn(&Times) -> Option<Duration>, start: fn(&Times) -> Option<Duration>| {
            let span = |t: &Times| Some(end(t)?.saturating_sub(start(t)?).as_secs_f64() * 1000.0);
            let mut all: Vec<f64> = times.iter().filter_map(span).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let at = |sorted: &[f64], part: usize| {
            sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let bound = spans(|t| t.running, |t| t.bound);
        let name = format!("bound to running, {count} pods {how}, p50");
        match must {
            Some(must) => report.promised(name, at(&bound, 50), "ms", must),
            None => report.add(name, at(&bound, 50), "ms"),
        }
        report.add("  p99", at(&bound, 99), "ms");
        let created = spans(|t| t.running, |_| Some(Duration::ZERO));
        report.add(format!("created to running, {count} pods {how}, p50"), at(&created, 50), "ms");
        report.add("  p99", at(&created, 99), "ms");
    }
    Ok(())
}

/// Creates the pods, waits until all run, deletes them and waits until they are gone.
async fn start(api: &Api<Pod>, image: &str, names: &[String]) -> anyhow::Result<Vec<Times>> {
    let version = api.list(&kube::api::ListParams::default().limit(1)).await?.metadata.resource_version;
    let selector = WatchParams::default().labels("app=coracle-bench");
    let mut events = api.watch(&selector, version.as_deref().unwrap_or("0")).await?.boxed();
    let mut created = BTreeMap::new();
    let mut times: BTreeMap<String, Times> = BTreeMap::new();
    for name in names {
        created.insert(name.clone(), Instant::now());
        api.create(&PostParams::default(), &pod(name, image)?).await?;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut deleted = 0;
    loop {
        let event =
            tokio::time::timeout_at(deadline, events.try_next()).await.context("a pod did not come up in time")?;
        let Some(event) = event? else { bail!("the watch on pods ended") };
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                let Some(start) = created.get(&pod.name_any()) else { continue };
                let seen = times.entry(pod.name_any()).or_default();
                if pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
                    seen.bound.get_or_insert(start.elapsed());
                }
                if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running") && seen.running.is_none() {
                    seen.running = Some(start.elapsed());
                    if times.values().filter(|t| t.running.is_some()).count() == names.len() {
                        for name in names {
                            api.delete(name, &DeleteParams::default().grace_period(0)).await?;
                        }
                    }
                }
            }
            WatchEvent::Deleted(_) => {
                deleted += 1;
                if deleted == names.len() {
                    return Ok(times.into_values().collect());
                }
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => bail!("the watch on pods: {}", status.message),
        }
    }
}
