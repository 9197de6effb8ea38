//! The tables as the crate prost-reflect has messages: descriptors in one pool, which its `DynamicMessage` goes by.
//!
//! They say what Kubernetes' published `.proto` files say, syntax 2: whether a field is there is told apart from its zero, and
//! repeated numbers are not packed. Only what a field holds of a message is bytes here, which is the same on the wire: each
//! message is read and written by itself, so that of an object only the messages that are being looked at are there at a
//! time, and how long one is, is found out once, not once for each that is around it. There may be several such bytes in a
//! row, for a message that stands twice is one of both.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use prost_reflect::{
    DescriptorPool, FieldDescriptor, MessageDescriptor,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        field_descriptor_proto::{Label, Type as Wire},
    },
};

use super::table::{Field, TABLES, Tables, Type, VALUES};

/// A message: its descriptor beside the fields of its table.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) descriptor: MessageDescriptor,
    /// In the order of their numbers.
    pub(super) members: Vec<Member>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) field: &'static Field,
    pub(super) descriptor: FieldDescriptor,
    /// Of a map, what its entries are.
    pub(super) entry: Option<Entry>,
    /// Where the message is that the field holds, itself or in a list or a map.
    inner: Option<usize>,
}

/// The message of a map's entries.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) descriptor: MessageDescriptor,
    pub(super) key: FieldDescriptor,
    pub(super) value: FieldDescriptor,
}

struct Messages {
    all: Vec<Message>,
    places: HashMap<&'static str, usize>,
}

/// Made when the first message is read or written: who speaks JSON only does not pay for it.
static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    // (That they fit together is tested: nothing is missing in the pool.)
    let pool = DescriptorPool::from_file_descriptor_set(files()).unwrap_or_default();
    let known: Vec<_> =
        tables().filter_map(|(name, fields)| Some((name, fields, pool.get_message_by_name(name)?))).collect();
    let places: HashMap<_, _> = known.iter().enumerate().map(|(place, (name, ..))| (*name, place)).collect();
    let member = |field: &'static Field, message: &MessageDescriptor| {
        let descriptor = message.get_field(field.number)?;
        let entry = match field.content {
            Type::Map(_) => Some(Entry::of(&pool, message, &descriptor)?),
            _ => None,
        };
        let inner = inner_of(&field.content).and_then(|name| places.get(name).copied());
        Some(Member { field, descriptor, entry, inner })
    };
    let message = |(_, fields, descriptor): (_, &'static [Field], _)| Message {
        members: fields.iter().filter_map(|field| member(field, &descriptor)).collect(),
        descriptor,
    };
    Messages { all: known.into_iter().map(message).collect(), places }
});

impl Message {
    /// The message of this name in the tables.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        let Messages { all, places } = &*MESSAGES;
        all.get(*places.get(name)?)
    }
}

impl Member {
    /// The message that the field holds, itself or in a list or a map.
    pub(super) fn inner(&self) -> Option<&'static Message> {
        MESSAGES.all.get(self.inner?)
    }
}

impl Entry {
    fn of(pool: &DescriptorPool, message: &MessageDescriptor, map: &FieldDescriptor) -> Option<Self> {
        let descriptor = pool.get_message_by_name(&format!("{}.{}", message.full_name(), entry_of(map.name())))?;
        Some(Self { key: descriptor.get_field(1)?, value: descriptor.get_field(2)?, descriptor })
    }
}

fn tables() -> impl Iterator<Item = (&'static str, &'static [Field])> {
    let all = |tables: &'static Tables| tables.iter().map(|(name, fields)| (name.as_str(), fields.as_slice()));
    all(&TABLES).chain(all(&VALUES))
}

/// The name of the message of a map's entries, which lies within the one that has the map.
fn entry_of(map: &str) -> String {
    format!("{map}Entry")
}

/// The name of the message that a field holds.
fn inner_of(content: &Type) -> Option<&str> {
    Some(match content {
        Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. } | Type::Double | Type::Bytes => return None,
        Type::List(element) | Type::Map(element) => return inner_of(element),
        Type::Message(name) => name,
        Type::Time | Type::MicroTime => "value.Time",
        Type::Duration => "value.Duration",
        Type::Quantity => "value.Quantity",
        Type::IntOrString => "value.IntOrString",
        Type::Raw => "value.Raw",
        Type::Items => "value.Items",
        Type::SchemaOrArray => "value.SchemaOrArray",
        Type::SchemaOrBool => "value.SchemaOrBool",
    })
}

/// A file a package, as Kubernetes publishes them.
fn files() -> FileDescriptorSet {
    let mut packages: BTreeMap<&str, FileDescriptorProto> = BTreeMap::new();
    for (name, fields) in tables() {
        let (package, name) = name.rsplit_once('.').unwrap_or(("", name));
        let file = packages.entry(package).or_insert_with(|| FileDescriptorProto {
            name: Some(package.to_owned()),
            package: Some(package.to_owned()),
            syntax: Some("proto2".to_owned()),
            ..FileDescriptorProto::default()
        });
        file.message_type.push(message(name, fields));
    }
    FileDescriptorSet { file: packages.into_values().collect() }
}

fn message(name: &str, fields: &[Field]) -> DescriptorProto {
    let mut message = DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    for field in fields {
        // A message whose fields stand in its place has no name in JSON, but one here: that of its type.
        let name = field.name.or_else(|| inner_of(&field.content)?.rsplit('.').next()).unwrap_or_default();
        if let Type::Map(value) = &field.content {
            message.nested_type.push(DescriptorProto {
                name: Some(entry_of(name)),
                field: vec![of_type(1, "key", &Type::Text { keeps_zero: true }), of_type(2, "value", value)],
                ..DescriptorProto::default()
            });
        }
        message.field.push(of_type(field.number, name, &field.content));
    }
    message
}

fn of_type(number: u32, name: &str, content: &Type) -> FieldDescriptorProto {
    let (label, content) = match content {
        Type::List(element) => (Label::Repeated, element.as_ref()),
        content if matches!(content, Type::Map(_)) || inner_of(content).is_some() => (Label::Repeated, content),
        content => (Label::Optional, content),
    };
    let wire = match content {
        Type::Text { .. } => Wire::String,
        Type::Integer { .. } => Wire::Int64,
        Type::Boolean { .. } => Wire::Bool,
        Type::Double => Wire::Double,
        _ => Wire::Bytes,
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: i32::try_from(number).ok(),
        label: Some(label.into()),
        r#type: Some(wire.into()),
        ..FieldDescriptorProto::default()
    }
}
