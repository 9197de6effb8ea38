//! The node's own object: registered at the start, its status written when it changes, its lease kept.

pub(crate) mod enforcement;
pub(crate) mod machine;
pub(crate) mod reservation;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use coracle_network::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::event::Kind;
use crate::eviction::Pressure;
use crate::eviction::threshold::Thresholds;
use crate::power::Power;
use machine::Machine;

/// The version of Kubernetes whose behaviour this is.
pub(crate) const VERSION: &str = concat!("v1.36.0+coracle", env!("CARGO_PKG_VERSION"));
/// The handlers of runtime classes that this node has, which all mean its one runtime. The second is what most manifests name
/// that only want to name one.
pub(crate) const HANDLERS: [&str; 3] = ["", "runc", "coracle"];
/// How often the status is looked at; it is written only when it changed, or once in [`REPORT`].
const LOOK: Duration = Duration::from_secs(60);
/// How often the status is written although nothing changed, so that its heartbeat does not look dead.
const REPORT: Duration = Duration::from_secs(300);
/// The most images a node tells of.
const IMAGES: usize = 50;

/// Whether the node can take pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It has no range of addresses for them yet. Left when the cluster gives it one.
    NoRange,
    /// It can.
    Ready,
    /// The machine goes down.
    GoingDown,
}

impl Readiness {
    /// Why it cannot, in kubelet's words as far as it has any.
    fn hindrance(self) -> &'static str {
        match self {
            Self::NoRange => {
                "container runtime network not ready: the node waits for its range of pod addresses (spec.podCIDR)"
            }
            Self::Ready => "",
            Self::GoingDown => "node is shutting down",
        }
    }
}

/// The range of pod addresses a node was given, if it was.
///
/// # Errors
/// The text, if it is no IPv4 range.
pub(crate) fn range_of(node: &Node) -> Result<Option<Ipv4Net>, String> {
    let given = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).filter(|text| !text.is_empty());
    given.map(|text| text.parse().map_err(|_| text.to_owned())).transpose()
}

/// The node's object as it is to be registered, asking for a range of pod addresses or for none.
pub(crate) fn node(
    config: &Config,
    machine: &Machine,
    port: u16,
    range: Option<Ipv4Net>,
    readiness: Readiness,
) -> Node {
    let mut labels = config.labels.clone();
    let arch = go_arch();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(key.into(), value.into());
    }
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: range.map(|range| range.to_string()),
            pod_cidrs: range.map(|range| vec![range.to_string()]),
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status(
            config,
            machine,
            port,
            &[],
            None,
            (readiness, Pressure::of(machine, &config.thresholds)),
            Timestamp::now(),
        )),
    }
}

/// This machine's architecture in Go's words.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// What the machine has.
pub(crate) fn capacity(machine: &Machine, max_pods: usize) -> BTreeMap<String, Quantity> {
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", machine.memory / 1024))),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", machine.disk / 1024))),
        ("pods".to_owned(), Quantity(max_pods.to_string())),
    ]);
    for (size, count) in &machine.hugepages {
        all.insert(format!("hugepages-{size}"), Quantity(count.to_string()));
    }
    all.extend(machine.devices.iter().map(|(class, count)| (class.clone(), Quantity(count.to_string()))));
    all
}

/// What pods may take of it: memory without the eviction threshold, disk without its tenth, and nothing of what is reserved.
pub(crate) fn allocatable(
    machine: &Machine,
    max_pods: usize,
    reserved: &BTreeMap<String, i128>,
    thresholds: &Thresholds,
) -> BTreeMap<String, Quantity> {
    let mut all = capacity(machine, max_pods);
    let most = reservation::reservable(machine, thresholds);
    // In thousandths. The disk may have become smaller since the reservations were found to fit.
    let rest = |name: &str| {
        let has = most.get(name).copied().unwrap_or(0);
        (i128::from(has) * 1000 - reserved.get(name).copied().unwrap_or(0)).max(0)
    };
    let cpus = rest("cpu");
    let cpus = if cpus % 1000 == 0 { (cpus / 1000).to_string() } else { format!("{cpus}m") };
    let memory = rest("memory") / 1000;
    let disk = rest("ephemeral-storage") / 1000;
    all.insert("cpu".into(), Quantity(cpus));
    all.insert("memory".into(), Quantity(format!("{}Ki", memory / 1024)));
    all.insert("ephemeral-storage".into(), Quantity(disk.to_string()));
    all
}

/// The node's status.
fn status(
    config: &Config,
    machine: &Machine,
    port: u16,
    images: &[ContainerImage],
    old: Option<&NodeStatus>,
    (readiness, pressure): (Readiness, Pressure),
    now: Timestamp,
) -> NodeStatus {
    let pressed = |holds: bool, reason: (&str, &str), message: (&str, &str)| {
        if holds {
            ("True", reason.0.to_owned(), message.0.to_owned())
        } else {
            ("False", reason.1.to_owned(), message.1.to_owned())
        }
    };
    let wanted = [
        (
            "MemoryPressure",
            pressed(
                pressure.memory,
                ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
                ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
            ),
        ),
        (
            "DiskPressure",
            pressed(
                pressure.disk,
                ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
                ("kubelet has disk pressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pressed(
                pressure.pids,
                ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
                ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
            ),
        ),
        (
            "Ready",
            pressed(
                readiness == Readiness::Ready,
                ("KubeletReady", "KubeletNotReady"),
                ("kubelet is posting ready status", readiness.hindrance()),
            ),
        ),
    ];
    let conditions = wanted
        .into_iter()
        .map(|(type_, (status, reason, message))| {
            let before = old.and_then(|o| o.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == type_);
            let since = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: Some(since.unwrap_or(Time(now))),
            }
        })
        .collect();
    NodeStatus {
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".into(), address: config.node_ip.to_string() },
            NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() },
        ]),
        capacity: Some(capacity(machine, config.max_pods)),
        allocatable: Some(allocatable(machine, config.max_pods, &config.reserved, &config.thresholds)),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images: (!images.is_empty()).then(|| images.to_vec()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        runtime_handlers: Some(
            HANDLERS.map(|name| NodeRuntimeHandler { name: Some(name.to_owned()), features: None }).to_vec(),
        ),
        node_info: Some(NodeSystemInfo {
            architecture: go_arch().into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("coracle://{}", env!("CARGO_PKG_VERSION")),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: VERSION.into(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            swap: None,
            system_uuid: machine.system_uuid.clone(),
        }),
        ..NodeStatus::default()
    }
}

/// Makes the node's object, or takes over the one there is.
///
/// # Errors
/// The API server's answer; it may be tried again.
pub(crate) async fn register(config: &Config, client: &kube::Client, wanted: &Node) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let registered = match api.create(&PostParams::default(), wanted).await {
        Ok(node) => node,
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            // The labels this agent stands for; others' labels, taints and the given range are left as they are.
            let patch = json!({"metadata": {"labels": wanted.metadata.labels}});
            let node = api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            match wanted.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()) {
                Some(range) if range_of(&node) == Ok(None) => {
                    let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
                    api.patch(&config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?
                }
                _ => node,
            }
        }
        Err(error) => return Err(error),
    };
    let patch = json!({"status": wanted.status});
    api.patch_status(
        registered.metadata.name.as_deref().unwrap_or_default(),
        &PatchParams::default(),
        &Patch::Strategic(patch),
    )
    .await
}

/// The node as the API server has it now, or, if that does not answer, as it was last seen.
pub(crate) async fn look(context: &Context) -> Arc<Node> {
    let api: Api<Node> = Api::all(context.client.clone());
    match api.get(&context.config.node_name).await {
        Ok(node) => {
            let node = Arc::new(node);
            *context.node.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::clone(&node);
            node
        }
        Err(error) => {
            tracing::warn!(error = &error as &(dyn StdError + 'static), "node not looked at");
            context.node()
        }
    }
}

/// Keeps the node's status true until `shutdown`, or until the cluster gives the node's range of addresses to another one.
pub(crate) async fn keep_status(context: Arc<Context>, port: u16, range: Ipv4Net, shutdown: CancellationToken) {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut written: Option<(NodeStatus, tokio::time::Instant)> = None;
    let mut pressure = context.pressure.clone();
    let mut power = context.power.clone();
    let mut plugged = context.devices.changes();
    loop {
        plugged.mark_unchanged();
        let short = *pressure.borrow_and_update();
        let readiness = match *power.borrow_and_update() {
            Power::Up => Readiness::Ready,
            Power::GoingDown => Readiness::GoingDown,
        };
        let now = Timestamp::now();
        let config = context.config.clone();
        let data_dir = config.data_dir.clone();
        let machine = tokio::task::spawn_blocking(move || machine::read(&data_dir)).await;
        if let Ok(Ok(mut machine)) = machine {
            machine.devices = context.devices.counts();
            let images = images(&context);
            let old = written.as_ref().map(|(s, _)| s.clone()).or_else(|| context.node().status.clone());
            let new = status(&config, &machine, port, &images, old.as_ref(), (readiness, short), now);
            let due = written.as_ref().is_none_or(|(_, at)| at.elapsed() >= REPORT);
            if due || old.as_ref().is_none_or(|o| differs(o, &new)) {
                match api
                    .patch_status(&config.node_name, &PatchParams::default(), &Patch::Strategic(json!({"status": new})))
                    .await
                {
                    Ok(node) => {
                        if let Ok(Some(other)) = range_of(&node)
                            && other != range
                        {
                            tracing::error!(pod_cidr = %other, "the cluster gave this node another range");
                            return;
                        }
                        *context.node.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(node);
                        for reason in turns(old.as_ref(), &new) {
                            tell_turn(&context, reason);
                        }
                        written = Some((new, tokio::time::Instant::now()));
                    }
                    Err(kube::Error::Api(status)) if status.is_not_found() => {
                        // Its range may be another node's by now, so none is asked for; it gets the next one that is
                        // free, which most likely is its own.
                        let wanted = self::node(&config, &machine, port, None, Readiness::Ready);
                        if let Err(error) = register(&config, &context.client, &wanted).await {
                            tracing::warn!(error = &error as &(dyn StdError + 'static), "node not registered again");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &(dyn StdError + 'static), "node status not written");
                    }
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            Ok(()) = pressure.changed() => {}
            Ok(()) = power.changed() => {}
            Ok(()) = plugged.changed() => {}
        }
    }
}

/// Whether two statuses differ in more than their heartbeats.
fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status.conditions.iter_mut().for_each(|c| c.sort_by(|a, b| a.type_.cmp(&b.type_)));
        status
    };
    still(old) != still(new)
}

fn images(context: &Context) -> Vec<ContainerImage> {
    let mut images: Vec<ContainerImage> = context
        .images
        .list()
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(5).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    // Kubernetes tells of the largest ones.
    images.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    images.truncate(IMAGES);
    images
}

/// Renews the node's lease until `shutdown`. `owner` tells the uid of the node's object.
pub(crate) async fn keep_lease(
    config: &Config,
    client: kube::Client,
    owner: impl Fn() -> Option<String> + Send,
    shutdown: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let duration = i32::try_from(config.lease_renewal.as_secs().saturating_mul(2)).unwrap_or(40).max(1);
    let mut made = false;
    loop {
        let now = MicroTime(Timestamp::now());
        let result = if made {
            let patch = json!({"spec": {"renewTime": now}});
            api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        } else {
            make_lease(&config.node_name, owner(), &api, duration, now).await
        };
        let wait = match result {
            Ok(()) => {
                made = true;
                config.lease_renewal
            }
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "lease not renewed");
                made = false;
                Duration::from_secs(2).min(config.lease_renewal)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn make_lease(
    name: &str,
    owner: Option<String>,
    api: &Api<Lease>,
    duration: i32,
    now: MicroTime,
) -> Result<(), kube::Error> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(duration),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("kube-node-lease".into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: name.to_owned(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(spec.clone()),
    };
    match api.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// The events that tell how conditions have turned, in kubelet's words.
fn turns(old: Option<&NodeStatus>, new: &NodeStatus) -> Vec<&'static str> {
    const WORDS: [(&str, &str, &str); 4] = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let state = |status: Option<&NodeStatus>, kind: &str| {
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.find(|condition| condition.type_ == kind).map(|condition| condition.status.clone())
    };
    let turned = |(kind, yes, no): (&str, &'static str, &'static str)| {
        let now = state(Some(new), kind)?;
        (state(old, kind)? != now).then_some(if now == "True" { yes } else { no })
    };
    WORDS.into_iter().filter_map(turned).collect()
}

fn tell_turn(context: &Context, reason: &'static str) {
    let message = format!("Node {} status is now: {reason}", context.config.node_name);
    context.events.node(&context.node(), Kind::Normal, reason, message);
}

/// Tells that the node began, and whether its machine has since an agent was here last.
pub(crate) async fn announce(context: &Context, machine: &Machine) {
    context.events.node(&context.node(), Kind::Normal, "Starting", "Starting kubelet.".into());
    let (file, boot) = (context.config.data_dir.join("boot_id"), machine.boot_id.clone());
    let before = tokio::task::spawn_blocking(move || {
        let before = std::fs::read_to_string(&file).ok().filter(|before| *before != boot);
        if before.is_some() || !file.exists() {
            std::fs::write(&file, boot)?;
        }
        Ok::<_, std::io::Error>(before)
    });
    match before.await.map_err(std::io::Error::other).flatten() {
        Ok(Some(_)) => {
            let (name, boot) = (&context.config.node_name, &machine.boot_id);
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            context.events.node(&context.node(), Kind::Warning, "Rebooted", message);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(error = &error as &(dyn StdError + 'static), "boot id not kept"),
    }
    tell_turn(context, "NodeReady");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(conditions: &[(&str, &str)]) -> NodeStatus {
        let one = |(type_, status): &(&str, &str)| NodeCondition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        };
        NodeStatus { conditions: Some(conditions.iter().map(one).collect()), ..NodeStatus::default() }
    }

    #[test]
    fn pods_may_take_what_is_neither_reserved_nor_a_threshold() {
        let machine = Machine { cpus: 4, memory: 4 << 30, disk: 100 << 30, ..Machine::default() };
        let of = |reserved: &[(&str, i128)]| {
            let reserved = reserved.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
            let all = allocatable(&machine, 110, &reserved, &Thresholds::usual());
            ["cpu", "memory", "ephemeral-storage", "pods"].map(|name| all[name].0.clone()).join(" ")
        };
        assert_eq!(of(&[]), "4 4091904Ki 96636764160 110");
        assert_eq!(
            of(&[("cpu", 300), ("memory", 1000 << 30), ("ephemeral-storage", 1000 << 30)]),
            "3700m 3043328Ki 95563022336 110"
        );
        assert_eq!(of(&[("cpu", 1000)]), "3 4091904Ki 96636764160 110");
        assert_eq!(of(&[("memory", 1_000_000 << 30)]), "4 0Ki 96636764160 110");
    }

    #[test]
    fn what_has_turned_is_told_and_nothing_else() {
        let calm =
            of(&[("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")]);
        let short =
            of(&[("MemoryPressure", "True"), ("DiskPressure", "True"), ("PIDPressure", "True"), ("Ready", "False")]);
        assert_eq!(turns(None, &calm), Vec::<&str>::new());
        assert_eq!(turns(Some(&calm), &calm), Vec::<&str>::new());
        let words = ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID", "NodeNotReady"];
        assert_eq!(turns(Some(&calm), &short), words);
        let words = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(turns(Some(&short), &calm), words);
    }
}
