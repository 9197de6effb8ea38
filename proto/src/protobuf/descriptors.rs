//! The tables as the crate prost-reflect has messages: descriptors in one pool, which its `DynamicMessage` goes by.
//!
//! They say what Kubernetes' published `.proto` files say, syntax 2: whether a field is there is told apart from its zero, and
//! repeated numbers are not packed. Only a map is a list of its entries here, which is the same on the wire: the crate would
//! hold a map without an order, and Go writes it sorted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
            Type::Map(_) => Some(Entry::of(&descriptor)?),
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
    fn of(map: &FieldDescriptor) -> Option<Self> {
        let descriptor = map.kind().as_message()?.clone();
        Some(Self { key: descriptor.get_field(1)?, value: descriptor.get_field(2)?, descriptor })
    }
}

fn tables() -> impl Iterator<Item = (&'static str, &'static [Field])> {
    let all = |tables: &'static Tables| tables.iter().map(|(name, fields)| (name.as_str(), fields.as_slice()));
    all(&TABLES).chain(all(&VALUES))
}

/// The name of the message that a field holds.
fn inner_of(content: &Type) -> Option<&str> {
    Some(match content {
        Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. } | Type::Double | Type::Bytes => return None,
        Type::List(element) | Type::Map(element) => return inner_of(element),
        Type::Message(name) => name,
        Type::Time | Type::MicroTime => "value.Time",
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
        let needed = fields.iter().filter_map(|field| inner_of(&field.content)?.rsplit_once('.'));
        file.dependency.extend(needed.map(|(package, _)| package.to_owned()));
        file.message_type.push(message(package, name, fields));
    }
    let file = |(package, mut file): (&str, FileDescriptorProto)| {
        let needed: BTreeSet<_> = file.dependency.into_iter().filter(|needed| needed != package).collect();
        file.dependency = needed.into_iter().collect();
        file
    };
    FileDescriptorSet { file: packages.into_iter().map(file).collect() }
}

fn message(package: &str, name: &str, fields: &[Field]) -> DescriptorProto {
    let mut message = DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    for field in fields {
        // A message whose fields stand in its place has no name in JSON, but one here: that of its type.
        let name = field.name.or_else(|| inner_of(&field.content)?.rsplit('.').next()).unwrap_or_default();
        let (label, content) = match &field.content {
            Type::List(element) => (Label::Repeated, element.as_ref()),
            Type::Map(_) => (Label::Repeated, &field.content),
            content => (Label::Optional, content),
        };
        message.field.push(match content {
            Type::Map(value) => {
                let entry = format!("{name}Entry");
                let path = format!("{package}.{}.{entry}", message.name());
                let key = of_type(1, "key", Label::Optional, &Type::Text { keeps_zero: true });
                let value = of_type(2, "value", Label::Optional, value);
                message.nested_type.push(DescriptorProto {
                    name: Some(entry),
                    field: vec![key, value],
                    ..DescriptorProto::default()
                });
                of_message(field.number, name, label, &path)
            }
            content => of_type(field.number, name, label, content),
        });
    }
    message
}

fn of_type(number: u32, name: &str, label: Label, content: &Type) -> FieldDescriptorProto {
    if let Some(message) = inner_of(content) {
        return of_message(number, name, label, message);
    }
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

fn of_message(number: u32, name: &str, label: Label, message: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: i32::try_from(number).ok(),
        label: Some(label.into()),
        r#type: Some(Wire::Message.into()),
        type_name: Some(format!(".{message}")),
        ..FieldDescriptorProto::default()
    }
}
