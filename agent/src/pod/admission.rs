//! Whether a pod that was bound here may run here, as kubelet checks once more before it starts anything.

use coracle_proto::placement::matches_required;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::resources::{self, Amounts};
use super::{is_sidecar, security, spec};
use crate::eviction::Pressure;
use crate::power;

/// Why a pod is refused: the reason and the message of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `OutOfcpu`, `NodeAffinity`, …
    pub(crate) reason: String,
    /// The words behind it.
    pub(crate) message: String,
}

impl Refusal {
    /// The reason of the event about it.
    pub(crate) fn event(&self) -> &'static str {
        match self.reason.as_str() {
            "OutOfcpu" => "OutOfcpu",
            "OutOfmemory" => "OutOfmemory",
            "OutOfpods" => "OutOfpods",
            "NodeAffinity" => "NodeAffinity",
            "NodePorts" => "NodePorts",
            "PodOSNotSupported" => "PodOSNotSupported",
            "AppArmor" => "AppArmor",
            "SysctlForbidden" => "SysctlForbidden",
            "Evicted" => "Evicted",
            "NodeShutdown" => "NodeShutdown",
            _ => "UnexpectedAdmissionError",
        }
    }
}

/// What the node has, and what the pods on it have taken already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Allocatable amounts, in thousandths.
    pub(crate) allocatable: Amounts,
    /// Requested by the pods that were admitted.
    pub(crate) used: Amounts,
    /// How many those are.
    pub(crate) pods: usize,
    /// How many there may be.
    pub(crate) max_pods: usize,
    /// Ports of the host that are taken: address, protocol, number.
    pub(crate) ports: Vec<Port>,
    /// What the node is short of.
    pub(crate) pressure: Pressure,
    /// Kernel parameters that may be set besides the safe ones: names, or beginnings that end in `.*`.
    pub(crate) sysctls: Vec<String>,
    /// The machine goes down.
    pub(crate) going_down: bool,
    /// Whether the host has AppArmor.
    pub(crate) app_armor: bool,
}

/// A port of the host: the address (all of them if empty), the protocol and the number.
pub(crate) type Port = (String, String, i32);

/// The ports of the host that `pod` wants.
pub(crate) fn ports(pod: &Pod) -> Vec<Port> {
    published(pod).map(|(port, _)| port).collect()
}

/// The same, each with the port of the container it is to lead to.
pub(crate) fn published(pod: &Pod) -> impl Iterator<Item = (Port, i32)> {
    let all = spec(pod).containers().iter().chain(spec(pod).init_containers().iter().filter(|c| is_sidecar(c)));
    all.flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
        let any = |ip: &String| ip == "0.0.0.0" || ip == "::";
        let ip = port.host_ip.clone().filter(|ip| !any(ip)).unwrap_or_default();
        let host = (ip, port.protocol.clone().unwrap_or_else(|| "TCP".into()), port.host_port.filter(|p| *p > 0)?);
        Some((host, port.container_port))
    })
}

fn collide(a: &Port, b: &Port) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
}

/// Kernel parameters of a pod's own namespaces that cannot hurt other pods (KEP-34).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// A kernel parameter's name with dots. It may be written with slashes, and then dots are part of a name (sysctl(8)).
pub(crate) fn sysctl_name(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|first| name.get(first..).is_some_and(|rest| rest.starts_with('.'))) {
        return name.to_owned();
    }
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swapped).collect()
}

/// What a pod wants of the kernel that it may not have.
fn forbidden_sysctl(pod: &Pod, allowed: &[String]) -> Option<String> {
    let spec = spec(pod).0?;
    let context = spec.security_context.as_ref()?;
    context.sysctls.iter().flatten().find_map(|sysctl| {
        let name = sysctl_name(&sysctl.name);
        let covers = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => *pattern == name,
        };
        if allowed.iter().any(covers) {
            return None;
        }
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        let (namespace, shared) = match name.starts_with("net.") {
            true => ("net", spec.host_network),
            false => ("ipc", spec.host_ipc),
        };
        (shared == Some(true)).then(|| format!("forbidden sysctl: {name:?} not allowed with host {namespace} enabled"))
    })
}

/// Checks `pod` against the node.
pub(crate) fn admit(pod: &Pod, node: &Node, room: &Room) -> Result<(), Refusal> {
    if room.going_down {
        return Err(Refusal { reason: "NodeShutdown".into(), message: power::REFUSAL.into() });
    }
    if let Some(message) = room.pressure.refuses(pod) {
        return Err(Refusal { reason: "Evicted".into(), message });
    }
    if let Some(message) = forbidden_sysctl(pod, &room.sysctls) {
        return Err(Refusal { reason: "SysctlForbidden".into(), message });
    }
    if spec(pod).0.and_then(|s| s.os.as_ref()).is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS".into();
        return Err(Refusal { reason: "PodOSNotSupported".into(), message });
    }
    if let Some(why) = unenforceable_app_armor(pod, room.app_armor) {
        return Err(Refusal { reason: "AppArmor".into(), message: format!("Cannot enforce AppArmor: {why}") });
    }
    has_room(pod, room)?;
    if ports(pod).iter().any(|port| room.ports.iter().any(|taken| collide(port, taken))) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into();
        return Err(Refusal { reason: "NodePorts".into(), message });
    }
    if !matches_node(pod, node) {
        return Err(Refusal {
            reason: "NodeAffinity".into(),
            message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
        });
    }
    Ok(())
}

/// Whether it is a resource that is none of Kubernetes' own.
pub(crate) fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// What of the node `pod` requests. Extended resources that no node has are the cluster's, which nobody counts here.
fn counted_requests(pod: &Pod, room: &Room) -> Amounts {
    let mut requests = resources::pod_requests(pod);
    requests.retain(|name, _| !is_extended(name) || room.allocatable.contains_key(name));
    requests
}

/// What the node has too little of for `pod`, and how much, in thousandths; `pods` is the number of them.
pub(crate) fn shortage(pod: &Pod, room: &Room) -> Amounts {
    let mut short = Amounts::new();
    if room.pods >= room.max_pods {
        short.insert("pods".to_owned(), 1000);
    }
    for (name, wanted) in counted_requests(pod, room) {
        let amount = |of: &Amounts| of.get(&name).copied().unwrap_or(0);
        let missing = amount(&room.used) + wanted - amount(&room.allocatable);
        if wanted > 0 && missing > 0 {
            short.insert(name, missing);
        }
    }
    short
}

/// Whether the node has what `pod` requests.
pub(crate) fn has_room(pod: &Pod, room: &Room) -> Result<(), Refusal> {
    if room.pods >= room.max_pods {
        return Err(out_of("pods", 1, room.pods, room.max_pods));
    }
    for (name, wanted) in counted_requests(pod, room) {
        if wanted == 0 {
            continue;
        }
        // CPU is told in thousandths, everything else in whole units, as the scheduler does.
        let scale = |v: i128| if name == "cpu" { v } else { i128::from(resources::units(v)) };
        let have = room.allocatable.get(&name).copied().unwrap_or(0);
        let used = room.used.get(&name).copied().unwrap_or(0);
        if used + wanted > have {
            return Err(out_of(&name, scale(wanted), scale(used), scale(have)));
        }
    }
    Ok(())
}

fn out_of(
    name: &str,
    wanted: impl std::fmt::Display,
    used: impl std::fmt::Display,
    capacity: impl std::fmt::Display,
) -> Refusal {
    Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    }
}

/// Why an AppArmor profile that a container of the pod asks for cannot be enforced.
fn unenforceable_app_armor(pod: &Pod, enabled: bool) -> Option<&'static str> {
    let asked = spec(pod).all().filter_map(|container| security::app_armor(pod, container));
    asked.filter_map(|profile| security::unenforceable(&profile.type_, enabled)).next()
}

/// Whether the pod wants a node with such labels.
pub(crate) fn matches_node(pod: &Pod, node: &Node) -> bool {
    let empty = std::collections::BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let Some(spec) = spec(pod).0 else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selected && required.is_none_or(|required| matches_required(required, name, labels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::pod;
    use super::*;

    fn check(spec: serde_json::Value) -> String {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "n": "5"}}})).unwrap();
        let room = Room {
            allocatable: Amounts::from([
                ("cpu".into(), 2000),
                ("memory".into(), (1 << 30) * 1000),
                ("example.com/gpu".into(), 1000),
            ]),
            used: Amounts::from([("cpu".into(), 1500)]),
            pods: 3,
            max_pods: 110,
            ports: vec![(String::new(), "TCP".into(), 80), ("10.0.0.1".into(), "UDP".into(), 53)],
            sysctls: vec!["net.core.somaxconn".into(), "net.ipv4.conf.*".into()],
            ..Room::default()
        };
        match admit(&pod(spec), &node, &room) {
            Ok(()) => "ok".into(),
            Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        }
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_kubelets_words() {
        let with = |r| json!({"containers": [{"name": "a", "resources": {"requests": r}}]});
        assert_eq!(check(with(json!({"cpu": "500m"}))), "ok");
        assert_eq!(
            check(with(json!({"cpu": "501m"}))),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert!(check(with(json!({"memory": "2Gi"}))).starts_with("OutOfmemory: "));
        assert_eq!(check(with(json!({"example.com/gpu": "1", "example.com/licence": "7"}))), "ok");
        assert_eq!(
            check(with(json!({"example.com/gpu": "2"}))),
            "OutOfexample.com/gpu: Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1"
        );
    }

    #[test]
    fn a_port_of_the_host_is_given_once() {
        let with = |port| check(json!({"containers": [{"name": "a", "ports": [port]}]}));
        let why = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        assert_eq!(with(json!({"containerPort": 1, "hostPort": 80})), why);
        assert_eq!(with(json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.2"})), why);
        assert_eq!(with(json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"})), "ok");
        assert_eq!(with(json!({"containerPort": 80})), "ok");
        let dns = |ip| json!({"containerPort": 1, "hostPort": 53, "protocol": "UDP", "hostIP": ip});
        assert_eq!(with(dns("10.0.0.2")), "ok");
        assert_eq!(with(dns("10.0.0.1")), why);
        assert_eq!(with(dns("0.0.0.0")), why);
    }

    #[test]
    fn only_safe_sysctls_of_the_pods_own_namespaces_are_set() {
        let with = |name: &str, field: &str| {
            check(
                json!({"containers": [], field: true, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
            )
        };
        assert_eq!(with("kernel.shm_rmid_forced", "hostNetwork"), "ok");
        assert_eq!(with("net/ipv4/tcp_syncookies", "hostIPC"), "ok");
        assert_eq!(sysctl_name("net/ipv4/conf/eth0.1/rp_filter"), "net.ipv4.conf.eth0/1.rp_filter");
        assert_eq!(sysctl_name("net.ipv4.conf.eth0/1.rp_filter"), "net.ipv4.conf.eth0/1.rp_filter");
        assert_eq!(with("net.core.somaxconn", "hostPID"), "ok");
        assert_eq!(with("net.ipv4.conf.all.src_valid_mark", "hostPID"), "ok");
        assert_eq!(
            with("kernel.msgmax", "hostPID"),
            "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
        assert_eq!(
            with("net.ipv4.tcp_syncookies", "hostNetwork"),
            "SysctlForbidden: forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"
        );
    }

    #[test]
    fn what_this_node_is_not_or_cannot_enforce_refuses_the_pod() {
        let with = |kind: &str| {
            let context = json!({"appArmorProfile": {"type": kind, "localhostProfile": "mine"}});
            check(json!({"containers": [{"name": "a", "securityContext": context}]}))
        };
        let windows = check(json!({"containers": [{"name": "a"}], "os": {"name": "windows"}}));
        assert_eq!(windows, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS");
        assert_eq!(with("Unconfined"), "ok");
        for kind in ["Localhost", "RuntimeDefault"] {
            assert_eq!(with(kind), "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host");
        }
        let profiled = |kind: &str| {
            let profile = json!({"type": kind, "localhostProfile": "mine"});
            pod(json!({"containers": [{"name": "a"}], "securityContext": {"appArmorProfile": profile}}))
        };
        assert_eq!(unenforceable_app_armor(&profiled("Localhost"), true), None);
        assert_eq!(unenforceable_app_armor(&profiled("RuntimeDefault"), true), None);
        assert!(unenforceable_app_armor(&profiled("Localhost"), false).is_some());
    }

    #[test]
    fn node_selectors_and_affinity_are_checked_again() {
        let affinity = |operator: &str, values: serde_json::Value| {
            check(
                json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "n", "operator": operator, "values": values}]}]}}}}),
            )
        };
        assert_eq!(check(json!({"containers": [], "nodeSelector": {"disk": "ssd"}})), "ok");
        assert!(check(json!({"containers": [], "nodeSelector": {"disk": "hdd"}})).starts_with("NodeAffinity: "));
        assert_eq!(affinity("Gt", json!(["4"])), "ok");
        assert!(affinity("Lt", json!(["4"])).starts_with("NodeAffinity"));
        assert_eq!(affinity("In", json!(["5", "6"])), "ok");
        assert!(affinity("NotIn", json!(["5"])).starts_with("NodeAffinity"));
    }
}
