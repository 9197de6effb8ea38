//! Stored versions of objects as another of their kind's versions has them, where a webhook converts.
//!
//! Everything else converts where objects are decoded. Here it is done before, on stored bytes, because it waits for
//! somebody: an entry comes out with the value it would have if it were stored in the version wanted.

use std::sync::Arc;

use bytes::Bytes;
use coracle_store::{Entry, Revision};

use super::write::{encode, unstored};
use crate::{
    ops::{AnyObject, KindOps, TypeMeta},
    status_of::{self, Result},
};

fn version_of(json: &[u8]) -> String {
    serde_json::from_slice(json).map(|said: TypeMeta| said.api_version).unwrap_or_default()
}

/// The entries with their values in the kind's own version; all that are not are converted at once.
///
/// # Errors
/// 500 with the webhook's own words, or why it has none.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn seen_as(kind: &dyn KindOps, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>> {
    let Some(converter) = kind.converter() else { return Ok(entries) };
    let wanted = kind.resource().api_version();
    let others: Vec<usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| !entry.is_tombstone() && version_of(&entry.value) != wanted)
        .map(|(at, _)| at)
        .collect();
    let values: Vec<&[u8]> = others.iter().filter_map(|at| Some(&entries.get(*at)?.value[..])).collect();
    let converted = converter.convert(&wanted, &values).await.map_err(|error| status_of::conversion(&error))?;
    for (at, value) in others.into_iter().zip(converted) {
        if let Some(entry) = entries.get_mut(at) {
            *entry = Arc::new(Entry { value: value.into(), derived: Default::default(), ..(**entry).clone() });
        }
    }
    Ok(entries)
}

/// [`seen_as`] of one entry.
///
/// # Errors
/// As there.
pub(crate) async fn one_seen_as(kind: &dyn KindOps, entry: Arc<Entry>) -> Result<Arc<Entry>> {
    if kind.converter().is_none() {
        return Ok(entry);
    }
    let mut seen = seen_as(kind, vec![Arc::clone(&entry)]).await?;
    Ok(seen.pop().unwrap_or(entry))
}

/// Encoded bytes of the kind's own version as they are stored.
///
/// # Errors
/// As [`seen_as`].
pub(crate) async fn to_store(kind: &dyn KindOps, value: Vec<u8>) -> Result<Vec<u8>> {
    let Some(converter) = kind.converter() else { return Ok(value) };
    if version_of(&value) == converter.storage() {
        return Ok(value);
    }
    let converted = converter.convert(converter.storage(), &[&value]).await;
    let mut converted = converted.map_err(|error| status_of::conversion(&error))?;
    Ok(converted.pop().unwrap_or(value))
}

/// Encoded bytes of one version of a kind as another of its versions has them.
///
/// # Errors
/// As [`seen_as`].
pub(crate) async fn between(to: &dyn KindOps, value: Vec<u8>) -> Result<Vec<u8>> {
    let entry = unstored(Bytes::new(), value, Revision::NONE);
    Ok(one_seen_as(to, entry).await?.value.to_vec())
}

/// What a write that changes nothing of `old` is encoded to: the stored bytes, unless those are of another version and
/// had to be `seen` otherwise.
pub(super) fn unchanged(
    kind: &dyn KindOps,
    stored: &Arc<Entry>,
    seen: &Arc<Entry>,
    old: &dyn AnyObject,
) -> Result<Bytes> {
    if Arc::ptr_eq(stored, seen) {
        return Ok(stored.value.clone());
    }
    let mut bare = old.copied();
    bare.meta_mut().resource_version = None;
    encode(kind, &*bare).map(Bytes::from)
}

/// Whether the value is of the version that objects are stored in.
pub(super) fn is_in_storage_version(kind: &dyn KindOps, value: &[u8]) -> bool {
    kind.converter().is_none_or(|converter| version_of(value) == converter.storage())
}
