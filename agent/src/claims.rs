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
