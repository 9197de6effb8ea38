//! What the store holds under a key, and what it tells when that changes.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use crate::revision::{LeaseId, Revision};

/// One version of one key. Immutable, and shared by ranges, watches and history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// The revision at which the key came to be (after its last deletion); [`Revision::NONE`] for a tombstone.
    pub create_revision: Revision,
    /// The revision of this version.
    pub mod_revision: Revision,
    /// Counts the versions since the key came to be, from 1; 0 for a tombstone.
    pub version: u64,
    /// The lease that takes the key with it when it ends.
    pub lease: Option<LeaseId>,
    /// What the reader worked out from this version; see [`Entry::derived`].
    pub derived: Derived,
}

impl Entry {
    /// What `make` works out from this version: computed once and kept beside it, for one type `T` per store.
    ///
    /// The slot belongs to whoever comes first. A second type is not an error, only computed anew every time.
    pub fn derived<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        self.derived.get_or_make(|| make(self))
    }

    /// Whether this marks the key's deletion.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created (`entry.version == 1`) or changed.
    Put,
    /// It was deleted, by a request or with its lease.
    Delete,
}

/// One change of one key. Immutable, and shared by all watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a deletion a tombstone whose `mod_revision` is the deletion's.
    pub entry: Arc<Entry>,
    /// The version before; none if the key was not there.
    pub previous: Option<Arc<Entry>>,
    /// What the first watcher worked out from this event; see [`Event::derived`].
    pub derived: Derived,
}

impl Event {
    /// As [`Entry::derived`], for the event (an encoded line of a watch, say).
    pub fn derived<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        self.derived.get_or_make(|| make(self))
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.entry.mod_revision
    }
}

/// A slot for one value worked out from its neighbours. It takes no part in comparisons.
#[derive(Clone, Default)]
pub struct Derived(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Derived {
    /// Two who come at the same time may both compute; both then get the one that was kept.
    fn get_or_make<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(slot) = self.0.get() {
            return Arc::clone(slot).downcast().unwrap_or_else(|_| Arc::new(make()));
        }
        let made = Arc::new(make());
        let slot = self.0.get_or_init(|| Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        Arc::clone(slot).downcast().unwrap_or(made)
    }
}

impl Derived {
    /// As [`Entry::derived`], for what cannot always be made: then the slot stays empty.
    pub(crate) fn get_or_try<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        if let Some(kept) = self.0.get().and_then(|slot| Arc::clone(slot).downcast().ok()) {
            return Some(kept);
        }
        let made = make()?;
        Some(self.get_or_make(|| made))
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Derived(filled)" } else { "Derived(empty)" })
    }
}

impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Derived {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_is_computed_once_for_the_first_type_and_anew_for_others() {
        let derived = Derived::default();
        assert_eq!(*derived.get_or_make(|| 1_u32), 1);
        assert_eq!(*derived.get_or_make(|| 2_u32), 1);
        assert_eq!(*derived.get_or_make(|| "x"), "x");
        assert_eq!(*derived.get_or_make(|| "y"), "y");
    }
}
