//! Whether what is left of a node is enough for what a pod asks for.

use super::Reasons;
use crate::cluster::{Node, Pod};

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    let (asks, has, taken) = (&pod.asks, &node.has, &node.taken);
    let short = |asked: i64, has: i64, taken: i64| asked > 0 && asked > has.saturating_sub(taken);
    let mut reasons = Reasons::new();
    if taken.pods + 1 > has.pods {
        reasons.push("Too many pods".to_owned());
    }
    if short(asks.milli_cpu, has.milli_cpu, taken.milli_cpu) {
        reasons.push("Insufficient cpu".to_owned());
    }
    if short(asks.memory, has.memory, taken.memory) {
        reasons.push("Insufficient memory".to_owned());
    }
    if short(asks.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage) {
        reasons.push("Insufficient ephemeral-storage".to_owned());
    }
    for (name, amount) in &asks.others {
        let of = |list: &crate::resources::Resources| list.others.get(name).copied().unwrap_or_default();
        if short(*amount, of(has), of(taken)) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;

    #[test]
    fn every_resource_that_is_short_is_named() {
        let node = Node {
            has: Resources { milli_cpu: 1000, memory: 100, pods: 1, ..Resources::default() },
            taken: Resources { milli_cpu: 600, pods: 1, ..Resources::default() },
            ..Node::default()
        };
        let mut asks = Resources { milli_cpu: 401, memory: 100, pods: 1, ..Resources::default() };
        asks.others.insert("example.com/gpu".to_owned(), 1);
        let pod = Pod { asks, ..Pod::default() };
        let reasons = check(&pod, &node).unwrap_err();
        assert_eq!(reasons, ["Too many pods", "Insufficient cpu", "Insufficient example.com/gpu"]);
    }

    #[test]
    fn a_pod_that_asks_for_nothing_fits_an_overfull_node() {
        let node = Node {
            has: Resources { milli_cpu: 1000, pods: 10, ..Resources::default() },
            taken: Resources { milli_cpu: 2000, ..Resources::default() },
            ..Node::default()
        };
        assert_eq!(check(&Pod::default(), &node), Ok(()));
    }
}
