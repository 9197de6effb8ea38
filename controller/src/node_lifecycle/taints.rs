//! The taints a node's conditions call for: pure.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Conditions that keep new pods away when they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// Whether pods may be driven off nodes that are not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Nobody's: no node is ready, so it is more likely us who are cut off. Taints that evict come off.
    Off,
    /// Those under way go on, no others begin: most nodes are not ready.
    Held,
    /// One more node each time this has passed.
    Every(Duration),
}

/// As many nodes as make a cluster large: in a small one that is mostly broken nobody is evicted.
const LARGE: usize = 50;

/// What so many ready nodes and nodes that are not allow. The whole cluster counts as one zone; the rates are those of
/// Kubernetes (`--node-eviction-rate 0.1`, `--secondary-node-eviction-rate 0.01`, `--unhealthy-zone-threshold 0.55`).
pub(crate) fn eviction(ready: usize, not_ready: usize) -> Eviction {
    let all = ready + not_ready;
    if ready == 0 {
        Eviction::Off
    } else if not_ready > 2 && not_ready * 100 >= all * 55 {
        if all > LARGE { Eviction::Every(Duration::from_secs(100)) } else { Eviction::Held }
    } else {
        Eviction::Every(Duration::from_secs(10))
    }
}

/// The taint by which pods are driven off a node in this state, if any.
fn evicting(ready: &str) -> Option<&'static str> {
    match ready {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// Whether putting the taints on begins to drive pods off the node.
pub(crate) fn begins_eviction(before: &[Taint], ready: &str) -> bool {
    evicting(ready).is_some() && !before.iter().any(|t| t.effect == NO_EXECUTE && is_ours(t))
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, ours)| *ours == key)
        }
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&key),
        _ => false,
    }
}

/// A node's taints, if they should be others: those of the conditions, and all that are not ours. `evict` puts the
/// taint on that drives pods off, where there is cause.
pub(crate) fn updated(
    before: &[Taint],
    conditions: &[NodeCondition],
    unschedulable: bool,
    evict: bool,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let status = |type_: &str| conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if let Some(ready) = status("Ready") {
        let key = evicting(ready);
        wanted.extend(key.map(|key| (key, NO_SCHEDULE)));
        wanted.extend(key.filter(|_| evict).map(|key| (key, NO_EXECUTE)));
    }
    wanted.extend(
        PRESSURES.iter().filter(|(type_, _)| status(type_) == Some("True")).map(|(_, key)| (*key, NO_SCHEDULE)),
    );
    if unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut taints: Vec<Taint> =
        before.iter().filter(|taint| !is_ours(taint) || wanted.iter().any(|w| is(taint, w))).cloned().collect();
    for want in wanted {
        if !taints.iter().any(|taint| is(taint, &want)) {
            let (key, effect) = (want.0.to_owned(), want.1.to_owned());
            taints.push(Taint { key, effect, value: None, time_added: Some(Time(now)) });
        }
    }
    (taints != before).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(of: &[(&str, &str)]) -> Vec<NodeCondition> {
        let condition = |(type_, status): &(&str, &str)| NodeCondition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        };
        of.iter().map(condition).collect()
    }

    fn taint(text: &str) -> Taint {
        let (key, effect) = text.split_once(':').unwrap();
        Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: None }
    }

    #[test]
    fn taints_follow_conditions() {
        /// Name; taints and conditions before; cordoned; may evict; taints after, if others.
        type Case = (&'static str, &'static [&'static str], Of, bool, bool, Option<&'static [&'static str]>);
        type Of = &'static [(&'static str, &'static str)];
        let cases: [Case; 8] = [
            ("all well", &[], &[("Ready", "True"), ("MemoryPressure", "False")], false, false, None),
            ("never posted", &[], &[], false, true, None),
            (
                "not ready",
                &[],
                &[("Ready", "False")],
                false,
                true,
                Some(&["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]),
            ),
            (
                "not ready, nobody evicted",
                &["node.kubernetes.io/not-ready:NoExecute"],
                &[("Ready", "False")],
                false,
                false,
                Some(&["node.kubernetes.io/not-ready:NoSchedule"]),
            ),
            (
                "from not ready to silent",
                &["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"],
                &[("Ready", "Unknown")],
                false,
                true,
                Some(&["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]),
            ),
            (
                "back again; a person's own taint stays",
                &["mine:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"],
                &[("Ready", "True")],
                false,
                false,
                Some(&["mine:NoExecute"]),
            ),
            (
                "under pressure",
                &[],
                &[("Ready", "True"), ("PIDPressure", "True"), ("DiskPressure", "Unknown")],
                false,
                false,
                Some(&["node.kubernetes.io/pid-pressure:NoSchedule"]),
            ),
            (
                "cordoned",
                &[],
                &[("Ready", "True")],
                true,
                false,
                Some(&["node.kubernetes.io/unschedulable:NoSchedule"]),
            ),
        ];
        for (name, before, of, unschedulable, evict, expected) in cases {
            let before: Vec<Taint> = before.iter().map(|text| taint(text)).collect();
            let after = updated(&before, &conditions(of), unschedulable, evict, Timestamp::UNIX_EPOCH);
            let texts = after.map(|all| all.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>());
            assert_eq!(texts, expected.map(|all| all.iter().map(|t| (*t).to_owned()).collect()), "{name}");
        }
    }

    #[test]
    fn a_cluster_that_is_mostly_broken_evicts_slowly_or_not_at_all() {
        let cases = [
            (0, 1, Eviction::Off),
            (1, 1, Eviction::Every(Duration::from_secs(10))),
            (1, 3, Eviction::Held),
            (20, 40, Eviction::Every(Duration::from_secs(100))),
            (9, 3, Eviction::Every(Duration::from_secs(10))),
        ];
        for (ready, not_ready, expected) in cases {
            assert_eq!(eviction(ready, not_ready), expected, "{ready} ready, {not_ready} not");
        }
    }
}
