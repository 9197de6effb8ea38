//! Volumes of a pod.

use std::collections::BTreeMap;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ClusterTrustBundleProjection, ConfigMapVolumeSource, DownwardAPIVolumeFile, HostPathVolumeSource,
    ImageVolumeSource, KeyToPath, NFSVolumeSource, PersistentVolumeClaimTemplate, PodCertificateProjection,
    ProjectedVolumeSource, SecretVolumeSource, Volume, VolumeProjection,
};

use super::env;
use crate::kinds::{
    blank::{list, text},
    drivers, label_selector, persistent_volume_claim, resources, rules,
};

/// The names of the sources the volume has, as fields of the volume are called, in the order Kubernetes looks at them.
pub(super) fn sources(volume: &Volume) -> Vec<&'static str> {
    let all = [
        (volume.empty_dir.is_some(), "emptyDir"),
        (volume.host_path.is_some(), "hostPath"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.secret.is_some(), "secret"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.rbd.is_some(), "rbd"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.downward_api.is_some(), "downwardAPI"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.config_map.is_some(), "configMap"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.storageos.is_some(), "storageos"),
        (volume.projected.is_some(), "projected"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
    ];
    all.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)).collect()
}

/// The volumes that are well-formed, by name: what mounts may refer to.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a Volume>;

/// Everything wrong with the volumes of a pod; `pod` is the pod's name where it is known.
pub(super) fn validate<'a>(errors: &mut Errors, path: &Path, volumes: &'a [Volume], pod: &str) -> Known<'a> {
    let mut known = Known::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let mut own = Errors::new();
        validate_source(&mut own, &at, volume);
        if volume.name.is_empty() {
            own.push(Error::required(&at.child("name"), ""));
        } else {
            rules::messages(&mut own, &at.child("name"), &volume.name, name::dns1123_label(&volume.name));
        }
        if known.contains_key(volume.name.as_str()) {
            own.push(Error::duplicate(&at.child("name"), volume.name.as_str()));
        }
        if own.is_empty() {
            known.insert(&volume.name, volume);
        }
        errors.append(&mut own);
        if let Some(claim) = &volume.persistent_volume_claim
            && !pod.is_empty()
            && volumes.iter().any(|v| v.ephemeral.is_some() && claim.claim_name == format!("{pod}-{}", v.name))
        {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            let at = at.child("persistentVolumeClaim").child("claimName");
            errors.push(Error::invalid(&at, claim.claim_name.as_str(), detail));
        }
    }
    known
}

fn validate_source(errors: &mut Errors, path: &Path, volume: &Volume) {
    let sources = sources(volume);
    let Some((first, others)) = sources.split_first() else {
        errors.push(Error::required(path, "must specify a volume type"));
        return;
    };
    let at = path.child(first);
    match *first {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|s| s.size_limit.as_ref());
            let at = at.child("sizeLimit");
            if limit.and_then(|limit| resources::read(errors, &at, limit)).is_some_and(|limit| limit.is_negative()) {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(Error::forbidden(&at, detail));
            }
        }
        "hostPath" => volume.host_path.iter().for_each(|s| validate_host_path(errors, &at, s)),
        "gitRepo" => {
            if let Some(source) = &volume.git_repo {
                if source.repository.is_empty() {
                    errors.push(Error::required(&at.child("repository"), ""));
                }
                rules::descending_path(errors, &at.child("directory"), text(&source.directory));
            }
        }
        "secret" => volume.secret.iter().for_each(|s| validate_secret(errors, &at, s)),
        "configMap" => volume.config_map.iter().for_each(|s| validate_config_map(errors, &at, s)),
        "nfs" => volume.nfs.iter().for_each(|s| validate_nfs(errors, &at, s)),
        "persistentVolumeClaim" => {
            let is_named = volume.persistent_volume_claim.as_ref().is_some_and(|s| !s.claim_name.is_empty());
            must(errors, &at.child("claimName"), is_named);
        }
        "downwardAPI" => {
            if let Some(source) = &volume.downward_api {
                rules::file_mode(errors, &at.child("defaultMode"), source.default_mode);
                for file in list(&source.items) {
                    validate_downward_file(errors, &at, file);
                }
            }
        }
        "projected" => volume.projected.iter().for_each(|s| validate_projected(errors, &at, s)),
        "ephemeral" => {
            let at = at.child("volumeClaimTemplate");
            match volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref()) {
                Some(template) => validate_claim_template(errors, &at, template),
                None => errors.push(Error::required(&at, "")),
            }
        }
        "csi" => volume.csi.iter().for_each(|s| validate_csi(errors, &at, s)),
        "image" => volume.image.iter().for_each(|s| validate_image(errors, &at, s)),
        name => {
            let source = rules::json(volume).get(name).cloned().unwrap_or_default();
            drivers::validate(errors, &at, name, &source, None);
        }
    }
    for other in others {
        errors.push(Error::forbidden(&path.child(other), "may not specify more than 1 volume type"));
    }
}

fn must(errors: &mut Errors, path: &Path, is_there: bool) {
    if !is_there {
        errors.push(Error::required(path, ""));
    }
}

/// A template's metadata has labels and annotations, and nothing else.
fn validate_claim_template(errors: &mut Errors, path: &Path, template: &PersistentVolumeClaimTemplate) {
    if let Some(meta) = &template.metadata {
        let at = path.child("metadata");
        rules::annotations(errors, &at.child("annotations"), meta.annotations.as_ref());
        rules::labels(errors, &at.child("labels"), meta.labels.as_ref());
        let given = rules::json(meta);
        let given = given.as_object().into_iter().flatten();
        let others = given.filter(|(field, _)| !matches!(field.as_str(), "annotations" | "labels"));
        errors.extend(others.map(|(field, _)| Error::forbidden(&at.child(field), "cannot be set")));
    }
    persistent_volume_claim::validate_spec(errors, &path.child("spec"), &template.spec);
}

fn validate_csi(errors: &mut Errors, path: &Path, source: &CSIVolumeSource) {
    rules::csi_driver(errors, &path.child("driver"), &source.driver);
    if let Some(secret) = &source.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.push(Error::required(&path.child("nodePublishSecretRef").child("name"), ""));
        } else {
            // Kubernetes' path.
            rules::messages(errors, &path.child("name"), &secret.name, name::dns1123_subdomain(&secret.name));
        }
    }
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Everything wrong with a path of the node.
pub(in crate::kinds) fn validate_host_path(errors: &mut Errors, path: &Path, source: &HostPathVolumeSource) {
    if source.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
        return;
    }
    rules::no_backsteps(errors, &path.child("path"), &source.path);
    rules::known_word(errors, &path.child("type"), text(&source.type_), HOST_PATH_TYPES);
}

fn validate_secret(errors: &mut Errors, path: &Path, source: &SecretVolumeSource) {
    if text(&source.secret_name).is_empty() {
        errors.push(Error::required(&path.child("secretName"), ""));
    }
    rules::file_mode(errors, &path.child("defaultMode"), source.default_mode);
    for (i, item) in list(&source.items).iter().enumerate() {
        validate_item(errors, &path.child("items").index(i), item);
    }
}

fn validate_config_map(errors: &mut Errors, path: &Path, source: &ConfigMapVolumeSource) {
    if source.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    rules::file_mode(errors, &path.child("defaultMode"), source.default_mode);
    for (i, item) in list(&source.items).iter().enumerate() {
        validate_item(errors, &path.child("items").index(i), item);
    }
}

fn validate_item(errors: &mut Errors, path: &Path, item: &KeyToPath) {
    if item.key.is_empty() {
        errors.push(Error::required(&path.child("key"), ""));
    }
    if item.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    rules::unreserved_path(errors, &path.child("path"), &item.path);
    rules::file_mode(errors, &path.child("mode"), item.mode);
}

/// Everything wrong with a directory of an NFS server.
pub(in crate::kinds) fn validate_nfs(errors: &mut Errors, path: &Path, source: &NFSVolumeSource) {
    if source.server.is_empty() {
        errors.push(Error::required(&path.child("server"), ""));
    }
    if source.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    if !source.path.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), source.path.as_str(), "must be an absolute path"));
    }
}

fn validate_image(errors: &mut Errors, path: &Path, source: &ImageVolumeSource) {
    if text(&source.reference).is_empty() {
        errors.push(Error::required(&path.child("reference"), ""));
    }
    let policies = &["Always", "IfNotPresent", "Never"];
    rules::one_of(errors, &path.child("pullPolicy"), text(&source.pull_policy), policies);
}

fn validate_downward_file(errors: &mut Errors, path: &Path, file: &DownwardAPIVolumeFile) {
    if file.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    rules::unreserved_path(errors, &path.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::validate_field_ref(errors, &path.child("fieldRef"), field, env::VOLUME_FIELDS);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path, "resource", detail));
            }
        }
        (None, Some(resource)) => {
            let at = path.child("resourceFieldRef");
            env::validate_resource_ref(errors, &at, resource, env::Container::MustBeNamed);
        }
        (None, None) => errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    rules::file_mode(errors, &path.child("mode"), file.mode);
}

/// Shortest and longest life of a token that a volume may ask for, in seconds.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

fn validate_projected(errors: &mut Errors, path: &Path, source: &ProjectedVolumeSource) {
    rules::file_mode(errors, &path.child("defaultMode"), source.default_mode);
    let mut files = Vec::new();
    for (i, projection) in list(&source.sources).iter().enumerate() {
        let at = path.child("sources").index(i);
        validate_projection(errors, path, &at, projection, &mut files);
    }
}

fn validate_projection<'a>(
    errors: &mut Errors,
    volume: &Path,
    path: &Path,
    projection: &'a VolumeProjection,
    files: &mut Vec<&'a str>,
) {
    let mut claim = |errors: &mut Errors, file: &'a str, shown: &str| {
        if file.is_empty() {
            return;
        }
        if files.contains(&file) {
            errors.push(Error::invalid(volume, shown, "conflicting duplicate paths"));
        } else {
            files.push(file);
        }
    };
    let mut count = 0;
    let keys = [
        projection.secret.as_ref().map(|s| ("secret", &s.name, &s.items)),
        projection.config_map.as_ref().map(|s| ("configMap", &s.name, &s.items)),
    ];
    for (kind, name, items) in keys.into_iter().flatten() {
        count += 1;
        let at = path.child(kind);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        for (i, item) in list(items).iter().enumerate() {
            validate_item(errors, &at.child("items").index(i), item);
            claim(errors, &item.path, name);
        }
    }
    if let Some(source) = &projection.downward_api {
        count += 1;
        for file in list(&source.items) {
            validate_downward_file(errors, &path.child("downwardAPI"), file);
            claim(errors, &file.path, &file.path);
        }
    }
    if let Some(token) = &projection.service_account_token {
        count += 1;
        let at = path.child("serviceAccountToken").child("expirationSeconds");
        let seconds = token.expiration_seconds.unwrap_or(0);
        if seconds < TOKEN_SECONDS.0 {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > TOKEN_SECONDS.1 {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        if token.path.is_empty() {
            errors.push(Error::required(&volume.child("path"), ""));
        } else {
            rules::unreserved_path(errors, &volume.child("path"), &token.path);
        }
    }
    if let Some(bundle) = &projection.cluster_trust_bundle {
        count += 1;
        let at = path.child("clusterTrustBundle");
        validate_bundle(errors, &at, bundle);
        must(errors, &at.child("path"), !bundle.path.is_empty());
        rules::unreserved_path(errors, &at.child("path"), &bundle.path);
        claim(errors, &bundle.path, &bundle.path);
    }
    if let Some(certificate) = &projection.pod_certificate {
        count += 1;
        let at = path.child("podCertificate");
        validate_certificate(errors, &at, certificate);
        for (field, file) in [
            ("credentialBundlePath", text(&certificate.credential_bundle_path)),
            ("keyPath", text(&certificate.key_path)),
            ("certificateChainPath", text(&certificate.certificate_chain_path)),
        ] {
            rules::unreserved_path(errors, &at.child(field), file);
            claim(errors, file, file);
        }
    }
    if count > 1 {
        errors.push(Error::forbidden(path, "may not specify more than 1 volume type per source"));
    }
}

/// The certificates of one bundle, or of all that a signer has.
fn validate_bundle(errors: &mut Errors, path: &Path, bundle: &ClusterTrustBundleProjection) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, rules::json(bundle), "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                errors.push(Error::required(&at, "must be a valid object name"));
            }
            let wrong = name::dns1123_subdomain(name.rsplit_once(':').map_or(name.as_str(), |(_, rest)| rest));
            let told = wrong.iter().map(|why| format!("not a valid clustertrustbundlename: {why}"));
            errors.extend(told.map(|why| Error::invalid(&at, name.as_str(), &why)));
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(&path.child("labelSelector"), rules::json(selector), detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(Error::required(&path.child("signerName"), "must be a valid signer name"));
            }
            rules::signer_name(errors, &path.child("signerName"), signer);
            if let Some(selector) = &bundle.label_selector {
                label_selector::validate(errors, &path.child("labelSelector"), selector);
            }
        }
        (None, None) => errors.push(Error::required(path, "either name or signerName must be specified")),
    }
}

const KEY_TYPES: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];

/// The longest life of a pod's certificate in seconds: of Kubernetes' own signers, and of others.
const CERTIFICATE_SECONDS: (i32, i32) = (86_400, 7_862_400);

fn validate_certificate(errors: &mut Errors, path: &Path, certificate: &PodCertificateProjection) {
    rules::signer_name(errors, &path.child("signerName"), &certificate.signer_name);
    rules::known_word(errors, &path.child("keyType"), &certificate.key_type, KEY_TYPES);
    if let Some(seconds) = certificate.max_expiration_seconds {
        let at = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            errors.push(Error::invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        let is_own = certificate
            .signer_name
            .split('/')
            .next()
            .is_some_and(|host| host == "kubernetes.io" || host.ends_with(".kubernetes.io"));
        let most = if is_own { CERTIFICATE_SECONDS.0 } else { CERTIFICATE_SECONDS.1 };
        if seconds > most {
            let detail = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.push(Error::invalid(&at, seconds, &detail));
        }
    }
    let files = [&certificate.credential_bundle_path, &certificate.key_path, &certificate.certificate_chain_path];
    if files.into_iter().all(|file| text(file).is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(path, detail));
    }
}
