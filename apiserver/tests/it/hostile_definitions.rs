//! Definitions that try to make the server slow, large or wrong.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    definitions::{DEFINITIONS, establish, foos, open},
    harness::Cluster,
    watching::Following,
};

const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn spec(of: &Value) -> Value {
    foos(&json!({"type": "object", "properties": {"spec": of}}))
}

fn foo(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn schemas_without_end_or_bottom_are_refused() {
    let c = Cluster::start().await;
    // A schema that is its own part.
    let itself = json!({"type": "object", "properties": {"a": {"$ref": "#/properties/spec"}}});
    let refused = c.post(DEFINITIONS, &spec(&itself)).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    assert!(refused.refusal().2.contains("$ref"), "{}", refused.body);
    // One that is nested as deep as a body of allowed size lets it.
    let deep = |levels: usize| {
        let mut text = String::from(r#"{"type":"string"}"#);
        for _ in 0..levels {
            text = format!(r#"{{"type":"object","properties":{{"a":{text}}}}}"#);
        }
        text
    };
    let mut text = spec(&json!("HERE")).to_string();
    text = text.replace("\"HERE\"", &deep(20_000));
    let refused = c.send("POST", DEFINITIONS, "application/json", text).await;
    assert_eq!((refused.code, refused.refusal().1), (400, "BadRequest"), "{}", refused.body);
    // Alternatives within alternatives multiply neither time nor errors.
    let mut nested = json!({"required": ["x"]});
    for _ in 0..24 {
        nested = json!({"anyOf": [nested.clone(), {"required": ["y"]}]});
    }
    let mut alternatives = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    alternatives["anyOf"] = nested["anyOf"].clone();
    establish(&c, &spec(&alternatives)).await;
    let refused = c.post(FOOS, &foo("a", &json!({"z": 1}))).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn rules_that_would_run_for_ever_are_refused_or_stopped() {
    let c = Cluster::start().await;
    let rule = |rule: &str| json!([{"rule": rule}]);
    let list = |bounds: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        list.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        list
    };
    // Each level multiplies what the one before may come to.
    let nested = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d != 'x'))))";
    let with = |bounds: Value, text: &str| json!({"type": "object", "properties": {"l": list(bounds)}, "x-kubernetes-validations": rule(text)});
    let refused = c.post(DEFINITIONS, &spec(&with(json!({}), nested))).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    let why = "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding \
               maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert!(refused.refusal().2.contains(why), "{}", refused.body);
    // Many that are cheap alone are dear together.
    let mut many = serde_json::Map::new();
    for n in 0..40 {
        let text = "self.all(a, self.all(b, a != b || true))";
        let mut one = list(json!({"maxItems": 1000}));
        one["items"] = json!({"type": "integer"});
        one["x-kubernetes-validations"] = rule(text);
        many.insert(format!("f{n}"), one);
    }
    let refused = c.post(DEFINITIONS, &spec(&json!({"type": "object", "properties": many}))).await;
    let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
    assert!(refused.refusal().2.contains(why), "{}", refused.body);
    // What is let in is stopped when one object has cost enough.
    let bounded = json!({"type": "object", "properties": {
        "l": {"type": "array", "maxItems": 80, "items": {"type": "string", "maxLength": 10}}},
        "x-kubernetes-validations": rule("self.l.all(a, self.l.all(b, self.l.all(c, a + b + c != 'x')))")});
    establish(&c, &spec(&bounded)).await;
    let items: Vec<String> = (0..80).map(|n| format!("{n:010}")).collect();
    let answer = c.post(FOOS, &foo("a", &json!({"l": items}))).await;
    assert_eq!(answer.refusal().1, "Invalid", "{}", answer.body);
    assert!(answer.refusal().2.contains("call cost exceeds limit for rule: "), "{}", answer.body);
    assert_eq!(c.post(FOOS, &foo("a", &json!({"l": ["a", "b"]}))).await.code, 201);
    // As does a text of expressions that doubles with each of them.
    let doubling: String = (0..200).map(|_| "[").collect::<String>() + "1";
    let refused = c
        .merge(
            &format!("{DEFINITIONS}/foos.example.com"),
            &json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-validations": rule(&doubling)}}}]}}),
        )
        .await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn patterns_and_enumerations_cost_what_they_are_long() {
    let c = Cluster::start().await;
    let bomb =
        |pattern: &str| spec(&json!({"type": "object", "properties": {"t": {"type": "string", "pattern": pattern}}}));
    // What would be compiled to gigabytes is refused.
    let refused = c.post(DEFINITIONS, &bomb("((((a{1000}){1000}){1000}){1000})")).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    // What takes other engines exponential time takes this one none.
    establish(&c, &bomb("^(a+)+(a|aa)+(.*)*b$")).await;
    let refused = c.post(FOOS, &foo("a", &json!({"t": "a".repeat(100_000)}))).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.code);
    assert_eq!(c.post(FOOS, &foo("a", &json!({"t": "aab"}))).await.code, 201);
    // Ten thousand values: one is told, not all.
    let values: Vec<String> = (0..10_000).map(|n| format!("value-{n}")).collect();
    let mut many = bomb("");
    many["metadata"]["name"] = "bars.example.com".into();
    many["spec"]["names"] = json!({"plural": "bars", "kind": "Bar"});
    let one = json!({"type": "object", "properties": {"t": {"type": "string", "enum": values}}});
    many["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = one;
    establish(&c, &many).await;
    let bars = "/apis/example.com/v1/namespaces/default/bars";
    let bar =
        |t: &str| json!({"apiVersion": "example.com/v1", "kind": "Bar", "metadata": {"name": "b"}, "spec": {"t": t}});
    let refused = c.post(bars, &bar("other")).await;
    assert_eq!(refused.refusal().1, "Invalid");
    assert!(
        refused.refusal().2.contains("Unsupported value: \"other\": supported values: \"value-0\""),
        "{}",
        refused.code
    );
    assert_eq!(c.post(bars, &bar("value-9999")).await.code, 201);
    c.stop().await;
}

#[tokio::test]
async fn names_are_taken_up_to_their_limits_and_in_ascii_only() {
    let c = Cluster::start().await;
    let named = |group: &str, plural: &str, kind: &str| {
        let mut definition = foos(&open());
        definition["metadata"]["name"] = json!(format!("{plural}.{group}"));
        definition["spec"]["group"] = group.into();
        definition["spec"]["names"] = json!({"plural": plural, "kind": kind, "listKind": "Listed"});
        definition
    };
    let (p63, k63) = (format!("p{}", "a".repeat(62)), format!("K{}", "a".repeat(62)));
    let group = format!("{}.com", ["b".repeat(60), "c".repeat(60), "d".repeat(60)].join("."));
    let longest = named(&group, &p63, &k63);
    assert!(longest["metadata"]["name"].as_str().unwrap().len() <= 253);
    establish(&c, &longest).await;
    let path = format!("/apis/{group}/v1/namespaces/default/{p63}");
    let name = "n".repeat(253);
    let one = json!({"apiVersion": format!("{group}/v1"), "kind": k63, "metadata": {"name": name}});
    let made = c.post(&path, &one).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(c.get(&format!("{path}/{name}")).await.code, 200);
    assert_eq!(
        c.post(
            &path,
            &json!({"apiVersion": format!("{group}/v1"), "kind": k63, "metadata": {"name": "n".repeat(254)}})
        )
        .await
        .code,
        422
    );
    for (group, plural, kind) in [
        ("example.com", &*format!("{p63}a"), "Foo"),
        ("example.com", "foos", &*format!("{k63}a")),
        ("example.com", "f\u{f6}\u{f6}s", "Foo"),
        ("example.com", "foos", "F\u{f6}\u{f6}"),
        ("ex\u{e4}mple.com", "foos", "Foo"),
        ("example.com", "foos", "Foo Bar"),
        ("example.com", "foos/status", "Foo"),
    ] {
        let refused = c.post(DEFINITIONS, &named(group, plural, kind)).await;
        assert_eq!(refused.refusal().1, "Invalid", "{group} {plural} {kind}: {}", refused.body);
    }
    c.stop().await;
}

#[tokio::test]
async fn texts_are_of_any_letters_and_counted_as_such() {
    let c = Cluster::start().await;
    let texts = json!({"type": "object", "properties": {
        "gr\u{fc}\u{df}e \u{1f980}": {"type": "string", "maxLength": 3, "default": "\u{65e5}\u{672c}\u{8a9e}",
                                       "pattern": "^\\p{L}*$"}},
        "x-kubernetes-validations": []});
    let mut definition = spec(&texts);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] =
        "\u{202e}\u{1f980} \\ \" \u{0}".into();
    establish(&c, &definition).await;
    let made = c.post(FOOS, &foo("a", &json!({}))).await;
    assert_eq!(made.body["spec"]["gr\u{fc}\u{df}e \u{1f980}"], "\u{65e5}\u{672c}\u{8a9e}", "{}", made.body);
    let refused = c.post(FOOS, &foo("b", &json!({"gr\u{fc}\u{df}e \u{1f980}": "\u{e4}\u{f6}\u{fc}\u{df}"}))).await;
    assert!(refused.refusal().2.contains("Too long: may not be more than 3"), "{}", refused.body);
    let three = c.get("/openapi/v3/apis/example.com/v1").await;
    assert_eq!(three.code, 200);
    assert!(three.body.to_string().contains('\u{1f980}'));
    c.stop().await;
}

#[tokio::test]
async fn a_thousand_definitions_are_served() {
    const MANY: usize = 1000;
    let c = Cluster::start().await;
    let mut watch = Following::begin(&c, &format!("{DEFINITIONS}?watch=1")).await;
    for n in 0..MANY {
        let mut definition =
            foos(&json!({"type": "object", "properties": {"n": {"type": "number", "minimum": 1, "maximum": 2.5}}}));
        let group = format!("g{}.example.com", n % 100);
        let (plural, kind) = (format!("foo{n}s"), format!("Foo{n}"));
        definition["metadata"]["name"] = json!(format!("{plural}.{group}"));
        definition["spec"]["group"] = json!(group);
        definition["spec"]["names"] = json!({"plural": plural, "kind": kind});
        let made = c.post(DEFINITIONS, &definition).await;
        assert_eq!(made.code, 201, "{}", made.body);
        if n == 0 {
            // Whoever asks has documents made; those of other groups are not made anew for each definition.
            assert_eq!(c.get("/openapi/v3").await.code, 200);
        }
    }
    let mut established = BTreeSet::new();
    while established.len() < MANY {
        let event = watch.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            established.insert(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    let groups = c.get("/apis").await.body;
    assert!(groups["groups"].as_array().unwrap().len() > 100);
    let own = c.get("/apis/g99.example.com/v1").await.body;
    assert_eq!(own["resources"].as_array().map(Vec::len), Some(MANY / 100));
    assert_eq!(c.get("/apis/g99.example.com/v1/foo999s").await.code, 200);
    // A definition more changes the document of its own group, and no other one's.
    let hashes = async || c.get("/openapi/v3").await.body["paths"].clone();
    let before = hashes().await;
    let mut last = foos(&open());
    last["metadata"]["name"] = "lasts.g5.example.com".into();
    last["spec"]["group"] = "g5.example.com".into();
    last["spec"]["names"] = json!({"plural": "lasts", "kind": "Last"});
    establish(&c, &last).await;
    let after = hashes().await;
    let differ = |name: &str| before[name] != after[name];
    let changed: Vec<&String> = before.as_object().unwrap().keys().filter(|name| differ(name)).collect();
    assert_eq!(changed, ["apis/g5.example.com/v1"]);
    c.stop().await;
}
