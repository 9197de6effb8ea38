//! Values that are kept otherwise than they are read: what a [`Seal`] makes of them on their way in and back.
//!
//! The store replicates, compares, logs and checkpoints what is kept, and knows nothing of what it means. A handle with a
//! seal ([`crate::Store::sealed_by`]) shows the values as they were written; one without shows them as they are kept.
//! What was opened is kept beside the sealed version, so that all readers and watchers share it.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    entry::{Derived, Entry, Event},
    error::{Error, Result},
    history::Batch,
    range::RangeResult,
    txn::{Change, Op, OpResult, Txn, TxnResult},
};

/// Turns values into what is kept of them, and back.
pub trait Seal: fmt::Debug + Send + Sync {
    /// What is kept of a value that is written to `key`; none: the value itself.
    ///
    /// # Errors
    /// Why it cannot be written, in words.
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, String>;

    /// Whether this may be something that was sealed: looked at for every value that is read, so it should cost nothing.
    fn is_sealed(&self, kept: &[u8]) -> bool;

    /// The value of which `kept` is kept under `key`.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    fn open(&self, key: &[u8], kept: &[u8]) -> Result<Bytes, String>;
}

/// A sealed version as it is read.
struct OpenedEntry(Arc<Entry>);

/// A change of sealed versions as it is read.
struct OpenedEvent(Arc<Event>);

/// Seals what a transaction puts.
pub(crate) fn seal(seal: &dyn Seal, txn: &mut Txn) -> Result<()> {
    for op in txn.then.iter_mut().chain(&mut txn.or_else) {
        match op {
            Op::Put { key, value, .. } | Op::Amend { key, change: Change::Value(value) } => {
                let sealed =
                    seal.seal(key, value).map_err(|why| Error::Sealed { key: key.clone(), why: why.into() })?;
                if let Some(sealed) = sealed {
                    *value = sealed;
                }
            }
            Op::Txn(within) => self::seal(seal, within)?,
            Op::Amend { change: Change::Lease(_) | Change::Nothing, .. } | Op::Delete { .. } | Op::Get(_) => {}
        }
    }
    Ok(())
}

/// A version as it is read.
pub(crate) fn entry(seal: &dyn Seal, kept: &Arc<Entry>) -> Result<Arc<Entry>> {
    if !seal.is_sealed(&kept.value) {
        return Ok(Arc::clone(kept));
    }
    let mut failed = None;
    let opened = kept.derived.get_or_try(|| match seal.open(&kept.key, &kept.value) {
        Ok(value) => Some(OpenedEntry(Arc::new(Entry { value, derived: Derived::default(), ..Entry::clone(kept) }))),
        Err(why) => {
            failed = Some(why);
            None
        }
    });
    match opened {
        Some(opened) => Ok(Arc::clone(&opened.0)),
        None => Err(Error::Sealed { key: kept.key.clone(), why: failed.unwrap_or_default().into() }),
    }
}

/// A range as it is read.
pub(crate) fn range(seal: &dyn Seal, mut found: RangeResult) -> Result<RangeResult> {
    for kept in &mut found.entries {
        if seal.is_sealed(&kept.value) {
            *kept = entry(seal, kept)?;
        }
    }
    Ok(found)
}

/// What a transaction did, as it is read.
pub(crate) fn txn(seal: &dyn Seal, mut done: TxnResult) -> Result<TxnResult> {
    for result in &mut done.results {
        match result {
            OpResult::Put { entry: kept, previous } => {
                *kept = entry(seal, kept)?;
                // Whoever overwrites what cannot be read any more shall not fail after he did.
                *previous = previous.take().map(|kept| entry(seal, &kept).unwrap_or(kept));
            }
            OpResult::Deleted(gone) => {
                for kept in gone {
                    if let Ok(opened) = entry(seal, kept) {
                        *kept = opened;
                    }
                }
            }
            OpResult::Got(found) => *found = range(seal, std::mem::take(found))?,
            OpResult::Txn(within) => *within = txn(seal, std::mem::take(within))?,
        }
    }
    Ok(done)
}

/// Changes as they are read.
pub(crate) fn batch(seal: &dyn Seal, batch: Batch) -> Result<Batch> {
    let is_sealed = |event: &Arc<Event>| {
        seal.is_sealed(&event.entry.value) || event.previous.as_ref().is_some_and(|kept| seal.is_sealed(&kept.value))
    };
    if !batch.events.iter().any(is_sealed) {
        return Ok(batch);
    }
    let open = |event: &Arc<Event>| {
        if is_sealed(event) { self::event(seal, event) } else { Ok(Arc::clone(event)) }
    };
    let events = batch.events.iter().map(open).collect::<Result<_>>()?;
    Ok(Batch { events, ..batch })
}

fn event(seal: &dyn Seal, kept: &Arc<Event>) -> Result<Arc<Event>> {
    // Outside the slot, whose maker cannot fail: both versions are opened in their own slots once.
    let new = entry(seal, &kept.entry)?;
    let previous = kept.previous.as_ref().map(|kept| entry(seal, kept)).transpose()?;
    let opened = kept.derived(|kept| {
        OpenedEvent(Arc::new(Event { kind: kept.kind, entry: new, previous, derived: Derived::default() }))
    });
    Ok(Arc::clone(&opened.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Range, Store, WatchRequest, revision::Revision};

    /// Turns the bits of what is under `s` round, but for what it does not know.
    #[derive(Debug)]
    struct Turned(u8);

    impl Seal for Turned {
        fn seal(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, String> {
            Ok(key.starts_with(b"s").then(|| {
                [b"~", &[self.0][..]].concat().into_iter().chain(value.iter().map(|byte| byte ^ self.0)).collect()
            }))
        }

        fn is_sealed(&self, kept: &[u8]) -> bool {
            kept.first() == Some(&b'~')
        }

        fn open(&self, _: &[u8], kept: &[u8]) -> Result<Bytes, String> {
            if kept[1] != self.0 {
                return Err("another key".to_owned());
            }
            Ok(kept[2..].iter().map(|byte| byte ^ self.0).collect())
        }
    }

    fn put(key: &'static str, value: &'static str) -> Txn {
        Txn { then: vec![Op::put(key, value)], ..Txn::default() }
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_written_and_what_is_kept_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, driver) = Store::open(Config::new(dir.path())).await.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(driver.run(stop.clone()));
        let store = plain.sealed_by(Arc::new(Turned(7)));
        let mut live = store.watch(WatchRequest::prefix("", Revision::NONE)).unwrap();
        let done = store.txn(put("s/1", "secret")).await.unwrap();
        let OpResult::Put { entry, .. } = &done.results[0] else { panic!() };
        assert_eq!(entry.value, "secret");
        store.txn(put("o/1", "open")).await.unwrap();
        // What was there before anybody sealed anything is read on.
        plain.txn(put("s/2", "old")).await.unwrap();
        assert_eq!(plain.get(b"s/1").unwrap().value[0], b'~');
        assert_eq!(plain.get(b"o/1").unwrap().value, "open");
        let opened = store.get(b"s/1").unwrap();
        assert_eq!(opened.value, "secret");
        assert!(Arc::ptr_eq(&opened, &store.get(b"s/1").unwrap()), "it is opened once");
        let found = store.range(&Range::prefix("")).unwrap();
        assert_eq!(
            found.entries.iter().map(|entry| &entry.value[..]).collect::<Vec<_>>(),
            [&b"open"[..], b"secret", b"old"]
        );
        let done = store.txn(put("s/1", "second")).await.unwrap();
        let OpResult::Put { previous, .. } = &done.results[0] else { panic!() };
        assert_eq!(previous.as_ref().unwrap().value, "secret");
        let mut late = store.watch(WatchRequest::prefix("", Revision(2))).unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let (one, two) = (live.next().await.unwrap().unwrap(), late.next().await.unwrap().unwrap());
            assert_eq!(one, two);
            assert!(Arc::ptr_eq(&one.events[0], &two.events[0]), "watchers share it");
            seen.push(one.events[0].entry.value.clone());
        }
        assert_eq!(seen, ["secret", "open", "old", "second"]);

        // With another key there is an error and no garbage.
        let wrong = plain.sealed_by(Arc::new(Turned(9)));
        plain.txn(put("s/3", "~\u{7}tdx")).await.unwrap();
        let refused = wrong.range(&Range::prefix("s/3")).unwrap_err();
        assert_eq!(refused.to_string(), "value of key b\"s/3\" cannot be sealed or opened: another key");
        assert_eq!(wrong.get(b"s/3").unwrap().value, "~\u{7}tdx", "as it is kept");
        let mut watch = wrong.watch(WatchRequest::prefix("s/3", Revision(2))).unwrap();
        assert!(matches!(watch.next().await, Some(Err(Error::Sealed { .. }))));
        assert!(watch.next().await.is_none());
        wrong.txn(put("s/3", "new")).await.unwrap();
        stop.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
    }
}
