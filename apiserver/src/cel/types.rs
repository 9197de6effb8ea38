//! The types that expressions are checked against.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A bound on lengths that is none.
pub(super) const UNBOUNDED: u64 = u64::MAX;

/// A type; lists, maps and texts know how long their values can be, for estimates of cost.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything; checked when it is run.
    Dyn,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// 64 bits with a sign.
    Int,
    /// 64 bits without one.
    Uint,
    /// A floating-point number.
    Double,
    /// A text of at most so many characters.
    Text(u64),
    /// At most so many bytes.
    Bytes(u64),
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list of at most so many.
    List(Box<Type>, u64),
    /// A map of at most so many.
    Map(Box<Type>, Box<Type>, u64),
    /// An object whose fields are known.
    Object(Arc<ObjectType>),
    /// A type of the library: `kubernetes.Quantity`.
    Named(&'static str),
    /// Perhaps a value.
    Optional(Box<Type>),
    /// A type as a value.
    Type,
    /// A parameter of a signature.
    Param(char),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    pub ty: Type,
    /// Its name in JSON, which differs where that is no name in CEL (`__dash__`).
    pub name: String,
}

/// An object's type.
#[derive(Debug, PartialEq)]
pub struct ObjectType {
    /// What errors call it.
    pub name: String,
    /// By the names that expressions use.
    pub fields: BTreeMap<String, Field>,
}

impl Type {
    /// A text of any length.
    #[must_use]
    pub const fn text() -> Self {
        Self::Text(UNBOUNDED)
    }

    /// A list of any length.
    #[must_use]
    pub fn list(item: Self) -> Self {
        Self::List(Box::new(item), UNBOUNDED)
    }

    /// A map from texts of any length.
    #[must_use]
    pub fn map(value: Self) -> Self {
        Self::Map(Box::new(Self::text()), Box::new(value), UNBOUNDED)
    }

    /// An object with these fields, called as in JSON.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.clone(), Field { ty, name })).collect();
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields }))
    }

    /// An object with these properties of a schema, whose names are escaped where they are no names in CEL.
    pub fn of_properties(name: &str, properties: impl IntoIterator<Item = (String, Self)>) -> Self {
        let field = |(name, ty): (String, Self)| Some((escape(&name)?, Field { ty, name }));
        let fields = properties.into_iter().filter_map(field).collect();
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields }))
    }

    /// How long its values can be: characters, items, entries; 1 for what has no length.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Text(max) | Self::Bytes(max) | Self::List(_, max) | Self::Map(_, _, max) => *max,
            Self::Dyn | Self::Param(_) => UNBOUNDED,
            Self::Optional(inner) => inner.size(),
            Self::Object(object) => object.fields.len() as u64,
            _ => 1,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(item, _) => write!(f, "list({item})"),
            Self::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Named(name) => f.write_str(name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type => f.write_str("type"),
            Self::Param(name) => write!(f, "{name}"),
        }
    }
}

/// Words of the language that no field can be called in an expression.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name by which an expression reaches a property: `a-b` is `a__dash__b`, `in` is `__in__`. None for what cannot be
/// reached.
#[must_use]
pub(super) fn escape(property: &str) -> Option<String> {
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let mut out = String::with_capacity(property.len());
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    let is_name = out.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    is_name.then_some(out)
}

/// What type parameters of a signature stand for.
pub(super) type Bound = BTreeMap<char, Type>;

/// Whether a value of type `given` may stand where `wanted` is; parameters are bound on the way.
pub(super) fn accepts(wanted: &Type, given: &Type, bound: &mut Bound) -> bool {
    match (wanted, given) {
        (Type::Param(name), _) => match bound.get(name).cloned() {
            None => {
                bound.insert(*name, given.clone());
                true
            }
            Some(known) => {
                if matches!(known, Type::Dyn) || matches!(given, Type::Dyn) {
                    bound.insert(*name, Type::Dyn);
                    return true;
                }
                match join(&known, given) {
                    Some(both) => {
                        bound.insert(*name, both);
                        true
                    }
                    None => false,
                }
            }
        },
        (Type::Dyn, _) | (_, Type::Dyn | Type::Param(_)) => true,
        (Type::Null, Type::Duration | Type::Timestamp | Type::Object(_) | Type::Named(_) | Type::Optional(_))
        | (Type::Duration | Type::Timestamp | Type::Object(_) | Type::Named(_) | Type::Optional(_), Type::Null)
        | (Type::Text(_), Type::Text(_))
        | (Type::Bytes(_), Type::Bytes(_)) => true,
        (Type::List(a, _), Type::List(b, _)) => accepts(a, b, bound),
        (Type::Map(ak, av, _), Type::Map(bk, bv, _)) => accepts(ak, bk, bound) && accepts(av, bv, bound),
        (Type::Optional(a), Type::Optional(b)) => accepts(a, b, bound),
        (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
        (a, b) => a == b,
    }
}

/// The type of what is either of two.
pub(super) fn join(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::Param(_), other) | (other, Type::Param(_)) => Some(other.clone()),
        (Type::Text(a), Type::Text(b)) => Some(Type::Text(*a.max(b))),
        (Type::Bytes(a), Type::Bytes(b)) => Some(Type::Bytes(*a.max(b))),
        (Type::List(a, n), Type::List(b, m)) => Some(Type::List(Box::new(join(a, b)?), *n.max(m))),
        (Type::Map(ak, av, n), Type::Map(bk, bv, m)) => {
            Some(Type::Map(Box::new(join(ak, bk)?), Box::new(join(av, bv)?), *n.max(m)))
        }
        (Type::Optional(a), Type::Optional(b)) => Some(Type::Optional(Box::new(join(a, b)?))),
        (Type::Null, other) | (other, Type::Null) if accepts(other, &Type::Null, &mut Bound::new()) => {
            Some(other.clone())
        }
        (a, b) if accepts(a, b, &mut Bound::new()) => Some(a.clone()),
        _ => None,
    }
}

/// A signature's type with its parameters filled in; what nothing was said of is anything.
pub(super) fn fill(ty: &Type, bound: &Bound) -> Type {
    match ty {
        Type::Param(name) => bound.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(item, max) => Type::List(Box::new(fill(item, bound)), *max),
        Type::Map(key, value, max) => Type::Map(Box::new(fill(key, bound)), Box::new(fill(value, bound)), *max),
        Type::Optional(inner) => Type::Optional(Box::new(fill(inner, bound))),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_are_no_names_are_escaped_as_kubernetes_does() {
        for (property, name) in [
            ("replicas", Some("replicas")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("1a", None),
            ("a b", None),
        ] {
            assert_eq!(escape(property).as_deref(), name, "{property}");
        }
    }
}
