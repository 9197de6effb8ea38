//! An object of a kind that is known only at run time.

use std::any::Any;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::{
    go_json,
    ops::{AnyObject, BoxObject},
};

/// Metadata, which has Kubernetes' own type, and the rest as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Custom {
    /// `metadata`.
    pub meta: ObjectMeta,
    /// Everything else, `apiVersion` and `kind` included.
    pub content: Map<String, Value>,
}

impl Custom {
    /// The object as it is stored and shown: `apiVersion` and `kind` first.
    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        out.push(b'{');
        for name in ["apiVersion", "kind"] {
            if let Some(value) = self.content.get(name) {
                go_json::append(&mut out, name)?;
                out.push(b':');
                go_json::append(&mut out, value)?;
                out.push(b',');
            }
        }
        out.extend_from_slice(b"\"metadata\":");
        go_json::append(&mut out, &self.meta)?;
        for (name, value) in self.content.iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")) {
            out.push(b',');
            go_json::append(&mut out, name)?;
            out.push(b':');
            go_json::append(&mut out, value)?;
        }
        out.push(b'}');
        Ok(out)
    }

    /// The whole as rules, columns and schemas see it.
    pub(super) fn to_value(&self) -> Value {
        let mut map = self.content.clone();
        map.insert("metadata".to_owned(), serde_json::to_value(&self.meta).unwrap_or_default());
        Value::Object(map)
    }
}

impl AnyObject for Custom {
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn copied(&self) -> BoxObject {
        Box::new(self.clone())
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        Ok(self.to_value())
    }
}
