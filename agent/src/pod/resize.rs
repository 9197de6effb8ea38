//! In-place resize (KEP-1287): what of the resources a pod asks for the node has granted, and what follows from a change.
//!
//! ```text
//!   asked (spec) ──fits the node?──▶ granted (allocatedResources) ──cgroups written──▶ told (status.resources)
//! ```
//!
//! Everything else of the agent sees the pod with the resources that were granted ([`with`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_proto::pod_resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use serde_json::{Value, json};

use super::resources::{milli, pod_limits};
use super::spec;

/// What can be resized.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The resources of a pod's containers by their names, and those of the pod itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Granted {
    /// Of the pod as a whole, if it says any.
    pub(crate) pod: Option<ResourceRequirements>,
    /// Of each container.
    pub(crate) containers: BTreeMap<String, ResourceRequirements>,
}

impl Granted {
    /// What the pod asks for.
    pub(crate) fn asked(pod: &Pod) -> Self {
        Self {
            pod: spec(pod).0.and_then(|s| s.resources.clone()),
            containers: spec(pod).all().map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect(),
        }
    }

    /// What an agent before this one had granted, as the pod's status tells: where the spec asks for something else than
    /// was allocated, what the container has.
    pub(crate) fn recovered(pod: &Pod) -> Self {
        let mut granted = Self::asked(pod);
        for (name, resources) in &mut granted.containers {
            let Some(status) = pod.status.as_ref().and_then(|s| status_of(s, name)) else { continue };
            let allocated = ResourceRequirements {
                requests: status.allocated_resources.clone(),
                ..ResourceRequirements::default()
            };
            let asked =
                ResourceRequirements { requests: resources.requests.clone(), ..ResourceRequirements::default() };
            if !same(&allocated, &asked)
                && let Some(has) = &status.resources
            {
                let mut has = ResourceRequirements { claims: resources.claims.clone(), ..has.clone() };
                // Limits that are not its own are the pod's.
                if let Some(limits) = &mut has.limits {
                    let own = resources.limits.as_ref();
                    limits.retain(|name, _| own.is_some_and(|own| own.contains_key(name)));
                }
                *resources = has;
            }
        }
        if let (Some(resources), Some(status)) = (&mut granted.pod, &pod.status) {
            let overhead = spec(pod).0.and_then(|s| s.overhead.as_ref());
            let limits = status.resources.as_ref().and_then(|r| r.limits.as_ref());
            restore(resources.requests.as_mut(), status.allocated_resources.as_ref(), overhead);
            restore(resources.limits.as_mut(), limits, overhead);
        }
        granted
    }

    /// Whether both give the same CPU and memory, however the amounts are written.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let none = ResourceRequirements::default();
        same(self.pod.as_ref().unwrap_or(&none), other.pod.as_ref().unwrap_or(&none))
            && self.containers.len() == other.containers.len()
            && self.containers.iter().all(|(name, a)| other.containers.get(name).is_some_and(|b| same(a, b)))
    }
}

/// Puts CPU and memory as they were, without what running the pod costs besides, where another amount is asked for now.
fn restore(asked: Option<&mut ResourceList>, had: Option<&ResourceList>, overhead: Option<&ResourceList>) {
    let (Some(asked), Some(had)) = (asked, had) else { return };
    let (had, overhead) = (pod_resources::amounts(Some(had)), pod_resources::amounts(overhead));
    for name in COMPUTE {
        let (Some(asked), Some(had)) = (asked.get_mut(name), had.get(name)) else { continue };
        let had = overhead.get(name).map_or(*had, |cost| *had - *cost);
        if pod_resources::parse(asked) != Some(had) {
            *asked = had.into();
        }
    }
}

fn status_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a k8s_openapi::api::core::v1::ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .find(|s| s.name == name)
}

/// The pod with the resources it was granted; the pod itself where these are what it asks for.
pub(crate) fn with(pod: &Arc<Pod>, granted: &Granted) -> Arc<Pod> {
    if Granted::asked(pod) == *granted {
        return Arc::clone(pod);
    }
    let mut changed = Pod::clone(pod);
    if let Some(spec) = &mut changed.spec {
        spec.resources.clone_from(&granted.pod);
        let all = spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut());
        for container in all {
            if let Some(resources) = granted.containers.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
    }
    Arc::new(changed)
}

/// What a container is to have: what it asks for, and its pod's limits of CPU and memory where it has none of its own.
pub(crate) fn of_container(pod: &Pod, container: &Container) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    let whole = spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.limits.as_ref());
    for (name, limit) in whole.into_iter().flatten().filter(|(name, limit)| is_compute(name) && milli(limit) > 0) {
        let own = resources.limits.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
        if milli(own) == 0 {
            own.clone_from(limit);
        }
    }
    resources
}

/// What the pod as a whole requests, its containers and what running it costs besides summed up.
pub(crate) fn allocated(pod: &Pod) -> ResourceList {
    let (requests, _) = spec(pod).0.map(pod_resources::with_overhead).unwrap_or_default();
    requests.into_iter().map(|(name, amount)| (name, amount.into())).collect()
}

/// What the pod as a whole is to have: what it declares, and what its cgroup is told of CPU and memory.
pub(crate) fn of_pod(pod: &Pod) -> ResourceRequirements {
    let declared = spec(pod).0.and_then(|s| s.resources.clone()).unwrap_or_default();
    let (requests, limits) = spec(pod).0.map(pod_resources::with_overhead).unwrap_or_default();
    let enforced = pod_limits(pod);
    let with = |declared: Option<ResourceList>, sums: pod_resources::Amounts| {
        let mut all = declared.unwrap_or_default();
        all.extend(sums.into_iter().filter(|(name, _)| is_compute(name)).map(|(name, amount)| (name, amount.into())));
        Some(all).filter(|all| !all.is_empty())
    };
    ResourceRequirements {
        claims: None,
        limits: with(declared.limits, limits.into_iter().filter(|(name, _)| enforced.contains_key(name)).collect()),
        requests: with(declared.requests, requests),
    }
}

fn is_compute(name: &str) -> bool {
    COMPUTE.contains(&name)
}

/// Whether both give the same CPU and memory.
pub(crate) fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    COMPUTE.iter().all(|name| !differs(a, b, name))
}

fn differs(a: &ResourceRequirements, b: &ResourceRequirements, name: &str) -> bool {
    let amount = |list: &Option<ResourceList>| list.as_ref().and_then(|l| l.get(name)).map(milli);
    amount(&a.requests) != amount(&b.requests) || amount(&a.limits) != amount(&b.limits)
}

/// Whether the container wants to be started anew for this change.
pub(crate) fn needs_restart(
    container: &Container,
    before: &ResourceRequirements,
    after: &ResourceRequirements,
) -> bool {
    container
        .resize_policy
        .iter()
        .flatten()
        .any(|policy| policy.restart_policy == "RestartContainer" && differs(before, after, &policy.resource_name))
}

/// The words of an event about a resize: `Pod resize started: {"containers":[…],"generation":2}`.
pub(crate) fn message(pod: &Pod, prefix: &str, error: &str) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        containers
            .iter()
            .map(|c| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()}))
            .collect()
    };
    let mut summary = serde_json::Map::new();
    if !spec(pod).init_containers().is_empty() {
        summary.insert("initContainers".into(), list(spec(pod).init_containers()).into());
    }
    summary.insert("containers".into(), list(spec(pod).containers()).into());
    summary.insert("generation".into(), pod.metadata.generation.into());
    if !error.is_empty() {
        summary.insert("error".into(), error.into());
    }
    format!("Pod resize {prefix}: {}", Value::Object(summary))
}

#[cfg(test)]
mod tests {
    use super::super::testing::pod;
    use super::*;

    fn requirements(value: Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    fn resized(status: Value) -> Pod {
        let mut pod = pod(json!({"containers": [{"name": "app", "resources": {"requests": {"cpu": "2"}}}]}));
        pod.status = Some(serde_json::from_value(json!({"containerStatuses": [status]})).unwrap());
        pod
    }

    #[test]
    fn amounts_are_compared_not_how_they_are_written() {
        let a = requirements(json!({"requests": {"cpu": "1", "example.com/x": "1"}, "limits": {"memory": "1Gi"}}));
        let b = requirements(json!({"requests": {"cpu": "1000m"}, "limits": {"memory": "1024Mi"}}));
        assert!(same(&a, &b));
        assert!(!same(&a, &requirements(json!({"requests": {"cpu": "1"}}))));
    }

    #[test]
    fn only_a_change_of_what_the_policy_names_needs_a_restart() {
        let container: Container = serde_json::from_value(json!({"name": "app", "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}))
        .unwrap();
        let before = requirements(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        let more_cpu = requirements(json!({"requests": {"cpu": "2", "memory": "1Gi"}}));
        let more_memory = requirements(json!({"requests": {"cpu": "1", "memory": "2Gi"}}));
        assert!(!needs_restart(&container, &before, &more_cpu));
        assert!(needs_restart(&container, &before, &more_memory));
    }

    #[test]
    fn the_pod_is_seen_with_what_it_was_granted() {
        let pod = Arc::new(pod(json!({"containers": [{"name": "app", "resources": {"requests": {"cpu": "2"}}}]})));
        let asked = Granted::asked(&pod);
        assert!(Arc::ptr_eq(&with(&pod, &asked), &pod));
        let less = Granted {
            containers: [("app".to_owned(), requirements(json!({"requests": {"cpu": "1"}})))].into(),
            ..Granted::default()
        };
        let seen = with(&pod, &less);
        assert_eq!(Granted::asked(&seen), less);
        assert!(!less.is(&asked));
    }

    #[test]
    fn after_a_restart_of_the_agent_the_status_tells_what_was_granted() {
        let granted = |status| Granted::recovered(&resized(status)).containers["app"].requests.clone().unwrap();
        let had = json!({"requests": {"cpu": "1"}});
        let kept = json!({"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "1"}, "resources": had});
        assert_eq!(granted(kept)["cpu"].0, "1");
        let begun = json!({"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "2000m"}, "resources": had});
        assert_eq!(granted(begun)["cpu"].0, "2");
        let never = json!({"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        assert_eq!(granted(never)["cpu"].0, "2");
    }

    #[test]
    fn a_pod_has_what_it_declares_and_else_what_its_containers_have_together() {
        let shown = |value: &Pod| serde_json::to_value(of_pod(value)).unwrap();
        let cpu = |n: &str| json!({"requests": {"cpu": n, "memory": "64Mi"}, "limits": {"cpu": n}});
        let plain = pod(json!({"overhead": {"cpu": "250m"},
            "containers": [{"name": "a", "resources": cpu("1")}, {"name": "b", "resources": cpu("500m")}]}));
        assert_eq!(shown(&plain), json!({"limits": {"cpu": "1750m"}, "requests": {"cpu": "1750m", "memory": "128Mi"}}));
        let whole = pod(json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "3", "memory": "1Gi"}},
            "containers": [{"name": "a", "resources": cpu("1")}, {"name": "b"}]}));
        assert_eq!(shown(&whole), json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "3", "memory": "1Gi"}}));
        assert_eq!(serde_json::to_value(allocated(&whole)).unwrap(), json!({"cpu": "3", "memory": "1Gi"}));
        let of =
            |name: &str| serde_json::to_value(of_container(&whole, spec(&whole).container(name).unwrap())).unwrap();
        assert_eq!(of("b"), json!({"limits": {"memory": "1Gi"}}));
        assert_eq!(of("a")["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(shown(&pod(json!({"containers": [{"name": "a"}]}))), json!({}));
    }

    #[test]
    fn what_the_pod_itself_was_granted_is_read_from_its_status() {
        let mut pod = pod(json!({"overhead": {"cpu": "100m"}, "containers": [{"name": "app"}],
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "1Gi"}}}));
        assert_eq!(Granted::recovered(&pod), Granted::asked(&pod));
        let status = json!({"allocatedResources": {"cpu": "1100m", "memory": "1Gi"},
            "resources": {"requests": {"cpu": "1100m", "memory": "1Gi"}, "limits": {"cpu": "2100m", "memory": "1024Mi"}}});
        pod.status = Some(serde_json::from_value(status).unwrap());
        assert_eq!(
            serde_json::to_value(Granted::recovered(&pod).pod).unwrap(),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})
        );
    }

    #[test]
    fn events_say_what_is_asked_for() {
        let pod = resized(json!({"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0}));
        assert_eq!(
            message(&pod, "Deferred", "no room"),
            r#"Pod resize Deferred: {"containers":[{"name":"app","resources":{"requests":{"cpu":"2"}}}],"error":"no room","generation":1}"#
        );
    }
}
