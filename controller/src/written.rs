//! How far a controller's own writes have come, for each object it looks after: what is older is not acted on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::object_key::ObjectKey;

/// The highest resourceVersion written for each object. Bounded by the objects there are: who looks after one forgets it
/// when it is gone.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<HashMap<ObjectKey, u64>>);

impl Written {
    /// The last one written for this object; 0 when there is none.
    pub(crate) fn of(&self, key: &ObjectKey) -> u64 {
        self.lock().get(key).copied().unwrap_or_default()
    }

    /// Something was written for this object, and got this resourceVersion.
    pub(crate) fn note(&self, key: &ObjectKey, version: u64) {
        let mut written = self.lock();
        let last = written.entry(key.clone()).or_default();
        *last = (*last).max(version);
    }

    /// The object is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
