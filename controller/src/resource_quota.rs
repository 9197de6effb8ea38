//! ResourceQuotas' status: what is used of them, counted anew whenever something is gone, has ended, or the quota
//! changed. The API server charges what is written; only this controller gives back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_proto::{
    pod_resources::{Amounts, add},
    quantity::Quantity,
    quota::{self, Counted},
};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, NamespaceResourceScope, Resource},
};
use serde::de::DeserializeOwned;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::PodView,
    work_queue::WorkQueue,
};

/// How soon quotas are counted after something has gone: much goes at once, one look is enough.
const AFTER_A_LOSS: Duration = Duration::from_millis(100);

/// When a quota is counted although nothing was seen to go: Services and claims that become smaller are not watched.
const RECOUNT: Duration = Duration::from_mins(5);

/// Objects read at a time.
const PAGE: u32 = 500;

/// See the module.
pub(crate) struct ResourceQuotas {
    client: Client,
    quotas: Reader<ResourceQuota>,
}

impl ResourceQuotas {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.resource_quotas.on_change(move |change: &Change<'_, ResourceQuota>| {
            let is_counted = match change {
                Change::Deleted(_) => true,
                Change::Added(quota) | Change::Updated { new: quota, .. } => is_taken_over(quota),
            };
            if !is_counted {
                changed.add(ObjectKey::of(change.object()));
            }
        });
        let (ended, quotas) = (Arc::clone(&queue), informers.resource_quotas.reader());
        informers.pods.on_change(move |change: &Change<'_, PodView>| {
            let has_ended = |pod: &PodView| matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            if let Change::Updated { old, new } = change
                && has_ended(new)
                && !has_ended(old)
            {
                count_soon(&ended, &quotas, new.metadata.namespace.as_deref().unwrap_or_default());
            }
        });
        let quotas = informers.resource_quotas.reader();
        Control::new(Self { client: informers.client.clone(), quotas }, queue)
    }

    /// What the garbage collector tells of an object that is gone from a namespace.
    pub(crate) fn on_loss(control: &Control<Self>) -> impl Fn(&str) + Send + Sync + use<> {
        let (queue, quotas) = (Arc::clone(&control.queue), control.controller.quotas.clone());
        move |namespace| count_soon(&queue, &quotas, namespace)
    }

    /// What is used of everything the quota limits.
    async fn count(&self, namespace: &str, spec: &ResourceQuotaSpec) -> Result<Amounts, kube::Error> {
        let names: Vec<&str> = spec.hard.iter().flatten().map(|(name, _)| name.as_str()).collect();
        let about = |plural: &str| names.iter().any(|name| quota::concerns("", plural, name));
        let mut used = Amounts::new();
        let mut tally = |group: &str, plural: &str, object: Counted<'_>| {
            if quota::is_in_scope(spec, object) {
                add(&mut used, &quota::usage(group, plural, object, Timestamp::now()));
            }
        };
        if about("pods") {
            each(&self.client, namespace, |pod: &Pod| tally("", "pods", Counted::Pod(pod))).await?;
        }
        if about("services") {
            each(&self.client, namespace, |service: &Service| tally("", "services", Counted::Service(service))).await?;
        }
        if about("persistentvolumeclaims") {
            let plural = "persistentvolumeclaims";
            each(&self.client, namespace, |claim: &PersistentVolumeClaim| tally("", plural, Counted::Claim(claim)))
                .await?;
        }
        for (group, plural) in others(&names) {
            for _ in 0..self.number_of(namespace, &group, &plural).await? {
                tally(&group, &plural, Counted::Other);
            }
        }
        Ok(names.into_iter().map(|name| (name.to_owned(), used.get(name).copied().unwrap_or(Quantity::ZERO))).collect())
    }

    /// How many objects of a resource there are; of one that is not served, none.
    async fn number_of(&self, namespace: &str, group: &str, plural: &str) -> Result<usize, kube::Error> {
        let version = if group.is_empty() {
            "v1".to_owned()
        } else {
            let groups = self.client.list_api_groups().await?.groups;
            let Some(found) = groups.into_iter().find(|found| found.name == group) else { return Ok(0) };
            let version = found.preferred_version.or_else(|| found.versions.first().cloned());
            version.map(|version| version.version).unwrap_or_default()
        };
        // The kind does not matter for counting.
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, &version, plural), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let mut params = ListParams::default().limit(PAGE);
        let mut count = 0;
        loop {
            let page = match api.list_metadata(&params).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(count),
                Err(error) => return Err(error),
            };
            count += page.items.len();
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(count),
            }
        }
    }
}

/// Puts all quotas of the namespace into the queue.
fn count_soon(queue: &WorkQueue<ObjectKey>, quotas: &Reader<ResourceQuota>, namespace: &str) {
    for quota in quotas.list(|quota| quota.metadata.namespace.as_deref() == Some(namespace)) {
        queue.add_after(ObjectKey::of(&*quota), AFTER_A_LOSS);
    }
}

/// Whether the status is about the quota as it is now.
fn is_taken_over(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let status = quota.status.clone().unwrap_or_default();
    let used = status.used.unwrap_or_default();
    status.hard.unwrap_or_default() == hard
        && hard.keys().all(|name| used.contains_key(name))
        && used.len() == hard.len()
}

/// Groups and resources that are only counted, of the names a quota limits.
fn others(names: &[&str]) -> Vec<(String, String)> {
    let special = ["pods", "services", "persistentvolumeclaims"];
    let aliases = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
    let mut found: Vec<(String, String)> = names
        .iter()
        .filter_map(|name| match name.strip_prefix("count/") {
            Some(rest) => {
                let (plural, group) = rest.split_once('.').unwrap_or((rest, ""));
                Some((group.to_owned(), plural.to_owned()))
            }
            None => aliases.contains(name).then(|| (String::new(), (*name).to_owned())),
        })
        .filter(|(group, plural)| !(group.is_empty() && special.contains(&plural.as_str())))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Shows every object of a kind in the namespace.
async fn each<T>(client: &Client, namespace: &str, mut look: impl FnMut(&T)) -> Result<(), kube::Error>
where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<T> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
        };
        page.items.iter().for_each(&mut look);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn is_same(a: &BTreeMap<String, ApiQuantity>, b: &Amounts) -> bool {
    a.len() == b.len() && a.iter().all(|(name, amount)| Quantity::try_from(amount).ok().as_ref() == b.get(name))
}

impl Reconcile for ResourceQuotas {
    type Key = ObjectKey;

    const NAME: &'static str = "resourcequota";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        // As it was seen before anything is counted: whatever is charged meanwhile makes the write below a conflict.
        let Some(quota) = self.quotas.get(key).filter(|quota| quota.metadata.deletion_timestamp.is_none()) else {
            return Ok(Next::OnChange);
        };
        let spec = quota.spec.clone().unwrap_or_default();
        let used =
            self.count(&key.namespace, &spec).await.map_err(ReconcileError::api("counting what a quota limits"))?;
        let before = quota.status.clone().unwrap_or_default();
        if is_taken_over(&quota) && is_same(&before.used.unwrap_or_default(), &used) {
            return Ok(Next::After(RECOUNT));
        }
        let used = used.into_iter().map(|(name, amount)| (name, ApiQuantity::from(amount))).collect();
        let mut counted = (*quota).clone();
        counted.status = Some(ResourceQuotaStatus { hard: Some(spec.hard.unwrap_or_default()), used: Some(used) });
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &counted).await {
            Ok(_) => Ok(Next::After(RECOUNT)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::OnChange),
            Err(error) => Err(ReconcileError::api("writing what is used of a quota")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_counted_is_known_by_group_and_resource() {
        let names = ["pods", "secrets", "count/secrets", "count/deployments.apps", "count/pods", "requests.cpu"];
        let expected = [("", "secrets"), ("apps", "deployments")];
        let expected = expected.map(|(group, plural)| (group.to_owned(), plural.to_owned()));
        assert_eq!(others(&names), expected);
    }

    #[test]
    fn a_quota_is_taken_over_when_its_status_names_what_its_spec_does() {
        let quota = |hard: serde_json::Value, status: serde_json::Value| -> ResourceQuota {
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"hard": hard}, "status": status}))
                .unwrap()
        };
        let pods = serde_json::json!({"pods": "1"});
        for (status, expected) in [
            (serde_json::json!({}), false),
            (serde_json::json!({"hard": pods}), false),
            (serde_json::json!({"hard": pods, "used": {"pods": "0"}}), true),
            (serde_json::json!({"hard": pods, "used": {"pods": "0", "secrets": "0"}}), false),
            (serde_json::json!({"hard": {"pods": "2"}, "used": {"pods": "0"}}), false),
        ] {
            assert_eq!(is_taken_over(&quota(pods.clone(), status.clone())), expected, "{status}");
        }
    }
}
