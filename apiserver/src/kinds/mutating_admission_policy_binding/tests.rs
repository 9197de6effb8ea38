//! MutatingAdmissionPolicyBindings: faults and rows.

use expect_test::expect;
use serde_json::json;

use super::MutatingAdmissionPolicyBindings;
use crate::kinds::testing::{faults, row};

#[test]
fn faults_are_named() {
    let base = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    let patches = [json!({"spec": {"policyName": null}}), json!({"spec": {"paramRef": {}}})];
    expect![[r#"
        {"spec":{"policyName":null}}
            spec.policyName: Required value
        {"spec":{"paramRef":{}}}
            spec.paramRef: Required value: one of name or selector must be specified
            spec.paramRef.parameterNotFoundAction: Required value
    "#]]
    .assert_eq(&faults(&MutatingAdmissionPolicyBindings, &base, &patches));
    assert_eq!(row(&MutatingAdmissionPolicyBindings, &base), "b | p | <unset> | <unknown>");
}
