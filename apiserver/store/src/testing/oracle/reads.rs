//! Invariant of reads: what is shown is what was there at the revision that is told with it; and who waited for the newest
//! misses nothing that had been acknowledged before he asked.

use super::Changes;

#[derive(Debug)]
struct Read {
    revision: u64,
    key: String,
    value: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reads(Vec<Read>);

impl Reads {
    /// A read of the newest, begun when `acknowledged` had been.
    pub(crate) fn newest(&mut self, acknowledged: u64, revision: u64, key: &str, value: Option<String>) {
        assert!(revision >= acknowledged, "a read at {revision} began when {acknowledged} had been acknowledged");
        self.any(revision, key, value);
    }

    /// A read of what whoever is asked has.
    pub(crate) fn any(&mut self, revision: u64, key: &str, value: Option<String>) {
        self.0.push(Read { revision, key: key.to_owned(), value });
    }

    pub(super) fn judge(&self, history: &[Changes]) {
        let mut reads: Vec<&Read> = self.0.iter().collect();
        reads.sort_by_key(|read| read.revision);
        let mut now = Changes::new();
        let mut upto = 0;
        for read in reads {
            let until = usize::try_from(read.revision).expect("few revisions");
            assert!(until <= history.len(), "{read:?} is of a revision that nobody heard of");
            while upto < until {
                now.extend(history[upto].clone());
                upto += 1;
            }
            let there = now.get(&read.key).cloned().flatten();
            assert_eq!(read.value, there, "a read of {} at {}", read.key, read.revision);
        }
    }
}
