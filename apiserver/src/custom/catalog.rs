//! All kinds that definitions make, as one picture that is replaced as a whole.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use coracle_proto::resource::{RESOURCES, Resource, old};

use tokio::sync::watch;

use super::CustomKind;
use crate::{documents::Documents, ops::KindOps};

/// One picture. What is worked out from it (documents of discovery and OpenAPI) is kept with it, made when first asked for.
#[derive(Default)]
pub struct Catalog {
    kinds: Vec<Arc<CustomKind>>,
    by_plural: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
    documents: OnceLock<Documents>,
    /// The last picture before whose documents somebody asked for, until somebody asks for this one's.
    before: Mutex<Option<Arc<Catalog>>>,
}

impl Catalog {
    /// The picture of these kinds, sorted as discovery lists them.
    pub(super) fn new(mut kinds: Vec<Arc<CustomKind>>) -> Self {
        kinds.sort_by(|a, b| {
            let (a, b) = (a.row(), b.row());
            let key = |row: &'static Resource| (row.group, std::cmp::Reverse(version_order(row.version)), row.plural);
            key(a).cmp(&key(b))
        });
        let place = |of: fn(&'static Resource) -> &'static str| {
            let key = |kind: &Arc<CustomKind>| (kind.row().group, kind.row().version, of(kind.row()));
            kinds.iter().enumerate().map(|(i, kind)| (key(kind), i)).collect()
        };
        Self { by_plural: place(|row| row.plural), by_kind: place(|row| row.kind), kinds, ..Self::default() }
    }

    /// All kinds, one a served version.
    pub fn kinds(&self) -> &[Arc<CustomKind>] {
        &self.kinds
    }

    /// The kind served there.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<CustomKind>> {
        self.kinds.get(*self.by_plural.get(&(group, version, plural))?)
    }

    /// The kind whose objects say so.
    #[must_use]
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<CustomKind>> {
        self.kinds.get(*self.by_kind.get(&(group, version, kind))?)
    }

    /// Every resource there is, the built-in ones first and old versions last.
    #[must_use]
    pub fn rows(&self) -> Vec<&'static Resource> {
        RESOURCES.iter().chain(self.kinds.iter().map(|kind| kind.row())).chain(old::rows()).collect()
    }

    pub(crate) fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| {
            // Taken, not kept: no picture holds more than one before it.
            let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
            let same = |group, version| {
                let before = before.as_ref()?;
                let documents = before.documents.get()?;
                let alike = self.of(group, version).map(Arc::as_ptr).eq(before.of(group, version).map(Arc::as_ptr));
                alike.then_some(documents)
            };
            Documents::new(self.rows(), same)
        })
    }

    /// The kinds of a group and version, in their order.
    fn of(&self, group: &'static str, version: &'static str) -> impl Iterator<Item = &Arc<CustomKind>> {
        let from = self.kinds.partition_point(|kind| kind.row().group < group);
        let rest = self.kinds.get(from..).unwrap_or_default();
        let own = rest.iter().take_while(move |kind| kind.row().group == group);
        own.filter(move |kind| kind.row().version == version)
    }

    /// The picture to take documents from: this one, if somebody asked for its own, else the one before.
    fn documented(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.documents.get().is_some() {
            return Some(Arc::clone(self));
        }
        self.before.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a version stands among others (KEP-2876's neighbour, the "version priority" of definitions): stable ones by
/// number, then beta, then alpha, then all others by name, the later first.
pub(crate) fn version_order(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, tail) = rest.split_at(end);
    let Ok(major) = major.parse() else { return other };
    let stage = |rank: u8, minor: &str| {
        minor.parse().map_or_else(|_| other.clone(), |minor| (rank, major, minor, std::cmp::Reverse(String::new())))
    };
    if tail.is_empty() {
        return (3, major, 0, std::cmp::Reverse(String::new()));
    }
    match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
        (Some(minor), _) => stage(2, minor),
        (_, Some(minor)) => stage(1, minor),
        _ => other,
    }
}

/// The newest picture. Who looks holds what it was then; the lock is held only while a pointer is copied.
#[derive(Default)]
pub struct Catalogs {
    newest: RwLock<Arc<Catalog>>,
    changes: watch::Sender<()>,
}

impl Catalogs {
    /// The newest picture.
    #[must_use]
    pub fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of every picture after this.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Puts another picture in its place. Watches of kinds that are not in the new one end.
    pub(super) fn replace(&self, mut catalog: Catalog) {
        catalog.before = Mutex::new(self.newest().documented());
        let old =
            std::mem::replace(&mut *self.newest.write().unwrap_or_else(PoisonError::into_inner), Arc::new(catalog));
        let new = self.newest();
        let kept: HashSet<*const CustomKind> = new.kinds().iter().map(Arc::as_ptr).collect();
        old.kinds().iter().filter(|kind| !kept.contains(&Arc::as_ptr(kind))).for_each(|kind| kind.end());
        self.changes.send_replace(());
    }

    /// A kind by what it is served as.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<dyn KindOps>> {
        let found = Arc::clone(self.newest().find(group, version, plural)?);
        Some(found)
    }

    /// A kind by what its objects say.
    #[must_use]
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<dyn KindOps>> {
        let found = Arc::clone(self.newest().find_kind(group, version, kind)?);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_kubernetes_order() {
        let mut versions = ["foo1", "v1", "v10", "v3beta1", "v11alpha2", "v2", "v11beta2", "v12alpha1", "foo10", "v3"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_order(version)));
        assert_eq!(
            versions,
            ["v10", "v3", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
}
