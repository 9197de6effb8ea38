//! What admission has to tell besides yes and no: warnings for the client, annotations for the audit, and how long it
//! waited for others.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Annotations and warnings that one request may gather; a webhook may send many.
const MOST: usize = 256;

/// Gathered while a request is admitted.
#[derive(Debug, Default)]
pub struct Notes {
    told: Mutex<Told>,
    /// Nanoseconds.
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    fn with<T>(&self, change: impl FnOnce(&mut Told) -> T) -> T {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A sentence for a `Warning` header; the same one is sent once.
    pub fn warn(&self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        self.with(|told| {
            if !sentence.is_empty() && told.warnings.len() < MOST && !told.warnings.contains(&sentence) {
                told.warnings.push(sentence);
            }
        });
    }

    /// An annotation of the request's audit event; the first of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        self.with(|told| {
            if told.annotations.len() < MOST {
                told.annotations.entry(key).or_insert(value);
            }
        });
    }

    /// Somebody else was waited for.
    pub(crate) fn waited(&self, duration: Duration) {
        self.waited.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long others were waited for so far.
    pub(crate) fn waited_for(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The warnings so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.with(|told| told.warnings.clone())
    }

    /// The annotations so far.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.with(|told| told.annotations.clone())
    }
}
