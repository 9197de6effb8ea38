//! Reading JSON strictly: fields that stand twice or that nobody knows, named by their paths.
//!
//! Clients ask for `fieldValidation=Strict|Warn|Ignore`; the sentences here are the ones Kubernetes puts into the error or
//! the warnings: `duplicate field "spec.replicas"`, `unknown field "spec.containers[0].foo"`.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// As many sentences as one document can cause: a hostile one must not fill the log and the answer.
pub const MAX_FINDINGS: usize = 100;

/// What Go calls the type of a JSON value, as messages of Kubernetes do.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Sentences about fields that stand twice in the same object, and about those at the paths that are said to be unknown,
/// in the order they stand in the document. Each is said once; what an unknown field holds is not looked at.
///
/// # Errors
/// It is no JSON, or nested deeper than 127 levels.
pub fn dropped(json: &[u8], unknown: &[String]) -> serde_json::Result<Vec<String>> {
    let unknown = unknown.iter().map(String::as_str).collect();
    let mut scan = Scan { unknown, said: HashSet::new(), found: Vec::new() };
    let mut reader = serde_json::Deserializer::from_slice(json);
    At { scan: &mut scan, place: &Place::Root }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(scan.found)
}

struct Scan<'u> {
    unknown: HashSet<&'u str>,
    said: HashSet<String>,
    found: Vec<String>,
}

impl Scan<'_> {
    fn is_unknown(&self, place: &Place<'_>) -> bool {
        !self.unknown.is_empty() && self.unknown.contains(place.to_string().as_str())
    }

    fn say(&mut self, what: &str, place: &Place<'_>) {
        let sentence = format!("{what} field \"{place}\"");
        if self.found.len() < MAX_FINDINGS && self.said.insert(sentence.clone()) {
            self.found.push(sentence);
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

/// Fields of one object, few of which are compared sooner than hashed.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

/// As many names as are compared one by one.
const FEW: usize = 24;

impl<'a> Names<'a> {
    fn has(&self, name: &str) -> bool {
        self.few.iter().any(|known| known == name) || self.many.contains(name)
    }

    fn add(&mut self, name: Cow<'a, str>) {
        if self.few.len() < FEW {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }
}

/// The scan at a place of the document.
struct At<'s, 'u, 'p> {
    scan: &'s mut Scan<'u>,
    place: &'p Place<'p>,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while items
            .next_element_seed(At { scan: &mut *self.scan, place: &Place::Element(self.place, index) })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(Name(name)) = fields.next_key()? {
            let place = Place::Field(self.place, &name);
            let is_unknown = self.scan.is_unknown(&place);
            if is_unknown || names.has(&name) {
                self.scan.say(if is_unknown { "unknown" } else { "duplicate" }, &place);
            }
            if is_unknown {
                fields.next_value::<IgnoredAny>()?;
            } else {
                fields.next_value_seed(At { scan: &mut *self.scan, place: &place })?;
            }
            names.add(name);
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
    use serde_json::json;

    use super::*;

    fn found(json: &str, unknown: &[&str]) -> serde_json::Result<Vec<String>> {
        let unknown: Vec<String> = unknown.iter().map(|path| (*path).to_owned()).collect();
        dropped(json.as_bytes(), &unknown)
    }

    #[test]
    fn fields_that_stand_twice_are_named_with_their_paths() {
        assert_eq!(
            found(r#"{"a":1,"b":[{"c":1,"c":2}],"a":{"d":1,"d":1,"d":2}}"#, &[]).unwrap(),
            [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#, r#"duplicate field "a.d""#]
        );
        assert_eq!(found(r#"[{"a":[[{"a":1}],{"b":{"a":1}}]},{"a":2}]"#, &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn fields_that_are_dropped_are_named_in_the_order_they_stand_in() {
        assert_eq!(
            found(r#"{"spec":{"x":{"y":1,"y":2},"replicas":2,"replicas":3,"x":5},"z":0}"#, &["z", "spec.x"]).unwrap(),
            [r#"unknown field "spec.x""#, r#"duplicate field "spec.replicas""#, r#"unknown field "z""#]
        );
    }

    #[test]
    fn fields_are_counted_beyond_a_few() {
        let fields: Vec<String> = (0..100).map(|i| format!("\"x{i}\": 1")).collect();
        assert_eq!(found(&format!("{{{}}}", fields.join(",")), &[]).unwrap(), Vec::<String>::new());
        for (again, name) in [("x0", "x0"), ("x23", "x23"), ("x24", "x24"), ("x99", "x99"), ("\\u0078\\u0039", "x9")] {
            let found = found(&format!("{{{}, \"{again}\": 2}}", fields.join(",")), &[]).unwrap();
            assert_eq!(found, [format!("duplicate field \"{name}\"")]);
        }
    }

    #[test]
    fn findings_are_bounded() {
        let fields: Vec<String> = (0..500).map(|i| format!("\"x{i}\":1,\"x{i}\":2")).collect();
        assert_eq!(found(&format!("{{{}}}", fields.join(",")), &[]).unwrap().len(), MAX_FINDINGS);
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "{", "{} {}", "{} x", "{\"a\" 1}", "nul", "[1,]", "\u{feff}{}"] {
            assert!(found(text, &[]).is_err(), "{text:?}");
        }
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(found(&deep, &[]).unwrap_err().to_string().contains("recursion limit exceeded"));
            assert!(found(&format!("{}1{}", open.repeat(100), close.repeat(100)), &[]).is_ok());
        }
    }

    fn read(text: &str) -> serde_json::Result<Value> {
        serde_json::from_str(text)
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
            assert_eq!(read(text).unwrap(), number, "{text}");
            assert_eq!(read(&number.to_string()).unwrap(), number, "{text}");
        }
        assert!(read("1e400").is_err());
    }
}
