//! Saying the same thing seldom: what many requests run into is logged once in a while, with how often it was not.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Between two log lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// One kind of log line. Costs two atomic operations and no lock.
#[derive(Debug)]
pub(crate) struct Seldom {
    began: OnceLock<Instant>,
    /// From when on it may be said again, in milliseconds after `began`.
    from: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self { began: OnceLock::new(), from: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// How often it was left unsaid, if it is to be said now.
    pub(crate) fn next(&self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(*self.began.get_or_init(|| now));
        let (now, until) = (milliseconds(passed), milliseconds(passed + PAUSE));
        let from = self.from.load(Ordering::Relaxed);
        // Of several at the same time one says it.
        if now >= from && self.from.compare_exchange(from, until, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_in_ten_seconds_with_how_often_it_was_not() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let said: Vec<_> = [0, 1, 9_999, 10_000, 10_001, 60_000, 60_001]
            .map(|at| seldom.next(start + Duration::from_millis(at)))
            .into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1), None]);
    }
}
