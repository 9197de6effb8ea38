//! PodDisruptionBudgets: how many of the pods that each covers may be evicted now.
//!
//! The API server takes from a budget at each eviction and notes the pod in `disruptedPods`; here the budget is worked out
//! anew from the pods there are. Both write the status by its resourceVersion, so that neither undoes the other.

mod plan;

use std::{collections::BTreeMap, sync::Arc};

use coracle_proto::{resource::find_kind, selector::LabelSelector};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};

use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{PodView, controller_of},
    work_queue::WorkQueue,
};

/// See the module.
pub(crate) struct Disruption {
    client: Client,
    budgets: Reader<PodDisruptionBudget>,
    pods: Reader<PodView>,
    replica_sets: Reader<ReplicaSet>,
    deployments: Reader<Deployment>,
    events: Events,
}

/// What keeps a budget from being worked out, as its condition says it.
enum Obstacle {
    /// Something about the cluster.
    Told(String),
    /// The API did not answer as it should: it is tried again.
    Api(ReconcileError),
}

fn selector_of(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_api(budget.spec.as_ref()?.selector.as_ref()).ok()
}

/// The budgets that a change of a pod is news for: those that cover it, or covered it.
fn on_pod(queue: &WorkQueue<ObjectKey>, budgets: &Reader<PodDisruptionBudget>, change: &Change<'_, PodView>) {
    let (pod, old) = match change {
        Change::Updated { old, new } => (*new, *old),
        Change::Added(pod) | Change::Deleted(pod) => (*pod, *pod),
    };
    let covers = |budget: &PodDisruptionBudget| {
        budget.metadata.namespace == pod.metadata.namespace
            && selector_of(budget).is_some_and(|s| s.matches_labels(pod.labels()) || s.matches_labels(old.labels()))
    };
    budgets.list(covers).iter().for_each(|budget| queue.add(ObjectKey::of(budget.as_ref())));
}

impl Disruption {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, budgets) = (Arc::clone(&queue), informers.budgets.reader());
        informers.pods.on_change(move |change| on_pod(&changed, &budgets, change));
        let changed = Arc::clone(&queue);
        informers
            .budgets
            .on_change(move |change: &Change<'_, PodDisruptionBudget>| changed.add(ObjectKey::of(change.object())));
        let controller = Self {
            client: informers.client.clone(),
            budgets: informers.budgets.reader(),
            pods: informers.pods.reader(),
            replica_sets: informers.replica_sets.reader(),
            deployments: informers.deployments.reader(),
            events: Events::new(informers.client.clone(), "controllermanager"),
        };
        Control::new(controller, queue)
    }

    /// How many pods this owner of a pod wants; `None` when it is gone.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<i32>, Obstacle> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        if (group, owner.kind.as_str()) == ("apps", "ReplicaSet") {
            let set = self.replica_sets.get(&ObjectKey::new(namespace, &owner.name));
            let Some(set) = set.filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid)) else { return Ok(None) };
            // What a Deployment wants is told by the Deployment: while it rolls over, its sets want other numbers.
            return Ok(match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                None => set.spec.as_ref().and_then(|spec| spec.replicas),
                Some(above) => {
                    let deployment = self.deployments.get(&ObjectKey::new(namespace, &above.name));
                    let deployment = deployment.filter(|found| found.metadata.uid.as_ref() == Some(&above.uid));
                    deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas)
                }
            });
        }
        let resource = match find_kind(group, version, &owner.kind) {
            Some(row) if row.subresource("scale").is_none() => return Err(unscalable(row.plural, group)),
            Some(row) => row.plural.to_owned(),
            None => self.discovered(owner, group).await?,
        };
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let served = ApiResource::from_gvk_with_plural(&kind, &resource);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &served);
        match api.get_scale(&owner.name).await {
            Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
                Ok(Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)))
            }
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Obstacle::Api(ReconcileError::api("reading the scale of a pod's owner")(error))),
        }
    }

    /// The plural of an owner's kind that is not built in.
    async fn discovered(&self, owner: &OwnerReference, group: &str) -> Result<String, Obstacle> {
        let unknown =
            || Obstacle::Told(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version));
        let list = match self.client.list_api_group_resources(&owner.api_version).await {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(unknown()),
            Err(error) => return Err(Obstacle::Api(ReconcileError::api("discovering an owner's kind")(error))),
        };
        let own = list.iter().find(|r| r.kind == owner.kind && !r.name.contains('/')).ok_or_else(unknown)?;
        let scale = format!("{}/scale", own.name);
        if list.iter().any(|r| r.name == scale) { Ok(own.name.clone()) } else { Err(unscalable(&own.name, group)) }
    }

    /// How many pods the owners of these want together, and which pods have none.
    async fn expected(&self, namespace: &str, pods: &[Arc<PodView>]) -> Result<(i32, usize), Obstacle> {
        let mut owners: BTreeMap<&str, i32> = BTreeMap::new();
        let mut unmanaged = 0;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged += 1;
                continue;
            };
            if owners.contains_key(owner.uid.as_str()) {
                continue;
            }
            let Some(scale) = self.scale_of(namespace, owner).await? else {
                return Err(Obstacle::Told(format!("found no controllers for pod {:?}", pod.name_any())));
            };
            owners.insert(&owner.uid, scale);
        }
        Ok((owners.values().sum(), unmanaged))
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), &budget.namespace().unwrap_or_default());
        let new = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        match api.replace_status(&budget.name_any(), &PostParams::default(), &new).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a PodDisruptionBudget")(error)),
        }
    }
}

fn unscalable(plural: &str, group: &str) -> Obstacle {
    let shown = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    Obstacle::Told(format!("{shown} does not implement the scale subresource"))
}

impl Reconcile for Disruption {
    type Key = ObjectKey;

    const NAME: &'static str = "disruption";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Next::OnChange) };
        let Some(selector) = selector_of(&budget) else { return Ok(Next::OnChange) };
        let mut pods = self.pods.list(|pod| {
            pod.metadata.namespace.as_deref() == Some(&key.namespace) && selector.matches_labels(pod.labels())
        });
        pods.sort_by_key(|pod| pod.name_any());
        let about = reference(budget.as_ref());
        if pods.is_empty() {
            self.events.normal(&about, "NoPods", "No matching pods found".to_owned()).await;
        }
        let spec = budget.spec.clone().unwrap_or_default();
        let now = Timestamp::now();
        let expected = if plan::needs_scale(&spec) {
            match self.expected(&key.namespace, &pods).await {
                Ok((expected, unmanaged)) => {
                    if unmanaged > 0 {
                        let why = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the \
                                   status of the PDB cannot be calculated correctly, which may result in undefined \
                                   behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB \
                                   to an integer value.";
                        self.events.warning(&about, "UnmanagedPods", why.to_owned()).await;
                    }
                    expected
                }
                Err(Obstacle::Api(error)) => return Err(error),
                Err(Obstacle::Told(why)) => {
                    let note = format!("Failed to calculate the number of expected pods: {why}");
                    self.events.warning(&about, "CalculateExpectedPodCountFailed", note).await;
                    self.write(&budget, plan::failed(&budget, why, now)).await?;
                    return Ok(Next::OnChange);
                }
            }
        } else {
            i32::try_from(pods.len()).unwrap_or(i32::MAX)
        };
        let (status, again) = plan::status(&budget, &pods, expected, now);
        self.write(&budget, status).await?;
        Ok(again.map_or(Next::OnChange, Next::After))
    }
}
