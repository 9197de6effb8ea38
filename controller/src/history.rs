//! ControllerRevisions: each template that a StatefulSet or a DaemonSet has had, so that pods can be told apart by it and
//! an earlier one can be gone back to.

use std::sync::Arc;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    deployment::template,
    informer::{Reader, version_of},
    object_key::ObjectKey,
    pod_control::managing_owner,
    reconcile::ReconcileError,
    view::controller_of,
    written::Written,
};

/// The label with the hash of a revision's template, and of the pods made from it.
pub(crate) const HASH: &str = "controller-revision-hash";
/// So often another name is looked for when one is taken.
const ATTEMPTS: i32 = 16;

/// Revisions are found by the uid of what manages them.
pub(crate) fn index(revision: &ControllerRevision) -> Vec<String> {
    controller_of(&revision.metadata).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// The revisions of an owner.
#[derive(Clone, Debug)]
pub(crate) struct Revisions {
    /// All, the oldest first, the newest one included.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
    /// The one with the owner's template.
    pub(crate) update: Arc<ControllerRevision>,
    /// How often a name was taken.
    pub(crate) collisions: i32,
}

/// Writes revisions.
pub(crate) struct History {
    client: Client,
    revisions: Reader<ControllerRevision>,
    written: Written,
}

/// What a revision holds: a patch that puts the template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(members) = template.as_object_mut() {
        members.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template a revision holds.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The hash in a revision's label.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).map_or("", String::as_str)
}

fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|held| template::same(&held, template))
}

impl History {
    pub(crate) fn new(client: Client, revisions: Reader<ControllerRevision>) -> Self {
        Self { client, revisions, written: Written::default() }
    }

    /// Waits until what was written last is seen; false when nothing will be seen any more.
    pub(crate) async fn caught_up(&self, key: &ObjectKey) -> bool {
        self.revisions.caught_up(self.written.of(key)).await
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.written.forget(key);
    }

    fn api(&self, key: &ObjectKey) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// The owner's revisions, with one for its template, which has the highest number.
    pub(crate) async fn sync<K>(
        &self,
        key: &ObjectKey,
        owner: &K,
        template: &PodTemplateSpec,
        collisions: i32,
    ) -> Result<Revisions, ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let mut all = self.revisions.indexed(owner.meta().uid.as_deref().unwrap_or_default());
        all.sort_by_key(|revision| (revision.revision, revision.name_any()));
        let newest = all.last().map_or(0, |revision| revision.revision);
        let Some(at) = all.iter().rposition(|revision| holds(revision, template)) else {
            let (made, collisions) = self.create(key, owner, template, newest + 1, collisions).await?;
            let made = Arc::new(made);
            all.push(Arc::clone(&made));
            return Ok(Revisions { all, update: made, collisions });
        };
        let mut update = all.remove(at);
        if update.revision < newest {
            // An earlier template is the owner's again: it becomes the newest.
            let patch = Patch::Merge(json!({"metadata": {"uid": update.uid()}, "revision": newest + 1}));
            let changed = self.api(key).patch(&update.name_any(), &PatchParams::default(), &patch).await;
            let changed = changed.map_err(ReconcileError::api("renumbering a ControllerRevision"))?;
            self.written.note(key, version_of(&changed));
            update = Arc::new(changed);
        }
        all.push(Arc::clone(&update));
        Ok(Revisions { all, update, collisions })
    }

    async fn create<K>(
        &self,
        key: &ObjectKey,
        owner: &K,
        template: &PodTemplateSpec,
        revision: i64,
        collisions: i32,
    ) -> Result<(ControllerRevision, i32), ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let mut last = None;
        for more in 0..ATTEMPTS {
            let collisions = collisions.saturating_add(more);
            let hash = template::hash(template, collisions);
            let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
            labels.insert(HASH.to_owned(), hash.clone());
            let new = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", key.name)),
                    labels: Some(labels),
                    annotations: owner.meta().annotations.clone(),
                    owner_references: Some(vec![managing_owner(owner)]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data(template))),
                revision,
            };
            match self.api(key).create(&PostParams::default(), &new).await {
                Ok(made) => {
                    self.written.note(key, version_of(&made));
                    return Ok((made, collisions));
                }
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    if let Some(taken) = self.take(key, owner, &new, template).await? {
                        return Ok((taken, collisions));
                    }
                    last = Some(kube::Error::Api(status));
                }
                Err(error) => return Err(ReconcileError::api("creating a ControllerRevision")(error)),
            }
        }
        match last {
            Some(error) => Err(ReconcileError::api("finding a name for a ControllerRevision")(error)),
            None => Err(ReconcileError::Several { count: 1, first: "no name for a ControllerRevision".to_owned() }),
        }
    }

    /// The revision that has the name, if it is the owner's (made before this was cut), or becomes so: left by an earlier
    /// owner of the name, with the same template.
    async fn take<K>(
        &self,
        key: &ObjectKey,
        owner: &K,
        new: &ControllerRevision,
        template: &PodTemplateSpec,
    ) -> Result<Option<ControllerRevision>, ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let name = new.name_any();
        let there = self.api(key).get_opt(&name).await.map_err(ReconcileError::api("reading a ControllerRevision"))?;
        let Some(there) = there.filter(|there| holds(there, template)) else { return Ok(None) };
        match controller_of(&there.metadata) {
            Some(other) if Some(&other.uid) != owner.meta().uid.as_ref() => Ok(None),
            Some(_) => {
                self.written.note(key, version_of(&there));
                Ok(Some(there))
            }
            None => {
                let meta = json!({"uid": there.uid(), "ownerReferences": new.metadata.owner_references});
                let patch = Patch::Merge(json!({"metadata": meta, "revision": new.revision}));
                let adopted = self.api(key).patch(&name, &PatchParams::default(), &patch).await;
                let adopted = adopted.map_err(ReconcileError::api("adopting a ControllerRevision"))?;
                self.written.note(key, version_of(&adopted));
                Ok(Some(adopted))
            }
        }
    }

    /// Deletes the oldest revisions that nothing `uses`, beyond as many as are to be kept.
    pub(crate) async fn clean_up(
        &self,
        key: &ObjectKey,
        revisions: &Revisions,
        limit: Option<i32>,
        uses: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), ReconcileError> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
        let is_spare = |revision: &&Arc<ControllerRevision>| {
            revision.metadata.uid != revisions.update.metadata.uid && !uses(revision)
        };
        let spare: Vec<&Arc<ControllerRevision>> = revisions.all.iter().filter(is_spare).collect();
        let surplus = spare.len().saturating_sub(limit);
        for old in spare.into_iter().take(surplus) {
            let preconditions = Preconditions { uid: old.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match self.api(key).delete(&old.name_any(), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(ReconcileError::api("deleting an old ControllerRevision")(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_holds_its_template_as_a_patch() {
        let labels = json!({"app": "web"});
        let template: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": {"containers": []}})).unwrap();
        let held = data(&template);
        assert_eq!(held["spec"]["template"]["$patch"], "replace");
        let revision = ControllerRevision { data: Some(RawExtension(held)), ..ControllerRevision::default() };
        assert!(holds(&revision, &template));
        assert!(!holds(&revision, &PodTemplateSpec::default()));
    }
}
