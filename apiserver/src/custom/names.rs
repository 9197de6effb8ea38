//! Which names a definition gets: none that another one of its group, or a built-in kind, has already.

use std::collections::BTreeSet;

use coracle_proto::resource::RESOURCES;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames as Names,
};

/// Names that are taken within a group.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

/// What came of a request for names.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    /// What the definition has now.
    pub(super) accepted: Names,
    /// Why it does not have what it asked for: a reason and a sentence.
    pub(super) conflict: Option<(&'static str, String)>,
}

impl Taken {
    /// What the group's other definitions have, and the built-in kinds.
    pub(super) fn by<'a>(group: &str, others: impl Iterator<Item = &'a CustomResourceDefinition>) -> Self {
        let mut taken = Self::default();
        for names in others.filter_map(|other| other.status.as_ref()?.accepted_names.as_ref()) {
            taken.resources.insert(names.plural.clone());
            taken.resources.extend(names.singular.clone());
            taken.resources.extend(names.short_names.iter().flatten().cloned());
            taken.kinds.insert(names.kind.clone());
            taken.kinds.extend(names.list_kind.clone());
        }
        for row in RESOURCES.iter().filter(|row| row.group == group) {
            taken.resources.extend([row.plural, row.singular].map(str::to_owned));
            taken.resources.extend(row.short_names.iter().map(|name| (*name).to_owned()));
            taken.kinds.extend([row.kind, row.list_kind].map(str::to_owned));
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }

    /// What a definition that has `now` gets of what it asks for. The last conflict is told, as in Kubernetes.
    pub(super) fn grant(&self, asked: &Names, now: &Names) -> Outcome {
        let mut accepted = now.clone();
        let mut conflict = None;
        let is_free = |taken: &BTreeSet<String>, name: &str, own: &str| name == own || !taken.contains(name);
        let in_use = |name: &str| format!("{name:?} is already in use");
        if is_free(&self.resources, &asked.plural, &now.plural) {
            accepted.plural.clone_from(&asked.plural);
        } else {
            conflict = Some(("PluralConflict", in_use(&asked.plural)));
        }
        let text = |name: &Option<String>| name.clone().unwrap_or_default();
        let (singular, own) = (text(&asked.singular), text(&now.singular));
        if is_free(&self.resources, &singular, &own) {
            accepted.singular.clone_from(&asked.singular);
        } else {
            conflict = Some(("SingularConflict", in_use(&singular)));
        }
        let own: Vec<&String> = now.short_names.iter().flatten().collect();
        let clashes: Vec<String> = asked
            .short_names
            .iter()
            .flatten()
            .filter(|name| !own.contains(name) && self.resources.contains(*name))
            .map(|name| in_use(name))
            .collect();
        match clashes.as_slice() {
            [] => accepted.short_names.clone_from(&asked.short_names),
            [one] => conflict = Some(("ShortNamesConflict", one.clone())),
            many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
        }
        if is_free(&self.kinds, &asked.kind, &now.kind) {
            accepted.kind.clone_from(&asked.kind);
        } else {
            conflict = Some(("KindConflict", in_use(&asked.kind)));
        }
        let (list, own) = (text(&asked.list_kind), text(&now.list_kind));
        if is_free(&self.kinds, &list, &own) {
            accepted.list_kind.clone_from(&asked.list_kind);
        } else {
            conflict = Some(("ListKindConflict", in_use(&list)));
        }
        accepted.categories.clone_from(&asked.categories);
        Outcome { accepted, conflict }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(plural: &str, kind: &str, short: &[&str]) -> Names {
        serde_json::from_value(json!({
            "plural": plural, "singular": plural.trim_end_matches('s'), "kind": kind, "listKind": format!("{kind}List"),
            "shortNames": short,
        }))
        .unwrap()
    }

    #[test]
    fn names_that_others_have_are_not_given_twice() {
        let mut other = CustomResourceDefinition::default();
        other.status.get_or_insert_default().accepted_names = Some(names("foos", "Foo", &["f"]));
        let taken = Taken::by("example.com", [&other].into_iter());
        let none = Names::default();
        for (asked, reason) in [
            (names("bars", "Bar", &["b"]), None),
            (names("bars", "Foo", &[]), Some("ListKindConflict")),
            (names("bars", "Bar", &["f"]), Some("ShortNamesConflict")),
            (names("foos", "Bar", &[]), Some("SingularConflict")),
        ] {
            let outcome = taken.grant(&asked, &none);
            assert_eq!(outcome.conflict.map(|(reason, _)| reason), reason, "{asked:?}");
        }
        let own = names("bars", "Bar", &["b"]);
        assert_eq!(Taken::default().grant(&own, &own), Outcome { accepted: own.clone(), conflict: None });
    }
}
