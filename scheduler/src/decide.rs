//! The decision itself, as a pure function: this pod, these nodes, which one.

use std::{collections::BTreeMap, fmt};

use tracing::trace;

use crate::{
    cluster::{Node, Pod},
    filter::FILTERS,
    score,
};

/// Why no node can take a pod: how many nodes there are, and how many gave each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unschedulable {
    pub(crate) nodes: usize,
    pub(crate) reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Unschedulable {
    /// Kubernetes' sentence: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counted: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

/// How many nodes that fit are enough to choose from. Looking at every one of thousands would cost more than the better
/// choice gains: Kubernetes looks at 100 at least, and at a share that falls from 50 % to 5 % as clusters grow.
fn enough(nodes: usize) -> usize {
    const AT_LEAST: usize = 100;
    if nodes <= AT_LEAST {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(AT_LEAST)
}

/// Chooses the node for a pod, or says why there is none.
///
/// `start` is where to begin looking, so that the nodes take turns when not all are looked at; `draw` breaks ties: given
/// a count n, it returns a number below n.
pub(crate) fn decide(
    pod: &Pod,
    nodes: &[Node],
    start: usize,
    mut draw: impl FnMut(usize) -> usize,
) -> Result<String, Unschedulable> {
    let wanted = enough(nodes.len());
    let mut candidates = Vec::new();
    let mut reasons = BTreeMap::new();
    let (tail, head) = nodes.split_at(if nodes.is_empty() { 0 } else { start % nodes.len() });
    for node in head.iter().chain(tail) {
        let refusal = FILTERS.iter().find_map(|filter| Some((filter.name, (filter.check)(pod, node).err()?)));
        match refusal {
            None => candidates.push(node),
            Some((filter, refusals)) => {
                trace!(pod = %pod.name, namespace = %pod.namespace, node = %node.name, filter, "refused");
                for reason in refusals {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    let totals = score::totals(pod, &candidates);
    let Some(best) = totals.iter().max() else {
        return Err(Unschedulable { nodes: nodes.len(), reasons });
    };
    let best: Vec<&&Node> = candidates.iter().zip(&totals).filter(|(_, t)| *t == best).map(|(n, _)| n).collect();
    let chosen = best.get(draw(best.len())).or(best.first()).map(|node| node.name.clone());
    chosen.ok_or(Unschedulable { nodes: nodes.len(), reasons })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;

    fn node(name: &str, cpu: i64) -> Node {
        let has = Resources { milli_cpu: cpu, memory: 1 << 30, pods: 10, ..Resources::default() };
        Node { name: name.to_owned(), has, ..Node::default() }
    }

    fn pod(cpu: i64) -> Pod {
        Pod { asks: Resources { milli_cpu: cpu, pods: 1, ..Resources::default() }, ..Pod::default() }
    }

    #[test]
    fn the_refusal_counts_each_reason_as_kubernetes_prints_it() {
        let cordoned = Node { unschedulable: true, ..node("c", 8000) };
        let nodes = [node("a", 100), node("b", 100), cordoned];
        let refusal = decide(&pod(1000), &nodes, 0, |_| 0).unwrap_err();
        assert_eq!(refusal.to_string(), "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.");
        assert_eq!(decide(&pod(1), &[], 0, |_| 0).unwrap_err().to_string(), "no nodes available to schedule pods");
    }

    #[test]
    fn equal_nodes_are_chosen_by_the_draw() {
        let nodes = [node("a", 1000), node("b", 1000)];
        assert_eq!(decide(&pod(1), &nodes, 0, |n| n - 1).unwrap(), "b");
        assert_eq!(decide(&pod(1), &nodes, 0, |_| 0).unwrap(), "a");
        assert_eq!(decide(&pod(1), &nodes, 1, |_| 0).unwrap(), "b");
    }

    #[test]
    fn large_clusters_are_sampled_and_the_sample_moves_on() {
        assert_eq!([enough(5), enough(100), enough(1000), enough(5000)], [5, 100, 420, 500]);
        let nodes: Vec<Node> = (0..5000).map(|i| node(&format!("n{i}"), 1000)).collect();
        assert_eq!(decide(&pod(1), &nodes, 700, |_| 0).unwrap(), "n700");
    }
}
