//! ValidatingAdmissionPolicyBindings: faults and rows.

use expect_test::expect;
use serde_json::json;

use super::ValidatingAdmissionPolicyBindings;
use crate::kinds::testing::{faults, row};

#[test]
fn faults_are_named() {
    let base = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let patches = [
        json!({"spec": {"policyName": ""}}),
        json!({"spec": {"policyName": "A"}}),
        json!({"spec": {"validationActions": []}}),
        json!({"spec": {"validationActions": ["Deny", "Deny", "Warn", "Shout"]}}),
        json!({"spec": {"paramRef": {"parameterNotFoundAction": "Shrug"}}}),
        json!({"spec": {"paramRef": {"name": "a/b", "selector": {}}}}),
        json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "!"}}}}}),
    ];
    expect![[r#"
        {"spec":{"policyName":""}}
            spec.policyName: Required value
        {"spec":{"policyName":"A"}}
            spec.policyName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"spec":{"validationActions":[]}}
            spec.validationActions: Required value: at least one validation action is required
        {"spec":{"validationActions":["Deny","Deny","Warn","Shout"]}}
            spec.validationActions[1]: Duplicate value: "Deny"
            spec.validationActions[3]: Unsupported value: "Shout": supported values: "Audit", "Deny", "Warn"
            spec.validationActions: Invalid value: ["Deny","Deny","Warn","Shout"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)
        {"spec":{"paramRef":{"parameterNotFoundAction":"Shrug"}}}
            spec.paramRef: Required value: one of name or selector must be specified
            spec.paramRef.parameterNotFoundAction: Unsupported value: "Shrug": supported values: "Deny", "Allow"
        {"spec":{"paramRef":{"name":"a/b","selector":{}}}}
            spec.paramRef.name: Invalid value: "a/b": may not contain '/'
            spec.paramRef.name: Forbidden: name and selector are mutually exclusive
            spec.paramRef.selector: Forbidden: name and selector are mutually exclusive
            spec.paramRef.parameterNotFoundAction: Required value
        {"spec":{"matchResources":{"namespaceSelector":{"matchLabels":{"a":"!"}}}}}
            spec.matchResources.namespaceSelector.matchLabels: Invalid value: "!": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
    "#]].assert_eq(&faults(&ValidatingAdmissionPolicyBindings, &base, &patches));
    assert_eq!(row(&ValidatingAdmissionPolicyBindings, &base), "b | p | <unset> | <unknown>");
    let with = |wanted| json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": wanted}});
    assert_eq!(row(&ValidatingAdmissionPolicyBindings, &with(json!({"name": "x"}))), "b | p | */x | <unknown>");
}
