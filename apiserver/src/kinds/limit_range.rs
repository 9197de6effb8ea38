//! LimitRanges: how much one pod, container or claim of a namespace may ask for, and what it gets when it does not say.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use super::{
    blank::drop_blank,
    cells,
    resources::{self, ResourceList},
    rules,
};
use crate::kind::{Column, Strategy};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    quantity::{Format, Quantity as Amount},
    resource::Resource,
};

/// The strategy of `limitranges`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRanges;

/// A container's default limit is the most it may have; its default request is the default limit, or the least.
fn default_item(item: &mut LimitRangeItem) {
    let lists =
        [&mut item.max, &mut item.min, &mut item.default, &mut item.default_request, &mut item.max_limit_request_ratio];
    for list in lists {
        drop_blank(list);
        list.iter_mut().for_each(resources::canonical);
    }
    if item.type_ != "Container" {
        return;
    }
    let limits = fill_from(item.default.take(), item.max.as_ref());
    let requests = fill_from(item.default_request.take(), Some(&limits));
    let requests = fill_from(Some(requests), item.min.as_ref());
    item.default = Some(limits).filter(|list| !list.is_empty());
    item.default_request = Some(requests).filter(|list| !list.is_empty());
}

fn fill_from(list: Option<ResourceList>, from: Option<&ResourceList>) -> ResourceList {
    let mut list = list.unwrap_or_default();
    for (name, quantity) in from.into_iter().flatten() {
        list.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    list
}

fn validate_type(errors: &mut Errors, path: &Path, word: &str) {
    let wrong = name::qualified_name(word);
    if !wrong.is_empty() {
        rules::messages(errors, path, word, wrong);
    } else if !word.contains('/') && !matches!(word, "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.push(Error::invalid(path, word, "must be a standard limit type or fully qualified"));
    }
}

/// One list of a limit, checked by its names.
fn validate_names(errors: &mut Errors, path: &Path, kind: &str, list: Option<&ResourceList>) {
    for (name, quantity) in list.into_iter().flatten() {
        let at = path.key(name);
        let _ = resources::read(errors, &at, quantity);
        match kind {
            "Pod" | "Container" => resources::validate_name(errors, &at, name, resources::Holder::Container),
            _ => resources::validate_any_name(errors, &at, name),
        }
    }
}

fn validate_item(errors: &mut Errors, path: &Path, item: &LimitRangeItem) {
    let kind = item.type_.as_str();
    validate_names(errors, &path.child("max"), kind, item.max.as_ref());
    validate_names(errors, &path.child("min"), kind, item.min.as_ref());
    let defaults = [("default", &item.default), ("defaultRequest", &item.default_request)];
    for (field, list) in defaults {
        let at = path.child(field);
        if kind != "Pod" {
            validate_names(errors, &at, kind, list.as_ref());
        } else if list.as_ref().is_some_and(|list| !list.is_empty()) {
            errors.push(Error::forbidden(&at, "may not be specified when `type` is 'Pod'"));
        }
    }
    let has_storage = |list: &Option<ResourceList>| list.as_ref().is_some_and(|list| list.contains_key("storage"));
    if kind == "PersistentVolumeClaim" && !has_storage(&item.min) && !has_storage(&item.max) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&path.child("limits"), detail));
    }
    validate_names(errors, &path.child("maxLimitRequestRatio"), kind, item.max_limit_request_ratio.as_ref());
    let lists = [&item.max, &item.min, &item.default, &item.default_request, &item.max_limit_request_ratio].into_iter();
    let names: BTreeSet<&String> = lists.flatten().flat_map(|list| list.keys()).collect();
    for name in names {
        validate_order(errors, path, item, name);
    }
}

/// min ≤ default request ≤ default ≤ max, of one resource.
fn validate_order(errors: &mut Errors, path: &Path, item: &LimitRangeItem, name: &str) {
    let of = |list: &Option<ResourceList>| list.as_ref().and_then(|list| list.get(name)).and_then(resources::parse);
    let is_pod = item.type_ == "Pod";
    let (least, most, ratio) = (of(&item.min), of(&item.max), of(&item.max_limit_request_ratio));
    let (limit, request) = if is_pod { (None, None) } else { (of(&item.default), of(&item.default_request)) };
    let mut at_most = |field: &str, shown: Amount, a: Option<Amount>, b: Option<Amount>, words: (&str, &str)| {
        if let (Some(a), Some(b)) = (a, b)
            && a > b
        {
            let detail = format!("{} {a} is greater than {} {b}", words.0, words.1);
            errors.push(Error::invalid(&path.child(field).key(name), shown.to_string(), &detail));
        }
    };
    let shown = |amount: Option<Amount>| amount.unwrap_or(Amount::ZERO);
    at_most("min", shown(least), least, most, ("min value", "max value"));
    at_most("defaultRequest", shown(request), least, request, ("min value", "default request value"));
    at_most("defaultRequest", shown(request), request, most, ("default request value", "max value"));
    at_most("defaultRequest", shown(request), request, limit, ("default request value", "default limit value"));
    at_most("default", shown(least), least, limit, ("min value", "default value"));
    at_most("default", shown(most), limit, most, ("default value", "max value"));
    if let Some(ratio) = ratio {
        validate_ratio(errors, &path.child("maxLimitRequestRatio").key(name), ratio, least.zip(most));
    }
    if let (Some(limit), Some(request)) = (limit, request)
        && !resources::may_be_overcommitted(name)
        && limit != request
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.push(Error::invalid(&path.child("defaultRequest").key(name), request.to_string(), &detail));
    }
}

fn validate_ratio(errors: &mut Errors, path: &Path, ratio: Amount, between: Option<(Amount, Amount)>) {
    if ratio < Amount::new(1, Format::DecimalSi) {
        errors.push(Error::invalid(path, ratio.to_string(), &format!("ratio {ratio} is less than 1")));
    }
    let Some((least, most)) = between else { return };
    #[expect(clippy::cast_precision_loss, reason = "Kubernetes reckons ratios in floating point, too")]
    let float = |amount: Amount| amount.milli_value() as f64 / 1000.0;
    let widest = float(most) / float(least);
    if float(ratio) > widest {
        let detail = format!("ratio {ratio} is greater than max/min = {widest:.6}");
        errors.push(Error::invalid(path, ratio.to_string(), &detail));
    }
}

impl Strategy for LimitRanges {
    type Object = LimitRange;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "limitranges")
    }

    fn default(&self, object: &mut LimitRange) {
        for item in &mut object.spec.get_or_insert_default().limits {
            default_item(item);
        }
    }

    fn columns(&self) -> &'static [Column] {
        cells::CREATED_AT
    }

    fn row(&self, object: &LimitRange, _: Timestamp) -> Vec<serde_json::Value> {
        cells::created_at(&object.metadata)
    }

    fn validate(&self, object: &LimitRange) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec").child("limits"));
        let mut seen = BTreeSet::new();
        for (i, item) in object.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let at = path.index(i);
            validate_type(&mut errors, &at.child("type"), &item.type_);
            if !seen.insert(&item.type_) {
                errors.push(Error::duplicate(&at.child("type"), item.type_.as_str()));
            }
            validate_item(&mut errors, &at, item);
        }
        errors
    }
}

#[cfg(test)]
mod tests;
