//! Who owns what of an object that was just made, without sets: everything in it is its maker's.
//!
//! [`super::Updater::update`] comes to the same from nothing; but creating is what a busy server does most, and there the
//! trees of values and of sets cost more than reading the object. So this goes once over the object's JSON and writes
//! `fieldsV1` as it goes.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{
    element::Element,
    place::{Is, ListIs, Place},
    set::Set,
    updater::NOBODYS,
};
use crate::json::Name;

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
    /// All is the maker's.
    const NOTHING: Self = Self { whole: None, alone: None };

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

/// One member of a level.
struct Member<'de> {
    /// Where it begins and ends.
    range: Range<usize>,
    /// Where what it holds begins.
    inner: usize,
    /// What it is sorted by.
    key: Cow<'de, str>,
}

/// One level of `fieldsV1`: `{"f:name":{…},…}`, written member by member.
struct Level<'o, 'de> {
    out: &'o mut Vec<u8>,
    begin: usize,
    members: Vec<Member<'de>>,
}

impl<'o, 'de> Level<'o, 'de> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { begin: out.len(), members: Vec::new(), out }
    }

    /// Adds a field with what `below` writes; nothing if neither is anything new.
    fn add<E>(
        &mut self,
        name: Cow<'de, str>,
        is_left: bool,
        below: impl FnOnce(&mut Vec<u8>) -> Result<Found, E>,
    ) -> Result<(), E> {
        let start = self.out.len();
        self.out.extend_from_slice(b"\"f:");
        write_escaped(self.out, &name);
        self.out.extend_from_slice(b"\":");
        let inner = self.out.len();
        let Found { is_new, has_below } = below(self.out)?;
        let is_member = is_new && !is_left;
        if is_member || has_below {
            self.close(name, start, inner, is_member, has_below);
        } else {
            self.out.truncate(start);
        }
        Ok(())
    }

    /// Adds an element of a list, of which what is below it stands from `start` on, if anything does.
    fn put(&mut self, key: String, start: usize, has_below: bool) {
        let end = self.out.len();
        self.out.push(b'"');
        write_escaped(self.out, &key);
        self.out.extend_from_slice(b"\":");
        let head = self.out.len() - end;
        if let Some(member) = self.out.get_mut(start..) {
            member.rotate_right(head);
        }
        self.close(key.into(), start, start + head, true, has_below);
    }

    fn close(&mut self, key: Cow<'de, str>, start: usize, inner: usize, is_member: bool, has_below: bool) {
        if has_below && is_member {
            self.out.splice(inner + 1..=inner, *b"\".\":{},");
        } else if is_member {
            self.out.truncate(inner);
            self.out.extend_from_slice(b"{}");
        }
        self.members.push(Member { range: start..self.out.len(), inner, key });
        self.out.push(b',');
    }

    /// Sorts the members as `fieldsV1` has them; elements that share a key are owned as one. Whether there are any.
    fn end(self) -> bool {
        let Self { out, mut members, begin } = self;
        if members.is_empty() {
            return false;
        }
        if !members.is_sorted_by(|a, b| a.key < b.key) {
            let text = out.split_off(begin);
            let part = |range: Range<usize>| text.get(range.start - begin..range.end - begin).unwrap_or_default();
            members.sort_by(|a, b| a.key.cmp(&b.key));
            for same in members.chunk_by(|a, b| a.key == b.key) {
                match same {
                    [only] => out.extend_from_slice(part(only.range.clone())),
                    [first, ..] => {
                        out.extend_from_slice(part(first.range.start..first.inner));
                        out.extend_from_slice(b"{}");
                    }
                    [] => {}
                }
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
    let mut rest = text;
    while let Some((plain, special)) = rest.find(is_special).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            Some(quote @ ('"' | '\\')) => out.extend([b'\\', quote as u8]),
            other => {
                let quoted = Value::from(other.map(String::from)).to_string();
                out.extend_from_slice(quoted.as_bytes().get(1..quoted.len() - 1).unwrap_or_default());
            }
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

const fn is_special(char: char) -> bool {
    char < ' ' || matches!(char, '"' | '\\')
}

/// What the look at a place came to.
struct Found {
    /// It itself was not there, or was another.
    is_new: bool,
    /// Something below it was written.
    has_below: bool,
}

impl Found {
    /// It itself and nothing below it.
    const ITSELF: Self = Self { is_new: true, has_below: false };
}

/// A look at the value at a place.
struct Look<'l, 'p, 'de, P> {
    place: P,
    before: Before,
    left: Left<'l>,
    /// Of an element of a list, what tells it from the others.
    keys: Option<&'l mut Keys<'p, 'de>>,
    out: &'l mut Vec<u8>,
}

impl<'de, 'p, P: Place<'p>> DeserializeSeed<'de> for Look<'_, 'p, 'de, P> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Found, D::Error> {
        if matches!(self.place.is(), Is::Scalar(_)) {
            return input.deserialize_ignored_any(IgnoredAny).map(|_| Found::ITSELF);
        }
        input.deserialize_any(self)
    }
}

impl<'de, 'p, P: Place<'p>> Visitor<'de> for Look<'_, 'p, 'de, P> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        let is_list = matches!(self.place.is(), Is::List(_));
        Ok(Found { is_new: self.before == Before::Absent || !is_list, has_below: false })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::ITSELF)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::ITSELF)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::ITSELF)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::ITSELF)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::ITSELF)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, input: A) -> Result<Found, A::Error> {
        let Is::List(list @ (ListIs::Set | ListIs::Map)) = self.place.is() else {
            return IgnoredAny.visit_seq(input).map(|_| Found::ITSELF);
        };
        let (count, has_below) = match self.place.element() {
            Some(inner) if list == ListIs::Map => visit_keyed(self.place, inner, input, self.out)?,
            Some(_) => visit_scalars(self.place, input, self.out)?,
            None => return IgnoredAny.visit_seq(input).map(|_| Found::ITSELF),
        };
        // An empty list is owned as a whole.
        Ok(Found { is_new: self.before == Before::Absent || count == 0, has_below })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Found, A::Error> {
        let Self { place, before, left, keys, out } = self;
        let is_new = before == Before::Absent;
        match (place.is(), keys) {
            (Is::Map { atomic: false } | Is::Any, keys) => {
                Ok(Found { is_new, has_below: visit_fields(place, input, before, left, keys, out)? })
            }
            // Owned as a whole, although its keys have to be looked at.
            (_, keys @ Some(_)) => visit_fields(place, input, before, left, keys, out).map(|_| Found::ITSELF),
            (Is::Map { atomic: true }, None) => {
                let mut has_any = false;
                while input.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    has_any = true;
                }
                Ok(Found { is_new: is_new || has_any, has_below: false })
            }
            _ => IgnoredAny.visit_map(input).map(|_| Found::ITSELF),
        }
    }
}

/// The fields that tell an element of a list from the others, and what it has in them.
struct Keys<'p, 'de> {
    names: Vec<&'p str>,
    /// `None` for what is no object.
    found: Option<Vec<(&'p str, &'de RawValue)>>,
}

/// Writes what is in an object. Whether anything was; `keys` are noted on the way.
fn visit_fields<'de, 'p, P: Place<'p>, A: MapAccess<'de>>(
    place: P,
    mut input: A,
    before: Before,
    left: Left<'_>,
    mut keys: Option<&mut Keys<'p, 'de>>,
    out: &mut Vec<u8>,
) -> Result<bool, A::Error> {
    let mut level = Level::new(out);
    if let Some(keys) = &mut keys {
        keys.found = Some(Vec::with_capacity(keys.names.len()));
    }
    while let Some(Name(name)) = input.next_key()? {
        let key = keys.as_ref().and_then(|keys| keys.names.iter().copied().find(|key| *key == name));
        let value = match (key, &mut keys) {
            (Some(key), Some(keys)) => {
                let value: &'de RawValue = input.next_value()?;
                keys.found.get_or_insert_default().push((key, value));
                Some(value)
            }
            _ => None,
        };
        let inner = match place.field(&name) {
            Some((known, inner)) => Some((known.is_some(), inner)),
            None => place.rest().map(|inner| (false, inner)),
        };
        let (whole, alone, left) = if left.is_empty() { (false, false, left) } else { left.at(&Element::field(&name)) };
        let Some((is_known, inner)) = inner.filter(|_| !whole) else {
            if value.is_none() {
                input.next_value::<IgnoredAny>()?;
            }
            continue;
        };
        let is_always = is_known && before == Before::Always && place.always(&name).is_some();
        let before = if is_always { Before::Always } else { Before::Absent };
        level.add(name, alone, |out| {
            let look = Look { place: inner, before, left, keys: None, out };
            match value {
                Some(value) => look.deserialize(value).map_err(A::Error::custom),
                None => input.next_value_seed(look),
            }
        })?;
    }
    Ok(level.end())
}

/// Writes the elements of a list that are told apart by keys. How many there are, and whether any was written.
fn visit_keyed<'de, 'p, P: Place<'p>, A: SeqAccess<'de>>(
    place: P,
    inner: P,
    mut input: A,
    out: &mut Vec<u8>,
) -> Result<(usize, bool), A::Error> {
    let mut level = Level::new(out);
    let mut keys = Keys { names: place.keys().collect(), found: None };
    let mut count = 0;
    loop {
        keys.found = None;
        let start = level.out.len();
        let look =
            Look { place: inner, before: Before::Absent, left: Left::NOTHING, keys: Some(&mut keys), out: level.out };
        let Some(Found { has_below, .. }) = input.next_element_seed(look)? else { break };
        count += 1;
        // What has no key cannot be owned.
        let key = key_of(place, &mut keys);
        if key.is_none() || !has_below {
            level.out.truncate(start);
        }
        if let Some(key) = key {
            level.put(key, start, has_below);
        }
    }
    Ok((count, level.end()))
}

/// Writes the elements of a set. How many there are, and whether any was written.
fn visit_scalars<'de, 'p, A: SeqAccess<'de>>(
    place: impl Place<'p>,
    mut input: A,
    out: &mut Vec<u8>,
) -> Result<(usize, bool), A::Error> {
    let mut level = Level::new(out);
    let mut count = 0;
    while let Some(item) = input.next_element::<Value>()? {
        count += 1;
        if let Ok(element) = Element::of_item(place, false, &item) {
            let mut key = String::new();
            element.encode(&mut key);
            let start = level.out.len();
            level.put(key, start, false);
        }
    }
    Ok((count, level.end()))
}

/// How the element with these keys stands in `fieldsV1`.
fn key_of<'p>(place: impl Place<'p>, keys: &mut Keys<'p, '_>) -> Option<String> {
    let found = keys.found.as_mut()?;
    if found.len() == keys.names.len()
        && let Some(text) = plain_key(found)
    {
        return Some(text);
    }
    let fields = found.iter().map(|(name, value)| Some(((*name).to_owned(), serde_json::from_str(value.get()).ok()?)));
    let item = Value::Object(fields.collect::<Option<_>>()?);
    let mut text = String::new();
    Element::of_item(place, true, &item).ok()?.encode(&mut text);
    Some(text)
}

/// The same of nearly all elements there are: which have all keys, and in them texts without escapes or natural numbers.
fn plain_key(keys: &mut [(&str, &RawValue)]) -> Option<String> {
    let is_plain = |value: &str| match value.as_bytes() {
        [b'"', ..] => !value.contains('\\'),
        number => number.len() < 20 && number.iter().all(u8::is_ascii_digit),
    };
    if keys.is_empty() || !keys.iter().all(|(_, value)| is_plain(value.get())) {
        return None;
    }
    keys.sort_unstable_by_key(|(name, _)| *name);
    let mut text = String::with_capacity(48);
    for (name, value) in keys {
        text.push_str(if text.is_empty() { "k:{\"" } else { ",\"" });
        text.push_str(name);
        text.push_str("\":");
        text.push_str(value.get());
    }
    text.push('}');
    Some(text)
}

/// The object itself.
struct Root<'l, P> {
    place: P,
    left: Left<'l>,
    out: &'l mut Vec<u8>,
}

impl<'de, 'p, P: Place<'p>> Visitor<'de> for Root<'_, P> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<bool, A::Error> {
        visit_fields(self.place, input, Before::Always, self.left, None, self.out)
    }
}

/// `fieldsV1` of who made the object whose JSON this is, but for the fields in `reset`, which are none within lists;
/// `None` when he owns nothing. No object in it may have a field twice.
///
/// # Errors
/// What is no JSON object.
pub fn fresh_fields<'a>(place: impl Place<'a>, json: &[u8], reset: &Set) -> serde_json::Result<Option<Vec<u8>>> {
    let mut out = Vec::with_capacity(json.len());
    let left = Left { whole: Some(reset), alone: Some(&NOBODYS) };
    let mut input = serde_json::Deserializer::from_slice(json);
    let is_owned = input.deserialize_map(Root { place, left, out: &mut out })?;
    input.end()?;
    Ok(is_owned.then_some(out))
}
