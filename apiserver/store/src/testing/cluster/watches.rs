//! Invariant: who follows a member's changes hears each revision once and in order, and has at any time the state the log
//! says; or is told to read anew.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::writes::Writes;
use crate::{
    entry::EventKind,
    error::Error,
    revision::Revision,
    shared::Shared,
    testing::model::{Facts, fact},
    watch::{Buffer, WatchRequest, Watcher},
};

/// A client that follows one member in one of its lives.
#[derive(Default)]
pub(super) struct Follower {
    watcher: Option<Watcher>,
    heard: u64,
    followed: Facts,
    pub(super) anew: u64,
}

impl Follower {
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, writes: &Writes) {
        while shared.hand_out() {}
        loop {
            let Some(watcher) = &mut self.watcher else {
                self.read_anew(shared, writes);
                return;
            };
            let polled = {
                let mut next = pin!(watcher.next());
                next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            match polled {
                Poll::Ready(Some(Ok(batch))) => {
                    self.heard += 1;
                    assert_eq!(batch.revision.0, self.heard, "each revision once and in order");
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
