//! The scores: of the nodes that can take a pod, which is best. 0 to 100 each, weighted and added.

use coracle_proto::placement::matches_term;
use tracing::trace;

use crate::{
    cluster::{Node, Pod},
    filter::tolerates,
};

/// The best score a node can have from one scorer.
pub(crate) const MOST: i64 = 100;

/// One scorer.
pub(crate) struct Scorer {
    /// Kubernetes' name of the plugin.
    pub(crate) name: &'static str,
    /// How much it counts beside the others; Kubernetes' default weights.
    pub(crate) weight: i64,
    /// The raw score of a node; scaled to 0..=100 over all candidates if `relative`.
    pub(crate) score: fn(&Pod, &Node) -> i64,
    /// Whether the raw scores only mean something beside each other.
    pub(crate) relative: Relative,
}

/// How raw scores become 0..=100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relative {
    /// They are 0..=100 as they are.
    No,
    /// The highest becomes 100.
    HighestIsBest,
    /// The lowest (0) becomes 100, the highest 0.
    LowestIsBest,
}

/// All scorers.
pub(crate) const SCORERS: &[Scorer] = &[
    // Spreads pods: the emptier the node, the better.
    Scorer { name: "NodeResourcesFit", weight: 1, score: least_allocated, relative: Relative::No },
    // Keeps CPU and memory in step, so that neither runs out while the other is idle.
    Scorer { name: "NodeResourcesBalancedAllocation", weight: 1, score: balanced, relative: Relative::No },
    // What the pod would like.
    Scorer { name: "NodeAffinity", weight: 2, score: preferred_affinity, relative: Relative::HighestIsBest },
    // What the node's owner would rather not.
    Scorer { name: "TaintToleration", weight: 3, score: disliked_taints, relative: Relative::LowestIsBest },
];

fn free_share(taken: i64, has: i64) -> i64 {
    if has <= 0 || taken > has { 0 } else { (has - taken).saturating_mul(MOST) / has }
}

fn least_allocated(pod: &Pod, node: &Node) -> i64 {
    let cpu = free_share(node.weight.0 + pod.weight.0, node.has.milli_cpu);
    let memory = free_share(node.weight.1 + pod.weight.1, node.has.memory);
    i64::midpoint(cpu, memory)
}

/// 100 less the distance between the taken shares of CPU and memory (Kubernetes takes the standard deviation, which
/// for two values is half their distance).
fn balanced(pod: &Pod, node: &Node) -> i64 {
    let taken = |t: i64, has: i64| if has <= 0 { MOST } else { (t.saturating_mul(MOST) / has).min(MOST) };
    let cpu = taken(node.taken.milli_cpu + pod.asks.milli_cpu, node.has.milli_cpu);
    let memory = taken(node.taken.memory + pod.asks.memory, node.has.memory);
    MOST - (cpu - memory).abs() / 2
}

fn preferred_affinity(pod: &Pod, node: &Node) -> i64 {
    let matching = |t: &&k8s_openapi::api::core::v1::PreferredSchedulingTerm| {
        t.weight != 0 && matches_term(&t.preference, &node.name, &node.labels)
    };
    pod.node_affinity.preferred.iter().filter(matching).map(|t| i64::from(t.weight)).sum()
}

fn disliked_taints(pod: &Pod, node: &Node) -> i64 {
    let disliked =
        node.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerates(&pod.tolerations, t)).count();
    i64::try_from(disliked).unwrap_or(i64::MAX)
}

/// The total score of each candidate, in the order given.
pub(crate) fn totals(pod: &Pod, candidates: &[&Node]) -> Vec<i64> {
    let mut totals = vec![0; candidates.len()];
    for scorer in SCORERS {
        let raw: Vec<i64> = candidates.iter().map(|node| (scorer.score)(pod, node)).collect();
        let highest = raw.iter().copied().max().unwrap_or_default();
        for (total, raw) in totals.iter_mut().zip(raw) {
            let score = match (scorer.relative, highest) {
                (Relative::No, _) => raw,
                (Relative::HighestIsBest, 0) => 0,
                (Relative::HighestIsBest, highest) => raw * MOST / highest,
                (Relative::LowestIsBest, 0) => MOST,
                (Relative::LowestIsBest, highest) => MOST - raw * MOST / highest,
            };
            *total += score * scorer.weight;
        }
        trace!(pod = %pod.name, namespace = %pod.namespace, scorer = scorer.name, highest, "scored");
    }
    totals
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Taint;

    use super::*;
    use crate::resources::Resources;

    fn node(taken_cpu: i64) -> Node {
        let has = Resources { milli_cpu: 4000, memory: 4000, pods: 10, ..Resources::default() };
        let taken = Resources { milli_cpu: taken_cpu, memory: taken_cpu, ..Resources::default() };
        Node { has, taken, weight: (taken_cpu, taken_cpu), ..Node::default() }
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let (empty, half) = (node(0), node(2000));
        let totals = totals(&Pod::default(), &[&half, &empty]);
        assert!(totals[1] > totals[0], "{totals:?}");
    }

    #[test]
    fn a_node_with_a_disliked_taint_comes_last() {
        let taint = Taint { key: "k".to_owned(), effect: "PreferNoSchedule".to_owned(), ..Taint::default() };
        let tainted = Node { taints: vec![taint], ..node(0) };
        let totals = totals(&Pod::default(), &[&tainted, &node(2000)]);
        assert!(totals[1] > totals[0], "{totals:?}");
    }

    #[test]
    fn every_scorer_stays_within_its_bounds() {
        for taken in [0, 1, 3999, 4000, 9000] {
            for scorer in SCORERS.iter().filter(|s| s.relative == Relative::No) {
                let score = (scorer.score)(&Pod::default(), &node(taken));
                assert!((0..=MOST).contains(&score), "{} gave {score} with {taken} taken", scorer.name);
            }
        }
    }
}
