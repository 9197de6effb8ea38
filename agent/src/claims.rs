//! The images of this node's pods, claimed in the image store, so that no other process with the same store (`coracle image
//! remove`, another node) takes layers from under containers. A claim is made before a container is, and taken back when its
//! pod's sandboxes are gone; an agent that finds claims of pods that are no more takes those back.

use std::collections::BTreeSet;
use std::error::Error as StdError;

use coracle_runtime::image::{self, ImageStore};

/// Who claims a pod's images. The mark tells nodes that share a store apart.
pub(crate) fn owner(mark: &str, uid: &str) -> String {
    format!("{mark}.{uid}")
}

/// Takes back the claims of one pod. What fails keeps an image too long, and no pod from going.
pub(crate) async fn release(images: &ImageStore, mark: &str, uid: &str) {
    if let Err(error) = images.claim(&owner(mark, uid), &BTreeSet::new()).await {
        tracing::warn!(uid, error = &error as &(dyn StdError + 'static), "the pod's images stay claimed");
    }
}

/// Takes back the claims of all of the node's pods but these.
pub(crate) async fn release_others(
    images: &ImageStore,
    mark: &str,
    keep: &BTreeSet<String>,
) -> Result<(), image::Error> {
    let keep: BTreeSet<String> = keep.iter().map(|uid| owner(mark, uid)).collect();
    let ours = owner(mark, "");
    for claimant in images.claims().await?.into_keys() {
        if claimant.starts_with(&ours) && !keep.contains(&claimant) {
            images.claim(&claimant, &BTreeSet::new()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coracle_runtime::image::{Digest, Limits, Registries, StoreConfig, Timeouts};

    use super::*;

    #[tokio::test]
    async fn claims_of_other_pods_and_other_nodes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            root: dir.path().to_owned(),
            registries: Registries::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        };
        let images = ImageStore::open(config).await.unwrap();
        let image = BTreeSet::from([Digest::of(b"image")]);
        for (mark, uid) in [("n1", "a"), ("n1", "b"), ("n1", "c"), ("n10", "d")] {
            images.claim(&owner(mark, uid), &image).await.unwrap();
        }
        release(&images, "n1", "a").await;
        release_others(&images, "n1", &BTreeSet::from(["b".to_owned()])).await.unwrap();
        let left: Vec<String> = images.claims().await.unwrap().into_keys().collect();
        assert_eq!(left, ["n1.b", "n10.d"]);
    }
}
