//! Taints keep pods off a node unless they tolerate them.

use coracle_proto::placement;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Reasons, refuse};
use crate::cluster::{Node, Pod};

/// Whether one of the tolerations tolerates the taint.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| placement::tolerates(toleration, taint))
}

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    let keeps_off = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    match node.taints.iter().filter(keeps_off).all(|taint| tolerates(&pod.tolerations, taint)) {
        true => Ok(()),
        false => refuse("node(s) had untolerated taint(s)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_match_taints_by_key_value_and_effect() {
        let taint = Taint {
            key: "a".to_owned(),
            value: Some("1".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        for (toleration, expected) in [
            (toleration("a", "Equal", "1", "NoSchedule"), true),
            (toleration("a", "", "1", ""), true),
            (toleration("a", "Equal", "2", ""), false),
            (toleration("a", "Exists", "", "NoSchedule"), true),
            (toleration("a", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("b", "Exists", "", ""), false),
        ] {
            assert_eq!(tolerates(std::slice::from_ref(&toleration), &taint), expected, "{toleration:?}");
        }
    }

    #[test]
    fn a_taint_that_only_prefers_keeps_nobody_off() {
        let taint = |effect: &str| Taint { key: "k".to_owned(), effect: effect.to_owned(), ..Taint::default() };
        let node = Node { taints: vec![taint("PreferNoSchedule")], ..Node::default() };
        assert_eq!(check(&Pod::default(), &node), Ok(()));
        let node = Node { taints: vec![taint("NoExecute")], ..Node::default() };
        assert_eq!(check(&Pod::default(), &node), refuse("node(s) had untolerated taint(s)"));
    }
}
