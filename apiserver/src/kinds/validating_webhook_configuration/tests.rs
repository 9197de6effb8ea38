//! ValidatingWebhookConfigurations: they are as mutating ones, but for reinvocation.

use expect_test::expect;
use serde_json::json;

use super::ValidatingWebhookConfigurations;
use crate::kinds::testing::{created, faults, row, shown};

#[test]
fn defaults_and_faults_are_those_of_mutating_ones() {
    let base = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:8443/"},
    }]});
    let object = created(&ValidatingWebhookConfigurations, &base);
    expect![[r#"
        {
          "apiVersion": "admissionregistration.k8s.io/v1",
          "kind": "ValidatingWebhookConfiguration",
          "metadata": {
            "name": "c"
          },
          "webhooks": [
            {
              "admissionReviewVersions": [
                "v1"
              ],
              "clientConfig": {
                "url": "https://127.0.0.1:8443/"
              },
              "failurePolicy": "Fail",
              "matchPolicy": "Equivalent",
              "name": "a.example.com",
              "namespaceSelector": {},
              "objectSelector": {},
              "sideEffects": "None",
              "timeoutSeconds": 10
            }
          ]
        }"#]]
    .assert_eq(&shown(&ValidatingWebhookConfigurations, &object));
    let patches = [json!({"webhooks": [{"name": "a.b"}]})];
    expect![[r#"
        {"webhooks":[{"name":"a.b"}]}
            webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
            webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
            webhooks[0].clientConfig: Required value: exactly one of url or service is required
            webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1
    "#]]
    .assert_eq(&faults(&ValidatingWebhookConfigurations, &base, &patches));
    assert_eq!(row(&ValidatingWebhookConfigurations, &base), "c | 1 | <unknown>");
}
