//! Which pod goes first when the node runs short, and what it is told.

use std::cmp::Reverse;

use coracle_proto::quantity::Quantity;

use super::threshold::{Amount, Signal, Threshold};
use crate::context::Entry;
use crate::pod::{self, spec};

/// A pod, and what it uses of what is short.
pub(super) struct Candidate<'a> {
    /// The pod.
    pub(super) entry: &'a Entry,
    /// What it uses.
    pub(super) used: i128,
    /// What it requested.
    pub(super) requested: i128,
    /// What each of its containers uses, where a container can request it.
    pub(super) containers: Vec<(String, u64)>,
}

/// Who goes first: who uses more than it requested, then the less important, then who exceeds its request the most. Nobody
/// can request inodes or processes, so there it is the less important and then the one with the most.
pub(super) fn first(candidates: Vec<Candidate<'_>>) -> Option<Candidate<'_>> {
    candidates.into_iter().min_by_key(|c| {
        let priority = spec(&c.entry.pod).0.and_then(|s| s.priority).unwrap_or(0);
        (c.used <= c.requested, priority, Reverse(c.used - c.requested))
    })
}

/// Kubelet's words to the one that goes.
pub(super) fn message(threshold: &Threshold, seen: Amount, candidate: &Candidate<'_>) -> String {
    let (signal, resource) = (threshold.signal, threshold.signal.resource());
    let (quantity, available) = (signal.shown(threshold.least.of(seen.whole)), signal.shown(seen.free));
    let mut message =
        format!("The node was low on resource: {resource}. Threshold quantity: {quantity}, available: {available}. ");
    let pod = &candidate.entry.pod;
    let declared = spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    if let (Signal::Memory, Some(request)) = (signal, declared.and_then(|requests| requests.get(resource))) {
        let used = signal.shown(u64::try_from(candidate.used).unwrap_or(0));
        let (name, request) = (pod::name(pod), &request.0);
        message +=
            &format!("Pod {name} was using {used}, request is {request}, has larger consumption of {resource}. ");
    }
    for (name, used) in &candidate.containers {
        let Some(container) = spec(pod).all().find(|container| container.name == *name) else { continue };
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(resource)).map_or("0", |quantity| &quantity.0);
        let least = request.parse::<Quantity>().map_or(0, Quantity::value);
        if i64::try_from(*used).unwrap_or(i64::MAX) > least {
            let used = signal.shown(*used);
            message += &format!(
                "Container {name} was using {used}, request is {request}, has larger consumption of {resource}. "
            );
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::entry;
    use super::super::threshold::Least;
    use super::*;

    #[test]
    fn who_takes_more_than_asked_for_goes_first_and_then_the_less_important() {
        let plain = |priority: i32| json!({"containers": [{"name": "a"}], "priority": priority});
        let entries =
            [entry("modest", plain(0)), entry("greedy", plain(5)), entry("more", plain(5)), entry("dear", plain(9))];
        let figures = [(10, 20), (30, 20), (40, 20), (99, 20)];
        let go = |except: &[&str]| {
            let list = entries.iter().zip(figures).filter(|(e, _)| !except.contains(&pod::name(&e.pod)));
            let candidate = |(entry, (used, requested))| Candidate { entry, used, requested, containers: vec![] };
            first(list.map(candidate).collect()).map(|c| pod::name(&c.entry.pod).to_owned()).unwrap()
        };
        assert_eq!(go(&[]), "more");
        assert_eq!(go(&["more"]), "greedy");
        assert_eq!(go(&["more", "greedy"]), "dear");
        assert_eq!(go(&["more", "greedy", "dear"]), "modest");
    }

    #[test]
    fn the_one_that_goes_is_told_what_was_short_and_what_it_used() {
        let requests = |memory: &str| json!({"requests": {"memory": memory}});
        let pod = entry(
            "web",
            json!({"containers": [{"name": "a", "resources": requests("10Mi")}, {"name": "b"},
                {"name": "modest", "resources": requests("1Gi")}]}),
        );
        let threshold = |signal, least| Threshold { signal, least, grace: None };
        let containers = vec![("a".to_owned(), 20 << 20), ("b".to_owned(), 3 << 10), ("modest".to_owned(), 5)];
        let candidate = Candidate { entry: &pod, used: 30 << 20, requested: 10 << 20, containers };
        let seen = Amount { whole: 4 << 30, free: (90 << 20) + 1024 };
        assert_eq!(
            message(&threshold(Signal::Memory, Least::Amount(100 << 20)), seen, &candidate),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92161Ki. \
             Container a was using 20Mi, request is 10Mi, has larger consumption of memory. \
             Container b was using 3Ki, request is 0, has larger consumption of memory. "
        );
        let whole = entry("web", json!({"containers": [{"name": "a"}], "resources": requests("10Mi")}));
        let candidate = Candidate { entry: &whole, containers: vec![], ..candidate };
        assert!(
            message(&threshold(Signal::Memory, Least::Amount(1)), seen, &candidate)
                .ends_with("Pod web was using 30Mi, request is 10Mi, has larger consumption of memory. ")
        );
        let part = Least::Part { of_100_000: 5000, enough: None };
        assert_eq!(
            message(&threshold(Signal::Pids, part), Amount { whole: 32_768, free: 1000 }, &candidate),
            "The node was low on resource: pids. Threshold quantity: 1638, available: 1k. "
        );
    }
}
