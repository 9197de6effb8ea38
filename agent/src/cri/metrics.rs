//! The figures of [`crate::cadvisor`] of every sandbox that lives, so that a kubelet tells them on its `/metrics/cadvisor`
//! (KEP-2371).

use std::time::SystemTime;

use coracle_process::grpc::Result;
use coracle_runtime::NetworkNamespace;
use jiff::Timestamp;

use super::messages::{
    ContainerMetrics, ListMetricDescriptorsResponse, ListPodSandboxMetricsResponse, Metric, MetricDescriptor,
    MetricType, PodSandboxMetrics, Uint64Value,
};
use super::view::{Seen, SeenContainer};
use super::{Front, failed};
use crate::cadvisor::{FAMILIES, Family, Group, Kind, LABELS, Looked, Named};
use crate::node::machine::{self, Machine};

/// What every figure is about: the same for as long as the agent runs.
pub(super) async fn descriptors() -> Result<ListMetricDescriptorsResponse> {
    let descriptor = |family: &Family| MetricDescriptor {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        label_keys: LABELS.iter().chain(family.labels()).map(|label| (*label).to_owned()).collect(),
    };
    Ok(ListMetricDescriptorsResponse { descriptors: FAMILIES.iter().map(descriptor).collect() })
}

/// The figures of a group. The interface has whole numbers only: what a time is more than whole seconds is left out.
fn metrics(group: &Group) -> Vec<Metric> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let metric_type = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        family.samples(group, &mut |values, figure| {
            all.push(Metric {
                name: family.name.to_owned(),
                timestamp: 0,
                metric_type: metric_type.into(),
                label_values: group.labels().iter().chain(values).map(|value| (*value).to_owned()).collect(),
                value: Some(Uint64Value { value: figure.whole() }),
            });
        });
    }
    all
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

/// One container of a sandbox, if it runs.
async fn of_container(
    front: &Front,
    machine: &Machine,
    looked: &Looked<'_>,
    container: &SeenContainer<'_>,
) -> Option<ContainerMetrics> {
    let named = Named {
        id: container.id,
        name: container.metadata().name,
        image: container.image_name(),
        started: timestamp(container.started_at()?),
    };
    let group = looked.container(&front.context, machine, named).await?;
    Some(ContainerMetrics { container_id: container.id.to_string(), metrics: metrics(&group) })
}

/// One sandbox; none when it has ended meanwhile.
async fn of_sandbox(front: &Front, machine: &Machine, seen: &Seen) -> Option<PodSandboxMetrics> {
    let sandbox = front.context.runtime.sandbox(&seen.status.id).await.ok()?;
    let metadata = seen.metadata();
    let looked = Looked {
        sandbox: &sandbox,
        namespace: metadata.namespace,
        pod: metadata.name,
        host_network: seen.status.spec.network == NetworkNamespace::Host,
    };
    let whole = looked.whole(timestamp(seen.status.created_at)).await?;
    let mut container_metrics = Vec::new();
    for container in seen.containers() {
        container_metrics.extend(of_container(front, machine, &looked, &container).await);
    }
    Some(PodSandboxMetrics { pod_sandbox_id: seen.id(), metrics: metrics(&whole), container_metrics })
}

/// The figures of every sandbox that lives, and of its running containers. What ends meanwhile is left out.
///
/// # Errors
/// What there is, or the machine, cannot be looked at.
pub(super) async fn sandboxes(front: &Front) -> Result<ListPodSandboxMetricsResponse> {
    let dir = front.context.config.data_dir.clone();
    let machine = tokio::task::spawn_blocking(move || machine::read(&dir)).await.map_err(|error| failed(&error))?;
    let machine = machine.map_err(|error| failed(&error))?;
    let mut pod_metrics = Vec::new();
    for seen in front.sandboxes().await?.iter().filter(|seen| seen.status.alive) {
        pod_metrics.extend(of_sandbox(front, &machine, seen).await);
    }
    Ok(ListPodSandboxMetricsResponse { pod_metrics })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use coracle_runtime::{Details, DeviceUse, ProcessUse, Stalls};

    use super::*;
    use crate::cadvisor::Disk;
    use crate::server::stats::Traffic;

    #[tokio::test]
    async fn every_figure_has_a_description_and_the_labels_it_says() {
        let details = Details {
            cpu_user_ns: 2_900_000_000,
            cpu_quota: Some(1),
            hugepages: vec![("2MB".to_owned(), 1, 2)],
            processes: ProcessUse { most_files: Some(7), ..ProcessUse::default() },
            devices: vec![DeviceUse::default()],
            pressure: Some(Stalls::default()),
            ..Details::default()
        };
        let group = Group {
            container: "app".to_owned(),
            pod: "web".to_owned(),
            details,
            started: Some(Timestamp::UNIX_EPOCH),
            network: vec![Traffic { interface: "eth0".to_owned(), ..Traffic::default() }],
            disk: Some(Disk::default()),
            is_whole: true,
            ..Group::default()
        };
        let told = metrics(&group);
        let described: BTreeMap<String, Vec<String>> =
            descriptors().await.unwrap().descriptors.into_iter().map(|one| (one.name, one.label_keys)).collect();
        assert_eq!(described.len(), FAMILIES.len(), "names are told once");
        for one in &told {
            let keys = &described[&one.name];
            assert_eq!(one.label_values.len(), keys.len(), "{one:?}");
            let value = |key: &str| one.label_values[keys.iter().position(|known| known == key).unwrap()].as_str();
            assert_eq!((value("container"), value("pod")), ("app", "web"));
        }
        let names: BTreeSet<&str> = told.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), FAMILIES.len(), "each can be told");
        let user = told.iter().find(|one| one.name == "container_cpu_user_seconds_total").unwrap();
        assert_eq!(user.value, Some(Uint64Value { value: 2 }));
    }
}
