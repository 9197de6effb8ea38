//! What is asked: any verb of any path of the documents, with parameters and a body that are right, nearly right, or not.

use std::{collections::BTreeMap, fmt};

use coracle_proto::protobuf;
use http::Method;
use serde_json::{Map, Value, json};

use crate::{dice::Dice, kinds};

/// Namespaces that are there, for a while.
pub(super) const NAMESPACES: &[&str] = &["gen-a", "gen-b"];

/// Objects are called one of these, so that requests meet what others left.
const NAMES: &[&str] = &["a", "b", "c", "web", "x", "kubernetes", "default", "kube-root-ca.crt", "foos.example.com"];

const ACCEPTED: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf,application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
    "*/*",
    "text/html;q=x",
];

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Writes of these change how everything else is answered, so they are checked and not kept.
const NOT_KEPT: &[&str] = &["webhookconfigurations", "admissionpolic", "apiservices"];

/// A request.
pub(super) struct Sent {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) media: &'static str,
    pub(super) accept: &'static str,
    pub(super) body: Vec<u8>,
    /// Whether the answer goes on for as long as the client likes.
    pub(super) is_endless: bool,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} as {}, for {}: {}", self.method, self.path, self.media, self.accept, self.body.escape_ascii())
    }
}

struct Operation {
    method: Method,
    path: String,
    query: Vec<String>,
    /// The schema of the body.
    body: Option<String>,
    /// Group, version and kind that it is about.
    api_version: String,
    kind: String,
}

/// What the documents say.
pub(super) struct Api {
    operations: Vec<Operation>,
    schemas: BTreeMap<String, Value>,
    /// Objects that are right, by the last part of the path they are at.
    objects: Vec<(&'static str, Value)>,
}

fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    direct.and_then(|path| path.rsplit('/').next())
}

impl Api {
    pub(super) fn read(documents: &[Value]) -> Self {
        let (mut operations, mut schemas) = (Vec::new(), BTreeMap::new());
        for document in documents {
            for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                schemas.insert(name.clone(), schema.clone());
            }
            for (path, item) in document["paths"].as_object().into_iter().flatten() {
                let shared = item["parameters"].as_array();
                for (method, operation) in item.as_object().into_iter().flatten() {
                    let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else { continue };
                    if !operation.is_object() {
                        continue;
                    }
                    let own = operation["parameters"].as_array();
                    let parameters = shared.into_iter().chain(own).flatten();
                    let query = parameters.filter(|p| p["in"] == "query").filter_map(|p| p["name"].as_str());
                    let content = operation["requestBody"]["content"].as_object();
                    let body =
                        content.and_then(|content| content.values().next()).and_then(|c| reference(&c["schema"]));
                    let about = &operation["x-kubernetes-group-version-kind"];
                    let word = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
                    let api_version = [word("group"), word("version")]
                        .into_iter()
                        .filter(|w| !w.is_empty())
                        .collect::<Vec<_>>()
                        .join("/");
                    operations.push(Operation {
                        method,
                        path: path.clone(),
                        query: query.map(str::to_owned).collect(),
                        body: body.map(str::to_owned),
                        api_version,
                        kind: word("kind"),
                    });
                }
            }
        }
        assert!(operations.len() > 500, "only {} operations are documented", operations.len());
        Self { operations, schemas, objects: kinds::objects() }
    }

    /// One request.
    pub(super) fn request(&self, dice: &mut Dice) -> Sent {
        let operation = &self.operations[dice.roll(self.operations.len())];
        let name = name(dice);
        let mut path = fill(&operation.path, &name, dice);
        let mut query: Vec<(String, String)> = Vec::new();
        let common =
            ["limit", "continue", "resourceVersion", "labelSelector", "fieldSelector", "dryRun", "watch", "timeout"];
        for known in operation.query.iter().map(String::as_str).chain(common) {
            if dice.roll(8) == 0 {
                query.push((known.to_owned(), parameter(known, dice)));
            }
        }
        if NOT_KEPT.iter().any(|kept| path.contains(kept)) {
            query.retain(|(name, _)| name != "dryRun");
            query.push(("dryRun".to_owned(), "All".to_owned()));
        }
        let is_endless = query.iter().any(|(name, value)| name == "watch" && !matches!(value.as_str(), "0" | "false"))
            || path.contains("/watch/")
            || query.iter().any(|(name, _)| name == "follow");
        for (index, (name, value)) in query.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(&format!("{}={}", encode(name), encode(value)));
        }
        let method = match dice.roll(40) {
            0 => Method::OPTIONS,
            1 => Method::HEAD,
            2 => Method::PUT,
            _ => operation.method.clone(),
        };
        let accept = ACCEPTED[if dice.roll(2) == 0 { 0 } else { dice.roll(ACCEPTED.len()) }];
        let (media, body) = self.body(operation, &method, &name, dice);
        Sent { method, path, media, accept, body, is_endless }
    }

    fn body(&self, operation: &Operation, method: &Method, name: &str, dice: &mut Dice) -> (&'static str, Vec<u8>) {
        let mut object = self.object(operation, name, dice);
        for _ in 0..dice.roll(4) {
            change(&mut object, dice);
        }
        let (media, mut body) = match *method {
            Method::PATCH => {
                let media = dice.pick(PATCHES);
                let patch = if media.contains("json-patch") { operations(&object, dice) } else { object };
                (media, patch.to_string().into_bytes())
            }
            _ => match dice.roll(6) {
                0 => ("application/yaml", serde_yaml::to_string(&object).unwrap_or_default().into_bytes()),
                1 => match protobuf::from_json(&object) {
                    Ok(bytes) => (protobuf::MEDIA, bytes),
                    Err(_) => ("application/json", object.to_string().into_bytes()),
                },
                _ => ("application/json", object.to_string().into_bytes()),
            },
        };
        if dice.roll(8) == 0 {
            body = dice.mutate(&[body]);
        }
        (media, body)
    }

    /// An object of the operation's kind: one that is right, or one that the schema allows.
    fn object(&self, operation: &Operation, name: &str, dice: &mut Dice) -> Value {
        let plural = |path: &str| path.rsplit('/').find(|part| !part.starts_with('{')).map(str::to_owned);
        let known = self.objects.iter().find(|(path, _)| plural(path) == plural(&operation.path));
        let mut object = match (known, &operation.body) {
            (Some((_, object)), _) if dice.roll(2) == 0 => object.clone(),
            (_, Some(schema)) => self.value(self.schemas.get(schema).unwrap_or(&Value::Null), "", 0, dice),
            (Some((_, object)), None) => object.clone(),
            (None, None) => json!({}),
        };
        if let Value::Object(object) = &mut object {
            if !operation.kind.is_empty() && dice.roll(20) > 0 {
                object.insert("apiVersion".to_owned(), operation.api_version.clone().into());
                object.insert("kind".to_owned(), operation.kind.clone().into());
            }
            if dice.roll(20) > 0 {
                let meta = object.entry("metadata").or_insert_with(|| json!({}));
                if dice.roll(3) > 0 {
                    *meta = json!({});
                }
                if let Value::Object(meta) = meta {
                    meta.insert("name".to_owned(), name.into());
                }
            }
        }
        object
    }

    /// A value that a schema allows, with what must be there and some of what may.
    fn value(&self, schema: &Value, property: &str, depth: usize, dice: &mut Dice) -> Value {
        if let Some(other) = reference(schema) {
            return self.schemas.get(other).map_or(Value::Null, |schema| self.value(schema, property, depth, dice));
        }
        let deeper = |schema: &Value, property: &str, dice: &mut Dice| self.value(schema, property, depth + 1, dice);
        match (schema["type"].as_str(), schema["format"].as_str()) {
            _ if depth > 12 => Value::Null,
            (Some("object"), _) if schema["properties"].is_object() => {
                let required: Vec<&str> =
                    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let mut object = Map::new();
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    if required.contains(&name.as_str()) || dice.roll(2 + depth) == 0 {
                        object.insert(name.clone(), deeper(schema, name, dice));
                    }
                }
                object.into()
            }
            (Some("object"), _) => {
                let inner = &schema["additionalProperties"];
                (0..dice.roll(3)).map(|_| (text("", dice), deeper(inner, "", dice))).collect::<Map<_, _>>().into()
            }
            (Some("array"), _) => (0..=dice.roll(2)).map(|_| deeper(&schema["items"], property, dice)).collect(),
            (Some("boolean"), _) => (dice.roll(2) == 0).into(),
            (Some("integer"), _) => [0, 1, 3, 80, -1, 65_536, i64::from(i32::MAX), i64::MAX][dice.roll(8)].into(),
            (Some("number"), _) => [0.0, 1.5, -1e300][dice.roll(3)].into(),
            (_, Some("byte")) => ["", "AA==", "dGV4dA=="][dice.roll(3)].into(),
            (_, Some("date-time")) => ["2026-02-28T23:59:59Z", "1969-12-31T23:59:59.999999Z"][dice.roll(2)].into(),
            (Some("string"), Some("int-or-string")) | (None, Some("int-or-string")) => {
                [json!(1), json!("25%"), json!("http"), json!(-1)][dice.roll(4)].clone()
            }
            (Some("string"), _) => match schema["enum"].as_array() {
                Some(words) if dice.roll(10) > 0 => words[dice.roll(words.len())].clone(),
                _ => text(property, dice).into(),
            },
            _ => [json!({}), json!("1"), json!(100), json!([])][dice.roll(4)].clone(),
        }
    }
}

/// A name: mostly a good one, sometimes at the end of what names may be, sometimes none.
fn name(dice: &mut Dice) -> String {
    match dice.roll(24) {
        0 => "n".repeat(63),
        1 => "n".repeat(64),
        2 => format!("{}.{}", "n".repeat(126), "m".repeat(126)),
        3 => "n".repeat(254),
        4 => dice.word().to_owned(),
        5 => "größe".to_owned(),
        _ => dice.pick(NAMES).to_owned(),
    }
}

/// A text for a property, by what its name says of it.
fn text(property: &str, dice: &mut Dice) -> String {
    if dice.roll(6) == 0 {
        return dice.word().to_owned();
    }
    match property {
        "namespace" => dice.pick(NAMESPACES).to_owned(),
        "apiVersion" => ["v1", "apps/v1", "example.com/v1"][dice.roll(3)].to_owned(),
        "kind" => ["Pod", "Deployment", "Foo"][dice.roll(3)].to_owned(),
        "expression" | "rule" | "messageExpression" => {
            ["true", "object.spec.replicas > 1", "1 +"][dice.roll(3)].to_owned()
        }
        "schedule" => ["@daily", "*/5 * * * *"][dice.roll(2)].to_owned(),
        "ip" | "clusterIP" | "podIP" | "hostIP" => ["10.96.0.9", "::1", "None", "1.2.3"][dice.roll(4)].to_owned(),
        "operator" => ["In", "Exists", "Gt", "Equal"][dice.roll(4)].to_owned(),
        "type" => ["ClusterIP", "Opaque", "RollingUpdate", "object", "Ready", "Utilization"][dice.roll(6)].to_owned(),
        "path" | "mountPath" => ["/", "/data", "../x", "a/b"][dice.roll(4)].to_owned(),
        "pattern" => ["^[a-z]+$", "("][dice.roll(2)].to_owned(),
        _ => name(dice),
    }
}

fn parameter(known: &str, dice: &mut Dice) -> String {
    let usual: &[&str] = match known {
        "limit" => &["1", "2", "0", "-1", "9223372036854775808"],
        "continue" => &["", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "x"],
        "resourceVersion" => &["0", "1", "5", "99999999999", "-1"],
        "resourceVersionMatch" => &["Exact", "NotOlderThan", "x"],
        "labelSelector" => &["a=b", "a in (b,c)", "!x", "a=="],
        "fieldSelector" => &["metadata.name=a", "metadata.namespace!=x", "status.phase=Running", "x=y"],
        "dryRun" => &["All", "x"],
        "fieldManager" => &["me", "größe"],
        "fieldValidation" => &["Strict", "Warn", "Ignore", "x"],
        "propagationPolicy" => &["Foreground", "Background", "Orphan", "x"],
        "timeout" => &["1s", "0s", "1ms", "x"],
        "timeoutSeconds" | "gracePeriodSeconds" | "tailLines" => &["0", "1", "-1", "x"],
        _ => &["true", "false", "1", "0", ""],
    };
    if dice.roll(6) == 0 { dice.word().to_owned() } else { dice.pick(usual).to_owned() }
}

/// A path with its blanks filled in.
fn fill(template: &str, name: &str, dice: &mut Dice) -> String {
    let parts = template.split('/').map(|part| match part {
        "{namespace}" => encode(match dice.roll(8) {
            0 => "kube-system",
            1 => "not-there",
            2 => dice.word(),
            _ => dice.pick(NAMESPACES),
        }),
        "{name}" => encode(name),
        part if part.starts_with('{') => encode(dice.pick(&["a", "a/b", "", "..", "https:a:1"])),
        part => part.to_owned(),
    });
    let mut path = parts.collect::<Vec<_>>().join("/");
    if dice.roll(50) == 0 {
        path.push_str(&encode(dice.word()));
    }
    path
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Puts something else in one place of a value.
fn change(value: &mut Value, dice: &mut Dice) {
    let length = match value {
        Value::Object(object) => object.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if length > 0 && dice.roll(6) > 0 {
        let at = dice.roll(length);
        let inner = match value {
            Value::Object(object) => object.values_mut().nth(at),
            Value::Array(items) => items.get_mut(at),
            _ => None,
        };
        return inner.into_iter().for_each(|inner| change(inner, dice));
    }
    match (dice.roll(8), &mut *value) {
        (0, Value::Object(object)) => {
            object.insert(dice.word().to_owned(), dice.word().into());
        }
        (1, Value::Array(items)) => items.extend(items.clone()),
        (2, Value::Object(object)) => object.clear(),
        (3, _) => *value = Value::Null,
        (4, _) => *value = json!([value.clone()]),
        (5, _) => *value = json!({"a": value.clone()}),
        (6, _) => *value = [json!(0), json!(-1), json!(i64::MAX), json!(1e300), json!(true)][dice.roll(5)].clone(),
        _ => *value = dice.word().into(),
    }
}

/// A JSON patch that puts parts of an object where they belong, or elsewhere.
fn operations(object: &Value, dice: &mut Dice) -> Value {
    let entries = object.as_object().map(|object| object.iter().collect::<Vec<_>>()).unwrap_or_default();
    let operations = entries.into_iter().map(|(name, value)| {
        let operation = ["add", "replace", "remove", "test", "copy", "move"][dice.roll(6)];
        let place = ["", "/-", "/0", "/metadata/name", "/~1"][if dice.roll(2) == 0 { 0 } else { dice.roll(5) }];
        json!({"op": operation, "path": format!("/{name}{place}"), "from": "/metadata", "value": value})
    });
    operations.collect()
}
