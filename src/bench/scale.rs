//! The API with many objects in place, for a user whose permissions come from RBAC.
//!
//! What `api` measures, and besides how long it takes from sending a create until a watcher has the event, lists of
//! everything, and the server's memory.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    api::{self, NAMESPACE, NAMESPACES, Namespace, PodText, make, named, once, pod, remove},
    load::{self, Histogram, Load, Target, Until},
    process::Subject,
    report::Report,
};

/// Where the pods are that are in place.
static CROWD: Namespace = Namespace(LazyLock::new(|| Namespace::unique("bench-crowd")));

/// Whole lists that are timed.
const LISTS: u32 = 5;

/// How long a watcher may wait for an event before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures, and removes what it made.
pub(crate) async fn run(
    config: &kube::Config,
    load: Load,
    objects: u64,
    subject: Option<&Subject>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let admin = Target::new(config)?;
    let memory = || subject.map(Subject::megabytes).transpose();
    let before = memory()?;
    let measured = async {
        let user = user(config, &admin).await?;
        fill(&user, load.clients, objects, report).await?;
        if let (Some(before), Some(after)) = (before, memory()?) {
            report.add("resident before", before, "MB");
            report.add(format!("resident with {objects} pods"), after, "MB");
        }
        api::measure(&user, load, report).await?;
        watched(&user, load.length, report).await?;
        listed(&user, report).await?;
        if let Some(after) = memory()? {
            report.add("resident after all", after, "MB");
        }
        anyhow::Ok(())
    };
    let measured = measured.await;
    for namespace in [NAMESPACE.as_str(), CROWD.as_str()] {
        remove(&admin, namespace, &["api/v1", "pods"]).await?;
    }
    once(&admin, Method::DELETE, &format!("{BINDINGS}/{NAMESPACE}"), Bytes::new()).await?;
    measured
}

const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// A service account that RBAC lets do everything; unlike the administrator, whose group needs no rules.
async fn user(config: &kube::Config, admin: &Target) -> anyhow::Result<Target> {
    for namespace in [NAMESPACE.as_str(), CROWD.as_str()] {
        make(admin, NAMESPACES, &named(namespace)).await?;
    }
    let accounts = format!("{NAMESPACES}/{NAMESPACE}/serviceaccounts");
    make(admin, &accounts, &named("bench")).await?;
    let binding = json!({
        "metadata": {"name": NAMESPACE.as_str()},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": NAMESPACE.as_str(), "name": "bench"}],
    });
    make(admin, BINDINGS, &binding).await?;
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = make(admin, &format!("{accounts}/bench/token"), &asked).await?;
    let token = token.pointer("/status/token").and_then(Value::as_str).context("the answer has no token")?;
    let user = Target::with_token(config, token)?;
    // A rule counts as soon as the server has heard of it, which is a moment after it was written.
    let begun = Instant::now();
    loop {
        let (code, body) =
            once(&user, Method::GET, &format!("{NAMESPACES}/{CROWD}/pods?limit=1"), Bytes::new()).await?;
        if code.is_success() {
            return Ok(user);
        }
        let is_early = code == StatusCode::FORBIDDEN && begun.elapsed() < PATIENCE;
        ensure!(is_early, "listing pods as the service account: {}", String::from_utf8_lossy(&body));
    }
}

/// Puts the pods in place.
async fn fill(target: &Target, clients: usize, objects: u64, report: &mut Report) -> anyhow::Result<()> {
    let (path, text) = (format!("{NAMESPACES}/{CROWD}/pods"), PodText::new());
    let made = load::run_until(target, clients, Until::Count(objects), move |n| {
        (Method::POST, path.clone(), text.of(format_args!("crowd-{n}")))
    });
    let made = made.await.context("putting pods in place")?;
    report.add(format!("creates of {objects} pods to begin with"), made.rate, "/s");
    Ok(())
}

/// How long it takes from sending a create to having the event, one create at a time.
async fn watched(target: &Target, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    let pods = format!("{NAMESPACES}/{NAMESPACE}/pods");
    let mut drivers = JoinSet::new();
    let mut watcher = target.connect(&mut drivers).await?;
    let selector = "labelSelector=watched%3Dyes";
    let response = watcher.send(Method::GET, &format!("{pods}?watch=1&{selector}"), Bytes::new()).await?;
    ensure!(response.status().is_success(), "watching pods: {}", response.status());
    let (tell, mut told) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut body = response.into_body();
        // Each event is a line; what matters is when its end arrives.
        while let Some(Ok(frame)) = body.frame().await {
            let now = Instant::now();
            let lines = frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
            for _ in 0..lines {
                if tell.send(now).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut connection = target.connect(&mut drivers).await?;
    let (histogram, start) = (Histogram::new(), Instant::now());
    for n in 0_u64.. {
        if start.elapsed() >= length {
            break;
        }
        let mut object = pod(&format!("watched-{n}"));
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.insert("watched".to_owned(), "yes".into());
        }
        let sent = Instant::now();
        let (code, body) = connection.call(Method::POST, &pods, object.to_string().into()).await?;
        ensure!(code.is_success(), "creating a pod: {}", String::from_utf8_lossy(&body));
        match tokio::time::timeout(PATIENCE, told.recv()).await {
            Ok(Some(at)) => histogram.record(at.saturating_duration_since(sent)),
            _ => bail!("the watcher was not told of a pod"),
        }
    }
    tasks.shutdown().await;
    drivers.shutdown().await;
    report.add("p50 from a create to its event", histogram.quantile(0.5), "ms");
    report.add("p99 from a create to its event", histogram.quantile(0.99), "ms");
    Ok(())
}

/// How long a list of everything takes.
async fn listed(target: &Target, report: &mut Report) -> anyhow::Result<()> {
    let (start, mut bytes) = (Instant::now(), 0);
    for _ in 0..LISTS {
        let path = format!("{NAMESPACES}/{CROWD}/pods");
        let (code, body) = once(target, Method::GET, &path, Bytes::new()).await?;
        ensure!(code.is_success(), "listing pods: {code}");
        bytes = body.len();
    }
    report.add("LIST of all pods in place", start.elapsed().as_secs_f64() * 1000.0 / f64::from(LISTS), "ms");
    #[expect(clippy::cast_precision_loss, reason = "a list's size is far below 2^52")]
    report.add("  its size", bytes as f64 / 1e6, "MB");
    Ok(())
}
