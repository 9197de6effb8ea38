//! Protobuf bodies, by example, against the schema facts, and against bytes that are none.

mod judge;
mod kubectl;
mod old;
mod round_trip;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    descriptors::Message,
    table::{TABLES, Type, VALUES},
    *,
};
use crate::{resource::RESOURCES, schema};

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn number(field: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value.cast_unsigned(), &mut out);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

#[test]
fn a_config_map_is_read_with_its_maps_and_bytes() {
    let entry = |key: &str, value: &[u8]| [bytes(1, key.as_bytes()), bytes(2, value)].concat();
    let meta = [bytes(1, b"settings"), bytes(2, b""), bytes(3, b"d"), bytes(8, b"")].concat();
    let raw =
        [bytes(1, &meta), bytes(2, &entry("a", b"1")), bytes(2, &entry("b", b"")), bytes(3, &entry("c", b"\x00\xff"))];
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "d"},
        "data": {"a": "1", "b": ""}, "binaryData": {"c": "AP8="},
    });
    assert_eq!(to_json(&body("v1", "ConfigMap", &raw.concat())), Ok(expected));
}

#[test]
fn inlined_messages_pointers_and_zeros_are_as_go_has_them() {
    // A Deployment with replicas 0 (a pointer), minReadySeconds 0 (none), and a volume from a Secret.
    let secret = bytes(1, b"password");
    let volume = [bytes(1, b"v"), bytes(2, &bytes(6, &secret))].concat();
    let port = [number(3, 80), number(2, 0)].concat();
    let limit = [bytes(1, b"cpu"), bytes(2, &bytes(1, b"500m"))].concat();
    let probe = [bytes(1, &bytes(2, &bytes(2, &[number(1, 0), number(2, 8080)].concat()))), number(2, 5)].concat();
    let container = [bytes(1, b"c"), bytes(6, &port), bytes(8, &bytes(1, &limit)), bytes(10, &probe)].concat();
    let pod = [bytes(1, &volume), bytes(2, &container), number(4, 0)].concat();
    let surge = bytes(2, &[number(1, 1), bytes(3, b"25%")].concat());
    let spec = [number(1, 0), bytes(3, &bytes(2, &pod)), bytes(4, &bytes(2, &surge)), number(5, 0)];
    let json = to_json(&body("apps/v1", "Deployment", &bytes(2, &spec.concat()))).unwrap();
    let expected = json!({
        "replicas": 0,
        "strategy": {"rollingUpdate": {"maxSurge": "25%"}},
        "template": {"spec": {
            "volumes": [{"name": "v", "secret": {"secretName": "password"}}],
            "containers": [{
                "name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"port": 8080}, "initialDelaySeconds": 5},
            }],
            "terminationGracePeriodSeconds": 0,
        }},
    });
    assert_eq!(json["spec"], expected);
}

#[test]
fn times_negative_numbers_and_kinds_of_all_groups_are_read() {
    let renew = bytes(4, &[number(1, 1_700_000_000), number(2, 5_000)].concat());
    let lease = to_json(&body("coordination.k8s.io/v1", "Lease", &bytes(2, &[number(2, 40), renew].concat()))).unwrap();
    assert_eq!(lease["spec"], json!({"leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.000005Z"}));
    let options = to_json(&body("v1", "DeleteOptions", &number(1, -1))).unwrap();
    assert_eq!(options["gracePeriodSeconds"], -1);
    let scale = to_json(&body("autoscaling/v1", "Scale", &bytes(2, &number(1, 3)))).unwrap();
    assert_eq!(scale["spec"], json!({"replicas": 3}));
}

#[test]
fn what_is_no_object_is_refused_by_name() {
    assert_eq!(to_json(b"{}"), Err(Error::Magic));
    let unknown = Error::UnknownKind { api_version: "example.com/v1".to_owned(), kind: "Thing".to_owned() };
    assert_eq!(to_json(&body("example.com/v1", "Thing", b"")), Err(unknown));
    for (api_version, kind, known) in [
        ("apps/v1", "Deployment", true),
        ("rbac.authorization.k8s.io/v1", "Role", true),
        ("v1", "Pod", true),
        ("core/v1", "Pod", false),
        // Somebody else's groups are not Kubernetes' own, whatever they begin with, but take options as all do.
        ("apps.example.com/v1", "Deployment", false),
        ("networking.istio.io/v1", "Ingress", false),
        ("apps.example.com/v1", "DeleteOptions", true),
        ("apps.example.com/v1", "ObjectMeta", false),
    ] {
        let read = to_json(&body(api_version, kind, b""));
        assert_eq!(!matches!(read, Err(Error::UnknownKind { .. })), known, "{api_version} {kind}");
    }
    let json = [body("v1", "ConfigMap", b""), bytes(4, b"application/json")].concat();
    assert_eq!(to_json(&json).unwrap_err().to_string(), "Unknown: the content is not protobuf");
    let wrong = to_json(&body("v1", "ConfigMap", &number(1, 7))).unwrap_err();
    let why = "failed to decode Protobuf message: invalid wire type: Varint (expected LengthDelimited)";
    assert_eq!(wrong.to_string(), format!("ConfigMap.metadata: {why}"));
    let mut cut = body("v1", "ConfigMap", &bytes(1, &bytes(1, b"settings")));
    cut.truncate(cut.len() - 6);
    assert!(to_json(&cut).is_err());
}

#[test]
fn what_no_type_has_is_skipped_and_what_is_broken_is_refused_with_its_field() {
    let name = bytes(1, b"a");
    // Fields 99 of every wire type there is, a group with a field in it among them.
    let group = |depth: usize| [[0x9b, 0x06].repeat(depth), [0x9c, 0x06].repeat(depth)].concat();
    let skipped =
        [number(99, -1), vec![0x99, 0x06, 1, 2, 3, 4, 5, 6, 7, 8], bytes(99, b"x"), vec![0x9d, 0x06, 1, 2, 3, 4]];
    let meta = [name.clone(), skipped.concat(), group(3)].concat();
    let read = to_json(&body("v1", "ConfigMap", &bytes(1, &meta))).unwrap();
    assert_eq!(read["metadata"], json!({"name": "a"}));

    for (what, meta) in [
        ("recursion limit reached", group(100_000)),
        ("invalid wire type: EndGroup", vec![0x9c, 0x06]),
        ("invalid wire type value: 6", vec![0x9e, 0x06]),
        ("invalid tag value: 0", vec![0x00, 0x00]),
        ("invalid varint", [vec![0x38], vec![0xff; 11]].concat()),
        ("name: failed to decode Protobuf message: buffer underflow", vec![0x0a, 0x05, b'a']),
        ("name: failed to decode Protobuf message: buffer underflow", [vec![0x0a], vec![0xff; 9], vec![0x01]].concat()),
        ("name: failed to decode Protobuf message: invalid string value", bytes(1, b"\xff")),
        ("labels: failed to decode Protobuf message: invalid wire type", bytes(11, &number(2, 1))),
        (
            "ownerReferences.controller: failed to decode Protobuf message: invalid wire type",
            bytes(13, &bytes(6, b"x")),
        ),
    ] {
        let told = to_json(&body("v1", "ConfigMap", &bytes(1, &meta))).unwrap_err().to_string();
        assert!(told.starts_with("ConfigMap.metadata") && told.contains(what), "{what}: {told}");
    }
    let time = to_json(&body("v1", "ConfigMap", &bytes(1, &bytes(8, &bytes(1, b"x"))))).unwrap_err().to_string();
    assert!(time.starts_with("ConfigMap.metadata.creationTimestamp.seconds: "), "{time}");
    let late = [number(1, 253_402_300_800)].concat();
    let late = to_json(&body("v1", "ConfigMap", &bytes(1, &bytes(8, &late)))).unwrap_err().to_string();
    assert_eq!(late, "ConfigMap.metadata.creationTimestamp: a time is out of range");
    let envelope = to_json(&[MAGIC.as_slice(), &number(1, 1)].concat()).unwrap_err().to_string();
    assert!(envelope.starts_with("Unknown: ") && envelope.contains("type_meta"), "{envelope}");
}

#[test]
fn a_message_that_stands_twice_is_one() {
    let spec = |replicas: i64, paused: i64| bytes(2, &[number(1, replicas), number(7, paused)].concat());
    let twice = [spec(1, 1), bytes(2, &number(1, 2))].concat();
    let read = to_json(&body("apps/v1", "Deployment", &twice)).unwrap();
    assert_eq!(read["spec"], json!({"replicas": 2, "paused": true}));
    let entry = |value: &[u8]| bytes(2, &[bytes(1, b"a"), bytes(2, value)].concat());
    let read = to_json(&body("v1", "ConfigMap", &[entry(b"1"), entry(b"2")].concat())).unwrap();
    assert_eq!(read["data"], json!({"a": "2"}));
}

/// A definition whose schema has so many properties in one another.
fn nested(properties: usize) -> Value {
    let mut schema = json!({"type": "string"});
    for _ in 0..properties {
        schema = json!({"properties": {"a": schema}});
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}})
}

#[test]
fn messages_are_nested_a_hundred_deep_and_no_deeper() {
    // Four around the first schema, and two for each property: its entry and its schema.
    let bytes = from_json(&nested(48)).unwrap();
    assert_eq!(from_json(&to_json(&bytes).unwrap()), Ok(bytes));
    let told = to_json(&from_json(&nested(49)).unwrap()).unwrap_err().to_string();
    let path = "CustomResourceDefinition.spec.versions.schema.openAPIV3Schema.properties";
    assert!(told.starts_with(path) && told.ends_with("nested too deeply"), "{told}");
}

#[test]
fn as_many_items_as_a_body_holds_are_read_in_time() {
    // Two bytes an item: were the others touched for each of them, this would take minutes.
    let read = to_json(&body("v1", "Pod", &bytes(2, &bytes(2, b"").repeat(200_000)))).unwrap();
    assert_eq!(read["spec"]["containers"].as_array().map(Vec::len), Some(200_000));
}

#[test]
fn every_field_of_every_table_has_its_descriptor() {
    for (name, fields) in TABLES.iter().chain(VALUES.iter()) {
        let message = Message::named(name).unwrap_or_else(|| panic!("{name} is not in the pool"));
        assert_eq!(message.descriptor.full_name(), name);
        assert_eq!(message.members.len(), fields.len(), "{name}");
        for (member, field) in message.members.iter().zip(fields) {
            let path = format!("{name}.{}", field.name.unwrap_or("^"));
            assert_eq!((member.descriptor.number(), member.field.number), (field.number, field.number), "{path}");
            let (is_list, is_map) = (matches!(field.content, Type::List(_)), matches!(field.content, Type::Map(_)));
            let is_inner = member.inner().is_some();
            assert_eq!(member.descriptor.is_list(), is_list || is_map || is_inner, "{path}");
            assert_eq!(member.descriptor.supports_presence(), !member.descriptor.is_list(), "{path}");
            assert_eq!(member.entry.is_some(), is_map, "{path}");
            assert!(!member.descriptor.is_packed(), "{path}");
            let content = match &field.content {
                Type::List(element) | Type::Map(element) => element.as_ref(),
                content => content,
            };
            if let Type::Message(inner) = content {
                assert_eq!(member.inner().map(|inner| inner.descriptor.full_name()), Some(inner.as_str()), "{path}");
            }
            let is_plain = matches!(
                content,
                Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. } | Type::Double | Type::Bytes
            );
            assert_eq!(is_inner, !is_plain, "{path}");
        }
    }
}

/// The messages, with those inlined in them taken apart.
fn names_of(message: &str, out: &mut Vec<(String, Type)>) {
    for field in TABLES.get(message).unwrap_or_else(|| panic!("no table for {message}")) {
        match (field.name, &field.content) {
            (Some(name), content) => out.push((name.to_owned(), content.clone())),
            (None, Type::Message(inner)) => names_of(inner, out),
            (None, other) => panic!("{message} inlines {other:?}"),
        }
    }
}

#[test]
fn every_message_a_builtin_kind_reaches_has_a_table_whose_names_are_the_schemas() {
    let mut checked = std::collections::BTreeSet::new();
    for resource in RESOURCES {
        let message = message_of(&resource.api_version(), resource.kind).unwrap_or_else(|| panic!("{}", resource.kind));
        let root = schema::of_kind(resource.group, resource.version, resource.kind).unwrap();
        let mut todo = vec![(message, root)];
        while let Some((message, facts)) = todo.pop() {
            if !checked.insert(message.clone()) {
                continue;
            }
            let mut names = Vec::new();
            names_of(&message, &mut names);
            let known: Vec<&str> =
                facts.fields().iter().map(|f| f.name).filter(|n| !["apiVersion", "kind"].contains(n)).collect();
            for name in &known {
                assert!(names.iter().any(|(n, _)| n == name), "{message} has no field {name}");
            }
            for (name, content) in &names {
                let inner = match content {
                    Type::Message(inner) => Some(inner),
                    Type::List(element) | Type::Map(element) => match element.as_ref() {
                        Type::Message(inner) => Some(inner),
                        _ => None,
                    },
                    _ => None,
                };
                if let (Some(inner), Some(child)) = (inner, facts.field(name).and_then(|f| f.child())) {
                    todo.push((inner.clone(), child));
                }
            }
        }
    }
    assert!(checked.len() > 150, "only {} messages were looked at", checked.len());
}

#[test]
fn every_message_in_the_tables_is_as_the_schema_facts_have_it() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (message, fields) in TABLES.iter() {
        for field in fields {
            let content = match &field.content {
                Type::List(element) | Type::Map(element) => element,
                other => other,
            };
            if let Type::Message(inner) = content
                && !TABLES.contains_key(inner)
            {
                wrong.push(format!("{message}.{}: there is no message {inner}", field.number));
            }
        }
        let Some(facts) = schema::definition(&schema::full_name("", message)) else { continue };
        compared += 1;
        let mut named = Vec::new();
        names_of(message, &mut named);
        for (name, content) in &named {
            let Some(fact) = facts.field(name) else {
                wrong.push(format!("{message}.{name} is not in the schema"));
                continue;
            };
            let is_alike = match content {
                Type::List(_) | Type::Items => fact.shape == schema::Shape::List,
                Type::Map(_) => fact.shape == schema::Shape::Map,
                Type::Message(inner) => fact.child().is_some_and(|ty| ty.name == schema::full_name("", inner)),
                Type::Raw => fact.shape == schema::Shape::Any,
                _ => fact.shape == schema::Shape::Scalar,
            };
            if !is_alike {
                wrong.push(format!("{message}.{name} is {content:?}, in the schema {:?}", fact.shape));
            }
        }
        for fact in facts.fields() {
            if !["apiVersion", "kind"].contains(&fact.name) && !named.iter().any(|(name, _)| name == fact.name) {
                wrong.push(format!("{message} lacks {}", fact.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 300, "only {compared} messages are in the schema");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
        for (version, kind) in [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "DeleteOptions")] {
            let _ = to_json(&body(version, kind, &content));
        }
        let _ = to_json(&[MAGIC.as_slice(), &content].concat());
    }
}
