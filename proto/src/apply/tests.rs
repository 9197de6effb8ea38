//! Examples from Kubernetes' documentation, and the laws of the algebra.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pods() -> BuiltIn {
    BuiltIn::of_kind("", "v1", "Pod").unwrap()
}

fn deployments() -> BuiltIn {
    BuiltIn::of_kind("apps", "v1", "Deployment").unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn status() -> Set {
    Set::from([Path::of(&["status"])])
}

fn no_other(_: &Value, _: &str) -> Option<(BuiltIn, Value)> {
    None
}

/// An object over time, as an API server would keep it.
struct Object<'a> {
    updater: Updater<'a, BuiltIn>,
    live: Value,
    managed: Managed,
    now: i64,
}

impl<'a> Object<'a> {
    fn new(reset: &'a Set) -> Self {
        let updater = Updater { place: deployments(), version: "apps/v1", reset, convert: &no_other };
        Self { updater, live: empty().clone(), managed: Managed::default(), now: 0 }
    }

    fn update(&mut self, manager: &str, new: Value) {
        self.now += 1;
        let who = Who { name: manager, subresource: "", now: at(self.now) };
        self.managed = self.updater.update(&self.live, &new, std::mem::take(&mut self.managed), &who);
        self.live = new;
    }

    fn apply(&mut self, manager: &str, config: &Value, force: bool) -> Result<bool, ApplyError> {
        self.now += 1;
        validate(self.updater.place, config, Duplicates::Refused).unwrap();
        let who = Who { name: manager, subresource: "", now: at(self.now) };
        let applied = self.updater.apply(&self.live, config, self.managed.clone(), &who, force)?;
        self.managed = applied.managed;
        let is_changed = applied.object.is_some();
        self.live = applied.object.unwrap_or(std::mem::take(&mut self.live));
        Ok(is_changed)
    }

    fn owned(&self, manager: &str) -> String {
        let mut found = self.managed.iter().filter(|(m, _)| m.name == manager);
        found.next().map_or_else(String::new, |(_, owned)| serde_json::to_string(&owned.set).unwrap())
    }
}

fn set(json: &str) -> Set {
    serde_json::from_str(json).unwrap()
}

#[test]
fn sets_are_written_as_kubernetes_writes_them() {
    let text = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}},"f:replicas":{}},"f:x":{"v:\"one\"":{},"v:2":{},"i:3":{}}}"#;
    let read = set(text);
    let sorted = text.replace(r#""v:\"one\"":{},"v:2":{}"#, r#""v:2":{},"v:\"one\"":{}"#);
    assert_eq!(serde_json::to_string(&read).unwrap(), sorted);
    let paths: Vec<String> = read.paths().iter().map(ToString::to_string).collect();
    assert_eq!(
        paths,
        [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.replicas",
            ".spec.containers[name=\"a\"]",
            ".spec.containers[name=\"a\"].image",
            ".spec.containers[name=\"a\"].ports",
            ".spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".x[=2]",
            ".x[=\"one\"]",
            ".x[3]",
        ]
    );
}

#[test]
fn what_is_no_set_is_refused_and_elements_of_unknown_sort_are_skipped() {
    for bad in
        [r#"{"f":{}}"#, r#"{"fx:a":{}}"#, r#"{"f:a":1}"#, r#"{"v:{":{}}"#, r#"{"k:1":{}}"#, r#"{"i:x":{}}"#, "[]"]
    {
        assert!(serde_json::from_str::<Set>(bad).is_err(), "{bad}");
    }
    assert_eq!(set(r#"{"q:a":{"f:b":{}},"f:c":{}}"#), set(r#"{"f:c":{}}"#));
    assert_eq!(set(r#"{"f:c":{".":{}}}"#), set(r#"{"f:c":{}}"#));
}

#[test]
fn the_difference_of_a_parent_does_not_touch_its_children() {
    let both = set(r#"{"f:a":{".":{},"f:b":{}}}"#);
    assert_eq!(both.clone().difference(&set(r#"{"f:a":{}}"#)), set(r#"{"f:a":{"f:b":{}}}"#));
    assert_eq!(both.clone().recursive_difference(&set(r#"{"f:a":{}}"#)), Set::default());
    assert_eq!(both.difference(&set(r#"{"f:a":{"f:b":{}}}"#)), set(r#"{"f:a":{}}"#));
}

#[test]
fn a_created_pod_is_owned_as_in_kubernetes() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}, "creationTimestamp": null},
        "spec": {
            "containers": [{
                "name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}],
            }],
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "tolerations": [{"key": "a"}],
        },
        "status": {"phase": "Pending"},
    });
    let status = status();
    let updater = Updater { place: pods(), version: "v1", reset: &status, convert: &no_other };
    let who = Who { name: "kubectl-create", subresource: "", now: at(7) };
    let managed = updater.update(empty(), &pod, Managed::default(), &who);
    let entries = serde_json::to_value(managed.encode().unwrap()).unwrap();
    assert_eq!(
        entries,
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:07Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        "k:{\"name\":\"c\"}": {
                            ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                            "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                            "f:ports": {
                                ".": {},
                                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                                    ".": {}, "f:containerPort": {}, "f:protocol": {},
                                },
                            },
                        },
                    },
                    "f:dnsPolicy": {}, "f:securityContext": {}, "f:tolerations": {},
                },
            },
        }])
    );
    let entries: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry> =
        serde_json::from_value(entries).unwrap();
    assert_eq!(Managed::decode(&entries).unwrap(), managed);
}

/// What the short way writes of a new object, beside what the long one does.
fn owned_when_new(place: BuiltIn, object: &Value, reset: &Set) -> (Option<Value>, Option<Value>) {
    let updater = Updater { place, version: "v1", reset, convert: &no_other };
    let who = Who { name: "m", subresource: "", now: at(7) };
    let long = updater.update(empty(), object, Managed::default(), &who).encode();
    let long = long.map(|entries| serde_json::to_value(&entries[0].fields_v1).unwrap());
    let text = serde_json::to_vec(object).unwrap();
    let short = fresh_fields(place, &text, reset).unwrap();
    if let (Some(short), Some(long)) = (&short, &long) {
        assert_eq!(std::str::from_utf8(short).unwrap(), long.to_string(), "the same bytes");
    }
    (short.map(|short| serde_json::from_slice(&short).unwrap()), long)
}

#[test]
fn the_short_way_for_new_objects_comes_to_the_same() {
    let nothing = Set::default();
    for object in [
        json!({}),
        json!({"metadata": {"name": "a", "namespace": "b", "uid": "c"}}),
        json!({"metadata": {"labels": {}, "annotations": {"z\"\\": "1", "a-b": "", "a": "2"}, "finalizers": ["b/c", "a/b"]}}),
        json!({"metadata": {"ownerReferences": [{"uid": "2", "kind": "K"}, {"uid": "1"}, {"uid": "2"}, {"name": "x"}]}}),
        json!({"spec": {"containers": [{"name": "a-b"}, {"name": "a"}, {"name": "a\""}]}, "status": {"phase": "P"}}),
        json!({"spec": {"containers": []}}),
        json!({"spec": {"containers": [null, 5, [1], {"name": "a"}], "imagePullSecrets": [{"name": "s"}, {}]}}),
        json!({"spec": {"containers": null, "securityContext": {}, "nodeSelector": {"b": "1", "a": "2"}}}),
        json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}, {"containerPort": 10}, {"containerPort": 2, "protocol": "UDP"}], "resources": {"limits": {"cpu": 1, "memory": "1"}}}, {"name": "a"}, {"image": "x"}]}}),
        json!({"spec": {"tolerations": [{"key": "x"}], "hostAliases": [{"ip": "2"}, {"ip": "1"}], "volumes": [{"name": "v", "emptyDir": {}, "projected": {"sources": []}}], "nodeName": null}}),
        json!({"unheard": {"of": 1}, "spec": {"unheard": [1, 2.5, true]}}),
    ] {
        for reset in [&nothing, &status()] {
            let (short, long) = owned_when_new(pods(), &object, reset);
            assert_eq!(short, long, "{object}");
            let (short, long) = owned_when_new(BuiltIn::Any, &object, reset);
            assert_eq!(short, long, "{object} of no known kind");
        }
    }
    assert!(fresh_fields(pods(), b"[]", &nothing).is_err());
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

#[test]
fn a_changed_field_goes_over_to_who_changes_it() {
    let status = status();
    let mut object = Object::new(&status);
    object.update("a", deployment(1, "one"));
    assert!(object.owned("a").contains("f:replicas"));
    object.update("b", deployment(2, "one"));
    assert!(!object.owned("a").contains("f:replicas"));
    assert_eq!(object.owned("b"), r#"{"f:spec":{"f:replicas":{}}}"#);
    object.update("b", deployment(2, "one"));
    let b = object.managed.iter().find(|(manager, _)| manager.name == "b").unwrap().1.clone();
    assert_eq!(b.time, Some(at(2)), "a write that changes nothing is no news");
}

#[test]
fn what_another_manager_owns_is_a_conflict_unless_forced_or_equal() {
    let status = status();
    let mut object = Object::new(&status);
    object.update("kubectl-client-side-apply", deployment(1, "one"));
    let error = object.apply("me", &deployment(2, "one"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let error = object.apply("me", &deployment(2, "two"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- \
         .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    assert!(!object.apply("me", &deployment(1, "one"), false).unwrap(), "it is so already");
    assert!(object.owned("kubectl-client-side-apply").contains("f:replicas"), "owned by both");
    assert!(object.apply("me", &deployment(2, "two"), true).unwrap());
    assert!(!object.owned("kubectl-client-side-apply").contains("f:replicas"));
    let error = object.apply("you", &deployment(3, "two"), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_has_it() {
    let status = status();
    let mut object = Object::new(&status);
    let with = |labels: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels}});
    object.apply("a", &with(json!({"one": "1", "two": "2"})), false).unwrap();
    object.apply("b", &with(json!({"two": "2", "three": "3"})), false).unwrap();
    object.update("c", with(json!({"one": "1", "two": "2", "three": "3", "four": "4"})));
    object.apply("a", &with(json!({})), false).unwrap();
    assert_eq!(object.live["metadata"]["labels"], json!({"two": "2", "three": "3", "four": "4"}));
    object.apply("b", &with(json!({"two": "2"})), false).unwrap();
    assert_eq!(object.live["metadata"]["labels"], json!({"two": "2", "four": "4"}));
}

#[test]
fn lists_merge_by_their_keys_and_keep_the_order_of_the_configuration() {
    let status = status();
    let mut object = Object::new(&status);
    let with = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": containers}}},
        })
    };
    let names = |object: &Object<'_>| -> Vec<String> {
        let containers = object.live["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    object.apply("a", &with(&["x", "y"]), false).unwrap();
    object.apply("b", &with(&["z", "y"]), false).unwrap();
    assert_eq!(names(&object), ["x", "z", "y"]);
    object.apply("a", &with(&["y"]), false).unwrap();
    assert_eq!(names(&object), ["z", "y"]);
    object.apply("b", &with(&["w", "z"]), false).unwrap();
    assert_eq!(names(&object), ["w", "z", "y"]);
}

#[test]
fn the_order_of_merged_lists_is_that_of_structured_merge_diff() {
    let place = pods().field("metadata").unwrap().1.field("finalizers").unwrap().1;
    for (base, over, merged) in [
        ("abc", "", "abc"),
        ("", "cab", "cab"),
        ("abc", "ca", "bca"),
        ("abc", "bd", "abcd"),
        ("ab", "ba", "ba"),
        ("xaybz", "ba", "xybza"),
        ("abcd", "db", "acdb"),
        ("aab", "b", "aab"),
        ("aa", "a", "a"),
    ] {
        let list = |text: &str| Value::from(text.chars().map(|c| c.to_string()).collect::<Vec<_>>());
        let out = merge(place, Some(&list(base)), Some(&list(over))).unwrap().unwrap();
        assert_eq!(out, list(merged), "{base} + {over}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_its_path() {
    for (config, why) in [
        (json!({"spec": {"foo": 1}}), ".spec.foo: field not declared in schema"),
        (
            json!({"spec": {"template": {"spec": {"containers": "x"}}}}),
            ".spec.template.spec.containers: expected list, got &{x}",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"metadata": {"ownerReferences": [7]}}),
            ".metadata.ownerReferences: element 0: associative list with keys may not have non-map elements",
        ),
        (json!({"foo": 1, "spec": {"bar": 1}}), ".foo: field not declared in schema"),
        (
            json!({"metadata": {"bar": 1}, "spec": {"bar": 1}}),
            "errors:\n  .metadata.bar: field not declared in schema\n  .spec.bar: field not declared in schema",
        ),
        (json!({"spec": {"replicas": {}}}), ".spec.replicas: expected any scalar, got &{{}}"),
    ] {
        assert_eq!(validate(deployments(), &config, Duplicates::Refused).unwrap_err().to_string(), why);
    }
    validate(deployments(), &deployment(1, "x"), Duplicates::Refused).unwrap();
}

#[test]
fn the_oldest_of_many_updaters_are_put_together() {
    let status = status();
    let mut object = Object::new(&status);
    let mut labels = serde_json::Map::new();
    for i in 0..14 {
        labels.insert(format!("l{i:02}"), "x".into());
        object.update(&format!("m{i:02}"), json!({"metadata": {"labels": labels}}));
    }
    let names: Vec<&str> = object.managed.iter().map(|(manager, _)| manager.name.as_str()).collect();
    assert_eq!(names, ["ancient-changes", "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12", "m13"]);
    assert_eq!(
        object.owned("ancient-changes"),
        r#"{"f:metadata":{"f:labels":{".":{},"f:l00":{},"f:l01":{},"f:l02":{},"f:l03":{},"f:l04":{}}}}"#
    );
}

#[test]
fn entries_that_cannot_be_read_are_errors() {
    for (entry, why) in [
        (json!({"apiVersion": "v1", "operation": "Patch", "fieldsType": "FieldsV1"}), "operation must be"),
        (json!({"operation": "Update", "fieldsType": "FieldsV1"}), "apiVersion must not be empty"),
        (json!({"apiVersion": "v1", "operation": "Update"}), "missing fieldsType in managed fields entry 0"),
        (json!({"apiVersion": "v1", "operation": "Update", "fieldsType": "X"}), "invalid fieldsType \"X\""),
        (
            json!({"apiVersion": "v1", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}),
            "error decoding set",
        ),
    ] {
        let entry = serde_json::from_value(entry).unwrap();
        let error = Managed::decode(&[entry]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn sets_older_than_the_schema_own_the_whole_of_what_is_atomic_now() {
    let old = set(r#"{"f:spec":{"f:selector":{"f:matchLabels":{"f:app":{}}},"f:replicas":{}}}"#);
    assert_eq!(super::reconcile::reconcile(deployments(), old), set(r#"{"f:spec":{"f:selector":{},"f:replicas":{}}}"#));
}

fn any_element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[a-c]".prop_map(|name| Element::field(&name)),
        "[a-b]".prop_map(|name| Element::Key(vec![("name".into(), name.into())])),
        (0..3_i64, "[a-b]")
            .prop_map(|(port, p)| Element::Key(vec![("port".into(), port.into()), ("protocol".into(), p.into())])),
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[a-b\"]".prop_map(Value::from)
        ]
        .prop_map(Element::Value),
        (0..3_i64).prop_map(Element::Index),
    ]
}

fn any_set() -> impl Strategy<Value = Set> {
    let path = prop::collection::vec(any_element(), 1..4).prop_map(Path);
    prop::collection::vec(path, 0..12).prop_map(|paths| paths.iter().collect())
}

fn any_config() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-d]", "[x-y]", 0..4);
    let env = prop::collection::btree_map("[A-C]", "[0-2]", 0..3);
    let containers = prop::collection::btree_map("[p-r]", ("[i-j]", env), 1..3);
    (labels, containers, prop::option::of(0..3_i64), prop::collection::btree_set("[a-c]/f", 0..3)).prop_map(
        |(labels, containers, replicas, finalizers)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env))| {
                    let env: Vec<Value> = env.into_iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
                    if env.is_empty() {
                        json!({"name": name, "image": image})
                    } else {
                        json!({"name": name, "image": image, "env": env})
                    }
                })
                .collect();
            let mut spec = json!({"template": {"spec": {"containers": containers}}});
            if let Some(replicas) = replicas {
                spec["replicas"] = replicas.into();
            }
            json!({"metadata": {"name": "d", "labels": labels, "finalizers": finalizers}, "spec": spec})
        },
    )
}

proptest! {
    #[test]
    fn sets_are_the_same_after_writing_and_reading(set in any_set()) {
        let text = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Set>(&text).unwrap(), &set);
        let value = serde_json::to_value(&set).unwrap();
        prop_assert_eq!(serde_json::from_value::<Set>(value).unwrap(), set);
    }

    #[test]
    fn reading_a_set_never_panics(text in "\\{(\"[fkvi.:{}\\\\\"a1]{0,6}\":\\{\\},?){0,4}\\}") {
        let _ = serde_json::from_str::<Set>(&text);
    }

    #[test]
    fn sets_obey_the_laws(a in any_set(), b in any_set(), c in any_set()) {
        let union = |a: &Set, b: &Set| a.clone().union(b.clone());
        let minus = |a: &Set, b: &Set| a.clone().difference(b);
        prop_assert_eq!(union(&a, &b), union(&b, &a));
        prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
        prop_assert_eq!(union(&a, &a), a.clone());
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(minus(&a, &minus(&a, &b)), a.intersection(&b));
        prop_assert_eq!(union(&minus(&a, &b), &a.intersection(&b)), a.clone());
        prop_assert_eq!(minus(&minus(&a, &b), &c), minus(&a, &union(&b, &c)));
        prop_assert!(minus(&a, &a).is_empty());
        prop_assert!(a.paths().iter().all(|path| a.has(path)));
        prop_assert_eq!(a.paths().iter().collect::<Set>(), a.clone());
        prop_assert!(a.clone().recursive_difference(&b).paths().iter().all(|path| a.has(path) && !b.has(path)));
    }

    #[test]
    fn new_objects_are_owned_the_same_both_ways(config in any_config()) {
        let (short, long) = owned_when_new(deployments(), &config, &status());
        prop_assert_eq!(short, long);
    }

    #[test]
    fn applying_again_changes_nothing(one in any_config(), two in any_config()) {
        let status = status();
        let mut object = Object::new(&status);
        object.apply("a", &one, false).unwrap();
        object.apply("b", &two, true).unwrap();
        let (live, managed) = (object.live.clone(), object.managed.clone());
        prop_assert!(!object.apply("b", &two, false).unwrap());
        prop_assert_eq!((object.live, object.managed), (live, managed));
    }

    #[test]
    fn who_alone_owned_an_object_can_turn_it_into_anything(one in any_config(), two in any_config()) {
        let status = status();
        let mut object = Object::new(&status);
        object.apply("a", &one, false).unwrap();
        object.apply("a", &two, false).unwrap();
        let of = |value: &Value| field_set(deployments(), value);
        let differs = compare(deployments(), Some(&two), Some(&object.live));
        prop_assert!(differs.modified.is_empty(), "{differs:?}");
        // Lists and maps that lost everything are still there.
        prop_assert!(of(&object.live).difference(&of(&two)).paths().iter().all(|path| {
            path.to_string().ends_with("labels") || path.to_string().ends_with("env") || path.to_string().ends_with("finalizers")
        }), "{} {}", two, object.live);
        prop_assert!(of(&two).difference(&of(&object.live)).is_empty());
    }

    #[test]
    fn what_is_compared_is_what_was_changed(one in any_config(), two in any_config()) {
        let found = compare(deployments(), Some(&one), Some(&two));
        let back = compare(deployments(), Some(&two), Some(&one));
        prop_assert_eq!(&found.added, &back.removed);
        prop_assert_eq!(&found.modified, &back.modified);
        let itself = compare(deployments(), Some(&one), Some(&one));
        prop_assert_eq!(itself, Comparison::default());
    }
}
