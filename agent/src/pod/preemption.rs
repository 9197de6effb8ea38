//! Who makes room for a critical pod that the node has none for, as kubelet chooses: pods of the lowest quality of service
//! that suffice, of those the ones that fit what is short best.

use coracle_runtime::QosClass;
use k8s_openapi::api::core::v1::Pod;

use super::resources::{self, Amounts};
use super::{spec, uid};
use crate::eviction::is_critical;

/// What one more pod takes of the node's number of pods, in thousandths.
const ONE_POD: i128 = 1000;

fn priority(pod: &Pod) -> Option<i32> {
    spec(pod).0.and_then(|spec| spec.priority)
}

/// Whether `other` may be sent away for `pod`.
fn gives_way(pod: &Pod, other: &Pod) -> bool {
    if is_critical(pod) && !is_critical(other) {
        return true;
    }
    matches!((priority(pod), priority(other)), (Some(own), Some(theirs)) if own > theirs)
}

/// A pod that may go, and what it leaves.
#[derive(Clone)]
struct Candidate<'a> {
    pod: &'a Pod,
    leaves: Amounts,
}

impl Candidate<'_> {
    fn leaves(&self, name: &str) -> i128 {
        if name == "pods" { ONE_POD } else { self.leaves.get(name).copied().unwrap_or(0) }
    }
}

/// What is still short once these are gone.
fn without<'a>(short: &Amounts, gone: impl IntoIterator<Item = &'a Candidate<'a>> + Clone) -> Amounts {
    let left = |(name, amount): (&String, &i128)| {
        let freed: i128 = gone.clone().into_iter().map(|candidate| candidate.leaves(name)).sum();
        (amount > &freed).then(|| (name.clone(), amount - freed))
    };
    short.iter().filter_map(left).collect()
}

/// The uids of the pods that go for `pod`, so that what is `short` is there; `None` if all that may go do not suffice. Only a
/// critical pod sends others away.
pub(crate) fn victims<'a>(
    pod: &Pod,
    others: impl IntoIterator<Item = &'a Pod>,
    short: &Amounts,
) -> Option<Vec<String>> {
    if !is_critical(pod) || short.is_empty() {
        return None;
    }
    let (mut best_effort, mut burstable, mut guaranteed) = (Vec::new(), Vec::new(), Vec::new());
    for other in others.into_iter().filter(|other| gives_way(pod, other)) {
        let candidate = Candidate { pod: other, leaves: resources::pod_requests(other) };
        match resources::qos_class(other).0 {
            QosClass::BestEffort => best_effort.push(candidate),
            QosClass::Burstable => burstable.push(candidate),
            QosClass::Guaranteed => guaranteed.push(candidate),
        }
    }
    // Of the better ones only those that are needed even if all of the worse ones go; then of the worse ones the rest.
    let first = nearest(guaranteed, without(short, best_effort.iter().chain(&burstable)))?;
    let second = nearest(burstable, without(short, best_effort.iter().chain(&first)))?;
    let third = nearest(best_effort, without(short, second.iter().chain(&first)))?;
    Some(third.iter().chain(&second).chain(&first).map(|candidate| uid(candidate.pod).to_owned()).collect())
}

/// Takes candidates, the one that comes nearest to what is still short first, until nothing is.
fn nearest<'a>(mut candidates: Vec<Candidate<'a>>, mut short: Amounts) -> Option<Vec<Candidate<'a>>> {
    let mut taken = Vec::new();
    while !short.is_empty() {
        let best = candidates
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| {
                distance(a, &short).total_cmp(&distance(b, &short)).then_with(|| size(a).cmp(&size(b)))
            })
            .map(|(at, _)| at)?;
        let candidate = candidates.swap_remove(best);
        short = without(&short, [&candidate]);
        taken.push(candidate);
    }
    Some(taken)
}

/// How much of each thing that is short would be missing still, each counted alike.
#[expect(clippy::cast_precision_loss, reason = "fractions that are only compared")]
fn distance(candidate: &Candidate<'_>, short: &Amounts) -> f64 {
    let missing = |(name, amount): (&String, &i128)| {
        let left = (amount - candidate.leaves(name)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    short.iter().map(missing).sum()
}

/// Of two that fit equally well the one with fewer requests goes.
fn size(candidate: &Candidate<'_>) -> (i128, i128) {
    (candidate.leaves("memory"), candidate.leaves("cpu"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::pod;
    use super::*;

    fn one(name: &str, priority: i32, requests: &str, limits: bool) -> Pod {
        let amounts = json!({"cpu": requests, "memory": "1Mi"});
        let resources = match (requests, limits) {
            ("", _) => json!({}),
            (_, true) => json!({"requests": amounts, "limits": amounts}),
            (_, false) => json!({"requests": amounts}),
        };
        let mut pod = pod(json!({"priority": priority, "containers": [{"name": "a", "resources": resources}]}));
        pod.metadata.uid = Some(name.to_owned());
        pod
    }

    #[test]
    fn the_lowest_class_that_suffices_makes_room_and_the_best_fit_of_it() {
        let critical = one("new", 2_000_000_000, "2", false);
        let others = [
            one("idle", 0, "", false),
            one("small", 0, "500m", false),
            one("fits", 0, "1", false),
            one("large", 0, "3", false),
            one("sure", 0, "8", true),
            one("system", 2_000_001_000, "8", false),
        ];
        let cpu = |milli: i128| Amounts::from([("cpu".to_owned(), milli)]);
        for (short, want) in [
            (cpu(1000), Some(vec!["fits"])),
            (cpu(400), Some(vec!["small"])),
            (cpu(3500), Some(vec!["large", "small"])),
            (cpu(5000), Some(vec!["sure"])),
            (cpu(20_000), None),
            (Amounts::from([("pods".to_owned(), 1000)]), Some(vec!["idle"])),
        ] {
            let got = victims(&critical, &others, &short);
            assert_eq!(got, want.map(|want| want.into_iter().map(str::to_owned).collect()), "{short:?}");
        }
        assert_eq!(victims(&one("new", 5, "2", false), &others, &cpu(1000)), None, "only for critical pods");
    }
}
