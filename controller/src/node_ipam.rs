//! A range of pod addresses for each node (`spec.podCIDR`), out of the cluster's.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::Ipv4Addr,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::NodeView,
    work_queue::WorkQueue,
};

/// The length of a node's prefix (`--node-cidr-mask-size`): 254 pods, more than Kubernetes puts on a node.
const NODE_PREFIX: u8 = 24;

/// The IPv4 range of all pods, large enough for one node at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u32,
    prefix: u8,
}

/// Why a text is no [`ClusterCidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IPv4 range of 8 to 24 bits such as 10.42.0.0/16")]
pub struct ClusterCidrError {
    text: String,
}

impl FromStr for ClusterCidr {
    type Err = ClusterCidrError;

    fn from_str(text: &str) -> Result<Self, ClusterCidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            (8..=NODE_PREFIX).contains(&prefix).then(|| {
                let mask = u32::MAX << (32 - prefix);
                Self { base: u32::from(address) & mask, prefix }
            })
        };
        parse().ok_or_else(|| ClusterCidrError { text: text.to_owned() })
    }
}

impl fmt::Display for ClusterCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl ClusterCidr {
    /// How many nodes there is room for.
    fn nodes(self) -> u32 {
        1 << (NODE_PREFIX - self.prefix)
    }

    /// The range of the node with this number.
    fn range(self, number: u32) -> String {
        format!("{}/{NODE_PREFIX}", Ipv4Addr::from(self.base + (number << (32 - NODE_PREFIX))))
    }

    /// The number of the node with this range.
    fn number(self, range: &str) -> Option<u32> {
        self.taken(range).first().copied()
    }

    /// The first range of a node that none of these takes anything of.
    #[must_use]
    pub fn free<'a>(self, ranges: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let taken: BTreeSet<u32> = ranges.into_iter().flat_map(|range| self.taken(range)).collect();
        self.first_but(&taken).map(|number| self.range(number))
    }

    fn first_but(self, taken: &BTreeSet<u32>) -> Option<u32> {
        (0..self.nodes()).find(|number| !taken.contains(number))
    }

    /// The numbers of the nodes whose ranges a range, which need not be one of ours, takes up.
    fn taken(self, range: &str) -> BTreeSet<u32> {
        let Some((address, prefix)) = range.split_once('/') else { return BTreeSet::new() };
        let (Ok(address), Ok(prefix)) = (address.parse::<Ipv4Addr>(), prefix.parse::<u8>()) else {
            return BTreeSet::new();
        };
        let size = 1_u64 << (32 - prefix.min(32));
        let from = u64::from(u32::from(address)) & !(size - 1);
        let step = 1_u64 << (32 - NODE_PREFIX);
        let ours = |number: &u32| {
            let start = u64::from(self.base) + u64::from(*number) * step;
            start < from + size && from < start + step
        };
        (0..self.nodes()).filter(ours).collect()
    }
}

/// See the module.
pub(crate) struct NodeIpam {
    client: Client,
    nodes: Reader<NodeView>,
    events: Events,
    cidr: ClusterCidr,
    /// The ranges of nodes, by name, known earlier than the watch tells of them.
    given: Mutex<HashMap<String, u32>>,
}

impl NodeIpam {
    /// `given` is a node that will come with its range, and that.
    pub(crate) fn over(informers: &mut Informers, cidr: ClusterCidr, given: Option<(String, String)>) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, all) = (Arc::clone(&queue), informers.nodes.reader());
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            let node = change.object();
            if matches!(change, Change::Deleted(_)) {
                changed.add(ObjectKey::of(node));
                // Its range may be the one another waits for.
                let waiting = all.list(|node| node.spec.pod_cidr.is_empty());
                waiting.iter().for_each(|node| changed.add(ObjectKey::of(node.as_ref())));
            } else if node.spec.pod_cidr.is_empty() {
                changed.add(ObjectKey::of(node));
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            nodes: informers.nodes.reader(),
            events: Events::new(informers.client.clone(), "cidrAllocator"),
            cidr,
            given: Mutex::new(
                given.into_iter().filter_map(|(node, range)| Some((node, cidr.number(&range)?))).collect(),
            ),
        };
        Control::new(controller, queue)
    }

    /// The number of the range for this node: the one it was given, or the first that nobody has.
    fn choose(&self, node: &str) -> Option<u32> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = given.get(node) {
            return Some(*number);
        }
        let with_range = self.nodes.list(|node| !node.spec.pod_cidr.is_empty());
        let mut taken: BTreeSet<u32> = given.values().copied().collect();
        taken.extend(with_range.iter().flat_map(|node| self.cidr.taken(&node.spec.pod_cidr)));
        let number = self.cidr.first_but(&taken)?;
        given.insert(node.to_owned(), number);
        Some(number)
    }
}

impl Reconcile for NodeIpam {
    type Key = ObjectKey;

    const NAME: &'static str = "node-ipam";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            return Ok(Next::OnChange);
        };
        if !node.spec.pod_cidr.is_empty() {
            // The watch tells of it now.
            self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            return Ok(Next::OnChange);
        }
        let Some(number) = self.choose(&key.name) else {
            let note = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.events.normal(&reference(node.as_ref()), "CIDRNotAvailable", note).await;
            return Ok(Next::OnChange);
        };
        let range = self.cidr.range(number);
        let patch = json!({"metadata": {"uid": node.uid()}, "spec": {"podCIDR": range, "podCIDRs": [range]}});
        let api: Api<NodeView> = Api::all(self.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(Next::OnChange),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::OnChange),
            Err(error) => Err(ReconcileError::api("giving a node its range of addresses")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_254_addresses_of_the_cluster() {
        let cidr: ClusterCidr = "10.42.7.1/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.42.0.0/16");
        assert_eq!(
            (cidr.nodes(), cidr.range(0), cidr.range(255)),
            (256, "10.42.0.0/24".into(), "10.42.255.0/24".into())
        );
        let smallest: ClusterCidr = "10.42.7.0/24".parse().unwrap();
        assert_eq!((smallest.nodes(), smallest.range(0)), (1, "10.42.7.0/24".into()));
    }

    #[test]
    fn ranges_of_other_sizes_take_up_room_too() {
        let cidr: ClusterCidr = "10.42.0.0/16".parse().unwrap();
        let cases: [(&str, &[u32]); 6] = [
            ("10.42.3.0/24", &[3]),
            ("10.42.2.0/23", &[2, 3]),
            ("10.42.5.128/25", &[5]),
            ("10.43.0.0/24", &[]),
            ("fd00::/64", &[]),
            ("", &[]),
        ];
        for (range, expected) in cases {
            assert_eq!(cidr.taken(range).into_iter().collect::<Vec<_>>(), expected, "{range}");
        }
    }

    #[test]
    fn the_first_range_nobody_has_is_free() {
        let cidr: ClusterCidr = "10.42.0.0/23".parse().unwrap();
        assert_eq!(cidr.free([]), Some("10.42.0.0/24".into()));
        assert_eq!(cidr.free(["10.42.0.128/25", ""]), Some("10.42.1.0/24".into()));
        assert_eq!(cidr.free(["10.42.0.0/24", "10.42.1.0/24"]), None);
    }

    #[test]
    fn what_is_no_range_says_so() {
        for text in ["10.42.0.0", "10.42.0.0/33", "10.42.0.0/25", "fd00::/8", "10.42/16", ""] {
            assert!(text.parse::<ClusterCidr>().unwrap_err().to_string().contains("is not an IPv4 range"), "{text}");
        }
    }
}
