//! Pods stay five minutes on a node that is not ready or not reachable, unless they say otherwise.

use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result};

const SECONDS: i64 = 300;

fn tolerates(tolerations: &[Toleration], key: &str) -> bool {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    tolerations.iter().any(|t| {
        let (has_key, effect) = (or_empty(&t.key), or_empty(&t.effect));
        (has_key == key || has_key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
    })
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    // An update too: who replaces a pod's tolerations need not repeat these, which cannot be taken away.
    let writes_pod = matches!(write.operation, Operation::Create | Operation::Update);
    if !writes_pod || !write.subresource.is_empty() || !write.is_of("", "pods") {
        return Ok(());
    }
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    let tolerations = pod.spec.get_or_insert_default().tolerations.get_or_insert_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerates(tolerations, key) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(SECONDS),
                ..Toleration::default()
            });
        }
    }
    Ok(())
}
