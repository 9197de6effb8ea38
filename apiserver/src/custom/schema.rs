//! A definition's schema, as compact as checking needs it.
//!
//! Descriptions and everything else that only people read stay in the stored definition; OpenAPI documents are made from
//! there. The schema is structural, which validation of the definition saw to (see [`super::structural`]).

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::rules::Rules;

/// A JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub(crate) fn read(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What may stand in an object beside its properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Additional {
    /// Nothing is said: what is unknown is pruned.
    #[default]
    Unsaid,
    /// Anything.
    Anything,
    /// Nothing.
    Nothing,
    /// Values of this schema.
    Of(Box<Schema>),
}

/// How a list's items are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Arc<[String]>),
}

/// Checks of a value beyond its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Checks {
    pub(crate) format: Box<str>,
    pub(crate) pattern: Option<Box<str>>,
    pub(crate) one_of_values: Option<Box<[Value]>>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<i64>,
    pub(crate) max_length: Option<i64>,
    pub(crate) min_items: Option<i64>,
    pub(crate) max_items: Option<i64>,
    pub(crate) min_properties: Option<i64>,
    pub(crate) max_properties: Option<i64>,
    pub(crate) required: Box<[Box<str>]>,
    pub(crate) all_of: Box<[Schema]>,
    pub(crate) any_of: Box<[Schema]>,
    pub(crate) one_of: Box<[Schema]>,
    pub(crate) not: Option<Box<Schema>>,
}

/// The schema of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Schema {
    pub(crate) kind: Option<Kind>,
    pub(crate) int_or_string: bool,
    pub(crate) nullable: bool,
    pub(crate) preserves: bool,
    pub(crate) embedded: bool,
    /// Whether its fields are one: a map type `atomic`.
    pub(crate) atomic: bool,
    pub(crate) list_type: ListType,
    /// Sorted by name.
    pub(crate) properties: Box<[(Box<str>, Schema)]>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) default: Option<Box<Value>>,
    pub(crate) checks: Option<Box<Checks>>,
    /// Rules in CEL about this value.
    pub(crate) rules: Option<Box<Rules>>,
    /// Whether there are defaults here or below.
    pub(crate) has_defaults: bool,
    /// Whether there are rules here or below.
    pub(crate) has_rules: bool,
}

impl Schema {
    /// The schema of an object's property.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        let found = self.properties.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.properties.get(found).map(|(_, schema)| schema)
    }

    /// The schema of what stands under a name, property or not.
    pub(crate) fn under(&self, name: &str) -> Option<&Self> {
        self.property(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            _ => None,
        })
    }

    /// Reads a definition's schema; rules are added by [`super::rules::compile`].
    pub(crate) fn of(props: &JSONSchemaProps) -> Self {
        let list =
            |schemas: &Option<Vec<JSONSchemaProps>>| schemas.iter().flatten().map(Self::of).collect::<Box<[_]>>();
        let properties: Box<[(Box<str>, Self)]> =
            props.properties.iter().flatten().map(|(name, props)| (name.as_str().into(), Self::of(props))).collect();
        let additional = match &props.additional_properties {
            None => Additional::Unsaid,
            Some(JSONSchemaPropsOrBool::Bool(true)) => Additional::Anything,
            Some(JSONSchemaPropsOrBool::Bool(false)) => Additional::Nothing,
            Some(JSONSchemaPropsOrBool::Schema(props)) => Additional::Of(Box::new(Self::of(props))),
        };
        let items = match &props.items {
            Some(JSONSchemaPropsOrArray::Schema(props)) => Some(Box::new(Self::of(props))),
            _ => None,
        };
        let list_type = match props.x_kubernetes_list_type.as_deref() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(props.x_kubernetes_list_map_keys.clone().unwrap_or_default().into()),
            _ => ListType::Atomic,
        };
        let checks = Checks {
            format: props.format.as_deref().unwrap_or_default().into(),
            pattern: props.pattern.as_deref().filter(|pattern| !pattern.is_empty()).map(Into::into),
            one_of_values: props
                .enum_
                .as_ref()
                .filter(|values| !values.is_empty())
                .map(|values| values.iter().map(|value| value.0.clone()).collect()),
            minimum: props.minimum,
            maximum: props.maximum,
            exclusive_minimum: props.exclusive_minimum.unwrap_or(false),
            exclusive_maximum: props.exclusive_maximum.unwrap_or(false),
            multiple_of: props.multiple_of,
            min_length: props.min_length,
            max_length: props.max_length,
            min_items: props.min_items,
            max_items: props.max_items,
            min_properties: props.min_properties,
            max_properties: props.max_properties,
            required: props.required.iter().flatten().map(|name| name.as_str().into()).collect(),
            all_of: list(&props.all_of),
            any_of: list(&props.any_of),
            one_of: list(&props.one_of),
            not: props.not.as_ref().map(|props| Box::new(Self::of(props))),
        };
        let below = properties.iter().map(|(_, schema)| schema).chain(items.as_deref()).chain(match &additional {
            Additional::Of(schema) => Some(&**schema),
            _ => None,
        });
        let has_defaults = props.default.is_some() || below.clone().any(|schema| schema.has_defaults);
        let own_rules = props.x_kubernetes_validations.as_ref().is_some_and(|rules| !rules.is_empty());
        let has_rules = own_rules || below.clone().any(|schema| schema.has_rules);
        Self {
            kind: props.type_.as_deref().and_then(Kind::read),
            int_or_string: props.x_kubernetes_int_or_string.unwrap_or(false),
            nullable: props.nullable.unwrap_or(false),
            preserves: props.x_kubernetes_preserve_unknown_fields.unwrap_or(false),
            embedded: props.x_kubernetes_embedded_resource.unwrap_or(false),
            atomic: props.x_kubernetes_map_type.as_deref() == Some("atomic"),
            list_type,
            default: props.default.as_ref().map(|default| Box::new(default.0.clone())),
            checks: (checks != Checks::default()).then(|| Box::new(checks)),
            rules: None,
            properties,
            additional,
            items,
            has_defaults,
            has_rules,
        }
    }
}
