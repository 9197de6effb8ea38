//! Which nodes a pod may be on: requirements on a node's labels and name, and taints that are tolerated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

/// Whether a node's value (or its lack) meets a requirement. An operator that does not exist meets nothing.
fn meets(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |actual: &str| values.iter().any(|v| v == actual);
    let compare = |test: fn(i64, i64) -> bool| {
        let wanted = match values {
            [only] => only.parse::<i64>().ok(),
            _ => None,
        };
        match (actual.and_then(|a| a.parse::<i64>().ok()), wanted) {
            (Some(actual), Some(wanted)) => test(actual, wanted),
            _ => false,
        }
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(among),
        "NotIn" => !actual.is_some_and(among),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}

/// Whether a node meets a term: all of its expressions and fields; an empty term meets nothing.
#[must_use]
pub fn matches_term(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|e| meets(e, labels.get(&e.key).map(String::as_str)))
        && fields.iter().all(|f| meets(f, (f.key == "metadata.name").then_some(name)))
}

/// Whether a node meets one of the selector's terms.
#[must_use]
pub fn matches_required(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, name, labels))
}

/// Whether the toleration tolerates the taint. An empty key with `Exists` tolerates everything, an empty effect every
/// effect.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same = |wanted: Option<&str>, has: &str| wanted.unwrap_or_default().is_empty() || wanted == Some(has);
    same(toleration.effect.as_deref(), &taint.effect)
        && same(toleration.key.as_deref(), &taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            Some("Equal" | "") | None => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            Some(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        for (operator, values, actual, expected) in [
            ("In", &["a", "b"][..], Some("a"), true),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], None, true),
            ("NotIn", &["a"], Some("a"), false),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("Gt", &["4"], Some("5"), true),
            ("Gt", &["4"], Some("x"), false),
            ("Lt", &["4"], Some("5"), false),
            ("Lt", &["4"], None, false),
            ("Like", &["4"], Some("4"), false),
        ] {
            let requirement = requirement("k", operator, values);
            assert_eq!(meets(&requirement, actual), expected, "{operator} {values:?} {actual:?}");
        }
    }

    #[test]
    fn an_empty_term_matches_no_node_and_terms_are_alternatives() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let empty = NodeSelectorTerm::default();
        assert!(!matches_term(&empty, "n", &labels));
        let by_name = NodeSelectorTerm {
            match_fields: Some(vec![requirement("metadata.name", "In", &["n"])]),
            ..NodeSelectorTerm::default()
        };
        let selector = NodeSelector { node_selector_terms: vec![empty, by_name] };
        assert!(matches_required(&selector, "n", &labels));
        assert!(!matches_required(&selector, "m", &labels));
    }
}
