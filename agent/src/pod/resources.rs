//! Requests and limits: quality of service, cgroup figures and out-of-memory scores, as kubelet works them out.

use std::collections::BTreeMap;

use coracle_runtime::{HugePageLimit, QosClass, Resources};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{is_sidecar, spec};

/// Amounts by resource name, in thousandths (so that `100m` CPU is exact).
pub(crate) type Amounts = BTreeMap<String, i128>;

/// The CPU period every quota is given in, in microseconds.
const PERIOD: u64 = 100_000;
/// The fewest shares the kernel takes.
const MIN_SHARES: u64 = 2;
/// The shortest quota the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1000;

/// A quantity in thousandths; one that cannot be read counts as nothing (the API server refuses such).
pub(crate) fn milli(quantity: &Quantity) -> i128 {
    quantity.0.parse::<coracle_proto::quantity::Quantity>().map_or(0, |q| i128::from(q.milli_value()))
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole(quantity: &Quantity) -> i64 {
    units(milli(quantity))
}

/// Thousandths as whole units, rounded up.
pub(crate) fn units(milli: i128) -> i64 {
    i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) > 0)).unwrap_or(i64::MAX)
}

/// So many whole units in thousandths.
pub(crate) fn thousandths(count: usize) -> i128 {
    i128::try_from(count).map_or(i128::MAX, |count| count.saturating_mul(1000))
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, q)| (name.clone(), milli(q))).collect()
}

/// What a container requests; a limit without a request requests as much.
pub(crate) fn requests(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::new() };
    let mut all = amounts(resources.limits.as_ref());
    all.extend(amounts(resources.requests.as_ref()));
    all
}

/// What a container is limited to.
pub(crate) fn limits(container: &Container) -> Amounts {
    container.resources.as_ref().map(|r| amounts(r.limits.as_ref())).unwrap_or_default()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

fn raise(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = sum.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// The pod's figure over its containers: apps and sidecars together, or what the hungriest init container needs beside
/// the sidecars before it, plus overhead (KEP-753). What the pod itself declares replaces the sum (KEP-2837).
fn over(pod: &Pod, of: fn(&Container) -> Amounts, declared: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let mut sum = Amounts::new();
    for container in spec(pod).containers() {
        add(&mut sum, &of(container));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec(pod).init_containers() {
        let own = of(container);
        if is_sidecar(container) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut most, &sidecars);
        } else {
            let mut together = own;
            add(&mut together, &sidecars);
            raise(&mut most, &together);
        }
    }
    raise(&mut sum, &most);
    sum.extend(amounts(declared));
    add(&mut sum, &amounts(spec(pod).0.and_then(|s| s.overhead.as_ref())));
    sum
}

/// What the pod as a whole requests.
pub(crate) fn pod_requests(pod: &Pod) -> Amounts {
    over(pod, requests, spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()))
}

/// The limits the pod itself declares (KEP-2837).
pub(crate) fn declared_limits(pod: &Pod) -> Amounts {
    amounts(spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.limits.as_ref()))
}

/// What the pod as a whole is limited to, for the resources that every container is limited in.
pub(crate) fn pod_limits(pod: &Pod) -> Amounts {
    let declared = spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.limits.as_ref());
    let mut sum = over(pod, limits, declared);
    sum.retain(|name, _| {
        declared.is_some_and(|d| d.contains_key(name))
            || spec(pod).all().all(|c| limits(c).get(name).is_some_and(|amount| *amount > 0))
    });
    sum
}

/// A quality of service class, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Qos(pub(crate) QosClass);

impl Qos {
    /// `Guaranteed`, `Burstable` or `BestEffort`.
    pub(crate) fn as_str(self) -> &'static str {
        match self.0 {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// The pod's quality of service: every container's limits set and equal to its requests, something set, nothing set.
pub(crate) fn qos_class(pod: &Pod) -> Qos {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let counted =
        |a: Amounts| -> Amounts { a.into_iter().filter(|(n, v)| COUNTED.contains(&n.as_str()) && *v > 0).collect() };
    let declared = spec(pod).0.and_then(|s| s.resources.as_ref());
    let sets: Vec<(Amounts, Amounts)> = match declared {
        Some(r) if r.requests.is_some() || r.limits.is_some() => {
            let limits = amounts(r.limits.as_ref());
            let mut requests = limits.clone();
            requests.extend(amounts(r.requests.as_ref()));
            vec![(counted(requests), counted(limits))]
        }
        _ => spec(pod).all().map(|c| (counted(requests(c)), counted(limits(c)))).collect(),
    };
    if sets.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return Qos(QosClass::BestEffort);
    }
    let guaranteed = sets.iter().all(|(requests, limits)| limits.len() == COUNTED.len() && requests == limits);
    Qos(if guaranteed { QosClass::Guaranteed } else { QosClass::Burstable })
}

fn shares(milli_cpu: i128) -> u64 {
    u64::try_from(milli_cpu * 1024 / 1000).unwrap_or(MIN_SHARES).clamp(MIN_SHARES, 262_144)
}

fn quota(milli_cpu: i128) -> i64 {
    i64::try_from(milli_cpu * i128::from(PERIOD) / 1000).unwrap_or(i64::MAX).max(MIN_QUOTA)
}

fn cgroup(requests: &Amounts, limits: &Amounts) -> Resources {
    let mut resources =
        Resources { cpu_shares: Some(shares(requests.get("cpu").copied().unwrap_or(0))), ..Resources::default() };
    if let Some(cpu) = limits.get("cpu").filter(|v| **v > 0) {
        resources.cpu_quota = Some(quota(*cpu));
        resources.cpu_period = Some(PERIOD);
    }
    if let Some(memory) = limits.get("memory").filter(|v| **v > 0) {
        resources.memory_limit = Some(units(*memory));
        // A limit on memory is one on swap too: what does not fit is killed, not slowed down.
        resources.swap_limit = Some(0);
    }
    resources
}

/// What the names of resources that are huge pages begin with; a size follows, as in `hugepages-2Mi`.
pub(crate) const HUGE_PAGES: &str = "hugepages-";

/// The bytes of a huge page by its size as Kubernetes writes it, as in `2Mi`.
pub(crate) fn page_bytes(size: &str) -> Option<u64> {
    let bytes = size.parse::<coracle_proto::quantity::Quantity>().ok()?.value();
    u64::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two())
}

/// The limits of huge pages among these amounts, the sizes named as the kernel names them: `2MB`.
fn huge_pages(amounts: &Amounts) -> Vec<HugePageLimit> {
    let named = |bytes: u64| {
        let unit = bytes.ilog2() / 10;
        let letters = ["B", "KB", "MB", "GB", "TB", "PB", "EB"].get(unit as usize).copied().unwrap_or_default();
        format!("{}{letters}", bytes >> (10 * unit))
    };
    let limit = |(name, amount): (&String, &i128)| {
        let bytes = name.strip_prefix(HUGE_PAGES).and_then(page_bytes)?;
        Some(HugePageLimit { page_size: named(bytes), limit: u64::try_from(units(*amount)).ok()? })
    };
    amounts.iter().filter_map(limit).collect()
}

/// The cgroup figures of one container, which has its pod's limit where it has none of its own (KEP-2837). Huge pages of a
/// size that neither says it may not use.
pub(crate) fn of_container(pod: &Pod, container: &Container) -> Resources {
    let mut limited = declared_limits(pod);
    limited.extend(limits(container).into_iter().filter(|(name, amount)| *amount > 0 || name.starts_with(HUGE_PAGES)));
    let mut requested = limited.clone();
    requested.extend(container.resources.as_ref().map(|r| amounts(r.requests.as_ref())).unwrap_or_default());
    // As kubelet has it unless it is told otherwise, no container swaps, whether it has a limit on memory or not.
    Resources {
        hugepages: huge_pages(&limited),
        no_other_hugepages: true,
        swap_limit: Some(0),
        ..cgroup(&requested, &limited)
    }
}

/// The cgroup figures of the pod, on a node that lets each have so many processes and threads.
pub(crate) fn of_pod(pod: &Pod, pids_limit: Option<u32>) -> Resources {
    let requests = pod_requests(pod);
    Resources {
        pids_limit: pids_limit.map(i64::from),
        hugepages: huge_pages(&requests),
        no_other_hugepages: true,
        ..cgroup(&requests, &pod_limits(pod))
    }
}

/// The cgroup figures of all pods together, on a node that has so much for them: what is reserved is kept from them even
/// when they take more than they requested.
pub(crate) fn of_all_pods(absolute: &Amounts) -> Resources {
    let amount = |name: &str| absolute.get(name).copied();
    Resources {
        cpu_shares: amount("cpu").map(shares),
        memory_limit: amount("memory").map(units),
        pids_limit: amount("pid").map(units),
        ..Resources::default()
    }
}

/// The least memory that one of the app containers requests.
fn least_memory(pod: &Pod) -> i128 {
    let each = spec(pod).containers().iter().map(|c| requests(c).get("memory").copied().unwrap_or(0));
    each.min().unwrap_or(0)
}

/// What each container has of the memory that the pod requests for itself beyond its containers' requests (KEP-2837).
fn unclaimed_memory(pod: &Pod) -> i128 {
    let declared = spec(pod).0.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let Some(whole) = declared.and_then(|requests| requests.get("memory")).map(milli) else { return 0 };
    let living = spec(pod).containers().iter().chain(spec(pod).init_containers().iter().filter(|c| is_sidecar(c)));
    let claimed: Vec<i128> = living.map(|c| requests(c).get("memory").copied().unwrap_or(0)).collect();
    let count = i128::try_from(claimed.len().max(1)).unwrap_or(1);
    (whole - claimed.iter().sum::<i128>()).max(0) / count
}

/// What the out-of-memory killer adds for a container, by the pod's class and its share of the node's memory.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, node_memory: u64) -> i32 {
    /// Pods at or above it are the node's own (`system-node-critical`).
    const NODE_CRITICAL: i32 = 2_000_001_000;
    if spec(pod).0.and_then(|s| s.priority).is_some_and(|p| p >= NODE_CRITICAL) {
        return -997;
    }
    match qos_class(pod).0 {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let own = requests(container).get("memory").copied().unwrap_or(0);
            // A sidecar is not to go before those it serves.
            let served = if is_sidecar(container) { least_memory(pod) } else { 0 };
            let request = i128::from(units(own.max(served) + unclaimed_memory(pod)));
            let share = 1000 - (1000 * request) / i128::from(node_memory.max(1));
            i32::try_from(share.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::pod;
    use super::*;

    fn one(resources: serde_json::Value) -> Pod {
        pod(json!({"containers": [{"name": "app", "resources": resources}]}))
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, want) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (json!({"requests": {"cpu": "1000m"}, "limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&one(resources.clone())).as_str(), want, "{resources}");
        }
    }

    #[test]
    fn cgroup_figures_are_kubelets() {
        let asked =
            json!({"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}});
        let got = of_pod(&one(asked), Some(100));
        assert_eq!(
            (got.cpu_shares, got.cpu_quota, got.cpu_period, got.memory_limit),
            (Some(256), Some(50_000), Some(100_000), Some(128 << 20))
        );
        assert_eq!(got.pids_limit, Some(100));
        let got = of_pod(&one(json!({})), None);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit, got.pids_limit), (Some(2), None, None, None));
        // No container swaps, whether it is limited or not.
        for asked in [json!({}), json!({"limits": {"memory": "128Mi"}})] {
            let pod = one(asked);
            assert_eq!(of_container(&pod, spec(&pod).containers().first().unwrap()).swap_limit, Some(0));
        }
    }

    #[test]
    fn a_container_without_a_limit_has_its_pods() {
        let pod = pod(json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}},
            "containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "500m"},
            "limits": {"cpu": "1", "memory": "0"}}}]}));
        let of = |name: &str| {
            let got = of_container(&pod, spec(&pod).container(name).unwrap());
            (got.cpu_shares, got.cpu_quota, got.memory_limit)
        };
        assert_eq!(of("a"), (Some(2048), Some(200_000), Some(64 << 20)));
        assert_eq!(of("b"), (Some(512), Some(100_000), Some(64 << 20)));
        let whole = of_pod(&pod, None);
        assert_eq!(
            (whole.cpu_shares, whole.cpu_quota, whole.memory_limit),
            (Some(1024), Some(200_000), Some(64 << 20))
        );
    }

    #[test]
    fn huge_pages_are_limited_to_what_is_asked_for_and_none_else_are_had() {
        let shown = |resources: Resources| {
            assert!(resources.no_other_hugepages);
            let all = resources.hugepages.iter().map(|huge| format!("{} {}", huge.page_size, huge.limit));
            all.collect::<Vec<_>>().join(", ")
        };
        let pages = |of: &[(&str, &str)]| {
            let all: BTreeMap<_, _> = of.iter().map(|(size, amount)| (format!("hugepages-{size}"), *amount)).collect();
            json!({"requests": all, "limits": all})
        };
        let some = pod(json!({"containers": [
            {"name": "a", "resources": pages(&[("2Mi", "6Mi"), ("1Gi", "1Gi")])},
            {"name": "b", "resources": pages(&[("2Mi", "2Mi"), ("64Ki", "128Ki"), ("3Mi", "3Mi")])},
            {"name": "c"},
        ]}));
        let of = |pod: &Pod, name: &str| shown(of_container(pod, spec(pod).container(name).unwrap()));
        assert_eq!(of(&some, "a"), "1GB 1073741824, 2MB 6291456");
        assert_eq!(of(&some, "b"), "2MB 2097152, 64KB 131072", "3Mi is no size of a page");
        assert_eq!(of(&some, "c"), "");
        assert_eq!(shown(of_pod(&some, None)), "1GB 1073741824, 2MB 8388608, 64KB 131072");
        let whole = pod(json!({"resources": pages(&[("2Mi", "8Mi")]), "containers": [
            {"name": "a", "resources": pages(&[("2Mi", "2Mi")])}, {"name": "b"}]}));
        assert_eq!((of(&whole, "a"), of(&whole, "b")), ("2MB 2097152".to_owned(), "2MB 8388608".to_owned()));
        assert_eq!(shown(of_pod(&whole, None)), "2MB 8388608");
    }

    #[test]
    fn a_pod_is_limited_only_where_every_container_is() {
        let pod = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1"}}},
        ]}));
        let got = of_pod(&pod, None);
        assert_eq!((got.cpu_quota, got.memory_limit), (Some(200_000), None));
    }

    #[test]
    fn the_hungriest_init_container_counts_when_it_needs_more_than_the_apps() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let pod = pod(json!({
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": cpu("1")}, {"name": "i", "resources": cpu("4")}],
            "containers": [{"name": "a", "resources": cpu("2")}],
        }));
        assert_eq!(pod_requests(&pod).get("cpu"), Some(&5000));
    }

    #[test]
    fn the_oom_killer_prefers_those_who_asked_for_less() {
        let score = |r| {
            let pod = one(r);
            oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000 << 20)
        };
        assert_eq!(score(json!({})), 1000);
        assert_eq!(score(json!({"limits": {"cpu": "1", "memory": "1Mi"}})), -997);
        assert_eq!(score(json!({"requests": {"memory": "100Mi"}})), 900);
        assert_eq!(score(json!({"requests": {"memory": "1"}})), 999);
        assert_eq!(score(json!({"requests": {"memory": "2000Mi"}})), 3);
        let memory = |n: &str| json!({"requests": {"memory": n}});
        let pod = pod(json!({"resources": memory("400Mi"), "containers": [
            {"name": "a", "resources": memory("100Mi")}, {"name": "b"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}]}));
        let of = |name: &str| oom_score_adj(&pod, spec(&pod).container(name).unwrap(), 1000 << 20);
        assert_eq!((of("a"), of("b"), of("s")), (800, 900, 900), "the rest of the pod's request is shared out");
    }
}
