//! Follows the definitions in the store: serves what they define, says in their status how far that is, and removes the
//! objects of those that are deleted.
//!
//! All by the store's watch: a definition is served as soon as its names are accepted, milliseconds after it was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coracle_proto::{
    resource::{CUSTOM_VERBS, Described, Scope, TERMINATING_VERBS, interned},
    status::Status,
};
use coracle_store::{Entry, Error as StoreError, EventKind, Range, Revision, WatchRequest, What};
use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition as Definition, CustomResourceDefinitionCondition as Condition,
        CustomResourceDefinitionVersion as Version,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Catalog, Catalogs, CustomKind, SimplePath,
    kind::{Column, ScalePaths, Shared},
    names::Taken,
    rules,
    schema::Schema,
};
use crate::{
    kinds::custom_resource_definition::{FINALIZER, set_condition},
    ops::{BoxObject, KindOps, Part},
    registry::{Change, Current, ListOptions, Registry, Selection, Writer},
    status_of::Result,
    stored,
    user::User,
};

/// Where definitions are stored.
const STORAGE: &str = "customresourcedefinitions";

/// A definition as it was last seen.
struct Seen {
    definition: Definition,
    revision: Revision,
    since: Revision,
    kinds: Vec<Arc<CustomKind>>,
}

/// See the module.
pub(crate) struct Follower {
    registry: Registry,
    seen: BTreeMap<String, Seen>,
    /// Definitions whose objects are being removed.
    finalizing: BTreeSet<String>,
    tasks: JoinSet<String>,
}

/// The time now, as every condition has it.
fn now() -> Time {
    Time(Timestamp::now())
}

fn writer() -> Writer {
    Writer::new(User::new("system:apiserver", &["system:masters"]))
}

fn is_true(definition: &Definition, condition: &str) -> bool {
    let conditions = definition.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|known| known.type_ == condition && known.status == "True")
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now()),
        ..Condition::default()
    }
}

/// The names of a dotted path that is made of names alone.
fn steps(path: &str) -> Option<Vec<String>> {
    let path = SimplePath::parse(path)?;
    Some(path.names()?.into_iter().map(str::to_owned).collect())
}

/// One served version of a definition.
fn kind_of(definition: &Definition, version: &Version, shared: &Arc<Shared>) -> Option<CustomKind> {
    let (spec, names) = (&definition.spec, definition.status.as_ref()?.accepted_names.as_ref()?);
    let subresources = version.subresources.as_ref();
    let has_status = subresources.is_some_and(|sub| sub.status.is_some());
    let scale = subresources.and_then(|sub| sub.scale.as_ref());
    let is_leaving = definition.metadata.deletion_timestamp.is_some();
    let row = interned(&Described {
        group: &spec.group,
        version: &version.name,
        kind: &names.kind,
        list_kind: names.list_kind.as_deref().unwrap_or_default(),
        plural: &names.plural,
        singular: names.singular.as_deref().unwrap_or_default(),
        short_names: names.short_names.as_deref().unwrap_or_default(),
        categories: names.categories.as_deref().unwrap_or_default(),
        scope: if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: if is_leaving { TERMINATING_VERBS } else { CUSTOM_VERBS },
        has_status,
        has_scale: scale.is_some(),
    })?;
    let props = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let mut schema = props.map(Schema::of).unwrap_or_default();
    if let Some(props) = props {
        // What is wrong was told when the definition was written; a rule that cannot be compiled is not run.
        let _ = rules::compile(&mut schema, props, &coracle_proto::field::Path::default());
    }
    schema.preserves |= spec.preserve_unknown_fields.unwrap_or(false) || props.is_none();
    let api_version = format!("{}/{}", spec.group, version.name);
    let deprecation = version.deprecated.unwrap_or(false).then(|| {
        version.deprecation_warning.clone().unwrap_or_else(|| format!("{api_version} {} is deprecated", names.kind))
    });
    let columns = version.additional_printer_columns.iter().flatten();
    let columns = columns
        .filter_map(|column| Some(Column { path: SimplePath::parse(&column.json_path)?, definition: column.clone() }))
        .collect();
    let selectable = version
        .selectable_fields
        .iter()
        .flatten()
        .filter_map(|field| {
            let path = SimplePath::parse(&field.json_path)?;
            Some((path.names()?.join("."), path))
        })
        .collect();
    Some(CustomKind {
        row,
        api_version,
        shared: Arc::clone(shared),
        schema,
        has_status,
        scale: scale.and_then(|scale| {
            Some(ScalePaths {
                wanted: steps(&scale.spec_replicas_path)?,
                current: steps(&scale.status_replicas_path)?,
                selector: scale.label_selector_path.as_deref().filter(|path| !path.is_empty()).and_then(steps),
            })
        }),
        columns,
        selectable,
        deprecation,
        ended: CancellationToken::new(),
    })
}

/// All versions of a definition that is established; those that are served, or all of them.
fn kinds_of(definition: &Definition, since: Revision, only_served: bool) -> Vec<Arc<CustomKind>> {
    if !is_true(definition, "Established") {
        return Vec::new();
    }
    let spec = &definition.spec;
    let storage = spec.versions.iter().find(|version| version.storage).map(|version| version.name.clone());
    let shared = Arc::new(Shared {
        key: stored::key(STORAGE, "", definition.metadata.name.as_deref().unwrap_or_default()),
        since,
        storage: storage.unwrap_or_default(),
        webhook: spec.conversion.as_ref().is_some_and(|conversion| conversion.strategy == "Webhook"),
    });
    let wanted = spec.versions.iter().filter(|version| version.served || !only_served);
    wanted
        .filter_map(|version| {
            let kind = kind_of(definition, version, &shared);
            if kind.is_none() {
                warn!(definition = definition.metadata.name, version = version.name, "a version cannot be served");
            }
            kind.map(Arc::new)
        })
        .collect()
}

impl Follower {
    /// Reads all definitions and serves those that are established.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn open(registry: Registry) -> Result<Self, StoreError> {
        let mut follower = Self { registry, seen: BTreeMap::new(), finalizing: BTreeSet::new(), tasks: JoinSet::new() };
        follower.load()?;
        Ok(follower)
    }

    fn catalogs(&self) -> &Catalogs {
        self.registry.custom()
    }

    /// Reads everything anew; the revision it read.
    fn load(&mut self) -> Result<Revision, StoreError> {
        let read = self.registry.store().range(&Range::prefix(stored::prefix(STORAGE, "")))?;
        let there: BTreeSet<String> = read.entries.iter().map(|entry| stored::Header::of(entry).name.clone()).collect();
        self.seen.retain(|name, _| there.contains(name));
        for entry in &read.entries {
            self.see(entry);
        }
        self.publish();
        Ok(read.revision)
    }

    /// Takes over a version of a definition; whether anything changed that is served.
    fn see(&mut self, entry: &Entry) -> bool {
        let definition: Definition = match serde_json::from_slice(&entry.value) {
            Ok(definition) => definition,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "a stored definition cannot be read");
                return false;
            }
        };
        let known = self.seen.get(definition.metadata.name.as_deref().unwrap_or_default());
        if known.is_some_and(|known| known.revision >= entry.mod_revision) {
            return false;
        }
        self.take(definition, entry.mod_revision, entry.create_revision)
    }

    /// Takes over a definition; whether anything changed that is served.
    fn take(&mut self, definition: Definition, revision: Revision, since: Revision) -> bool {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let known = self.seen.get(&name);
        // A status that changes without changing what is served ends no watch.
        let served = |d: &Definition| {
            let names = d.status.as_ref().and_then(|status| status.accepted_names.clone());
            (names, is_true(d, "Established"), d.metadata.deletion_timestamp.is_some())
        };
        let same = known.is_some_and(|known| {
            known.since == since
                && known.definition.spec == definition.spec
                && served(&known.definition) == served(&definition)
        });
        let kinds = match known {
            Some(known) if same => known.kinds.clone(),
            _ => kinds_of(&definition, since, true),
        };
        self.seen.insert(name, Seen { definition, revision, since, kinds });
        !same
    }

    fn publish(&self) {
        let kinds = self.seen.values().flat_map(|seen| seen.kinds.iter().cloned()).collect();
        self.catalogs().replace(Catalog::new(kinds));
    }

    /// Follows the store until `shutdown`.
    ///
    /// # Errors
    /// The store is closed.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let result = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            result = self.follow() => result,
        };
        self.tasks.shutdown().await;
        result
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        loop {
            let from = self.load()?;
            let names: Vec<String> = self.seen.keys().cloned().collect();
            for name in &names {
                self.settle(name).await;
            }
            let request = WatchRequest::prefix(stored::prefix(STORAGE, ""), from.next());
            let mut watcher = match self.registry.store().watch(request) {
                Ok(watcher) => watcher,
                Err(StoreError::Compacted { .. }) => continue,
                Err(error) => return Err(error),
            };
            loop {
                let batch = tokio::select! {
                    batch = watcher.next() => batch,
                    Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                        if let Ok(name) = ended {
                            self.finalizing.remove(&name);
                        }
                        continue;
                    }
                };
                let batch = match batch {
                    Some(Ok(batch)) => batch,
                    None | Some(Err(StoreError::SlowWatcher { .. } | StoreError::Compacted { .. })) => break,
                    Some(Err(error)) => return Err(error),
                };
                let mut touched = BTreeSet::new();
                let mut changed = false;
                for event in batch.events.iter() {
                    match event.kind {
                        EventKind::Put => {
                            changed |= self.see(&event.entry);
                            touched.insert(stored::Header::of(&event.entry).name.clone());
                        }
                        EventKind::Delete => {
                            let key = String::from_utf8_lossy(&event.entry.key).into_owned();
                            let name = key.rsplit('/').next().unwrap_or_default().to_owned();
                            if let Some(gone) = self.seen.remove(&name) {
                                changed = true;
                                // Its names are free for others of its group.
                                let group = gone.definition.spec.group;
                                let others = self.seen.iter().filter(|(_, seen)| seen.definition.spec.group == group);
                                touched.extend(others.map(|(name, _)| name.clone()));
                            }
                        }
                    }
                }
                if changed {
                    self.publish();
                }
                for name in &touched {
                    self.settle(name).await;
                }
            }
        }
    }

    /// Brings a definition's status, and if it is deleted its objects, to where they belong.
    async fn settle(&mut self, name: &str) {
        let Some(seen) = self.seen.get(name) else { return };
        if seen.definition.metadata.deletion_timestamp.is_some() {
            let finalizers = seen.definition.metadata.finalizers.iter().flatten();
            if finalizers.into_iter().any(|f| f == FINALIZER) && self.finalizing.insert(name.to_owned()) {
                let (registry, name) = (self.registry.clone(), name.to_owned());
                // Objects of a version that is no longer served go as well.
                let kinds = kinds_of(&seen.definition, seen.since, false);
                self.tasks.spawn(async move {
                    // What has gone meanwhile needs no more: the last event seen of it may be older than its end.
                    if let Err(status) = finalize(&registry, &name, &kinds).await
                        && status.code != 404
                    {
                        warn!(definition = name, status = status.message, "a definition's objects are not all removed");
                    }
                    name
                });
            }
            return;
        }
        let Some(status) = self.status_for(name) else { return };
        // Who reads that a definition is established finds it served, so that comes first.
        if let Some(seen) = self.seen.get(name) {
            let (revision, since) = (seen.revision, seen.since);
            let definition = Definition { status: Some(status.clone()), ..seen.definition.clone() };
            if self.take(definition, revision, since) {
                self.publish();
            }
        }
        match write_status(&self.registry, name, &status).await {
            Ok(()) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => warn!(definition = name, status = status.message, "a definition's status is not written"),
        }
    }

    /// The status that a definition should have, if it has another one.
    fn status_for(
        &self,
        name: &str,
    ) -> Option<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionStatus>
    {
        let definition = &self.seen.get(name)?.definition;
        let before = definition.status.clone().unwrap_or_default();
        let others = self.seen.iter().filter(|(other, _)| *other != name).map(|(_, seen)| &seen.definition);
        let group = definition.spec.group.as_str();
        let taken = Taken::by(group, others.filter(|other| other.spec.group == group));
        let names = before.accepted_names.clone().unwrap_or_default();
        let outcome = taken.grant(&definition.spec.names, &names);
        let mut after = before.clone();
        let accepted = match &outcome.conflict {
            None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            Some((reason, message)) => condition("NamesAccepted", "False", reason, message),
        };
        after.accepted_names = Some(outcome.accepted);
        set_condition(&mut after, accepted);
        if !is_true(definition, "Established") {
            let established = match outcome.conflict {
                None => {
                    condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
                }
                Some(_) => condition("Established", "False", "NotAccepted", "not all names are accepted"),
            };
            set_condition(&mut after, established);
        }
        if let Some(approval) = approval(definition) {
            set_condition(&mut after, approval);
        }
        (after != before).then_some(after)
    }
}

/// Whether a group of Kubernetes' own is used by its leave (KEP-2337), of definitions in such groups.
fn approval(definition: &Definition) -> Option<Condition> {
    let group = &definition.spec.group;
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|own| group == own || group.ends_with(&format!(".{own}")));
    if !is_protected {
        return None;
    }
    let note = definition.metadata.annotations.as_ref().and_then(|all| all.get("api-approved.kubernetes.io"));
    let text = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                https://github.com/kubernetes/enhancements/pull/1111";
    Some(match note.map(String::as_str) {
        None | Some("") => condition("KubernetesAPIApprovalPolicyConformant", "False", "MissingAnnotation", text),
        Some(note) if note.starts_with("unapproved") => {
            let message = format!("not approved: {note:?}");
            condition("KubernetesAPIApprovalPolicyConformant", "False", "UnapprovedAnnotation", &message)
        }
        Some(note) => {
            let message = format!("approved in {note}");
            condition("KubernetesAPIApprovalPolicyConformant", "True", "ApprovedAnnotation", &message)
        }
    })
}

/// The kind that definitions themselves are of.
fn own_kind(registry: &Registry) -> Result<Arc<dyn KindOps>> {
    let kind = registry.kind("apiextensions.k8s.io", "v1", STORAGE);
    kind.ok_or_else(|| Box::new(Status::no_such_path()))
}

async fn write_status(
    registry: &Registry,
    name: &str,
    status: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionStatus,
) -> Result<()> {
    let kind = own_kind(registry)?;
    let change = |current: &Current<'_>| {
        let mut object = current.object.copied();
        if let Some(definition) = object.as_any_mut().downcast_mut::<Definition>() {
            let now = definition.status.get_or_insert_default();
            now.accepted_names.clone_from(&status.accepted_names);
            for condition in status.conditions.iter().flatten() {
                set_condition(now, condition.clone());
            }
        }
        object.meta_mut().resource_version = None;
        Ok(object)
    };
    registry.update(&kind, ("", name), Change::Of(Part::Status), &writer(), change).await.map(drop)
}

async fn change_definition(registry: &Registry, name: &str, change: impl Fn(&mut Definition) + Send) -> Result<()> {
    let kind = own_kind(registry)?;
    let apply = |current: &Current<'_>| {
        let mut object: BoxObject = current.object.copied();
        if let Some(definition) = object.as_any_mut().downcast_mut::<Definition>() {
            change(definition);
        }
        object.meta_mut().resource_version = None;
        Ok(object)
    };
    registry.update(&kind, ("", name), Change::Own, &writer(), apply).await.map(drop)
}

/// Removes a definition's objects, waits for those that finalizers hold, and lets the definition go.
async fn finalize(registry: &Registry, name: &str, kinds: &[Arc<CustomKind>]) -> Result<()> {
    change_definition(registry, name, |definition| {
        let message = "CustomResource deletion is in progress";
        let terminating = condition("Terminating", "True", "InstanceDeletionInProgress", message);
        set_condition(definition.status.get_or_insert_default(), terminating);
    })
    .await?;
    if let Some(kind) = kinds.first() {
        remove_all(registry, kind).await?;
    }
    change_definition(registry, name, |definition| {
        let message = "removed all instances";
        let terminating = condition("Terminating", "False", "InstanceDeletionCompleted", message);
        set_condition(definition.status.get_or_insert_default(), terminating);
        if let Some(finalizers) = &mut definition.metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
    })
    .await?;
    info!(definition = name, "the definition is removed with its objects");
    Ok(())
}

async fn remove_all(registry: &Registry, kind: &Arc<CustomKind>) -> Result<()> {
    let prefix = stored::prefix(kind.row().storage, "");
    let own: Arc<dyn KindOps> = Arc::<CustomKind>::clone(kind);
    let everything = Selection::everything(&own);
    loop {
        let from = registry.revision();
        let listed = registry.list("", &everything, &*own, &ListOptions::newest())?;
        registry.delete_all(&own, &listed.entries, &Default::default(), &writer()).await?;
        let range = Range { what: What::Count, ..Range::prefix(prefix.clone()) };
        let left = registry.store().range(&range).map_err(|error| crate::status_of::store(&error))?;
        if left.count == 0 {
            return Ok(());
        }
        // Finalizers hold some: whoever lets one go causes an event that brings us here again.
        let mut watcher = match registry.store().watch(WatchRequest::prefix(prefix.clone(), from.next())) {
            Ok(watcher) => watcher,
            Err(StoreError::Compacted { .. }) => continue,
            Err(error) => return Err(crate::status_of::store(&error)),
        };
        let mut left = left.count;
        while left > 0 {
            match watcher.next().await {
                Some(Ok(batch)) if batch.events.iter().all(|event| event.kind == EventKind::Put) => {}
                Some(Ok(_)) => {
                    let range = Range { what: What::Count, ..Range::prefix(prefix.clone()) };
                    left = registry.store().range(&range).map_err(|error| crate::status_of::store(&error))?.count;
                }
                Some(Err(StoreError::SlowWatcher { .. } | StoreError::Compacted { .. })) => break,
                Some(Err(error)) => return Err(crate::status_of::store(&error)),
                None => return Err(Box::new(Status::unavailable("the server is stopping"))),
            }
        }
    }
}
