//! Runtime classes: how a pod's containers are run.

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Toleration, node::v1::RuntimeClass};

use super::{
    blank::{drop_blank, list},
    cells, resources, rules, tolerations,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `runtimeclasses.node.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClasses;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Handler", "Handler specifies the underlying runtime and configuration that the CRI will use."),
    AGE,
];

fn validate_tolerations(errors: &mut Errors, path: &Path, given: &[Toleration]) {
    tolerations::validate(errors, path, given);
    let key = |toleration: &Toleration| Toleration { toleration_seconds: None, ..toleration.clone() };
    for (i, toleration) in given.iter().enumerate() {
        if given.iter().take(i).any(|before| key(before) == key(toleration)) {
            errors.push(Error::duplicate(&path.index(i), rules::json(toleration)));
        }
    }
}

impl Strategy for RuntimeClasses {
    type Object = RuntimeClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("node.k8s.io", "runtimeclasses")
    }

    fn default(&self, object: &mut RuntimeClass) {
        if let Some(fixed) = object.overhead.as_mut().and_then(|overhead| overhead.pod_fixed.as_mut()) {
            resources::canonical(fixed);
        }
        if let Some(scheduling) = &mut object.scheduling {
            drop_blank(&mut scheduling.node_selector);
            drop_blank(&mut scheduling.tolerations);
        }
    }

    fn validate(&self, object: &RuntimeClass) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("handler");
        if object.handler.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::messages(&mut errors, &at, &object.handler, name::dns1123_label(&object.handler));
        }
        if let Some(fixed) = object.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
            let at = Path::new("overhead").child("limits");
            resources::validate_list(&mut errors, &at, fixed, resources::Holder::Container);
        }
        if let Some(scheduling) = &object.scheduling {
            let path = Path::new("scheduling");
            rules::labels(&mut errors, &path.child("nodeSelector"), scheduling.node_selector.as_ref());
            validate_tolerations(&mut errors, &path.child("tolerations"), list(&scheduling.tolerations));
        }
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> Errors {
        let mut errors = self.validate(new);
        rules::immutable(&mut errors, &Path::new("handler"), &new.handler, &old.handler);
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &RuntimeClass, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), object.handler.as_str().into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    fn base() -> Value {
        json!({"metadata": {"name": "gvisor"}, "handler": "runsc"})
    }

    #[test]
    fn faults_are_named() {
        let toleration = json!({"key": "a", "operator": "Exists"});
        let patches = [
            json!({"handler": ""}),
            json!({"handler": "A"}),
            json!({"overhead": {"podFixed": {"cpu": "-1"}}}),
            json!({"scheduling": {"nodeSelector": {"a b": "c"}, "tolerations": [toleration, toleration]}}),
        ];
        let text = faults(&RuntimeClasses, &base(), &patches);
        for needle in [
            "handler: Required value",
            "handler: Invalid value: \"A\"",
            "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "scheduling.nodeSelector: Invalid value: \"a b\"",
            "scheduling.tolerations[1]: Duplicate value:",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn the_handler_stays() {
        let text = refusals(&RuntimeClasses, &base(), &[json!({"handler": "kata"})]);
        assert!(text.contains("handler: Invalid value: \"kata\": field is immutable"), "{text}");
        assert_eq!(row(&RuntimeClasses, &base()), "gvisor | runsc | <unknown>");
    }
}
