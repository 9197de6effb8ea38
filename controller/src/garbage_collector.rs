//! The garbage collector: what is left of an object's dependents when the object goes.
//!
//! Every kind that is not watched already, by an informer, has a metadata-only watch of its own, and all of them feed a graph
//! of who owns whom. Nothing is deleted by what the graph says alone: the
//! object itself and each of its owners are looked at live first, and the deletion names the uid and resourceVersion
//! that were seen.

mod absent_owners;
mod definitions;
mod graph;
mod outline;
mod plan;
mod shadow;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coracle_proto::resource::{Resource, Scope};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    absent_owners::AbsentOwners,
    graph::Graph,
    outline::Outline,
    plan::{OwnerState, Step, Verdict},
    shadow::{FOREGROUND, ORPHAN, Owner, Shadow, Uid, api_resource, collected, is_built_in, resource_of},
};
use crate::{
    events::Events,
    informer::{Change, Informer, Watched},
    informers::{Informers, Visit},
    reconcile::{Control, Next, Reconcile, ReconcileError, Start},
    work_queue::WorkQueue,
};

/// When an object is looked at again whose owner is of a kind that is not watched (it may be defined yet), or was not seen
/// by its watch yet: nothing else would tell of that owner's end.
const UNSEEN_OWNER: Duration = Duration::from_secs(60);

/// Hears of namespaces that lost an object.
pub(crate) type OnGone = Box<dyn Fn(&str) + Send + Sync>;

/// See the module.
pub(crate) struct GarbageCollector {
    client: Client,
    queue: Arc<WorkQueue<Uid>>,
    graph: Mutex<Graph>,
    absent: Mutex<AbsentOwners>,
    events: Events,
    /// How many kinds were listed completely.
    listed: watch::Sender<usize>,
    on_gone: Vec<OnGone>,
}

/// An owner's kind as the API serves it.
struct Served {
    resource: ApiResource,
    namespaced: bool,
}

/// The kinds that informers tell the collector of.
struct Followed {
    collector: Arc<GarbageCollector>,
    kinds: Vec<&'static Resource>,
}

impl Visit for Followed {
    fn visit<K: Watched>(&mut self, informer: &mut Informer<K>) {
        let Some(resource) = collected().find(|r| r.group == K::group(&()) && r.kind == K::kind(&())) else { return };
        self.kinds.push(resource);
        let collector = Arc::clone(&self.collector);
        informer.on_change(move |change: &Change<'_, K>| collector.hear(resource, change));
    }
}

/// Whether a watch ended because its kind went: the definition's own watch tells of that as well.
fn is_unserved(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        WatchError(status) => status.code == 404,
        NoResourceVersion => false,
    }
}

impl GarbageCollector {
    /// All its tasks: a watch for each kind that no informer watches, and when every kind was listed once, the collecting.
    /// `on_gone` is told the namespace of every object that is gone.
    pub(crate) fn over(informers: &mut Informers, on_gone: Vec<OnGone>) -> Start {
        let queue: Arc<WorkQueue<Uid>> = Arc::default();
        let collector = Self {
            events: Events::new(informers.client.clone(), "garbage-collector-controller"),
            client: informers.client.clone(),
            queue: Arc::clone(&queue),
            graph: Mutex::default(),
            absent: Mutex::default(),
            listed: watch::Sender::new(0),
            on_gone,
        };
        let control = Control::new(collector, queue);
        let mut followed = Followed { collector: Arc::clone(&control.controller), kinds: Vec::new() };
        informers.visit_whole(&mut followed);
        // Whoever is started has every first complete list of the informers behind it.
        let kinds = followed.kinds;
        Box::new(move |tasks, shutdown| {
            let others: Vec<_> = collected().filter(|resource| !kinds.contains(resource)).collect();
            let all = others.len();
            for resource in others {
                let count = |collector: &Self| collector.listed.send_modify(|listed| *listed += 1);
                tasks.spawn(Arc::clone(&control.controller).watch(resource, count, shutdown.clone()));
            }
            tasks.spawn(definitions::follow(Arc::clone(&control.controller), shutdown.clone()));
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    // Before that, owners only seem to be missing.
                    () = control.controller.listed(all) => control.run(shutdown.clone()).await,
                }
            });
        })
    }

    /// Waits until so many watches have their first complete list.
    async fn listed(&self, all: usize) {
        let _ = self.listed.subscribe().wait_for(|listed| *listed >= all).await;
    }

    /// Watches one kind until `shutdown`; `on_listed` is called when all of it was seen.
    async fn watch(
        self: Arc<Self>,
        resource: &'static Resource,
        on_listed: impl FnOnce(&Self) + Send,
        shutdown: CancellationToken,
    ) {
        let mut on_listed = Some(on_listed);
        let api: Api<Outline> = Api::all_with(self.client.clone(), &api_resource(resource));
        let stream = watcher::watcher(api, watcher::Config::default());
        let mut events: BoxStream<'_, _> = stream.default_backoff().boxed();
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) if is_unserved(&error) => {
                    debug!(kind = resource.kind, "a kind is not served at the moment");
                }
                Some(Err(error)) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    warn!(error, kind = resource.kind, "a watch broke off and starts over");
                }
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(object))) => {
                    listed.insert(self.see(resource, object.meta()));
                }
                Some(Ok(Event::InitDone)) => {
                    let known = self.graph().uids_of(resource);
                    known.iter().filter(|uid| !listed.contains(*uid)).for_each(|uid| self.lose(uid));
                    listed = HashSet::new();
                    if let Some(tell) = on_listed.take() {
                        tell(&self);
                    }
                }
                Some(Ok(Event::Apply(object))) => {
                    self.see(resource, object.meta());
                }
                Some(Ok(Event::Delete(object))) => self.lose(&Shadow::of(resource, object.meta()).uid),
            }
        }
    }

    /// What an informer tells.
    fn hear<K: kube::Resource>(&self, resource: &'static Resource, change: &Change<'_, K>) {
        match change {
            Change::Added(object) => drop(self.see(resource, object.meta())),
            Change::Updated { old, new } => {
                // Another may have got the name while nothing was told.
                if old.meta().uid != new.meta().uid {
                    self.lose(&Shadow::of(resource, old.meta()).uid);
                }
                self.see(resource, new.meta());
            }
            Change::Deleted(object) => self.lose(&Shadow::of(resource, object.meta()).uid),
        }
    }

    fn see(&self, resource: &'static Resource, meta: &ObjectMeta) -> Uid {
        let shadow = Shadow::of(resource, meta);
        let uid = shadow.uid.clone();
        let look = self.graph().set(shadow);
        self.look_at(look);
        uid
    }

    fn lose(&self, uid: &Uid) {
        let (namespace, look) = {
            let mut graph = self.graph();
            (graph.get(uid).map(|node| node.namespace.clone()), graph.remove(uid))
        };
        self.look_at(look);
        for tell in &self.on_gone {
            namespace.iter().filter(|namespace| !namespace.is_empty()).for_each(|namespace| tell(namespace));
        }
    }

    /// Forgets all objects of a kind that is gone.
    fn forget(&self, resource: &Resource) {
        let known = self.graph().uids_of(resource);
        known.iter().for_each(|uid| self.lose(uid));
    }

    fn look_at(&self, look: BTreeSet<Uid>) {
        look.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        // Nothing under the lock can panic half-way through a change.
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(&self) -> MutexGuard<'_, AbsentOwners> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    fn api_of(&self, shadow: &Shadow) -> Api<DynamicObject> {
        self.api(&api_resource(shadow.resource), &shadow.namespace)
    }

    /// The object's metadata as it is now; `None` if it is gone or another has its name.
    async fn latest(&self, shadow: &Shadow) -> Result<Option<ObjectMeta>, ReconcileError> {
        let found = self.api_of(shadow).get_metadata_opt(&shadow.name).await;
        let found = found.map_err(ReconcileError::api("looking at an object"))?;
        Ok(found.map(|object| object.metadata).filter(|meta| meta.uid.as_deref() == Some(shadow.uid.as_str())))
    }

    async fn orphan(&self, owner: &Shadow, dependents: &[Shadow]) -> Result<(), ReconcileError> {
        for dependent in dependents {
            self.detach(dependent, std::slice::from_ref(&owner.uid)).await?;
        }
        self.remove_finalizer(owner, ORPHAN).await
    }

    /// Takes owners off an object.
    async fn detach(&self, shadow: &Shadow, owners: &[Uid]) -> Result<(), ReconcileError> {
        let step = "taking an owner off an object";
        if !is_built_in(shadow.resource) {
            let others =
                |all: &mut Vec<OwnerReference>| all.retain(|o| !owners.iter().any(|uid| uid.as_str() == o.uid));
            return self.change_owners(shadow, others, step).await;
        }
        let gone: Vec<_> = owners.iter().map(|uid| json!({"$patch": "delete", "uid": uid.as_str()})).collect();
        let patch = json!({"metadata": {"uid": shadow.uid.as_str(), "ownerReferences": gone}});
        self.patch(shadow, &Patch::Strategic(patch), step).await
    }

    /// Has an object no longer block the deletion of its owners.
    async fn unblock(&self, shadow: &Shadow, meta: &ObjectMeta) -> Result<(), ReconcileError> {
        let blocking = meta.owner_references.iter().flatten().filter(|o| o.block_owner_deletion == Some(true));
        let owners: Vec<_> = blocking.map(|o| json!({"uid": o.uid, "blockOwnerDeletion": false})).collect();
        if owners.is_empty() {
            return Ok(());
        }
        let step = "unblocking an object's owners";
        if !is_built_in(shadow.resource) {
            let free =
                |all: &mut Vec<OwnerReference>| all.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
            return self.change_owners(shadow, free, step).await;
        }
        let patch = json!({"metadata": {"uid": shadow.uid.as_str(), "ownerReferences": owners}});
        self.patch(shadow, &Patch::Strategic(patch), step).await
    }

    /// Changes the owners of an object that knows no strategic patches: the whole list is written, so it must not have
    /// changed since it was read.
    async fn change_owners(
        &self,
        shadow: &Shadow,
        change: impl FnOnce(&mut Vec<OwnerReference>) + Send,
        step: &'static str,
    ) -> Result<(), ReconcileError> {
        let Some(meta) = self.latest(shadow).await? else { return Ok(()) };
        let mut owners = meta.owner_references.unwrap_or_default();
        change(&mut owners);
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": owners}});
        self.patch(shadow, &Patch::Merge(patch), step).await
    }

    async fn remove_finalizer(&self, shadow: &Shadow, finalizer: &str) -> Result<(), ReconcileError> {
        let Some(meta) = self.latest(shadow).await? else { return Ok(()) };
        let finalizers = meta.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            return Ok(());
        }
        let left: Vec<_> = finalizers.into_iter().filter(|f| f != finalizer).collect();
        // The whole list is written, so it must not have changed since it was read.
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": left}});
        self.patch(shadow, &Patch::Merge(patch), "removing a finalizer").await
    }

    async fn patch(
        &self,
        shadow: &Shadow,
        patch: &Patch<serde_json::Value>,
        step: &'static str,
    ) -> Result<(), ReconcileError> {
        match self.api_of(shadow).patch_metadata(&shadow.name, &PatchParams::default(), patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api(step)(error)),
        }
    }

    /// Looks at an object with owners, and at its owners, as they are now.
    async fn judge(&self, shadow: &Shadow) -> Result<Next, ReconcileError> {
        let Some(meta) = self.latest(shadow).await? else {
            // Its watch will tell, if it has not by now.
            return Ok(Next::OnChange);
        };
        let latest = Shadow::of(shadow.resource, &meta);
        if latest.deleting {
            return Ok(Next::OnChange);
        }
        let mut states = Vec::with_capacity(latest.owners.len());
        let mut unseen = false;
        for owner in &latest.owners {
            let Some(state) = self.owner_state(&latest, owner).await? else {
                debug!(kind = owner.kind, name = owner.name, "the kind of an owner is not served");
                return Ok(Next::After(UNSEEN_OWNER));
            };
            unseen |= state != OwnerState::Absent && self.graph().get(&owner.uid).is_none();
            states.push(state);
        }
        let verdict = plan::verdict(&self.graph(), &latest, &states);
        match verdict {
            Verdict::Keep => {}
            Verdict::Detach(owners) => self.detach(&latest, &owners).await?,
            Verdict::Delete { propagation, unblock } => {
                if unblock {
                    self.unblock(&latest, &meta).await?;
                }
                let uid = Some(latest.uid.as_str().to_owned());
                // An object that was adopted or let go meanwhile has another resourceVersion.
                let resource_version = meta.resource_version.filter(|_| !unblock);
                let params = DeleteParams {
                    propagation_policy: Some(propagation),
                    preconditions: Some(Preconditions { uid, resource_version }),
                    ..DeleteParams::default()
                };
                let (kind, name, namespace) = (latest.resource.kind, &latest.name, &latest.namespace);
                match self.api_of(&latest).delete(name, &params).await {
                    Ok(_) => info!(kind, name, namespace, "deleted what its owners left"),
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(ReconcileError::api("deleting what its owners left")(error)),
                }
            }
        }
        Ok(if unseen { Next::After(UNSEEN_OWNER) } else { Next::OnChange })
    }

    /// What is true of an owner now; `None` if its kind is not served.
    async fn owner_state(&self, dependent: &Shadow, owner: &Owner) -> Result<Option<OwnerState>, ReconcileError> {
        if self.absent().contains(&dependent.namespace, owner) {
            return Ok(Some(OwnerState::Absent));
        }
        let Some(served) = self.served(owner).await? else { return Ok(None) };
        if served.namespaced && dependent.namespace.is_empty() {
            // No namespace to look in: Kubernetes leaves such an object alone.
            return Ok(Some(OwnerState::Living));
        }
        let namespace = if served.namespaced { dependent.namespace.as_str() } else { "" };
        let found = self.api(&served.resource, namespace).get_metadata_opt(&owner.name).await;
        let found = found.map_err(ReconcileError::api("looking at an owner"))?.map(|object| object.metadata);
        let Some(meta) = found.filter(|meta| meta.uid.as_deref() == Some(owner.uid.as_str())) else {
            self.absent().insert(&dependent.namespace, owner);
            self.tell_of_wrong_namespace(dependent, owner).await;
            return Ok(Some(OwnerState::Absent));
        };
        let awaiting = meta.deletion_timestamp.is_some()
            && meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        Ok(Some(if awaiting { OwnerState::Awaiting } else { OwnerState::Living }))
    }

    async fn tell_of_wrong_namespace(&self, dependent: &Shadow, owner: &Owner) {
        let elsewhere = {
            let graph = self.graph();
            let node = graph.get(&owner.uid);
            node.is_some_and(|node| !node.namespace.is_empty() && node.namespace != dependent.namespace)
        };
        if !elsewhere {
            return;
        }
        let note = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version, owner.kind, dependent.namespace, owner.name, owner.uid, dependent.namespace
        );
        let about = ObjectReference {
            api_version: Some(dependent.resource.api_version()),
            kind: Some(dependent.resource.kind.to_owned()),
            namespace: Some(dependent.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(dependent.name.clone()),
            uid: Some(dependent.uid.as_str().to_owned()),
            ..ObjectReference::default()
        };
        self.events.warning(&about, "OwnerRefInvalidNamespace", note).await;
    }

    /// How the API serves an owner's kind: by the table of built-in resources, or for others by discovery.
    async fn served(&self, owner: &Owner) -> Result<Option<Served>, ReconcileError> {
        if let Some(resource) = resource_of(owner) {
            let namespaced = resource.scope == Scope::Namespaced;
            return Ok(Some(Served { resource: api_resource(resource), namespaced }));
        }
        let Some((group, version)) = owner.api_version.split_once('/') else { return Ok(None) };
        let resources = match self.client.list_api_group_resources(&owner.api_version).await {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(ReconcileError::api("discovering an owner's kind")(error)),
        };
        let found = resources.into_iter().find(|r| r.kind == owner.kind && !r.name.contains('/'));
        Ok(found.map(|r| {
            let kind = GroupVersionKind::gvk(group, version, &r.kind);
            Served { resource: ApiResource::from_gvk_with_plural(&kind, &r.name), namespaced: r.namespaced }
        }))
    }
}

impl Reconcile for GarbageCollector {
    type Key = Uid;

    const NAME: &'static str = "garbage-collector";

    async fn reconcile(&self, uid: &Uid) -> Result<Next, ReconcileError> {
        let (node, step) = {
            let graph = self.graph();
            let Some(node) = graph.get(uid).cloned() else { return Ok(Next::OnChange) };
            (node, plan::step(&graph, uid))
        };
        match step {
            Step::Nothing => {}
            Step::Orphan(dependents) => self.orphan(&node, &dependents).await?,
            Step::Await(dependents) => dependents.into_iter().for_each(|uid| self.queue.add(uid)),
            Step::Finish => self.remove_finalizer(&node, FOREGROUND).await?,
            Step::Judge => return self.judge(&node).await,
        }
        Ok(Next::OnChange)
    }
}
