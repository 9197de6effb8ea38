//! RBAC's objects in memory, following the store.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use coracle_store::{Compare, Entry, EventKind, Op, Range, Revision, Store, Txn, WatchRequest, Watcher};
use jiff::Timestamp;
use k8s_openapi::{
    Metadata,
    api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleBinding, Subject},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{
    defaults::{AUTOUPDATE, Defaults},
    policy::{Kind, Policy},
    rule,
};

/// Rounds of reading and writing again when others write the same default objects meanwhile.
const ATTEMPTS: usize = 5;

/// A store that takes no writes is asked again this much later.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What can go wrong with RBAC's objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error("read or write RBAC's objects in the store")]
    Store(#[from] coracle_store::Error),
    /// A default object has no JSON form.
    #[error("encode a default RBAC object")]
    Encode(#[source] serde_json::Error),
    /// The default objects were changed by somebody else in every attempt to write them.
    #[error("the default RBAC objects are changed by somebody else all the time")]
    Contended,
}

/// RBAC's objects, compiled.
#[derive(Debug)]
pub struct Rbac {
    store: Store,
    policy: RwLock<Policy>,
    /// The revision of the last change that was taken over.
    seen: tokio::sync::watch::Sender<Revision>,
}

fn split(kind: Kind, key: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(kind.prefix())?;
    Some(rest.split_once('/').unwrap_or(("", rest)))
}

impl Rbac {
    /// Writes the default objects that are missing or short of something (unless their annotation
    /// `rbac.authorization.kubernetes.io/autoupdate` is `false`), all in one transaction, and reads everything.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn open(store: Store, now: Timestamp) -> Result<Self, Error> {
        reconcile(&store, now).await?;
        let rbac = Self { store, policy: RwLock::default(), seen: tokio::sync::watch::Sender::new(Revision::NONE) };
        rbac.load()?;
        Ok(rbac)
    }

    /// Reads everything anew; returns the revision it read.
    fn load(&self) -> Result<Revision, Error> {
        let mut policy = Policy::default();
        let mut at: Option<Revision> = None;
        for kind in Kind::ALL {
            let mut range = Range::prefix(kind.prefix());
            range.at = at;
            let read = self.store.range(&range)?;
            at.get_or_insert(read.revision);
            for entry in &read.entries {
                if let Some((namespace, name)) = split(kind, &entry.key) {
                    policy.apply(kind, namespace, name, Some(&entry.value));
                }
            }
        }
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        let revision = at.unwrap_or(Revision::NONE);
        self.seen.send_replace(revision);
        Ok(revision)
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Policy) -> T) -> T {
        look(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the change of an RBAC object at `revision` is taken over, when no other one is under way; `run` must
    /// be running.
    #[cfg(test)]
    pub(super) async fn caught_up(&self, revision: Revision) {
        // The sender lives as long as `self`.
        let _ = self.seen.subscribe().wait_for(|seen| *seen >= revision).await;
    }

    /// Follows the store until `shutdown`, and writes into aggregating roles what they aggregate.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        loop {
            let from = self.load()?;
            let mut is_due = !self.write_aggregates().await?;
            let follow = async {
                let watch = |kind: Kind| self.store.watch(WatchRequest::prefix(kind.prefix(), Revision(from.0 + 1)));
                let [a, b, c, d] = Kind::ALL;
                let mut watchers = [watch(a)?, watch(b)?, watch(c)?, watch(d)?];
                loop {
                    let kind = tokio::select! {
                        kind = self.next(&mut watchers) => kind?,
                        () = tokio::time::sleep(RETRY), if is_due => Some(Kind::ClusterRoles),
                    };
                    if kind == Some(Kind::ClusterRoles) {
                        is_due = !self.write_aggregates().await?;
                    }
                    if kind.is_none() {
                        return Ok::<(), Error>(());
                    }
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                // The watch ended because it was too slow or the history is gone: everything is read anew.
                ended = follow => match ended {
                    Ok(()) | Err(Error::Store(coracle_store::Error::Compacted { .. })) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Takes over the next change; which kind it was about, `None` when a watch ended.
    async fn next(&self, watchers: &mut [Watcher; 4]) -> Result<Option<Kind>, Error> {
        let [a, b, c, d] = watchers;
        let (kind, batch) = tokio::select! {
            batch = a.next() => (Kind::ClusterRoles, batch),
            batch = b.next() => (Kind::ClusterRoleBindings, batch),
            batch = c.next() => (Kind::Roles, batch),
            batch = d.next() => (Kind::RoleBindings, batch),
        };
        let batch = match batch {
            Some(Ok(batch)) => batch,
            None | Some(Err(coracle_store::Error::SlowWatcher { .. } | coracle_store::Error::Compacted { .. })) => {
                return Ok(None);
            }
            Some(Err(error)) => return Err(error.into()),
        };
        {
            let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            for event in batch.events.iter() {
                if let Some((namespace, name)) = split(kind, &event.entry.key) {
                    let value = match event.kind {
                        EventKind::Put => Some(&event.entry.value[..]),
                        EventKind::Delete => None,
                    };
                    policy.apply(kind, namespace, name, value);
                }
            }
        }
        self.seen.send_if_modified(|seen| std::mem::replace(seen, batch.revision.max(*seen)) != *seen);
        Ok(Some(kind))
    }

    /// Whether all are written, or will be seen again: a store that takes no writes now (a full disk, no majority) is asked
    /// again later.
    async fn write_aggregates(&self) -> Result<bool, Error> {
        for (name, rules) in self.read(Policy::stale_aggregates) {
            let key = format!("{}{name}", Kind::ClusterRoles.prefix());
            let Some(entry) = self.store.get(key.as_bytes()) else { continue };
            let Ok(mut role) = serde_json::from_slice::<ClusterRole>(&entry.value) else { continue };
            if role.aggregation_rule.is_none() {
                continue;
            }
            role.rules = Some(rules);
            let value = serde_json::to_vec(&role).map_err(Error::Encode)?;
            // Whoever changed the role meanwhile causes an event that brings us here again.
            let txn = Txn {
                compare: vec![Compare::unchanged(key.clone(), entry.mod_revision)],
                then: vec![Op::put(key, value)],
                or_else: Vec::new(),
            };
            match self.store.txn(txn).await {
                Ok(_) => {}
                Err(error @ coracle_store::Error::Closed) => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(role = name, error = &error as &dyn std::error::Error, "rules are not written yet");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Brings the default objects up to date. Cluster roles that aggregate are written with the rules they will have, so
/// that the first start needs no second transaction.
async fn reconcile(store: &Store, now: Timestamp) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let mut plan = Plan { now, txn: Txn::default(), policy: Policy::default() };
        let all = Defaults::new();
        let stored = |kind: Kind| -> Result<BTreeMap<Vec<u8>, std::sync::Arc<Entry>>, Error> {
            let read = store.range(&Range::prefix(kind.prefix()))?;
            Ok(read.entries.into_iter().map(|e| (e.key.to_vec(), e)).collect())
        };
        let roles = stored(Kind::ClusterRoles)?;
        for (key, entry) in &roles {
            if let Some((_, name)) = split(Kind::ClusterRoles, key) {
                plan.policy.apply(Kind::ClusterRoles, "", name, Some(&entry.value));
            }
        }
        // What aggregates comes last, when all it may aggregate is known.
        let (gathering, plain): (Vec<_>, Vec<_>) =
            all.cluster_roles.into_iter().partition(|r| r.aggregation_rule.is_some());
        for role in plain.into_iter().chain(gathering) {
            plan.add(Kind::ClusterRoles, &roles, role, |stored, wanted| {
                if stored.aggregation_rule.is_some() {
                    return false;
                }
                extend_rules(stored.rules.get_or_insert_default(), wanted.rules.as_deref().unwrap_or_default())
            })?;
        }
        let bindings = stored(Kind::ClusterRoleBindings)?;
        for binding in all.cluster_role_bindings {
            plan.add(Kind::ClusterRoleBindings, &bindings, binding, |stored, wanted| {
                extend_subjects(stored.subjects.get_or_insert_default(), wanted.subjects.as_deref())
            })?;
        }
        let local = stored(Kind::Roles)?;
        for role in all.roles {
            plan.add(Kind::Roles, &local, role, |stored: &mut Role, wanted| {
                extend_rules(stored.rules.get_or_insert_default(), wanted.rules.as_deref().unwrap_or_default())
            })?;
        }
        let local = stored(Kind::RoleBindings)?;
        for binding in all.role_bindings {
            plan.add(Kind::RoleBindings, &local, binding, |stored: &mut RoleBinding, wanted| {
                extend_subjects(stored.subjects.get_or_insert_default(), wanted.subjects.as_deref())
            })?;
        }
        plan.fill_aggregates()?;
        if plan.txn.then.is_empty() || store.txn(plan.txn).await?.succeeded {
            return Ok(());
        }
    }
    Err(Error::Contended)
}

/// The transaction that brings the defaults up to date, and the policy as it will be.
struct Plan {
    now: Timestamp,
    txn: Txn,
    policy: Policy,
}

impl Plan {
    fn add<T>(
        &mut self,
        kind: Kind,
        stored: &BTreeMap<Vec<u8>, std::sync::Arc<Entry>>,
        mut wanted: T,
        extend: impl FnOnce(&mut T, &T) -> bool,
    ) -> Result<(), Error>
    where
        T: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        let meta = wanted.metadata();
        let name = meta.name.clone().unwrap_or_default();
        let key = match &meta.namespace {
            Some(namespace) => format!("{}{namespace}/{name}", kind.prefix()),
            None => format!("{}{name}", kind.prefix()),
        };
        let (revision, value) = match stored.get(key.as_bytes()) {
            None => {
                let meta = wanted.metadata_mut();
                meta.uid = Some(uuid::Uuid::new_v4().to_string());
                meta.creation_timestamp = Some(Time(whole_seconds(self.now)));
                (Revision::NONE, serde_json::to_vec(&wanted).map_err(Error::Encode)?)
            }
            Some(entry) => {
                let Ok(mut object) = serde_json::from_slice::<T>(&entry.value) else { return Ok(()) };
                let annotations = object.metadata().annotations.as_ref();
                if annotations.and_then(|a| a.get(AUTOUPDATE)).map(String::as_str) == Some("false")
                    || object.metadata().deletion_timestamp.is_some()
                    || !extend(&mut object, &wanted)
                {
                    return Ok(());
                }
                (entry.mod_revision, serde_json::to_vec(&object).map_err(Error::Encode)?)
            }
        };
        if kind == Kind::ClusterRoles {
            self.policy.apply(kind, "", &name, Some(&value));
        }
        self.txn.compare.push(Compare::unchanged(key.clone(), revision));
        self.txn.then.push(Op::put(key, value));
        Ok(())
    }

    /// Puts into new aggregating roles what they aggregate.
    fn fill_aggregates(&mut self) -> Result<(), Error> {
        let mut rules: BTreeMap<Vec<u8>, Vec<PolicyRule>> = self
            .policy
            .stale_aggregates()
            .into_iter()
            .map(|(name, rules)| (format!("{}{name}", Kind::ClusterRoles.prefix()).into_bytes(), rules))
            .collect();
        for op in &mut self.txn.then {
            if let Op::Put { key, value, .. } = op
                && let Some(rules) = rules.remove(&key[..])
                && let Ok(mut role) = serde_json::from_slice::<ClusterRole>(value)
            {
                role.rules = Some(rules);
                *value = serde_json::to_vec(&role).map_err(Error::Encode)?.into();
            }
        }
        Ok(())
    }
}

/// Kubernetes' times have no fractions of a second.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Adds the rules that the present ones do not cover; whether there were any.
fn extend_rules(rules: &mut Vec<PolicyRule>, wanted: &[PolicyRule]) -> bool {
    let missing = {
        let held: Vec<&PolicyRule> = rules.iter().collect();
        rule::compact(rule::missing(&held, wanted))
    };
    let any = !missing.is_empty();
    rules.extend(missing);
    any
}

/// Adds the subjects that are not there; whether there were any.
fn extend_subjects(subjects: &mut Vec<Subject>, wanted: Option<&[Subject]>) -> bool {
    let missing: Vec<Subject> = wanted.into_iter().flatten().filter(|s| !subjects.contains(s)).cloned().collect();
    let any = !missing.is_empty();
    subjects.extend(missing);
    any
}
