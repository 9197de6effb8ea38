//! The limits a pod has on what it takes of the disk, and which of them it exceeds.

use coracle_proto::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::usage::DiskUse;
use crate::pod::{is_sidecar, resources, spec};
use crate::volume;

const STORAGE: &str = "ephemeral-storage";

fn storage_limit(container: &Container) -> Option<Quantity> {
    let limit = container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?;
    limit.0.parse::<Quantity>().ok().filter(|q| q.value() > 0)
}

/// Whether anything of the pod on disk has a limit.
pub(super) fn any(pod: &Pod) -> bool {
    let on_disk = |v: &k8s_openapi::api::core::v1::Volume| {
        v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some() && e.medium.as_deref() != Some("Memory"))
    };
    volume::volumes(pod).iter().any(on_disk) || spec(pod).all().any(|c| storage_limit(c).is_some())
}

/// What of its own limits a pod exceeds: kubelet's name of the signal, and its words.
pub(super) fn exceeded(pod: &Pod, used: &DiskUse) -> Option<(&'static str, String)> {
    for volume in volume::volumes(pod) {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) else { continue };
        let bytes = used.volumes.get(&volume.name).copied().unwrap_or(0);
        let most = u64::try_from(resources::whole(limit)).unwrap_or(0);
        if most > 0 && bytes > most {
            let (name, limit) = (&volume.name, &limit.0);
            let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
            return Some(("emptydirfs.limit", message));
        }
    }
    let together: Vec<Quantity> = spec(pod)
        .containers()
        .iter()
        .chain(spec(pod).init_containers().iter().filter(|c| is_sidecar(c)))
        .filter_map(storage_limit)
        .collect();
    if !together.is_empty() {
        let limit: Quantity = together.into_iter().sum();
        if used.total() > u64::try_from(limit.value()).unwrap_or(0) {
            let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
            return Some(("ephemeralpodfs.limit", message));
        }
    }
    spec(pod).containers().iter().find_map(|container| {
        let limit = storage_limit(container)?;
        let bytes = used.containers.get(&container.name).copied().unwrap_or(0);
        let name = &container.name;
        (bytes > u64::try_from(limit.value()).unwrap_or(0))
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
            .map(|message| ("ephemeralcontainerfs.limit", message))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    fn used(containers: &[(&str, u64)], volumes: &[(&str, u64)]) -> DiskUse {
        let map = |list: &[(&str, u64)]| list.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect();
        DiskUse { containers: map(containers), volumes: map(volumes), ..DiskUse::default() }
    }

    #[test]
    fn limits_are_named_in_kubelets_words() {
        let volume =
            pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}));
        assert!(any(&volume));
        assert_eq!(exceeded(&volume, &used(&[], &[("v", 1 << 20)])), None);
        let told = |pod: &Pod, used: &DiskUse| {
            let (signal, message) = exceeded(pod, used).unwrap();
            format!("{signal}: {message}")
        };
        assert_eq!(
            told(&volume, &used(&[], &[("v", (1 << 20) + 1)])),
            "emptydirfs.limit: Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
        );
        let limit = |n: &str| json!({"name": n, "resources": {"limits": {"ephemeral-storage": "1Mi"}}});
        let both = pod(json!({"containers": [limit("a"), limit("b")]}));
        assert_eq!(
            told(&both, &used(&[("a", 3 << 20)], &[])),
            "ephemeralpodfs.limit: Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
        );
        assert_eq!(
            told(&both, &used(&[("b", (1 << 20) + 1)], &[])),
            "ephemeralcontainerfs.limit: Container b exceeded its local ephemeral storage limit \"1Mi\". "
        );
        let memory = json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}});
        assert!(!any(&pod(json!({"containers": [{"name": "a"}], "volumes": [memory]}))));
    }
}
