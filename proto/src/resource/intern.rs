//! Rows of resources that are known only at run time: what CustomResourceDefinitions define.
//!
//! Everything that handles resources holds `&'static Resource`, because the built-in ones are static. A row made here lives
//! as long as the process, so each different one is made once: a definition that is deleted and created again costs
//! nothing. How much all of them may take is bounded.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

use super::{GET_PATCH_UPDATE, Resource, SCALE, Scope, Subresource};

/// Verbs of a resource that a definition makes, as Kubernetes' discovery lists them.
pub const CUSTOM_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The same while the definition is being deleted: nothing new is created, but what is there can be let go.
pub const TERMINATING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// What all interned texts and rows may take: some 60,000 different definitions in the life of a process.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A resource as a definition describes it.
#[expect(missing_docs, reason = "each is documented in Resource")]
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub list_kind: &'a str,
    pub plural: &'a str,
    pub singular: &'a str,
    pub short_names: &'a [String],
    pub categories: &'a [String],
    pub scope: Scope,
    pub verbs: &'static [&'static str],
    /// Whether it has `/status`.
    pub has_status: bool,
    /// Whether it has `/scale`.
    pub has_scale: bool,
}

#[derive(Default)]
struct Interner {
    texts: HashSet<&'static str>,
    lists: HashSet<&'static [&'static str]>,
    rows: HashSet<&'static Resource>,
    bytes: usize,
}

static INTERNER: LazyLock<Mutex<Interner>> = LazyLock::new(Mutex::default);

impl Interner {
    /// Takes room; none when there is none left.
    fn take(&mut self, bytes: usize) -> Option<()> {
        // A set's own entry is counted in.
        let all = self.bytes.checked_add(bytes)?.checked_add(32)?;
        if all > MAX_BYTES {
            return None;
        }
        self.bytes = all;
        Some(())
    }

    fn text(&mut self, text: &str) -> Option<&'static str> {
        if let Some(known) = self.texts.get(text) {
            return Some(known);
        }
        self.take(text.len())?;
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.texts.insert(kept);
        Some(kept)
    }

    fn list(&mut self, texts: &[String]) -> Option<&'static [&'static str]> {
        let list: Vec<&'static str> = texts.iter().map(|text| self.text(text)).collect::<Option<_>>()?;
        if let Some(known) = self.lists.get(list.as_slice()) {
            return Some(known);
        }
        self.take(list.len() * 16)?;
        let kept: &'static [&'static str] = Box::leak(list.into_boxed_slice());
        self.lists.insert(kept);
        Some(kept)
    }

    fn row(&mut self, described: &Described<'_>) -> Option<&'static Resource> {
        let (group, version) = (self.text(described.group)?, self.text(described.version)?);
        let kind = self.text(described.kind)?;
        let status = Subresource { name: "status", group, version, kind, verbs: GET_PATCH_UPDATE };
        let mut subresources = Vec::new();
        if described.has_scale {
            subresources.push(SCALE);
        }
        if described.has_status {
            subresources.push(status);
        }
        let storage = self.text(&format!("{}/{}", described.group, described.plural))?;
        let mut row = Resource {
            group,
            version,
            kind,
            list_kind: self.text(described.list_kind)?,
            plural: self.text(described.plural)?,
            singular: self.text(described.singular)?,
            short_names: self.list(described.short_names)?,
            categories: self.list(described.categories)?,
            scope: described.scope,
            verbs: described.verbs,
            subresources: &[],
            storage,
        };
        let known = self.rows.iter().find(|known| {
            Resource { subresources: &[], ..***known } == row && known.subresources == subresources.as_slice()
        });
        if let Some(known) = known {
            return Some(known);
        }
        self.take(size_of::<Resource>() + subresources.len() * size_of::<Subresource>())?;
        row.subresources = Box::leak(subresources.into_boxed_slice());
        let kept: &'static Resource = Box::leak(Box::new(row));
        self.rows.insert(kept);
        Some(kept)
    }
}

/// The row of a resource; the same one for the same description. None when so many different ones were made in the life
/// of this process that the bound on them is reached.
#[must_use]
pub fn interned(described: &Described<'_>) -> Option<&'static Resource> {
    INTERNER.lock().unwrap_or_else(PoisonError::into_inner).row(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foo() -> Described<'static> {
        Described {
            group: "example.com",
            version: "v1",
            kind: "Foo",
            list_kind: "FooList",
            plural: "foos",
            singular: "foo",
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            verbs: CUSTOM_VERBS,
            has_status: true,
            has_scale: false,
        }
    }

    #[test]
    fn the_same_resource_is_made_once() {
        let row = interned(&foo()).unwrap();
        assert!(std::ptr::eq(row, interned(&foo()).unwrap()));
        assert!(row.subresource("status").is_some() && row.storage == "example.com/foos");
        let other = interned(&Described { has_status: false, ..foo() }).unwrap();
        assert!(!std::ptr::eq(row, other) && other.subresources.is_empty());
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut interner = Interner { bytes: MAX_BYTES - 300, ..Interner::default() };
        assert!(interner.row(&foo()).is_none());
    }
}
