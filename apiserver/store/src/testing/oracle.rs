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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writes, of which the first is acknowledged; a follower, a reader.
    fn told() -> Oracle {
        let mut oracle = Oracle::default();
        let (first, _) = (oracle.writes.begin("a", "1"), oracle.writes.begin("b", "1"));
        oracle.watches.follow((1, 1), 1);
        oracle.watches.hear((1, 1), 2, [("a".to_owned(), Some("1".to_owned()))].into());
        oracle.writes.done(first, 2);
        let acknowledged = oracle.begin_read();
        oracle.reads.newest(acknowledged, 2, "a", Some("1".to_owned()));
        oracle.reads.any(1, "a", None);
        oracle.monotonic.tell((1, 1), 0, 2);
        oracle
    }

    fn change(key: &str, value: Option<&str>) -> Changes {
        [(key.to_owned(), value.map(str::to_owned))].into()
    }

    /// What is told beside.
    type Story = fn(&mut Oracle);

    #[test]
    fn what_cannot_be_true_is_found_out() {
        told().judge(2);
        let stories: [(&str, Story); 13] = [
            ("a revision nobody heard of", |oracle| oracle.judge(3)),
            ("an acknowledged write that was not done", |oracle| {
                let lost = oracle.writes.begin("c", "1");
                oracle.writes.done(lost, 3);
                oracle.watches.hear((1, 1), 3, change("d", Some("1")));
            }),
            ("one that was done elsewhere", |oracle| {
                oracle.watches.hear((1, 1), 3, change("b", Some("1")));
                oracle.watches.hear((1, 1), 4, change("c", Some("1")));
                oracle.writes.done(1, 4);
            }),
            ("a refused write that was done", |oracle| {
                oracle.writes.refused(1);
                oracle.watches.hear((1, 1), 3, change("b", Some("1")));
            }),
            ("a write before one that was acknowledged when it began", |oracle| {
                let late = oracle.writes.begin("c", "1");
                oracle.writes.done(late, 2);
            }),
            ("one that was left open, and done before that", |oracle| {
                oracle.writes.begin("a", "1");
            }),
            ("a read that misses what was acknowledged", |oracle| {
                oracle.reads.newest(oracle.begin_read(), 1, "a", None)
            }),
            ("a read of something that was not there", |oracle| oracle.reads.any(2, "b", Some("1".to_owned()))),
            ("a read of something that was gone", |oracle| {
                oracle.watches.hear((1, 1), 3, change("a", None));
                oracle.reads.any(3, "a", Some("1".to_owned()));
            }),
            ("a revision that is left out", |oracle| oracle.watches.hear((1, 1), 4, Changes::new())),
            ("a revision twice", |oracle| oracle.watches.hear((1, 1), 2, change("a", Some("1")))),
            ("two that hear something else", |oracle| {
                oracle.watches.follow((2, 1), 1);
                oracle.watches.hear((2, 1), 2, change("a", Some("2")));
            }),
            ("one that goes back", |oracle| oracle.monotonic.tell((1, 1), oracle.monotonic.ask((1, 1)), 1)),
        ];
        for (what, story) in stories {
            let judged = std::panic::catch_unwind(|| {
                let mut oracle = told();
                story(&mut oracle);
                let last = oracle.watches.history(2).len() as u64;
                oracle.judge(last);
            });
            assert!(judged.is_err(), "{what} is believed");
        }
    }
}
