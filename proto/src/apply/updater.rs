//! Who owns what after a write, and what an apply makes of an object.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde_json::Value;

use super::{
    compare::{Comparison, compare},
    element::{Path, same},
    managers::{Managed, Manager, Operation, Owned, Who},
    merge::merge,
    place::Place,
    reconcile::reconcile,
    remove::remove,
    set::Set,
    validate::field_set,
};

/// Fields that nobody owns: they name the object, or only the server writes them.
pub(super) static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    let meta = |name: &str| Path::of(&["metadata", name]);
    Set::from([
        Path::of(&["apiVersion"]),
        Path::of(&["kind"]),
        Path::of(&["metadata"]),
        meta("name"),
        meta("namespace"),
        meta("creationTimestamp"),
        meta("selfLink"),
        meta("uid"),
        meta("clusterName"),
        meta("generation"),
        meta("managedFields"),
        meta("resourceVersion"),
    ])
});

/// A field that somebody else owns and that the apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub manager: Manager,
    /// Which.
    pub path: Path,
}

/// All conflicts of an apply, by manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

/// The sentence clients get.
impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { manager, path }] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for Conflict { manager, path } in &self.0 {
            if last != Some(manager) {
                write!(f, "{}conflicts with {manager}:", if last.is_some() { "\n" } else { "" })?;
                last = Some(manager);
            }
            write!(f, "\n- {path}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Conflicts {}

/// Why an apply was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it would change.
    #[error(transparent)]
    Conflicts(Conflicts),
    /// The configuration cannot be laid over the object.
    #[error("failed to merge config: {0}")]
    Unmergeable(String),
}

/// What an apply came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The new object; `None` when the apply changes nothing of it.
    pub object: Option<Value>,
    /// Who owns what now.
    pub managed: Managed,
}

/// Gives an object in another version, with that version's root; `None` for versions that are not known, whose managers
/// are forgotten.
pub type Convert<'u, P> = dyn Fn(&Value, &str) -> Option<(P, Value)> + 'u;

/// Knows one kind in one version.
pub struct Updater<'u, P> {
    /// The kind's root.
    pub place: P,
    /// The version objects are written in: `apps/v1`.
    pub version: &'u str,
    /// Fields that writes of this sort do not change whatever they say: status through the object itself, the
    /// specification through its status.
    pub reset: &'u Set,
    /// Knows the kind's other versions.
    pub convert: &'u Convert<'u, P>,
}

impl<'a, P: Place<'a>> Updater<'_, P> {
    /// Calls `then` with the object in the version.
    fn in_version<T>(&self, object: &Value, version: &str, then: impl FnOnce(P, &Value) -> T) -> Option<T> {
        if version == self.version {
            return Some(then(self.place, object));
        }
        let (place, object) = (self.convert)(object, version)?;
        Some(then(place, &object))
    }

    /// Forgets the managers of unknown versions, and sees to sets that are older than the schema.
    fn reconciled(&self, managed: Managed, live: &Value) -> Managed {
        let mut entries = BTreeMap::new();
        for (manager, Owned { set, version, time }) in managed.entries {
            if let Some(set) = self.in_version(live, &version, |place, _| reconcile(place, set)) {
                entries.insert(manager, Owned { set, version, time });
            }
        }
        Managed { entries }
    }

    /// Takes from all managers but `own` what differs between the objects.
    ///
    /// # Errors
    /// Without `force`, the fields that differ and are somebody's.
    fn settle(
        &self,
        (live, new): (&Value, &Value),
        managed: &mut Managed,
        own: Option<&Manager>,
        force: bool,
    ) -> Result<Comparison, Conflicts> {
        let compared = compare(self.place, Some(live), Some(new)).excluding(self.reset);
        let mut in_versions: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        for owned in managed.entries.values().filter(|owned| owned.version != self.version) {
            in_versions.entry(owned.version.clone()).or_insert_with(|| {
                let (place, old) = (self.convert)(live, &owned.version)?;
                let (_, new) = (self.convert)(new, &owned.version)?;
                Some(compare(place, Some(&old), Some(&new)).excluding(self.reset))
            });
        }
        let changes_of = |version: &str| match in_versions.get(version) {
            Some(other) => other.as_ref(),
            None => Some(&compared),
        };
        let mut conflicts = Vec::new();
        let mut left: BTreeMap<Manager, Owned> = BTreeMap::new();
        for (manager, owned) in &managed.entries {
            if Some(manager) == own {
                left.insert(manager.clone(), owned.clone());
                continue;
            }
            let Some(changes) = changes_of(&owned.version) else { continue };
            if changes.modified.is_empty() && changes.added.is_empty() && changes.removed.is_empty() {
                left.insert(manager.clone(), owned.clone());
                continue;
            }
            let lost = owned.set.intersection(&changes.modified).union(owned.set.intersection(&changes.added));
            let conflict = |path| Conflict { manager: manager.clone(), path };
            conflicts.extend(lost.paths().into_iter().map(conflict));
            let set = owned.set.clone().difference(&lost).difference(&changes.removed);
            left.insert(manager.clone(), Owned { set, ..owned.clone() });
        }
        if !force && !conflicts.is_empty() {
            return Err(Conflicts(conflicts));
        }
        left.retain(|_, owned| !owned.set.is_empty());
        managed.entries = left;
        Ok(compared)
    }

    /// Who owns what after a plain write made `new` of `live` (of [`super::empty`] when it was created).
    #[must_use]
    pub fn update(&self, live: &Value, new: &Value, managed: Managed, who: &Who<'_>) -> Managed {
        let mut managed = self.reconciled(managed, live);
        // Forced, so that nothing is refused.
        let Ok(changes) = self.settle((live, new), &mut managed, None, true) else { return managed };
        let set = changes.modified.union(changes.added).recursive_difference(self.reset).difference(&NOBODYS);
        if !set.is_empty() {
            let manager = who.manager(Operation::Update, self.version);
            let before = managed.entries.remove(&manager).map(|owned| owned.set).unwrap_or_default();
            let owned = Owned { set: set.union(before), version: self.version.to_owned(), time: Some(who.now) };
            managed.entries.insert(manager, owned);
        }
        managed.cap();
        managed
    }

    /// Applies a configuration that [`super::validate`] found fit.
    ///
    /// # Errors
    /// Conflicts, unless forced; lists whose elements cannot be told apart.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        managed: Managed,
        who: &Who<'_>,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let mut managed = self.reconciled(managed, live);
        let merged = merge(self.place, Some(live), Some(config)).map_err(ApplyError::Unmergeable)?;
        let merged = merged.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let manager = who.manager(Operation::Apply, self.version);
        let last = managed.entries.remove(&manager);
        let set = field_set(self.place, config).recursive_difference(self.reset);
        let time = last.as_ref().and_then(|last| last.time);
        managed.entries.insert(manager.clone(), Owned { set, version: self.version.to_owned(), time });
        let new = match last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managed, &last),
            _ => merged,
        };
        self.settle((live, &new), &mut managed, Some(&manager), force).map_err(ApplyError::Conflicts)?;
        let is_changed = !same(live, &new);
        if let Some(owned) = managed.entries.remove(&manager) {
            let set = owned.set.difference(&NOBODYS);
            let time = if is_changed { Some(who.now) } else { owned.time };
            managed.put(manager, Owned { set, time, ..owned });
        }
        Ok(Applied { object: is_changed.then_some(new), managed })
    }

    /// Takes out what the manager applied last time, does not apply any more, and nobody else owns.
    fn prune(&self, merged: Value, managed: &Managed, last: &Owned) -> Value {
        let pruned = self.in_version(&merged, &last.version, |place, merged| {
            let dropped = remove(place, merged, &last.set.with_named_fields(Some(place)));
            let kept = self.keep_owned(place, merged, dropped, managed, &last.version);
            keep_dangling(place, merged, &kept, &last.set)
        });
        match pruned {
            None => merged,
            Some(pruned) if last.version == self.version => pruned,
            Some(pruned) => (self.convert)(&pruned, self.version).map_or(merged, |(_, pruned)| pruned),
        }
    }

    /// Puts back what others own, or the manager itself by its new configuration.
    fn keep_owned(&self, place: P, merged: &Value, dropped: Value, managed: &Managed, version: &str) -> Value {
        let mut owned_in: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in managed.entries.values() {
            let all = owned_in.entry(&owned.version).or_default();
            *all = std::mem::take(all).union(owned.set.clone());
        }
        // First in the version of the removal, since what is put back may be needed for conversions.
        let own = owned_in.remove(version).unwrap_or_default();
        let mut kept = keep(place, merged, &dropped, &own);
        for (other, owned) in owned_in {
            let convert = |value: &Value| (self.convert)(value, other);
            if let (Some((place, merged)), Some((_, now))) = (convert(merged), convert(&kept))
                && let Some((_, back)) = (self.convert)(&keep(place, &merged, &now, &owned), version)
            {
                kept = back;
            }
        }
        kept
    }
}

/// `merged` without what `dropped` lacks and `owned` does not have.
fn keep<'a>(place: impl Place<'a>, merged: &Value, dropped: &Value, owned: &Set) -> Value {
    let named = |set: &Set| set.with_named_fields(Some(place));
    let stays = named(&field_set(place, dropped)).union(named(owned));
    remove(place, merged, &named(&field_set(place, merged)).difference(&stays))
}

/// Puts back what the manager had never applied: it goes only with who had it.
fn keep_dangling<'a>(place: impl Place<'a>, merged: &Value, pruned: &Value, last: &Set) -> Value {
    let named = |set: &Set| set.with_named_fields(Some(place));
    let gone = named(&field_set(place, merged)).difference(&named(&field_set(place, pruned)));
    remove(place, merged, &gone.intersection(&named(last)))
}

/// The path of the replicas in a kind that can be scaled, and in a Scale.
#[must_use]
pub fn replicas() -> Path {
    Path::of(&["spec", "replicas"])
}
