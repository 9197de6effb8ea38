//! ResourceQuotas are charged in the transaction that writes the object: nothing gets in above a quota, however many
//! write at once, and nothing is charged that was not written.

use coracle_proto::{
    pod_resources::{Amounts, add, amounts},
    quantity::Quantity,
    quota::{self, Counted},
    resource::Scope,
};
use coracle_store::{Compare, Entry, Op, Range};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, Service},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{Registry, beside::Beside};
use crate::{
    admission::{Operation, Write},
    ops::AnyObject,
    status_of::{self, Result},
    stored,
};

fn counted(object: &dyn AnyObject) -> Counted<'_> {
    let object = object.as_any();
    if let Some(pod) = object.downcast_ref::<Pod>() {
        Counted::Pod(pod)
    } else if let Some(service) = object.downcast_ref::<Service>() {
        Counted::Service(service)
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        Counted::Claim(claim)
    } else {
        Counted::Other
    }
}

/// Whether a write may use more than was used before.
fn is_charged(write: &Write<'_>, object: &dyn AnyObject) -> bool {
    let resource = write.kind.resource();
    if resource.scope != Scope::Namespaced || resource.plural == "events" {
        return false;
    }
    match (write.operation, write.subresource, counted(object)) {
        (Operation::Create, "", _) => true,
        (Operation::Update, "", Counted::Service(_) | Counted::Claim(_)) => true,
        (Operation::Update, "resize", Counted::Pod(_)) => true,
        // It changes from the pods of one scope to those of the other.
        (Operation::Update, "", Counted::Pod(new)) => match write.old.map(counted) {
            Some(Counted::Pod(old)) => quota::is_terminating(new) != quota::is_terminating(old),
            _ => false,
        },
        (Operation::Update, "status", Counted::Claim(new)) => {
            let allocated =
                |claim: &PersistentVolumeClaim| claim.status.clone().unwrap_or_default().allocated_resources;
            match write.old.map(counted) {
                Some(Counted::Claim(old)) => allocated(old) != allocated(new),
                _ => false,
            }
        }
        _ => false,
    }
}

fn shown(list: &Amounts) -> String {
    list.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

fn masked(list: &Amounts, keep: impl Fn(&str) -> bool) -> Amounts {
    list.iter().filter(|(name, _)| keep(name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// What the quota's `used` becomes by a write, `None` when it is not about it.
///
/// # Errors
/// Why the write is refused.
fn charge(
    write: &Write<'_>,
    quota: &ResourceQuota,
    object: &dyn AnyObject,
    now: jiff::Timestamp,
) -> Result<Option<Amounts>> {
    let resource = write.kind.resource();
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let (spec, status) = (quota.spec.clone().unwrap_or_default(), quota.status.clone().unwrap_or_default());
    let (hard, used) = (amounts(status.hard.as_ref()), amounts(status.used.as_ref()));
    let concerned = |name: &str| quota::concerns(resource.group, resource.plural, name);
    let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| concerned(name)).collect();
    if names.is_empty() || !quota::is_in_scope(&spec, counted(object)) {
        return Ok(None);
    }
    if let Counted::Pod(pod) = counted(object) {
        quota::check_constraints(names.iter().copied(), pod)
            .map_err(|why| write.forbidden(&format!("failed quota: {name}: {why}")))?;
    }
    if names.iter().any(|name| !used.contains_key(*name)) {
        let why = format!("status unknown for quota: {name}, resources: {}", names.join(","));
        return Err(write.forbidden(&why));
    }
    let usage = |object: &dyn AnyObject| quota::usage(resource.group, resource.plural, counted(object), now);
    let mut delta = usage(object);
    if let Some(old) = write.old.filter(|old| is_counted_before(&spec, *old)) {
        let before = usage(old);
        for (name, amount) in &mut delta {
            let more = *amount - before.get(name).copied().unwrap_or(Quantity::ZERO);
            *amount = if more.is_negative() { Quantity::ZERO } else { more };
        }
    }
    let requested = masked(&delta, |name| hard.contains_key(name) && !delta.get(name).is_none_or(|a| a.is_zero()));
    if requested.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    add(&mut total, &requested);
    let is_over =
        |name: &str| requested.contains_key(name) && hard.get(name).is_some_and(|most| total.get(name) > Some(most));
    let exceeded = masked(&requested, is_over);
    if !exceeded.is_empty() && write.subresource != "status" {
        let of = |list: &Amounts| shown(&masked(list, |name| exceeded.contains_key(name)));
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&exceeded),
            of(&used),
            of(&hard)
        );
        return Err(write.forbidden(&why));
    }
    Ok(Some(total))
}

fn is_counted_before(spec: &ResourceQuotaSpec, old: &dyn AnyObject) -> bool {
    quota::is_in_scope(spec, counted(old))
}

impl Registry {
    /// What goes with writing the object: each quota that it uses more of, as it was seen, with that added.
    ///
    /// # Errors
    /// 403 when a quota would be exceeded, or cannot be told to be kept.
    pub(super) fn charge(&self, write: &Write<'_>, object: &dyn AnyObject, now: jiff::Timestamp) -> Result<Beside> {
        let mut beside = Beside::default();
        if !is_charged(write, object) {
            return Ok(beside);
        }
        let range = Range::prefix(stored::prefix("resourcequotas", write.namespace));
        let found = self.store.range(&range).map_err(|error| status_of::store(&error))?;
        for entry in &found.entries {
            let mut quota: ResourceQuota = read(entry)?;
            let Some(used) = charge(write, &quota, object, now)? else { continue };
            let used = used.into_iter().map(|(name, amount)| (name, ApiQuantity::from(amount))).collect();
            quota.status.get_or_insert_default().used = Some(used);
            let value =
                serde_json::to_vec(&quota).map_err(|error| status_of::broken("an object cannot be encoded", &error))?;
            beside.compare.push(Compare::unchanged(entry.key.clone(), entry.mod_revision));
            beside.then.push(Op::put(entry.key.clone(), value));
        }
        Ok(beside)
    }
}

fn read(entry: &Entry) -> Result<ResourceQuota> {
    serde_json::from_slice(&entry.value).map_err(|error| status_of::broken("a stored object cannot be read", &error))
}
