//! Endpoints: the addresses behind each Service that selects pods, all in one object. EndpointSlices have taken their
//! place; what is here is for those who still read them.

pub(crate) mod subsets;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints as Object, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};

use self::subsets::Flat;
use crate::{
    events::{Events, reference},
    informer::{Change, Reader, version_of},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    service_pods::{self, HEADLESS, TRIGGER, TriggerTimes},
    view::PodView,
    work_queue::WorkQueue,
    written::Written,
};

/// The label that says who writes an Endpoints.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Us.
const MANAGER: &str = "endpoint-controller";
/// Says that there are more addresses than the object shows.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// See the module. Its keys are Services.
pub(crate) struct Endpoints {
    client: Client,
    services: Reader<Service>,
    pods: Reader<PodView>,
    endpoints: Reader<Object>,
    events: Events,
    trigger_times: TriggerTimes,
    written: Written,
}

fn is_ours(endpoints: &Object) -> bool {
    endpoints.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

impl Endpoints {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, services) = (Arc::clone(&queue), informers.services.reader());
        informers.pods.on_change(move |change| service_pods::on_pod(&changed, &services, change));
        let changed = Arc::clone(&queue);
        informers.services.on_change(move |change: &Change<'_, Service>| changed.add(ObjectKey::of(change.object())));
        let (changed, services) = (Arc::clone(&queue), informers.services.reader());
        informers.endpoints.on_change(move |change: &Change<'_, Object>| {
            let key = ObjectKey::of(change.object());
            // Somebody else's are nobody's business until their Service goes.
            if is_ours(change.object()) || services.get(&key).is_some() {
                changed.add(key);
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            services: informers.services.reader(),
            pods: informers.pods.reader(),
            endpoints: informers.endpoints.reader(),
            events: Events::new(informers.client.clone(), "endpoint-controller"),
            trigger_times: TriggerTimes::default(),
            written: Written::default(),
        };
        Control::new(controller, queue)
    }

    fn api(&self, key: &ObjectKey) -> Api<Object> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// The Service is gone, and so are its Endpoints.
    async fn clean_up(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.trigger_times.forget(key);
        if let Some(left) = self.endpoints.get(key) {
            let preconditions = Preconditions { uid: left.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match self.api(key).delete(&key.name, &params).await {
                Ok(_) => {}
                // Gone, or another one by now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    return Err(ReconcileError::api("deleting the Endpoints of a Service that is gone")(error));
                }
            }
        }
        self.written.forget(key);
        Ok(Next::OnChange)
    }

    /// Writes the Endpoints, and says in an event when that is refused.
    async fn write(&self, key: &ObjectKey, service: &Service, wanted: Object) -> Result<(), ReconcileError> {
        let is_new = wanted.metadata.resource_version.is_none();
        let result = if is_new {
            self.api(key).create(&PostParams::default(), &wanted).await
        } else {
            self.api(key).replace(&key.name, &PostParams::default(), &wanted).await
        };
        let error = match result {
            Ok(stored) => {
                self.written.note(key, version_of(&stored));
                return Ok(());
            }
            Err(kube::Error::Api(status)) if is_new && is_namespace_going(&status) => return Ok(()),
            Err(error) => error,
        };
        let is_conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
        if !is_conflict {
            let (reason, what) = match is_new {
                true => ("FailedToCreateEndpoint", format!("create endpoint for service {key}")),
                false => ("FailedToUpdateEndpoint", format!("update endpoint {key}")),
            };
            self.events.warning(&reference(service), reason, format!("Failed to {what}: {error}")).await;
        }
        Err(ReconcileError::api("writing Endpoints")(error))
    }
}

/// Each port of each pod, as an address behind the Service.
fn flat(service: &Service, pods: &[Arc<PodView>]) -> Vec<Flat> {
    let spec = service.spec.clone().unwrap_or_default();
    let publishes_unready = service_pods::publishes_unready(service);
    let family = spec.ip_families.iter().flatten().next().map(|family| family == "IPv6");
    let is_v6 = family.unwrap_or_else(|| spec.cluster_ip.as_ref().is_some_and(|ip| ip.contains(':')));
    let mut flat = Vec::new();
    for pod in pods {
        let is_going = pod.metadata.deletion_timestamp.is_some();
        if !service_pods::has_endpoints(pod) || (is_going && !publishes_unready) {
            continue;
        }
        let Some(ip) = service_pods::addresses(pod, is_v6).into_iter().next() else { continue };
        let address = subsets::address(ip, pod, service_pods::hostname(pod, service));
        let is_ready = publishes_unready || pod.is_ready();
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ports.is_empty() && service_pods::is_headless(service) {
            flat.push(Flat { address: address.clone(), port: None, is_ready });
        }
        for port in ports {
            if let Some(number) = service_pods::port_of(pod, port) {
                let port = Some(subsets::port(port, number));
                flat.push(Flat { address: address.clone(), port, is_ready });
            }
        }
    }
    flat
}

/// What the Service's Endpoints shall be, beginning with what they are; `None` when they are right.
fn wanted(
    service: &Service,
    pods: &[Arc<PodView>],
    current: Option<&Object>,
    trigger: Option<String>,
) -> Option<Object> {
    let all = subsets::pack(flat(service, pods));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let (shown, is_truncated) = subsets::truncate(all);
    let is_marked = |object: &Object| object.annotations().contains_key(OVER_CAPACITY);
    let is_right = |object: &Object| {
        let subsets = subsets::pack(subsets::unpack(object.subsets.as_deref().unwrap_or_default()));
        subsets == shown && *object.labels() == labels && is_marked(object) == is_truncated
    };
    if current.is_some_and(is_right) {
        return None;
    }
    let mut new = current.cloned().unwrap_or_default();
    new.metadata.name.clone_from(&service.metadata.name);
    new.metadata.namespace.clone_from(&service.metadata.namespace);
    new.metadata.labels = Some(labels);
    let annotations = new.metadata.annotations.get_or_insert_default();
    match trigger {
        Some(at) => annotations.insert(TRIGGER.to_owned(), at),
        None => annotations.remove(TRIGGER),
    };
    match is_truncated {
        true => annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned()),
        false => annotations.remove(OVER_CAPACITY),
    };
    new.subsets = (!shown.is_empty()).then_some(shown);
    Some(new)
}

impl Reconcile for Endpoints {
    type Key = ObjectKey;

    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.endpoints.caught_up(self.written.of(key)).await {
            return Ok(Next::OnChange);
        }
        let Some(service) = self.services.get(key) else { return self.clean_up(key).await };
        if service_pods::selector_of(&service).is_none() {
            // Whoever made the Service writes its Endpoints.
            return Ok(Next::OnChange);
        }
        let pods = service_pods::pods_of(&service, &self.pods);
        let trigger = self.trigger_times.changed(key, &service, pods.iter().map(AsRef::as_ref));
        let current = self.endpoints.get(key);
        if let Some(wanted) = wanted(&service, &pods, current.as_deref(), trigger) {
            self.write(key, &service, wanted).await?;
        }
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "d", "labels": {"a": "b"}}, "spec": spec}),
        )
        .unwrap()
    }

    fn pod(name: &str, ip: &str, is_ready: bool) -> Arc<PodView> {
        let ready = json!([{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]);
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"nodeName": "n"},
                         "status": {"podIPs": [{"ip": ip}], "conditions": ready}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn what_is_right_stays() {
        let service = service(json!({"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]}));
        let pods = [pod("a", "10.1.0.1", true), pod("b", "10.1.0.2", false)];
        let made = wanted(&service, &pods, None, Some("2026-01-01T00:00:00Z".to_owned())).unwrap();
        let labels = made.metadata.labels.clone().unwrap();
        assert_eq!(
            labels.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "b".to_owned()), (MANAGED_BY.to_owned(), MANAGER.to_owned())]
        );
        assert_eq!(made.metadata.annotations.as_ref().unwrap()[TRIGGER], "2026-01-01T00:00:00Z");
        let subsets = serde_json::to_value(&made.subsets).unwrap();
        assert_eq!(subsets[0]["addresses"][0]["ip"], "10.1.0.1");
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.1.0.2");
        assert_eq!(wanted(&service, &pods, Some(&made), None), None);
        let changed = wanted(&service, &pods[..1], Some(&made), None).unwrap();
        assert!(!changed.annotations().contains_key(TRIGGER));
    }

    #[test]
    fn a_headless_service_may_have_no_ports_and_unready_pods_may_count() {
        let service =
            service(json!({"clusterIP": "None", "selector": {"app": "web"}, "publishNotReadyAddresses": true}));
        let made = wanted(&service, &[pod("a", "10.1.0.1", false)], None, None).unwrap();
        assert!(made.labels().contains_key(HEADLESS));
        let subset = made.subsets.unwrap().remove(0);
        assert_eq!((subset.ports, subset.not_ready_addresses), (None, None));
        assert_eq!(subset.addresses.unwrap()[0].ip, "10.1.0.1");
    }
}
