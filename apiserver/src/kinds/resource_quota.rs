//! ResourceQuotas: how much all of a namespace may ask for together.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};

use super::{
    blank::drop_blank,
    cells,
    resources::{self, ResourceList},
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `resourcequotas`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceQuotas;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    cells::column(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the \
         node.",
    ),
    AGE,
];

impl Strategy for ResourceQuotas {
    type Object = ResourceQuota;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "resourcequotas")
    }

    fn default(&self, object: &mut ResourceQuota) {
        let spec = object.spec.get_or_insert_default();
        drop_blank(&mut spec.scopes);
        let status = object.status.get_or_insert_default();
        for list in [&mut spec.hard, &mut status.hard, &mut status.used] {
            drop_blank(list);
            list.iter_mut().for_each(resources::canonical);
        }
    }

    fn prepare_create(&self, object: &mut ResourceQuota, _: &Context<'_>) {
        object.status = Some(ResourceQuotaStatus::default());
    }

    fn prepare_update(&self, new: &mut ResourceQuota, old: &ResourceQuota, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut ResourceQuota, old: &ResourceQuota, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &ResourceQuota) -> Errors {
        let mut errors = Errors::new();
        validation::validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> Errors {
        let mut errors = self.validate(new);
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        validation::validate_scopes_stay(&mut errors, &new, &old);
        errors
    }

    fn validate_status(&self, new: &ResourceQuota, _: &ResourceQuota) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("status"));
        let status = new.status.clone().unwrap_or_default();
        validation::validate_amounts(&mut errors, &path.child("hard"), status.hard.as_ref());
        validation::validate_amounts(&mut errors, &path.child("used"), status.used.as_ref());
        errors
    }

    fn warnings(&self, object: &ResourceQuota) -> Vec<String> {
        let hard = object.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        ["cpu", "memory", "storage", "ephemeral-storage"].iter().filter_map(|name| inverted(&hard, name)).collect()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ResourceQuota, now: Timestamp) -> Vec<serde_json::Value> {
        let status = object.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, most) in status.hard.iter().flatten() {
            let taken = used.get(name).map_or("0", |quantity| quantity.0.as_str());
            let column = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{name}: {taken}/{}", most.0));
        }
        vec![
            cells::name(&object.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age(&object.metadata, now).into(),
        ]
    }
}

/// The warning about a resource of which more may be requested than the limits allow.
fn inverted(hard: &ResourceList, name: &str) -> Option<String> {
    let (long, limit) = (format!("requests.{name}"), format!("limits.{name}"));
    let is_bare = matches!(name, "cpu" | "memory") && !hard.contains_key(&long);
    let request = if is_bare { name.to_owned() } else { long };
    let (asked, most) = (hard.get(&request)?, hard.get(&limit)?);
    (resources::parse(asked)? > resources::parse(most)?)
        .then(|| format!("ResourceQuota {request} ({}) should be less than {limit} ({})", asked.0, most.0))
}

#[cfg(test)]
mod tests;
