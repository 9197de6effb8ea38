//! Reading JSON strictly: bounded depth, duplicate fields reported by path, unknown fields found against a type.
//!
//! Clients ask for `fieldValidation=Strict|Warn|Ignore`; the sentences here are the ones Kubernetes puts into the error or
//! the warnings: `duplicate field "spec.replicas"`, `unknown field "spec.containers[0].foo"`.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashSet,
    fmt::{self, Write as _},
};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::schema::{Shape, Type};

/// As many sentences as one document can cause: a hostile one must not fill the log and the answer.
pub const MAX_FINDINGS: usize = 100;

/// Why bytes are no JSON document; the text is for people, with line and column.
///
/// Nesting deeper than 127 levels is an error as well (`recursion limit exceeded`).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] serde_json::Error);

/// Reads one document and says which fields stand in it twice; the last one wins.
///
/// # Errors
/// Bytes that are no JSON, more than one document, or too deep nesting.
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let findings = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { at: &Place::Root, findings: &findings }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, findings.into_inner()))
}

/// Reads one document and says which fields stand in it twice or are unknown to `root`.
///
/// # Errors
/// As [`parse`].
pub fn parse_strict(bytes: &[u8], root: &Type) -> Result<(Value, Vec<String>), Error> {
    let (value, mut findings) = parse(bytes)?;
    let unknown = unknown_fields(&value, root);
    findings.extend(unknown);
    findings.truncate(MAX_FINDINGS);
    Ok((value, findings))
}

/// A sentence for every field of `value` that `root` does not have. Names are case-sensitive.
#[must_use]
pub fn unknown_fields(value: &Value, root: &Type) -> Vec<String> {
    let mut findings = Vec::new();
    walk(value, root, &Place::Root, &mut findings);
    findings
}

fn walk(value: &Value, ty: &Type, at: &Place<'_>, findings: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        if findings.len() >= MAX_FINDINGS {
            return;
        }
        let at = Place::Field(at, key);
        let Some(field) = ty.field(key) else {
            findings.push(format!("unknown field \"{at}\""));
            continue;
        };
        let Some(child) = field.child() else { continue };
        match (field.shape, value) {
            (Shape::Object, value) => walk(value, child, &at, findings),
            (Shape::List, Value::Array(list)) => {
                for (i, element) in list.iter().enumerate() {
                    walk(element, child, &Place::Element(&at, i), findings);
                }
            }
            (Shape::Map, Value::Object(map)) => {
                for (key, value) in map {
                    walk(value, child, &Place::Field(&at, key), findings);
                }
            }
            _ => {}
        }
    }
}

/// Where in a document: a list on the stack, so that a path costs nothing until it is printed.
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Seed<'a> {
    at: &'a Place<'a>,
    findings: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) =
            access.next_element_seed(Seed { at: &Place::Element(self.at, list.len()), findings: self.findings })?
        {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = Place::Field(self.at, &key);
            if map.contains_key(&key) {
                let mut findings = self.findings.borrow_mut();
                if findings.len() < MAX_FINDINGS {
                    let mut sentence = String::new();
                    // Writing to a String cannot fail.
                    let _ = write!(sentence, "duplicate field \"{at}\"");
                    findings.push(sentence);
                }
            }
            let value = access.next_value_seed(Seed { at: &at, findings: self.findings })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Whether a field stands twice in an object anywhere in a document: the quick question before [`parse`], which most
/// documents never come to. What is no JSON has none.
#[must_use]
pub fn has_repeats(bytes: &[u8]) -> bool {
    let mut found = false;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Repeats(&mut found).deserialize(&mut deserializer);
    read.is_ok() && found
}

/// Fields of one object, few of which are compared sooner than hashed.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

/// As many names as are compared one by one.
const FEW: usize = 24;

impl<'a> Names<'a> {
    /// Adds a name; whether it was there.
    fn add(&mut self, name: Cow<'a, str>) -> bool {
        if self.few.len() < FEW {
            let is_there = self.few.contains(&name);
            self.few.push(name);
            return is_there;
        }
        self.few.contains(&name) || !self.many.insert(name)
    }
}

struct Repeats<'f>(&'f mut bool);

impl<'de> DeserializeSeed<'de> for Repeats<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Repeats<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(Repeats(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(Name(name)) = access.next_key()? {
            *self.0 |= names.add(name);
            access.next_value_seed(Repeats(self.0))?;
        }
        Ok(())
    }
}

/// A field's name; borrowed, unless it has escapes.
pub(crate) struct Name<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        input.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schema;

    fn strict(kind: &str, text: &str) -> Vec<String> {
        let root = schema::of_kind("", "v1", kind).or_else(|| schema::of_kind("apps", "v1", kind)).unwrap();
        parse_strict(text.as_bytes(), root).unwrap().1
    }

    #[test]
    fn duplicate_fields_are_named_and_the_last_wins() {
        let (value, findings) = parse(br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#).unwrap();
        assert_eq!(value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(findings, ["duplicate field \"b[0].c\"", "duplicate field \"a\""]);
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        assert_eq!(
            strict(
                "Deployment",
                r#"{"kind": "Deployment", "foo": 1, "metadata": {"labels": {"any": "x"}, "Name": "x"}, "spec":
                   {"Replicas": 1, "template": {"spec": {"containers": [{"name": "a"}, {"foo": 1,
                   "resources": {"limits": {"cpu": 1}}}]}}}}"#
            ),
            [
                "unknown field \"foo\"",
                "unknown field \"metadata.Name\"",
                "unknown field \"spec.Replicas\"",
                "unknown field \"spec.template.spec.containers[1].foo\"",
            ]
        );
        assert_eq!(
            strict(
                "ConfigMap",
                r#"{"data": {"a.b": "c"}, "metadata": {"managedFields": [{"fieldsV1": {"f:x": {}}}]}}"#
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_value_of_another_type_is_for_decoding_to_refuse() {
        assert_eq!(strict("Pod", r#"{"spec": [], "metadata": null}"#), Vec::<String>::new());
        assert_eq!(strict("Pod", "[]"), Vec::<String>::new());
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(parse(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit exceeded"));
            let fine = format!("{}1{}", open.repeat(100), close.repeat(100));
            assert!(parse(fine.as_bytes()).is_ok());
        }
    }

    #[test]
    fn the_quick_look_counts_beyond_a_few_fields() {
        let fields: Vec<String> = (0..100).map(|i| format!("\"x{i}\": 1")).collect();
        assert!(!has_repeats(format!("{{{}}}", fields.join(",")).as_bytes()));
        for again in ["x0", "x23", "x24", "x99", "\\u0078\\u0039"] {
            assert!(has_repeats(format!("{{{}, \"{again}\": 2}}", fields.join(",")).as_bytes()), "{again}");
        }
    }

    #[test]
    fn findings_are_bounded() {
        let fields: Vec<String> = (0..500).map(|i| format!("\"x{i}\": 1, \"x{i}\": 2")).collect();
        assert_eq!(strict("Pod", &format!("{{{}}}", fields.join(","))).len(), MAX_FINDINGS);
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, number) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            // Beyond 64 bits, the nearest float.
            ("18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            ("-9223372036854775809", json!(-9_223_372_036_854_775_809.0)),
            ("123456789012345678901234567890", json!(1.2345678901234568e29)),
            ("0.1000000000000000055511151231257827", json!(0.1)),
            ("5e-324", json!(5e-324)),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().0, number, "{text}");
            assert_eq!(parse(number.to_string().as_bytes()).unwrap().0, number, "{text}");
        }
        assert!(parse(b"1e400").is_err());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{} {}", "{\"a\" 1}", "nul", "[1,]", "\u{feff}{}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in "[\\[\\]{}:,\"ab0-9.eE+\\- truefalsn]{0,30}") {
            let plain: Result<Value, _> = serde_json::from_str(&text);
            prop_assert_eq!(parse(text.as_bytes()).ok().map(|(value, _)| value), plain.ok());
        }

        #[test]
        fn the_quick_look_finds_what_reading_finds(text in "(\\{\"[ab]\":([0-9]|\\[?\\{\"a\":1(,\"[ab]\":2){0,2}\\}\\]?)(,\"[abc]\":null){0,30}\\})") {
            let found = parse(text.as_bytes()).is_ok_and(|(_, findings)| !findings.is_empty());
            prop_assert_eq!(has_repeats(text.as_bytes()), found);
        }

        #[test]
        fn what_it_reads_again_is_the_same(value in crate::patch::any_json(true)) {
            let (again, findings) = parse(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(again, value);
            prop_assert!(findings.is_empty());
        }
    }
}
