//! Users' manifests: YAML 1.1 as kubectl reads it (`0644` is 420, `yes` is true, `<<` merges, the last of two equal keys
//! wins), into the JSON it stands for.

mod write;

pub use self::write::to_string;

use serde::{
    Deserialize as _,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{
    Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

/// As large as one input may be: etcd's and Kubernetes' limit of one request is 3 MiB, a file may hold several objects.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// As deep as a document may nest: YAML's reader recurses, and takes so much stack for each level.
pub const MAX_DEPTH: usize = 64;

/// What a document of the greatest depth takes of the stack, amply; frames that are not optimised are several times as
/// large. Where the caller's has less left, another one is taken for the while.
const STACK: usize = if cfg!(debug_assertions) { 16 << 20 } else { 1 << 20 };

/// As many aliases as one input may use, so that a few bytes cannot stand for gigabytes.
pub const MAX_ALIASES: usize = 1_000;

/// As many events (scalars, starts and ends) as one input may expand to.
pub const MAX_EVENTS: usize = 500_000;

/// Why a text is no YAML that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is larger than [`MAX_BYTES`].
    #[error("the input has {size} bytes, more than the {MAX_BYTES} that are read")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The text is not YAML, or breaks a bound.
    #[error("line {line}: {message}")]
    Invalid {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong there.
        message: String,
    },
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_aliases: MAX_ALIASES,
        max_events: MAX_EVENTS,
        max_nodes: MAX_EVENTS,
    };
    serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

fn describe(error: &serde_saphyr::Error) -> Error {
    let mut message = error.without_snippet().to_string();
    let Some(location) = error.location() else { return Error::Invalid { line: 1, message } };
    // The line is said once, in front.
    let said = format!(" at line {}, column {}", location.line(), location.column());
    if let Some(rest) = message.strip_suffix(&said) {
        message.truncate(rest.len());
    }
    Error::Invalid { line: location.line(), message }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, serde_saphyr::Error> {
    stacker::maybe_grow(STACK, STACK, || serde_saphyr::from_multiple_with_options(text, options()))
}

/// Reads every document of a text; empty ones are left out.
///
/// # Errors
/// [`Error`], with the line, at the first thing that is wrong; nothing of the text is returned then.
pub fn parse(text: &str) -> Result<Vec<Value>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge { size: text.len() });
    }
    let documents: Vec<Value> = read(text).map_err(|error| describe(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Reads a text that holds one document; an empty text is null.
///
/// # Errors
/// As [`parse`], and when there is more than one document.
pub fn parse_one(text: &str) -> Result<Value, Error> {
    let mut documents = parse(text)?;
    if documents.len() > 1 {
        let message = format!("{} documents where one is expected", documents.len());
        return Err(Error::Invalid { line: 1, message });
    }
    Ok(documents.pop().unwrap_or_default())
}

/// Reads a text that is JSON or YAML, as manifests and request bodies may be; JSON is tried first since it is faster.
///
/// # Errors
/// As [`parse_one`].
pub fn parse_json_or_yaml(text: &str) -> Result<Value, Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    match Value::deserialize(&mut json).and_then(|value| json.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) => parse_one(text),
    }
}

/// A sentence for every key that stands in the same map a second time, in the words of Go's YAML reader, in the order of
/// the text: `line 3: key "replicas" already set in map`. What is no YAML has none.
#[must_use]
pub fn duplicates(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() <= MAX_BYTES
        && let Ok(trees) = read::<Spanned<Tree>>(text)
    {
        trees.iter().for_each(|tree| find_duplicates(&tree.value, &mut found));
    }
    found
}

fn find_duplicates(tree: &Tree, found: &mut Vec<String>) {
    match tree {
        Tree::Leaf(_) => {}
        Tree::List(items) => items.iter().for_each(|item| find_duplicates(item, found)),
        Tree::Map(entries) => {
            let mut seen = std::collections::HashSet::new();
            for (key, value) in entries {
                if !seen.insert(key) && found.len() < crate::json::MAX_FINDINGS {
                    found.push(format!("line {}: key {key:?} already set in map", value.referenced.line()));
                }
                find_duplicates(&value.value, found);
            }
        }
    }
}

/// A document with all its keys, and the lines its values stand on.
enum Tree {
    /// A scalar; its text, in case it is a key.
    Leaf(String),
    List(Vec<Tree>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl<'de> serde::Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf("null".to_owned()))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf("null".to_owned()))
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, input: D) -> Result<Tree, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Tree, Spanned<Tree>>()? {
            // Keys that are no scalars cannot be in an object.
            if let Tree::Leaf(key) = key {
                entries.push((key, value));
            }
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_stand_twice_are_told_with_their_lines() {
        let text = "a: 1\nb:\n- c: 1\n  d: 2\n  c: 3\na: 4\n";
        assert_eq!(duplicates(text), ["line 5: key \"c\" already set in map", "line 6: key \"a\" already set in map"]);
        assert_eq!(duplicates(r#"{"a": {"b": 1, "b": 2}}"#), ["line 1: key \"b\" already set in map"]);
        assert!(duplicates("a: 1\nb: {c: 1}\nd: {c: 1}\n").is_empty());
        assert!(duplicates("{").is_empty());
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        for (text, value) in [
            ("0644", json!(420)),
            ("yes", json!(true)),
            ("on", json!(true)),
            ("Off", json!(false)),
            ("\"yes\"", json!("yes")),
            ("1_000", json!(1000)),
            ("0x10", json!(16)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("22:22", json!("22:22")),
            ("100m", json!("100m")),
            ("1.2.3", json!("1.2.3")),
            ("!foo x", json!("x")),
            ("2024-01-01", json!("2024-01-01")),
        ] {
            assert_eq!(parse_one(&format!("a: {text}")), Ok(json!({"a": value})), "{text}");
        }
    }

    #[test]
    fn documents_are_split_and_empty_ones_left_out() {
        let text = "---\n# nothing\n---\na: 1\n---\n---\nb:\n- 2\n...\n";
        assert_eq!(parse(text), Ok(vec![json!({"a": 1}), json!({"b": [2]})]));
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("{\"a\": [1, \"x\"]}"), Ok(vec![json!({"a": [1, "x"]})]));
        assert_eq!(parse("a: |\n  x\n  y\nb: >-\n  x\n  y\n"), Ok(vec![json!({"a": "x\ny\n", "b": "x y"})]));
        assert!(parse_one("a: 1\n---\nb: 1\n").is_err());
    }

    #[test]
    fn keys_merge_and_the_last_of_two_wins() {
        let text = "base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  y: 3\na: 1\na: 2\n";
        assert_eq!(parse_one(text), Ok(json!({"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}, "a": 2})));
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse("a: 1\nb: [1,\nc: {\n").unwrap_err();
        assert!(matches!(error, Error::Invalid { line: 2.., .. }), "{error}");
        let error = parse("a: 1\nb: @x\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        assert!(!error.to_string().contains("at line"), "{error}");
        assert!(parse("a: .inf").is_err());
    }

    #[test]
    fn a_bomb_is_defused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let last = i - 1;
            text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{last}"); 10].join(", "));
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(100_000)).is_err());
        assert_eq!(parse(&" ".repeat(MAX_BYTES + 1)), Err(Error::TooLarge { size: MAX_BYTES + 1 }));
    }

    #[test]
    fn a_deep_document_is_read_on_a_small_stack_and_a_deeper_one_refused() {
        let nested = |levels: usize| {
            let flow = format!("{}1{}", "{a: [".repeat(levels / 2), "]}".repeat(levels / 2));
            let block: String = (0..levels).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
            [flow, block + &" ".repeat(levels) + "1\n"]
        };
        // As small as those of the server's threads.
        let small = std::thread::Builder::new().stack_size(2 << 20);
        let read = small.spawn(move || {
            for text in nested(MAX_DEPTH - 4) {
                assert!(parse_one(&text).is_ok() && duplicates(&text).is_empty(), "{text}");
            }
            for text in nested(MAX_DEPTH + 4) {
                assert!(parse_one(&text).is_err(), "{text}");
            }
        });
        read.unwrap().join().unwrap();
    }

    #[test]
    fn a_number_beyond_64_bits_is_a_float() {
        for (text, number) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("-9223372036854775809", json!(-9_223_372_036_854_775_809.0)),
            ("123456789012345678901234567890", json!(1.2345678901234568e29)),
        ] {
            assert_eq!(parse_one(text), Ok(number.clone()), "{text}");
            assert_eq!(parse_json_or_yaml(&number.to_string()), Ok(number), "{text}");
        }
    }

    #[test]
    fn json_is_read_as_json() {
        assert_eq!(parse_json_or_yaml("{\"a\": 1}"), Ok(json!({"a": 1})));
        assert_eq!(parse_json_or_yaml("a: 1"), Ok(json!({"a": 1})));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ab:\\-\\[\\]{}&*!|>'\"#%@,?\\n\\t 0-9ä]{0,40}") {
            let _ = parse(&text);
        }
    }
}
