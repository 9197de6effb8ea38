//! Fields that an object had and its kind has not, or that stood twice: what clients are told of them.

use std::collections::HashSet;

/// The path of a field that was ignored, as Kubernetes writes it: `spec.containers[0].imag`.
pub(crate) fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => match dotted(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

/// Sentences about fields that stand twice in the same object, and about those at the paths that are said to be unknown,
/// in the order they stand in the document. Each is said once; what an unknown field holds is not looked at.
///
/// # Errors
/// It is no JSON, or nested too deeply.
pub fn dropped(json: &[u8], unknown: &[String]) -> serde_json::Result<Vec<String>> {
    let unknown = unknown.iter().map(String::as_str).collect();
    let mut scan = Scan { path: Vec::new(), unknown, said: HashSet::new(), found: Vec::new() };
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde::de::DeserializeSeed::deserialize(&mut scan, &mut reader)?;
    reader.end()?;
    Ok(scan.found)
}

/// As many sentences as one document can cause.
const MAX_FOUND: usize = 100;

struct Scan<'u> {
    path: Vec<String>,
    unknown: HashSet<&'u str>,
    said: HashSet<String>,
    found: Vec<String>,
}

impl Scan<'_> {
    fn say(&mut self, what: &str, path: &str) {
        let sentence = format!("{what} field \"{path}\"");
        if self.found.len() < MAX_FOUND && self.said.insert(sentence.clone()) {
            self.found.push(sentence);
        }
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for &mut Scan<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for &mut Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            self.path.push(format!("[{index}]"));
            if items.next_element_seed(&mut *self)?.is_none() {
                self.path.pop();
                return Ok(());
            }
            self.path.pop();
            index += 1;
        }
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let name = if self.path.is_empty() { key.to_string() } else { format!(".{key}") };
            self.path.push(name);
            let is_again = !seen.insert(key);
            let is_unknown = !self.unknown.is_empty() && self.unknown.contains(self.path.concat().as_str());
            if is_again || is_unknown {
                let path = self.path.concat();
                self.say(if is_unknown { "unknown" } else { "duplicate" }, &path);
            }
            if is_unknown {
                map.next_value::<serde::de::IgnoredAny>()?;
            } else {
                map.next_value_seed(&mut *self)?;
            }
            self.path.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_stand_twice_are_named_with_their_paths() {
        let found = |json: &str, unknown: &[&str]| {
            let unknown: Vec<String> = unknown.iter().map(|path| (*path).to_owned()).collect();
            dropped(json.as_bytes(), &unknown)
        };
        assert_eq!(
            found(r#"{"a":1,"b":[{"c":1,"c":2}],"a":{"d":1,"d":1,"d":2}}"#, &[]).unwrap(),
            [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#, r#"duplicate field "a.d""#]
        );
        assert!(found("{} x", &[]).is_err());
        assert!(found(&"[".repeat(100_000), &[]).is_err());
        let many: Vec<String> = (0..500).map(|i| format!(r#""x{i}":1,"x{i}":2"#)).collect();
        assert_eq!(found(&format!("{{{}}}", many.join(",")), &[]).unwrap().len(), MAX_FOUND);
    }

    #[test]
    fn fields_that_are_dropped_are_named_in_the_order_they_stand_in() {
        let json = br#"{"spec":{"x":{"y":1,"y":2},"replicas":2,"replicas":3,"x":5},"z":0}"#;
        let unknown = ["z".to_owned(), "spec.x".to_owned()];
        assert_eq!(
            dropped(json, &unknown).unwrap(),
            [r#"unknown field "spec.x""#, r#"duplicate field "spec.replicas""#, r#"unknown field "z""#]
        );
    }
}
