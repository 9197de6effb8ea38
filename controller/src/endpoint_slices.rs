//! EndpointSlices: the addresses behind each Service that selects pods, at most a hundred in one object.
//!
//! Those of a Service that is gone are left to the garbage collector: the Service owns them.

pub(crate) mod changes;
mod plan;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Client, ResourceExt};

use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_index::on_node,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    service_pods::{self, TRIGGER, TriggerTimes},
    view::{NodeView, PodView},
    work_queue::WorkQueue,
    written::Written,
};

/// The label with the name of the Service that a slice is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Us.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// A slice that somebody else changed or deleted is looked at only after this, as in Kubernetes: what is collected because
/// its Service is gone would be made again at once as long as that is not known here.
const SETTLES_IN: Duration = Duration::from_secs(1);
/// The label of nodes that says in which zone they are.
const ZONE: &str = "topology.kubernetes.io/zone";

/// See the module. Its keys are Services.
pub(crate) struct EndpointSlices {
    client: Client,
    services: Reader<Service>,
    pods: Reader<PodView>,
    nodes: Reader<NodeView>,
    slices: Reader<EndpointSlice>,
    events: Events,
    trigger_times: TriggerTimes,
    written: Written,
}

/// The Service a slice says it is of.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.labels().get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), name))
}

/// Slices are found by the Service they are of.
pub(crate) fn index(slice: &EndpointSlice) -> Vec<String> {
    service_of(slice).iter().map(ObjectKey::to_string).collect()
}

/// The slices of a Service that `manager` writes, by name.
pub(crate) fn of(slices: &Reader<EndpointSlice>, key: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut found = slices.indexed(&key.to_string());
    found.retain(|slice| {
        slice.labels().get(MANAGED_BY).is_some_and(|by| by == manager) && slice.metadata.deletion_timestamp.is_none()
    });
    found
}

/// Queues the Services whose slices, written by `manager`, have changed: this one's now, and before; for a little later.
pub(crate) fn on_slice(queue: &WorkQueue<ObjectKey>, manager: &str, change: &Change<'_, EndpointSlice>) {
    let both = match change {
        Change::Updated { old, new } => [Some(*old), Some(*new)],
        Change::Added(slice) | Change::Deleted(slice) => [None, Some(*slice)],
    };
    for slice in both.into_iter().flatten() {
        if slice.labels().get(MANAGED_BY).is_some_and(|by| by == manager) {
            service_of(slice).into_iter().for_each(|key| queue.add_after(key, SETTLES_IN));
        }
    }
}

impl EndpointSlices {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, services) = (Arc::clone(&queue), informers.services.reader());
        informers.pods.on_change(move |change| service_pods::on_pod(&changed, &services, change));
        let changed = Arc::clone(&queue);
        informers.services.on_change(move |change: &Change<'_, Service>| changed.add(ObjectKey::of(change.object())));
        let changed = Arc::clone(&queue);
        informers.endpoint_slices.on_change(move |change| on_slice(&changed, MANAGER, change));
        let (changed, services, pods) = (Arc::clone(&queue), informers.services.reader(), informers.pods.reader());
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            let zone = |node: &NodeView| node.labels().get(ZONE).cloned();
            if matches!(change, Change::Updated { old, new } if zone(old) == zone(new)) {
                return;
            }
            for pod in pods.indexed(&on_node(&change.object().name_any())) {
                service_pods::on_pod(&changed, &services, &Change::Added(&pod));
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            services: informers.services.reader(),
            pods: informers.pods.reader(),
            nodes: informers.nodes.reader(),
            slices: informers.endpoint_slices.reader(),
            events: Events::new(informers.client.clone(), "endpoint-slice-controller"),
            trigger_times: TriggerTimes::default(),
            written: Written::default(),
        };
        Control::new(controller, queue)
    }

    /// The zones of the nodes that these pods are on, for those nodes that there are.
    fn zones(&self, pods: &[Arc<PodView>]) -> BTreeMap<String, Option<String>> {
        let names = pods.iter().map(|pod| pod.spec.node_name.as_str()).filter(|name| !name.is_empty());
        let node = |name: &str| {
            let node = self.nodes.get(&ObjectKey::new("", name))?;
            Some((name.to_owned(), node.labels().get(ZONE).cloned().filter(|zone| !zone.is_empty())))
        };
        names.filter_map(node).collect()
    }
}

impl Reconcile for EndpointSlices {
    type Key = ObjectKey;

    const NAME: &'static str = "endpointslice";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.slices.caught_up(self.written.of(key)).await {
            return Ok(Next::OnChange);
        }
        let Some(service) = self.services.get(key) else {
            self.trigger_times.forget(key);
            self.written.forget(key);
            return Ok(Next::OnChange);
        };
        if service_pods::selector_of(&service).is_none() {
            // Whoever made the Service writes its slices; Endpoints written for it are mirrored elsewhere.
            return Ok(Next::OnChange);
        }
        let pods = service_pods::pods_of(&service, &self.pods);
        let trigger = self.trigger_times.changed(key, &service, pods.iter().map(AsRef::as_ref));
        let existing = of(&self.slices, key, MANAGER);
        let mut changes = plan::plan(&service, &pods, &self.zones(&pods), &existing);
        for slice in changes.create.iter_mut().chain(&mut changes.update) {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            match &trigger {
                Some(at) => annotations.insert(TRIGGER.to_owned(), at.clone()),
                None => annotations.remove(TRIGGER),
            };
        }
        if service.metadata.deletion_timestamp.is_some() {
            // The collector is to take them away, not to race with new ones.
            changes.create.clear();
        }
        let result = changes.write(&self.client, key, &self.written).await;
        if let Err(error) = &result
            && !error.is_conflict()
        {
            let why = error.reason();
            let note = format!("Error updating Endpoint Slices for Service {key}: {why}");
            self.events.warning(&reference(service.as_ref()), "FailedToUpdateEndpointSlices", note).await;
        }
        result.map(|()| Next::OnChange)
    }
}
