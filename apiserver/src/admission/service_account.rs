//! A pod runs as a ServiceAccount, whose token it finds where clients look for it.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, LocalObjectReference,
    ObjectFieldSelector, Pod, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};

use super::Write;
use crate::{ops::AnyObject, registry::random_suffix, status_of::Result};

/// Where client libraries look for token, certificate and namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the token's volume is called, before its random letters.
const PREFIX: &str = "kube-api-access-";

/// The annotation of a pod that a node's agent made by itself and only shows.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// An hour, and seven seconds by which Kubernetes' own tokens of this kind are told from others.
const TOKEN_SECONDS: i64 = 3607;

fn volume(name: &str) -> Volume {
    let key = |key: &str| vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }];
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                expiration_seconds: Some(TOKEN_SECONDS),
                path: "token".to_owned(),
                audience: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: "kube-root-ca.crt".to_owned(),
                items: Some(key("ca.crt")),
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) }),
        ..Volume::default()
    }
}

/// Mounts the token where the container does not mount something else; true if it was mounted.
fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        read_only: Some(true),
        mount_path: MOUNT_PATH.to_owned(),
        ..VolumeMount::default()
    });
    true
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if !write.creates_pod() {
        return Ok(());
    }
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return Ok(());
    }
    let spec = pod.spec.get_or_insert_default();
    if spec.service_account_name.as_ref().is_none_or(String::is_empty) {
        spec.service_account_name = Some("default".to_owned());
    }
    let account = spec.service_account_name.clone().unwrap_or_default();
    spec.service_account = Some(account.clone());
    let namespace = write.namespace;
    let Some(account) = write.registry.get_typed::<ServiceAccount>(namespace, &account)? else {
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
        return Err(write.forbidden(&why));
    };
    let mounts = spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
    if mounts {
        let volumes = spec.volumes.get_or_insert_default();
        // Asked again about a pod, the volume is the one of the first time.
        let there = volumes.iter().find(|volume| volume.name.starts_with(PREFIX)).map(|volume| volume.name.clone());
        let is_new = there.is_none();
        let name = there.unwrap_or_else(|| format!("{PREFIX}{}", random_suffix()));
        let mut is_used = false;
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            is_used |= mount(container, &name);
        }
        if is_used && is_new {
            volumes.push(volume(&name));
        }
    }
    let own = spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty());
    if let Some(secrets) = account.image_pull_secrets.filter(|_| !own) {
        let reference = |secret: LocalObjectReference| LocalObjectReference { name: secret.name };
        spec.image_pull_secrets = Some(secrets.into_iter().map(reference).collect());
    }
    Ok(())
}
