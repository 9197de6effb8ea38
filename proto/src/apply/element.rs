//! One step of a path through an object, and the paths made of them.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::Value;

use super::place::Place;

/// Selects a child of an object or list.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// A field of an object, a key of a map: `f:`.
    Field(Cow<'static, str>),
    /// The element of a list whose key fields have these values, sorted by name: `k:`.
    Key(Vec<(Cow<'static, str>, Value)>),
    /// The element of a set of scalars: `v:`.
    Value(Value),
    /// The n-th element of a list; nothing here makes such, but others may have stored them: `i:`.
    Index(i64),
}

impl Eq for Element {}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(&b.0).then_with(|| order(&a.1, &b.1)));
                pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => order(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Element {
    const fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// The field `name`.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(Cow::Owned(name.to_owned()))
    }

    /// Appends the element as it stands in `fieldsV1`.
    pub(super) fn encode(&self, out: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Field(name) => write!(out, "f:{name}"),
            Self::Key(fields) => {
                out.push_str("k:{");
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    let _ = write!(out, "{comma}{}:{value}", Value::from(name.as_ref()));
                }
                out.push('}');
                Ok(())
            }
            Self::Value(value) => write!(out, "v:{value}"),
            Self::Index(index) => write!(out, "i:{index}"),
        };
    }

    /// Reads what stands in `fieldsV1`; `None` for a kind of element that is not known, which is to be skipped.
    ///
    /// # Errors
    /// Text that is no element.
    pub(super) fn decode(text: &str) -> Result<Option<Self>, String> {
        let Some((tag, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        Ok(Some(match tag {
            "f:" => Self::field(rest),
            "v:" => Self::Value(json(rest)?),
            "k:" => match json(rest)? {
                Value::Object(fields) => {
                    let mut fields: Vec<(Cow<'static, str>, Value)> =
                        fields.into_iter().map(|(k, v)| (Cow::Owned(k), v)).collect();
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                    Self::Key(fields)
                }
                _ => return Err(format!("no object of keys: {text}")),
            },
            "i:" => Self::Index(rest.parse().map_err(|error| format!("{rest:?}: {error}"))?),
            _ if tag.ends_with(':') => return Ok(None),
            _ => return Err(format!("missing colon: {text}")),
        }))
    }

    /// The element that selects `item` in the list at `place`, which is a set or a map.
    ///
    /// # Errors
    /// Items that no key or value can tell apart, in Kubernetes' words.
    pub fn of_item<'a>(place: impl Place<'a>, is_map: bool, item: &Value) -> Result<Self, String> {
        if !is_map {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Self::Value(scalar.clone())),
            };
        }
        let object = match item {
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            Value::Object(object) => object,
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let mut fields: Vec<(Cow<'static, str>, Value)> = Vec::new();
        let element = place.element();
        for key in place.keys() {
            let name = || match element.and_then(|element| element.field(key)) {
                Some((Some(name), _)) => Cow::Borrowed(name),
                _ => Cow::Owned(key.to_owned()),
            };
            if let Some(value) = object.get(key) {
                fields.push((name(), value.clone()));
            } else if let Some(value) = place.key_default(key) {
                fields.push((name(), value));
            }
        }
        if fields.is_empty() {
            let keys: Vec<String> = place.keys().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                keys.join(" ")
            ));
        }
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self::Key(fields))
    }
}

/// A place in an object, from its root on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl Path {
    /// The path of fields with these names.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Element::field(name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}

/// A total order of values: numbers, texts, booleans, lists, objects, null.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| order(a, b));
            pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(b.0).then_with(|| order(a.1, b.1)));
            pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

const fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Whether two values say the same; `1` and `1.0` do.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64() && (x.is_f64() || y.is_f64()),
        _ => a == b,
    }
}
