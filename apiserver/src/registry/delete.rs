//! Deleting: at once, in grace, or when the finalizers are done.

use std::sync::Arc;

use coracle_proto::{
    meta::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER},
    status::Status,
};
use coracle_store::{Compare, Entry, Op, Revision, Txn};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time};

use super::{
    Registry, Writer,
    attempts::{exhausted, rounds},
    versions::{one_seen_as, to_store, unchanged},
    write::{encode, first_put, unstored},
};
use crate::{
    admission::{self, Operation},
    kind::Deletion,
    ops::{AnyObject, BoxObject, KindOps},
    status_of::Result,
    stored,
};

/// What became of the object.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this was its last version.
    Gone(Arc<Entry>),
    /// It is marked, and there until its finalizers and its grace are done.
    Marked(Arc<Entry>),
}

/// What happens to the objects that this one owns.
fn set_finalizers(meta: &mut ObjectMeta, options: &DeleteOptions, orphans_by_default: bool) {
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        // What the object itself says comes before its kind's default.
        (None, None) if has_say(meta) || !orphans_by_default => return,
        (None, None) => "Orphan",
    };
    let finalizers = meta.finalizers.get_or_insert_default();
    finalizers.retain(|f| f != ORPHAN_FINALIZER && f != FOREGROUND_FINALIZER);
    match policy {
        "Orphan" => finalizers.push(ORPHAN_FINALIZER.to_owned()),
        "Foreground" => finalizers.push(FOREGROUND_FINALIZER.to_owned()),
        _ => {}
    }
    if finalizers.is_empty() {
        meta.finalizers = None;
    }
}

fn has_say(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == ORPHAN_FINALIZER || f == FOREGROUND_FINALIZER)
}

fn mark(meta: &mut ObjectMeta, seconds: i64, writer: &Writer) {
    let end = writer.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(writer.now);
    meta.deletion_timestamp = Some(Time(end));
    meta.deletion_grace_period_seconds = Some(seconds);
    if let Some(generation) = meta.generation.as_mut().filter(|g| **g > 0) {
        *generation += 1;
    }
}

/// A second DELETE can only shorten the grace.
fn shorten(meta: &mut ObjectMeta, asked: Option<i64>) {
    let (Some(old), Some(asked)) = (meta.deletion_grace_period_seconds, asked) else { return };
    if asked < 0 || asked >= old {
        return;
    }
    if let Some(time) = &mut meta.deletion_timestamp {
        time.0 = time.0.checked_sub(jiff::SignedDuration::from_secs(old - asked)).unwrap_or(time.0);
    }
    meta.deletion_grace_period_seconds = Some(asked);
}

/// Marks the object as this DELETE wants it; true when nothing keeps it any more.
fn decide(kind: &dyn KindOps, object: &mut BoxObject, options: &DeleteOptions, writer: &Writer) -> bool {
    set_finalizers(object.meta_mut(), options, kind.orphans_by_default());
    if object.meta().deletion_timestamp.is_some() {
        shorten(object.meta_mut(), options.grace_period_seconds);
        return super::write::is_done(kind, &**object);
    }
    let deletion = kind.begin_deletion(&mut **object, options.grace_period_seconds);
    let seconds = match deletion {
        Deletion::Immediate => 0,
        Deletion::Graceful { seconds } => seconds,
    };
    let is_free = object.meta().finalizers.as_ref().is_none_or(Vec::is_empty);
    if deletion == Deletion::Immediate && is_free {
        return true;
    }
    mark(object.meta_mut(), seconds, writer);
    false
}

impl Registry {
    fn check_preconditions(
        kind: &dyn KindOps,
        object: &dyn AnyObject,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<()> {
        let Some(wanted) = &options.preconditions else { return Ok(()) };
        let (resource, meta) = (kind.resource(), object.meta());
        let conflict = |why: String| Err(Box::new(Status::conflict(resource.group, resource.plural, name, &why)));
        let shown = |text: Option<&String>| text.cloned().unwrap_or_default();
        if let Some(uid) = wanted.uid.as_ref().filter(|uid| Some(*uid) != meta.uid.as_ref()) {
            let is = shown(meta.uid.as_ref());
            return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}"));
        }
        if let Some(version) = wanted.resource_version.as_ref().filter(|v| Some(*v) != meta.resource_version.as_ref()) {
            let is = shown(meta.resource_version.as_ref());
            return conflict(format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {is}"
            ));
        }
        Ok(())
    }

    /// Deletes an object, or marks it for those who must agree first.
    ///
    /// # Errors
    /// 404 when it is not there, 409 when a precondition does not hold, 403 from admission.
    ///
    /// # Cancel safety
    /// Not cancel-safe: run it to its end.
    pub async fn delete(
        &self,
        kind: &Arc<dyn KindOps>,
        (namespace, name): (&str, &str),
        options: &DeleteOptions,
        writer: &Writer,
    ) -> Result<Deleted> {
        let kind = kind.modern().unwrap_or(kind);
        let resource = kind.resource();
        let key = stored::key(resource.storage, namespace, name);
        for () in rounds() {
            let entry = self
                .store
                .get(&key)
                .ok_or_else(|| Box::new(Status::not_found(resource.group, resource.plural, name)))?;
            let seen = one_seen_as(&**kind, Arc::clone(&entry)).await?;
            let old = self.object_of(&**kind, &seen)?;
            Self::check_preconditions(&**kind, &*old, name, options)?;
            let write = admission::Write {
                registry: self,
                user: &writer.user,
                operation: Operation::Delete,
                kind: &**kind,
                namespace,
                name,
                generate_name: "",
                subresource: "",
                old: Some(&*old),
                dry_run: writer.dry_run,
                delete_options: Some(options),
                notes: &writer.notes,
            };
            admission::mutate(&write, None).await?;
            admission::validate(&write, None).await?;
            let mut new = old.copied();
            new.meta_mut().resource_version = None;
            let is_gone = decide(&**kind, &mut new, options, writer);
            let value = encode(&**kind, &*new)?;
            let before = unchanged(&**kind, &entry, &seen, &*old)?;
            if !is_gone && value == before {
                return Ok(Deleted::Marked(seen));
            }
            if writer.dry_run {
                let entry = unstored(key, value, entry.mod_revision);
                return Ok(if is_gone { Deleted::Gone(entry) } else { Deleted::Marked(entry) });
            }
            let mut compare = vec![Compare::unchanged(key.clone(), entry.mod_revision)];
            let mut then = vec![if is_gone {
                Op::delete(key.clone())
            } else {
                Op::put(key.clone(), to_store(&**kind, value.clone()).await?)
            }];
            if is_gone {
                let beside = self.beside(&**kind, None, Some(&*old), writer)?;
                compare.extend(beside.compare);
                then.extend(beside.then);
            }
            let result = self.commit(Txn { compare, then, or_else: Vec::new() }).await?;
            if result.succeeded {
                self.take_over(resource);
            }
            if result.succeeded && is_gone {
                return Ok(Deleted::Gone(unstored(key, value, result.revision)));
            }
            if result.succeeded {
                return Ok(Deleted::Marked(one_seen_as(&**kind, first_put(&result)?).await?));
            }
        }
        Err(exhausted())
    }

    /// Deletes all of `entries`, which a list selected; those that are gone meanwhile count as deleted.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn delete_all(
        &self,
        kind: &Arc<dyn KindOps>,
        entries: &[Arc<Entry>],
        options: &DeleteOptions,
        writer: &Writer,
    ) -> Result<()> {
        for entry in entries {
            let header = stored::Header::of(entry);
            match self.delete(kind, (&header.namespace, &header.name), options, writer).await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    /// The revision the whole store stands at.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_on_the_finalizers() {
        for (policy, orphans, before, after) in [
            (None, false, vec!["orphan", "x"], vec!["orphan", "x"]),
            (None, true, vec!["x"], vec!["x", "orphan"]),
            (None, true, vec!["foregroundDeletion"], vec!["foregroundDeletion"]),
            (Some("Background"), true, vec!["orphan", "x"], vec!["x"]),
            (Some("Orphan"), false, vec!["foregroundDeletion"], vec!["orphan"]),
            (Some("Foreground"), false, vec![], vec!["foregroundDeletion"]),
        ] {
            let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
            let mut meta = ObjectMeta { finalizers: Some(owned(before)), ..ObjectMeta::default() };
            let options = DeleteOptions { propagation_policy: policy.map(str::to_owned), ..DeleteOptions::default() };
            set_finalizers(&mut meta, &options, orphans);
            assert_eq!(meta.finalizers.unwrap_or_default(), owned(after), "{policy:?}");
        }
    }

    #[test]
    fn a_second_deletion_only_shortens_the_grace() {
        let time = |s| Time(jiff::Timestamp::from_second(s).unwrap());
        for (asked, seconds, at) in [(Some(10), 10, 980), (Some(40), 30, 1000), (None, 30, 1000), (Some(0), 0, 970)] {
            let mut meta = ObjectMeta {
                deletion_timestamp: Some(time(1000)),
                deletion_grace_period_seconds: Some(30),
                ..ObjectMeta::default()
            };
            shorten(&mut meta, asked);
            assert_eq!((meta.deletion_grace_period_seconds, meta.deletion_timestamp), (Some(seconds), Some(time(at))));
        }
    }
}
