//! Roles and bindings of both scopes.

use expect_test::expect;
use serde_json::{Value, json};

use super::RoleBindings;
use crate::kinds::{
    cluster_role::ClusterRoles,
    cluster_role_binding::ClusterRoleBindings,
    role::Roles,
    testing::{created, faults, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "b", "namespace": "default"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [
            {"kind": "User", "name": "alice"}, {"kind": "User", "name": "bob"}, {"kind": "Group", "name": "dev"},
            {"kind": "ServiceAccount", "name": "ci", "namespace": "build"}],
    })
}

#[test]
fn groups_of_roles_and_subjects_are_filled_in() {
    expect![[r#"
        {
          "apiVersion": "rbac.authorization.k8s.io/v1",
          "kind": "RoleBinding",
          "metadata": {
            "name": "b",
            "namespace": "default"
          },
          "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "view"
          },
          "subjects": [
            {
              "apiGroup": "rbac.authorization.k8s.io",
              "kind": "User",
              "name": "alice"
            },
            {
              "apiGroup": "rbac.authorization.k8s.io",
              "kind": "User",
              "name": "bob"
            },
            {
              "apiGroup": "rbac.authorization.k8s.io",
              "kind": "Group",
              "name": "dev"
            },
            {
              "kind": "ServiceAccount",
              "name": "ci",
              "namespace": "build"
            }
          ]
        }"#]]
    .assert_eq(&shown(&RoleBindings, &created(&RoleBindings, &base())));
}

#[test]
fn faults_of_bindings_are_named() {
    let patches = [
        json!({"roleRef": {"kind": "Rule", "name": "", "apiGroup": "mine"}}),
        json!({"roleRef": {"name": "a/b"}}),
        json!({"subjects": [{"kind": "Robot", "name": ""}, {"kind": "ServiceAccount", "name": "A", "apiGroup": "x"}]}),
    ];
    expect![[r#"
        {"roleRef":{"apiGroup":"mine","kind":"Rule","name":""}}
            roleRef.apiGroup: Unsupported value: "mine": supported values: "rbac.authorization.k8s.io"
            roleRef.kind: Unsupported value: "Rule": supported values: "Role", "ClusterRole"
            roleRef.name: Required value
        {"roleRef":{"name":"a/b"}}
            roleRef.name: Invalid value: "a/b": may not contain '/'
        {"subjects":[{"kind":"Robot","name":""},{"apiGroup":"x","kind":"ServiceAccount","name":"A"}]}
            subjects[0].name: Required value
            subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"
            subjects[1].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            subjects[1].apiGroup: Unsupported value: "x": supported values: ""
    "#]].assert_eq(&faults(&RoleBindings, &base(), &patches));
    let patches =
        [json!({"roleRef": {"kind": "Role"}}), json!({"subjects": [{"kind": "ServiceAccount", "name": "ci"}]})];
    expect![[r#"
        {"roleRef":{"kind":"Role"}}
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
        {"subjects":[{"kind":"ServiceAccount","name":"ci"}]}
            subjects[0].namespace: Required value
    "#]]
    .assert_eq(&faults(&ClusterRoleBindings, &base(), &patches));
}

#[test]
fn the_role_stays() {
    let patches = [json!({"roleRef": {"name": "edit"}}), json!({"subjects": null})];
    expect![[r#"
        {"roleRef":{"name":"edit"}}
            roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"}: cannot change roleRef
        {"subjects":null}
    "#]].assert_eq(&refusals(&RoleBindings, &base(), &patches));
    expect![[r#"
        {"roleRef":{"name":"edit"}}
            roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"}: cannot change roleRef
        {"subjects":null}
    "#]].assert_eq(&refusals(&ClusterRoleBindings, &base(), &patches));
}

#[test]
fn rows_list_the_subjects_by_kind() {
    let expected = "b | ClusterRole/view | <unknown> | alice, bob | dev | build/ci";
    assert_eq!(row(&RoleBindings, &base()), expected);
    assert_eq!(row(&ClusterRoleBindings, &base()), expected);
}

#[test]
fn rules_are_about_resources_or_about_urls() {
    let role = json!({"metadata": {"name": "system:r"}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let patches = [
        json!({"rules": [{}]}),
        json!({"rules": [{"nonResourceURLs": ["/healthz"], "resources": ["pods"], "verbs": ["get"]}]}),
        json!({"rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
    ];
    expect![[r#"
        {"rules":[{}]}
            rules[0].verbs: Required value: verbs must contain at least one value
            rules[0].apiGroups: Required value: resource rules must supply at least one api group
            rules[0].resources: Required value: resource rules must supply at least one resource
        {"rules":[{"nonResourceURLs":["/healthz"],"resources":["pods"],"verbs":["get"]}]}
            rules[0].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs
            rules[0].nonResourceURLs: Invalid value: ["/healthz"]: rules cannot apply to both regular resources and non-resource URLs
        {"rules":[{"nonResourceURLs":["/healthz"],"verbs":["get"]}]}
            rules[0].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs
    "#]].assert_eq(&faults(&Roles, &role, &patches));
    let patches: Vec<Value> = patches
        .into_iter()
        .chain([
            json!({"aggregationRule": {"clusterRoleSelectors": []}}),
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a b": "c"}}]}}),
        ])
        .collect();
    expect![[r#"
        {"rules":[{}]}
            rules[0].verbs: Required value: verbs must contain at least one value
            rules[0].apiGroups: Required value: resource rules must supply at least one api group
            rules[0].resources: Required value: resource rules must supply at least one resource
        {"rules":[{"nonResourceURLs":["/healthz"],"resources":["pods"],"verbs":["get"]}]}
            rules[0].nonResourceURLs: Invalid value: ["/healthz"]: rules cannot apply to both regular resources and non-resource URLs
        {"rules":[{"nonResourceURLs":["/healthz"],"verbs":["get"]}]}
        {"aggregationRule":{"clusterRoleSelectors":[]}}
            aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
        {"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a b":"c"}}]}}
            aggregationRule.clusterRoleSelectors[0].matchLabels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]].assert_eq(&faults(&ClusterRoles, &role, &patches));
}

#[test]
fn roles_show_when_they_were_made() {
    let role = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(row(&Roles, &role), "r | 2026-01-01T00:00:00Z");
    assert_eq!(row(&ClusterRoles, &merged(&role, &json!({"rules": []}))), "r | 2026-01-01T00:00:00Z");
}
