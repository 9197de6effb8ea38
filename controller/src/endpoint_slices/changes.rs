//! What is to be done to the slices of one Service, and doing it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{
    informer::version_of,
    object_key::ObjectKey,
    reconcile::{ReconcileError, is_namespace_going},
    written::Written,
};

/// What tells the ports of slices apart.
pub(crate) type PortsKey = Vec<(Option<String>, Option<i32>, Option<String>, Option<String>)>;
/// What tells endpoints apart: addresses, hostname, and what they lead to. The rest may change in place.
pub(crate) type EndpointKey = (Vec<String>, Option<String>, Option<(Option<String>, Option<String>)>);
/// Endpoints, each once.
pub(crate) type Endpoints = BTreeMap<EndpointKey, Endpoint>;

/// The ports in an order of their own, so that equal ones compare equal.
pub(crate) fn ports_key(ports: &[EndpointPort]) -> PortsKey {
    let key = |port: &EndpointPort| {
        (port.name.clone().or(Some(String::new())), port.port, port.protocol.clone(), port.app_protocol.clone())
    };
    let mut keys: PortsKey = ports.iter().map(key).collect();
    keys.sort_unstable();
    keys
}

pub(crate) fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort_unstable();
    let target = endpoint.target_ref.as_ref().map(|target| (target.namespace.clone(), target.name.clone()));
    (addresses, endpoint.hostname.clone(), target)
}

/// The ports of a slice.
pub(crate) fn ports_of(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

/// The endpoints of a slice.
pub(crate) fn endpoints_of(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

/// Whether a slice is owned by the object with this uid.
pub(crate) fn is_owned(slice: &EndpointSlice, uid: Option<&str>) -> bool {
    slice.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// A slice to be made, without endpoints yet.
pub(crate) fn new_slice(
    owner: OwnerReference,
    namespace: &str,
    labels: BTreeMap<String, String>,
    family: &str,
    ports: Vec<EndpointPort>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) create: Vec<EndpointSlice>,
    /// As they shall be, with the resourceVersion they were decided from.
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

impl Changes {
    /// Turns a slice to be deleted and one to be made into one that changes, where both are of one owner and family:
    /// watchers see one change instead of two.
    pub(crate) fn recycle(&mut self, owner_uid: Option<&str>) {
        let mut delete = Vec::new();
        for old in std::mem::take(&mut self.delete) {
            let fits = |new: &EndpointSlice| new.address_type == old.address_type && is_owned(&old, owner_uid);
            match self.create.iter().position(fits) {
                Some(at) => {
                    let mut new = self.create.swap_remove(at);
                    new.metadata.generate_name = None;
                    new.metadata.name.clone_from(&old.metadata.name);
                    new.metadata.uid.clone_from(&old.metadata.uid);
                    new.metadata.resource_version.clone_from(&old.metadata.resource_version);
                    self.update.push(new);
                }
                None => delete.push(old),
            }
        }
        self.delete = delete;
    }

    /// Does all of it: first what makes addresses reachable, then what takes them away.
    pub(crate) async fn write(self, client: &Client, key: &ObjectKey, written: &Written) -> Result<(), ReconcileError> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
        for slice in self.create {
            match api.create(&PostParams::default(), &slice).await {
                Ok(made) => written.note(key, version_of(&made)),
                Err(kube::Error::Api(status)) if is_namespace_going(&status) => return Ok(()),
                Err(error) => return Err(ReconcileError::api("creating an EndpointSlice")(error)),
            }
        }
        for slice in self.update {
            let changed = api.replace(&slice.name_any(), &PostParams::default(), &slice).await;
            let changed = changed.map_err(ReconcileError::api("updating an EndpointSlice"))?;
            written.note(key, version_of(&changed));
        }
        for slice in self.delete {
            let preconditions = Preconditions { uid: slice.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&slice.name_any(), &params).await {
                Ok(_) => {}
                // Gone, or another one by now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(ReconcileError::api("deleting an EndpointSlice")(error)),
            }
        }
        Ok(())
    }
}
