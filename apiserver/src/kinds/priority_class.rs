//! Priority classes: names for how important a pod is.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{
    blank::{drop_blank, fill, text},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `priorityclasses.scheduling.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriorityClasses;

/// The classes that every cluster has: name, value, what it is for.
pub const SYSTEM: &[(&str, i32, &str)] = &[
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The most that a class of a user's own may be worth.
const HIGHEST: i32 = 1_000_000_000;

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Value", "The integer value of this priority class."),
    cells::boolean("Global-Default", "Whether pods without a class are of this one."),
    AGE,
    cells::column("PreemptionPolicy", "PreemptionPolicy is the Policy for preempting pods with lower priority."),
];

/// Why an object is not the system's class of its name.
fn not_a_system_class(object: &PriorityClass) -> Option<String> {
    let name = text(&object.metadata.name);
    let Some((_, value, _)) = SYSTEM.iter().find(|(known, ..)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if object.value.unwrap_or(0) != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    object.global_default.unwrap_or(false).then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

impl Strategy for PriorityClasses {
    type Object = PriorityClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("scheduling.k8s.io", "priorityclasses")
    }

    fn default(&self, object: &mut PriorityClass) {
        object.value.get_or_insert_default();
        drop_blank(&mut object.global_default);
        drop_blank(&mut object.description);
        fill(&mut object.preemption_policy, "PreemptLowerPriority".to_owned());
    }

    fn validate(&self, object: &PriorityClass) -> Errors {
        let mut errors = Errors::new();
        if text(&object.metadata.name).starts_with("system-") {
            if let Some(why) = not_a_system_class(object) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.push(Error::forbidden(&Path::new("metadata").child("name"), &detail));
            }
        } else if object.value.unwrap_or(0) > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(Error::forbidden(&Path::new("value"), &detail));
        }
        if let Some(policy) = &object.preemption_policy {
            rules::one_of(&mut errors, &Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        }
        errors
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> Errors {
        let mut errors = Errors::new();
        if new.value != old.value {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let at = Path::new("preemptionPolicy");
        rules::immutable(&mut errors, &at, &new.preemption_policy, &old.preemption_policy);
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &PriorityClass, now: Timestamp) -> Vec<serde_json::Value> {
        vec![
            cells::name(&object.metadata),
            object.value.unwrap_or(0).into(),
            object.global_default.unwrap_or(false).into(),
            age(&object.metadata, now).into(),
            text(&object.preemption_policy).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, refusals, row};

    fn base() -> Value {
        json!({"metadata": {"name": "high"}, "value": 1000})
    }

    #[test]
    fn faults_are_named() {
        let system = |value: i32, default: bool| json!({"metadata": {"name": "system-node-critical"}, "value": value, "globalDefault": default});
        let patches = [
            json!({"value": 1_000_000_001, "preemptionPolicy": "Sometimes"}),
            json!({"metadata": {"name": "system-mine"}}),
            system(5, false),
            system(2_000_001_000, true),
            system(2_000_001_000, false),
        ];
        let text = faults(&PriorityClasses, &base(), &patches);
        for needle in [
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            "preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"PreemptLowerPriority\", \"Never\"",
            "system use only. error: system-mine is not a known system priority class",
            "error: value of system-node-critical PriorityClass must be 2000001000",
            "error: globalDefault of system-node-critical PriorityClass must be false",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
        assert!(text.ends_with("\"value\":2000001000}\n"), "the last one is right\n{text}");
    }

    #[test]
    fn value_and_policy_stay() {
        let patches =
            [json!({"description": "x", "globalDefault": true}), json!({"value": 1, "preemptionPolicy": "Never"})];
        let text = refusals(&PriorityClasses, &base(), &patches);
        assert!(text.contains("value: Forbidden: may not be changed in an update."), "{text}");
        assert!(text.contains("preemptionPolicy: Invalid value: \"Never\": field is immutable"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn a_row_shows_the_policy_when_it_is_wide() {
        let object = serde_json::to_value(created(&PriorityClasses, &base())).unwrap();
        assert_eq!(row(&PriorityClasses, &object), "high | 1000 | false | <unknown> | PreemptLowerPriority");
    }
}
