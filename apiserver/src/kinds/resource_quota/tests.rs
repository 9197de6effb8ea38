//! Quotas: defaults, faults, warnings, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::ResourceQuotas;
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row},
};

fn base() -> Value {
    json!({"metadata": {"name": "q", "namespace": "d"}, "spec": {"hard": {"pods": "10"}}})
}

#[test]
fn faults_are_named() {
    let scoped = |requirement: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [requirement]}}});
    let patches = [
        json!({"spec": {"hard": {"requests.cpu": "1", "requests.hugepages-2Mi": "2Mi", "acme.io/gpu": "1",
            "count/deployments.apps": "3"}}}),
        json!({"spec": {"hard": {"pods": "-1", "services": "1500m", "apples": "3", "storage": "1Gi", "a/b/c": "1"}}}),
        json!({"spec": {"scopes": ["Some"]}}),
        json!({"spec": {"scopes": ["BestEffort", "NotBestEffort"]}}),
        json!({"spec": {"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}}),
        scoped(json!({"scopeName": "Terminating", "operator": "In", "values": ["a"]})),
        scoped(json!({"scopeName": "PriorityClass", "operator": "In", "values": []})),
        scoped(json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]})),
        scoped(json!({"scopeName": "Some", "operator": "Near"})),
        scoped(json!({"scopeName": "VolumeAttributesClass", "operator": "Exists"})),
    ];
    expect![[r#"
        {"spec":{"hard":{"acme.io/gpu":"1","count/deployments.apps":"3","requests.cpu":"1","requests.hugepages-2Mi":"2Mi"}}}
        {"spec":{"hard":{"a/b/c":"1","apples":"3","pods":"-1","services":"1500m","storage":"1Gi"}}}
            spec.hard[a/b/c]: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
            spec.hard[apples]: Invalid value: "apples": must be a standard resource type or fully qualified
            spec.hard[apples]: Invalid value: "apples": must be a standard resource for quota
            spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0
            spec.hard[services]: Invalid value: "1500m": must be an integer
            spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota
        {"spec":{"scopes":["Some"]}}
            spec.scopes: Invalid value: ["Some"]: unsupported scope
        {"spec":{"scopes":["BestEffort","NotBestEffort"]}}
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes
        {"spec":{"hard":{"cpu":"1"},"scopes":["BestEffort"]}}
            spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource
        {"spec":{"scopeSelector":{"matchExpressions":[{"operator":"In","scopeName":"Terminating","values":["a"]}]}}}
            spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity
        {"spec":{"scopeSelector":{"matchExpressions":[{"operator":"In","scopeName":"PriorityClass","values":[]}]}}}
            spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
        {"spec":{"scopeSelector":{"matchExpressions":[{"operator":"Exists","scopeName":"PriorityClass","values":["a"]}]}}}
            spec.scopeSelector.matchExpressions.values: Invalid value: ["a"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector
        {"spec":{"scopeSelector":{"matchExpressions":[{"operator":"Near","scopeName":"Some"}]}}}
            spec.scopeSelector.matchExpressions.scopeName: Invalid value: "Some": unsupported scope
            spec.scopeSelector.matchExpressions.operator: Invalid value: "Near": not a valid selector operator
        {"spec":{"scopeSelector":{"matchExpressions":[{"operator":"Exists","scopeName":"VolumeAttributesClass"}]}}}
            spec.scopeSelector.matchExpressions: Invalid value: {"matchExpressions":[{"operator":"Exists","scopeName":"VolumeAttributesClass"}]}: unsupported scope applied to resource
    "#]].assert_eq(&faults(&ResourceQuotas, &base(), &patches));
}

#[test]
fn scopes_stay() {
    let scoped = merged(&base(), &json!({"spec": {"scopes": ["Terminating"]}}));
    let patches = [json!({"spec": {"hard": {"pods": "5"}}}), json!({"spec": {"scopes": null}})];
    expect![[r#"
        {"spec":{"hard":{"pods":"5"}}}
        {"spec":{"scopes":null}}
            spec.scopes: Invalid value: []: field is immutable
    "#]]
    .assert_eq(&refusals(&ResourceQuotas, &scoped, &patches));
}

#[test]
fn a_status_counts_what_a_quota_can() {
    let status = json!({"status": {"hard": {"pods": "10"}, "used": {"pods": "-1", "apples": "1"}}});
    let object = defaulted(&ResourceQuotas, &merged(&base(), &status));
    expect![[r#"
        status.used[apples]: Invalid value: "apples": must be a standard resource type or fully qualified
        status.used[apples]: Invalid value: "apples": must be a standard resource for quota
        status.used[pods]: Invalid value: "-1": must be greater than or equal to 0
    "#]]
    .assert_eq(&lines(&ResourceQuotas.validate_status(&object, &object)));
}

#[test]
fn more_requested_than_limited_is_worth_a_warning() {
    let hard =
        json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1", "requests.memory": "1Gi", "limits.memory": "1Gi"}}});
    let object = created(&ResourceQuotas, &merged(&base(), &hard));
    assert_eq!(ResourceQuotas.warnings(&object), ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]);
}

#[test]
fn a_row_keeps_requests_and_limits_apart() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"}, "status": {
        "hard": {"pods": "10", "limits.cpu": "4", "requests.cpu": "2"}, "used": {"pods": "3", "limits.cpu": "1"}}}),
    );
    assert_eq!(row(&ResourceQuotas, &object), "q | pods: 3/10, requests.cpu: 0/2 | limits.cpu: 1/4 | 2m");
}
