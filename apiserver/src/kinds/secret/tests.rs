//! Secrets: defaults, types, sealing and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::Secrets;
use crate::kinds::testing::{created, faults, merged, refusals, row, shown};

fn base() -> Value {
    json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"a": "YQ=="}})
}

#[test]
fn texts_become_data() {
    let given = merged(&base(), &json!({"stringData": {"a": "b", "c": "d"}}));
    expect![[r#"
        {
          "apiVersion": "v1",
          "data": {
            "a": "Yg==",
            "c": "ZA=="
          },
          "kind": "Secret",
          "metadata": {
            "name": "s",
            "namespace": "default"
          },
          "type": "Opaque"
        }"#]]
    .assert_eq(&shown(&Secrets, &created(&Secrets, &given)));
}

#[test]
fn types_ask_for_their_keys() {
    let of = |kind: &str| json!({"type": format!("kubernetes.io/{kind}")});
    let patches = [
        of("service-account-token"),
        of("dockercfg"),
        merged(&of("dockerconfigjson"), &json!({"stringData": {".dockerconfigjson": "{\"secret\": hunter2}"}})),
        merged(&of("dockerconfigjson"), &json!({"stringData": {".dockerconfigjson": "{}"}})),
        of("basic-auth"),
        of("ssh-auth"),
        of("tls"),
        json!({"type": "mine", "data": {"a b": ""}}),
    ];
    expect![[r#"
        {"type":"kubernetes.io/service-account-token"}
            metadata.annotations[kubernetes.io/service-account.name]: Required value
        {"type":"kubernetes.io/dockercfg"}
            data[.dockercfg]: Required value
        {"stringData":{".dockerconfigjson":"{\"secret\": hunter2}"},"type":"kubernetes.io/dockerconfigjson"}
            data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": line 1 column 12: not a JSON object
        {"stringData":{".dockerconfigjson":"{}"},"type":"kubernetes.io/dockerconfigjson"}
        {"type":"kubernetes.io/basic-auth"}
            data[username]: Required value
            data[password]: Required value
        {"type":"kubernetes.io/ssh-auth"}
            data[ssh-privatekey]: Required value
        {"type":"kubernetes.io/tls"}
            data[tls.crt]: Required value
            data[tls.key]: Required value
        {"data":{"a b":""},"type":"mine"}
            data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
    "#]].assert_eq(&faults(&Secrets, &base(), &patches));
}

#[test]
fn too_much_is_refused() {
    let given = json!({"stringData": {"big": "x".repeat(super::SIZE + 1)}});
    let text = faults(&Secrets, &base(), &[given]);
    assert_eq!(text.lines().nth(1), Some("    data: Too long: may not be more than 1048576 bytes"));
}

#[test]
fn types_stay_and_sealed_secrets_do_not_change() {
    let patches = [json!({"type": "mine"}), json!({"type": null, "data": {"a": "Yg=="}})];
    expect![[r#"
        {"type":"mine"}
            type: Invalid value: "mine": field is immutable
        {"data":{"a":"Yg=="},"type":null}
    "#]]
    .assert_eq(&refusals(&Secrets, &base(), &patches));
    let sealed = merged(&base(), &json!({"immutable": true}));
    let patches =
        [json!({"immutable": null}), json!({"data": {"b": "Yg=="}}), json!({"metadata": {"labels": {"a": "b"}}})];
    expect![[r#"
        {"immutable":null}
            immutable: Forbidden: field is immutable when `immutable` is set
        {"data":{"b":"Yg=="}}
            data: Forbidden: field is immutable when `immutable` is set
        {"metadata":{"labels":{"a":"b"}}}
    "#]]
    .assert_eq(&refusals(&Secrets, &sealed, &patches));
}

#[test]
fn a_row_counts_keys() {
    assert_eq!(row(&Secrets, &merged(&base(), &json!({"type": "Opaque"}))), "s | Opaque | 1 | <unknown>");
}
