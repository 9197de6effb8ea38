//! Whether a document has anything that Go leaves out, seen in one walk over its text.
//!
//! Most documents have nothing of the kind, and then need not be made values of only to find that out.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Field, SCHEMA, TABLES, TOLD_APART, Type, is_kept, message_of};
use crate::json::Name;

/// Whether [`super::drop_unsaid`] would drop something of an object's JSON. What is no JSON has nothing, and of two equal
/// fields both count, though only the last is read.
#[must_use]
pub fn has_unsaid(api_version: &str, kind: &str, json: &[u8]) -> bool {
    let Some(message) = message_of(api_version, kind) else { return false };
    let found = Cell::new(false);
    let look = Look { of: Of::Message(&message), found: &found };
    // The walk ends with an error where it finds something.
    let _ = look.deserialize(&mut serde_json::Deserializer::from_slice(json));
    found.get()
}

/// What a value is.
#[derive(Clone, Copy)]
enum Of<'t> {
    Message(&'t str),
    /// A value in a list or a map: there even if it is zero.
    Element(&'t Type),
    /// A field's, which is left out if it is zero.
    Field(&'t Type),
    /// A field's that tells not given from empty.
    Given,
    /// Nothing is known of it.
    Unknown,
}

#[derive(Clone, Copy)]
struct Look<'t> {
    of: Of<'t>,
    found: &'t Cell<bool>,
}

impl<'t> Look<'t> {
    const fn at(self, of: Of<'t>) -> Self {
        Self { of, ..self }
    }

    /// Goes on, or ends the walk.
    fn goes_on<E: serde::de::Error>(self, is_left_out: bool) -> Result<(), E> {
        if is_left_out {
            self.found.set(true);
            return Err(E::custom("found"));
        }
        Ok(())
    }
}

/// A field of a message by its name in JSON, with the message that has it: those in whose place it stands are looked into.
fn field<'t>(message: &'t str, name: &str) -> Option<(&'t str, &'t Field)> {
    let fields = TABLES.get(message)?;
    fields.iter().find_map(|field| match (field.name, &field.content) {
        (Some(own), _) => (own == name).then_some((message, field)),
        (None, Type::Message(inner)) => self::field(inner, name),
        _ => None,
    })
}

fn of_field<'t>(message: &'t str, name: &str) -> Of<'t> {
    match field(message, name) {
        None => Of::Unknown,
        Some((message, _)) if is_kept(message, name) => Of::Given,
        Some((message, field)) if field.keeps_empty || TOLD_APART.contains(&(message, name)) => {
            Of::Element(&field.content)
        }
        Some((_, field)) => Of::Field(&field.content),
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.of {
            Of::Unknown => input.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            _ => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.goes_on(!value && matches!(self.of, Of::Field(Type::Boolean { keeps_zero: false })))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.goes_on(value == 0 && matches!(self.of, Of::Field(Type::Integer { keeps_zero: false })))
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.goes_on(value.is_empty() && matches!(self.of, Of::Field(Type::Text { keeps_zero: false } | Type::Bytes)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let of = match self.of {
            Of::Element(Type::List(element)) | Of::Field(Type::List(element)) => Of::Element(element),
            _ => Of::Unknown,
        };
        let mut is_empty = true;
        while input.next_element_seed(self.at(of))?.is_some() {
            is_empty = false;
        }
        self.goes_on(is_empty && matches!(self.of, Of::Field(Type::List(_))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let message = match self.of {
            Of::Message(message) => Some(message),
            Of::Element(content) | Of::Field(content) => match content {
                Type::Message(message) => Some(message.as_str()),
                Type::SchemaOrArray | Type::SchemaOrBool => Some(SCHEMA),
                _ => None,
            },
            Of::Given | Of::Unknown => None,
        };
        let mut is_empty = true;
        while let Some(Name(name)) = input.next_key()? {
            is_empty = false;
            let of = match (message, self.of) {
                (Some(message), _) => of_field(message, &name),
                (None, Of::Element(Type::Map(value)) | Of::Field(Type::Map(value))) => Of::Element(value),
                _ => Of::Unknown,
            };
            input.next_value_seed(self.at(of))?;
        }
        self.goes_on(is_empty && matches!(self.of, Of::Given | Of::Field(Type::Map(_))))
    }
}
