//! How objects are stored, and how stored bytes become answers without being decoded.
//!
//! The key is `/registry/<storage>/<namespace>/<name>` (no namespace at cluster scope). The value is the object's JSON
//! without `metadata.resourceVersion`, which is the entry's revision and is spliced in on the way out. What lists,
//! watches and selectors look at is read once per version and kept beside it ([`Header`]).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use coracle_store::{Entry, Revision};
use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What field selectors look at, by the fields' names.
pub(crate) type FieldValues = Vec<(Cow<'static, str>, String)>;

/// The facts about a stored object that reads need.
#[derive(Debug, Default)]
pub struct Header {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is marked for deletion.
    pub is_deleting: bool,
    /// The first byte within `metadata`'s braces.
    splice: usize,
    /// The byte after `metadata`'s last one.
    end: usize,
    /// Where it says who owns which fields, with the comma that goes with it.
    owners: Range<usize>,
    /// Values for field selectors, worked out when one is first used, and the group whose names they have: objects that two
    /// groups show (events) have other names in each.
    pub(crate) fields: OnceLock<(&'static str, FieldValues)>,
}

/// An object's metadata, without a look at what follows it, which is most of it.
pub(crate) fn metadata(object: &[u8]) -> Option<&RawValue> {
    struct Look<'l, 'a>(&'l mut Option<&'a RawValue>);

    impl<'de> Visitor<'de> for Look<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
            while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                if name == "metadata" {
                    *self.0 = Some(fields.next_value()?);
                    return Ok(());
                }
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // It fails because there is more to come, and that is as it should be.
    let _ = serde_json::Deserializer::from_slice(object).deserialize_map(Look(&mut found));
    found
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    managed_fields: Option<&'a RawValue>,
}

/// How it begins.
const OWNERS: &[u8] = b"\"managedFields\":";

/// Where `part` is in `whole`, which it is a part of.
fn place(part: &str, whole: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    Some(start..start + part.len())
}

/// Where a field of this value can be cut out of an object that it is not the only field of.
fn cut(value: Range<usize>, name: &[u8], whole: &[u8]) -> Option<Range<usize>> {
    let start = value.start.checked_sub(name.len()).filter(|start| whole.get(*start..value.start) == Some(name))?;
    if whole.get(value.end) == Some(&b',') {
        return Some(start..value.end + 1);
    }
    let before = start.checked_sub(1).filter(|before| whole.get(*before) == Some(&b','))?;
    Some(before..value.end)
}

impl Header {
    /// Reads a stored value. What is no object (nothing in the registry is that) has an empty header.
    fn read(value: &[u8]) -> Self {
        Self::try_read(value).unwrap_or_else(|| {
            tracing::error!(bytes = value.len(), "a stored object cannot be read");
            Self::default()
        })
    }

    fn try_read(value: &[u8]) -> Option<Self> {
        let raw = metadata(value)?.get();
        let meta: Meta<'_> = serde_json::from_str(raw).ok()?;
        let Range { start, end } = place(raw, value)?;
        let owners = meta.managed_fields.and_then(|owners| cut(place(owners.get(), value)?, OWNERS, value));
        Some(Self {
            namespace: meta.namespace.into_owned(),
            name: meta.name.into_owned(),
            uid: meta.uid.into_owned(),
            labels: meta.labels.unwrap_or_default(),
            is_deleting: meta.deletion_timestamp.is_some(),
            splice: start + 1,
            end,
            owners: owners.unwrap_or_default(),
            fields: OnceLock::new(),
        })
    }

    /// The header of a stored version.
    #[must_use]
    pub fn of(entry: &Entry) -> Arc<Self> {
        entry.derived(|entry| Self::read(&entry.value))
    }

    /// `namespace/name`, or the name alone at cluster scope.
    #[must_use]
    pub fn key(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// Appends the object with its resourceVersion.
pub fn write_object(entry: &Entry, out: &mut Vec<u8>) {
    write_at(entry, entry.mod_revision, out);
}

/// Appends the object as of `revision`, which for a deleted object's last version is that of the deletion.
pub(crate) fn write_at(entry: &Entry, revision: Revision, out: &mut Vec<u8>) {
    write_but(entry, revision, 0..0, out);
}

/// The same without its owners: half of a small object, which nobody looks at who only follows what happens.
pub(crate) fn write_lean_at(entry: &Entry, revision: Revision, out: &mut Vec<u8>) {
    write_but(entry, revision, Header::of(entry).owners.clone(), out);
}

/// Appends the object but for some bytes of its metadata.
fn write_but(entry: &Entry, revision: Revision, left_out: Range<usize>, out: &mut Vec<u8>) {
    let header = Header::of(entry);
    let (before, after) = entry.value.split_at_checked(header.splice).unwrap_or((&entry.value, &[]));
    out.reserve(entry.value.len() + 42);
    out.extend_from_slice(before);
    write_version(revision, after, out);
    let from = |at: usize| at.checked_sub(header.splice).and_then(|at| after.split_at_checked(at));
    match (from(left_out.start), from(left_out.end)) {
        (Some((first, _)), Some((_, last))) => {
            out.extend_from_slice(first);
            out.extend_from_slice(last);
        }
        _ => out.extend_from_slice(after),
    }
}

/// Appends the object's `metadata` with its resourceVersion, braces included.
pub(crate) fn write_metadata(entry: &Entry, revision: Revision, out: &mut Vec<u8>) {
    let header = Header::of(entry);
    let after = entry.value.get(header.splice..header.end).unwrap_or(b"}");
    out.push(b'{');
    write_version(revision, after, out);
    out.extend_from_slice(after);
}

/// An object that is not stored (a dry run's) has no resourceVersion.
fn write_version(revision: Revision, after: &[u8], out: &mut Vec<u8>) {
    if revision == Revision::NONE {
        return;
    }
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.0.to_string().as_bytes());
    out.extend_from_slice(if after.first() == Some(&b'}') { b"\"" } else { b"\"," });
}

/// The object with its resourceVersion.
#[must_use]
pub fn object(entry: &Entry) -> Bytes {
    let mut out = Vec::with_capacity(entry.value.len() + 42);
    write_object(entry, &mut out);
    out.into()
}

/// The key of an object; `namespace` is empty at cluster scope.
#[must_use]
pub fn key(storage: &str, namespace: &str, name: &str) -> Bytes {
    if namespace.is_empty() {
        format!("/registry/{storage}/{name}").into()
    } else {
        format!("/registry/{storage}/{namespace}/{name}").into()
    }
}

/// What the keys of a namespace's objects (of all objects, when it is empty) begin with.
#[must_use]
pub fn prefix(storage: &str, namespace: &str) -> Bytes {
    if namespace.is_empty() {
        format!("/registry/{storage}/").into()
    } else {
        format!("/registry/{storage}/{namespace}/").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str) -> Entry {
        Entry {
            key: Bytes::from_static(b"/registry/x/n"),
            value: value.to_owned().into(),
            create_revision: Revision(3),
            mod_revision: Revision(7),
            version: 1,
            lease: None,
            derived: Default::default(),
        }
    }

    #[test]
    fn the_resource_version_is_spliced_into_the_metadata_of_the_object_itself() {
        let entry = entry(
            r#"{"kind":"ConfigMap","data":{"metadata":"{\"metadata\":{"},"metadata":{"name":"n","labels":{"a":"b"}},"z":1}"#,
        );
        let shown: serde_json::Value = serde_json::from_slice(&object(&entry)).unwrap();
        assert_eq!(shown["metadata"]["resourceVersion"], "7");
        assert_eq!(shown["data"]["metadata"], "{\"metadata\":{");
        let header = Header::of(&entry);
        assert_eq!((header.name.as_str(), header.labels["a"].as_str()), ("n", "b"));
        let mut lean = Vec::new();
        write_lean_at(&entry, Revision(7), &mut lean);
        assert_eq!(lean, object(&entry), "there is nothing to leave out");
        let mut meta = Vec::new();
        write_metadata(&entry, Revision(9), &mut meta);
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta, serde_json::json!({"resourceVersion": "9", "name": "n", "labels": {"a": "b"}}));
    }

    #[test]
    fn owners_are_left_out_wherever_they_stand() {
        let owners = r#""managedFields":[{"manager":"\"managedFields\":[]","fieldsV1":{"f:a":{}}}]"#;
        for (before, after) in
            [("", r#","name":"n""#), (r#""labels":{"managedFields":"x"},"#, r#","name":"n""#), (r#""name":"n","#, "")]
        {
            let entry = entry(&format!(r#"{{"kind":"X","metadata":{{{before}{owners}{after}}},"spec":{{"a":1}}}}"#));
            let mut lean = Vec::new();
            write_lean_at(&entry, Revision(7), &mut lean);
            let lean: serde_json::Value = serde_json::from_slice(&lean).unwrap();
            let mut whole: serde_json::Value = serde_json::from_slice(&object(&entry)).unwrap();
            whole["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap();
            assert_eq!(lean, whole, "{before}");
        }
    }
}
