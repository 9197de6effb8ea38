//! Ingress classes: which controller looks after which Ingresses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};

use super::{
    blank::{drop_blank, fill, text},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `ingressclasses.networking.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngressClasses;

/// Marks the class that Ingresses without one get.
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The longest name of a controller.
const CONTROLLER_LENGTH: usize = 250;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Controller", "Controller that is responsible for handling this class"),
    cells::column("Parameters", "A reference to a resource with additional parameters"),
    AGE,
];

fn validate_parameters(errors: &mut Errors, path: &Path, parameters: &IngressClassParametersReference) {
    if let Some(group) = &parameters.api_group {
        rules::messages(errors, &path.child("apiGroup"), group, name::dns1123_subdomain(group));
    }
    for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
        rules::required_segment(errors, &path.child(field), value);
    }
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => errors.push(Error::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(given)) => rules::messages(errors, &at, given, name::dns1123_label(given)),
        (Some("Cluster"), Some(_)) => {
            errors.push(Error::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

impl Strategy for IngressClasses {
    type Object = IngressClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("networking.k8s.io", "ingressclasses")
    }

    fn default(&self, object: &mut IngressClass) {
        let spec = object.spec.get_or_insert_default();
        drop_blank(&mut spec.controller);
        if let Some(parameters) = &mut spec.parameters {
            fill(&mut parameters.scope, "Cluster".to_owned());
        }
    }

    fn validate(&self, object: &IngressClass) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        let (at, controller) = (path.child("controller"), text(&spec.controller));
        if controller.len() > CONTROLLER_LENGTH {
            errors.push(Error::too_long(&at, CONTROLLER_LENGTH));
        }
        rules::domain_prefixed_path(&mut errors, &at, controller);
        if let Some(parameters) = &spec.parameters {
            validate_parameters(&mut errors, &path.child("parameters"), parameters);
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> Errors {
        let mut errors = Errors::new();
        let controller = |object: &IngressClass| object.spec.as_ref().and_then(|spec| spec.controller.clone());
        let at = Path::new("spec").child("controller");
        rules::immutable(&mut errors, &at, &controller(new), &controller(old));
        errors.extend(self.validate(new));
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &IngressClass, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.as_ref().map_or_else(
            || cells::NONE.to_owned(),
            |parameters| match &parameters.api_group {
                Some(group) => format!("{}.{group}/{}", parameters.kind, parameters.name),
                None => format!("{}/{}", parameters.kind, parameters.name),
            },
        );
        vec![
            cells::marked_name(&object.metadata, DEFAULT),
            text(&spec.controller).into(),
            parameters.into(),
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
        json!({"metadata": {"name": "c"}, "spec": {"controller": "acme.io/foo"}})
    }

    #[test]
    fn faults_are_named() {
        let parameters = |value: Value| json!({"spec": {"parameters": value}});
        let patches = [
            json!({"spec": {"controller": ""}}),
            json!({"spec": {"controller": "foo"}}),
            json!({"spec": {"controller": "a.b/ä"}}),
            parameters(json!({"kind": "", "name": "a/b", "scope": "Namespace"})),
            parameters(json!({"kind": "k", "name": "n", "scope": "Cluster", "namespace": "x"})),
            parameters(json!({"kind": "k", "name": "n", "scope": "World"})),
        ];
        let text = faults(&IngressClasses, &base(), &patches);
        for needle in [
            "spec.controller: Required value\n",
            "spec.controller: Invalid value: \"foo\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            "spec.controller: Invalid value: \"ä\": Invalid path",
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
            "spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn the_controller_stays() {
        let text = refusals(&IngressClasses, &base(), &[json!({"spec": {"controller": "b.io/x"}})]);
        assert!(text.contains("spec.controller: Invalid value: \"b.io/x\": field is immutable"), "{text}");
    }

    #[test]
    fn parameters_are_of_the_cluster_unless_said_otherwise() {
        let parameters = json!({"metadata": {"name": "c"}, "spec": {"controller": "a.b/c", "parameters": {"kind": "k", "name": "n"}}});
        assert!(shown(&IngressClasses, &created(&IngressClasses, &parameters)).contains("\"scope\": \"Cluster\""));
    }

    #[test]
    fn the_default_class_is_marked() {
        let annotated = json!({"metadata": {"name": "c", "annotations": {DEFAULT: "true"}}, "spec": {"controller": "a.b/c", "parameters": {"apiGroup": "g", "kind": "k", "name": "n"}}});
        assert_eq!(row(&IngressClasses, &annotated), "c (default) | a.b/c | k.g/n | <unknown>");
    }
}
