//! The API under load: durable creates, reads of one object, lists of 500.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    load::{self, Target},
    report::Report,
};

/// What to measure with.
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) length: Duration,
}

pub(super) const NAMESPACE: &str = "coracle-bench";

/// A pod of about 1.5 KB that no scheduler touches.
pub(super) fn pod(name: &str) -> serde_json::Value {
    let environment: Vec<_> =
        (0..10).map(|n| json!({"name": format!("SETTING_{n}"), "value": "x".repeat(24)})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "load"}, "annotations": {"note": "x".repeat(120)}},
        "spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example/bench:1", "command": ["sleep", "infinity"], "env": environment,
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
            }],
        },
    })
}

/// The same as JSON, for as many names as there are: written once, so that what is measured is not how it is written.
pub(super) struct PodText {
    before: String,
    after: String,
}

impl PodText {
    pub(super) fn new() -> Self {
        const NAME: &str = "the-name-of-the-pod";
        let text = pod(NAME).to_string();
        let (before, after) = text.split_once(NAME).unwrap_or((&text, ""));
        Self { before: before.to_owned(), after: after.to_owned() }
    }

    pub(super) fn of(&self, name: std::fmt::Arguments<'_>) -> Bytes {
        format!("{}{name}{}", self.before, self.after).into()
    }
}

/// Measures, and removes what it made.
pub(crate) async fn run(target: &Target, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let made = once(target, Method::POST, "/api/v1/namespaces", namespace.to_string().into()).await?;
    ensure!(made.0.is_success(), "making the namespace {NAMESPACE}: {}", String::from_utf8_lossy(&made.1));
    let measured = measure(target, plan, report).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?gracePeriodSeconds=0");
    once(target, Method::DELETE, &path, Bytes::new()).await.context("removing the pods")?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    once(target, Method::DELETE, &path, Bytes::new()).await.context("removing the namespace")?;
    measured
}

/// One request on a connection of its own: one that was idle while others were measured may have been closed.
pub(super) async fn once(
    target: &Target,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut tasks = JoinSet::new();
    let answer = target.connect(&mut tasks).await?.call(method, path, body).await;
    tasks.shutdown().await;
    answer
}

pub(super) async fn measure(target: &Target, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let pods: Arc<str> = format!("/api/v1/namespaces/{NAMESPACE}/pods").into();
    let (path, text) = (Arc::clone(&pods), PodText::new());
    let created = load::run(target, plan.clients, plan.length, move |n| {
        (Method::POST, path.to_string(), text.of(format_args!("pod-{n}")))
    })
    .await
    .context("creating pods")?;
    report.promised("durable pod creates", created.rate, "/s", 8000.0);
    report.add("  p50 of a create", created.p50, "ms");
    report.promised("  p99 of a create", created.p99, "ms", 15.0);

    let path = format!("{pods}/pod-0");
    let got = load::run(target, plan.clients, plan.length, move |_| (Method::GET, path.clone(), Bytes::new()))
        .await
        .context("reading a pod")?;
    report.promised("GET of one pod", got.rate, "/s", 40_000.0);
    report.add("  p50 of a GET", got.p50, "ms");
    report.add("  p99 of a GET", got.p99, "ms");

    let path = format!("{pods}?limit=500");
    let listed = load::run(target, plan.clients, plan.length, move |_| (Method::GET, path.clone(), Bytes::new()))
        .await
        .context("listing pods")?;
    report.promised("LIST limit=500 of pods", listed.rate, "/s", 1000.0);
    report.add("  p50 of a LIST", listed.p50, "ms");
    report.add("  p99 of a LIST", listed.p99, "ms");
    Ok(())
}
