//! The scheduler's picture of the cluster: nodes, and what the pods bound (or about to be bound) to them take.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    resources::{Resources, UNASKED},
    view::{ContainerView, NodeAffinityView, NodeView, PodView},
};

/// A port a pod takes of its node: protocol, address, number.
pub(crate) type HostPort = (String, String, i32);

/// `namespace/name` of a pod.
pub(crate) type PodKey = String;

/// What scheduling needs to know of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: Option<i64>,
    pub(crate) priority: i32,
    /// Empty until it is bound.
    pub(crate) node_name: String,
    pub(crate) asks: Resources,
    /// As `asks`, with containers that ask for nothing counted as asking for a little.
    pub(crate) weight: (i64, i64),
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) node_affinity: NodeAffinityView,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) host_ports: Vec<HostPort>,
    /// The message of the last refusal, if the pod shows one.
    pub(crate) refusal: Option<String>,
}

impl Pod {
    /// Reads a pod.
    pub(crate) fn read(view: PodView) -> Self {
        let PodView { metadata, spec, status } = view;
        let asks = Resources::of_pod(&spec);
        let weighed = |container: &ContainerView| {
            let own = Resources::read(&container.resources.requests);
            let cpu = if own.milli_cpu == 0 { UNASKED.0 } else { own.milli_cpu };
            (cpu, if own.memory == 0 { UNASKED.1 } else { own.memory })
        };
        let sum = |(cpu, memory), (c, m)| (cpu + c, memory + m);
        let running = spec.containers.iter().map(weighed).fold((0, 0), sum);
        // Init containers run one after the other, before the rest.
        let most = |(cpu, memory): (i64, i64), (c, m)| (cpu.max(c), memory.max(m));
        let weight = spec.init_containers.iter().map(weighed).fold(running, most);
        let mut host_ports = Vec::new();
        for port in spec.containers.iter().chain(&spec.init_containers).flat_map(|c| &c.ports) {
            let number = if spec.host_network { port.container_port } else { port.host_port };
            if number > 0 {
                let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
                let address = if port.host_ip.is_empty() { "0.0.0.0" } else { &port.host_ip };
                host_ports.push((protocol.to_owned(), address.to_owned(), number));
            }
        }
        let refusal = status
            .conditions
            .into_iter()
            .find(|c| c.kind == "PodScheduled" && c.status == "False" && c.reason == "Unschedulable")
            .map(|c| c.message);
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation,
            priority: spec.priority,
            node_name: spec.node_name,
            asks,
            weight,
            node_selector: spec.node_selector,
            node_affinity: spec.affinity.node_affinity,
            tolerations: spec.tolerations,
            host_ports,
            refusal,
        }
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> PodKey {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A node and what is taken of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
    pub(crate) has: Resources,
    pub(crate) taken: Resources,
    pub(crate) weight: (i64, i64),
    /// Ports taken, each with how many pods hold it: two may, for a moment, while one goes.
    pub(crate) host_ports: BTreeMap<HostPort, usize>,
}

impl Node {
    fn take(&mut self, pod: &Pod) {
        self.taken.add(&pod.asks);
        self.weight.0 += pod.weight.0;
        self.weight.1 += pod.weight.1;
        for port in &pod.host_ports {
            *self.host_ports.entry(port.clone()).or_default() += 1;
        }
    }

    fn give_back(&mut self, pod: &Pod) {
        self.taken.subtract(&pod.asks);
        self.weight.0 -= pod.weight.0;
        self.weight.1 -= pod.weight.1;
        for port in &pod.host_ports {
            if let Some(holders) = self.host_ports.get_mut(port) {
                *holders = holders.saturating_sub(1);
            }
        }
        self.host_ports.retain(|_, holders| *holders > 0);
    }
}

/// What a change of the picture may mean for pods that found no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Room or a node came, or a node's rules changed: worth another try.
    MayHelp,
    /// Nothing that helps anyone.
    HelpsNobody,
}

/// The nodes by name, and every pod that takes something of one.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    index: HashMap<String, usize>,
    /// Pods that take something of a node, with that node's name. A node may be unknown yet.
    placed: HashMap<PodKey, (String, Arc<Pod>)>,
}

impl Cluster {
    /// Every node, in a stable order.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Takes in a node or its change.
    pub(crate) fn set_node(&mut self, view: NodeView) -> Change {
        let name = view.metadata.name.unwrap_or_default();
        let mut node = Node {
            name: name.clone(),
            labels: view.metadata.labels.unwrap_or_default(),
            unschedulable: view.spec.unschedulable,
            taints: view.spec.taints,
            has: Resources::read(&view.status.allocatable),
            ..Node::default()
        };
        match self.index.get(&name).and_then(|i| self.nodes.get_mut(*i)) {
            Some(old) => {
                let same = old.labels == node.labels
                    && old.unschedulable == node.unschedulable
                    && old.taints == node.taints
                    && old.has == node.has;
                if same {
                    return Change::HelpsNobody;
                }
                node.taken = std::mem::take(&mut old.taken);
                node.weight = old.weight;
                node.host_ports = std::mem::take(&mut old.host_ports);
                *old = node;
            }
            None => {
                for (on, pod) in self.placed.values() {
                    if *on == name {
                        node.take(pod);
                    }
                }
                self.index.insert(name, self.nodes.len());
                self.nodes.push(node);
            }
        }
        Change::MayHelp
    }

    /// Forgets a node; pods on it stay known, in case it comes back before they go.
    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            self.nodes.swap_remove(at);
            if let Some(moved) = self.nodes.get(at) {
                self.index.insert(moved.name.clone(), at);
            }
        }
    }

    /// Notes that `pod` takes its part of `node`, whether it is bound there already or about to be.
    pub(crate) fn place(&mut self, pod: Arc<Pod>, node: &str) {
        let key = pod.key();
        self.displace(&key);
        if let Some(node) = self.node_mut(node) {
            node.take(&pod);
        }
        self.placed.insert(key, (node.to_owned(), pod));
    }

    /// Gives back what the pod takes, if anything.
    pub(crate) fn displace(&mut self, key: &str) -> Change {
        let Some((name, pod)) = self.placed.remove(key) else { return Change::HelpsNobody };
        if let Some(node) = self.node_mut(&name) {
            node.give_back(&pod);
        }
        Change::MayHelp
    }

    /// The uid of the pod that is placed under this key, and where.
    pub(crate) fn placed(&self, key: &str) -> Option<(&str, &Pod)> {
        self.placed.get(key).map(|(node, pod)| (node.as_str(), pod.as_ref()))
    }

    /// The keys of all pods placed, to find those a fresh list no longer has.
    pub(crate) fn placed_keys(&self) -> impl Iterator<Item = &PodKey> {
        self.placed.keys()
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.index.get(name).and_then(|i| self.nodes.get_mut(*i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cpu: &str) -> NodeView {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "pods": "10"}},
        }))
        .unwrap()
    }

    fn pod(name: &str, cpu: &str) -> Arc<Pod> {
        let view = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}, "ports": [{"hostPort": 80}]}]},
        }));
        Arc::new(Pod::read(view.unwrap()))
    }

    #[test]
    fn a_pod_takes_its_part_once_however_often_it_is_seen() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", "4"));
        cluster.place(pod("p", "1"), "a");
        cluster.place(pod("p", "1"), "a");
        assert_eq!(cluster.nodes()[0].taken.milli_cpu, 1000);
        assert_eq!(cluster.displace("default/p"), Change::MayHelp);
        assert_eq!(cluster.nodes()[0].taken, Resources::default());
        assert!(cluster.nodes()[0].host_ports.is_empty());
        assert_eq!(cluster.displace("default/p"), Change::HelpsNobody);
    }

    #[test]
    fn a_port_two_pods_hold_is_free_when_both_are_gone() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", "4"));
        cluster.place(pod("p", "1"), "a");
        cluster.place(pod("q", "1"), "a");
        cluster.displace("default/p");
        assert_eq!(cluster.nodes()[0].host_ports.len(), 1);
        cluster.displace("default/q");
        assert!(cluster.nodes()[0].host_ports.is_empty());
    }

    #[test]
    fn pods_seen_before_their_node_count_when_it_comes() {
        let mut cluster = Cluster::default();
        cluster.place(pod("p", "1"), "late");
        cluster.set_node(node("late", "4"));
        assert_eq!(cluster.nodes()[0].taken.milli_cpu, 1000);
    }

    #[test]
    fn a_node_that_only_beats_its_heart_helps_nobody() {
        let mut cluster = Cluster::default();
        assert_eq!(cluster.set_node(node("a", "4")), Change::MayHelp);
        assert_eq!(cluster.set_node(node("a", "4")), Change::HelpsNobody);
        assert_eq!(cluster.set_node(node("a", "5")), Change::MayHelp);
    }

    #[test]
    fn removing_a_node_keeps_the_others_findable() {
        let mut cluster = Cluster::default();
        for name in ["a", "b", "c"] {
            cluster.set_node(node(name, "4"));
        }
        cluster.remove_node("a");
        cluster.place(pod("p", "1"), "c");
        let taken: Vec<_> = cluster.nodes().iter().map(|n| (n.name.as_str(), n.taken.milli_cpu)).collect();
        assert_eq!(taken, [("c", 1000), ("b", 0)]);
    }
}
