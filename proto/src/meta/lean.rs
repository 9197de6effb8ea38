//! Metadata as programs need it that only watch.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Lean {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

/// Reads metadata without who owns which fields, for `#[serde(deserialize_with = "…")]`: `managedFields` is often half of
/// an object, and a tree of many small pieces when it is read.
///
/// Who writes an object back that was read like this leaves its owners as they are.
///
/// # Errors
/// As reading an [`ObjectMeta`].
pub fn lean<'de, D: Deserializer<'de>>(input: D) -> Result<ObjectMeta, D::Error> {
    let Lean {
        annotations,
        creation_timestamp,
        deletion_grace_period_seconds,
        deletion_timestamp,
        finalizers,
        generate_name,
        generation,
        labels,
        name,
        namespace,
        owner_references,
        resource_version,
        uid,
    } = Lean::deserialize(input)?;
    Ok(ObjectMeta {
        annotations,
        creation_timestamp,
        deletion_grace_period_seconds,
        deletion_timestamp,
        finalizers,
        generate_name,
        generation,
        labels,
        managed_fields: None,
        name,
        namespace,
        owner_references,
        resource_version,
        self_link: None,
        uid,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_but_the_owners_of_fields_is_read() {
        let mut all = json!({
            "annotations": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z", "deletionGracePeriodSeconds": 3,
            "deletionTimestamp": "2026-01-02T03:04:06Z", "finalizers": ["x/y"], "generateName": "n-", "generation": 4,
            "labels": {"l": "m"}, "name": "n", "namespace": "s",
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "u"}], "resourceVersion": "5",
            "uid": "v",
        });
        let plain: ObjectMeta = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&plain).unwrap(), all, "the sample is whole");
        all["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:a": {}}}]);
        assert_eq!(lean(all).unwrap(), plain);
        assert_eq!(lean(json!({})).unwrap(), ObjectMeta::default());
        assert!(lean(json!({"name": 1})).is_err());
    }
}
