//! A definition's schema as server-side apply walks it: what is owned as a whole, and how list items are told apart.

use coracle_proto::apply::{BuiltIn, Is, ListIs, Place, Scalar};
use serde_json::Value;

use super::schema::{Additional, Kind, ListType, Schema};

/// A place in a custom resource.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spot<'a> {
    /// A value of a schema; a resource has metadata besides what the schema says.
    Of {
        /// Its schema.
        schema: &'a Schema,
        /// Whether it is a resource.
        resource: bool,
    },
    /// Within metadata.
    BuiltIn(BuiltIn),
    /// Anything.
    Any,
}

impl<'a> Spot<'a> {
    /// The root of an object.
    pub(super) fn root(schema: &'a Schema) -> Self {
        Self::Of { schema, resource: true }
    }

    fn of(schema: &'a Schema) -> Self {
        Self::Of { schema, resource: schema.embedded }
    }
}

impl<'a> Place<'a> for Spot<'a> {
    fn is(self) -> Is {
        let schema = match self {
            Self::Of { schema, .. } => schema,
            Self::BuiltIn(place) => return place.is(),
            Self::Any => return Is::Any,
        };
        if schema.int_or_string {
            return Is::Scalar(Scalar::Untyped);
        }
        match schema.kind {
            None => Is::Any,
            Some(Kind::Object) => Is::Map { atomic: schema.atomic },
            Some(Kind::Array) => Is::List(match &schema.list_type {
                ListType::Atomic => ListIs::Atomic,
                ListType::Set => ListIs::Set,
                ListType::Map(_) => ListIs::Map,
            }),
            Some(Kind::String) => Is::Scalar(Scalar::String),
            Some(Kind::Integer | Kind::Number) => Is::Scalar(Scalar::Number),
            Some(Kind::Boolean) => Is::Scalar(Scalar::Boolean),
        }
    }

    fn field(self, name: &str) -> Option<(Option<&'static str>, Self)> {
        match self {
            Self::Of { resource: true, .. } if name == "metadata" => {
                let meta = BuiltIn::of_kind("meta.k8s.io", "v1", "ObjectMeta").unwrap_or(BuiltIn::Any);
                Some((Some("metadata"), Self::BuiltIn(meta)))
            }
            Self::Of { resource: true, .. } if matches!(name, "apiVersion" | "kind") => {
                Some((None, Self::BuiltIn(BuiltIn::Scalar(Scalar::String))))
            }
            Self::Of { schema, .. } => schema.property(name).map(|schema| (None, Self::of(schema))),
            Self::BuiltIn(place) => place.field(name).map(|(name, place)| (name, Self::BuiltIn(place))),
            Self::Any => None,
        }
    }

    fn rest(self) -> Option<Self> {
        match self {
            Self::Of { schema, .. } => match &schema.additional {
                Additional::Of(schema) => Some(Self::of(schema)),
                Additional::Anything => Some(Self::Any),
                // Of an object of which nothing is known, anything is applied, and dropped afterwards.
                _ if schema.preserves || schema.kind.is_none() || schema.properties.is_empty() => Some(Self::Any),
                _ => None,
            },
            Self::BuiltIn(place) => place.rest().map(Self::BuiltIn),
            Self::Any => Some(Self::Any),
        }
    }

    fn element(self) -> Option<Self> {
        match self {
            Self::Of { schema, .. } => Some(schema.items.as_deref().map_or(Self::Any, Self::of)),
            Self::BuiltIn(place) => place.element().map(Self::BuiltIn),
            Self::Any => Some(Self::Any),
        }
    }

    fn keys(self) -> impl Iterator<Item = &'a str> {
        let keys: Vec<&'a str> = match self {
            Self::Of { schema: Schema { list_type: ListType::Map(keys), .. }, .. } => {
                keys.iter().map(String::as_str).collect()
            }
            Self::BuiltIn(place) => place.keys().collect(),
            _ => Vec::new(),
        };
        keys.into_iter()
    }

    fn key_default(self, key: &str) -> Option<Value> {
        match self {
            Self::Of { schema, .. } => {
                let items = schema.items.as_deref()?;
                items.property(key)?.default.as_deref().cloned()
            }
            Self::BuiltIn(place) => place.key_default(key),
            Self::Any => None,
        }
    }

    fn always(self, name: &str) -> Option<&'static Value> {
        match self {
            Self::Of { resource: true, .. } if name == "metadata" => Some(coracle_proto::apply::empty()),
            Self::BuiltIn(place) => place.always(name),
            _ => None,
        }
    }
}
