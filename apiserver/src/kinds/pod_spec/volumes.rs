//! Volumes of a pod.

use k8s_openapi::api::core::v1::Volume;

/// The names of the sources the volume has, as fields of the volume are called.
pub(super) fn sources(volume: &Volume) -> Vec<&'static str> {
    let all = [
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.cinder.is_some(), "cinder"),
        (volume.config_map.is_some(), "configMap"),
        (volume.csi.is_some(), "csi"),
        (volume.downward_api.is_some(), "downwardAPI"),
        (volume.empty_dir.is_some(), "emptyDir"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.flocker.is_some(), "flocker"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.host_path.is_some(), "hostPath"),
        (volume.image.is_some(), "image"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.nfs.is_some(), "nfs"),
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.projected.is_some(), "projected"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.rbd.is_some(), "rbd"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.secret.is_some(), "secret"),
        (volume.storageos.is_some(), "storageos"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
    ];
    all.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)).collect()
}

/// Whether the volume says where it comes from.
pub(super) fn has_source(volume: &Volume) -> bool {
    !sources(volume).is_empty()
}
