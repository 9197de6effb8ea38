//! Who owns what of an object that was just made, without sets: everything in it is its maker's.
//!
//! [`super::Updater::update`] comes to the same from nothing; but creating is what a busy server does most, and there the
//! trees of values and of sets cost more than reading the object. So this goes once over the object's JSON and writes
//! `fieldsV1` as it goes.

use std::{borrow::Cow, collections::HashMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    element::Element,
    place::{Is, ListIs, Place},
    set::Set,
    updater::NOBODYS,
};
use crate::json::Name;

/// JSON that borrows from its text; fields in the order they stand in.
enum Json<'a> {
    Scalar(Scalar<'a>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

enum Scalar<'a> {
    Null,
    Boolean(bool),
    Natural(u64),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Boolean(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Natural(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Integer(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Float(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Text(Cow::Borrowed(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Scalar(Scalar::Text(Cow::Owned(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = input.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Json<'de>, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(Name(name)) = input.next_key()? {
            fields.push((name, input.next_value()?));
        }
        Ok(Json::Object(fields))
    }
}

/// What stood at a place before, in the object in which nobody has set anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Absent,
    /// What Kubernetes' types always have there: an empty object, or a list that is null.
    Always,
}

/// Fields that the maker does not own although they are there.
#[derive(Clone, Copy)]
struct Left<'a> {
    /// These and all below them.
    whole: Option<&'a Set>,
    /// These alone.
    alone: Option<&'a Set>,
}

impl<'a> Left<'a> {
    /// Whether the element is left, with all below it, and whether it alone is; what is left below it.
    fn at(self, element: &Element) -> (bool, bool, Self) {
        let look = |set: Option<&'a Set>| set.map_or((false, None), |set| set.at(element));
        let ((whole, below_whole), (alone, below_alone)) = (look(self.whole), look(self.alone));
        (whole, alone, Self { whole: below_whole, alone: below_alone })
    }

    const fn is_empty(self) -> bool {
        self.whole.is_none() && self.alone.is_none()
    }
}

/// One level of `fieldsV1`: `{"f:name":{…},…}`, written member by member.
struct Level<'o, 'k> {
    out: &'o mut Vec<u8>,
    begin: usize,
    /// Where each member begins and ends, and what they are sorted by.
    members: Vec<(Range<usize>, &'k str)>,
}

impl<'o, 'k> Level<'o, 'k> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { begin: out.len(), members: Vec::new(), out }
    }

    /// Adds an element with what `below` writes; nothing if neither is anything new.
    fn add(&mut self, tag: &str, key: &'k str, left: bool, below: impl FnOnce(&mut Vec<u8>) -> Found) {
        let start = self.out.len();
        self.out.push(b'"');
        self.out.extend_from_slice(tag.as_bytes());
        write_escaped(self.out, key);
        self.out.extend_from_slice(b"\":");
        let inner = self.out.len();
        let Found { is_new, has_below } = below(self.out);
        let is_member = is_new && !left;
        if has_below && is_member {
            self.out.splice(inner + 1..=inner, *b"\".\":{},");
        } else if is_member {
            self.out.truncate(inner);
            self.out.extend_from_slice(b"{}");
        } else if !has_below {
            self.out.truncate(start);
            return;
        }
        self.members.push((start..self.out.len(), key));
        self.out.push(b',');
    }

    /// Sorts the members as `fieldsV1` has them. Whether there are any.
    fn end(self) -> bool {
        let Self { out, mut members, begin } = self;
        if members.is_empty() {
            return false;
        }
        if !members.is_sorted_by_key(|(_, key)| *key) {
            let text = out.split_off(begin);
            members.sort_by_key(|(_, key)| *key);
            for (range, _) in &members {
                out.extend_from_slice(text.get(range.start - begin..range.end - begin).unwrap_or_default());
                out.push(b',');
            }
        }
        if let Some(last) = out.last_mut() {
            *last = b'}';
        }
        true
    }
}

/// As it stands between the quotes of a JSON text.
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let quoted = Value::from(text).to_string();
    out.extend_from_slice(quoted.trim_start_matches('"').as_bytes().get(..quoted.len() - 2).unwrap_or_default());
}

/// What the look at a place came to.
struct Found {
    /// It itself was not there, or was another.
    is_new: bool,
    /// Something below it was written.
    has_below: bool,
}

fn visit<'a>(place: impl Place<'a>, json: &Json<'_>, before: Before, left: Left<'_>, out: &mut Vec<u8>) -> Found {
    let is_new = before == Before::Absent;
    match (place.is(), json) {
        (Is::Map { atomic: false } | Is::Any, Json::Object(fields)) if !fields.is_empty() => {
            Found { is_new, has_below: visit_fields(place, fields, before, left, out) }
        }
        (Is::List(list @ (ListIs::Set | ListIs::Map)), Json::List(items)) if !items.is_empty() => {
            Found { is_new, has_below: visit_items(place, list == ListIs::Map, items, left, out) }
        }
        // Owned as a whole, if it is not what was there.
        (Is::List(_), Json::Scalar(Scalar::Null)) => Found { is_new, has_below: false },
        (Is::Map { .. } | Is::Any, Json::Object(fields)) => {
            Found { is_new: is_new || !fields.is_empty(), has_below: false }
        }
        _ => Found { is_new: true, has_below: false },
    }
}

fn visit_fields<'a>(
    place: impl Place<'a>,
    fields: &[(Cow<'_, str>, Json<'_>)],
    before: Before,
    left: Left<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let mut level = Level::new(out);
    for (name, json) in fields {
        let (is_known, inner) = match place.field(name) {
            Some((known, inner)) => (known.is_some(), inner),
            None => match place.rest() {
                Some(inner) => (false, inner),
                None => continue,
            },
        };
        let (whole, alone, left) = if left.is_empty() { (false, false, left) } else { left.at(&Element::field(name)) };
        if whole {
            continue;
        }
        let is_always = is_known && before == Before::Always && place.always(name).is_some();
        let was = if is_always { Before::Always } else { Before::Absent };
        level.add("f:", name, alone, |out| visit(inner, json, was, left, out));
    }
    level.end()
}

fn visit_items<'a>(place: impl Place<'a>, is_map: bool, items: &[Json<'_>], left: Left<'_>, out: &mut Vec<u8>) -> bool {
    let Some(inner) = place.element() else { return false };
    let keys: Vec<Option<String>> = items.iter().map(|item| key_of(place, is_map, item)).collect();
    // Where a key is first, and whether elements share it: such are owned as one.
    let mut seen: HashMap<&str, (usize, bool)> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        let Some(key) = key else { continue };
        seen.entry(key).and_modify(|(_, is_shared)| *is_shared = true).or_insert((at, false));
    }
    let mut level = Level::new(out);
    for (at, (item, key)) in items.iter().zip(&keys).enumerate() {
        // What has no key cannot be owned.
        let Some(key) = key else { continue };
        let Some((first, is_shared)) = seen.get(key.as_str()) else { continue };
        if *first != at {
            continue;
        }
        let element = if left.is_empty() { None } else { element_of(place, is_map, item) };
        let (whole, alone, left) = element.map_or((false, false, left), |element| left.at(&element));
        if whole {
            continue;
        }
        level.add("", key, alone, |out| {
            if *is_shared {
                Found { is_new: true, has_below: false }
            } else {
                visit(inner, item, Before::Absent, left, out)
            }
        });
    }
    level.end()
}

/// How the element that an item is stands in `fieldsV1`.
fn key_of<'a>(place: impl Place<'a>, is_map: bool, item: &Json<'_>) -> Option<String> {
    match item {
        Json::Object(fields) if is_map => plain_key(place, fields),
        _ => None,
    }
    .or_else(|| {
        let mut text = String::new();
        element_of(place, is_map, item)?.encode(&mut text);
        Some(text)
    })
}

/// The same of nearly all items there are: whose keys are texts without anything to escape, or natural numbers.
fn plain_key<'a>(place: impl Place<'a>, fields: &[(Cow<'_, str>, Json<'_>)]) -> Option<String> {
    let mut keys: SmallKeys<'_> = [None; 4];
    let mut count = 0;
    for key in place.keys() {
        let found = fields.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        *keys.get_mut(count)? = match found {
            Some(Json::Scalar(Scalar::Text(text))) if is_plain(text) => Some((key, Key::Text(text))),
            Some(Json::Scalar(Scalar::Natural(number))) => Some((key, Key::Natural(*number))),
            // Whether it has a default is for the long way to find out.
            _ => return None,
        };
        count += 1;
    }
    let keys = keys.get_mut(..count).filter(|keys| !keys.is_empty())?;
    keys.sort_unstable_by_key(|key| key.map(|(name, _)| name));
    let mut text = String::with_capacity(48);
    for (name, value) in keys.iter().flatten() {
        text.push_str(if text.is_empty() { "k:{\"" } else { ",\"" });
        text.push_str(name);
        text.push_str("\":");
        match value {
            Key::Text(value) => {
                text.push('"');
                text.push_str(value);
                text.push('"');
            }
            Key::Natural(number) => text.push_str(&number.to_string()),
        }
    }
    text.push('}');
    Some(text)
}

/// No kind has more keys; one that had would go the long way.
type SmallKeys<'a> = [Option<(&'a str, Key<'a>)>; 4];

#[derive(Clone, Copy)]
enum Key<'a> {
    Text(&'a str),
    Natural(u64),
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
}

fn element_of<'a>(place: impl Place<'a>, is_map: bool, item: &Json<'_>) -> Option<Element> {
    let item = match item {
        // Only what may be a key is looked at.
        Json::Object(fields) if is_map => {
            let is_key = |name: &str| place.keys().any(|key| key == name);
            let keys = fields.iter().filter(|(name, _)| is_key(name));
            Value::Object(keys.map(|(name, value)| (name.clone().into_owned(), value.to_value())).collect())
        }
        item => item.to_value(),
    };
    Element::of_item(place, is_map, &item).ok()
}

impl Json<'_> {
    fn to_value(&self) -> Value {
        match self {
            Json::Scalar(Scalar::Null) => Value::Null,
            Json::Scalar(Scalar::Boolean(value)) => (*value).into(),
            Json::Scalar(Scalar::Natural(value)) => (*value).into(),
            Json::Scalar(Scalar::Integer(value)) => (*value).into(),
            Json::Scalar(Scalar::Float(value)) => (*value).into(),
            Json::Scalar(Scalar::Text(text)) => text.as_ref().into(),
            Json::List(items) => items.iter().map(Self::to_value).collect(),
            Json::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.to_string(), value.to_value())).collect())
            }
        }
    }
}

/// `fieldsV1` of who made the object whose JSON this is, but for the fields in `reset`; `None` when he owns nothing. No
/// object in it may have a field twice.
///
/// # Errors
/// What is no JSON object.
pub fn fresh_fields<'a>(place: impl Place<'a>, json: &[u8], reset: &Set) -> serde_json::Result<Option<Vec<u8>>> {
    let object: Json<'_> = serde_json::from_slice(json)?;
    let Json::Object(fields) = &object else {
        return Err(serde_json::Error::custom("an object is wanted"));
    };
    let mut out = Vec::with_capacity(json.len());
    let left = Left { whole: Some(reset), alone: Some(&NOBODYS) };
    Ok(visit_fields(place, fields, Before::Always, left, &mut out).then_some(out))
}
