//! Flow schemas: which requests are of which priority level.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaStatus};

use super::{
    blank::{drop_blank, fill_number, items_mut, list, text},
    cells, flow_defaults, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `flowschemas.flowcontrol.apiserver.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowSchemas;

/// The precedence of a schema that says none.
const PRECEDENCE: i32 = 1000;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("PriorityLevel", "The name of the priority level that matching requests are of."),
    cells::column("MatchingPrecedence", "Schemas are tried in the order of this number, the lowest first."),
    cells::column("DistinguisherMethod", "What tells the flows of one schema apart."),
    AGE,
    cells::column("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
];

impl Strategy for FlowSchemas {
    type Object = FlowSchema;

    fn resource(&self) -> &'static Resource {
        super::row_of("flowcontrol.apiserver.k8s.io", "flowschemas")
    }

    fn default(&self, object: &mut FlowSchema) {
        let spec = object.spec.get_or_insert_default();
        fill_number(&mut spec.matching_precedence, PRECEDENCE);
        drop_blank(&mut spec.rules);
        for rule in items_mut(&mut spec.rules) {
            drop_blank(&mut rule.resource_rules);
            drop_blank(&mut rule.non_resource_rules);
            for resource in items_mut(&mut rule.resource_rules) {
                drop_blank(&mut resource.cluster_scope);
                // It is written out even when there is nothing in it.
                resource.namespaces.get_or_insert_default();
            }
        }
        drop_blank(&mut object.status.get_or_insert_default().conditions);
    }

    fn prepare_create(&self, object: &mut FlowSchema, _: &Context<'_>) {
        object.status = Some(FlowSchemaStatus::default());
    }

    fn prepare_update(&self, new: &mut FlowSchema, old: &FlowSchema, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut FlowSchema, old: &FlowSchema, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.clone_from(&old.metadata);
    }

    fn validate(&self, object: &FlowSchema) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let name = text(&object.metadata.name);
        let spec = object.spec.clone().unwrap_or_default();
        validation::validate_spec(&mut errors, &path, name, &spec);
        if flow_defaults::mandatory_schema(name).is_some_and(|fixed| fixed.spec.as_ref() != Some(&spec)) {
            let detail = format!("spec of '{name}' must equal the fixed value");
            errors.push(Error::invalid(&path, rules::json(&spec), &detail));
        }
        errors
    }

    fn validate_status(&self, new: &FlowSchema, _: &FlowSchema) -> Errors {
        let conditions = new.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
        rules::condition_types(conditions.iter().map(|condition| text(&condition.type_)))
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &FlowSchema, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let conditions = object.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
        let dangling = conditions.iter().find(|condition| text(&condition.type_) == "Dangling");
        vec![
            cells::name(&object.metadata),
            spec.priority_level_configuration.name.into(),
            spec.matching_precedence.unwrap_or(0).into(),
            spec.distinguisher_method.as_ref().map_or(cells::NONE, |method| method.type_.as_str()).into(),
            age(&object.metadata, now).into(),
            dangling.map_or("?", |condition| text(&condition.status)).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, row};

    fn base() -> Value {
        let rule = json!({
            "subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
        });
        json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "system"}, "rules": [rule]}})
    }

    #[test]
    fn faults_are_named() {
        let rule = |rule: Value| json!({"spec": {"rules": [rule]}});
        let subject = |subject: Value| rule(json!({"subjects": [subject]}));
        let patches = [
            json!({"spec": {"matchingPrecedence": -1, "priorityLevelConfiguration": {"name": ""}}}),
            json!({"spec": {"matchingPrecedence": 10001, "distinguisherMethod": {"type": "ByMood"}}}),
            json!({"spec": {"matchingPrecedence": 1}}),
            rule(json!({"subjects": []})),
            subject(json!({"kind": "Robot"})),
            subject(json!({"kind": "User", "group": {"name": "g"}})),
            subject(
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": ""}, "user": {"name": "u"}}),
            ),
            rule(json!({
                "subjects": [{"kind": "User", "user": {"name": ""}}],
                "resourceRules": [{"verbs": ["*", "get"], "apiGroups": ["*", "a"], "resources": [], "namespaces": ["_"]}],
                "nonResourceRules": [{"verbs": ["jump"], "nonResourceURLs": ["x", "/a b", "/a*"]}],
            })),
            json!({"metadata": {"name": "catch-all"}}),
        ];
        let text = faults(&FlowSchemas, &base(), &patches);
        for needle in [
            "spec.matchingPrecedence: Invalid value: -1: must be a positive value",
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
            "spec.distinguisherMethod.type: Unsupported value:",
            "only the schema named 'exempt' may have matchingPrecedence 1",
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\"",
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            "serviceAccount.namespace: Required value: must specify namespace for service account",
            "spec.rules[0].subjects[0].user.name: Required value",
            "resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            "resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other api groups",
            "resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            "resourceRules[0].namespaces[0]: Invalid value: \"_\": each member of this list must be '*' or a DNS-1123 label",
            "nonResourceRules[0].verbs: Unsupported value: [\"jump\"]",
            "nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
            "nonResourceURLs[1]: Invalid value: \"/a b\": must not contain white-space",
            "nonResourceURLs[2]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            "spec of 'catch-all' must equal the fixed value",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn a_row_says_whether_the_level_is_there() {
        let object = serde_json::to_value(created(&FlowSchemas, &base())).unwrap();
        assert_eq!(row(&FlowSchemas, &object), "f | system | 1000 | <none> | <unknown> | ?");
    }
}
