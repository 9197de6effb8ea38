//! ValidatingAdmissionPolicies: defaults, faults and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::ValidatingAdmissionPolicies;
use crate::kinds::testing::{created, faults, row, shown};

fn base() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]},
        ]},
        "validations": [{"expression": "object.spec.replicas < 5"}],
    }})
}

#[test]
fn what_is_left_out_is_filled_in() {
    expect![[r#"
        {
          "apiVersion": "admissionregistration.k8s.io/v1",
          "kind": "ValidatingAdmissionPolicy",
          "metadata": {
            "name": "p"
          },
          "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
              "matchPolicy": "Equivalent",
              "namespaceSelector": {},
              "objectSelector": {},
              "resourceRules": [
                {
                  "apiGroups": [
                    "apps"
                  ],
                  "apiVersions": [
                    "v1"
                  ],
                  "operations": [
                    "CREATE"
                  ],
                  "resources": [
                    "deployments"
                  ],
                  "scope": "*"
                }
              ]
            },
            "validations": [
              {
                "expression": "object.spec.replicas < 5"
              }
            ]
          },
          "status": {}
        }"#]]
    .assert_eq(&shown(&ValidatingAdmissionPolicies, &created(&ValidatingAdmissionPolicies, &base())));
    assert_eq!(row(&ValidatingAdmissionPolicies, &base()), "p | 1 | <unset> | <unknown>");
}

#[test]
fn faults_are_named() {
    let spec = |change: Value| json!({"spec": change});
    let patches = [
        spec(json!({"failurePolicy": "Maybe"})),
        spec(json!({"paramKind": {"apiVersion": "a/b/c", "kind": "9"}})),
        spec(json!({"paramKind": {}})),
        spec(json!({"matchConstraints": null})),
        spec(json!({"matchConstraints": {"resourceRules": [], "matchPolicy": "Close"}})),
        spec(json!({"validations": []})),
        spec(
            json!({"validations": [{"expression": " ", "message": " ", "messageExpression": " ", "reason": "Teapot"}]}),
        ),
        spec(json!({"validations": [{"expression": "object.x +", "message": "a\nb"}]})),
        spec(json!({"validations": [{"expression": "1", "messageExpression": "1"}]})),
        spec(json!({"validations": [{"expression": "params.x == 1"}]})),
        spec(
            json!({"validations": [{"expression": "variables.nine == 9 && variables.ten == 10"}], "variables": [{"name": "nine", "expression": "9"}]}),
        ),
        spec(
            json!({"variables": [{"name": "in", "expression": "1"}, {"name": "", "expression": ""}, {"name": "a", "expression": "variables.b"}]}),
        ),
        spec(
            json!({"matchConditions": [{"name": "a b", "expression": "true"}, {"name": "x", "expression": "1"}, {"name": "x", "expression": ""}]}),
        ),
        spec(
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}, {"key": "k", "valueExpression": ""}, {"key": "!", "valueExpression": "'a'"}]}),
        ),
    ];
    expect![[r#"
        {"spec":{"failurePolicy":"Maybe"}}
            spec.failurePolicy: Unsupported value: "Maybe": supported values: "Fail", "Ignore"
        {"spec":{"paramKind":{"apiVersion":"a/b/c","kind":"9"}}}
            spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
            spec.paramKind.kind: Invalid value: "9": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
        {"spec":{"paramKind":{}}}
            spec.paramKind.apiVersion: Required value
            spec.paramKind.kind: Required value
        {"spec":{"matchConstraints":null}}
            spec.matchConstraints: Required value
        {"spec":{"matchConstraints":{"matchPolicy":"Close","resourceRules":[]}}}
            spec.matchConstraints.matchPolicy: Unsupported value: "Close": supported values: "Equivalent", "Exact"
            spec.matchConstraints.resourceRules: Required value
        {"spec":{"validations":[]}}
            spec.validations: Required value: validations or auditAnnotations must contain at least one item
            spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item
        {"spec":{"validations":[{"expression":" ","message":" ","messageExpression":" ","reason":"Teapot"}]}}
            spec.validations[0].expression: Required value: expression is not specified
            spec.validations[0].messageExpression: Invalid value: " ": must be non-empty if specified
            spec.validations[0].message: Invalid value: " ": must be non-empty if specified
            spec.validations[0].reason: Unsupported value: "Teapot": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"
        {"spec":{"validations":[{"expression":"object.x +","message":"a\nb"}]}}
            spec.validations[0].expression: Invalid value: "object.x +": compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>'
         | object.x +
         | ..........^
            spec.validations[0].message: Invalid value: "a\nb": must not contain line breaks
        {"spec":{"validations":[{"expression":"1","messageExpression":"1"}]}}
            spec.validations[0].expression: Invalid value: "1": must evaluate to bool but got int
            spec.validations[0].messageExpression: Invalid value: "1": must evaluate to string but got int
        {"spec":{"validations":[{"expression":"params.x == 1"}]}}
            spec.validations[0].expression: Invalid value: "params.x == 1": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')
         | params.x == 1
         | ^
        {"spec":{"validations":[{"expression":"variables.nine == 9 && variables.ten == 10"}],"variables":[{"expression":"9","name":"nine"}]}}
            spec.validations[0].expression: Invalid value: "variables.nine == 9 && variables.ten == 10": compilation failed: ERROR: <input>:1:33: undefined field 'ten'
         | variables.nine == 9 && variables.ten == 10
         | ................................^
        {"spec":{"variables":[{"expression":"1","name":"in"},{"expression":"","name":""},{"expression":"variables.b","name":"a"}]}}
            spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier
            spec.variables[1].name: Required value: name is not specified
            spec.variables[1].expression: Required value: expression is not specified
            spec.variables[2].expression: Invalid value: "variables.b": compilation failed: ERROR: <input>:1:10: undefined field 'b'
         | variables.b
         | .........^
        {"spec":{"matchConditions":[{"expression":"true","name":"a b"},{"expression":"1","name":"x"},{"expression":"","name":"x"}]}}
            spec.matchConditions[0].name: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.matchConditions[1].expression: Invalid value: "1": must evaluate to bool but got int
            spec.matchConditions[2].expression: Required value
            spec.matchConditions[2].name: Duplicate value: "x"
        {"spec":{"auditAnnotations":[{"key":"k","valueExpression":"1"},{"key":"k","valueExpression":""},{"key":"!","valueExpression":"'a'"}]}}
            spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type] but got int
            spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified
            spec.auditAnnotations[1].key: Duplicate value: "k"
            spec.auditAnnotations[2].key: Invalid value: "p/!": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]].assert_eq(&faults(&ValidatingAdmissionPolicies, &base(), &patches));
}
