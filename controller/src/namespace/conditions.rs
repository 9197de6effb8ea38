//! What a namespace's conditions say while it is being deleted: pure, in Kubernetes' own words.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::NamespaceCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// What one pass over a namespace's content found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Groups whose resources could not be discovered, and why.
    pub(crate) undiscovered: Vec<String>,
    /// Group versions discovery gave that are none.
    pub(crate) unparsed: Vec<String>,
    /// Resources whose objects could not be deleted, and why.
    pub(crate) undeleted: Vec<String>,
    /// Objects that are still there, by `<resource>.<group>`.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// Objects that wait for a finalizer, by its name.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Findings {
    /// Whether nothing is left and nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures().next().is_none() && self.remaining.is_empty()
    }

    /// Everything that went wrong.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &String> {
        self.undiscovered.iter().chain(&self.unparsed).chain(&self.undeleted)
    }
}

/// One type of condition: its reason and message when all is well.
const WELL: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// Errors as `k8s.io/apimachinery` prints several in one.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn listed(counts: &BTreeMap<String, usize>, verb: &str) -> String {
    let each = counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances"));
    each.collect::<Vec<_>>().join(", ")
}

/// The reason and message of a condition that is true.
fn trouble(type_: &str, found: &Findings) -> Option<(&'static str, String)> {
    match type_ {
        "NamespaceDeletionDiscoveryFailure" if !found.undiscovered.is_empty() => {
            let (count, all) = (found.undiscovered.len(), aggregate(&found.undiscovered));
            Some(("DiscoveryFailed", format!("Discovery failed for some groups, {count} failing: {all}")))
        }
        "NamespaceDeletionGroupVersionParsingFailure" if !found.unparsed.is_empty() => {
            Some(("GroupVersionParsingFailed", aggregate(&found.unparsed)))
        }
        "NamespaceDeletionContentFailure" if !found.undeleted.is_empty() => {
            let (count, all) = (found.undeleted.len(), aggregate(&found.undeleted));
            let message = format!("Failed to delete all resource types, {count} remaining: {all}");
            Some(("ContentDeletionFailed", message))
        }
        "NamespaceContentRemaining" if !found.remaining.is_empty() => {
            let all = listed(&found.remaining, "has");
            Some(("SomeResourcesRemain", format!("Some resources are remaining: {all}")))
        }
        "NamespaceFinalizersRemaining" if !found.finalizers.is_empty() => {
            let all = listed(&found.finalizers, "in");
            let message = format!("Some content in the namespace has finalizers remaining: {all}");
            Some(("SomeFinalizersRemain", message))
        }
        _ => None,
    }
}

/// The conditions after a pass, if they are others than before.
pub(crate) fn updated(
    before: &[NamespaceCondition],
    found: &Findings,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let mut conditions = before.to_vec();
    for (type_, well, well_message) in WELL {
        let (status, (reason, message)) = match trouble(type_, found) {
            Some(trouble) => ("True", trouble),
            None => ("False", (well, well_message.to_owned())),
        };
        let known = conditions.iter().position(|c| c.type_ == type_);
        let since = known.and_then(|at| conditions.get(at)).filter(|c| c.status == status);
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.map_or(Some(Time(now)), |c| c.last_transition_time.clone()),
        };
        match known.and_then(|at| conditions.get_mut(at)) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
    }
    (conditions != before).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn texts(conditions: &[NamespaceCondition]) -> Vec<String> {
        let text = |c: &NamespaceCondition| {
            format!("{}={} {}: {}", c.type_, c.status, c.reason.clone().unwrap(), c.message.clone().unwrap())
        };
        conditions.iter().filter(|c| c.status == "True").map(text).collect()
    }

    #[test]
    fn what_is_in_the_way_is_told_in_kubernetes_words() {
        let found = Findings {
            undiscovered: vec!["a.example.com/v1: gone".to_owned()],
            unparsed: vec!["unexpected GroupVersion string: a/b/c".to_owned()],
            undeleted: vec!["no".to_owned(), "never".to_owned()],
            remaining: counts(&[("pods.", 2), ("deployments.apps", 1)]),
            finalizers: counts(&[("example.com/hold", 1)]),
        };
        assert!(!found.is_clean());
        let conditions = updated(&[], &found, Timestamp::UNIX_EPOCH).unwrap();
        expect_test::expect![[r#"
            [
                "NamespaceDeletionDiscoveryFailure=True DiscoveryFailed: Discovery failed for some groups, 1 failing: a.example.com/v1: gone",
                "NamespaceDeletionGroupVersionParsingFailure=True GroupVersionParsingFailed: unexpected GroupVersion string: a/b/c",
                "NamespaceDeletionContentFailure=True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: [no, never]",
                "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
                "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        "#]]
        .assert_debug_eq(&texts(&conditions));
    }

    #[test]
    fn conditions_keep_the_time_of_their_last_turn_and_are_not_written_twice() {
        let later = Timestamp::from_second(9).unwrap();
        let found = Findings { remaining: counts(&[("pods.", 2)]), ..Findings::default() };
        let first = updated(&[], &found, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(updated(&first, &found, later), None);
        let second = updated(&first, &Findings::default(), later).unwrap();
        let turned: Vec<_> = second.iter().filter(|c| c.last_transition_time == Some(Time(later))).collect();
        assert_eq!(turned.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["NamespaceContentRemaining"]);
    }
}
