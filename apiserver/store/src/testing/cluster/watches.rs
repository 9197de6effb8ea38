//! Invariant: who follows a member's changes hears each revision once and in order, and has at any time the state the log
//! says; or is told to read anew.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::writes::Writes;
use crate::{
    entry::{Event, EventKind},
    error::Error,
    history::Batch,
    revision::Revision,
    shared::Shared,
    testing::{
        model::{Facts, fact},
        oracle::{Changes, Oracle},
    },
    watch::{Buffer, WatchRequest, Watcher},
};

/// A value as the oracle compares it: itself, or a checksum.
pub(super) fn shown(value: &[u8]) -> String {
    if value.len() <= 16 {
        return String::from_utf8_lossy(value).into_owned();
    }
    format!("{} bytes {:x}", value.len(), crc32fast::hash(value))
}

fn changes(batch: &Batch) -> Changes {
    let change = |event: &Arc<Event>| {
        let value = (event.kind == EventKind::Put).then(|| shown(&event.entry.value));
        (String::from_utf8_lossy(&event.entry.key).into_owned(), value)
    };
    batch.events.iter().map(change).collect()
}

/// A client that follows one member in one of its lives.
#[derive(Default)]
pub(super) struct Follower {
    watcher: Option<Watcher>,
    heard: u64,
    followed: Facts,
    pub(super) anew: u64,
}

impl Follower {
    pub(super) fn follow(&mut self, who: (u64, u64), shared: &Arc<Shared>, writes: &Writes, oracle: &mut Oracle) {
        while shared.hand_out() {}
        loop {
            let Some(watcher) = &mut self.watcher else {
                self.read_anew(shared, writes);
                oracle.watches.follow(who, self.heard);
                return;
            };
            let polled = {
                let mut next = pin!(watcher.next());
                next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            match polled {
                Poll::Ready(Some(Ok(batch))) => {
                    self.heard = batch.revision.0;
                    oracle.watches.hear(who, self.heard, changes(&batch));
                    for event in batch.events.iter() {
                        let (key, new) = fact(&event.entry);
                        match event.kind {
                            EventKind::Put => drop(self.followed.insert(key, new)),
                            EventKind::Delete => drop(self.followed.remove(&key)),
                        }
                    }
                }
                Poll::Ready(Some(Err(Error::Compacted { .. }))) => self.watcher = None,
                Poll::Ready(other) => panic!("the watch ended: {other:?}"),
                Poll::Pending => break,
            }
        }
        if self.heard == shared.read().revision().0 {
            assert_eq!(&self.followed, writes.model.at(self.heard));
        }
    }

    fn read_anew(&mut self, shared: &Arc<Shared>, writes: &Writes) {
        self.anew += 1;
        self.heard = shared.read().revision().0;
        self.followed = writes.model.at(self.heard).clone();
        let request = WatchRequest {
            buffer: Buffer { events: 1 << 20, bytes: usize::MAX },
            ..WatchRequest::prefix("", Revision(self.heard + 1))
        };
        self.watcher = Some(Watcher::new(Arc::clone(shared), request).unwrap());
    }
}
