//! What expressions work with.

use std::{cmp::Ordering, collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use coracle_proto::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use super::{
    eval::Error,
    format::Named,
    library::{net::Cidr, semver::Semver, url::Url},
    time,
    types::{Type, escape},
};

/// A key of a map. Numbers that are equal are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `true`.
    Bool(bool),
    /// `1`, and `1u` as well.
    Int(i64),
    /// What is too large for that.
    Uint(u64),
    /// `"a"`.
    Text(Arc<str>),
}

/// The entries of a map.
pub type MapValue = BTreeMap<Key, Value>;

/// How the items of a list are compared.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ListKind {
    /// One after the other.
    #[default]
    Atomic,
    /// In any order.
    Set,
    /// In any order, by these keys.
    Map(Arc<[String]>),
}

/// A list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Its items.
    pub items: Vec<Value>,
    /// How they are compared.
    pub kind: ListKind,
}

/// A value that is worked out by somebody else when it is asked for: `variables`, `authorizer`.
pub trait Host: Send + Sync {
    /// What its type is called.
    fn type_name(&self) -> &'static str;

    /// A field; none if there is no such one.
    ///
    /// # Errors
    /// The field cannot be worked out.
    fn field(&self, name: &str) -> Option<Result<Value, Error>> {
        let _ = name;
        None
    }

    /// A method's result and what it costs; none if there is no such one.
    ///
    /// # Errors
    /// The method failed.
    fn call(&self, function: &str, args: &[Value]) -> Option<Result<(Value, u64), Error>> {
        let _ = (function, args);
        None
    }
}

/// A value; cheap to copy.
#[derive(Clone)]
pub enum Value {
    /// `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number without sign.
    Uint(u64),
    /// Any number.
    Double(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A span of time.
    Duration(SignedDuration),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(Arc<List>),
    /// A map, or an object.
    Map(Arc<MapValue>),
    /// Perhaps a value.
    Optional(Option<Arc<Value>>),
    /// A type.
    Type(Arc<str>),
    /// `quantity("1Gi")`.
    Quantity(Quantity),
    /// `url("https://…")`.
    Url(Arc<Url>),
    /// `ip("::1")`.
    Ip(IpAddr),
    /// `cidr("10.0.0.0/8")`.
    Cidr(Cidr),
    /// `semver("1.2.3")`.
    Semver(Arc<Semver>),
    /// `format.dns1123Label()`.
    Format(&'static Named),
    /// Something of the caller's.
    Host(Arc<dyn Host>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(list) => f.debug_list().entries(&list.items).finish(),
            Self::Map(map) => f.debug_map().entries(map.iter()).finish(),
            Self::Optional(inner) => write!(f, "optional({inner:?})"),
            other => match other.as_text() {
                Some(text) => f.write_str(&text),
                None => f.write_str(other.type_name()),
            },
        }
    }
}

/// The ends of what an int holds, as floating-point numbers: two to the power of 63.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
const TOO_SMALL: f64 = -TOO_LARGE;

/// A whole number that a floating-point one stands for.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
pub(super) fn whole(d: f64) -> Option<i64> {
    (d.fract() == 0.0 && (TOO_SMALL..TOO_LARGE).contains(&d)).then_some(d as i64)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of different types are compared as CEL compares them")]
fn compare_int_double(a: i64, b: f64) -> Option<Ordering> {
    match whole(b) {
        Some(b) => Some(a.cmp(&b)),
        None => (a as f64).partial_cmp(&b),
    }
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A list.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(List { items, kind: ListKind::Atomic }))
    }

    /// A value that is there.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// JSON whose type nobody declared: whole numbers are ints.
    #[must_use]
    pub fn of(json: &Json) -> Self {
        Self::typed(json, &Type::Dyn, &ListKind::Atomic)
    }

    /// JSON of a declared type; what is not of the type is taken as it is.
    #[must_use]
    pub fn typed(json: &Json, ty: &Type, kind: &ListKind) -> Self {
        match (json, ty) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(b), _) => Self::Bool(*b),
            (Json::Number(n), Type::Double) => Self::Double(n.as_f64().unwrap_or_default()),
            (Json::Number(n), _) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(u)) => Self::Uint(u),
                (None, None) => Self::Double(n.as_f64().unwrap_or_default()),
            },
            (Json::String(s), Type::Timestamp) => match time::timestamp(s).or_else(|_| time::date(s)) {
                Ok(t) => Self::Timestamp(t),
                Err(_) => Self::text(s),
            },
            (Json::String(s), Type::Duration) => match time::duration(s) {
                Ok(d) => Self::Duration(d),
                Err(_) => Self::text(s),
            },
            (Json::String(s), Type::Bytes(_)) => {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(s) {
                    Ok(bytes) => Self::Bytes(bytes.into()),
                    Err(_) => Self::text(s),
                }
            }
            (Json::String(s), _) => Self::text(s),
            (Json::Array(items), ty) => {
                let item = if let Type::List(item, _) = ty { item } else { &Type::Dyn };
                let items = items.iter().map(|json| Self::typed(json, item, &ListKind::Atomic)).collect();
                Self::List(Arc::new(List { items, kind: kind.clone() }))
            }
            (Json::Object(map), Type::Object(object)) => {
                let field = |(name, field): (&String, &super::Field)| {
                    let json = map.get(&field.name)?;
                    Some((Key::Text(name.as_str().into()), Self::typed(json, &field.ty, &ListKind::Atomic)))
                };
                Self::Map(Arc::new(object.fields.iter().filter_map(field).collect()))
            }
            (Json::Object(map), ty) => {
                let value = if let Type::Map(_, value, _) = ty { value } else { &Type::Dyn };
                let entry =
                    |(k, v): (&String, &Json)| (Key::Text(k.as_str().into()), Self::typed(v, value, &ListKind::Atomic));
                Self::Map(Arc::new(map.iter().map(entry).collect()))
            }
        }
    }

    /// The JSON of a value, of those that have one. Names are taken as they are.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Uint(u) => (*u).into(),
            Self::Double(d) => (*d).into(),
            Self::Text(s) => (**s).into(),
            Self::Bytes(b) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(b).into()
            }
            Self::Duration(_) | Self::Timestamp(_) | Self::Quantity(_) | Self::Ip(_) | Self::Cidr(_) => {
                self.as_text()?.into()
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::List(list) => list.items.iter().map(Self::to_json).collect::<Option<Vec<_>>>()?.into(),
            Self::Map(map) => {
                let entry = |(key, value): (&Key, &Self)| Some((key.to_string(), value.to_json()?));
                Json::Object(map.iter().map(entry).collect::<Option<_>>()?)
            }
            Self::Url(_) | Self::Semver(_) => self.as_text()?.into(),
            Self::Type(_) | Self::Format(_) | Self::Host(_) => return None,
        })
    }

    /// What `type(x)` and errors call it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Host(host) => host.type_name(),
        }
    }

    /// As `string(x)` shows it, of what can be shown so.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => "null".to_owned(),
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Uint(u) => u.to_string(),
            Self::Double(d) => super::library::strings::number(*d),
            Self::Text(s) => s.to_string(),
            Self::Bytes(b) => std::str::from_utf8(b).ok()?.to_owned(),
            Self::Duration(d) => time::show_duration(*d),
            Self::Timestamp(t) => time::show_timestamp(*t),
            Self::Quantity(q) => q.to_string(),
            Self::Ip(ip) => ip.to_string(),
            Self::Cidr(cidr) => cidr.to_string(),
            Self::Url(url) => url.text.clone(),
            Self::Semver(version) => version.to_string(),
            Self::Type(name) => name.to_string(),
            _ => return None,
        })
    }

    /// The key of a map that it is, if it can be one.
    #[must_use]
    pub fn as_key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int(*i),
            Self::Uint(u) => i64::try_from(*u).map_or(Key::Uint(*u), Key::Int),
            Self::Double(d) => Key::Int(whole(*d)?),
            Self::Text(s) => Key::Text(Arc::clone(s)),
            _ => return None,
        })
    }

    /// How large it is, in units of work: characters, or items and what is in them.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Text(s) => s.len() as u64 / 10 + 1,
            Self::Bytes(b) => b.len() as u64 / 10 + 1,
            Self::List(list) => list.items.len() as u64 + 1,
            Self::Map(map) => map.len() as u64 + 1,
            _ => 1,
        }
    }

    /// Equality as CEL has it: numbers by value, whatever their type; other values of different types differ.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::List(a), Self::List(b)) => equal_lists(a, b),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other)))
            }
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b) == Ordering::Equal,
            (Self::Url(a), Self::Url(b)) => a.text == b.text,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.compare(b) == Ordering::Equal,
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            (a, b) => a.number() && b.number() && a.compare(b) == Some(Ordering::Equal),
        }
    }

    fn number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// The order of two values, of those that have one.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))),
            (Self::Uint(a), Self::Int(b)) => Some(u64::try_from(*b).map_or(Ordering::Greater, |b| a.cmp(&b))),
            (Self::Int(a), Self::Double(b)) => compare_int_double(*a, *b),
            (Self::Double(a), Self::Int(b)) => compare_int_double(*b, *a).map(Ordering::reverse),
            (Self::Uint(a), Self::Double(b)) => compare_uint_double(*a, *b),
            (Self::Double(a), Self::Uint(b)) => compare_uint_double(*b, *a).map(Ordering::reverse),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of different types are compared as CEL compares them")]
fn compare_uint_double(a: u64, b: f64) -> Option<Ordering> {
    match whole(b) {
        Some(b) => Some(u64::try_from(b).map_or(Ordering::Greater, |b| a.cmp(&b))),
        None => (a as f64).partial_cmp(&b),
    }
}

/// The entry of a list of `kind: Map` that an item is.
fn entry_key(item: &Value, keys: &[String]) -> Vec<Option<Value>> {
    let Value::Map(map) = item else { return Vec::new() };
    let name = |key: &String| Key::Text(escape(key).unwrap_or_default().into());
    keys.iter().map(|key| map.get(&name(key)).cloned()).collect()
}

fn equal_lists(a: &List, b: &List) -> bool {
    if a.items.len() != b.items.len() {
        return false;
    }
    match &a.kind {
        ListKind::Atomic => a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b)),
        ListKind::Set | ListKind::Map(_) => a.items.iter().all(|item| b.items.iter().any(|other| item.equals(other))),
    }
}

impl List {
    /// The list with those of another: in a set and a map, what is there already is replaced, not repeated.
    pub(super) fn join(&self, other: &Self) -> Self {
        let mut items = self.items.clone();
        match &self.kind {
            ListKind::Atomic => items.extend(other.items.iter().cloned()),
            ListKind::Set => {
                for item in &other.items {
                    if !items.iter().any(|known| known.equals(item)) {
                        items.push(item.clone());
                    }
                }
            }
            ListKind::Map(keys) => {
                let same = |a: &Value, b: &Value| {
                    let (a, b) = (entry_key(a, keys), entry_key(b, keys));
                    a.len() == b.len()
                        && a.iter().zip(&b).all(|(a, b)| match (a, b) {
                            (Some(a), Some(b)) => a.equals(b),
                            (None, None) => true,
                            _ => false,
                        })
                };
                for item in &other.items {
                    match items.iter_mut().find(|known| same(known, item)) {
                        Some(known) => *known = item.clone(),
                        None => items.push(item.clone()),
                    }
                }
            }
        }
        Self { items, kind: self.kind.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Uint(u) => write!(f, "{u}"),
            Self::Text(s) => f.write_str(s),
        }
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        match key {
            Key::Bool(b) => Self::Bool(*b),
            Key::Int(i) => Self::Int(*i),
            Key::Uint(u) => Self::Uint(*u),
            Key::Text(s) => Self::Text(Arc::clone(s)),
        }
    }
}
