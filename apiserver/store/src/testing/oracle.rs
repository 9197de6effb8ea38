//! What clients of one cluster were told, and whether all of it can be true. The simulated cluster is judged by this, and the
//! one of real processes, which has nothing of the store's insides to look at: so this is about what clients see alone, in
//! plain data, and `tests/it` has this very file.
//!
//! One file per invariant:
//!
//! - `writes`: what was acknowledged was done, once, at the revision that was told, and behind all that had been acknowledged
//!   before it began; what was refused was not done.
//! - `reads`: who reads sees what was there at the revision he is told, and misses nothing acknowledged before he began.
//! - `watches`: who follows hears each revision once and in order, and all hear the same of it.
//! - `monotonic`: nobody tells an earlier revision than he told before.

use std::collections::BTreeMap;

pub(crate) use self::{monotonic::Monotonic, reads::Reads, watches::Watches, writes::Writes};

// Named by their paths, which are the same for whoever else names this file.
#[path = "oracle/monotonic.rs"]
mod monotonic;
#[path = "oracle/reads.rs"]
mod reads;
#[path = "oracle/watches.rs"]
mod watches;
#[path = "oracle/writes.rs"]
mod writes;

/// What a revision changed: the new values of keys; none of those that were deleted.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
    pub(crate) watches: Watches,
    pub(crate) monotonic: Monotonic,
}

impl Oracle {
    /// A client begins to read: what it may not miss.
    pub(crate) fn begin_read(&self) -> u64 {
        self.writes.acknowledged()
    }

    /// The end: everything told is compared with what was heard of each revision, up to `last` at least.
    pub(crate) fn judge(&self, last: u64) {
        let history = self.watches.history(last);
        self.writes.judge(&history);
        self.reads.judge(&history);
    }
}
