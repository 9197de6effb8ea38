//! JSON to protobuf and back is the same JSON, for every kind and every field.

use serde_json::Map;

use super::*;

/// Numbers from a seed, evenly enough for tests (Knuth's MMIX generator, the high bits).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn text(&mut self) -> String {
        const WORDS: &[&str] = &["a", "web", "größe", "名前", "\u{1f980}", "with \"quotes\"\n", "x/y.z"];
        let word = WORDS[usize::try_from(self.roll(WORDS.len() as u64)).unwrap()];
        if self.roll(20) == 0 { word.repeat(200) } else { word.to_owned() }
    }
}

/// A value of a type as Go's JSON has it; what Go's JSON leaves out is never zero.
fn value(content: &Type, dice: &mut Dice, depth: u32) -> Value {
    let keeps = |keeps_zero: bool, dice: &mut Dice| keeps_zero && dice.roll(4) == 0;
    match content {
        Type::Text { keeps_zero } if keeps(*keeps_zero, dice) => "".into(),
        Type::Text { .. } => dice.text().into(),
        Type::Integer { keeps_zero } if keeps(*keeps_zero, dice) => 0.into(),
        Type::Integer { .. } => {
            [1, -1, 80, 300, i64::from(i32::MAX), i64::MAX, i64::MIN][usize::try_from(dice.roll(7)).unwrap()].into()
        }
        Type::Boolean { keeps_zero } => (!keeps(*keeps_zero, dice)).into(),
        Type::Double => [0.0, 1.5, -2e10][usize::try_from(dice.roll(3)).unwrap()].into(),
        Type::Bytes => ["", "AA==", "AP/+"][usize::try_from(dice.roll(3)).unwrap()].into(),
        Type::List(element) => {
            (0..=dice.roll(2)).map(|_| value(&element.said(), dice, depth)).collect::<Vec<_>>().into()
        }
        Type::Map(content) => {
            Value::Object((0..=dice.roll(2)).map(|_| (dice.text(), value(&content.said(), dice, depth))).collect())
        }
        Type::Message(inner) => {
            let mut object = Map::new();
            fill(inner, &mut object, dice, depth + 1);
            object.into()
        }
        Type::Time => ["1970-01-01T00:00:00Z", "2026-02-28T23:59:59Z", "1969-12-31T23:59:59Z"]
            [usize::try_from(dice.roll(3)).unwrap()]
        .into(),
        Type::MicroTime => ["1970-01-01T00:00:00.000000Z", "2026-02-28T23:59:59.000001Z"]
            [usize::try_from(dice.roll(2)).unwrap()]
        .into(),
        Type::Duration => ["0s", "15.25s", "-1h0m0.000000001s"][usize::try_from(dice.roll(3)).unwrap()].into(),
        Type::Quantity => ["0", "100m", "1Gi"][usize::try_from(dice.roll(3)).unwrap()].into(),
        Type::IntOrString => {
            [json!(0), json!(-5), json!("25%"), json!("")][usize::try_from(dice.roll(4)).unwrap()].clone()
        }
        Type::Raw => [json!({"a": [1, null, {"b": "ü"}]}), json!("x"), json!(7), json!([])]
            [usize::try_from(dice.roll(4)).unwrap()]
        .clone(),
        Type::Items => json!([dice.text(), ""]),
        Type::SchemaOrArray => match dice.roll(3) {
            0 => json!([{"type": "string"}, {}]),
            _ => json!({"type": "integer", "enum": [1, "a"]}),
        },
        Type::SchemaOrBool => {
            [json!(true), json!(false), json!({"minimum": 0.5})][usize::try_from(dice.roll(3)).unwrap()].clone()
        }
    }
}

/// Some of a message's fields, and those that Go always has.
fn fill(message: &str, object: &mut Map<String, Value>, dice: &mut Dice, depth: u32) {
    for field in &TABLES[message] {
        let Some(name) = field.name else {
            let Type::Message(inner) = &field.content else { panic!("{message} inlines {:?}", field.content) };
            fill(inner, object, dice, depth);
            continue;
        };
        let is_always = match &field.content {
            Type::Text { keeps_zero } | Type::Integer { keeps_zero } | Type::Boolean { keeps_zero } => {
                *keeps_zero && field.is_value
            }
            Type::Message(_) | Type::Duration | Type::IntOrString | Type::Quantity => field.is_value,
            _ => false,
        };
        if is_always || (depth < 12 && dice.roll(3 + u64::from(depth)) < 2) {
            object.insert(name.to_owned(), value(&field.content, dice, depth));
        }
    }
}

impl Type {
    /// The type as an element, whose zero counts.
    fn said(&self) -> Self {
        match self {
            Self::Text { .. } => Self::Text { keeps_zero: true },
            Self::Integer { .. } => Self::Integer { keeps_zero: true },
            Self::Boolean { .. } => Self::Boolean { keeps_zero: true },
            other => other.clone(),
        }
    }
}

fn object(api_version: &str, kind: &str, seed: u64) -> Value {
    let message = message_of(api_version, kind).unwrap_or_else(|| panic!("no table for {api_version} {kind}"));
    let mut object = Map::new();
    fill(&message, &mut object, &mut Dice(seed), 0);
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    object.into()
}

fn kinds() -> Vec<(String, &'static str)> {
    let built_in = RESOURCES.iter().flat_map(|r| {
        let below = r
            .subresources
            .iter()
            .map(|s| (if s.group.is_empty() { "v1".to_owned() } else { format!("{}/{}", s.group, s.version) }, s.kind));
        [(r.api_version(), r.kind), (r.api_version(), r.list_kind)].into_iter().chain(below)
    });
    let answers = ["Status", "APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "DeleteOptions"];
    let metadata = ["v1", "v1beta1"].into_iter().flat_map(|version| {
        ["PartialObjectMetadata", "PartialObjectMetadataList"].map(|kind| (format!("meta.k8s.io/{version}"), kind))
    });
    let answers = answers.map(|kind| ("v1".to_owned(), kind));
    built_in.chain(answers).chain(metadata).filter(|(_, kind)| !kind.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_kind_comes_back_as_it_was(seed in any::<u64>()) {
        for (api_version, kind) in kinds() {
            let said = object(&api_version, kind, seed);
            let bytes = from_json(&said).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let read = to_json(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&read, &said);
            prop_assert_eq!(from_json(&read), Ok(bytes));
        }
    }

    #[test]
    fn what_can_be_read_comes_back_the_same(content in prop::collection::vec(any::<u8>(), 0..200)) {
        for (api_version, kind) in [("v1", "Pod"), ("v1", "Status"), ("apps/v1", "Deployment")] {
            let Ok(read) = to_json(&body(api_version, kind, &content)) else { continue };
            let bytes = from_json(&read).map_err(|error| TestCaseError::fail(error.to_string()))?;
            // What Go always writes is there now; from then on nothing changes.
            let again = to_json(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(from_json(&again), Ok(bytes));
        }
    }

    #[test]
    fn a_list_item_by_item_is_the_list_at_once(seed in any::<u64>()) {
        let items: Vec<Value> = (0..3).map(|n| object("v1", "Pod", seed.wrapping_add(n))).collect();
        let meta = json!({"resourceVersion": "7", "remainingItemCount": 2, "continue": "next"});
        let mut list = List::new(("v1", "PodList"), &meta, ("v1", "Pod"), 0).unwrap();
        for item in &items {
            list.push(item).unwrap();
        }
        let whole = json!({"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": items});
        prop_assert_eq!(Ok(list.finish()), from_json(&whole));
    }
}

#[test]
fn go_writes_what_is_no_pointer() {
    // As client-go encodes &v1.ConfigMap{ObjectMeta: {Name: "a"}, Data: {"b": "", "a": "1"}}.
    let said = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "", "a": "1"}});
    let meta = [
        bytes(1, b"a"),
        bytes(2, b""),
        bytes(3, b""),
        bytes(4, b""),
        bytes(5, b""),
        bytes(6, b""),
        number(7, 0),
        bytes(8, b""),
    ];
    let entry = |key: &str, value: &[u8]| [bytes(1, key.as_bytes()), bytes(2, value)].concat();
    let raw = [bytes(1, &meta.concat()), bytes(2, &entry("a", b"1")), bytes(2, &entry("b", b""))];
    assert_eq!(from_json(&said), Ok(body("v1", "ConfigMap", &raw.concat())));
}

#[test]
fn an_event_of_a_watch_stands_behind_its_length() {
    let mut out = Vec::new();
    write_event("ADDED", b"k8s\0...".to_vec(), &mut out).unwrap();
    let event = [bytes(1, b"ADDED"), bytes(2, &bytes(1, b"k8s\0..."))].concat();
    assert_eq!(out, [vec![0, 0, 0, u8::try_from(event.len()).unwrap()], event].concat());
}

#[test]
fn a_field_of_another_type_is_refused_by_name() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": 7}]}});
    assert_eq!(from_json(&pod).unwrap_err().to_string(), "Pod.spec.containers.name: the field is of another type");
    let custom = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
    assert!(matches!(from_json(&custom), Err(Error::UnknownKind { .. })));
}
