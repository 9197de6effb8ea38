//! Claims and ingresses that name no class get the cluster's default one; claims grow only where their class lets them.

use coracle_proto::quantity::Quantity;
use k8s_openapi::{
    api::{
        core::v1::PersistentVolumeClaim,
        networking::v1::{Ingress, IngressClass},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result};

const DEFAULT_STORAGE: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const DEFAULT_INGRESS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

/// What claims and ingresses named their class by before they had a field for it.
const OLD_STORAGE: &str = "volume.beta.kubernetes.io/storage-class";
const OLD_INGRESS: &str = "kubernetes.io/ingress.class";

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    meta.annotations.as_ref().and_then(|annotations| annotations.get(key))
}

/// The default class: the newest of those annotated as such, by name if they are of one age.
fn default_of<'a>(classes: impl Iterator<Item = &'a ObjectMeta>, keys: &[&str]) -> Option<String> {
    let is_default =
        |meta: &&ObjectMeta| keys.iter().any(|key| annotation(meta, key).map(String::as_str) == Some("true"));
    let mut found: Vec<&ObjectMeta> = classes.filter(is_default).collect();
    found.sort_by(|a, b| b.creation_timestamp.cmp(&a.creation_timestamp).then_with(|| a.name.cmp(&b.name)));
    found.first().and_then(|meta| meta.name.clone())
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if write.operation != Operation::Create || !write.subresource.is_empty() {
        return Ok(());
    }
    let Some(object) = object.map(AnyObject::as_any_mut) else { return Ok(()) };
    if let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() {
        let spec = claim.spec.get_or_insert_default();
        if annotation(&claim.metadata, OLD_STORAGE).is_none() && spec.storage_class_name.is_none() {
            let classes = write.registry.list_typed::<StorageClass>("")?;
            spec.storage_class_name = default_of(classes.iter().map(|class| &class.metadata), DEFAULT_STORAGE);
        }
    } else if let Some(ingress) = object.downcast_mut::<Ingress>() {
        let spec = ingress.spec.get_or_insert_default();
        if annotation(&ingress.metadata, OLD_INGRESS).is_none() && spec.ingress_class_name.is_none() {
            let classes = write.registry.list_typed::<IngressClass>("")?;
            spec.ingress_class_name = default_of(classes.iter().map(|class| &class.metadata), DEFAULT_INGRESS);
        }
    }
    Ok(())
}

fn class_of(claim: &PersistentVolumeClaim) -> String {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation(&claim.metadata, OLD_STORAGE).or(field).cloned().unwrap_or_default()
}

fn size_of(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|list| Quantity::try_from(list.get("storage")?).ok()).unwrap_or(Quantity::ZERO)
}

/// A claim that grows is bound, and its class can make volumes larger.
pub(super) fn check(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let claim = |object: &'_ dyn AnyObject| object.as_any().downcast_ref::<PersistentVolumeClaim>().cloned();
    let (Some(new), Some(old)) = (object.and_then(claim), write.old.and_then(claim)) else { return Ok(()) };
    if !write.subresource.is_empty() || size_of(&new) <= size_of(&old) {
        return Ok(());
    }
    if old.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err(write.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(&new);
    let known = if class.is_empty() || class != class_of(&old) {
        None
    } else {
        write.registry.get_typed::<StorageClass>("", &class)?
    };
    if known.and_then(|class| class.allow_volume_expansion) == Some(true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(write.forbidden(why))
}
