//! `metrics.k8s.io`: what nodes and pods use, as `kubectl top` shows it, asked of the nodes when somebody wants to know.
//!
//! ```text
//!   which pods, on which nodes (the store) ──► asking ──► each node's /stats/summary, twice ──► summary   what it says
//!                                                │                                                │
//!   NodeMetrics, PodMetrics ◄────────────────────┴──────────────────── figures ◄──────────────── rate    what that means
//! ```
//!
//! Kubernetes has a program of its own for this, metrics-server, which asks all nodes four times a minute whether anybody
//! wants to know or not. Who installs it makes its API service the one of this group, and nothing comes here any more.
//!
//! **Invariant:** nobody is asked while nobody wants to know. A node is believed about its own pods alone: what it says of
//! others is not looked at.

mod asking;
mod rate;
mod summary;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{go_duration, status::Status};
use coracle_store::{Entry, Range, Revision};
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Deserialize, Serialize};

use self::{
    asking::{Asking, Source},
    rate::{Figures, PodFigures, Window},
};
use crate::{
    kinds::{
        node_metrics::NodeMetrics,
        pod_metrics::{ContainerMetrics, PodMetrics},
        usage,
    },
    registry::{Registry, Selection, unstored},
    security::{Security, address_of},
    status_of::{self, Result},
    stored::{self, Header},
    upstream::connect::joined,
};

const GROUP: &str = "metrics.k8s.io";
const NODES: &str = "nodes";
const PODS: &str = "pods";

/// As large as a node's summary may be: some ten thousand containers.
const MAX_SUMMARY: usize = 4 * 1024 * 1024;

/// The nodes' servers, by the way that logs and proxied requests take.
struct Servers {
    registry: Registry,
    security: Arc<Security>,
}

impl Servers {
    async fn ask(&self, name: &str) -> Result<Bytes, String> {
        let node = self.registry.get_typed::<Node>("", name).map_err(|status| status.message)?;
        let node = node.ok_or("there is no such node")?;
        if is_silent(&node) {
            return Err("the node has not been heard of for a while".to_owned());
        }
        let (host, port) = address_of(&node).map_err(|status| status.message)?;
        let address = joined(&host, port);
        let request = Request::get("/").header(header::HOST, &address).body(Body::empty());
        let request = request.map_err(|error| error.to_string())?;
        let to = Uri::from_static("/stats/summary");
        let response = self.security.nodes.pass(name, &address, request, to).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the node answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_SUMMARY).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }
}

impl Source for Servers {
    fn summary<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Bytes, String>> {
        self.ask(node).boxed()
    }
}

/// Whether the cluster has given up waiting for a node: nobody is to wait for it here once more.
fn is_silent(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}

/// What is looked at of a stored pod.
#[derive(Deserialize)]
struct PodView<'a> {
    #[serde(borrow)]
    metadata: PodMeta<'a>,
    #[serde(borrow)]
    spec: PodSpec<'a>,
    #[serde(borrow, default)]
    status: PodStatus<'a>,
}

#[derive(Deserialize)]
struct PodMeta<'a> {
    #[serde(borrow, default)]
    annotations: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(borrow, default)]
    node_name: Cow<'a, str>,
    #[serde(borrow)]
    containers: Vec<ContainerView<'a>>,
    #[serde(borrow, default)]
    init_containers: Option<Vec<ContainerView<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerView<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    restart_policy: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct PodStatus<'a> {
    #[serde(borrow, default)]
    phase: Cow<'a, str>,
}

impl<'a> PodView<'a> {
    fn of(entry: &'a Entry) -> Result<Self> {
        let read = serde_json::from_slice(&entry.value);
        read.map_err(|error| status_of::broken("a stored pod cannot be read", &error))
    }

    /// The node that can say something of the pod.
    fn node(&self) -> Option<&str> {
        let is_over = matches!(self.status.phase.as_ref(), "Succeeded" | "Failed");
        Some(self.spec.node_name.as_ref()).filter(|node| !is_over && !node.is_empty())
    }

    /// Whether it shows a static pod, which its node knows by another uid.
    fn is_mirror(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"))
    }

    /// Whether a container of this name is one of the application's, or beside it: those that come first end before it
    /// begins, and ephemeral ones are somebody's who looks after it.
    fn has(&self, name: &str) -> bool {
        let init = self.spec.init_containers.iter().flatten();
        let beside = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        self.spec.containers.iter().chain(beside).any(|container| container.name == name)
    }

    /// What the node says of this pod and no other.
    fn figures<'f>(&self, header: &Header, figures: &'f Figures) -> Option<&'f PodFigures> {
        let found = figures.pods.get(&(header.namespace.clone(), header.name.clone()))?;
        Some(found).filter(|found| found.uid == header.uid || self.is_mirror())
    }
}

fn metadata(header: &Header, now: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: Some(header.name.clone()),
        namespace: Some(header.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        labels: Some(header.labels.clone()).filter(|labels| !labels.is_empty()),
        // It is made here and now, as metrics-server says of its own.
        creation_timestamp: Some(Time(now)),
        ..ObjectMeta::default()
    }
}

/// The end of a window, which is told in whole seconds, and its length.
fn told(window: &Window) -> (Time, String) {
    let second = Timestamp::from_second(window.end.as_second()).unwrap_or(window.end);
    (Time(second), go_duration::show(window.length))
}

fn entry(header: &Header, object: &impl Serialize) -> Result<Arc<Entry>> {
    let json = serde_json::to_vec(object);
    let json = json.map_err(|error| status_of::broken("an answer cannot be encoded", &error))?;
    Ok(unstored(header.key().into(), json, Revision::NONE))
}

fn node_metrics(header: &Header, figures: &Figures, now: Timestamp) -> Option<Result<Arc<Entry>>> {
    let (window, used) = figures.node.as_ref()?;
    let (timestamp, window) = told(window);
    let metadata = metadata(header, now);
    Some(entry(header, &NodeMetrics { metadata, timestamp, window, usage: usage::usage(used.cpu, used.memory) }))
}

fn pod_metrics(header: &Header, pod: &PodView<'_>, figures: &Figures, now: Timestamp) -> Option<Result<Arc<Entry>>> {
    let found = pod.figures(header, figures)?;
    let own = found.containers.iter().filter(|(name, _)| pod.has(name));
    let containers: Vec<ContainerMetrics> = own
        .map(|(name, used)| ContainerMetrics { name: name.clone(), usage: usage::usage(used.cpu, used.memory) })
        .collect();
    let (timestamp, window) = told(&found.window);
    let metadata = metadata(header, now);
    (!containers.is_empty()).then(|| entry(header, &PodMetrics { metadata, timestamp, window, containers }))
}

/// See the module.
pub(crate) struct ResourceMetrics {
    registry: Registry,
    asking: Arc<Asking<Servers>>,
}

impl ResourceMetrics {
    /// Nobody has been asked yet.
    pub(crate) fn new(registry: Registry, security: Arc<Security>) -> Self {
        let asking = Asking::new(Servers { registry: registry.clone(), security });
        Self { registry, asking }
    }

    /// Forgets what is known.
    pub(crate) async fn stop(&self) {
        self.asking.stop().await;
    }

    /// The stored objects of a namespace (of all, when it is empty) that are selected.
    fn selected(&self, storage: &str, namespace: &str, selection: &Selection) -> Result<Vec<Arc<Entry>>> {
        let range = Range::prefix(stored::prefix(storage, namespace));
        let found = self.registry.store().range(&range).map_err(|error| status_of::store(&error))?;
        Ok(found.entries.into_iter().filter(|entry| selection.takes_header(&Header::of(entry))).collect())
    }

    /// NodeMetrics of the selected nodes that say something, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn nodes(&self, selection: &Selection) -> Result<Vec<Arc<Entry>>> {
        let headers: Vec<_> = self.selected(NODES, "", selection)?.iter().map(|entry| Header::of(entry)).collect();
        let figures = self.asking.figures(headers.iter().map(|header| header.name.clone()).collect()).await;
        let now = Timestamp::now();
        let told = |header: &Arc<Header>| node_metrics(header, figures.get(&header.name)?, now);
        headers.iter().filter_map(told).collect()
    }

    /// NodeMetrics of one node.
    ///
    /// # Errors
    /// 404 if there is no such node, or it says nothing; the words are metrics-server's.
    pub(crate) async fn node(&self, name: &str) -> Result<Arc<Entry>> {
        let found = self.registry.store().get(&stored::key(NODES, "", name));
        let header = Header::of(&*found.ok_or_else(|| Box::new(Status::not_found("", "node", name)))?);
        let figures = self.asking.figures(BTreeSet::from([name.to_owned()])).await;
        let told = figures.get(name).and_then(|figures| node_metrics(&header, figures, Timestamp::now()));
        told.unwrap_or_else(|| Err(Box::new(Status::not_found(GROUP, "nodemetrics", name))))
    }

    /// PodMetrics of the selected pods of a namespace (of all, when it is empty) whose nodes say something of them, by
    /// namespace and name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn pods(&self, namespace: &str, selection: &Selection) -> Result<Vec<Arc<Entry>>> {
        let found = self.selected(PODS, namespace, selection)?;
        let pods = found.iter().map(|entry| Ok((Header::of(entry), PodView::of(entry)?)));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        let nodes = pods.iter().filter_map(|(_, pod)| pod.node().map(str::to_owned)).collect();
        let figures = self.asking.figures(nodes).await;
        let now = Timestamp::now();
        let told =
            |(header, pod): &(Arc<Header>, PodView<'_>)| pod_metrics(header, pod, figures.get(pod.node()?)?, now);
        pods.iter().filter_map(told).collect()
    }

    /// PodMetrics of one pod.
    ///
    /// # Errors
    /// 404 if there is no such pod, or its node says nothing of it; the words are metrics-server's.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Entry>> {
        let found = self.registry.store().get(&stored::key(PODS, namespace, name));
        let found = found.ok_or_else(|| Box::new(Status::not_found("", PODS, name)))?;
        let (header, pod) = (Header::of(&found), PodView::of(&found)?);
        let figures = self.asking.figures(pod.node().map(str::to_owned).into_iter().collect()).await;
        let figures = pod.node().and_then(|node| figures.get(node));
        let told = figures.and_then(|figures| pod_metrics(&header, &pod, figures, Timestamp::now()));
        told.unwrap_or_else(|| Err(Box::new(Status::not_found(GROUP, "podmetrics", &header.key()))))
    }
}

#[cfg(test)]
mod tests;
