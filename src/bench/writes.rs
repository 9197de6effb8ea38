//! Writes that take more than a create does: server-side apply, creates that webhooks are asked about, and definitions of
//! new kinds.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    api::{NAMESPACE, NAMESPACES, PodText, make, named, once, remove},
    load::{self, Histogram, Load, Outcome, Target},
    process::Subject,
    report::Report,
    reviewer::Reviewer,
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Objects that are applied to side by side.
const APPLIED: u64 = 64;

/// How long a new kind may take to be served before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures, and removes what it made.
pub(crate) async fn run(
    config: &kube::Config,
    load: Load,
    definitions: u64,
    subject: Option<&Subject>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let target = Target::new(config)?;
    make(&target, NAMESPACES, &named(NAMESPACE.as_str())).await?;
    let measured = async {
        applied(&target, load, report).await?;
        reviewed(&target, load, report).await?;
        defined(&target, definitions, subject, report).await
    };
    let measured = measured.await;
    for n in 0..definitions {
        once(&target, Method::DELETE, &format!("{DEFINITIONS}/{}", plural(n) + "." + GROUP), Bytes::new()).await?;
    }
    once(&target, Method::DELETE, &deployments(), Bytes::new()).await.context("removing the Deployments")?;
    remove(&target, NAMESPACE.as_str(), &["api/v1", "pods"]).await?;
    measured
}

fn deployments() -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments")
}

/// A Deployment of about 2 KB that makes no pods.
fn deployment(name: &str, turn: u64) -> Value {
    let environment: Vec<_> =
        (0..16).map(|n| json!({"name": format!("SETTING_{n}"), "value": "x".repeat(40)})).collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"turn": turn.to_string()}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main", "image": "registry.example/bench:1", "env": environment,
                    "ports": [{"containerPort": 8080}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                }]},
            },
        },
    })
}

fn add(report: &mut Report, what: &str, outcome: Outcome) {
    report.add(what, outcome.rate, "/s");
    report.add("  p50", outcome.p50, "ms");
    report.add("  p99", outcome.p99, "ms");
}

/// Applies that change something each time, one after the other and side by side.
async fn applied(target: &Target, load: Load, report: &mut Report) -> anyhow::Result<()> {
    for (clients, what) in [(1, "applies of a 2 KB Deployment, one client"), (load.clients, "applies side by side")] {
        let path = deployments();
        let outcome = load::run(target, Load { clients, ..load }, move |n| {
            let name = format!("applied-{clients}-{}", n % APPLIED);
            let path = format!("{path}/{name}?fieldManager=bench&force=true");
            (Method::PATCH, path, deployment(&name, n).to_string().into())
        });
        add(report, what, outcome.await.context("applying Deployments")?);
    }
    Ok(())
}

/// One client's creates, without webhooks and through two of them.
async fn reviewed(target: &Target, load: Load, report: &mut Report) -> anyhow::Result<()> {
    let pods = format!("{NAMESPACES}/{NAMESPACE}/pods");
    let create = |prefix: &'static str, clients| {
        let (path, text) = (pods.clone(), PodText::new());
        load::run(target, Load { clients, ..load }, move |n| {
            (Method::POST, path.clone(), text.of(format_args!("{prefix}-{n}")))
        })
    };
    add(report, "creates, one client", create("alone", 1).await?);
    let mut tasks = JoinSet::new();
    let reviewer = Reviewer::start(&mut tasks).await?;
    let mut paths = Vec::new();
    for (kind, plural) in [
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        make(target, &path, &reviewer.configuration(kind, NAMESPACE.as_str())).await?;
        paths.push(format!("{path}/{NAMESPACE}"));
    }
    let measured = async {
        reviewer.is_asked(target, &pods).await?;
        add(report, "creates through two webhooks, one client", create("reviewed", 1).await?);
        add(report, "creates through two webhooks, side by side", create("crowded", load.clients).await?);
        anyhow::Ok(())
    };
    let measured = measured.await;
    for path in paths {
        once(target, Method::DELETE, &path, Bytes::new()).await?;
    }
    tasks.shutdown().await;
    measured
}

const GROUP: &str = "bench.coracle.example";

fn plural(n: u64) -> String {
    format!("things{n}")
}

/// A definition as large as operators' usually are: some 50 KB, most of it descriptions.
fn definition(n: u64) -> Value {
    let text = "What this setting does, when it takes effect, and what is taken when it is left out.";
    let fields: serde_json::Map<String, Value> = (0..10)
        .map(|field| (format!("field{field}"), json!({"type": "string", "description": text, "maxLength": 253})))
        .collect();
    let sections: serde_json::Map<String, Value> = (0..36)
        .map(|section| {
            let schema = json!({"type": "object", "description": text, "properties": fields});
            (format!("section{section}"), schema)
        })
        .collect();
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": sections},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let plural = plural(n);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": plural, "singular": format!("thing{n}"), "kind": format!("Thing{n}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                          "subresources": {"status": {}}}],
        },
    })
}

/// How long it takes from sending a definition until its kind can be listed, and what many of them weigh.
async fn defined(
    target: &Target,
    definitions: u64,
    subject: Option<&Subject>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let before = subject.map(Subject::megabytes).transpose()?;
    let mut drivers = JoinSet::new();
    let mut connection = target.connect(&mut drivers).await?;
    let (histogram, mut size) = (Histogram::new(), 0);
    for n in 0..definitions {
        let body = definition(n).to_string();
        size = body.len();
        let sent = Instant::now();
        let (code, answer) = connection.call(Method::POST, DEFINITIONS, body.into()).await?;
        ensure!(code.is_success(), "creating a definition: {}", String::from_utf8_lossy(&answer));
        let path = format!("/apis/{GROUP}/v1/{}", plural(n));
        loop {
            let (code, answer) = connection.call(Method::GET, &path, Bytes::new()).await?;
            if code == StatusCode::OK {
                break;
            }
            let is_early = code == StatusCode::NOT_FOUND && sent.elapsed() < PATIENCE;
            ensure!(is_early, "listing a new kind: {}", String::from_utf8_lossy(&answer));
        }
        histogram.record(sent.elapsed());
    }
    drivers.shutdown().await;
    #[expect(clippy::cast_precision_loss, reason = "a definition's size is far below 2^52")]
    report.add("size of a definition", size as f64 / 1e3, "KB");
    report.add("  p50 from its creation to being served", histogram.quantile(0.5), "ms");
    report.add("  p99", histogram.quantile(0.99), "ms");
    if let (Some(before), Some(subject)) = (before, subject) {
        report.add("resident before definitions", before, "MB");
        report.add(format!("resident with {definitions} definitions"), subject.megabytes()?, "MB");
    }
    Ok(())
}
