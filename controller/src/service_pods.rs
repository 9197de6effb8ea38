//! Which pods are behind a Service, at which addresses and ports: what Endpoints and EndpointSlices share.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use coracle_proto::selector::LabelSelector;
use k8s_openapi::{
    api::core::v1::{ObjectReference, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{
    informer::{Change, Reader},
    object_key::ObjectKey,
    view::PodView,
    work_queue::WorkQueue,
};

/// Marks what belongs to a Service without an address of its own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the pod or Service changed that made this change necessary.
pub(crate) const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Services are found by their namespace.
pub(crate) fn index_services(service: &Service) -> Vec<String> {
    vec![service.metadata.namespace.clone().unwrap_or_default()]
}

/// The selector of a Service whose pods are looked up here: one with a selector, and a type that has pods at all.
pub(crate) fn selector_of(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| LabelSelector::from_labels(labels))
}

/// Whether the Service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    matches!(address, "" | "None")
}

/// Whether pods count that are not ready.
pub(crate) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pods that a Service selects.
pub(crate) fn pods_of(service: &Service, pods: &Reader<PodView>) -> Vec<std::sync::Arc<PodView>> {
    let Some(selector) = selector_of(service) else { return Vec::new() };
    let mut found =
        pods.list(|pod| pod.metadata.namespace == service.metadata.namespace && selector.matches_labels(pod.labels()));
    found.sort_by_key(|pod| pod.name_any());
    found
}

/// What of a pod shows in the addresses behind a Service.
fn shown(pod: &PodView) -> impl PartialEq + '_ {
    let ips: Vec<&str> = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str()).collect();
    let is_going = pod.metadata.deletion_timestamp.is_some();
    (pod.metadata.labels.as_ref(), ips, pod.is_ready(), is_going, pod.is_over(), &pod.spec.node_name, &pod.metadata.uid)
}

/// Queues the Services that a change of a pod is news for: those that select it, or selected it.
pub(crate) fn on_pod(queue: &WorkQueue<ObjectKey>, services: &Reader<Service>, change: &Change<'_, PodView>) {
    let (pod, old) = match change {
        Change::Updated { old, new } if shown(old) == shown(new) => return,
        Change::Updated { old, new } => (*new, *old),
        Change::Added(pod) | Change::Deleted(pod) => (*pod, *pod),
    };
    for service in services.indexed(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let selects =
            |selector: LabelSelector| selector.matches_labels(pod.labels()) || selector.matches_labels(old.labels());
        if selector_of(&service).is_some_and(selects) {
            queue.add(ObjectKey::of(service.as_ref()));
        }
    }
}

/// Whether a pod has addresses to show: it has any, and is not over.
pub(crate) fn has_endpoints(pod: &PodView) -> bool {
    !pod.is_over() && !pod.status.pod_ips.is_empty()
}

/// A pod's addresses of one family, as they are written canonically.
pub(crate) fn addresses(pod: &PodView, is_v6: bool) -> Vec<String> {
    let parsed = pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    parsed.filter(|ip| ip.is_ipv6() == is_v6).map(|ip| ip.to_string()).collect()
}

/// The hostname by which the Service's DNS knows a pod.
pub(crate) fn hostname(pod: &PodView, service: &Service) -> Option<String> {
    let is_named = !pod.spec.hostname.is_empty() && Some(&pod.spec.subdomain) == service.metadata.name.as_ref();
    is_named.then(|| pod.spec.hostname.clone())
}

/// What an address leads to.
pub(crate) fn target(pod: &PodView) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The number of a Service's port in a pod; a name stands for the port of that name and protocol in any of its
/// containers, sidecars last. `None` when the pod has no such port.
pub(crate) fn port_of(pod: &PodView, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let protocol = |given: Option<&String>| given.map_or("TCP", String::as_str).to_owned();
    let wanted = protocol(port.protocol.as_ref());
    let found = ports.find(|p| p.name.as_ref() == Some(name) && protocol(p.protocol.as_ref()) == wanted);
    found.map(|found| found.container_port)
}

/// What was known of a Service when it was last looked at.
struct Seen {
    service: Timestamp,
    pods: BTreeMap<String, Timestamp>,
}

/// When what changed since a Service was last looked at: from that others measure how long it takes until traffic follows.
#[derive(Default)]
pub(crate) struct TriggerTimes(Mutex<HashMap<ObjectKey, Seen>>);

impl TriggerTimes {
    /// The earliest change since the last call with this key, as the annotation [`TRIGGER`] has it; the Service's creation
    /// the first time; `None` when nothing of weight has changed.
    pub(crate) fn changed<'a>(
        &self,
        key: &ObjectKey,
        service: &Service,
        pods: impl Iterator<Item = &'a PodView>,
    ) -> Option<String> {
        let created = service.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let pods: BTreeMap<String, Timestamp> =
            pods.filter_map(|pod| Some((pod.name_any(), pod.readiness_changed()?))).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trigger = match all.get(key) {
            None => Some(created),
            Some(seen) => {
                let news = pods.iter().filter(|(name, at)| seen.pods.get(*name).is_none_or(|before| before < *at));
                news.map(|(_, at)| *at).chain((created > seen.service).then_some(created)).min()
            }
        };
        all.insert(key.clone(), Seen { service: created, pods });
        trigger.map(|at| at.to_string())
    }

    /// The Service is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(json: Value) -> PodView {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_named_port_is_found_in_containers_and_sidecars_by_protocol() {
        let container = |name: &str, protocol: &str, number: u16| json!({"ports": [{"name": name, "protocol": protocol, "containerPort": number}]});
        let mut sidecar = container("metrics", "TCP", 9);
        sidecar["restartPolicy"] = json!("Always");
        let pod = pod(json!({"metadata": {}, "spec": {
            "containers": [container("web", "TCP", 80), container("dns", "UDP", 53)],
            "initContainers": [container("setup", "TCP", 7), sidecar],
        }}));
        for (port, expected) in [
            (json!({"port": 1}), Some(1)),
            (json!({"port": 1, "targetPort": 8080}), Some(8080)),
            (json!({"port": 1, "targetPort": "web"}), Some(80)),
            (json!({"port": 1, "targetPort": "dns"}), None),
            (json!({"port": 1, "targetPort": "dns", "protocol": "UDP"}), Some(53)),
            (json!({"port": 1, "targetPort": "setup"}), None),
            (json!({"port": 1, "targetPort": "metrics"}), Some(9)),
        ] {
            assert_eq!(port_of(&pod, &serde_json::from_value(port.clone()).unwrap()), expected, "{port}");
        }
    }

    #[test]
    fn addresses_are_told_apart_by_family() {
        let ips = json!([{"ip": "10.0.0.1"}, {"ip": "2001:DB8::1"}]);
        let pod = pod(json!({"metadata": {}, "status": {"podIPs": ips}}));
        assert_eq!(addresses(&pod, false), ["10.0.0.1"]);
        assert_eq!(addresses(&pod, true), ["2001:db8::1"]);
    }

    #[test]
    fn the_earliest_change_since_the_last_look_counts() {
        let times = TriggerTimes::default();
        let key = ObjectKey::new("d", "s");
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"}}))
                .unwrap();
        let ready = |name: &str, at: &str| {
            let ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at}]);
            pod(json!({"metadata": {"name": name}, "status": {"conditions": ready}}))
        };
        let (a, b) = (ready("a", "2026-01-01T00:00:05Z"), ready("b", "2026-01-01T00:00:03Z"));
        let changed = |pods: &[&PodView]| times.changed(&key, &service, pods.iter().copied());
        assert_eq!(changed(&[]).as_deref(), Some("2026-01-01T00:00:00Z"), "a new Service");
        assert_eq!(changed(&[&a, &b]).as_deref(), Some("2026-01-01T00:00:03Z"));
        assert_eq!(changed(&[&a, &b]), None);
        let later = ready("b", "2026-01-01T00:00:09Z");
        assert_eq!(changed(&[&a, &later]).as_deref(), Some("2026-01-01T00:00:09Z"));
        times.forget(&key);
        assert_eq!(changed(&[&a]).as_deref(), Some("2026-01-01T00:00:00Z"), "another Service of the name");
    }
}
