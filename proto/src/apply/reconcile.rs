//! Field sets that were written when a list or map was owned in another way than today's schema has it.

use super::{
    element::Element,
    place::{Is, ListIs, Place},
    set::Set,
};

/// The set as today's schema would have it: who owned parts of what is now owned as a whole owns the whole.
pub(super) fn reconcile<'a>(place: impl Place<'a>, set: Set) -> Set {
    if !needs_it(place, &set) {
        return set;
    }
    let mut out = Set::default();
    for (element, is_member, below) in set.iter() {
        match inner(place, element) {
            Some(inner) if !below.is_empty() && is_whole(inner) => out.add(element.clone(), true, Set::default()),
            Some(inner) => out.add(element.clone(), is_member, reconcile(inner, below.clone())),
            None => out.add(element.clone(), is_member, below.clone()),
        }
    }
    out
}

fn is_whole<'a>(place: impl Place<'a>) -> bool {
    matches!(place.is(), Is::Map { atomic: true } | Is::List(ListIs::Atomic))
}

fn inner<'a, P: Place<'a>>(place: P, element: &Element) -> Option<P> {
    match element {
        Element::Field(name) => place.field(name).map(|(_, inner)| inner).or_else(|| place.rest()),
        Element::Key(_) | Element::Value(_) | Element::Index(_) => place.element(),
    }
}

fn needs_it<'a>(place: impl Place<'a>, set: &Set) -> bool {
    set.iter()
        .filter(|(_, _, below)| !below.is_empty())
        .any(|(element, _, below)| inner(place, element).is_some_and(|inner| is_whole(inner) || needs_it(inner, below)))
}
