//! Every decoder of what strangers send, over thousands of broken inputs: none panics, none hangs, none takes memory out of
//! proportion, and what can be read comes back the same.
//!
//! A usual run is short and always the same; `CORACLE_FUZZ_ROUNDS=1000000 CORACLE_FUZZ_SEED=$RANDOM cargo test --workspace
//! --lib fuzz::` is a long one. A new decoder is one line in the list of targets, and one function.

mod dice;
mod drive;

use coracle_proto::{
    apply::Managed,
    cron::Schedule,
    join_token::{BootstrapToken, JoinToken},
    json::{MAX_FINDINGS, dropped},
    name,
    patch::{json::Patch, merge, strategic},
    protobuf,
    quantity::Quantity,
    schema,
    selector::{FieldSelector, LabelSelector},
    yaml,
};
use http::{HeaderMap, HeaderValue, Method, header};
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps,
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry},
};
use serde_json::{Value, json};

use self::drive::drive;
use crate::{
    accept::{Accepted, Encoding, Form, MetaVersion},
    answer::Include,
    cel,
    custom::{schema::Schema, structural},
    go_regex,
    registry::{ListOptions, WatchOptions},
    request::RequestInfo,
};

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"größe":"名"},"creationTimestamp":
    "2026-01-01T00:00:00Z"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"protocol":"TCP"}],
    "resources":{"limits":{"cpu":"100m"}},"env":[{"name":"A","value":"1"}]}],"volumes":[{"name":"v","emptyDir":{}}]}}"#;

const SCHEMA: &str = r#"{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":
    "string","pattern":"^[a-z]+$","maxLength":9,"default":"x"},"b":{"type":"array","items":{"type":"integer","minimum":0},
    "x-kubernetes-list-type":"set"},"c":{"x-kubernetes-int-or-string":true},"d":{"type":"object","additionalProperties":{
    "type":"string"}}},"x-kubernetes-validations":[{"rule":"self.a != 'y' || has(self.b)","message":"no"}]}}}"#;

fn texts(corpus: &[&str]) -> Vec<Vec<u8>> {
    corpus.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Objects as protobuf has them.
fn messages() -> Vec<Vec<u8>> {
    let objects = [
        serde_json::from_str(POD).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "AA=="}}),
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 3, "preconditions": {"uid": "u"}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [
            {"name": "v1", "schema": {"openAPIV3Schema": serde_json::from_str::<Value>(SCHEMA).unwrap()}}]}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "2026-01-01T00:00:00.000001Z"}}),
    ];
    objects.iter().map(|object| protobuf::from_json(object).unwrap()).collect()
}

/// One line a decoder: its name, and what it can read.
macro_rules! targets {
    ($($name:ident: $corpus:expr;)*) => {
        $(
            #[test]
            fn $name() {
                drive(stringify!($name), $corpus, check::$name);
            }
        )*
    };
}

targets! {
    json_body: texts(&[POD, "{}", "[1,2.5,-3e7,\"\\ud83e\\udd80\",null]", r#"{"a":1,"a":2}"#]);
    yaml_body: texts(&["a: &x [1, yes, 0644]\nb: *x\nc:\n  <<: {d: e}\n", "- |\n  text\n- 'it''s'\n- \"\\u00e9\"\n", POD, "--- \na: 1\n...\n"]);
    yaml_answer: texts(&[POD, r#"{"a":"yes","b":"0644","c":"1e3","d":"~","e":"","f":" x","g":"a: b","h":"- c","i":"2026-01-01","j":"=","k":"é\n\ty"}"#]);
    protobuf_body: messages();
    json_patch: texts(&[r#"[{"op":"add","path":"/spec/containers/-","value":{"a":1}},{"op":"test","path":"/kind","value":"Pod"}]"#, r#"[{"op":"move","from":"/spec","path":"/a~1b"},{"op":"copy","from":"/kind","path":"/x"},{"op":"remove","path":"/metadata/labels"}]"#]);
    merge_patch: texts(&[r#"{"spec":{"containers":null,"volumes":[{}]},"metadata":{"labels":{"a":"b"}}}"#, "null", "[]"]);
    strategic_patch: texts(&[
        r#"{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d","image":"x"}],"$setElementOrder/containers":[{"name":"d"}]}}"#,
        r#"{"metadata":{"labels":{"$patch":"replace","a":"b"},"$deleteFromPrimitiveList/finalizers":["x"]},"spec":{"volumes":[{"name":"v","$retainKeys":["name"]}]}}"#,
    ]);
    label_selector: texts(&["a=b,c!=d,e in (f,g),h notin (i),j,!k,l>5", "example.com/größe=x", "x==y"]);
    field_selector: texts(&["metadata.name=a,status.phase!=Running", "a=\\,\\=\\\\,b==c"]);
    quantity: texts(&["100m", "1.5Gi", "2e3", "-0.001", "+5k", "12345678901234567890E", "1E2", ".5", "1n"]);
    cron_schedule: texts(&["*/5 * * * *", "0 0 29 2 *", "TZ=Europe/Berlin @daily", "1-5,7/2 3 ? JAN-MAR sun", "@every 1h5m"]);
    join_token: texts(&["abcdef.0123456789abcdef", "K10aaaa::abcdef.0123456789abcdef"]);
    list_query: texts(&["limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiJhIn0&labelSelector=a%3Db", "resourceVersion=7&resourceVersionMatch=Exact&timeoutSeconds=5", "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&includeObject=None&fieldSelector=metadata.name%3Da"]);
    path: texts(&["/api/v1/namespaces/a/pods/b/log?x=%41&y", "/apis/apps/v1/watch/deployments", "/api/v1/namespaces/a/status", "/openapi/v3"]);
    accept: texts(&["application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1;q=0.5, */*, application/json;stream=watch", "text/html,,;"]);
    managed_fields: texts(&[r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}},"v:\"x\"":{},"i:3":{}}}}"#]);
    cel_expression: texts(&["self.spec.replicas > 2 && self.list.all(x, x.startsWith('a')) ? true : has(self.b)", "[1, 2.5, 3u, b'a', r'\\d', '''é'''].map(x, x == dyn(1))", "{'a': 1}['a'] + size(self.list) - -1 / 7 % 3", "timestamp('2024-01-01T00:00:00Z') + duration('1h') < quantity('1Gi').asInteger()", "self.list.exists_one(x, x.matches('^(a+)+$')) || cel.bind(x, optional.of(1), x.?y.orValue(2)) == 2"]);
    pattern: texts(&["^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "(?i)\\p{L}{2,5}|[^\\x00-\\x7F]+?", "((a*)*)*b"]);
    definition_schema: texts(&[SCHEMA, r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"allOf":[{"not":{"required":["a"]}}]}"#]);
    names: texts(&["a-b.example.com", "example.com/a_b.C", "8080", "größe", "C_ID", "50%"]);
}

/// What must hold of each decoder's reading.
mod check {
    use super::*;

    fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(input)
    }

    fn json(input: &[u8]) -> Option<Value> {
        serde_json::from_slice(input).ok()
    }

    fn pod() -> Value {
        serde_json::from_str(POD).unwrap()
    }

    pub(super) fn json_body(input: &[u8]) {
        let Some(value) = json(input) else {
            assert!(dropped(input, &[]).is_err(), "what is no JSON has no fields");
            return;
        };
        assert_eq!(json(value.to_string().as_bytes()).as_ref(), Some(&value));
        assert_eq!(dropped(value.to_string().as_bytes(), &[]).unwrap(), Vec::<String>::new());
        let found = dropped(input, &["spec.containers[0].image".to_owned()]).unwrap();
        assert!(found.len() <= MAX_FINDINGS);
    }

    pub(super) fn yaml_body(input: &[u8]) {
        let text = text(input);
        let _ = yaml::duplicates(&text);
        for value in yaml::parse(&text).unwrap_or_default() {
            assert_eq!(yaml::parse_json_or_yaml(&value.to_string()), Ok(value));
        }
    }

    /// Answers are read by who reads YAML as kubectl does.
    pub(super) fn yaml_answer(input: &[u8]) {
        let Some(value) = json(input) else { return };
        // JSON may nest more deeply than YAML is read.
        if depth(&value) > 60 {
            return;
        }
        let written = yaml::to_string(&value);
        assert_eq!(yaml::parse_one(&written), Ok(value), "{written}");
    }

    fn depth(value: &Value) -> usize {
        let inner = match value {
            Value::Object(object) => object.values().map(depth).max(),
            Value::Array(items) => items.iter().map(depth).max(),
            _ => None,
        };
        inner.map_or(0, |inner| inner + 1)
    }

    pub(super) fn protobuf_body(input: &[u8]) {
        let Ok(value) = protobuf::to_json(input) else { return };
        let bytes = protobuf::from_json(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
        let again = protobuf::to_json(&bytes).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(protobuf::from_json(&again), Ok(bytes));
    }

    pub(super) fn json_patch(input: &[u8]) {
        let Some(patch) = json(input) else { return };
        let _ = Patch::new(patch).and_then(|patch| patch.apply(&pod()));
    }

    pub(super) fn merge_patch(input: &[u8]) {
        let Some(patch) = json(input) else { return };
        let (before, mut after) = (pod(), pod());
        merge::apply(&mut after, patch);
        let mut again = before.clone();
        if let Some(patch) = merge::diff(&before, &after) {
            merge::apply(&mut again, patch);
        }
        assert_eq!(again, after);
    }

    pub(super) fn strategic_patch(input: &[u8]) {
        let Some(patch) = json(input) else { return };
        for root in [schema::of_kind("", "v1", "Pod"), None] {
            if let Ok(Value::Object(after)) = strategic::apply(pod(), patch.clone(), root) {
                assert!(!after.keys().any(|key| key.starts_with("$setElementOrder/")), "{after:?}");
            }
        }
    }

    pub(super) fn label_selector(input: &[u8]) {
        let Ok(selector) = LabelSelector::parse(&text(input)) else { return };
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    pub(super) fn field_selector(input: &[u8]) {
        let Ok(selector) = FieldSelector::parse(&text(input)) else { return };
        // `==` and `=` are written the same, which may change the order of the terms, and nothing else.
        let again = FieldSelector::parse(&selector.to_string()).unwrap();
        let is_there = |term| again.terms().contains(term);
        assert!(again.terms().len() == selector.terms().len() && selector.terms().iter().all(is_there), "{selector:?}");
    }

    pub(super) fn quantity(input: &[u8]) {
        let Ok(quantity) = Quantity::parse(&text(input)) else { return };
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!((again, again.to_string()), (quantity, shown));
    }

    pub(super) fn cron_schedule(input: &[u8]) {
        let Ok(schedule) = Schedule::parse(&text(input)) else { return };
        let now = "2026-02-28T23:59:30Z".parse().unwrap();
        let next = schedule.next(now, &jiff::tz::TimeZone::UTC);
        assert!(next.is_none_or(|next| next > now), "{next:?}");
    }

    pub(super) fn join_token(input: &[u8]) {
        let text = text(input);
        if let Ok(token) = text.parse::<JoinToken>() {
            assert_eq!(token.to_string().parse::<JoinToken>().unwrap().to_string(), token.to_string());
        }
        if let Ok(token) = text.parse::<BootstrapToken>() {
            assert_eq!(token.bearer().parse::<BootstrapToken>().unwrap().bearer(), token.bearer());
        }
    }

    pub(super) fn list_query(input: &[u8]) {
        let query: String = text(input).chars().filter(|c| c.is_ascii_graphic()).collect();
        let Ok(uri) = format!("/api/v1/pods?{query}").parse() else { return };
        let info = RequestInfo::new(&Method::GET, &uri);
        let table = Form::Table(MetaVersion::V1);
        let _ = (ListOptions::of(&info), WatchOptions::of(&info), Include::of(&info, table));
    }

    pub(super) fn path(input: &[u8]) {
        let path: String = text(input).chars().filter(|c| c.is_ascii_graphic()).collect();
        let Ok(uri) = path.parse::<http::Uri>() else { return };
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let info = RequestInfo::new(&method, &uri);
            assert!(info.is_resource || !info.names_object, "{info:?}");
        }
    }

    pub(super) fn accept(input: &[u8]) {
        let mut headers = HeaderMap::new();
        let Ok(value) = HeaderValue::from_bytes(input) else { return };
        headers.insert(header::ACCEPT, value);
        let accepted = Accepted::of(&headers, || false);
        assert!(!accepted.is_ok_and(|a| a == Accepted { form: Form::Whole, encoding: Encoding::Protobuf }));
        let _ = Encoding::of(&headers);
    }

    pub(super) fn managed_fields(input: &[u8]) {
        let Some(fields) = json(input) else { return };
        let entry = ManagedFieldsEntry {
            manager: Some("m".to_owned()),
            operation: Some("Apply".to_owned()),
            api_version: Some("v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        };
        let Ok(managed) = Managed::decode(&[entry]) else { return };
        let Some(encoded) = managed.encode() else { return };
        assert_eq!(Managed::decode(&encoded).unwrap().encode(), Some(encoded));
    }

    pub(super) fn cel_expression(input: &[u8]) {
        use cel::{Budget, Environment, ListKind, Type, Value};
        let environment = Environment::new().with("self", Type::Dyn);
        let Ok(program) = cel::compile(&text(input), &environment) else { return };
        let object = json!({"spec": {"replicas": 3}, "list": ["a", "b"], "n": 1.5});
        let variables = [("self", Value::typed(&object, &Type::Dyn, &ListKind::Atomic))];
        let _ = program.run(&variables, &mut Budget::new(100_000)).map(|value| value.to_json());
    }

    pub(super) fn pattern(input: &[u8]) {
        let Ok(pattern) = go_regex::compile(&text(input)) else { return };
        let _ = pattern.is_match(&"aab名".repeat(200));
    }

    pub(super) fn definition_schema(input: &[u8]) {
        let Ok(props) = serde_json::from_slice::<JSONSchemaProps>(input) else { return };
        let path = coracle_proto::field::Path::new("openAPIV3Schema");
        for has_status in [false, true] {
            let _ = structural::validate(&props, &path, has_status);
        }
        let _ = Schema::of(&props);
    }

    pub(super) fn names(input: &[u8]) {
        let text = text(input);
        for rule in [
            name::dns1123_label,
            name::dns1123_subdomain,
            name::dns1035_label,
            name::wildcard_dns1123_subdomain,
            name::qualified_name,
            name::label_value,
            name::c_identifier,
            name::env_var_name,
            name::config_map_key,
            name::port_name,
            name::percent,
            name::http_header_name,
            name::condition_reason,
            name::http_path,
            name::ip_address,
            name::path_segment,
        ] {
            let _ = rule(&text);
        }
    }
}
