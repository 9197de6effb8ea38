//! The API under load: durable creates, reads of one object, lists of 500.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    load::{self, Load, Target},
    report::Report,
};

/// Where all is made: a namespace of this run's own, for what an earlier one made may still be on its way out.
pub(super) static NAMESPACE: Namespace = Namespace(LazyLock::new(|| Namespace::unique("bench")));

/// The name of a namespace that only this process uses.
pub(super) struct Namespace(pub(super) LazyLock<String>);

impl Namespace {
    pub(super) fn unique(purpose: &str) -> String {
        format!("coracle-{purpose}-{:08x}", rand::random::<u32>())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pod of about 1.5 KB that no scheduler touches.
pub(super) fn pod(name: &str) -> Value {
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
pub(crate) async fn run(config: &kube::Config, load: Load, report: &mut Report) -> anyhow::Result<()> {
    let target = Target::new(config)?;
    make(&target, NAMESPACES, &named(NAMESPACE.as_str())).await?;
    let measured = measure(&target, load, report).await;
    remove(&target, NAMESPACE.as_str(), &["api/v1", "pods"]).await?;
    measured
}

pub(super) const NAMESPACES: &str = "/api/v1/namespaces";

/// An object that has nothing but a name.
pub(super) fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// Makes something that must not be there.
pub(super) async fn make(target: &Target, path: &str, object: &Value) -> anyhow::Result<Value> {
    let (code, body) = once(target, Method::POST, path, object.to_string().into()).await?;
    ensure!(code.is_success(), "POST {path}: {}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}

/// Removes a namespace, and first what was made in it, of which the namespace's own removal would take one after the other.
pub(super) async fn remove(target: &Target, namespace: &str, [api, plural]: &[&str; 2]) -> anyhow::Result<()> {
    let objects = format!("/{api}/namespaces/{namespace}/{plural}?gracePeriodSeconds=0");
    for path in [objects, format!("{NAMESPACES}/{namespace}")] {
        once(target, Method::DELETE, &path, Bytes::new()).await.with_context(|| format!("removing {path}"))?;
    }
    Ok(())
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

pub(super) async fn measure(target: &Target, load: Load, report: &mut Report) -> anyhow::Result<()> {
    let pods: Arc<str> = format!("{NAMESPACES}/{NAMESPACE}/pods").into();
    let (path, text) = (Arc::clone(&pods), PodText::new());
    let created = load::run(target, load, move |n| (Method::POST, path.to_string(), text.of(format_args!("pod-{n}"))))
        .await
        .context("creating pods")?;
    report.promised("durable pod creates", created.rate, "/s", 8000.0);
    report.add("  p50 of a create", created.p50, "ms");
    report.promised("  p99 of a create", created.p99, "ms", 15.0);

    let path = format!("{pods}/pod-0");
    let got =
        load::run(target, load, move |_| (Method::GET, path.clone(), Bytes::new())).await.context("reading a pod")?;
    report.promised("GET of one pod", got.rate, "/s", 40_000.0);
    report.add("  p50 of a GET", got.p50, "ms");
    report.add("  p99 of a GET", got.p99, "ms");

    let path = format!("{pods}?limit=500");
    let listed =
        load::run(target, load, move |_| (Method::GET, path.clone(), Bytes::new())).await.context("listing pods")?;
    report.promised("LIST limit=500 of pods", listed.rate, "/s", 1000.0);
    report.add("  p50 of a LIST", listed.p50, "ms");
    report.add("  p99 of a LIST", listed.p99, "ms");
    Ok(())
}
