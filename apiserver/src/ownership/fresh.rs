//! The one owner of a new object, as text on its way to the store.

use coracle_proto::apply::{Operation, Who};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::value::RawValue;

use crate::{
    ops::{AnyObject, KindOps, Part},
    ownership::Versions,
    status_of::{self, Result},
    stored,
};

/// How an object's JSON has no owners, where it shall have some.
const NONE: &[u8] = br#""managedFields":[]"#;

/// How the type of an entry's fields stands in its JSON; the fields follow.
const TYPE: &[u8] = br#""fieldsType":"FieldsV1""#;

/// The maker of an object and what he owns of it.
///
/// Half of what a small object weighs is this, and read into values it is hundreds of little pieces. Nobody looks at it on
/// the way to the store but those outside the server who are asked about the write; so it is text, unless there are such.
pub struct Fresh {
    entry: ManagedFieldsEntry,
    fields: Vec<u8>,
}

/// Where `what` begins in `text`.
fn position(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

fn unencodable(error: &serde_json::Error) -> Box<coracle_proto::status::Status> {
    status_of::broken("an object cannot be encoded", error)
}

impl Fresh {
    /// Of an object without owners, which is marked for [`Fresh::encode`]; `None` if its maker owns nothing of it.
    pub(super) fn of(kind: &dyn KindOps, object: &mut dyn AnyObject, who: &Who<'_>) -> Result<Option<Self>> {
        let json = kind.to_shown(object).map_err(|error| unencodable(&error))?;
        let fields = kind.owners(Part::Main, &Versions::default()).fresh(&json).map_err(|error| unencodable(&error))?;
        let Some(fields) = fields else { return Ok(None) };
        let version = kind.resource().api_version();
        let manager = who.manager(Operation::Update, &version);
        let entry = ManagedFieldsEntry {
            manager: (!manager.name.is_empty()).then_some(manager.name),
            operation: Some(Operation::Update.as_str().to_owned()),
            api_version: Some(version),
            time: Some(Time(who.now)),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: None,
            subresource: (!manager.subresource.is_empty()).then_some(manager.subresource),
        };
        object.meta_mut().managed_fields = Some(Vec::new());
        Ok(Some(Self { entry, fields }))
    }

    /// Puts it into the object, for whoever looks there.
    ///
    /// # Errors
    /// 500, never: what was written can be read.
    pub fn put(self, object: &mut dyn AnyObject) -> Result<()> {
        let fields = serde_json::from_slice(&self.fields).map_err(|error| unencodable(&error))?;
        let entry = ManagedFieldsEntry { fields_v1: Some(FieldsV1(fields)), ..self.entry };
        object.meta_mut().managed_fields = Some(vec![entry]);
        Ok(())
    }

    /// The JSON of the object it is of, with it; `None` when the mark is gone, which only somebody outside can have
    /// removed.
    ///
    /// # Errors
    /// 500, never: what was made can be encoded.
    pub fn insert(&self, object: &[u8]) -> Result<Option<Vec<u8>>> {
        let entry = serde_json::to_vec(&self.entry).map_err(|error| unencodable(&error))?;
        let Some(metadata) = stored::metadata(object).map(RawValue::get) else { return Ok(None) };
        let start = (metadata.as_ptr() as usize).saturating_sub(object.as_ptr() as usize);
        // Keys and texts before it have their quotes escaped, so that it is found nowhere else.
        let mark = position(metadata.as_bytes(), NONE).map(|at| start + at + NONE.len() - 1);
        let parts = (mark.and_then(|at| object.split_at_checked(at)), position(&entry, TYPE));
        let (Some((before, after)), Some(at)) = parts else { return Ok(None) };
        let (head, tail) = entry.split_at(at + TYPE.len());
        let mut whole = Vec::with_capacity(object.len() + entry.len() + self.fields.len() + 16);
        for part in [before, head, br#","fieldsV1":"#.as_slice(), &self.fields, tail, after] {
            whole.extend_from_slice(part);
        }
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        kinds::{config_map::ConfigMaps, pod::Pods},
        ops::Typed,
    };

    /// What is put in as text is what is put in as values, byte for byte, so that a write that changes nothing is seen to
    /// change nothing.
    #[test]
    fn as_text_and_as_values_it_is_the_same_object() {
        let who = Who { name: "a\"b", subresource: "", now: "2026-01-02T03:04:05.6Z".parse().unwrap() };
        let tricky = json!({"\"managedFields\":[]": "\"managedFields\":[]", "managedFields": "[]"});
        let pods = Typed::new(Pods);
        let maps = Typed::new(ConfigMaps);
        let cases: [(&dyn KindOps, Value); 3] = [
            (
                &pods,
                json!({"metadata": {"name": "p", "labels": {"a": "b"}, "annotations": tricky},
                           "spec": {"containers": [{"name": "c", "env": [{"name": "B"}, {"name": "A", "value": "\""}]}]}}),
            ),
            (&maps, json!({"metadata": {"name": "m"}, "data": {"x": "\"metadata\":{\"managedFields\":[]}"}})),
            (&maps, json!({"metadata": {"generateName": "m-"}, "data": tricky, "immutable": true})),
        ];
        for (kind, json) in cases {
            let mut object = kind.decode(json.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}")).object;
            let fresh = Fresh::of(kind, &mut *object, &who).unwrap().unwrap();
            let text = fresh.insert(&kind.to_stored(&*object).unwrap()).unwrap().unwrap();
            fresh.put(&mut *object).unwrap();
            let values = kind.to_stored(&*object).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), String::from_utf8(values.clone()).unwrap());
            assert_eq!(kind.to_stored(&*kind.from_stored(&values).unwrap()).unwrap(), values);
        }
        let mut empty = pods.decode(b"{}").unwrap_or_else(|e| panic!("{e}")).object;
        assert!(Fresh::of(&pods, &mut *empty, &who).unwrap().is_none(), "there is nothing to own");
    }
}
