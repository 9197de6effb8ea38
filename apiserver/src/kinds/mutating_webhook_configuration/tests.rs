//! MutatingWebhookConfigurations: defaults, faults and rows.

use expect_test::expect;
use serde_json::json;

use super::MutatingWebhookConfigurations;
use crate::kinds::testing::{created, faults, row, shown};

fn hook(change: &serde_json::Value) -> serde_json::Value {
    let base = json!({
        "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:8443/mutate"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    });
    crate::kinds::testing::merged(&base, change)
}

fn with(change: serde_json::Value) -> serde_json::Value {
    json!({"webhooks": [hook(&change)]})
}

#[test]
fn what_is_left_out_is_filled_in() {
    let service = json!({"clientConfig": {"url": null, "service": {"name": "s", "namespace": "n"}}});
    let object =
        created(&MutatingWebhookConfigurations, &json!({"metadata": {"name": "c"}, "webhooks": [hook(&service)]}));
    expect![[r#"
        {
          "apiVersion": "admissionregistration.k8s.io/v1",
          "kind": "MutatingWebhookConfiguration",
          "metadata": {
            "name": "c"
          },
          "webhooks": [
            {
              "admissionReviewVersions": [
                "v1"
              ],
              "clientConfig": {
                "service": {
                  "name": "s",
                  "namespace": "n",
                  "port": 443
                }
              },
              "failurePolicy": "Fail",
              "matchPolicy": "Equivalent",
              "name": "a.example.com",
              "namespaceSelector": {},
              "objectSelector": {},
              "reinvocationPolicy": "Never",
              "rules": [
                {
                  "apiGroups": [
                    ""
                  ],
                  "apiVersions": [
                    "v1"
                  ],
                  "operations": [
                    "CREATE"
                  ],
                  "resources": [
                    "pods"
                  ],
                  "scope": "*"
                }
              ],
              "sideEffects": "None",
              "timeoutSeconds": 10
            }
          ]
        }"#]]
    .assert_eq(&shown(&MutatingWebhookConfigurations, &object));
    let json = json!({"metadata": {"name": "c"}, "webhooks": [hook(&service)]});
    assert_eq!(row(&MutatingWebhookConfigurations, &json), "c | 1 | <unknown>");
}

#[test]
fn faults_are_named() {
    let base = json!({"metadata": {"name": "c"}, "webhooks": [hook(&json!({}))]});
    let rule = |change: serde_json::Value| {
        let base = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        with(json!({"rules": [crate::kinds::testing::merged(&base, &change)]}))
    };
    let service = |change: serde_json::Value| {
        let base = json!({"name": "s", "namespace": "n"});
        with(json!({"clientConfig": {"url": null, "service": crate::kinds::testing::merged(&base, &change)}}))
    };
    let patches = [
        with(json!({"name": ""})),
        with(json!({"name": "a.b"})),
        with(json!({"name": "A.b.c"})),
        json!({"webhooks": [hook(&json!({})), hook(&json!({}))]}),
        with(json!({"sideEffects": null})),
        with(json!({"sideEffects": "Some"})),
        with(json!({"failurePolicy": "Maybe", "matchPolicy": "Close", "reinvocationPolicy": "Often"})),
        with(json!({"timeoutSeconds": 31})),
        with(json!({"admissionReviewVersions": []})),
        with(json!({"admissionReviewVersions": ["v3", "v3"]})),
        with(json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
        with(json!({"clientConfig": {"url": null}})),
        with(json!({"clientConfig": {"url": "http://u:p@h/p?a=b#c"}})),
        with(json!({"clientConfig": {"url": "https:///p"}})),
        service(json!({"name": "", "namespace": "", "port": 70000, "path": "x//Y"})),
        rule(json!({"operations": [], "apiGroups": [], "apiVersions": [], "resources": []})),
        rule(json!({"operations": ["*", "READ"], "apiGroups": ["*", "a"], "apiVersions": ["*", ""]})),
        rule(json!({"resources": ["pods/*", "pods/status", "*/scale", "x/scale", ""], "scope": "Local"})),
        rule(json!({"resources": ["*/*", "pods"]})),
        rule(json!({"resources": ["*", "pods"]})),
    ];
    expect![[r#"
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].name: Required value
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.b","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"A.b.c","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].name: Invalid value: "A.b.c": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"},{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[1].name: Duplicate value: "a.example.com"
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]}]}
            webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"Some"}]}
            webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"failurePolicy":"Maybe","matchPolicy":"Close","name":"a.example.com","reinvocationPolicy":"Often","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].failurePolicy: Unsupported value: "Maybe": supported values: "Fail", "Ignore"
            webhooks[0].matchPolicy: Unsupported value: "Close": supported values: "Equivalent", "Exact"
            webhooks[0].reinvocationPolicy: Unsupported value: "Often": supported values: "IfNeeded", "Never"
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None","timeoutSeconds":31}]}
            webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds
        {"webhooks":[{"admissionReviewVersions":[],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1
        {"webhooks":[{"admissionReviewVersions":["v3","v3"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].admissionReviewVersions[1]: Invalid value: "v3": duplicate version
            webhooks[0].admissionReviewVersions: Invalid value: ["v3","v3"]: must include at least one of v1, v1beta1
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","namespaceSelector":{"matchExpressions":[{"key":"a","operator":"In"}]},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].namespaceSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].clientConfig: Required value: exactly one of url or service is required
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"http://u:p@h/p?a=b#c"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "u:p": user information is not permitted in the URL
            webhooks[0].clientConfig.url: Invalid value: "c": fragments are not permitted in the URL
            webhooks[0].clientConfig.url: Invalid value: "a=b": query parameters are not permitted in the URL
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https:///p"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].clientConfig.url: Required value: url must be a valid URL: "https:///p" cannot be read; desired format: https://host[/path]
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"service":{"name":"","namespace":"","path":"x//Y","port":70000}},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].clientConfig.service.name: Required value
            webhooks[0].clientConfig.service.namespace: Required value
            webhooks[0].clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive
            webhooks[0].clientConfig.service.path: Invalid value: "x//Y": must start with a '/'
            webhooks[0].clientConfig.service.path: Invalid value: "x//Y": segment[0] may not be empty
            webhooks[0].clientConfig.service.path: Invalid value: "x//Y": segment[1] may not be empty
            webhooks[0].clientConfig.service.path: Invalid value: "x//Y": segment[2]: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[],"apiVersions":[],"operations":[],"resources":[]}],"sideEffects":"None"}]}
            webhooks[0].rules[0].operations: Required value
            webhooks[0].rules[0].apiGroups: Required value
            webhooks[0].rules[0].apiVersions: Required value
            webhooks[0].rules[0].resources: Required value
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":["*","a"],"apiVersions":["*",""],"operations":["*","READ"],"resources":["pods"]}],"sideEffects":"None"}]}
            webhooks[0].rules[0].operations: Invalid value: ["*","READ"]: if '*' is present, must not specify other operations
            webhooks[0].rules[0].operations[1]: Unsupported value: "READ": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"
            webhooks[0].rules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other API groups
            webhooks[0].rules[0].apiVersions: Invalid value: ["*",""]: if '*' is present, must not specify other API versions
            webhooks[0].rules[0].apiVersions[1]: Required value
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods/*","pods/status","*/scale","x/scale",""],"scope":"Local"}],"sideEffects":"None"}]}
            webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status
            webhooks[0].rules[0].resources[3]: Invalid value: "x/scale": if '*/scale' is present, must not specify x/scale
            webhooks[0].rules[0].resources[4]: Required value
            webhooks[0].rules[0].scope: Unsupported value: "Local": supported values: "*", "Cluster", "Namespaced"
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["*/*","pods"]}],"sideEffects":"None"}]}
            webhooks[0].rules[0].resources: Invalid value: ["*/*","pods"]: if '*/*' is present, must not specify other resources
        {"webhooks":[{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://127.0.0.1:8443/mutate"},"name":"a.example.com","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["*","pods"]}],"sideEffects":"None"}]}
            webhooks[0].rules[0].resources: Invalid value: ["*","pods"]: if '*' is present, must not specify other resources without subresources
    "#]].assert_eq(&faults(&MutatingWebhookConfigurations, &base, &patches));
}
