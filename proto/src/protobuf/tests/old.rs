//! Bodies of old versions, as Kubernetes' own encoder writes them (its Go types of `k8s.io/api` and
//! `k8s.io/apiextensions-apiserver`, 1.36).

use super::{kubectl::unhex, *};

/// Bytes to JSON, without what Go says of its own accord, and back to the same bytes.
fn check(hex: &str, expected: &Value) {
    let bytes = unhex(hex);
    let json = to_json(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let parts = |value: &Value| ["apiVersion", "kind", "spec"].map(|name| value[name].clone());
    assert_eq!(parts(&json), parts(expected));
    assert_eq!(from_json(&json), Ok(bytes), "{json}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}})
}

#[test]
fn workloads_have_the_fields_of_their_time() {
    check(
        "6b3873000a200a12657874656e73696f6e732f76316265746131120a4465706c6f796d656e74128d010a130a037765621200 \
         1a0022002a00320038004200126808021a580a1c0a0012001a0022002a003200380042005a0a0a0361707012037765621238 \
         121a0a01631201692a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a0100 \
         9a0100c2010022020a0028003800420208031a0c0800100018002000280038001a002200",
        &json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment",
            "spec": {"replicas": 2, "template": template(), "strategy": {}, "rollbackTo": {"revision": 3}}}),
    );
    check(
        "6b3873000a1f0a12657874656e73696f6e732f7631626574613112094461656d6f6e5365741289010a110a016412001a0022 \
         002a00320038004200126212580a1c0a0012001a0022002a003200380042005a0a0a0361707012037765621238121a0a0163 \
         1201692a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c201 \
         001a020a00200028041a10080010001800200028003000380040001a002200",
        &json!({"apiVersion": "extensions/v1beta1", "kind": "DaemonSet",
            "spec": {"template": template(), "updateStrategy": {}, "templateGeneration": 4}}),
    );
}

#[test]
fn what_did_not_change_is_read_by_todays_tables() {
    check(
        "6b3873000a1a0a0c617070732f76316265746132120a5265706c696361536574128d010a110a017212001a0022002a003200 \
         38004200126c0802120c0a0a0a0361707012037765621a580a1c0a0012001a0022002a003200380042005a0a0a0361707012 \
         037765621238121a0a01631201692a0042006a007200800100880100900100a201001a00320042004a005200580060006800 \
         8201008a01009a0100c2010020001a0a080010001800200028001a002200",
        &json!({"apiVersion": "apps/v1beta2", "kind": "ReplicaSet",
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template()}}),
    );
    check(
        "6b3873000a250a0e706f6c6963792f763162657461311213506f6444697372757074696f6e427564676574122b0a110a0162 \
         12001a0022002a00320038004200120a0a06080010011a0012001a0a080018002000280030001a002200",
        &json!({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
            "spec": {"minAvailable": 1, "selector": {}}}),
    );
}

#[test]
fn an_ingress_and_a_definition_are_in_their_old_shape() {
    let paths = json!([{"path": "/", "backend": {"serviceName": "web", "servicePort": 80}}]);
    check(
        "6b3873000a240a196e6574776f726b696e672e6b38732e696f2f763162657461311207496e677265737312550a110a016912 \
         001a0022002a00320038004200123c0a110a03616c6c120a080110001a04687474701a270a0d612e6578616d706c652e636f \
         6d12160a140a120a012f120d0a037765621206080010501a001a020a001a002200",
        &json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress",
            "spec": {"backend": {"serviceName": "all", "servicePort": "http"},
                "rules": [{"host": "a.example.com", "http": {"paths": paths}}]}}),
    );
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}});
    check(
        "6b3873000a380a1c617069657874656e73696f6e732e6b38732e696f2f763162657461311218437573746f6d5265736f7572 \
         6365446566696e6974696f6e12bf010a1a0a0a746162732e652e636f6d12001a0022002a003200380042001292010a05652e \
         636f6d120276311a0f0a0474616273120022035461622a002207436c75737465722a520a500a00120022002a066f626a6563 \
         7432003a00500060007a00900100ea01290a016112240a00120022002a06737472696e6732003a00500060007a00900100a8 \
         0200b80200c00200a80200b80200c0020042150a01411206737472696e671a002200280032022e6150001a0c12080a001200 \
         22002a0020001a002200",
        &json!({"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
            "spec": {"group": "e.com", "version": "v1", "names": {"plural": "tabs", "kind": "Tab"}, "scope": "Cluster",
                "validation": schema, "additionalPrinterColumns": [{"name": "A", "type": "string", "JSONPath": ".a"}],
                "preserveUnknownFields": false}}),
    );
}

#[test]
fn every_old_kind_and_its_list_are_spoken() {
    for row in crate::resource::old::rows() {
        for kind in [row.kind, row.list_kind] {
            assert!(is_spoken(&row.api_version(), kind), "{} {kind}", row.api_version());
        }
    }
    assert!(!is_spoken("extensions/v1beta1", "Pod"));
}
