//! Sets of fields.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{
    element::{Element, Path},
    place::Place,
};

/// A set of fields: a tree whose nodes may be members themselves and have members below.
///
/// A parent does not stand for its children: `.a` without `.a.b` says nothing about `.a.b`. Members are sorted, and no
/// node is kept that neither is a member nor has one below it, so that equal sets are equal trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    element: Element,
    is_member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl<const N: usize> From<[Path; N]> for Set {
    fn from(paths: [Path; N]) -> Self {
        paths.iter().collect()
    }
}

impl<'a> FromIterator<&'a Path> for Set {
    fn from_iter<I: IntoIterator<Item = &'a Path>>(paths: I) -> Self {
        let mut set = Self::default();
        paths.into_iter().for_each(|path| set.insert(path));
        set
    }
}

impl Set {
    /// Whether it has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Mostly things are added at the end.
        match self.nodes.last() {
            Some(last) if last.element < *element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|node| node.element.cmp(element)),
        }
    }

    fn get(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().and_then(|at| self.nodes.get(at))
    }

    /// Adds what is at and below an element; nothing when that is nothing.
    pub(super) fn add(&mut self, element: Element, is_member: bool, below: Self) {
        if !is_member && below.is_empty() {
            return;
        }
        match self.find(&element) {
            Err(at) => self.nodes.insert(at, Node { element, is_member, below }),
            Ok(at) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.is_member |= is_member;
                    node.below = std::mem::take(&mut node.below).union(below);
                }
            }
        }
    }

    /// Adds one field; the root is none.
    pub fn insert(&mut self, path: &Path) {
        let one = path.0.iter().rev().fold(None, |below: Option<Self>, element| {
            let mut set = Self::default();
            set.add(element.clone(), below.is_none(), below.unwrap_or_default());
            Some(set)
        });
        if let Some(one) = one {
            *self = std::mem::take(self).union(one);
        }
    }

    /// Whether the field itself is a member.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        let Some((last, parents)) = path.0.split_last() else { return false };
        let parent = parents.iter().try_fold(self, |set, element| set.get(element).map(|node| &node.below));
        parent.and_then(|set| set.get(last)).is_some_and(|node| node.is_member)
    }

    /// Whether the element itself is a member, and what is below it.
    pub(super) fn at(&self, element: &Element) -> (bool, Option<&Self>) {
        self.get(element)
            .map_or((false, None), |node| (node.is_member, Some(&node.below).filter(|below| !below.is_empty())))
    }

    /// The elements right below the root: whether each is a member, and what is below it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, bool, &Self)> {
        self.nodes.iter().map(|node| (&node.element, node.is_member, &node.below))
    }

    /// What is in one of them or in both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) => a.element.cmp(&b.element),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return Self { nodes },
            };
            match order {
                std::cmp::Ordering::Less => nodes.extend(left.next()),
                std::cmp::Ordering::Greater => nodes.extend(right.next()),
                std::cmp::Ordering::Equal => {
                    if let (Some(a), Some(b)) = (left.next(), right.next()) {
                        let below = a.below.union(b.below);
                        nodes.push(Node { element: a.element, is_member: a.is_member || b.is_member, below });
                    }
                }
            }
        }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let common = |node: &Node| {
            let with = other.get(&node.element)?;
            let below = node.below.intersection(&with.below);
            Some(Node { element: node.element.clone(), is_member: node.is_member && with.is_member, below })
        };
        Self { nodes: self.nodes.iter().filter_map(common).filter(|node| !node.is_empty()).collect() }
    }

    /// What is in this one and not in the other; members below a member of the other stay.
    #[must_use]
    pub fn difference(self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// As [`Set::difference`], but what is below a member of the other goes as well.
    #[must_use]
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(mut self, other: &Self, recursive: bool) -> Self {
        if other.is_empty() {
            return self;
        }
        self.nodes.retain_mut(|node| {
            let Some(with) = other.get(&node.element) else { return true };
            if with.is_member && recursive {
                return false;
            }
            node.is_member &= !with.is_member;
            node.below = std::mem::take(&mut node.below).without(&with.below, recursive);
            !node.is_empty()
        });
        self
    }

    /// With the declared fields that have members below them, which field sets mostly leave out.
    #[must_use]
    pub fn with_named_fields<'a>(&self, place: Option<impl Place<'a>>) -> Self {
        let nodes = self.nodes.iter().map(|node| {
            let mut is_member = node.is_member;
            let inner = match (&node.element, place) {
                (Element::Field(name), Some(place)) => match place.field(name) {
                    Some((_, inner)) => {
                        is_member |= !node.below.is_empty();
                        Some(inner)
                    }
                    None => place.rest(),
                },
                (Element::Key(_), Some(place)) => place.element(),
                _ => None,
            };
            Node { element: node.element.clone(), is_member, below: node.below.with_named_fields(inner) }
        });
        Self { nodes: nodes.collect() }
    }

    /// All members: those of a level before those below them.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect(&mut Path::default(), &mut found);
        found
    }

    fn collect(&self, at: &mut Path, found: &mut Vec<Path>) {
        let with = |at: &Path, node: &Node| {
            let mut path = at.clone();
            path.0.push(node.element.clone());
            path
        };
        found.extend(self.nodes.iter().filter(|node| node.is_member).map(|node| with(at, node)));
        for node in self.nodes.iter().filter(|node| !node.below.is_empty()) {
            let mut path = with(at, node);
            node.below.collect(&mut path, found);
        }
    }
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Level { set: self, is_member: false }.serialize(out)
    }
}

/// A set below an element that may be a member itself, which `.` says unless there is nothing else to say.
struct Level<'a> {
    set: &'a Set,
    is_member: bool,
}

impl Serialize for Level<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let says_itself = self.is_member && !self.set.is_empty();
        let mut map = out.serialize_map(Some(self.set.nodes.len() + usize::from(says_itself)))?;
        if says_itself {
            map.serialize_entry(".", &Level { set: &Set::default(), is_member: true })?;
        }
        let mut key = String::new();
        for node in &self.set.nodes {
            key.clear();
            node.element.encode(&mut key);
            map.serialize_entry(&key, &Level { set: &node.below, is_member: node.is_member })?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Read::deserialize(input).map(|read| read.below)
    }
}

/// What stands behind an element: members below it, and whether it is one itself.
struct Read {
    is_member: bool,
    below: Set,
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(ReadVisitor)
    }
}

struct ReadVisitor;

impl<'de> Visitor<'de> for ReadVisitor {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read { is_member: true, below: Set::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let mut read = Read { is_member: false, below: Set::default() };
        while let Some(key) = map.next_key::<String>()? {
            if key == "." {
                read.is_member = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match Element::decode(&key)
                .map_err(|why| A::Error::custom(format!("parsing key as path element: {why}")))?
            {
                Some(element) => {
                    let inner: Read = map.next_value()?;
                    read.below.add(element, inner.is_member, inner.below);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        read.is_member |= read.below.is_empty();
        Ok(read)
    }
}
