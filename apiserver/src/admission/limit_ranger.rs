//! Limit ranges: what containers of a namespace get when they say nothing, and the bounds of what they may say.

use std::collections::BTreeMap;

use coracle_proto::{
    pod_resources::{self, Amounts, amounts},
    quantity::Quantity,
};
use k8s_openapi::{
    api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Amounts larger than this are compared as whole numbers.
const MAX_MILLI: i64 = i64::MAX / 1000;

/// The namespace's limit ranges, if any is about this write.
fn ranges(write: &Write<'_>) -> Result<Vec<LimitRange>> {
    let is_meant = match (write.operation, write.subresource) {
        (Operation::Create, "") => write.is_of("", "pods") || write.is_of("", "persistentvolumeclaims"),
        (Operation::Update, "") => write.is_of("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => write.is_of("", "pods"),
        _ => false,
    };
    let is_leaving = write.old.is_some_and(|old| old.meta().deletion_timestamp.is_some());
    if !is_meant || is_leaving { Ok(Vec::new()) } else { write.registry.list_typed(write.namespace) }
}

fn items(ranges: &[LimitRange]) -> impl Iterator<Item = &LimitRangeItem> {
    ranges.iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| &spec.limits)
}

/// Fills in what pods' containers leave out.
pub(super) fn complete(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    for range in ranges(write)? {
        fill(&range, pod);
    }
    Ok(())
}

fn fill(range: &LimitRange, pod: &mut Pod) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(std::slice::from_ref(range)).filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else { return };
    let mut set = Vec::new();
    for container in &mut spec.containers {
        fill_container(container, "container", &requests, &limits, &mut set);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        fill_container(container, "init container", &requests, &limits, &mut set);
    }
    if !set.is_empty() {
        let text = format!("LimitRanger plugin set: {}", set.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

type List = BTreeMap<String, ApiQuantity>;

fn fill_container(container: &mut Container, what: &str, requests: &List, limits: &List, set: &mut Vec<String>) {
    let name = container.name.clone();
    let mut merge = |there: &mut Option<List>, defaults: &List, half: &str| {
        let missing: Vec<_> =
            defaults.iter().filter(|(key, _)| !there.as_ref().is_some_and(|list| list.contains_key(*key))).collect();
        if missing.is_empty() {
            return;
        }
        let keys: Vec<&str> = missing.iter().map(|(key, _)| key.as_str()).collect();
        set.push(format!("{} {half} for {what} {name}", keys.join(", ")));
        let list = there.get_or_insert_default();
        list.extend(missing.into_iter().map(|(key, amount)| (key.clone(), amount.clone())));
    };
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let resources = container.resources.get_or_insert_default();
    merge(&mut resources.requests, requests, "request");
    merge(&mut resources.limits, limits, "limit");
}

/// Refuses what is out of bounds, with everything that is.
pub(super) fn check(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let Some(object) = object.map(AnyObject::as_any) else { return Ok(()) };
    let ranges = ranges(write)?;
    for range in ranges {
        let range = std::slice::from_ref(&range);
        let faults = if let Some(pod) = object.downcast_ref::<Pod>() {
            pod_faults(range, pod)
        } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
            claim_faults(range, claim)
        } else {
            Vec::new()
        };
        match faults.as_slice() {
            [] => {}
            [only] => return Err(write.forbidden(only)),
            many => return Err(write.forbidden(&format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

fn pod_faults(ranges: &[LimitRange], pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let half = |list: Option<&ResourceRequirements>, of: fn(&ResourceRequirements) -> Option<&List>| {
        amounts(list.and_then(of))
    };
    let mut faults = Vec::new();
    for item in items(ranges) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let resources = container.resources.as_ref();
                    let requests = half(resources, |r| r.requests.as_ref());
                    let limits = half(resources, |r| r.limits.as_ref());
                    faults.extend(bound_faults(item, &requests, &limits));
                }
            }
            "Pod" => faults.extend(bound_faults(item, &pod_resources::requests(spec), &pod_resources::limits(spec))),
            _ => {}
        }
    }
    dedup(faults)
}

/// The same sentence is said once.
fn dedup(faults: Vec<String>) -> Vec<String> {
    let mut seen = Vec::new();
    for fault in faults {
        if !seen.contains(&fault) {
            seen.push(fault);
        }
    }
    seen
}

fn claim_faults(ranges: &[LimitRange], claim: &PersistentVolumeClaim) -> Vec<String> {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
    let mut faults = Vec::new();
    for item in items(ranges).filter(|item| item.type_ == "PersistentVolumeClaim") {
        for (name, bound) in amounts(item.min.as_ref()) {
            faults.extend(below(&item.type_, &name, bound, &requests, &Amounts::new()));
        }
        for (name, bound) in amounts(item.max.as_ref()) {
            let head = format!("maximum {name} usage per {} is {bound}", item.type_);
            match requests.get(&name) {
                None => faults.push(format!("{head}.  No request is specified")),
                Some(request) if is_more(*request, bound) => faults.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    dedup(faults)
}

fn bound_faults(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, bound) in amounts(item.min.as_ref()) {
        faults.extend(below(&item.type_, &name, bound, requests, limits));
    }
    for (name, bound) in amounts(item.max.as_ref()) {
        faults.extend(above(&item.type_, &name, bound, requests, limits));
    }
    for (name, bound) in amounts(item.max_limit_request_ratio.as_ref()) {
        faults.extend(too_far_apart(&item.type_, &name, bound, requests, limits));
    }
    faults
}

/// Compared in thousandths, or in wholes when thousandths would not fit.
fn is_more(a: Quantity, b: Quantity) -> bool {
    if a.value() <= MAX_MILLI && b.value() <= MAX_MILLI {
        a.milli_value() > b.milli_value()
    } else {
        a.value() > b.value()
    }
}

fn below(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {bound}");
    let Some(request) = requests.get(name) else { return Some(format!("{head}.  No request is specified")) };
    if is_more(bound, *request) {
        return Some(format!("{head}, but request is {request}"));
    }
    let limit = limits.get(name).filter(|limit| is_more(bound, **limit))?;
    Some(format!("{head}, but limit is {limit}"))
}

fn above(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {bound}");
    let Some(limit) = limits.get(name) else { return Some(format!("{head}.  No limit is specified")) };
    if is_more(*limit, bound) {
        return Some(format!("{head}, but limit is {limit}"));
    }
    let request = requests.get(name).filter(|request| is_more(**request, bound))?;
    Some(format!("{head}, but request is {request}"))
}

#[expect(clippy::cast_precision_loss, reason = "Kubernetes computes and prints the ratio as a double")]
fn too_far_apart(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {bound}");
    let given = |list: &Amounts| list.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = given(requests) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(limits) else { return Some(format!("{head}, but no limit is specified or limit is 0")) };
    let (limit, request) = if limit.value() <= MAX_MILLI && request.value() <= MAX_MILLI {
        (limit.milli_value(), request.milli_value())
    } else {
        (limit.value(), request.value())
    };
    let ratio = limit as f64 / request as f64;
    let is_over = if bound.value() <= MAX_MILLI {
        ratio * 1000.0 > bound.milli_value() as f64
    } else {
        ratio > bound.value() as f64
    };
    is_over.then(|| format!("{head}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests;
