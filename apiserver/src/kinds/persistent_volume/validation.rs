//! What makes a volume invalid, and which changes of it are forbidden.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    quantity::Quantity as Amount,
};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, LocalVolumeSource, PersistentVolume, PersistentVolumeSpec, SecretReference,
};

use crate::kinds::{
    affinity,
    blank::{list, text},
    difference, drivers,
    pod_spec::volumes::{validate_host_path, validate_nfs},
    resources, rules, volume_access,
};

/// The names of the sources the volume has, in the order Kubernetes looks at them.
fn sources(spec: &PersistentVolumeSpec) -> Vec<&'static str> {
    let all = [
        (spec.host_path.is_some(), "hostPath"),
        (spec.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (spec.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (spec.glusterfs.is_some(), "glusterfs"),
        (spec.flocker.is_some(), "flocker"),
        (spec.nfs.is_some(), "nfs"),
        (spec.rbd.is_some(), "rbd"),
        (spec.quobyte.is_some(), "quobyte"),
        (spec.cephfs.is_some(), "cephFS"),
        (spec.iscsi.is_some(), "iscsi"),
        (spec.cinder.is_some(), "cinder"),
        (spec.fc.is_some(), "fc"),
        (spec.flex_volume.is_some(), "flexVolume"),
        (spec.azure_file.is_some(), "azureFile"),
        (spec.vsphere_volume.is_some(), "vsphereVolume"),
        (spec.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (spec.portworx_volume.is_some(), "portworxVolume"),
        (spec.azure_disk.is_some(), "azureDisk"),
        (spec.scale_io.is_some(), "scaleIO"),
        (spec.local.is_some(), "local"),
        (spec.storageos.is_some(), "storageos"),
        (spec.csi.is_some(), "csi"),
    ];
    all.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)).collect()
}

/// Everything wrong with a volume.
pub(super) fn validate(object: &PersistentVolume) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    let modes = list(&spec.access_modes);
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    volume_access::validate_modes(&mut errors, &at, modes);
    validate_capacity(&mut errors, &path.child("capacity"), &spec);
    let policy = text(&spec.persistent_volume_reclaim_policy);
    let at_policy = path.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        rules::known_word(&mut errors, &at_policy, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(node_affinity) = &spec.node_affinity {
        let at = path.child("nodeAffinity").child("required");
        match &node_affinity.required {
            Some(selector) => affinity::validate_node_selector(&mut errors, &at, selector),
            None => errors.push(Error::required(&at, "must specify required node constraints")),
        }
    }
    validate_source(&mut errors, &path, &spec, text(&object.metadata.name));
    let root = spec.host_path.as_ref().is_some_and(|source| is_root(&source.path));
    if root && policy == "Recycle" {
        errors.push(Error::forbidden(&at_policy, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    if let Some(class) = spec.storage_class_name.as_ref().filter(|class| !class.is_empty()) {
        volume_access::validate_class(&mut errors, &path.child("storageClassName"), class);
    }
    volume_access::validate_volume_mode(&mut errors, &path.child("volumeMode"), spec.volume_mode.as_ref());
    if let Some(class) = &spec.volume_attributes_class_name {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&at, "an empty string is disallowed"));
        } else {
            volume_access::validate_class(&mut errors, &at, class);
        }
        if spec.csi.is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&path.child("csi"), detail));
        }
    }
    errors
}

/// Whether a path comes down to `/`.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."))
}

fn validate_capacity(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(Error::not_supported(path, rules::json(&capacity), &["storage"]));
    }
    for (name, quantity) in &capacity {
        let at = path.key(name);
        resources::validate_basic(errors, &at, quantity);
        if let Some(amount) = resources::parse(quantity).filter(|amount| *amount <= Amount::ZERO) {
            errors.push(Error::invalid(&at, amount.to_string(), "must be greater than zero"));
        }
    }
}

fn validate_source(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, volume: &str) {
    let sources = sources(spec);
    let Some((first, others)) = sources.split_first() else {
        errors.push(Error::required(path, "must specify a volume type"));
        return;
    };
    let at = path.child(first);
    match *first {
        "hostPath" => spec.host_path.iter().for_each(|source| validate_host_path(errors, &at, source)),
        "nfs" => spec.nfs.iter().for_each(|source| validate_nfs(errors, &at, source)),
        "csi" => spec.csi.iter().for_each(|source| validate_csi(errors, &at, source)),
        "local" => {
            spec.local.iter().for_each(|source| validate_local(errors, &at, source));
            if spec.node_affinity.is_none() {
                let detail = "Local volume requires node affinity";
                errors.push(Error::required(&path.child("nodeAffinity"), detail));
            }
        }
        name => {
            // The one name that errors spell otherwise.
            let field = if name == "cephFS" { "cephfs" } else { name };
            let source = rules::json(spec).get(field).cloned().unwrap_or_default();
            drivers::validate(errors, &at, name, &source, Some(volume));
        }
    }
    for other in others {
        errors.push(Error::forbidden(&path.child(other), "may not specify more than 1 volume type"));
    }
}

fn validate_local(errors: &mut Errors, path: &Path, source: &LocalVolumeSource) {
    let at = path.child("path");
    if source.path.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        rules::no_backsteps(errors, &at, &source.path);
    }
}

fn validate_csi(errors: &mut Errors, path: &Path, source: &CSIPersistentVolumeSource) {
    rules::csi_driver(errors, &path.child("driver"), &source.driver);
    if source.volume_handle.is_empty() {
        errors.push(Error::required(&path.child("volumeHandle"), ""));
    }
    for (field, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            validate_secret(errors, &path.child(field), secret);
        }
    }
}

fn validate_secret(errors: &mut Errors, path: &Path, secret: &SecretReference) {
    for (field, value, rule) in [
        ("name", text(&secret.name), name::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("namespace", text(&secret.namespace), name::dns1123_label),
    ] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::messages(errors, &at, value, rule(value));
        }
    }
}

/// The spec with nothing but where the volume's data is.
fn source_alone(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

/// Labels of nodes that had other names before they were settled.
const SETTLED_LABELS: &[(&str, &str)] = &[
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Whether the nodes are meant as before, labels renamed to what they are called now.
fn is_same_affinity(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> bool {
    let (Some(now), Some(then)) = (&new.node_affinity, &old.node_affinity) else {
        return new.node_affinity == old.node_affinity;
    };
    let mut then = then.clone();
    if let (Some(now), Some(then)) = (&now.required, &mut then.required) {
        let renamed = now.node_selector_terms.iter().zip(&mut then.node_selector_terms);
        for (now, then) in renamed {
            let pairs = now.match_expressions.iter().flatten().zip(then.match_expressions.iter_mut().flatten());
            for (now, then) in pairs {
                if SETTLED_LABELS.contains(&(then.key.as_str(), now.key.as_str())) {
                    then.key.clone_from(&now.key);
                }
            }
        }
    }
    *now == then
}

/// Everything wrong with changing `old` into `new`, beside what is wrong with `new` itself.
pub(super) fn validate_update(errors: &mut Errors, new: &PersistentVolume, old: &PersistentVolume) {
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let (mut source, source_before) = (source_alone(&after), source_alone(&before));
    // The secret for expanding may be given later.
    if let (Some(now), Some(then)) = (&mut source.csi, &source_before.csi)
        && then.controller_expand_secret_ref.is_none()
    {
        now.controller_expand_secret_ref = None;
    }
    let path = Path::new("spec");
    if source != source_before {
        let difference = difference::between(&rules::json(&source_before), &rules::json(&source));
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.push(Error::forbidden(&path.child("persistentvolumesource"), &detail));
    }
    rules::immutable(errors, &Path::new("volumeMode"), &after.volume_mode, &before.volume_mode);
    if before.node_affinity.is_some() && !is_same_affinity(&after, &before) {
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.push(Error::invalid(&Path::new("nodeAffinity"), rules::json(&after.node_affinity), detail));
    }
    if before.volume_attributes_class_name.is_some() && after.volume_attributes_class_name.is_none() {
        let at = path.child("volumeAttributesClassName");
        errors.push(Error::forbidden(&at, "update from non-nil value to nil is forbidden"));
    }
}
