//! Which nodes need a pod of a DaemonSet, and which pods are to go: pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_proto::placement::{matches_required, tolerates};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus},
        core::v1::{PodSpec, Taint, Toleration},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{
    deployment::scaled,
    history::HASH,
    view::{NodeView, PodView},
};

/// What is to be done, and how it stands.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes to make a pod for.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<PodView>>,
    /// Pods that are over, of those to be deleted: their nodes are told of.
    pub(super) over: Vec<Arc<PodView>>,
    pub(super) status: DaemonSetStatus,
    pub(super) wake: Option<Duration>,
}

/// Whether a node is one for the set's pods, as far as the set's template goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fit {
    /// A pod is to be there.
    should_run: bool,
    /// A pod that is there may stay.
    may_stay: bool,
}

/// What every pod of a DaemonSet tolerates: it is to be there even if the node is not well.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let exists = |key: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut more = vec![
        exists("not-ready", "NoExecute"),
        exists("unreachable", "NoExecute"),
        exists("disk-pressure", "NoSchedule"),
        exists("memory-pressure", "NoSchedule"),
        exists("pid-pressure", "NoSchedule"),
        exists("unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        more.push(exists("network-unavailable", "NoSchedule"));
    }
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let is_there = |all: &[Toleration], new: &Toleration| all.iter().any(|t| t == new);
    for toleration in more {
        if !is_there(&all, &toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The node a pod is on, or is meant for.
pub(super) fn node_of(pod: &PodView) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    let required = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match name.values.as_deref() {
        Some([only]) => Some(only),
        _ => None,
    }
}

/// What is looked at.
pub(super) struct Picture<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) spec: &'a DaemonSetSpec,
    pub(super) nodes: &'a [Arc<NodeView>],
    pub(super) pods: &'a [Arc<PodView>],
    /// The hash of the set's template.
    pub(super) hash: &'a str,
    pub(super) collisions: i32,
    pub(super) now: Timestamp,
}

type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<PodView>>>;
type OnNode<'a> = Option<&'a Arc<PodView>>;

impl Picture<'_> {
    fn fit(&self, node: &NodeView, template: &PodSpec, tolerations: &[Toleration]) -> Fit {
        let never = Fit { should_run: false, may_stay: false };
        let name = node.name_any();
        if template.node_name.as_ref().is_some_and(|wanted| !wanted.is_empty() && *wanted != name) {
            return never;
        }
        let labels = node.labels();
        let selected = template.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        let affinity = template.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if !selected || !required.is_none_or(|required| matches_required(required, &name, labels)) {
            return never;
        }
        let keeps_off = |taint: &&Taint, effects: &[&str]| {
            effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|t| tolerates(t, taint))
        };
        let repelled = |effects: &[&str]| node.spec.taints.iter().any(|taint| keeps_off(&taint, effects));
        Fit { should_run: !repelled(&["NoSchedule", "NoExecute"]), may_stay: !repelled(&["NoExecute"]) }
    }

    fn is_new(&self, pod: &PodView) -> bool {
        pod.labels().get(HASH).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &PodView, wake: &mut Option<Duration>) -> bool {
        let Some(since) = pod.ready_since() else { return false };
        let wanted = i64::from(self.spec.min_ready_seconds.unwrap_or_default());
        let left = wanted - self.now.duration_since(since).as_secs();
        match u64::try_from(left) {
            Ok(left @ 1..) if wanted > 0 => {
                let left = Duration::from_secs(left);
                *wake = Some(wake.map_or(left, |known| known.min(left)));
                false
            }
            _ => true,
        }
    }

    /// How many may be missing, and how many more there may be, of so many.
    fn bounds(&self, desired: i32) -> (i32, i32) {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let unavailable = scaled(strategy.and_then(|rolling| rolling.max_unavailable.as_ref()), desired, true);
        let surge = scaled(strategy.and_then(|rolling| rolling.max_surge.as_ref()), desired, true);
        // Both none would stop it for ever.
        if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
    }

    /// Makes and deletes pods on one node, so that there is one (or, in a surge, an old and a new one).
    fn manage(&self, node: &str, fit: Fit, pods: &[&Arc<PodView>], surges: bool, plan: &mut Plan) {
        if fit.should_run && pods.is_empty() {
            plan.create.push(node.to_owned());
            return;
        }
        let there = pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        if !fit.may_stay {
            plan.delete.extend(there.cloned());
            return;
        }
        let (over, mut running): (Vec<&Arc<PodView>>, Vec<&Arc<PodView>>) = there.partition(|pod| pod.is_over());
        plan.over.extend(over.into_iter().cloned());
        // The oldest that is placed comes first.
        running.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pod.spec.node_name.is_empty(), made, pod.name_any())
        });
        if !surges {
            plan.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        if running.is_empty() && fit.should_run {
            plan.create.push(node.to_owned());
        }
        if running.len() < 2 {
            return;
        }
        let (new, old): (Vec<&Arc<PodView>>, Vec<&Arc<PodView>>) =
            running.into_iter().partition(|pod| self.is_new(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).copied().cloned());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.is_ready() || self.is_available(new, &mut plan.wake))
        {
            plan.delete.push(Arc::clone(old));
        }
    }

    /// The new and the old pod on a node; `None` when there are more, which are dealt with first.
    fn versions<'a>(&self, pods: &[&'a Arc<PodView>]) -> Option<(OnNode<'a>, OnNode<'a>)> {
        let there = pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let (new, old): (Vec<_>, Vec<_>) = there.partition(|pod| self.is_new(pod));
        (new.len() < 2 && old.len() < 2).then(|| (new.first().copied(), old.first().copied()))
    }

    /// Deletes old pods, as many as may be missing.
    fn roll(&self, by_node: &ByNode<'_>, most: i32, plan: &mut Plan) {
        let (mut missing, mut candidates) = (0, Vec::new());
        for pods in by_node.values() {
            match self.versions(pods) {
                Some((Some(new), None)) => missing += i32::from(!self.is_available(new, &mut plan.wake)),
                Some((None, Some(old))) if !self.is_available(old, &mut plan.wake) => {
                    // It is of no use as it is.
                    plan.delete.push(Arc::clone(old));
                    missing += 1;
                }
                Some((None, Some(old))) => candidates.push(Arc::clone(old)),
                _ => missing += 1,
            }
        }
        let more = usize::try_from(most - missing).unwrap_or_default();
        plan.delete.extend(candidates.into_iter().take(more));
    }

    /// Makes new pods beside old ones, as many more as there may be.
    fn surge(&self, by_node: &ByNode<'_>, fits: &BTreeMap<&str, Fit>, most: i32, plan: &mut Plan) {
        let (mut surging, mut candidates) = (0, Vec::new());
        let (mut available, mut unwanted) = (0, Vec::new());
        for (node, pods) in by_node {
            let runs = fits.get(node).is_some_and(|fit| fit.should_run);
            let versions = self.versions(pods);
            if let Some(pod) = versions.and_then(|(new, old)| old.or(new)) {
                available += i32::from(self.is_available(pod, &mut plan.wake));
            }
            match versions {
                None => surging += 1,
                Some((_, None)) => {}
                Some((Some(new), Some(_))) => surging += i32::from(!self.is_available(new, &mut plan.wake)),
                Some((None, Some(old))) => match (runs, self.is_available(old, &mut plan.wake)) {
                    (true, true) => candidates.push((*node).to_owned()),
                    (true, false) => plan.create.push((*node).to_owned()),
                    (false, false) => plan.delete.push(Arc::clone(old)),
                    (false, true) => unwanted.push(Arc::clone(old)),
                },
            }
        }
        // Where none is to be any more, one goes only when enough others are there.
        let spare = usize::try_from(available - plan.status.desired_number_scheduled).unwrap_or_default();
        plan.delete.extend(unwanted.into_iter().take(spare));
        let more = usize::try_from(most - surging).unwrap_or_default();
        plan.create.extend(candidates.into_iter().take(more));
    }

    pub(super) fn plan(&self) -> Plan {
        let template = self.spec.template.spec.clone().unwrap_or_default();
        let tolerations = tolerations(&template);
        let mut by_node: ByNode<'_> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| !(pod.is_over() && pod.metadata.deletion_timestamp.is_some())) {
            if let Some(node) = node_of(pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let names: Vec<(String, Fit)> =
            self.nodes.iter().map(|node| (node.name_any(), self.fit(node, &template, &tolerations))).collect();
        let fits: BTreeMap<&str, Fit> = names.iter().map(|(name, fit)| (name.as_str(), *fit)).collect();
        let mut wake = None;
        let status = self.count(&by_node, &fits, &mut wake);
        let mut plan = Plan { status, wake, ..Plan::default() };
        if self.set.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let (unavailable, surge) = self.bounds(plan.status.desired_number_scheduled);
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        let rolls = strategy.is_none_or(|name| name == "RollingUpdate");
        for (node, fit) in &fits {
            let pods = by_node.get(node).map_or(&[][..], Vec::as_slice);
            self.manage(node, *fit, pods, rolls && surge > 0, &mut plan);
        }
        // Pods meant for nodes that are no more, and not placed: nobody else takes them away.
        for (_, pods) in by_node.iter().filter(|(node, _)| !fits.contains_key(*node)) {
            let unplaced =
                |pod: &&&Arc<PodView>| pod.spec.node_name.is_empty() && pod.metadata.deletion_timestamp.is_none();
            plan.delete.extend(pods.iter().filter(unplaced).copied().cloned());
        }
        // First one pod a node, then other pods.
        if rolls && plan.create.is_empty() && plan.delete.is_empty() && plan.over.is_empty() {
            match surge {
                0 => self.roll(&by_node, unavailable, &mut plan),
                _ => self.surge(&by_node, &fits, surge, &mut plan),
            }
        }
        plan
    }

    fn count(&self, by_node: &ByNode<'_>, fits: &BTreeMap<&str, Fit>, wake: &mut Option<Duration>) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: Some(self.collisions).filter(|count| *count > 0),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut available, mut updated) = (0, 0);
        for (node, fit) in fits {
            let pods = by_node.get(node).map_or(&[][..], Vec::as_slice);
            if !fit.should_run {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            let oldest = pods.iter().min_by_key(|pod| {
                (pod.spec.node_name.is_empty(), pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
            });
            let Some(pod) = oldest else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pod.is_ready());
            available += i32::from(self.is_available(pod, wake));
            updated += i32::from(self.is_new(pod));
        }
        let some = |count: i32| (count > 0).then_some(count);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status.updated_number_scheduled = some(updated);
        status
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(strategy: Value, template: Value) -> DaemonSet {
        let spec = json!({"selector": {}, "template": {"spec": template}, "updateStrategy": strategy});
        serde_json::from_value(json!({"metadata": {"name": "d", "generation": 1}, "spec": spec})).unwrap()
    }

    fn node(name: &str, taints: Value) -> Arc<NodeView> {
        let labels = json!({"zone": name.get(..1).unwrap()});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}))
                .unwrap(),
        )
    }

    /// `name:node:revision:state`, where the state is `ok`, `starting`, `going` or `failed`.
    fn pod(words: &str) -> Arc<PodView> {
        let [name, node, hash, state] = words.split(':').collect::<Vec<_>>().try_into().unwrap();
        let ready = if state == "ok" { "True" } else { "False" };
        let phase = if state == "failed" { "Failed" } else { "Running" };
        let deleted = if state == "going" { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        let pod = json!({"metadata": {"name": name, "labels": {(HASH): hash}, "deletionTimestamp": deleted},
                         "spec": {"nodeName": node},
                         "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn plan(set: &DaemonSet, nodes: &[Arc<NodeView>], pods: &str) -> Plan {
        let pods: Vec<Arc<PodView>> = pods.split_whitespace().map(pod).collect();
        let spec = set.spec.as_ref().unwrap();
        Picture { set, spec, nodes, pods: &pods, hash: "b", collisions: 0, now: Timestamp::UNIX_EPOCH }.plan()
    }

    fn steps(plan: &Plan) -> String {
        let create = plan.create.iter().map(|node| format!("+{node}"));
        let names = |pods: &[Arc<PodView>]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        let delete = names(&plan.delete).into_iter().chain(names(&plan.over)).map(|name| format!("-{name}"));
        create.chain(delete).collect::<Vec<_>>().join(" ")
    }

    fn three() -> Vec<Arc<NodeView>> {
        ["n1", "n2", "n3"].map(|name| node(name, json!([]))).to_vec()
    }

    #[test]
    fn each_node_has_one_pod() {
        let set = set(json!({"type": "OnDelete"}), json!({"containers": []}));
        for (pods, expected) in [
            ("", "+n1 +n2 +n3"),
            ("p:n1:b:ok q:n2:b:going r:n3:b:starting", ""),
            ("p:n1:b:ok q:n1:b:ok r:n2:a:ok s:n3:a:ok", "-q"),
            ("p:n1:b:failed r:n2:a:ok s:n3:a:ok", "-p"),
        ] {
            assert_eq!(steps(&plan(&set, &three(), pods)), expected, "{pods}");
        }
    }

    #[test]
    fn nodes_are_chosen_by_labels_and_taints() {
        let taint = |effect: &str| json!([{"key": "k", "effect": effect}]);
        let unwell = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
                            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        let nodes = [
            node("n1", json!([])),
            node("n2", taint("NoSchedule")),
            node("n3", taint("NoExecute")),
            node("n4", unwell),
        ];
        let plain = set(json!({"type": "OnDelete"}), json!({"containers": []}));
        assert_eq!(steps(&plan(&plain, &nodes, "")), "+n1 +n4");
        let there = plan(&plain, &nodes, "p:n1:b:ok q:n2:b:ok r:n3:b:ok s:n4:b:ok");
        assert_eq!(steps(&there), "-r", "what is there may stay unless it is driven off");
        let status = there.status;
        assert_eq!((status.desired_number_scheduled, status.number_misscheduled, status.number_ready), (2, 2, 2));
        let by_label = set(json!({}), json!({"containers": [], "nodeSelector": {"zone": "m"}}));
        assert_eq!(steps(&plan(&by_label, &[node("m1", json!([])), node("n1", json!([]))], "q:n1:b:ok")), "+m1 -q");
        let by_name = set(
            json!({}),
            json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["n"]}]}]}}}}),
        );
        assert_eq!(steps(&plan(&by_name, &[node("m1", json!([])), node("n1", json!([]))], "")), "+m1");
    }

    #[test]
    fn old_pods_are_replaced_as_many_as_may_be_missing() {
        let rolling = |most: Value| set(json!({"rollingUpdate": {"maxUnavailable": most}}), json!({"containers": []}));
        for (most, pods, expected) in [
            (json!(1), "p:n1:a:ok q:n2:a:ok r:n3:a:ok", "-p"),
            (json!("50%"), "p:n1:a:ok q:n2:a:ok r:n3:a:ok", "-p -q"),
            (json!(1), "p:n1:b:starting q:n2:a:ok r:n3:a:ok", ""),
            (json!(1), "p:n1:b:ok q:n2:a:ok r:n3:a:ok", "-q"),
            (json!(1), "p:n1:b:starting q:n2:a:starting r:n3:a:ok", "-q"),
            (json!(1), "p:n1:a:going q:n2:a:ok r:n3:a:ok", ""),
            (json!(3), "q:n2:a:ok r:n3:a:ok", "+n1"),
        ] {
            assert_eq!(steps(&plan(&rolling(most.clone()), &three(), pods)), expected, "{most} {pods}");
        }
    }

    #[test]
    fn a_surge_makes_new_pods_first() {
        let surge = set(json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}), json!({"containers": []}));
        for (pods, expected) in [
            ("p:n1:a:ok q:n2:a:ok r:n3:a:ok", "+n1"),
            ("p:n1:a:ok p2:n1:b:starting q:n2:a:ok r:n3:a:ok", ""),
            ("p:n1:a:ok p2:n1:b:ok q:n2:a:ok r:n3:a:ok", "-p"),
            ("p:n1:a:starting p2:n1:b:starting q:n2:a:ok r:n3:a:ok", "-p"),
            ("p:n1:b:ok q:n2:a:starting r:n3:a:ok", "+n2 +n3"),
        ] {
            assert_eq!(steps(&plan(&surge, &three(), pods)), expected, "{pods}");
        }
    }
}
