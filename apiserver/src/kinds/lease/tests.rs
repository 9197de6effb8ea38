//! Leases: faults and rows.

use expect_test::expect;
use serde_json::json;

use super::Leases;
use crate::kinds::testing::{faults, row};

#[test]
fn faults_are_named() {
    let base = json!({"metadata": {"name": "l", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n1"}});
    let patches = [
        json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
        json!({"spec": {"preferredHolder": "n2"}}),
        json!({"spec": {"strategy": "Fastest"}}),
    ];
    expect![[r#"
        {"spec":{"leaseDurationSeconds":0,"leaseTransitions":-1}}
            spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
            spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"preferredHolder":"n2"}}
            spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined
        {"spec":{"strategy":"Fastest"}}
            spec.strategy.strategy: Unsupported value: "Fastest": supported values: "OldestEmulationVersion"
    "#]]
    .assert_eq(&faults(&Leases, &base, &patches));
    assert_eq!(row(&Leases, &base), "l | n1 | <unknown>");
    assert_eq!(row(&Leases, &json!({"metadata": {"name": "l"}})), "l |  | <unknown>");
}
