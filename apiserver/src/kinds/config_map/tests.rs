//! ConfigMaps: faults, sealing and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::ConfigMaps;
use crate::kinds::testing::{faults, merged, refusals, row};

fn base() -> Value {
    json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}})
}

#[test]
fn faults_are_named() {
    let patches = [json!({"data": {"a/b": "", "..": ""}}), json!({"binaryData": {"a": "YQ==", "": ""}})];
    expect![[r#"
        {"data":{"..":"","a/b":""}}
            data[..]: Invalid value: "..": must not be '..'
            data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        {"binaryData":{"":"","a":"YQ=="}}
            data[a]: Invalid value: "a": duplicate of key present in binaryData
            binaryData[]: Invalid value: "": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
    "#]].assert_eq(&faults(&ConfigMaps, &base(), &patches));
}

#[test]
fn a_sealed_map_does_not_change() {
    let sealed = merged(&base(), &json!({"immutable": true}));
    let patches = [
        json!({"immutable": false, "data": null, "binaryData": {"x": ""}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
    ];
    expect![[r#"
        {"binaryData":{"x":""},"data":null,"immutable":false}
            immutable: Forbidden: field is immutable when `immutable` is set
            data: Forbidden: field is immutable when `immutable` is set
            binaryData: Forbidden: field is immutable when `immutable` is set
        {"metadata":{"labels":{"a":"b"}}}
    "#]]
    .assert_eq(&refusals(&ConfigMaps, &sealed, &patches));
}

#[test]
fn a_row_counts_both_kinds_of_keys() {
    assert_eq!(row(&ConfigMaps, &merged(&base(), &json!({"binaryData": {"x": ""}}))), "c | 2 | <unknown>");
}
