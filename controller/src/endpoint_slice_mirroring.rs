//! Endpoints that people (or programs of old) write for Services without a selector, shown as EndpointSlices to those who
//! read nothing else.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Client, ResourceExt};

use crate::{
    endpoint_slices::{self, changes::Changes},
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    service_pods,
    work_queue::WorkQueue,
    written::Written,
};

/// Who writes the slices, as their label says.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints with this label, `true`, are not mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints with this annotation are no addresses but a vote of old.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// See the module. Its keys are Endpoints.
pub(crate) struct EndpointSliceMirroring {
    client: Client,
    services: Reader<Service>,
    endpoints: Reader<Endpoints>,
    slices: Reader<EndpointSlice>,
    events: Events,
    written: Written,
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true") && !endpoints.annotations().contains_key(LEADER)
}

/// Whether somebody else than we writes the Service's endpoints.
fn has_no_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_none_or(std::collections::BTreeMap::is_empty)
}

impl EndpointSliceMirroring {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers
            .endpoints
            .on_change(move |change: &Change<'_, Endpoints>| changed.add(ObjectKey::of(change.object())));
        let changed = Arc::clone(&queue);
        informers.services.on_change(move |change: &Change<'_, Service>| match change {
            Change::Updated { old, new } if has_no_selector(old) == has_no_selector(new) => {}
            _ => changed.add(ObjectKey::of(change.object())),
        });
        let changed = Arc::clone(&queue);
        informers.endpoint_slices.on_change(move |change| endpoint_slices::on_slice(&changed, MANAGER, change));
        let controller = Self {
            client: informers.client.clone(),
            services: informers.services.reader(),
            endpoints: informers.endpoints.reader(),
            slices: informers.endpoint_slices.reader(),
            events: Events::new(informers.client.clone(), "endpoint-slice-mirroring-controller"),
            written: Written::default(),
        };
        Control::new(controller, queue)
    }

    /// The Endpoints, if they are to be mirrored and there is a Service that they are for.
    fn to_mirror(&self, key: &ObjectKey) -> Option<Arc<Endpoints>> {
        let endpoints = self.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints))?;
        let service = self.services.get(key)?;
        (has_no_selector(&service) && service_pods::selector_of(&service).is_none()).then_some(endpoints)
    }
}

impl Reconcile for EndpointSliceMirroring {
    type Key = ObjectKey;

    const NAME: &'static str = "endpointslicemirroring";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.slices.caught_up(self.written.of(key)).await {
            return Ok(Next::OnChange);
        }
        let existing = endpoint_slices::of(&self.slices, key, MANAGER);
        let Some(endpoints) = self.to_mirror(key) else {
            Changes { delete: existing, ..Changes::default() }.write(&self.client, key, &self.written).await?;
            self.written.forget(key);
            return Ok(Next::OnChange);
        };
        let mut plan = plan::plan(&endpoints, &existing);
        let about = reference(endpoints.as_ref());
        if plan.invalid > 0 {
            let note = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            self.events.warning(&about, "InvalidIPAddress", note).await;
        }
        if plan.skipped > plan.invalid {
            let note = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                plan::MOST,
                plan.skipped
            );
            self.events.warning(&about, "TooManyAddressesToMirror", note).await;
        }
        if endpoints.metadata.deletion_timestamp.is_some() {
            plan.changes.create.clear();
        }
        plan.changes.write(&self.client, key, &self.written).await?;
        Ok(Next::OnChange)
    }
}
