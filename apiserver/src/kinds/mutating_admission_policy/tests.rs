//! MutatingAdmissionPolicies: faults and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::MutatingAdmissionPolicies;
use crate::kinds::testing::{faults, row};

#[test]
fn faults_are_named() {
    let base = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
        ]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/a', value: 'b'}]"}}],
        "reinvocationPolicy": "Never",
    }});
    let spec = |change: Value| json!({"spec": change});
    let config = json!({"expression": "Object{spec: Object.spec{replicas: 3}}"});
    let patches = [
        spec(json!({"mutations": []})),
        spec(json!({"mutations": [{"patchType": ""}, {"patchType": "MergePatch"}, {"patchType": "JSONPatch"}]})),
        spec(
            json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": config, "jsonPatch": {"expression": "[]"}}]}),
        ),
        spec(json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "'a'"}}]})),
        spec(json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "1"}}]})),
        spec(json!({"reinvocationPolicy": null, "failurePolicy": "Maybe", "matchConstraints": null})),
        spec(json!({"matchConstraints": {"resourceRules": [
            {"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
        ]}})),
    ];
    expect![[r#"
        {"spec":{"mutations":[]}}
            spec.mutations: Required value: mutations must contain at least one item
        {"spec":{"mutations":[{"patchType":""},{"patchType":"MergePatch"},{"patchType":"JSONPatch"}]}}
            spec.mutations[0].patchType: Required value
            spec.mutations[1].patchType: Unsupported value: "MergePatch": supported values: "ApplyConfiguration", "JSONPatch"
            spec.mutations[2].jsonPatch: Required value: must be specified when patchType is JSONPatch
        {"spec":{"mutations":[{"applyConfiguration":{"expression":"Object{spec: Object.spec{replicas: 3}}"},"jsonPatch":{"expression":"[]"},"patchType":"ApplyConfiguration"}]}}
            spec.mutations[0].jsonPatch: Invalid value: "{jsonPatch}": must not be specified when patchType is ApplyConfiguration
        {"spec":{"mutations":[{"jsonPatch":{"expression":"'a'"},"patchType":"JSONPatch"}]}}
            spec.mutations[0].jsonPatch.expression: Invalid value: "'a'": must evaluate to list(JSONPatch) but got string
        {"spec":{"mutations":[{"applyConfiguration":{"expression":"1"},"patchType":"ApplyConfiguration"}]}}
            spec.mutations[0].applyConfiguration.expression: Invalid value: "1": must evaluate to Object but got int
        {"spec":{"failurePolicy":"Maybe","matchConstraints":null,"reinvocationPolicy":null}}
            spec.failurePolicy: Unsupported value: "Maybe": supported values: "Fail", "Ignore"
            spec.matchConstraints: Required value
            spec.reinvocationPolicy: Required value
        {"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["DELETE"],"resources":["pods"]}]}}}
            spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"
    "#]].assert_eq(&faults(&MutatingAdmissionPolicies, &base, &patches));
    assert_eq!(row(&MutatingAdmissionPolicies, &base), "p | 1 | <unset> | <unknown>");
}
