//! Follows the definitions in the store: serves what they define, says in their status how far that is, and removes the
//! objects of those that are deleted.
//!
//! All by the store's watch: a definition is served as soon as its names are accepted, milliseconds after it was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coracle_proto::status::Status;
use coracle_store::{Entry, Error as StoreError, EventKind, Range, Revision, WatchRequest};
use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition as Definition, CustomResourceDefinitionCondition as Condition,
        CustomResourceDefinitionSpec as Spec, CustomResourceDefinitionStatus as DefinitionStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Catalog, Catalogs, CustomKind, made::kinds_of, names::Taken, removal::finalize};
use crate::{
    kinds::custom_resource_definition::{FINALIZER, set_condition},
    ops::{KindOps, Part},
    registry::{Change, Current, Registry, Writer},
    status_of::Result,
    stored,
    upstream::connect::Tasks,
    user::User,
};

/// Where definitions are stored.
pub(super) const STORAGE: &str = "customresourcedefinitions";

/// By whose leave a group of Kubernetes' own is used.
const APPROVED: &str = "api-approved.kubernetes.io";

/// A definition as it was last seen.
struct Seen {
    /// Without its schemas: typed, they take many times the room of the stored bytes, and there may be thousands.
    definition: Definition,
    /// What the specification was, schemas included.
    digest: [u8; 32],
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
    /// To webhooks that convert.
    connections: Tasks,
}

/// What tells one specification from another.
fn digest(spec: &Spec) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(spec).unwrap_or_default()).into()
}

/// Drops what only people read, and what is in the store anyway: the schemas, and the copies of them in the metadata.
fn make_lean(definition: &mut Definition) {
    definition.spec.versions.iter_mut().for_each(|version| version.schema = None);
    definition.metadata.managed_fields = None;
    if let Some(notes) = &mut definition.metadata.annotations {
        notes.retain(|key, _| key == APPROVED);
    }
}

/// The definition of a stored version.
fn read(entry: &Entry) -> Option<Definition> {
    let read = serde_json::from_slice(&entry.value);
    read.inspect_err(|error| {
        error!(error = error as &dyn std::error::Error, "a stored definition cannot be read");
    })
    .ok()
}

/// The time now, as every condition has it.
fn now() -> Time {
    Time(Timestamp::now())
}

pub(super) fn writer() -> Writer {
    Writer::new(User::new("system:apiserver", &["system:masters"]))
}

pub(super) fn is_true(definition: &Definition, condition: &str) -> bool {
    let conditions = definition.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|known| known.type_ == condition && known.status == "True")
}

pub(super) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now()),
        ..Condition::default()
    }
}

impl Follower {
    /// Reads all definitions and serves those that are established.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn open(registry: Registry) -> Result<Self, StoreError> {
        let mut follower = Self {
            registry,
            seen: BTreeMap::new(),
            finalizing: BTreeSet::new(),
            tasks: JoinSet::new(),
            connections: Tasks::new(),
        };
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
        let known = self.seen.get(&stored::Header::of(entry).name);
        if known.is_some_and(|known| known.revision >= entry.mod_revision) {
            return false;
        }
        read(entry).is_some_and(|definition| self.take(definition, entry.mod_revision, entry.create_revision))
    }

    /// Takes over a definition; whether anything changed that is served.
    fn take(&mut self, mut definition: Definition, revision: Revision, since: Revision) -> bool {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let digest = digest(&definition.spec);
        let known = self.seen.get(&name);
        // A status that changes without changing what is served ends no watch.
        let served = |d: &Definition| {
            let names = d.status.as_ref().and_then(|status| status.accepted_names.clone());
            (names, is_true(d, "Established"), d.metadata.deletion_timestamp.is_some())
        };
        let same = known.is_some_and(|known| {
            known.since == since && known.digest == digest && served(&known.definition) == served(&definition)
        });
        let kinds = match known {
            Some(known) if same => known.kinds.clone(),
            _ => kinds_of(&definition, since, true, (self.registry.store(), &self.connections)),
        };
        make_lean(&mut definition);
        self.seen.insert(name, Seen { definition, digest, revision, since, kinds });
        !same
    }

    /// A definition whole, as it was last seen; none if it is another one by now, which the watch tells.
    fn whole(&self, seen: &Seen) -> Option<Definition> {
        let key = stored::key(STORAGE, "", seen.definition.metadata.name.as_deref().unwrap_or_default());
        let entry = self.registry.store().get(&key).filter(|entry| entry.create_revision == seen.since)?;
        read(&entry).filter(|definition| digest(&definition.spec) == seen.digest)
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
        self.connections.stop().await;
        result
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        loop {
            let from = self.load()?;
            self.settle(self.seen.keys().cloned().collect()).await;
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
                self.settle(touched).await;
            }
        }
    }

    /// Brings the definitions' statuses, and of those that are deleted the objects, to where they belong.
    async fn settle(&mut self, names: BTreeSet<String>) {
        let (mut statuses, mut changed) = (Vec::new(), false);
        for name in names {
            let Some(seen) = self.seen.get(&name) else { continue };
            if seen.definition.metadata.deletion_timestamp.is_some() {
                self.begin_removal(&name);
                continue;
            }
            let Some(status) = self.status_for(&name) else { continue };
            let (revision, since) = (seen.revision, seen.since);
            // Another specification by now is settled when the watch tells of it.
            let Some(whole) = self.whole(seen) else { continue };
            changed |= self.take(Definition { status: Some(status.clone()), ..whole }, revision, since);
            statuses.push((name, status));
        }
        // Who reads that a definition is established finds it served, so that comes first; once for however many.
        if changed {
            self.publish();
        }
        for (name, status) in statuses {
            match write_status(&self.registry, &name, &status).await {
                Ok(()) => {}
                Err(status) if status.code == 404 => {}
                Err(status) => {
                    warn!(definition = name, status = status.message, "a definition's status is not written")
                }
            }
        }
    }

    /// Removes a definition's objects, and then itself, unless that is under way.
    fn begin_removal(&mut self, name: &str) {
        let Some(seen) = self.seen.get(name) else { return };
        let mut finalizers = seen.definition.metadata.finalizers.iter().flatten();
        if !finalizers.any(|f| f == FINALIZER) || !self.finalizing.insert(name.to_owned()) {
            return;
        }
        let (registry, name) = (self.registry.clone(), name.to_owned());
        // Objects of a version that is no longer served go as well.
        let kinds = kinds_of(&seen.definition, seen.since, false, (registry.store(), &self.connections));
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

    /// The status that a definition should have, if it has another one.
    fn status_for(&self, name: &str) -> Option<DefinitionStatus> {
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
    let note = definition.metadata.annotations.as_ref().and_then(|all| all.get(APPROVED));
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
pub(super) fn own_kind(registry: &Registry) -> Result<Arc<dyn KindOps>> {
    let kind = registry.kind("apiextensions.k8s.io", "v1", STORAGE);
    kind.ok_or_else(|| Box::new(Status::no_such_path()))
}

async fn write_status(registry: &Registry, name: &str, status: &DefinitionStatus) -> Result<()> {
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
        Ok(object)
    };
    registry.update(&kind, ("", name), Change::Of(Part::Status), &writer(), change).await.map(drop)
}
