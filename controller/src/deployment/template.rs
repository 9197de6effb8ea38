//! Telling pod templates apart: equality, and the hash that names a ReplicaSet.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that keeps the pods of one Deployment's ReplicaSets apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Letters and digits that form no words (Kubernetes' `SafeEncodeString`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether two templates ask for the same pods, the label that we add ourselves aside.
pub(crate) fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut metadata = template.metadata.take().unwrap_or_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    if metadata.labels.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
        metadata.labels = None;
    }
    template.metadata = Some(metadata);
    template
}

/// A short hash of a template and of how often that hash was taken already.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut bytes = serde_json::to_vec(&without_hash(template)).unwrap_or_default();
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    // FNV-1a, 32 bit (Fowler, Noll, Vo): it only has to be stable and short, not safe; collisions are counted.
    let number = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let letter = |digit: u8| ALPHABET.get(usize::from(digit) % ALPHABET.len()).copied().unwrap_or(b'b');
    number.to_string().bytes().map(|digit| char::from(letter(digit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: serde_json::Value) -> PodTemplateSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_hash_label_makes_no_difference_and_everything_else_does() {
        let plain = template(serde_json::json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}));
        let labels = serde_json::json!({"a": "b", "pod-template-hash": "xyz"});
        let hashed = template(serde_json::json!({"metadata": {"labels": labels}, "spec": {"containers": []}}));
        let other = template(serde_json::json!({"metadata": {"labels": {"a": "c"}}, "spec": {"containers": []}}));
        assert!(same(&plain, &hashed) && !same(&plain, &other));
        assert_eq!(hash(&plain, 0), hash(&hashed, 0));
        assert_ne!(hash(&plain, 0), hash(&other, 0));
        assert_ne!(hash(&plain, 0), hash(&plain, 1));
    }

    #[test]
    fn the_hash_fits_in_a_name() {
        let hash = hash(&PodTemplateSpec::default(), 0);
        assert!(!hash.is_empty() && hash.bytes().all(|b| ALPHABET.contains(&b)), "{hash}");
    }
}
