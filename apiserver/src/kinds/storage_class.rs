//! Storage classes: how volumes of a name are made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::TopologySelectorTerm, storage::v1::StorageClass};

use super::{
    blank::{drop_blank, fill, list},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `storageclasses.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageClasses;

/// Marks the class that claims without one get.
pub const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The same mark, as it was called in Kubernetes' beta of it, and still counts.
const DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Provisioner", "Provisioner indicates the type of the provisioner."),
    cells::column("ReclaimPolicy", "What becomes of volumes of this class when they are released."),
    cells::column("VolumeBindingMode", "When claims of this class are bound and their volumes made."),
    cells::boolean("AllowVolumeExpansion", "AllowVolumeExpansion shows whether the storage class allow volume expand."),
    AGE,
];

/// A class has at most so many parameters, of so many bytes in all.
const MAX_PARAMETERS: usize = 512;
const PARAMETERS_SIZE: usize = 256 * 1024;

/// Parameters of a class, which the server does not understand but bounds.
pub(super) fn validate_parameters(errors: &mut Errors, path: &Path, parameters: Option<&BTreeMap<String, String>>) {
    let Some(parameters) = parameters else { return };
    if parameters.len() > MAX_PARAMETERS {
        return errors.push(Error::too_long(path, MAX_PARAMETERS));
    }
    if parameters.contains_key("") {
        errors.push(Error::invalid(path, "", "field can not be empty."));
    }
    if parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > PARAMETERS_SIZE {
        errors.push(Error::too_long(path, PARAMETERS_SIZE));
    }
}

/// The name of a provisioner or driver.
pub(super) fn validate_provisioner(errors: &mut Errors, path: &Path, provisioner: &str) {
    if provisioner.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        rules::label_name(errors, path, &provisioner.to_lowercase());
    }
}

fn validate_topologies(errors: &mut Errors, path: &Path, terms: &[TopologySelectorTerm]) {
    type Values<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;
    let mut seen: Vec<Values<'_>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let at = path.index(i).child("matchLabelExpressions");
        let mut keys = Values::new();
        for (j, expression) in list(&term.match_label_expressions).iter().enumerate() {
            let at = at.index(j);
            if expression.values.is_empty() {
                errors.push(Error::required(&at.child("values"), ""));
            }
            let mut values = BTreeSet::new();
            for (k, value) in expression.values.iter().enumerate() {
                if !values.insert(value.as_str()) {
                    errors.push(Error::duplicate(&at.child("values").index(k), value.as_str()));
                }
            }
            rules::label_name(errors, &at.child("key"), &expression.key);
            if keys.insert(&expression.key, values).is_some() {
                errors.push(Error::duplicate(&at.child("key"), expression.key.as_str()));
            }
        }
        // Kubernetes compares with as many empty terms as there are terms, so that an empty one is always a repetition.
        if keys.is_empty() || seen.contains(&keys) {
            errors.push(Error::duplicate(&at, ""));
        }
        seen.push(keys);
    }
}

impl Strategy for StorageClasses {
    type Object = StorageClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "storageclasses")
    }

    fn default(&self, object: &mut StorageClass) {
        drop_blank(&mut object.parameters);
        drop_blank(&mut object.mount_options);
        drop_blank(&mut object.allowed_topologies);
        fill(&mut object.reclaim_policy, "Delete".to_owned());
        fill(&mut object.volume_binding_mode, "Immediate".to_owned());
    }

    fn validate(&self, object: &StorageClass) -> Errors {
        let mut errors = Errors::new();
        validate_provisioner(&mut errors, &Path::new("provisioner"), &object.provisioner);
        validate_parameters(&mut errors, &Path::new("parameters"), object.parameters.as_ref());
        if let Some(policy) = object.reclaim_policy.as_ref().filter(|policy| !policy.is_empty()) {
            rules::known_word(&mut errors, &Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        match &object.volume_binding_mode {
            None => errors.push(Error::required(&Path::new("volumeBindingMode"), "")),
            Some(mode) => {
                let known = &["Immediate", "WaitForFirstConsumer"];
                rules::known_word(&mut errors, &Path::new("volumeBindingMode"), mode, known);
            }
        }
        let topologies = list(&object.allowed_topologies);
        validate_topologies(&mut errors, &Path::new("allowedTopologies"), topologies);
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> Errors {
        let mut errors = self.validate(new);
        rules::immutable(&mut errors, &Path::new("parameters"), &new.parameters, &old.parameters);
        rules::immutable(&mut errors, &Path::new("provisioner"), &new.provisioner, &old.provisioner);
        rules::immutable(&mut errors, &Path::new("reclaimPolicy"), &new.reclaim_policy, &old.reclaim_policy);
        let at = Path::new("volumeBindingMode");
        rules::immutable(&mut errors, &at, &new.volume_binding_mode, &old.volume_binding_mode);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &StorageClass, now: Timestamp) -> Vec<serde_json::Value> {
        let is_beta = object.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(DEFAULT_BETA));
        let mark = if is_beta { DEFAULT_BETA } else { DEFAULT };
        vec![
            cells::marked_name(&object.metadata, mark),
            object.provisioner.as_str().into(),
            object.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            object.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            object.allow_volume_expansion.unwrap_or(false).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, refusals, row, shown};

    fn base() -> Value {
        json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk", "parameters": {"type": "ssd"}})
    }

    #[test]
    fn faults_are_named() {
        let topologies = |terms: Value| json!({"allowedTopologies": terms});
        let expression = json!({"key": "zone", "values": ["a", "a"]});
        let patches = [
            json!({"provisioner": "", "reclaimPolicy": "Recycle", "volumeBindingMode": "Later"}),
            json!({"provisioner": "a b", "parameters": {"": "x"}}),
            topologies(json!([{"matchLabelExpressions": [expression, {"key": "zone", "values": []}]}, {}])),
        ];
        let text = faults(&StorageClasses, &base(), &patches);
        for needle in [
            "provisioner: Required value",
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            "provisioner: Invalid value: \"a b\"",
            "parameters: Invalid value: \"\": field can not be empty.",
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
            "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn only_expansion_mount_options_and_topologies_may_change() {
        let patches = [
            json!({"allowVolumeExpansion": true, "mountOptions": ["ro"]}),
            json!({"provisioner": "x/y", "parameters": null, "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"}),
        ];
        assert_eq!(refusals(&StorageClasses, &base(), &patches).matches("field is immutable").count(), 4);
    }

    #[test]
    fn a_minimal_class_deletes_and_binds_at_once() {
        let text = shown(&StorageClasses, &created(&StorageClasses, &base()));
        assert!(text.contains("\"Delete\"") && text.contains("\"Immediate\""), "{text}");
    }

    #[test]
    fn the_default_class_is_marked() {
        let expected = "fast | example.com/disk | Delete | Immediate | false | <unknown>";
        assert_eq!(row(&StorageClasses, &base()), expected);
        let marked = json!({"metadata": {"name": "fast", "annotations": {DEFAULT: "true"}}, "provisioner": "p"});
        assert_eq!(row(&StorageClasses, &marked), "fast (default) | p | Delete | Immediate | false | <unknown>");
    }
}
